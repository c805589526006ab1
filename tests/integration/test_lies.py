"""A source that lies, in every way the checks are there for: refused, named, counted, and the tables right.

Whole runs: a lying endpoint is asked first, an honest one stands beside it; engine, store and all in between are real.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from gapless.app import App
from gapless.clock import SystemClock
from gapless.engine import plan
from gapless.engine.observer import Observer
from gapless.engine.runner import Runner
from gapless.schema import from_text
from gapless.sources import SourceStatistics
from gapless.sources.evm.transport import label_of
from gapless.store.memory import MemoryStore
from gapless.testing import block_lies, faults, log_lies
from gapless.testing.chain import ScriptedChain
from gapless.testing.fold import fold
from gapless.testing.node import FakeNode
from gapless.wiring import build_job, wire

BLOCKS = 80
FINAL_DEPTH = 20


@dataclass(frozen=True)
class Lie:
    behaviour: Any
    kinds: frozenset[str]
    """The words under which it may be counted; empty where the answer is no lie but useless."""
    datasets: tuple[str, ...] = ()
    verify: str = "checked"
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def id(self) -> str:
        return f"{type(self.behaviour).__name__}-{self.verify}-{'+'.join(self.datasets) or 'filter'}"


def lie(behaviour: Any, *kinds: str, datasets: tuple[str, ...] = (), verify: str = "checked", **options: Any) -> Lie:
    return Lie(behaviour, frozenset(kinds), datasets, verify, tuple(options.items()))


WHOLE = ("transactions",)
LIES = [
    lie(log_lies.EmptyLogs(), "empty_for_bloom"),
    lie(log_lies.ForeignLogs(), "foreign_log"),
    lie(log_lies.ForeignLogs(disguised=True), "not_in_bloom", "empty_for_bloom", "audit_mismatch", audit="100%"),
    lie(log_lies.DuplicateLog(), "duplicate_log"),
    lie(log_lies.InventedLog(), "not_in_bloom", "not_asked_for"),
    lie(log_lies.NotAskedFor("address"), "not_asked_for", "not_in_bloom"),
    lie(log_lies.NotAskedFor("topic"), "not_asked_for"),
    lie(log_lies.OutOfRangeLog(), "out_of_range_log"),
    lie(log_lies.TamperedLog("removed", True), "removed_log"),
    lie(log_lies.OmitLog("any"), "audit_mismatch", audit="100%"),
    lie(log_lies.OmitLog("covered"), "audit_mismatch", audit="100%"),
    lie(log_lies.OmitLog("any"), "receipts_root", "receipt_mismatch", verify="proved"),
    lie(log_lies.OmitLog("covered"), "receipts_root", "receipt_mismatch", verify="proved"),
    lie(
        log_lies.OmitLog("last"), "bloom_mismatch", "index_gap", "receipts_root", "receipt_mismatch", datasets=("logs",)
    ),
    lie(block_lies.NullBlock(), "null_block"),
    lie(block_lies.WrongNumber(), "wrong_number"),
    lie(block_lies.Unlinked(), "unlinked"),
    lie(block_lies.NullReceipts(), "null_receipt", datasets=WHOLE),
    lie(block_lies.ForeignReceipts(), "receipt_mismatch", "receipt_count", datasets=WHOLE),
    lie(block_lies.ForeignReceipts(disguised=True), "not_in_bloom", "receipt_mismatch", datasets=WHOLE),
    lie(block_lies.ReceiptsMiscounted(-1), "receipt_count", datasets=WHOLE),
    lie(block_lies.ReceiptsMiscounted(1), "receipt_count", "receipt_mismatch", datasets=WHOLE),
    lie(block_lies.TamperedHeader(), "block_hash", verify="proved"),
    lie(block_lies.TamperedTransaction(), "transaction_hash", "transactions_root", verify="proved"),
    lie(block_lies.TamperedReceipt(), "receipts_root", verify="proved"),
    lie(faults.Html(status=200)),
    lie(faults.Html(status=502)),
    lie(faults.CutBody()),
    lie(faults.InvalidJson()),
    lie(faults.ServerError()),
    lie(faults.CloseConnection()),
    lie(faults.WrongId()),
    lie(faults.BatchIncomplete()),
    lie(faults.BatchReversed()),
    lie(faults.TooManyRequests(retry_after=0.05)),
]


class Heard(Observer):
    def __init__(self) -> None:
        self.statistics = SourceStatistics()

    def source_statistics(self, source: str, statistics: SourceStatistics) -> None:
        self.statistics = statistics


async def index(app: App, store: MemoryStore) -> Heard:
    clock, heard = SystemClock(1), Heard()
    schema, wired = wire(app)
    store.open(schema, create=True)
    job = await build_job(app, wired["chain"], store, clock, until=plan.Until.HEAD)
    async with asyncio.timeout(40):
        await Runner([job], schema, store, clock, heard, 15.0).run()
    return heard


def transfers(store: MemoryStore, app: App) -> list[tuple[Any, ...]]:
    table = wire(app)[0].table("token_transfer")
    columns, _ = store.facts(table, 0, 10**9)
    return [
        tuple(from_text(c, v) for c, v in zip(table.columns, row, strict=True)) for row in zip(*columns, strict=True)
    ]


def expected(chain: ScriptedChain) -> list[tuple[int, int, str, str, int]]:
    return [(t.block_number, t.log_index, t.from_, t.to_, t.value) for t in fold(chain).transfers]


@pytest.mark.parametrize("told", LIES, ids=lambda t: t.id)
def test_no_lie_is_believed(told: Lie, tmp_path: Path) -> None:
    """Beside an honest endpoint, a liar changes nothing but its own counters."""
    chain = ScriptedChain(seed=7, finalized_distance=FINAL_DEPTH, holders=3)
    chain.mine(BLOCKS, logs=4)
    with FakeNode(chain) as liar, FakeNode(chain) as honest:
        honest.behave(faults.Late(0.03))  # so that the liar is the one preferred
        switch = liar.behave(told.behaviour, first=1)
        app = App("app", base=tmp_path)
        source = app.evm(
            "chain",
            rpc=[liar.url, honest.url],
            verify=told.verify,
            datasets=list(told.datasets),
            span_max=16,
            timeout="2 seconds",
            **dict(told.options),
        )
        source.contract("token", abi="erc20", events=["Transfer"])
        store = MemoryStore()
        with structlog.testing.capture_logs() as said:
            heard = asyncio.run(index(app, store))
        rows = [(r[0], r[5], r[7], r[8], r[9]) for r in transfers(store, app)]
        assert rows == expected(chain)
        assert switch.used > 0, "the liar was never asked"
    if told.kinds:
        counted = {k for k, n in heard.statistics.contradictions.items() if n}
        assert counted & told.kinds, f"counted {counted} instead"
        named = {(line["kind"], line["endpoint"]) for line in said if line["event"] == "answer refused"}
        assert named & {(kind, label_of(liar.url)) for kind in told.kinds}, f"named {named} instead"
        lags = any(kind.startswith("null_") for kind in told.kinds)  # a node that is behind is not a liar
        assert lags or sum(e.lies for e in heard.statistics.endpoints) > 0

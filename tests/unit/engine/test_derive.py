"""From segments to batches with handlers, state and facts of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from gapless.declare import UInt256, bind, key
from gapless.engine.derive import Deriver
from gapless.engine.handlers import Handler
from gapless.engine.state import Key
from gapless.errors import StoreUnavailable
from gapless.model import Entry, Evidence, Segment
from gapless.schema import Table
from gapless.store import StateRow
from unit.engine.scripted import ListDecoder


@dataclass(frozen=True)
class Total:
    name: str = key()
    value: UInt256 = 0


@dataclass(frozen=True)
class Seen:
    amount: UInt256
    note: str | None


TOTAL = bind(Total, "s")
SEEN = bind(Seen, "s")


def segment(first: int, payload: list[list[int]]) -> Segment[list[list[int]]]:
    entries = tuple(
        Entry(first + i, f"id{first + i}", f"id{first + i - 1}", 0, Evidence.CHECKED) for i in range(len(payload))
    )
    return Segment("s", entries, payload, 0)


def add(transfer: Any, tables: Any) -> None:
    total = tables[Total].get("all")
    tables[Total].put(Total("all", (total.value if total else 0) + transfer.value))
    tables.seen.insert(Seen(transfer.value, "big" if transfer.value > 99 else None))
    if transfer.value == 13:
        raise ValueError("thirteen")


def deriver(function: Any = add, *, stateless: bool = False, **options: bool) -> Deriver:
    def read(_table: Table, _keys: Sequence[Key]) -> dict[Key, StateRow]:
        return {}

    handler = Handler("add", "token.Transfer", function, **options)
    return Deriver("s", ListDecoder(), [handler], [TOTAL, SEEN], None if stateless else read, 1000)


def table(batch: Any, name: str) -> list[tuple[str | None, ...]]:
    return [row for rows in batch.rows if rows.table.name == name for row in zip(*rows.columns, strict=True)]


def test_facts_state_and_undo_of_a_batch() -> None:
    """Handlers run in chain order; facts carry where they came from; undo is kept for what is not final only."""
    derived = deriver().derive(segment(5, [[1, 2], [], [100]]), finalized=5)
    assert derived.failure is None
    batch = derived.batch
    assert batch is not None
    assert table(batch, "seen") == [
        ("5", "0", "0", "1", None),
        ("5", "1", "0", "2", None),
        ("7", "0", "0", "100", "big"),
    ]
    assert [(c.values, c.position) for c in batch.changes] == [(("all", "103"), 7)]
    assert [(u.position, u.previous) for u in batch.undo] == [(7, ("all", "3"))]
    assert batch.counts == (4, 0, 2)


def test_handlers_see_events_in_chain_order() -> None:
    """By block, then by log index: what the last event of a block says is what stays."""
    seen: list[tuple[int, int]] = []

    def note(transfer: Any, _tables: Any) -> None:
        seen.append((transfer.block_number, transfer.log_index))

    deriver(note).derive(segment(5, [[1, 2, 3], [], [4, 5]]), finalized=-1)
    assert seen == [(5, 0), (5, 1), (5, 2), (7, 0), (7, 1)]


def test_undo_begins_right_above_what_is_final() -> None:
    """The newest final block has no undo records, the next one has."""
    batch = deriver().derive(segment(5, [[1], [2], [3]]), finalized=5).batch
    assert batch is not None
    assert [u.position for u in batch.undo] == [6, 7]


def test_digests_do_not_depend_on_batching() -> None:
    """The same entries give the same digests, changes included, in one batch or in many."""
    whole = deriver().derive(segment(0, [[1], [2, 3], [], [4]]), finalized=-1).batch
    single = deriver()
    digests: list[str] = []
    for position, values in enumerate([[1], [2, 3], [], [4]]):
        part = single.derive(segment(position, [values]), finalized=-1).batch
        assert part is not None
        digests += part.digests
    assert whole is not None
    assert list(whole.digests) == digests
    assert part.changes[-1].values == whole.changes[-1].values == ("all", "10")


def test_a_failing_handler_stops_its_block_and_keeps_those_before() -> None:
    """The batch ends below the failing block; the error names block, transaction and log; nothing of it remains."""
    derived = deriver().derive(segment(0, [[1], [5, 13], [2]]), finalized=-1)
    assert derived.batch is not None
    assert [e.position for e in derived.batch.entries] == [0]
    assert [c.values for c in derived.batch.changes] == [("all", "1")]
    assert len(table(derived.batch, "seen")) == 1
    assert str(derived.failure).startswith(
        f"Handler 'add' raised ValueError: thirteen at block 1, transaction 0x{'11' * 32}, log 1"
    )


def test_a_failure_in_the_first_block_gives_no_batch() -> None:
    """Nothing is committed where nothing could be handled."""
    derived = deriver().derive(segment(0, [[13]]), finalized=-1)
    assert derived.batch is None
    assert derived.failure is not None


def test_an_independent_handler_quarantines_the_event_alone() -> None:
    """Its state and facts of the failing event are taken back; siblings stay."""
    derived = deriver(independent=True).derive(segment(0, [[1, 13, 2]]), finalized=-1)
    assert derived.failure is None
    batch = derived.batch
    assert batch is not None
    assert [c.values for c in batch.changes] == [("all", "3")]
    assert [row[3] for row in table(batch, "seen")] == ["1", "2"]
    assert [(q.item, q.consumer, q.reason) for q in batch.quarantined] == [("log:1", "add", "ValueError: thirteen")]


def swallowing(transfer: Any, tables: Any) -> None:
    with suppress(Exception):
        add(transfer, tables)


@pytest.mark.parametrize("function", [add, swallowing])
@pytest.mark.parametrize("independent", [True, False])
def test_a_database_that_is_away_is_not_the_handlers_failure(function: Any, independent: bool) -> None:
    """Whatever the handler makes of it: nothing is quarantined, nobody is blamed, and the segment comes again."""

    def away(_table: Table, _keys: Sequence[Key]) -> dict[Key, StateRow]:
        raise StoreUnavailable("the database is away")

    handler = Handler("add", "token.Transfer", function, independent=independent)
    lonely = Deriver("s", ListDecoder(), [handler], [TOTAL, SEEN], away, 1000)
    with pytest.raises(StoreUnavailable):
        lonely.derive(segment(0, [[1]]), finalized=-1)


def test_a_stateless_derivation_skips_what_needs_state() -> None:
    """For repairs in the middle: contract facts are whole, nothing invents state, the skipped tables are named."""
    derived = deriver(stateless=True).derive(segment(3, [[1, 2]]), finalized=-1)
    assert derived.batch is not None
    assert len(table(derived.batch, "token_transfer")) == 2
    assert table(derived.batch, "seen") == []
    assert derived.batch.changes == ()
    assert derived.skipped == {"seen"}


def batch_insert(records: Any, tables: Any) -> None:
    values = [int(v) for v in records.column("value").to_pylist()]
    if 13 in values:
        raise ValueError("thirteen")
    tables[Seen].insert_many(
        block_number=records.column("block_number").to_pylist(),
        log_index=records.column("log_index").to_pylist(),
        amount=values,
        note=[None] * len(values),
    )


def test_batch_handlers_get_arrow_and_insert_facts() -> None:
    """One call for the whole run gives the same rows and digests as one call a block."""
    whole = deriver(batch_insert, batch=True).derive(segment(0, [[1, 2], [3]]), finalized=-1).batch
    assert whole is not None
    assert [row[:4] for row in table(whole, "seen")] == [
        ("0", "0", "0", "1"),
        ("0", "1", "0", "2"),
        ("1", "0", "0", "3"),
    ]
    parts = [
        deriver(batch_insert, batch=True).derive(segment(i, [v]), finalized=-1).batch
        for i, v in enumerate([[1, 2], [3]])
    ]
    assert [d for p in parts if p for d in p.digests] == list(whole.digests)


def test_a_failing_batch_handler_keeps_the_blocks_before() -> None:
    """The run is tried block by block to find the faulty one."""
    derived = deriver(batch_insert, batch=True).derive(segment(0, [[1], [13], [2]]), finalized=-1)
    assert derived.batch is not None
    assert [e.position for e in derived.batch.entries] == [0]
    assert len(table(derived.batch, "seen")) == 1
    assert "at block 1" in str(derived.failure)


@pytest.mark.parametrize(
    "use",
    [
        lambda total: total.get("all"),
        lambda total: total.put(Total("all", 1)),
        lambda total: total.delete("all"),
    ],
    ids=["get", "put", "delete"],
)
def test_a_batch_handler_cannot_use_state(use: Any) -> None:
    """Nobody would know which block changed it, and a fork could not be undone; also after per-event handlers ran."""
    calls: list[int] = []

    def late(_records: Any, tables: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            use(tables[Total])

    handlers = [Handler("add", "token.Transfer", add), Handler("late", "token.Transfer", late, batch=True)]
    mixed = Deriver("s", ListDecoder(), handlers, [TOTAL, SEEN], lambda _table, _keys: {}, 1000)
    first = mixed.derive(segment(0, [[1]]), finalized=-1)
    assert first.batch is not None
    assert len(first.batch.changes) == 1
    second = mixed.derive(segment(1, [[1]]), finalized=-1)
    assert second.batch is None
    assert "is state" in str(second.failure)


@pytest.mark.parametrize("value", [2**256, "x", 1.5, None])
def test_a_value_that_does_not_fit_fails_in_the_handler(value: Any) -> None:
    """Wrong values are refused where they are written, not by the database later."""

    def wrong(_transfer: Any, tables: Any) -> None:
        tables[Seen].insert(Seen(value if value != 2**256 else 10**79, None))

    derived = deriver(wrong).derive(segment(0, [[1]]), finalized=-1)
    assert derived.failure is not None

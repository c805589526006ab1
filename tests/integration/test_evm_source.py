"""The EVM source against a live Anvil: every way to fetch, forks in the middle of it, and heads by push and poll."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gapless.clock import SystemClock
from gapless.errors import WrongChain
from gapless.model import Evidence, Finality, FinalityRule, Segment
from gapless.sources.evm.hints import NewHeads
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.source import EvmSource
from gapless.sources.evm.transport import HttpTransport
from gapless.sources.evm.types import EvmPayload, Log, LogClause, Verify, Wants
from gapless.testing.block import TRANSFER_TOPIC
from servers.anvil import Anvil, build_transfers, start_anvil

pytestmark = pytest.mark.anvil

ALL_LOGS = Wants((), all_logs=True)
WHOLE = Wants((), whole_blocks=True)
BLOCKS = 120
PER_BLOCK = 20


@pytest.fixture(scope="module")
def built(anvil_path: Path) -> Iterator[tuple[Anvil, str]]:
    """A chain that stays as it is, and its token."""
    with start_anvil("--slots-in-an-epoch", "8") as anvil:
        token = build_transfers(anvil, BLOCKS, PER_BLOCK).token
        yield anvil, token


def transfers(token: str) -> Wants:
    return Wants((LogClause(frozenset({token}), frozenset({TRANSFER_TOPIC})),))


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await main()

    return asyncio.run(bounded())


@asynccontextmanager
async def source_of(
    anvil: Anvil, wants: Wants, hints: tuple[NewHeads, ...] = (), **options: Any
) -> AsyncIterator[EvmSource]:
    settings = EvmOptions(**options)
    source = EvmSource("anvil", settings, wants, SystemClock(), [HttpTransport(anvil.url)], hints)
    try:
        yield source
    finally:
        await source.close()


def oracle(anvil: Anvil, first: int, last: int, **filters: Any) -> list[Log]:
    """What the node itself says, asked in one call."""
    logs = anvil.rpc("eth_getLogs", {"fromBlock": hex(first), "toBlock": hex(last), **filters})
    return msgspec.convert(logs, list[Log])


def flat(segment: Segment[EvmPayload]) -> list[Log]:
    return [log for logs in segment.payload.logs for log in logs]


def linked(segment: Segment[EvmPayload]) -> bool:
    return all(child.parent_id == parent.id for parent, child in pairwise(segment.entries))


@pytest.mark.parametrize("level", list(Verify))
def test_every_way_of_fetching_agrees_with_the_node(built: tuple[Anvil, str], level: Verify) -> None:
    """By filter, all logs, and whole blocks, at every level, all logs are those of one `eth_getLogs` call."""
    anvil, token = built
    head_number = anvil.head()
    every = oracle(anvil, 0, head_number)
    mine = oracle(anvil, 0, head_number, address=token, topics=[TRANSFER_TOPIC])
    assert len(mine) >= BLOCKS * PER_BLOCK

    async def main() -> None:
        for wants, expected in ((transfers(token), mine), (ALL_LOGS, every), (WHOLE, every)):
            async with source_of(anvil, wants, verify=level) as source:
                head = await source.head()
                assert head.latest.position == head_number
                segment = await source.fetch(0, head_number, head=head)
                assert flat(segment) == expected
                assert linked(segment)
                assert segment.last.id == head.latest.id
                verdicts = {e.evidence for e in segment.entries}
                levels = {Verify.CHECKED: {Evidence.CHECKED}, Verify.PROVED: {Evidence.PROVED}}
                assert verdicts == levels.get(level, {Evidence.TRUSTED})
                assert source.statistics().errors == {}
                assert source.statistics().contradictions == {}
                if wants is WHOLE:
                    counts = [len(anvil.block(n)["transactions"]) for n in range(head_number + 1)]
                    assert [len(t) for t in segment.payload.transactions] == counts
                    assert [len(r) for r in segment.payload.receipts] == counts

    run(main)


def test_entries_near_anvils_head_are_proved_by_their_receipts(built: tuple[Anvil, str]) -> None:
    """Its receipts have the root its headers commit to, so that nothing can be left out there."""
    anvil, token = built

    async def main() -> None:
        async with source_of(anvil, transfers(token)) as source:
            head = await source.head()
            assert 0 < head.finalized == anvil.head() - 16
            segment = await source.fetch(head.finalized - 4, head.latest.position, head=head)
            assert [e.audited for e in segment.entries] == [False] * 5 + [True] * 16

    run(main)


@pytest.mark.parametrize(
    "rule", [Finality(FinalityRule.TAG, "safe"), Finality(FinalityRule.DEPTH, 12), Finality(FinalityRule.AGE, 120.0)]
)
def test_what_is_final_by_each_rule(built: tuple[Anvil, str], rule: Finality) -> None:
    """Tag, depth and age, checked against the node's own blocks."""
    anvil, token = built
    latest = anvil.block("latest")
    number, time = int(latest["number"], 16), int(latest["timestamp"], 16)
    old_enough = [n for n in range(number + 1) if int(anvil.block(n)["timestamp"], 16) <= time - 120]
    expected = {FinalityRule.TAG: number - 8, FinalityRule.DEPTH: number - 12, FinalityRule.AGE: old_enough[-1]}

    async def main() -> None:
        async with source_of(anvil, transfers(token), finality=rule) as source:
            assert (await source.head()).finalized == expected[rule.rule]

    run(main)


@pytest.mark.parametrize("kind", ["filter", "all logs", "whole"])
def test_forks_in_the_middle_of_a_fetch(anvil: Anvil, kind: str) -> None:
    """Whatever moment the chain is replaced at, what comes is linked, and each block's logs are its own."""
    token = build_transfers(anvil, 40, 10).token
    wants = {"filter": transfers(token), "all logs": ALL_LOGS, "whole": WHOLE}[kind]

    async def main() -> None:
        async with source_of(anvil, wants, request_attempts_max=20) as source:
            top = anvil.head()
            for turn in range(12):
                head = await source.head()
                fetching = asyncio.create_task(source.fetch(1, top, head=head))
                await asyncio.sleep(0.0015 * turn)
                await asyncio.to_thread(anvil.reorg, 5 + turn)
                segment = await fetching
                assert linked(segment)
                for entry, logs in zip(segment.entries, segment.payload.logs, strict=True):
                    assert {log.block_hash for log in logs} <= {entry.id}
            assert source.take_liars() == frozenset()
            head = await source.head()
            final = await source.fetch(1, anvil.head(), head=head)
            filters = {"address": token, "topics": [TRANSFER_TOPIC]} if kind == "filter" else {}
            assert flat(final) == oracle(anvil, 1, anvil.head(), **filters)

    run(main)


def test_the_head_is_seen_by_push_and_by_poll(anvil: Anvil) -> None:
    """A block is known in a moment with a WebSocket, and within a poll without; a rollback is, too."""
    anvil.mine(5)

    async def main() -> None:
        hints = NewHeads(anvil.ws_url, EvmOptions(), SystemClock())
        async with source_of(anvil, ALL_LOGS, (hints,), poll_seconds=10.0) as source:
            known = (await source.head()).latest
            waiting = asyncio.create_task(source.wait_head(known, 20.0))
            while hints.connections == 0:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            began = asyncio.get_running_loop().time()
            await asyncio.to_thread(anvil.mine, 1)
            assert (await waiting).latest.position == 6
            assert asyncio.get_running_loop().time() - began < 1.0
        async with source_of(anvil, ALL_LOGS, poll_seconds=0.2, regression_polls=3) as source:
            known = (await source.head()).latest
            waiting = asyncio.create_task(source.wait_head(known, 20.0))
            await asyncio.sleep(0.1)
            began = asyncio.get_running_loop().time()
            await asyncio.to_thread(anvil.mine, 1)
            known = (await waiting).latest
            assert known.position == 7
            assert asyncio.get_running_loop().time() - began < 1.0
            await asyncio.to_thread(anvil.rollback, 3)
            assert (await source.wait_head(known, 5.0)).latest.position == 4

    run(main)


def test_cursors_find_where_branches_part(anvil: Anvil) -> None:
    """After a fork of seven, the ids below are the old ones and those above are not."""
    anvil.mine(30)

    async def main() -> None:
        async with source_of(anvil, ALL_LOGS) as source:
            positions = list(range(31))
            before = await source.cursors(positions)
            await asyncio.to_thread(anvil.reorg, 7)
            after = await source.cursors([*positions, 31])
            assert [b == a for b, a in zip(before, after, strict=False)] == [True] * 24 + [False] * 7
            assert after[31] is None

    run(main)


def test_another_node_at_the_address_is_refused(anvil_path: Path) -> None:
    """The node is replaced, same port and chain id, another genesis: nothing more is taken from it."""
    with start_anvil() as first:
        first.mine(5)
        port = first.port

        async def main() -> None:
            async with source_of(first, ALL_LOGS) as source:
                identity = await source.identity()
                assert (identity.kind, identity.chain) == ("evm", "31337")
                head = await source.head()
                await asyncio.to_thread(first.stop)
                with start_anvil("--gas-limit", "29000000", port=port) as second:
                    second.mine(9)
                    with pytest.raises(WrongChain):
                        await source.wait_head(head.latest, 5.0)

        run(main)


def test_a_frozen_node_is_waited_for_and_used_again(anvil: Anvil) -> None:
    """Stopped in the middle, thawed later: the fetch comes to its end."""
    token = build_transfers(anvil, 20, 10).token

    async def main() -> None:
        async with source_of(anvil, transfers(token), request_timeout_seconds=0.5) as source:
            head = await source.head()
            anvil.pause()
            try:
                fetching = asyncio.create_task(source.fetch(0, head.latest.position, head=head))
                await asyncio.sleep(1.2)
            finally:
                anvil.resume()
            segment = await fetching
            assert flat(segment) == oracle(anvil, 0, anvil.head(), address=token, topics=[TRANSFER_TOPIC])
            assert source.statistics().errors["timeout"] >= 1

    run(main)

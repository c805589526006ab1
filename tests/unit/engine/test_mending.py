"""Mending what liars served: bounded, resumed, never in the way; and repairs that lose nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gapless.engine.derive import Deriver
from gapless.engine.handlers import Handler
from gapless.engine.mend import RETRY_SECONDS
from gapless.engine.offload import Inline
from gapless.engine.plan import Until
from gapless.engine.repair import DISTRUSTED, Damage, Repairer, find_damage, record_damage, uncovered
from gapless.errors import CursorMoved, SourceUnavailable, StoreUnavailable
from gapless.model import Gap, Head, Mode, Segment
from gapless.testing.fake_clock import FakeClock
from unit.engine.scripted import TABLE, ListDecoder, Payload, ScriptedSource
from unit.engine.world import TOTAL, Total, World


class Slow(ScriptedSource):
    """Takes a tenth of a second for each fetch, and counts those for mending."""

    mended: int = 0

    async def fetch(
        self, first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()
    ) -> Segment[Payload]:
        await asyncio.sleep(0.1)
        self.mended += bool(avoid)
        return await super().fetch(first, last, head=head, avoid=avoid)


def facts_only(world: World) -> None:
    """Without state every range can be replaced."""
    world.handlers = ()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(seed=1)


def long_history(clock: FakeClock, blocks: int) -> World:
    world = World(clock)
    facts_only(world)
    world.source = Slow(span_positions=10)
    for n in range(blocks):
        world.source.mine(n % 90 + 20)
    return world


def indexed(world: World) -> bool:
    """Facts only: `World.exact` would look at state."""
    return world.facts() == world.source.facts()


def test_a_liars_whole_history_does_not_hold_up_following(clock: FakeClock) -> None:
    """With thousands of blocks to fetch again, a new block is there within half a second all the while, and the
    mending gets on meanwhile."""

    async def scenario() -> None:
        world = long_history(clock, 2000)
        await world.runner(until=Until.HEAD).run()
        world.source.liars = frozenset({"one"})
        async with world.running():
            await world.until(lambda: world.source.mined_again() > 3)  # type: ignore[attr-defined]
            slowest = 0.0
            for n in range(30):
                world.source.mine(n + 20)
                began = clock.monotonic()
                await world.until(lambda: indexed(world))
                slowest = max(slowest, clock.monotonic() - began)
                await clock.sleep(0.5)
            assert slowest < 1.0
            at = clock.monotonic()
            await world.until(lambda: world.store.gaps("s") == [], 1000)
            assert clock.monotonic() - at < 200 * 0.1 * 4, "idle, it is mended at half the speed of fetching at least"
        assert {e.entry.served_by for e in world.store.entries("s", 0, 1999)} == {"other"}

    Slow.mined_again = lambda self: self.mended  # type: ignore[attr-defined]
    clock.run(scenario())


def test_mending_goes_on_after_a_restart(clock: FakeClock) -> None:
    """What was mended is cut out of the ledger; the next process takes the rest, and nothing twice."""

    async def scenario() -> None:
        world = long_history(clock, 400)
        await world.runner(until=Until.HEAD).run()
        world.source.liars = frozenset({"one"})
        async with world.running():
            await world.until(lambda: world.source.mended >= 10, 60)  # type: ignore[attr-defined]
        [gap] = world.store.gaps("s")
        assert 0 < gap.first < gap.last == 399
        async with world.running():
            await world.until(lambda: world.store.gaps("s") == [], 60)
        assert world.source.mended <= 42  # type: ignore[attr-defined]

    clock.run(scenario())


def test_liars_are_not_forgotten_when_the_ledger_cannot_be_written(clock: FakeClock) -> None:
    """They are told once; a database that is away at that moment must not make them honest."""

    async def scenario() -> None:
        world = long_history(clock, 30)
        async with world.running():
            await world.until(lambda: indexed(world))
            whole, calls = world.store.record_gap, []

            def record_gap(gap: Gap) -> None:
                calls.append(gap)
                if len(calls) < 3:
                    raise StoreUnavailable("away")
                whole(gap)

            world.store.record_gap = record_gap  # type: ignore[method-assign]
            world.source.liars = frozenset({"one"})
            await world.until(lambda: len(calls) >= 3 and world.store.gaps("s") == [], 60)
        assert {e.entry.served_by for e in world.store.entries("s", 0, 29)} == {"other"}

    clock.run(scenario())


def test_a_range_that_cannot_be_mended_does_not_keep_others_waiting(clock: FakeClock) -> None:
    """Those tried least often come first; each failure is counted in the ledger, and pauses the mending."""

    async def scenario() -> None:
        world = long_history(clock, 100)
        await world.runner(until=Until.HEAD).run()
        for first in (0, 50):
            world.store.record_gap(Gap("s", first, first + 9, DISTRUSTED + "one", 0))
        whole = world.source.fetch

        async def fetch(first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()) -> Segment[Payload]:
            if avoid and first < 10:
                world.source.mended += 1  # type: ignore[attr-defined]
                raise SourceUnavailable("nobody else has it")
            return await whole(first, last, head=head, avoid=avoid)

        world.source.fetch = fetch  # type: ignore[method-assign]
        async with world.running():
            await clock.sleep(10 * RETRY_SECONDS)
        [gap] = world.store.gaps("s")
        assert (gap.first, gap.last) == (0, 9)
        assert 5 <= gap.attempts <= 11
        assert world.source.mended <= 13  # type: ignore[attr-defined]

    clock.run(scenario())


@pytest.mark.parametrize("failure", ["handler", "cursor"])
def test_a_mending_that_fails_halts_nothing(clock: FakeClock, failure: str) -> None:
    """What the honest endpoint has may be what a handler does not take, or be replaced by a fork meanwhile: the range
    stays in the ledger, and following goes on."""

    async def scenario() -> None:
        world = World(clock)
        for n in range(20):
            world.source.mine(n + 20)
        await world.runner(until=Until.HEAD).run()

        def fail(*_: Any) -> None:
            if failure == "cursor":
                raise CursorMoved("replaced meanwhile")
            raise ValueError("not to be handled")

        if failure == "handler":
            world.handlers = (*world.handlers, Handler("fail", "token.Approval", fail))
            world.store.record_gap(Gap("s", 3, 5, DISTRUSTED + "one", 0))
            whole = world.source.fetch

            async def fetch(
                first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()
            ) -> Segment[Payload]:
                segment = await whole(first, last, head=head, avoid=avoid)
                return Segment(segment.source, segment.entries, [[13]] * len(segment.entries), 1) if avoid else segment

            world.source.fetch = fetch  # type: ignore[method-assign]
            world.handlers = (Handler("picky", "token.Transfer", picky),)
        else:
            facts_only(world)
            world.store.record_gap(Gap("s", 3, 5, DISTRUSTED + "one", 0))
            world.store.replace = fail  # type: ignore[method-assign]
        async with world.running():
            for n in range(5):
                world.source.mine(n + 30)
                await world.until(lambda: len(world.facts()) == len(world.source.blocks))
        assert Mode.HALTED not in world.heard.modes
        assert [g.attempts for g in world.store.gaps("s")] == [1]

    clock.run(scenario())


def picky(transfer: Any, _tables: Any) -> None:
    if transfer.value == 13:
        raise ValueError("thirteen")


# --- repairs --------------------------------------------------------------------------------------------------------


def test_a_repair_keeps_what_waits_in_quarantine(clock: FakeClock) -> None:
    """Handlers that need state do not run in a repair: what they could not take before is still not handled, and must
    not vanish from quarantine with the rows that are put right."""

    async def scenario() -> None:
        world = World(clock)
        world.handlers = (Handler("add", "token.Transfer", add_or_fail, independent=True),)
        for value in (20, 13, 22, 13):
            world.source.mine(value)
        await world.runner(until=Until.HEAD).run()
        before = [row.item for row in world.store.quarantine("s")]
        assert [(i.position, i.consumer) for i in before] == [(1, "add"), (3, "add")]
        fence = world.store.acquire("v1:s", "operator", 60.0)
        assert fence is not None
        deriver = Deriver("s", ListDecoder(), world.handlers, (TOTAL,), None, 0)
        repairer = Repairer(world.source, deriver, world.store, Inline(), clock)
        repaired = await repairer.replace(0, 2, head=await world.source.head(), fence=fence)
        assert (repaired.entries, repaired.changed) == (3, 0)
        assert sorted(row.item.position for row in world.store.quarantine("s")) == [1, 3]
        assert {row.item for row in world.store.quarantine("s")} == set(before)

    clock.run(scenario())


def add_or_fail(transfer: Any, tables: Any) -> None:
    total = tables[Total].get("all")
    tables[Total].put(Total("all", (total.value if total else 0) + transfer.value))
    if transfer.value == 13:
        raise ValueError("thirteen")


def filled(clock: FakeClock, blocks: int) -> World:
    world = World(clock)
    facts_only(world)
    for _ in range(blocks):
        world.source.mine(20, 21)
    clock.run(world.runner(until=Until.HEAD).run())
    return world


def test_damage_in_a_row_is_one_range(clock: FakeClock) -> None:
    """However many rows are gone: ranges, with how many of how many, and not a line for each block."""
    world = filled(clock, 30)
    facts = world.store.database.facts[TABLE.name]  # type: ignore[attr-defined]
    for position in (3, 4, 5, 9):
        facts[position] = facts[position][:1] if position == 4 else []
    del world.store.database.sources["s"].entries[20]  # type: ignore[attr-defined]
    found = find_damage(world.store, "s")
    assert found == [Damage(3, 5, "1 of 6 rows"), Damage(9, 9, "0 of 2 rows"), Damage(20, 20, "no entry")]
    record_damage(world.store, "s", found, 7)
    assert find_damage(world.store, "s") == found


def test_recorded_gaps_are_listed_unless_seen_anyway(clock: FakeClock) -> None:
    """A gap of the ledger is told once; the size of ranges costs nothing."""
    world = filled(clock, 10)
    world.store.record_gap(Gap("s", 2, 4, "told", 0))
    world.store.record_gap(Gap("s", 0, 10**12, "vast", 0))
    del world.store.database.sources["s"].entries[3]  # type: ignore[attr-defined]
    assert [(d.first, d.last) for d in find_damage(world.store, "s")] == [(3, 3), (0, 10**12), (2, 4)]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(0, 2, True), (1, 3, False), (1, 6, False), (3, 4, False), (1, 7, True), (8, 9, True), (6, 6, False)],
)
def test_uncovered(first: int, last: int, expected: bool) -> None:
    """A range is covered by neighbours together."""
    by = [Damage(1, 3, ""), Damage(4, 6, "")]
    assert uncovered(first, last, by) is expected


def test_a_fork_while_damage_is_looked_for_is_no_damage(clock: FakeClock) -> None:
    """Entries that a fork takes away between two reads are not missing."""
    world = filled(clock, 20)
    whole = world.store.missing
    forked: list[int] = []

    def missing(source: str, first: int, last: int) -> list[tuple[int, int]]:
        if not forked:
            forked.append(1)
            world.source.fork(5, [1], [2], branch="b")
            clock.run(world.runner(until=Until.HEAD).run())
        return whole(source, first, last)

    world.store.missing = missing  # type: ignore[method-assign]
    assert find_damage(world.store, "s") == []
    assert forked


def test_a_failed_repair_is_counted_where_the_gap_is(clock: FakeClock) -> None:
    """Also when a part of the gap was mended before: the rest remembers how often it was tried."""
    world = filled(clock, 12)
    world.source.span_positions = 3
    world.store.record_gap(Gap("s", 0, 11, DISTRUSTED + "one", 5, 2))

    async def scenario() -> None:
        fence = world.store.acquire("v1:s", "operator", 60.0)
        assert fence is not None
        deriver = Deriver("s", ListDecoder(), (), (TOTAL,), None, 0)
        repairer = Repairer(world.source, deriver, world.store, Inline(), clock)
        whole = world.source.fetch

        async def fetch(first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()) -> Segment[Payload]:
            if first == 6:
                raise SourceUnavailable("gone")
            return await whole(first, last, head=head, avoid=avoid)

        world.source.fetch = fetch  # type: ignore[method-assign]
        with pytest.raises(SourceUnavailable):
            await repairer.mend(Damage(0, 11, DISTRUSTED + "one"), head=await world.source.head(), fence=fence)
        assert world.store.gaps("s") == [Gap("s", 6, 11, DISTRUSTED + "one", 5, 3)]

    clock.run(scenario())

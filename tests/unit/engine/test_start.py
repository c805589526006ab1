"""Where a source begins, and what stands in the way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gapless.engine.plan import Until
from gapless.engine.start import resolve_start
from gapless.errors import HistoryPruned, StartBeyondHead
from gapless.model import Head, Segment
from gapless.testing.fake_clock import FakeClock
from unit.engine.scripted import Payload, ScriptedSource
from unit.engine.world import World

GENESIS = datetime(2024, 1, 1, tzinfo=UTC)
BLOCK_SECONDS = 12


class Timed(ScriptedSource):
    """Blocks every twelve seconds from 2024 on; those below `oldest` are pruned."""

    oldest: int = 0

    async def head(self) -> Head:
        head = await super().head()
        return Head(head.latest, head.finalized, self._time_us(head.latest.position))

    def _time_us(self, position: int) -> int:
        return round(GENESIS.timestamp() + position * BLOCK_SECONDS) * 1_000_000

    async def fetch(
        self, first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()
    ) -> Segment[Payload]:
        if first < self.oldest:
            raise HistoryPruned("gone", position=first)
        segment = await super().fetch(first, last, head=head, avoid=avoid)
        entry = segment.first
        timed = type(entry)(entry.position, entry.id, entry.parent_id, self._time_us(first), entry.evidence)
        return Segment(segment.source, (timed,), segment.payload, segment.size_bytes)


def timed(blocks: int = 1000) -> Timed:
    source = Timed()
    for n in range(blocks):
        source.mine(n)
    return source


@pytest.mark.parametrize("position", [0, 1, 499, 500, 998, 999])
@pytest.mark.parametrize("off_us", [-1, 0, 1])
def test_a_date_is_its_first_block(position: int, off_us: int) -> None:
    """The first block at or after the moment, to the microsecond."""
    moment = GENESIS + timedelta(seconds=position * BLOCK_SECONDS, microseconds=off_us)
    expected = position + (off_us > 0)
    if expected > 999:
        with pytest.raises(StartBeyondHead):
            asyncio.run(resolve_start(timed(), moment))
    else:
        assert asyncio.run(resolve_start(timed(), moment)) == expected


def test_numbers_and_the_head_are_themselves() -> None:
    """Nothing is searched for them."""
    assert asyncio.run(resolve_start(timed(), 7)) == 7
    assert asyncio.run(resolve_start(timed(), "head")) == 999


@pytest.mark.parametrize("oldest", [1, 300, 600, 700])
def test_a_date_in_what_a_node_kept_is_found(oldest: int) -> None:
    """A node without the first blocks can still tell where a later date begins."""
    source = timed()
    source.oldest = oldest
    moment = GENESIS + timedelta(seconds=701 * BLOCK_SECONDS)
    assert asyncio.run(resolve_start(source, moment)) == 701


@pytest.mark.parametrize("position", [0, 100, 299, 300])
def test_a_date_before_what_a_node_kept_is_refused(position: int) -> None:
    """Its first block may be among the pruned ones; beginning later would leave a gap nobody knows of."""
    source = timed()
    source.oldest = 300
    with pytest.raises(HistoryPruned):
        asyncio.run(resolve_start(source, GENESIS + timedelta(seconds=position * BLOCK_SECONDS)))


def test_a_start_that_does_not_exist_is_not_recorded() -> None:
    """The recorded start counts ever after: a mistake must not be recorded, so that it can be corrected."""

    async def scenario() -> None:
        world = World()
        for n in range(10):
            world.source.mine(n + 20)
        with pytest.raises(StartBeyondHead):
            await world.runner(start=10**9).run()
        assert world.store.source("s") is None
        await world.runner(start=3, until=Until.HEAD).run()
        assert world.facts() == world.source.facts()[3:]

    asyncio.run(scenario())


def test_a_start_just_above_the_head_is_waited_for() -> None:
    """`start = "head"` was asked of one endpoint, and the next one is a block behind: that is no mistake."""
    clock = FakeClock()

    async def scenario() -> None:
        world = World(clock, retry_seconds_max=30.0, start=10)
        for n in range(9):
            world.source.mine(n + 20)
        async with world.running():
            await clock.sleep(1.5)
            for n in range(3):
                world.source.mine(n + 50)
            await world.until(lambda: len(world.facts()) == 2)
        other = World(clock, start=10)
        other.source.mine(20)
        with pytest.raises(StartBeyondHead):
            await other.runner().run()

    clock.run(scenario())


def test_the_recorded_start_wins() -> None:
    """Another start in the configuration later does not make a hole, nor a second beginning."""

    async def scenario() -> None:
        world = World(start=4)
        for n in range(10):
            world.source.mine(n + 20)
        await world.runner(until=Until.HEAD).run()
        world.source.mine(70)
        await world.runner(until=Until.HEAD, start=0).run()
        assert world.facts() == world.source.facts()[4:]

    asyncio.run(scenario())


@pytest.mark.parametrize("options", [{"until": Until.HEAD}, {}])
def test_a_chain_shorter_than_its_confirmations(options: dict[str, Until]) -> None:
    """Nothing is committed yet, and nothing is wrong; it begins by itself when the chain is long enough."""
    clock = FakeClock()

    async def scenario() -> None:
        world = World(clock, confirmations=12)
        for n in range(5):
            world.source.mine(n + 20)
        if options:
            await world.runner(**options).run()
        async with world.running():
            await clock.sleep(1)
            assert world.facts() == []
            for n in range(10):
                world.source.mine(n + 40)
            await world.until(lambda: len(world.facts()) == 3)

    clock.run(scenario())

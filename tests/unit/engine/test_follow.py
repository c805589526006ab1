"""The shell: backfill into live, forks, failures, leadership, mending — on a scripted source."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import structlog.testing

from gapless.engine.derive import Deriver
from gapless.engine.plan import Until
from gapless.engine.repair import DISTRUSTED, find_damage
from gapless.errors import (
    Contradiction,
    ForkBeyondFinality,
    ForkTooDeep,
    HandlerFailed,
    SourceUnavailable,
    StartBeyondHead,
)
from gapless.model import Fence, Gap, Mode
from unit.engine.scripted import ListDecoder
from unit.engine.world import TOTAL, World, change


def test_backfill_into_live_without_a_seam() -> None:
    """Blocks from before and after the start all land, once each; a graceful stop leaves the lease free."""

    async def scenario() -> None:
        world = World()
        for n in range(20):
            world.source.mine(n + 20)
        async with world.running():
            await world.until(world.exact)
            for n in range(10):
                world.source.mine(n + 40, n)
                await world.until(world.exact)
        assert Mode.CATCHING_UP in world.heard.modes
        assert Mode.LIVE in world.heard.modes
        assert not any(lease.live for lease in world.store.leases())

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("where", ["memory", "sqlite"])
def test_random_forks_and_restarts(seed: int, where: str, tmp_path: Path) -> None:
    """Whatever the chain does within its bounds, facts and state equal a fold over the present chain; a fork with no
    block of the new branch at the old height yet, shorter branches, and forks while stopped included."""

    async def scenario() -> None:
        draw = random.Random(seed)
        world = World(path=tmp_path / "t.db" if where == "sqlite" else None)
        world.source.span_positions = draw.randint(1, 6)
        world.source.mine()
        for _ in range(draw.randint(1, 30)):
            world.source.mine(*(draw.randint(14, 99) for _ in range(draw.randint(0, 3))))
        for round_ in range(3):
            async with world.running():
                await world.until(world.exact)
                for step in range(6):
                    change(world.source, draw, f"r{round_}s{step}-")
                    if draw.random() < 0.7:
                        await world.until(world.exact)
                await world.until(world.exact)
            change(world.source, draw, f"r{round_}down-")
        async with world.running(until=Until.HEAD):
            await world.until(world.exact)
        assert find_damage(world.store, "s") == []
        world.store.close()

    asyncio.run(scenario())


def test_a_node_that_went_back_is_waited_for() -> None:
    """A lower head with the same ids is not a fork: nothing is undone, the mode says why, and it goes on by itself."""

    async def scenario() -> None:
        world = World()
        for n in range(10):
            world.source.mine(n + 20)
        async with world.running():
            await world.until(world.exact)
            taken, world.source.blocks[7:] = world.source.blocks[7:], []
            await world.until(lambda: world.heard.modes[-1] is Mode.IDLE)
            assert len(world.facts()) == 10
            world.source.blocks.extend(taken)
            world.source.mine(77)
            await world.until(world.exact)
        assert world.heard.reorgs == []

    asyncio.run(scenario())


def test_a_stalled_chain_is_idle_and_resumes() -> None:
    """When the head does not move the mode is idle, without noise, and live again with the next block."""

    async def scenario() -> None:
        world = World()
        world.source.mine(20)
        async with world.running():
            await world.until(lambda: world.heard.modes[-1] is Mode.IDLE)
            world.source.mine(21)
            await world.until(world.exact)
            await world.until(lambda: world.heard.modes[-1] is Mode.LIVE)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("depth", "options", "final_depth", "error"),
    [(6, {"reorg_positions_max": 5}, 1000, ForkTooDeep), (6, {}, 5, ForkBeyondFinality)],
)
def test_forks_beyond_bounds_halt(
    depth: int, options: dict[str, int], final_depth: int, error: type[Exception]
) -> None:
    """Deeper than the cap, or below what was final: the run ends with the reason, nothing is undone."""

    async def scenario() -> None:
        world = World(**options)
        world.source.final_depth = final_depth
        for n in range(20):
            world.source.mine(n + 20)
        await world.runner(until=Until.HEAD).run()
        before = world.facts()
        world.source.fork(depth, *[[99]] * (depth + 1), branch="b")
        with pytest.raises(error):
            async with asyncio.timeout(10):
                await world.runner().run()
        assert world.facts() == before
        assert world.heard.modes[-1] is Mode.HALTED
        assert world.store.reported("s").mode is Mode.HALTED

    asyncio.run(scenario())


def test_a_fork_as_deep_as_finality_allows_is_undone() -> None:
    """The bound is exact: down to the last final block itself nothing is refused."""

    async def scenario() -> None:
        world = World()
        world.source.final_depth = 6
        for n in range(20):
            world.source.mine(n + 20)
        await world.runner(until=Until.HEAD).run()
        world.source.fork(6, *[[99]] * 7, branch="b")
        async with world.running():
            await world.until(world.exact)
        assert world.heard.reorgs == [6]

    asyncio.run(scenario())


def test_what_was_final_stays_final() -> None:
    """An endpoint that lags says less than the one before: nothing that was final may be undone because of that, also
    after a restart."""

    async def scenario() -> None:
        world = World()
        world.source.final_depth = 5
        for n in range(20):
            world.source.mine(n + 20)
        async with world.running():
            await world.until(world.exact)
            world.source.final_depth = 1000
            world.source.mine(60)
            await world.until(world.exact)
        assert world.heard.finalized == [14]
        before = world.facts()
        world.source.fork(8, *[[99]] * 9, branch="b")
        with pytest.raises(ForkBeyondFinality):
            async with asyncio.timeout(10):
                await world.runner().run()
        assert world.facts() == before

    asyncio.run(scenario())


def test_failures_of_the_source_are_survived() -> None:
    """Once it was reached, a source that fails is tried again until it answers; nothing is lost."""

    async def scenario() -> None:
        world = World()
        for n in range(10):
            world.source.mine(n + 20)
        async with world.running():
            await world.until(world.exact)
            world.source.failures = [
                SourceUnavailable("gone"),
                Contradiction("lie", kind="foreign_log"),
                *[SourceUnavailable("gone")] * 6,
            ]
            for n in range(10):
                world.source.mine(n + 50)
            await world.until(world.exact)
        assert Mode.DEGRADED in world.heard.modes

    asyncio.run(scenario())


def test_a_source_that_is_never_reached_fails_the_run() -> None:
    """At start-up there is nothing to protect: say so and end, so that a person sees it."""

    async def scenario() -> None:
        world = World()
        world.source.mine(20)
        world.source.failures = [SourceUnavailable("no route")] * 50
        with pytest.raises(SourceUnavailable, match="no route"):
            async with asyncio.timeout(10):
                await world.runner().run()

    asyncio.run(scenario())


def test_stopped_before_it_began() -> None:
    """A stop that comes before the run has begun is not lost."""

    async def scenario() -> None:
        world = World()
        world.source.mine(20)
        runner = world.runner()
        runner.stop()
        async with asyncio.timeout(5):
            await runner.run()

    asyncio.run(scenario())


def test_a_failing_handler_stops_at_its_block() -> None:
    """Blocks before it are committed; the error comes out; mending the handler and running again goes on."""

    async def scenario() -> None:
        world = World()
        for value in (20, 21, 13, 22):
            world.source.mine(value)
        with pytest.raises(HandlerFailed, match="at block 2"):
            await world.runner().run()
        assert world.facts() == [(0, 0, 20), (1, 0, 21)]
        world.handlers = ()
        await world.runner(until=Until.HEAD).run()
        assert world.facts() == world.source.facts()

    asyncio.run(scenario())


def test_start_beyond_the_head_is_refused() -> None:
    """A start that does not exist yet is a mistake, not something to wait for in silence."""

    async def scenario() -> None:
        world = World(start=50)
        world.source.mine(20)
        with pytest.raises(StartBeyondHead):
            await world.runner().run()

    asyncio.run(scenario())


def test_a_standby_takes_over() -> None:
    """The second instance writes nothing while the first leads, says for whom it stands by, and follows by itself when
    the first is gone."""

    async def scenario() -> None:
        world = World()
        for n in range(5):
            world.source.mine(n + 20)
        first, second = world.runner(ttl_seconds=2.0), world.runner(ttl_seconds=2.0)
        tasks = [asyncio.create_task(first.run())]
        await world.until(world.exact)
        tasks.append(asyncio.create_task(second.run()))
        await asyncio.sleep(0.3)
        [lease] = world.store.leases()
        assert [e["leader"] for e in said if e["event"] == "standby"] == [lease.holder]
        first.stop()
        await tasks[0]
        world.source.mine(30)
        await world.until(world.exact)
        assert world.store.leases()[0].token > lease.token
        second.stop()
        await tasks[1]

    with structlog.testing.capture_logs() as said:
        asyncio.run(scenario())


def test_a_lost_lease_stops_the_writing() -> None:
    """When another takes the lease behind its back, a leader's next commit is refused, and it waits as a standby."""

    async def scenario() -> None:
        world = World()
        world.source.mine(20)
        async with world.running(ttl_seconds=30.0):
            await world.until(world.exact)
            [lease] = world.store.leases()
            world.store.release(Fence(lease.name, lease.holder, lease.token))
            assert world.store.acquire(lease.name, "intruder", 30.0) is not None
            world.source.mine(21)
            await world.until(lambda: world.heard.modes[-1] is Mode.DEGRADED or Mode.STANDBY in world.heard.modes)
            await asyncio.sleep(0.05)
            assert world.facts() == [(0, 0, 20)]

    asyncio.run(scenario())


def test_back_in_the_lead_nothing_in_memory_is_trusted() -> None:
    """Another process has led and changed state meanwhile: what was remembered of it is forgotten."""

    async def scenario() -> None:
        world = World()
        world.source.mine(20)
        async with world.running(ttl_seconds=0.9):
            await world.until(world.exact)
            [lease] = world.store.leases()
            world.store.release(Fence(lease.name, lease.holder, lease.token))
            theirs = world.store.acquire(lease.name, "intruder", 30.0)
            assert theirs is not None
            await world.until(lambda: world.heard.modes[-1] is Mode.STANDBY)
            world.source.mine(21)
            segment = await world.source.fetch(1, 1, head=await world.source.head())
            other = Deriver("s", ListDecoder(), world.handlers, (TOTAL,), world.store.state, 100)
            batch = other.derive(segment, finalized=-1).batch
            assert batch is not None
            world.store.commit(batch, world.store.cursor("s"), theirs)
            assert world.exact()
            world.store.release(theirs)
            world.source.mine(22)
            await world.until(world.exact)

    asyncio.run(scenario())


def test_what_a_liar_served_is_fetched_elsewhere() -> None:
    """Everything an endpoint served un-audited before it was caught is fetched again without it."""

    async def scenario() -> None:
        world = World()
        for n in range(9):
            world.source.mine(n + 20)
        async with world.running():
            await world.until(world.exact)
            world.source.fetched.clear()
            world.source.liars = frozenset({"one"})
            world.source.mine(40)
            await world.until(lambda: any(avoid for _, _, avoid in world.source.fetched))
            await world.until(lambda: world.store.gaps("s") == [])
        again = sorted(p for a, b, avoid in world.source.fetched if avoid for p in range(a, b + 1))
        assert again[:9] == list(range(9))
        served = {s.entry.served_by for s in world.store.entries("s", 0, 8)}
        assert served == {"other"}
        assert world.heard.known_gaps[-1] == 0

    asyncio.run(scenario())


def test_known_gaps_are_told() -> None:
    """What stands in the gap ledger when a run begins is told to metrics, and so is that it could be mended."""

    async def scenario() -> None:
        world = World()
        for n in range(9):
            world.source.mine(n + 20)
        async with world.running():
            await world.until(world.exact)
        world.store.record_gap(Gap("s", 2, 4, "somebody removed rows", 0))
        world.store.record_gap(Gap("s", 6, 7, DISTRUSTED + "one", 0))
        world.heard.known_gaps.clear()
        async with world.running():
            await world.until(lambda: bool(world.heard.known_gaps))
        assert world.heard.known_gaps == [1]
        assert [(gap.first, gap.last) for gap in world.store.gaps("s")] == [(2, 4)]

    asyncio.run(scenario())


def test_confirmations_stay_behind() -> None:
    """With confirmations the newest blocks wait."""

    async def scenario() -> None:
        world = World(confirmations=3)
        for n in range(10):
            world.source.mine(n + 20)
        await world.runner(until=Until.HEAD).run()
        cursor = world.store.cursor("s")
        assert cursor is not None
        assert cursor.position == 6

    asyncio.run(scenario())

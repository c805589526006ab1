"""Forks where it is hard to say whether there is one: lagging, lying and disagreeing endpoints, missing rows, ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from gapless.engine.plan import Until
from gapless.errors import ForkBeyondFinality, ForkTooDeep
from gapless.model import Cursor, Fence, Head, Mode, Segment
from gapless.testing.fake_clock import FakeClock
from unit.engine.scripted import Block, Payload, ScriptedSource
from unit.engine.world import World

POLL_SECONDS = 0.2


@dataclass
class Endpoints(ScriptedSource):
    """`blocks` is the first endpoint's chain; the others have chains of their own. Each question can be given to one
    of them."""

    others: dict[str, list[Block]] = field(default_factory=dict)
    head_of: str = "one"
    cursors_of: str = "one"
    fetch_of: str = "one"
    turns: Iterator[str] | None = None
    """Who names the head, one after the other, with every look."""
    asked: dict[str, int] = field(default_factory=dict)

    def _chain(self, label: str) -> list[Block]:
        return self.blocks if label == "one" else self.others[label]

    def _count(self, what: str) -> None:
        self.asked[what] = self.asked.get(what, 0) + 1
        assert self.asked[what] < 10_000, f"{what} is asked for without a pause"

    async def head(self) -> Head:
        self._count("head")
        return self._head()

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        async with asyncio.timeout(timeout_seconds + 1):
            for _ in range(max(1, int(timeout_seconds / POLL_SECONDS))):
                self._count("poll")
                if self._head().latest != known:
                    break
                await asyncio.sleep(POLL_SECONDS)
        return self._head()

    def _head(self) -> Head:
        self.head_of = self.head_of if self.turns is None else next(self.turns)
        chain = self._chain(self.head_of)
        last = len(chain) - 1
        return Head(Cursor(last, chain[last].id), last - self.final_depth, last * 1_000_000)

    async def cursors(self, positions: Sequence[int]) -> list[Cursor | None]:
        self._count("cursors")
        chain = self._chain(self.cursors_of)
        return [Cursor(p, chain[p].id) if p < len(chain) else None for p in positions]

    async def opinions(self, position: int) -> dict[str, Cursor | None]:
        self._count("opinions")
        chains = {"one": self.blocks, **self.others}
        return {n: Cursor(position, c[position].id) if position < len(c) else None for n, c in chains.items()}

    async def fetch(
        self, first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()
    ) -> Segment[Payload]:
        asked = ScriptedSource(self._chain(self.fetch_of), served_by=self.served_by, fetched=self.fetched)
        return await asked.fetch(first, last, head=head, avoid=avoid)


class Scene(World):
    """A world in virtual time with several endpoints."""

    def __init__(self, clock: FakeClock, blocks: int = 20, **options: object) -> None:
        super().__init__(clock, **options)
        self.source: Endpoints = Endpoints()
        for n in range(blocks):
            self.source.mine(n + 20)

    def branch(self, depth: int, length: int, name: str) -> list[Block]:
        """Another chain: the present one with its last blocks replaced."""
        kept = self.source.blocks[: len(self.source.blocks) - depth]
        return [*kept, *(Block(f"{name}{len(kept) + n}", (99,)) for n in range(length))]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(seed=1)


def test_a_fork_while_a_fork_is_followed(clock: FakeClock) -> None:
    """The chain may change again between finding the ancestor and fetching the new branch: look again, do not end."""

    async def scenario() -> None:
        world = Scene(clock)
        await world.runner(until=Until.HEAD).run()
        world.source.fork(4, *[[30]] * 5, branch="b")
        whole = world.source.fetch
        forked = []

        async def fetch(first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()) -> Segment[Payload]:
            if first < 20 and not forked:  # the new branch, not what comes above the old one
                forked.append(first)
                world.source.fork(8, *[[31]] * 10, branch="c")
            return await whole(first, last, head=head, avoid=avoid)

        world.source.fetch = fetch  # type: ignore[method-assign]
        async with world.running():
            await world.until(world.exact)
        assert forked

    clock.run(scenario())


@pytest.mark.parametrize("left", [1, 5, 15])
def test_a_syncing_node_halts_nothing(clock: FakeClock, left: int) -> None:
    """A node that starts again from nothing is behind by more than any fork: nothing to compare is no fork."""

    async def scenario() -> None:
        world = Scene(clock, 40, reorg_positions_max=10)
        async with world.running():
            await world.until(world.exact)
            taken, world.source.blocks[left:] = world.source.blocks[left:], []
            await world.until(lambda: world.heard.modes[-1] is Mode.IDLE)
            await clock.sleep(60)
            assert len(world.facts()) == 40
            world.source.blocks.extend(taken)
            world.source.mine(77)
            await world.until(world.exact)
        assert world.heard.reorgs == []
        assert Mode.HALTED not in world.heard.modes

    clock.run(scenario())


@pytest.mark.parametrize("options", [{}, {"reorg_positions_max": 3}])
@pytest.mark.parametrize("final_depth", [2, 1000])
def test_one_endpoints_word_is_not_enough(clock: FakeClock, options: dict[str, int], final_depth: int) -> None:
    """An endpoint that tells of a fork at the head, and answers the questions about it too, neither halts the run nor
    makes it undo what two others still have; and following goes on meanwhile."""

    async def scenario() -> None:
        world = Scene(clock, **options)
        world.source.final_depth = final_depth
        await world.runner(until=Until.HEAD).run()
        liar = world.branch(8, 8, "lie")
        world.source.others = {"honest": world.source.blocks, "liar": liar}
        world.source.head_of = world.source.cursors_of = "liar"
        before = world.facts()
        async with world.running():
            await clock.sleep(60)
            assert world.facts() == before
            world.source.head_of = "one"
            world.source.mine(50)
            await world.until(world.exact)
        assert world.heard.reorgs == []
        assert Mode.HALTED not in world.heard.modes

    clock.run(scenario())


def test_two_against_one_is_followed_at_once(clock: FakeClock) -> None:
    """An endpoint that stays on a branch that is gone holds nobody up."""

    async def scenario() -> None:
        world = Scene(clock)
        await world.runner(until=Until.HEAD).run()
        old = list(world.source.blocks)
        world.source.fork(5, *[[30]] * 6, branch="b")
        world.source.others = {"stuck": old, "two": world.source.blocks}
        began = clock.monotonic()
        async with world.running():
            await world.until(world.exact)
        assert clock.monotonic() - began < 2.0
        assert world.heard.reorgs == [5]

    clock.run(scenario())


def test_one_against_one_is_followed_after_a_while(clock: FakeClock) -> None:
    """With two endpoints the slower one is given the time to change its mind, and no more."""

    async def scenario() -> None:
        world = Scene(clock, retry_seconds_max=30.0)
        await world.runner(until=Until.HEAD).run()
        world.source.others = {"stuck": list(world.source.blocks)}
        world.source.fork(5, *[[30]] * 6, branch="b")
        began = clock.monotonic()
        async with world.running():
            await world.until(world.exact, 60)
        assert 1.0 < clock.monotonic() - began < 20.0
        assert world.heard.reorgs == [5]

    clock.run(scenario())


def test_what_was_replaced_is_not_written_again(clock: FakeClock) -> None:
    """When one endpoint tells of the fork and another one, still behind, serves the blocks, nothing is undone for the
    same blocks again."""

    async def scenario() -> None:
        world = Scene(clock)
        async with world.running():
            await world.until(world.exact)
            world.source.others = {"behind": list(world.source.blocks)}
            world.source.fork(5, *[[30]] * 5, branch="b")
            world.source.fetch_of = "behind"
            await clock.sleep(20)
            assert world.heard.reorgs == []
            world.source.fetch_of = "one"
            await world.until(world.exact, 60)
        assert world.heard.reorgs == [5]

    clock.run(scenario())


@pytest.mark.parametrize(("options", "error"), [({"reorg_positions_max": 3}, ForkTooDeep), ({}, ForkBeyondFinality)])
def test_a_passing_impossibility_does_not_halt(
    clock: FakeClock, options: dict[str, int], error: type[Exception]
) -> None:
    """A fork that must not be undone ends the run only when it is still there after several looks."""

    async def scenario() -> None:
        world = Scene(clock, retry_seconds_max=30.0, **options)
        world.source.final_depth = 3
        await world.runner(until=Until.HEAD).run()
        good, bad = world.source.blocks, world.branch(8, 9, "b")
        world.source.blocks = bad
        async with world.running():
            await clock.sleep(4)
            assert world.heard.modes[-1] is Mode.DEGRADED
            world.source.blocks = good
            world.source.mine(30)
            await world.until(world.exact, 60)
        world.source.blocks = bad
        began = clock.monotonic()
        with pytest.raises(error):
            await world.runner().run()
        assert clock.monotonic() - began >= 5
        assert world.heard.modes[-1] is Mode.HALTED

    clock.run(scenario())


@pytest.mark.parametrize("removed", [{19}, {17}, {16, 18}, {15, 17, 19}])
def test_missing_rows_near_the_head_hide_no_fork(clock: FakeClock, removed: set[int]) -> None:
    """The cursor knows itself, and an entry its parent: the ancestor is found exactly although rows were removed."""

    async def scenario() -> None:
        world = Scene(clock)
        await world.runner(until=Until.HEAD).run()
        for position in removed:
            del world.store.database.sources["s"].entries[position]  # type: ignore[attr-defined]
        world.source.fork(4, *[[30]] * 5, branch="b")
        async with world.running():
            await world.until(world.exact)
        assert world.heard.reorgs == [4]

    clock.run(scenario())


@pytest.mark.parametrize("start", [0, 5, 18, 19])
def test_a_fork_down_to_the_start(clock: FakeClock, start: int) -> None:
    """When not even the first entry is common, everything is replaced."""

    async def scenario() -> None:
        world = Scene(clock, start=start)
        await world.runner(until=Until.HEAD).run()
        depth = 20 - start
        world.source.blocks = [
            *(Block(f"z{n}", (1,)) for n in range(start)),
            *(Block(f"b{n}", (50,)) for n in range(start, 21)),
        ]
        await world.runner(until=Until.HEAD).run()
        assert world.facts() == [(n, 0, 50) for n in range(start, 21)]
        assert world.total() == 50 * (21 - start)
        assert world.heard.reorgs == [depth]

    clock.run(scenario())


@pytest.mark.parametrize("options", [{"end": 15}, {"until": 15}, {"until": 12}, {"until": Until.FINALIZED}])
def test_a_run_does_not_end_on_a_dead_branch(clock: FakeClock, options: dict[str, object]) -> None:
    """What an earlier run committed up to its end may have left the chain since: the next run sees to it."""

    async def scenario() -> None:
        world = Scene(clock)
        world.source.final_depth = 7
        await world.runner(**{**options, "until": 15} if "end" not in options else options).run()
        assert len(world.facts()) == 16
        world.source.fork(7, *[[70]] * 9, branch="b")
        async with asyncio.timeout(60):
            await world.runner(**options).run()
        assert world.facts() == world.source.facts()[:16]

    clock.run(scenario())


def test_below_the_confirmations_a_fork_is_seen_too(clock: FakeClock) -> None:
    """A fork deeper than the confirmations, on a chain that then stands still: nothing of the old branch stays."""

    async def scenario() -> None:
        world = Scene(clock, confirmations=3)
        async with world.running():
            await world.until(lambda: len(world.facts()) == 17)
            world.source.fork(6, *[[70]] * 6, branch="b")
            await world.until(lambda: world.facts() == world.source.facts()[:17], 30)
        assert world.heard.reorgs == [3]

    clock.run(scenario())


def test_a_head_on_another_branch_makes_nothing_final(clock: FakeClock) -> None:
    """With confirmations the head is above the cursor, and may be on a branch that has replaced it: what it calls final
    says nothing about what is committed, and a fork down there is no fork beyond finality."""

    async def scenario() -> None:
        world = Scene(clock, confirmations=4)
        world.source.final_depth = 10
        async with world.running():
            await world.until(lambda: len(world.facts()) == 16)
            world.source.fork(8, *[[70]] * 8, branch="b")
            world.source.final_depth = 6  # finality jumps: blocks of the new branch only
            await world.until(lambda: world.facts() == world.source.facts()[:16], 60)
        assert Mode.HALTED not in world.heard.modes

    clock.run(scenario())


def test_what_an_operator_undid_is_not_final_any_more(clock: FakeClock) -> None:
    """After a rewind below what was final, the chain that really went back can be followed, forks included."""

    async def scenario() -> None:
        world = Scene(clock)
        world.source.final_depth = 2
        await world.runner(until=Until.HEAD).run()
        assert world.store.reported("s").finalized == 17
        cursor = world.store.cursor("s")
        fence = world.store.acquire("v1:s", "operator", 60.0)
        assert cursor is not None
        assert fence is not None
        world.store.rewind("s", Cursor(-1, ""), cursor, fence)
        world.store.release(fence)
        world.source.blocks, world.source.final_depth = world.source.blocks[:3], 1000
        for n in range(7):
            world.source.mine(n + 30, branch="b")
        await world.runner(until=Until.HEAD).run()
        world.source.fork(4, *[[31]] * 5, branch="c")
        await world.runner(until=Until.HEAD).run()
        assert world.exact()

    clock.run(scenario())


# --- nothing is tried at once for ever ------------------------------------------------------------------------------


def asked_in_a_minute(clock: FakeClock, world: Scene) -> dict[str, int]:
    async def scenario() -> None:
        async with world.running(ttl_seconds=15.0):
            await world.until(world.exact)
            world.prepare()  # type: ignore[attr-defined]
            await clock.sleep(5)
            world.source.asked.clear()
            await clock.sleep(60)

    clock.run(scenario())
    return world.source.asked


REQUESTS_PER_MINUTE_MAX = 60 * 6
"""Of each kind, whatever happens: polling every fifth of a second, with some to spare."""


def tie(world: Scene) -> None:
    """Another head at the same height, for ever, and our branch is still there."""
    world.source.others = {"tie": world.branch(1, 1, "tie"), "two": world.source.blocks}
    world.source.head_of = "tie"


def replicas(world: Scene) -> None:
    """Two behind one address, which name different heads of one height turn and turn about: it always seems to move."""
    world.source.others = {"two": world.source.blocks, "tie": world.branch(1, 1, "tie"), "other": world.source.blocks}
    world.source.turns = itertools.cycle(("two", "tie"))


def liar(world: Scene) -> None:
    world.source.others = {"liar": world.branch(8, 8, "lie"), "two": world.source.blocks}
    world.source.head_of = world.source.cursors_of = "liar"


def unlinked(world: Scene) -> None:
    """Blocks above ours that do not link."""
    world.source.others = {"liar": world.branch(4, 8, "lie"), "two": world.source.blocks}
    world.source.head_of = world.source.fetch_of = "liar"


def disputed(world: Scene) -> None:
    """A fork beyond the bounds, of which one of two endpoints tells."""
    world.source.others = {"liar": world.branch(18, 20, "lie")}
    world.source.head_of = world.source.cursors_of = world.source.fetch_of = "liar"


def behind(world: Scene) -> None:
    world.source.others = {"behind": world.source.blocks[:9]}
    world.source.head_of = world.source.cursors_of = "behind"


def silent(world: Scene) -> None:
    """Whoever is asked about the fork does not have the blocks."""
    world.source.others = {"tie": world.branch(1, 1, "tie"), "behind": world.source.blocks[:9]}
    world.source.head_of, world.source.cursors_of = "tie", "behind"


def refused(world: Scene) -> None:
    """Somebody else has the lease, and this process was not told."""
    [lease] = world.store.leases()
    world.store.release(Fence(lease.name, lease.holder, lease.token))
    assert world.store.acquire(lease.name, "intruder", 1e6) is not None
    world.source.mine(21)


@pytest.mark.parametrize(
    "prepare", [tie, replicas, liar, unlinked, disputed, behind, silent, refused], ids=lambda p: p.__name__
)
def test_no_loop_runs_without_waiting(clock: FakeClock, prepare: object) -> None:
    """Whatever the source says for ever, the engine asks at most so often."""
    world = Scene(clock, reorg_positions_max=10, poll_timeout_seconds=5.0, retry_seconds_max=30.0)
    world.prepare = lambda: prepare(world)  # type: ignore[attr-defined,operator]
    asked = asked_in_a_minute(clock, world)
    assert all(count <= REQUESTS_PER_MINUTE_MAX for count in asked.values()), asked
    assert sum(asked.values()) < 3 * REQUESTS_PER_MINUTE_MAX, asked

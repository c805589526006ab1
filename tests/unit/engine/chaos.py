"""Two processes, one database, one chain, and everything that can go wrong between them, from one seed.

The chain forks; the source lags, fails and mixes branches; the database refuses, or does what it is asked and says that
it does not know; leadership passes without notice; processes are killed. After every single commit the tables must be
what a fold over some branch of the chain gives, written under the lease's present token; and when all is quiet again,
what the fold over the present chain gives. Time is virtual, and everything runs in one thread: a seed tells all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapless.declare import UInt256, bind, key
from gapless.engine.derive import Deriver
from gapless.engine.flags import Switchboard
from gapless.engine.follow import Follower
from gapless.engine.handlers import Handler
from gapless.engine.lane import Lane
from gapless.engine.mend import Mender
from gapless.engine.observer import Observer
from gapless.engine.plan import FollowOptions
from gapless.engine.repair import Repairer
from gapless.errors import (
    CommitUnknown,
    Contradiction,
    GaplessError,
    NothingToUndo,
    NotYetAvailable,
    SourceUnavailable,
    StoreUnavailable,
)
from gapless.model import Cursor, Entry, Evidence, Fence, Head, Identity, Segment
from gapless.schema import Schema
from gapless.sources import SourceStatistics
from gapless.store.memory import MemoryDatabase, MemoryStore
from gapless.store.sqlite import SqliteStore
from gapless.testing.fake_clock import FakeClock
from unit.engine.keeper import Keeper
from unit.engine.scripted import TABLE, ListDecoder, Payload


@dataclass(frozen=True)
class Total:
    name: str = key()
    value: UInt256 = 0


@dataclass(frozen=True)
class Seen:
    total: UInt256


TOTAL, SEEN = bind(Total, "s"), bind(Seen, "s")
SCHEMA = Schema("chaos", (TABLE, TOTAL.table, SEEN.table), ("s",))
LEASE = "v1:s"
BAD = 13
"""A value that its (independent) handler does not take."""


def add(transfer: Any, tables: Any) -> None:
    """A running total for each remainder by 3, kept in state and written to facts; a multiple of 5 deletes it."""
    name = f"r{transfer.value % 3}"
    before = tables[Total].get(name)
    total = (before.value if before else 0) + transfer.value
    if total % 5 == 0:
        tables[Total].delete(name)
    else:
        tables[Total].put(Total(name, total))
    tables[Seen].insert(Seen(total))
    if transfer.value == BAD:
        raise ValueError("bad")


@dataclass(frozen=True)
class Block:
    position: int
    id: str
    parent_id: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class Folded:
    """What the tables hold after a block, by the oracle."""

    state: tuple[tuple[str, int], ...] = ()
    facts: tuple[tuple[int, int, int], ...] = ()
    seen: tuple[tuple[int, int, int], ...] = ()
    quarantined: tuple[tuple[int, str], ...] = ()
    ids: tuple[str, ...] = ()

    def after(self, block: Block) -> Folded:
        state, facts, seen, quarantined = dict(self.state), [*self.facts], [*self.seen], [*self.quarantined]
        for index, value in enumerate(block.values):
            facts.append((block.position, index, value))
            if value == BAD:
                quarantined.append((block.position, f"log:{index}"))
                continue
            name = f"r{value % 3}"
            total = state.pop(name, 0) + value
            if total % 5:
                state[name] = total
            seen.append((block.position, index, total))
        ids = (*self.ids, block.id)
        return Folded(tuple(sorted(state.items())), tuple(facts), tuple(seen), tuple(quarantined), ids)


class Chain:
    """The present chain, and every block that ever was."""

    def __init__(self, draw: random.Random, start: int, final_depth: int) -> None:
        self._draw = draw
        self._start = start
        self._final_depth = final_depth
        self._forks = 0
        self.blocks: list[Block] = []
        self.stale: list[Block] = []
        """The chain as it was before the last fork: what a lagging endpoint serves, until finality has passed it by."""
        self._forked_at = -1
        self.final = -1
        self._folds: dict[str, Folded] = {"": Folded()}
        self._known: dict[str, Block] = {}

    def mine(self, count: int = 1) -> None:
        for _ in range(count):
            position = len(self.blocks)
            parent = self.blocks[-1].id if self.blocks else ""
            values = tuple(self._draw.choice((BAD, *range(1, 40))) for _ in range(self._draw.randint(0, 3)))
            block = Block(position, f"{self._forks}.{position}", parent, values)
            self.blocks.append(block)
            self._known[block.id] = block
        self.final = max(self.final, len(self.blocks) - 1 - self._final_depth)
        if self.final > self._forked_at:
            self.stale = []

    def fork(self) -> None:
        """Another branch, from somewhere above what is final: shorter, as long, or longer."""
        deepest = len(self.blocks) - 1 - max(self.final, self._start, 0)
        if deepest < 1:
            return
        depth = self._draw.randint(1, deepest)
        self._forks += 1
        self.stale = list(self.blocks)
        self._forked_at = len(self.blocks) - 1 - depth
        del self.blocks[len(self.blocks) - depth :]
        self.mine(self._draw.randint(1, depth + 2))

    def folded(self, id_: str) -> Folded:
        """The fold over the branch that ends in a block, from the first indexed one on."""
        missing = []
        while id_ not in self._folds:
            block = self._known[id_]
            if block.position < self._start:
                break
            missing.append(block)
            id_ = block.parent_id
        fold = self._folds.get(id_, Folded())
        for block in reversed(missing):
            fold = self._folds[block.id] = fold.after(block)
        return fold


class Source:
    """One process's way to the chain. While `trouble` is above 0, it fails, lags and mixes branches."""

    name = "s"
    kind = "scripted"

    def __init__(self, chain: Chain, draw: random.Random, clock: FakeClock) -> None:
        self._chain = chain
        self._draw = draw
        self._clock = clock
        self.trouble = 0.0
        self.span_positions = draw.randint(1, 7)
        self.liars: frozenset[str] = frozenset()

    def _unlucky(self, share: float = 1.0) -> bool:
        return self._draw.random() < self.trouble * share

    def _view(self) -> list[Block]:
        """The chain as some endpoint sees it."""
        if self._chain.stale and self._unlucky(0.7):
            return self._chain.stale
        if self._unlucky():
            return self._chain.blocks[: self._draw.randint(1, len(self._chain.blocks))]
        return list(self._chain.blocks)

    async def _travel(self) -> None:
        await self._clock.sleep(self._draw.choice((0, 0, 0.001, 0.02)))
        if self._unlucky(0.5):
            raise SourceUnavailable("no route", source="s")

    async def identity(self) -> Identity:
        await self._travel()
        return Identity("scripted", "1", "genesis")

    async def head(self) -> Head:
        await self._travel()
        last = self._view()[-1]
        finalized = min(self._chain.final, last.position)
        return Head(Cursor(last.position, last.id), finalized, last.position * 1_000_000)

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        until = self._clock.monotonic() + timeout_seconds
        while True:
            head = await self.head()
            if head.latest != known or self._clock.monotonic() >= until:
                return head
            await self._clock.sleep(0.05)

    def span(self) -> int:
        return self.span_positions

    async def fetch(
        self, first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()
    ) -> Segment[Payload]:
        await self._travel()
        if self._unlucky(0.3):
            raise Contradiction("a lie", kind="foreign_log", source="s", position=first)
        view = self._view()
        if last >= len(view):
            raise NotYetAvailable("beyond the head", source="s", position=last)
        label = next(label for label in ("one", "two") if label not in avoid)
        blocks = view[first : last + 1]
        entries = tuple(
            Entry(b.position, b.id, b.parent_id, b.position * 1_000_000, Evidence.CHECKED, label) for b in blocks
        )
        return Segment("s", entries, [list(b.values) for b in blocks], 100 * len(blocks))

    async def cursors(self, positions: Sequence[int]) -> list[Cursor | None]:
        await self._travel()
        view = self._view()
        return [Cursor(p, view[p].id) if 0 <= p < len(view) else None for p in positions]

    async def opinions(self, position: int) -> dict[str, Cursor | None]:
        found = {}
        for label in ("one", "two"):
            view = self._view()
            if not self._unlucky():
                found[label] = Cursor(position, view[position].id) if position < len(view) else None
        return found

    def doubt(self, labels: frozenset[str]) -> None:
        return

    def take_liars(self) -> frozenset[str]:
        liars, self.liars = self.liars, frozenset()
        return liars

    def statistics(self) -> SourceStatistics:
        return SourceStatistics()

    async def close(self) -> None:
        return


class FaultyStore:
    """A process's way to the database. While `trouble` is above 0, calls fail: with nothing done, or with all done and
    nobody told. `verify` is called after each commit that took place."""

    def __init__(self, inner: Any, draw: random.Random, verify: Callable[[Fence], None]) -> None:
        self._inner = inner
        self._draw = draw
        self._verify = verify
        self.trouble = 0.0

    def __getattr__(self, name: str) -> Any:
        work = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._draw.random() < self.trouble / 3:
                raise StoreUnavailable("the database is away")
            return work(*args, **kwargs)

        return call if callable(work) else work

    def commit(self, batch: Any, expected: Any, fence: Fence) -> None:
        fate = self._draw.random() / self.trouble if self.trouble else 9.0
        if fate < 0.4:
            raise StoreUnavailable("nothing was written")
        if fate < 0.6:
            raise CommitUnknown("lost at COMMIT, before it")
        self._inner.commit(batch, expected, fence)
        self._verify(fence)
        if fate < 1.0:
            raise CommitUnknown("lost at COMMIT, after it")


class Jitter:
    """Inline, after a moment in which others run: deriving overtakes committing."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    async def _soon(self, call: Callable[[], Any]) -> Any:
        for _ in range(self._draw.randint(0, 4)):
            await asyncio.sleep(0)
        return call()

    write = derive = read = _soon

    async def close(self, timeout_seconds: float) -> bool:
        return True


class Process:
    """One process: caches of its own, and a task."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self._world = world
        draw = world.draw
        self.keeper = Keeper()
        self.source = Source(world.chain, draw, world.clock)
        self.store = FaultyStore(world.connect(), draw, world.verify)
        self.set_trouble(world.trouble)
        self.follower = Follower(self._lane(world, draw))
        self.task = asyncio.create_task(self.follower.run(), name=name)

    def _lane(self, world: World, draw: random.Random) -> Lane:
        store: Any = self.store
        offload = Jitter(draw)
        handlers = (Handler("add", "token.Transfer", add, independent=True),)
        bindings = (TOTAL, SEEN)
        rows_max = world.options.state_cache_rows_max
        deriver = Deriver("s", ListDecoder(), handlers, bindings, store.state, rows_max)
        stateless = Deriver("s", ListDecoder(), handlers, bindings, None, 0)
        repairer = Repairer(self.source, stateless, store, offload, world.clock)
        mender = Mender(self.source, repairer, store, offload, world.clock)
        keeper: Any = self.keeper
        return Lane(
            self.source,
            deriver,
            store,
            world.options,
            world.clock,
            offload,
            Observer(),
            keeper,
            mender,
            Switchboard(store, offload, world.clock),
        )

    def set_trouble(self, trouble: float) -> None:
        self.source.trouble = trouble * 0.5
        self.store.trouble = trouble

    async def kill(self) -> None:
        """At once, whatever it is doing."""
        self.task.cancel()
        await asyncio.wait({self.task})

    async def stop(self) -> None:
        self.follower.stop()
        await asyncio.wait({self.task})

    def ended_badly(self) -> BaseException | None:
        """What ended it, unless it is what a supervisor answers with a restart."""
        if not self.task.done() or self.task.cancelled():
            return None
        error = self.task.exception()
        return None if isinstance(error, GaplessError) and error.retryable else error


@dataclass
class World:
    """The database, the chain and the processes of one seed."""

    seed: int
    path: Path | None = None
    """Of a SQLite file; None for a database in memory."""
    draw: random.Random = field(init=False)
    clock: FakeClock = field(init=False)
    chain: Chain = field(init=False)
    options: FollowOptions = field(init=False)
    trouble: float = field(init=False)
    commits: int = 0
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        draw = self.draw = random.Random(self.seed)
        self.clock = FakeClock(seed=self.seed)
        start, final_depth = draw.choice((0, 0, 3)), draw.randint(2, 12)
        self.chain = Chain(draw, start, final_depth)
        self.chain.mine(start + draw.randint(1, 12))
        self.trouble = draw.choice((0.0, 0.1, 0.3))
        self.options = FollowOptions(
            start=start,
            confirmations=draw.choice((0, 0, 0, 2)),
            poll_timeout_seconds=1.0,
            retry_seconds_max=1.0,
            fork_pause_seconds=0.1,
            inflight_segments_max=draw.randint(1, 4),
            state_cache_rows_max=draw.choice((0, 1, 1000)),
        )
        self._database = MemoryDatabase()
        self._watch = self.connect()

    def connect(self) -> Any:
        store: Any = (
            MemoryStore(self._database, self.clock) if self.path is None else SqliteStore(self.path, self.clock)
        )
        store.open(SCHEMA, create=True)
        return store

    # --- the oracle -------------------------------------------------------------------------------------------------

    def verify(self, fence: Fence) -> None:
        """After a commit: the tables are the fold over the branch the cursor is on, and the writer was the leader."""
        self.commits += 1
        [lease] = [lease for lease in self._watch.leases() if lease.name == LEASE]
        assert (fence.holder, fence.token) == (lease.holder, lease.token), "committed without the lease"
        cursor = self._watch.cursor("s")
        assert self.tables() == self.chain.folded(cursor.id), f"not the fold at {cursor}"

    def tables(self) -> Folded:
        store = self._watch
        columns, _ = store.facts(TABLE, 0, 10**9)
        facts = tuple((int(b), int(i), int(v)) for b, _, i, v in zip(*columns, strict=True))
        columns, _ = store.facts(SEEN.table, 0, 10**9)
        seen = tuple((int(b), int(i), int(t)) for b, i, _, t in zip(*columns, strict=True))
        state = tuple((row.values[0], int(row.values[1])) for row in store.state_rows(TOTAL.table))
        quarantined = tuple(sorted((q.item.position, q.item.item) for q in store.quarantine("s")))
        ids = tuple(e.entry.id for e in store.entries("s", 0, 10**9))
        return Folded(state, facts, seen, quarantined, ids)

    def exact(self) -> bool:
        cursor, blocks = self._watch.cursor("s"), self.chain.blocks
        if cursor is None or not len(blocks) - 1 - self.options.confirmations <= cursor.position < len(blocks):
            return False
        return bool(blocks[cursor.position].id == cursor.id)

    # --- the script -------------------------------------------------------------------------------------------------

    def run(self, steps: int = 20) -> None:
        """Raises AssertionError when the tables are not what they must be."""
        try:
            self.clock.run(self._play(steps))
        finally:
            if self.path is not None:
                self._watch.close()

    async def _play(self, steps: int) -> None:
        self.processes = [Process(self, "p0"), Process(self, "p1")]
        self.grant(0)
        try:
            for _ in range(steps):
                await self._step()
                self._check_processes()
            self.trouble = 0.0
            for process in self.processes:
                process.set_trouble(0.0)
            self.chain.mine(self.options.confirmations + 1)
            await self._until_exact()
            cursor = self._watch.cursor("s")
            assert self.tables() == self.chain.folded(cursor.id)
        finally:
            for process in self.processes:
                await process.kill()

    async def _step(self) -> None:
        draw, place = self.draw, self.draw.randrange(2)
        event = draw.choice(("mine", "mine", "mine", "fork", "fork", "grant", "kill", "stop", "lie", "rewind"))
        if event == "mine":
            self.chain.mine(draw.randint(1, 12))
        elif event == "fork":
            self.chain.fork()
        elif event == "grant":
            self.grant(place)
        elif event == "lie":
            self.processes[place].source.liars = frozenset({"one"})
        elif event == "rewind":
            self._rewind()
        elif event == "kill":
            await self.processes[place].kill()
            self._start(place)
        elif event == "stop":
            await self.processes[place].stop()
            self._start(place)
        await self.clock.sleep(draw.choice((0.0, 0.01, 0.2, 3.0)))

    def _rewind(self) -> None:
        """An operator undoes some, or everything, behind the processes' backs; then one of them leads."""
        cursor, start = self._watch.cursor("s"), self.options.start
        self.grant(2)
        if cursor is not None:
            to = self.draw.randint(start - 1, cursor.position)
            ids = (*[""] * start, *self.chain.folded(cursor.id).ids)
            ancestor = Cursor(to, ids[to] if to >= start else "")
            [lease] = [lease for lease in self._watch.leases() if lease.name == LEASE]
            with suppress(NothingToUndo):
                self._watch.rewind("s", ancestor, cursor, Fence(lease.name, lease.holder, lease.token))
                assert self.tables() == self.chain.folded(ancestor.id)
        self.grant(self.draw.randrange(2))

    def _start(self, place: int) -> None:
        """In the place of one that has ended; it may be given the lease at once, or the other one is, or nobody."""
        self.processes[place] = Process(self, f"p{place}")
        if self.draw.random() < 0.7:
            self.grant(self.draw.randrange(2))

    def grant(self, place: int) -> None:
        """Leadership passes. The old leader may be told, or go on in good faith."""
        for lease in self._watch.leases():
            self._watch.release(Fence(lease.name, lease.holder, lease.token))
        fence = self._watch.acquire(LEASE, f"p{place}", 1e6)
        for other, process in enumerate(self.processes):
            if other == place:
                process.keeper.give(fence)
            elif self.draw.random() < 0.5:
                process.keeper.give(None)

    def _check_processes(self) -> None:
        for place, process in enumerate(self.processes):
            error = process.ended_badly()
            if error is not None:
                raise AssertionError(f"{process.name} ended: {error!r}") from error
            if process.task.done():
                self._start(place)

    async def _until_exact(self) -> None:
        for _ in range(60):
            self._check_processes()
            if not any(p.keeper.held for p in self.processes):
                self.grant(self.draw.randrange(2))
            if self.exact():
                return
            await self.clock.sleep(2.0)
        raise AssertionError(f"never exact: at {self._watch.cursor('s')}, the chain at {self.chain.blocks[-1]}")

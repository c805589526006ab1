"""A scripted source, a database, and runners that come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gapless.clock import Clock, SystemClock
from gapless.declare import UInt256, bind, key
from gapless.engine.derive import Deriver
from gapless.engine.flags import Switchboard
from gapless.engine.follow import Follower
from gapless.engine.handlers import Handler
from gapless.engine.lane import Lane
from gapless.engine.mend import Mender
from gapless.engine.observer import Observer
from gapless.engine.offload import Inline
from gapless.engine.plan import FollowOptions
from gapless.engine.repair import Repairer
from gapless.engine.runner import Job, Runner
from gapless.model import Mode
from gapless.schema import Schema
from gapless.store import Store
from gapless.store.memory import MemoryStore
from gapless.store.sqlite import SqliteStore
from unit.engine.keeper import Keeper
from unit.engine.scripted import TABLE, ListDecoder, ScriptedSource


@dataclass(frozen=True)
class Total:
    name: str = key()
    value: UInt256 = 0


TOTAL = bind(Total, "s")
SCHEMA = Schema("app", (TABLE, TOTAL.table), ("s",))


def add(transfer: Any, tables: Any) -> None:
    if transfer.value == 13:
        raise ValueError("thirteen")
    total = tables[Total].get("all")
    tables[Total].put(Total("all", (total.value if total else 0) + transfer.value))


class Heard(Observer):
    def __init__(self) -> None:
        self.modes: list[Mode] = [Mode.STOPPED]
        self.reorgs: list[int] = []
        self.finalized: list[int] = []
        self.known_gaps: list[int] = []

    def mode(self, source: str, mode: Mode, reason: str | None) -> None:
        if not self.modes or self.modes[-1] is not mode:
            self.modes.append(mode)

    def head(self, source: str, latest: int, finalized: int, time_us: int) -> None:
        if not self.finalized or self.finalized[-1] != finalized:
            self.finalized.append(finalized)

    def reorg(self, source: str, depth: int) -> None:
        self.reorgs.append(depth)

    def gaps(self, source: str, gaps: int) -> None:
        if not self.known_gaps or self.known_gaps[-1] != gaps:
            self.known_gaps.append(gaps)


class World:
    """A source, a store, and runners that come and go. `path`: of a SQLite file, instead of a store in memory."""

    def __init__(self, clock: Clock | None = None, path: Path | None = None, **options: Any) -> None:
        self.clock = clock or SystemClock(1)
        self.store: Store = MemoryStore(clock=self.clock) if path is None else SqliteStore(path, self.clock)
        self.store.open(SCHEMA, create=True)
        self.source = ScriptedSource()
        self.options = {"start": 0, "stall_after_seconds": 0.3, "retry_seconds_max": 0.05, **options}
        self.heard = Heard()
        self.handlers = (Handler("add", "token.Transfer", add),)

    def runner(self, source: ScriptedSource | None = None, ttl_seconds: float = 1.0, **options: Any) -> Any:
        merged = FollowOptions(**{**self.options, **options})
        if not isinstance(self.clock, SystemClock):
            return Direct(self, merged)
        job = Job(source or self.source, ListDecoder(), self.handlers, (TOTAL,), merged)
        return Runner([job], SCHEMA, self.store, self.clock, self.heard, ttl_seconds)

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Any]:
        runner = self.runner(**options)
        task = asyncio.create_task(runner.run())
        try:
            yield runner
        finally:
            runner.stop()
            await task

    def facts(self) -> list[tuple[int, int, int]]:
        columns, _ = self.store.facts(TABLE, 0, 10**9)
        return [(int(str(b)), int(str(i)), int(str(v))) for b, _, i, v in zip(*columns, strict=True)]

    def total(self) -> int:
        rows = list(self.store.state_rows(TOTAL.table))
        return int(str(rows[0].values[1])) if rows else 0

    def exact(self) -> bool:
        cursor = self.store.cursor("s")
        blocks = self.source.blocks
        if cursor is None or (cursor.position, cursor.id) != (len(blocks) - 1, blocks[-1].id):
            return False
        assert self.facts() == self.source.facts()
        assert self.total() == sum(v for _, _, v in self.source.facts())
        return True

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)


class Direct:
    """A follower without threads and with a lease that nobody has to keep: for virtual time, which is not to run ahead
    of threads."""

    def __init__(self, world: World, options: FollowOptions) -> None:
        self._store = world.store
        self._keeper = Keeper()
        source, decoder, handlers, bindings = world.source, ListDecoder(), world.handlers, (TOTAL,)
        offload = Inline()
        stateless = Deriver("s", decoder, handlers, bindings, None, 0)
        repairer = Repairer(source, stateless, world.store, offload, world.clock)
        self._follower = Follower(
            Lane(
                source,
                Deriver("s", decoder, handlers, bindings, world.store.state, 1000),
                world.store,
                options,
                world.clock,
                offload,
                world.heard,
                cast("Any", self._keeper),
                Mender(source, repairer, world.store, offload, world.clock),
                Switchboard(world.store, offload, world.clock),
            )
        )

    def stop(self) -> None:
        self._follower.stop()

    async def run(self) -> None:
        fence = self._store.acquire("v1:s", "direct", 1e9)
        assert fence is not None
        self._keeper.give(fence)
        try:
            await self._follower.run()
        finally:
            self._store.release(fence)


def change(source: ScriptedSource, draw: random.Random, branch: str) -> None:
    """Mine, or replace the tip by a branch that may be shorter, equal or longer."""
    blocks = [[draw.randint(14, 99) for _ in range(draw.randint(0, 3))] for _ in range(draw.randint(1, 5))]
    if draw.random() < 0.5:
        for values in blocks:
            source.mine(*values, branch=branch)
    else:
        source.fork(draw.randint(1, min(8, len(source.blocks) - 1)), *blocks, branch=branch)

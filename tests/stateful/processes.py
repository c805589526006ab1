"""Processes that follow the scripted chain: the real runner, lease keeper and all, without threads, in virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gapless.engine.observer import Observer
from gapless.engine.offload import Inline
from gapless.engine.plan import FollowOptions
from gapless.engine.runner import Job, Runner
from gapless.errors import CommitUnknown, GaplessError, StoreUnavailable
from gapless.model import Cursor, Fence
from gapless.store import Batch, Store
from gapless.testing.fake_clock import FakeClock
from stateful.scripted_chain import BINDINGS, HANDLERS, SCHEMA, ListDecoder, Source

TTL_SECONDS = 10.0


class Fate(StrEnum):
    """What may befall one commit."""

    AWAY = "the database is away: nothing was written"
    LOST_BEFORE = "the connection broke at COMMIT, before it took effect"
    LOST_AFTER = "the connection broke at COMMIT, after it took effect"


class WayToTheStore:
    """A process's store: its commits take one of the `fates`, while there are any, and once it is dead nothing of it
    arrives any more. `committed` hears of each commit that took place."""

    def __init__(self, inner: Store, committed: Callable[[Fence], None]) -> None:
        self.inner = inner
        self._committed = committed
        self.fates: deque[Fate] = deque()
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        work = getattr(self.inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead:
                raise StoreUnavailable("killed")
            return work(*args, **kwargs)

        return call if callable(work) else work

    def commit(self, batch: Batch, expected: Cursor | None, fence: Fence) -> None:
        fate = self.fates.popleft() if self.fates else None
        if self.dead or fate is Fate.AWAY:
            raise StoreUnavailable("nothing was written")
        if fate is Fate.LOST_BEFORE:
            raise CommitUnknown("lost at COMMIT")
        self.inner.commit(batch, expected, fence)
        self._committed(fence)
        if fate is Fate.LOST_AFTER:
            raise CommitUnknown("lost at COMMIT")


class TaskHeartbeat:
    """A heartbeat on the loop; none beats while the process is frozen."""

    def __init__(
        self, process: InlineProcess, beat: Callable[[], None], pause_seconds: float, last: Callable[[], None]
    ) -> None:
        self._process = process
        self._beat = beat
        self._pause_seconds = pause_seconds
        self._last = last
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def end(self, timeout_seconds: float) -> None:
        if self._task is not None:
            self._task.cancel()
            self._last()

    async def _run(self) -> None:
        while True:
            if not self._process.frozen:
                self._beat()
            await self._process.clock.sleep(self._pause_seconds)


@dataclass
class InlineProcess:
    """`gapless.engine.process.Process` without threads."""

    holder: str
    clock: FakeClock
    frozen: bool = False
    """It does not renew its lease, and goes on in good faith."""

    def offload(self, derivers_max: int) -> Inline:
        return Inline()

    def heartbeat(
        self, name: str, beat: Callable[[], None], pause_seconds: float, last: Callable[[], None]
    ) -> TaskHeartbeat:
        return TaskHeartbeat(self, beat, pause_seconds, last)


class Indexer:
    """One process with its own handle on the database and its own way to the chain."""

    def __init__(
        self,
        holder: str,
        store: Store,
        source: Source,
        options: FollowOptions,
        clock: FakeClock,
        committed: Callable[[Fence], None],
    ) -> None:
        self.process = InlineProcess(holder, clock)
        self.source = source
        self.store = WayToTheStore(store, committed)
        job = Job(source, ListDecoder(), HANDLERS, BINDINGS, options)
        way: Any = self.store
        self._runner = Runner([job], SCHEMA, way, clock, Observer(), TTL_SECONDS, self.process)
        self.task = asyncio.get_running_loop().create_task(self._runner.run(), name=holder)

    async def stop(self) -> None:
        """As on SIGTERM: what is being committed is finished, the lease is given up."""
        self._runner.stop()
        await self._ended()

    async def kill(self) -> None:
        """As on SIGKILL: nothing more of it reaches the database, and its lease has to run out."""
        self.store.dead = True
        self.task.cancel()
        await self._ended()

    async def _ended(self) -> None:
        await asyncio.wait({self.task})
        if not self.task.cancelled():
            self.task.exception()
        self.store.inner.close()

    def ended_badly(self) -> BaseException | None:
        """What ended it, unless it is what a supervisor answers with a restart."""
        if not self.task.done() or self.task.cancelled():
            return None
        error = self.task.exception()
        return None if isinstance(error, GaplessError) and error.retryable else error

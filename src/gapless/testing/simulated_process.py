"""A process of the simulation: the engine's real parts on a loop that can be stopped, frozen and killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random  # noqa: TID251 - the type; the draws are the simulation's
from typing import Any, TypeVar

from gapless.testing.simulated_time import SimulatedClock, SimulatedLoop, Timeline

R = TypeVar("R")

Pace = Callable[[str], tuple[float, float]]
"""Seconds a call of a kind takes until its effect, and from there to its answer."""


class SimulatedWorkers:
    """`gapless.engine.offload.Offload` without threads: a call has its effect at one moment, and its answer comes at
    another. Writing calls follow one another, and so do deriving ones; once begun, a call runs to its end."""

    def __init__(self, loop: SimulatedLoop, pace: Pace) -> None:
        self._loop = loop
        self._pace = pace
        self._free_at = {"write": 0.0, "derive": 0.0, "read": 0.0}
        self._open: dict[asyncio.Future[Any], None] = {}
        self._ended = False

    async def write(self, call: Callable[[], R]) -> R:
        return await self._on("write", call)

    async def derive(self, call: Callable[[], R]) -> R:
        return await self._on("derive", call)

    async def read(self, call: Callable[[], R]) -> R:
        return await self._on("read", call)

    async def close(self, timeout_seconds: float) -> bool:
        self._ended = True
        if not self._open:
            return True
        _, late = await asyncio.wait(list(self._open), timeout=timeout_seconds)
        return not late

    async def _on(self, kind: str, call: Callable[[], R]) -> R:
        if self._ended:
            raise RuntimeError("the workers have ended")
        before, after = self._pace(kind)
        now = self._loop.time()
        begun = now if kind == "read" else max(now, self._free_at[kind])
        effect = begun + before
        self._free_at[kind] = effect + after
        future: asyncio.Future[R] = self._loop.create_future()
        self._open[future] = None
        future.add_done_callback(self._done)
        self._at(effect, self._act, future, call, effect + after)
        return await asyncio.shield(future)

    def _act(self, future: asyncio.Future[R], call: Callable[[], R], answered: float) -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the call
            self._at(answered, _fail, future, error)
        else:
            self._at(answered, _give, future, result)

    def _at(self, moment: float, callback: Callable[..., None], *args: Any) -> None:
        if moment <= self._loop.time():
            self._loop.call_soon(callback, *args)
        else:
            self._loop.call_at(moment, callback, *args)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._open.pop(future, None)


def _give(future: asyncio.Future[R], result: R) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class SimulatedHeartbeat:
    """`gapless.engine.offload.Heartbeat` on a loop of its own, which goes on while the process's is frozen."""

    def __init__(
        self,
        main: SimulatedLoop,
        thread: SimulatedLoop,
        beat: Callable[[], None],
        pause_seconds: float,
        last: Callable[[], None],
    ) -> None:
        self._thread = thread
        self._beat = beat
        self._pause_seconds = pause_seconds
        self._last = last
        self._ended = asyncio.Event()
        self._main = main
        self._next: asyncio.Handle | None = None

    def start(self) -> None:
        self._next = self._thread.call_soon(self._run)

    async def end(self, timeout_seconds: float) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
            self._thread.call_soon(self._finish)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._ended.wait()
        except TimeoutError:
            return

    def _run(self) -> None:
        self._beat()
        self._next = self._thread.call_later(self._pause_seconds, self._run)

    def _finish(self) -> None:
        self._last()
        self._main.call_soon(self._ended.set)


class SimulatedProcess:
    """`gapless.engine.process.Process` with a loop, a clock and, for heartbeats, one thread of its own.

    `rate`: how fast its clocks go; `off_seconds`: how wrong its wall clock is."""

    def __init__(
        self, timeline: Timeline, holder: str, seed: str, pace: Pace, *, rate: float = 1.0, off_seconds: float = 0.0
    ) -> None:
        self.holder = holder
        self.loop = SimulatedLoop.on(timeline, rate)
        self.thread = SimulatedLoop.on(timeline, rate)
        self.clock = SimulatedClock(self.loop, seed, off_seconds=off_seconds)
        self._pace = pace

    @property
    def draw(self) -> Random:
        return self.clock.random()

    def offload(self, derivers_max: int) -> SimulatedWorkers:  # noqa: ARG002 - one source, one deriver
        return SimulatedWorkers(self.loop, self._pace)

    def heartbeat(
        self,
        name: str,  # noqa: ARG002 - nobody looks for it
        beat: Callable[[], None],
        pause_seconds: float,
        last: Callable[[], None],
    ) -> SimulatedHeartbeat:
        return SimulatedHeartbeat(self.loop, self.thread, beat, pause_seconds, last)

    def pause(self, seconds: float) -> None:
        """All of it stands still, as after SIGSTOP."""
        self.loop.pause(seconds)
        self.thread.pause(seconds)

    def freeze(self, seconds: float) -> None:
        """Its event loop stands still; threads go on."""
        self.loop.pause(seconds)

    def bury(self) -> None:
        """Killed: what it held has been cut off before."""
        self.thread.bury()
        self.loop.bury()

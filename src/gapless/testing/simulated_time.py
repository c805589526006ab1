"""One line of time for several simulated processes, in one thread and without a socket.

Each process has an event loop of its own (`SimulatedLoop`), and all loops put what is to happen on one `Timeline`,
which moves from event to event. So a process can be stopped for a while (SIGSTOP, a frozen loop), or end in the middle
of anything (SIGKILL), while the others go on, and all that happens follows from one seed.

A step is one callback that a loop ran: what an ordinary event loop would call one handle.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from random import Random  # noqa: TID251 - the clock is where randomness comes from
from threading import Event
from typing import Any, Self, TypeVar
from weakref import WeakValueDictionary

from gapless.errors import InvariantViolation, check
from gapless.testing.fake_clock import START_US
from gapless.testing.virtual_loop import EverybodyWaits

T = TypeVar("T")

_TICK_SECONDS = 1e-9
"""A timer is due so much later, as with any real clock: one that is rounded down to just before its time would have
whoever waits for that time set it again, and again, and time would stand still."""
_BURIAL_STEPS_MAX = 100_000


class Timeline:
    """What is to happen, in order. `now` is in seconds since the beginning."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        """Callbacks run so far."""
        self.running: SimulatedLoop | None = None
        """The loop that asyncio takes for the running one."""
        self._ready: deque[tuple[SimulatedLoop, asyncio.Handle]] = deque()
        self._later: list[tuple[float, int, SimulatedLoop, asyncio.Handle]] = []
        self._sequence = 0
        self._failure: BaseException | None = None

    def abort(self, failure: BaseException) -> None:
        """End `run` with a failure after the present callback. The first one counts."""
        self._failure = self._failure or failure

    def soon(self, loop: SimulatedLoop, handle: asyncio.Handle) -> None:
        self._ready.append((loop, handle))

    def take(self, loop: SimulatedLoop) -> list[asyncio.Handle]:
        """Remove and return what is ready of one loop."""
        taken = [handle for owner, handle in self._ready if owner is loop]
        if taken:
            rest = [item for item in self._ready if item[0] is not loop]
            self._ready.clear()
            self._ready.extend(rest)
        return taken

    def at(self, moment: float, loop: SimulatedLoop, handle: asyncio.Handle) -> None:
        self._sequence += 1
        heapq.heappush(self._later, (max(moment, self.now), self._sequence, loop, handle))

    def run(self, main: asyncio.Task[T], *, steps_max: int) -> T:
        """Let things happen until a task is done; its result. Raises EverybodyWaits when nothing is left to happen, and
        InvariantViolation after too many steps."""
        limit = self.steps + steps_max
        ready, later = self._ready, self._later
        try:
            while self._failure is None and not main.done():
                if not ready:
                    if not later:
                        raise EverybodyWaits("Every process waits, and nothing is left to happen")
                    moment, _, loop, handle = heapq.heappop(later)
                    if handle.cancelled() or loop.dead:
                        continue
                    self.now = moment
                    ready.append((loop, handle))
                    continue
                loop, handle = ready.popleft()
                if not handle.cancelled():
                    loop.happens(handle)
                if self.steps > limit:
                    raise InvariantViolation(f"{steps_max} steps, and no end: something is tried again and again")
        finally:
            self.running = None
            events._set_running_loop(None)  # noqa: SLF001 - as the loops of asyncio do it
        if self._failure is not None:
            raise self._failure
        return main.result()


class SimulatedLoop(asyncio.AbstractEventLoop):
    """The event loop of one process, or of one of its threads. `rate`: how fast its time goes."""

    def __init__(self, timeline: Timeline, *, rate: float = 1.0) -> None:
        self._timeline = timeline
        self._rate = rate
        self._held: deque[asyncio.Handle] = deque()
        self._tasks: WeakValueDictionary[int, asyncio.Task[Any]] = WeakValueDictionary()
        self._born = 0
        self._paused_until = 0.0
        self.dead = False
        self._grave: deque[asyncio.Handle] | None = None
        """Once it is dead: what is left to run of it, whatever the time."""

    @classmethod
    def on(cls, timeline: Timeline, rate: float = 1.0) -> Self:
        """A loop; of the many things event loops can do, only what a simulation needs."""
        return cls(timeline, rate=rate)

    # --- what befalls it ---

    def pause(self, seconds: float) -> None:
        """Nothing happens in it for so long; then everything that was due does, in order."""
        self._paused_until = max(self._paused_until, self._timeline.now + seconds)
        self._at(self._paused_until, self._thaw, ())

    @property
    def paused_seconds(self) -> float:
        """How long it still stands still."""
        return max(0.0, self._paused_until - self._timeline.now)

    def happens(self, handle: asyncio.Handle) -> None:
        """The timeline has come to one of its callbacks."""
        if self._grave is not None:
            return
        if self._timeline.now < self._paused_until:
            self._held.append(handle)
            return
        timeline = self._timeline
        timeline.steps += 1
        if timeline.running is not self:
            timeline.running = self
            events._set_running_loop(self)  # noqa: SLF001 - as the loops of asyncio do it
        handle._run()  # noqa: SLF001 - as the loops of asyncio do it

    def bury(self) -> None:
        """The process is gone. Its tasks are cancelled and run to their end out of time, so that nothing of them is
        left behind: whatever they hold must be cut off from the world before."""
        self._paused_until = 0.0
        if not self._tasks:  # A thread: nothing of it can be left behind.
            self._grave, self.dead = deque(), True
            return
        grave = self._grave = deque([*self._held, *self._timeline.take(self)])
        self._held.clear()
        for _, task in sorted(self._tasks.items()):
            task.cancel()
        running = events._get_running_loop()  # noqa: SLF001 - put back below
        events._set_running_loop(self)  # noqa: SLF001 - as the loops of asyncio do it
        try:
            for _ in range(_BURIAL_STEPS_MAX):
                if not grave:
                    break
                handle = grave.popleft()
                if not handle.cancelled():
                    handle._run()  # noqa: SLF001 - as the loops of asyncio do it
            check(not grave, "what a dead process held comes to an end")
        finally:
            events._set_running_loop(running)  # noqa: SLF001 - as the loops of asyncio do it
            self.dead = True

    def _thaw(self) -> None:
        while self._held:
            self._timeline.soon(self, self._held.popleft())

    # --- AbstractEventLoop, as far as asyncio's tasks, futures and locks need it ---

    def time(self) -> float:
        return self._timeline.now * self._rate

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if self._grave is not None:
            self._grave.append(handle)
        else:
            self._timeline.soon(self, handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if self._grave is not None:
            self._grave.append(handle)
        else:
            self._timeline.at(when / self._rate + _TICK_SECONDS, self, handle)
        return handle

    def _at(self, moment: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        """At a moment of the timeline, and before whatever it is paused for."""
        self._timeline.at(moment, self, asyncio.Handle(callback, args, self))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._born += 1
        self._tasks[self._born] = task
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return self.dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What a callback raises ends the run. A task's failure that nobody asks for is told when its memory is
        reclaimed, which is at no certain time: such are left to those who own the task."""
        if "handle" in context and "exception" in context:
            self._timeline.abort(context["exception"])

    def _timer_handle_cancelled(self, _: asyncio.TimerHandle) -> None:
        return


class SimulatedClock:
    """`gapless.clock.Clock` of one process: its loop's time, a wall clock that may be off, and draws of its own."""

    def __init__(self, loop: SimulatedLoop, seed: int | str, *, off_seconds: float = 0.0) -> None:
        self._loop = loop
        self._random = Random(str(seed))
        self._start_us = START_US + round(off_seconds * 1e6)

    def now_us(self) -> int:
        return self._start_us + round(self._loop.time() * 1e6)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        future = self._loop.create_future()
        timer = self._loop.call_later(max(seconds, 0.0), _wake, future)
        try:
            await future
        finally:
            timer.cancel()

    def wait(self, event: Event, seconds: float) -> bool:
        raise InvariantViolation(f"A simulated process has no thread that could wait {seconds} s for {event}")

    def random(self) -> Random:
        return self._random


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

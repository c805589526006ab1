"""A clock that tests move by hand, or that moves by itself whenever everybody waits.

By hand: `advance(seconds)` from any thread; sleepers whose time has come wake in the order of their deadlines.

By itself: `clock.run(main())` in the place of `asyncio.run(main())`. It runs the coroutine on an event loop whose own
time is the virtual one (so `asyncio.timeout` and `call_later` are virtual too), and whose selector, instead of
blocking, moves the clock to the next deadline. An hour of polling then takes milliseconds, and `await
clock.sleep(10)` in a test lets all others live through exactly the next ten seconds, in order.

When may time move? Only when nothing is left to run: no callback is ready, no socket is readable, no call handed to
an executor is at work, and every thread woken from `wait` waits again or has ended. What the loop cannot see is an
answer on its way from another thread or process over a socket: give `run` a `grace_seconds` longer than such an answer
takes (servers running in the same loop need none).
"""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import Callable, Coroutine
from random import Random  # noqa: TID251 - the clock is where randomness comes from
from typing import Any, TypeVar

from gapless.clock import SystemClock
from gapless.testing.virtual_loop import POLL_SECONDS, VirtualLoop, executor_calls_of_this_thread

T = TypeVar("T")

START_US = 1_700_000_000_000_000
THREAD_SECONDS_MAX = 1.0
"""How long, in real time, the clock stands still for a thread it has woken."""
_REAL = SystemClock()


class FakeClock:
    """A `gapless.clock.Clock` in virtual time. `monotonic()` starts at 0; the wall clock at `start_us`."""

    def __init__(self, *, seed: int = 0, start_us: int = START_US) -> None:
        self._random = Random(seed)
        self._start_us = start_us
        self._now = 0.0
        self._jumped_us = 0
        self._lock = threading.Lock()
        self._deadlines: list[tuple[float, int, _Waiter]] = []
        self._sequence = 0
        self._forgotten = 0
        self._woken: dict[threading.Thread, float] = {}
        """Threads that left `wait` and have not come back, with the real time from which they are not minded."""

    def __repr__(self) -> str:
        return f"<FakeClock {self._now:.6f} s, {len(self._deadlines)} waiting>"

    # --- the Clock port ---

    def now_us(self) -> int:
        """Virtual wall-clock time in microseconds since 1970 UTC, jumps included."""
        return self._start_us + self._jumped_us + round(self._now * 1e6)

    def monotonic(self) -> float:
        """Virtual seconds since this clock was made."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait for virtual time to pass."""
        if seconds <= 0:
            await asyncio.sleep(0)  # noqa: TID251 - gives way to other tasks, takes no time
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        waiter = self._register(seconds, lambda: loop.call_soon_threadsafe(wake))
        try:
            await future
        finally:
            self._forget(waiter)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Block this thread until the event is set or virtual time has passed. True when it was set."""
        thread = threading.current_thread()
        waiter = self._register(seconds, lambda: self._mind(thread))
        calls = executor_calls_of_this_thread()
        if calls is not None:
            calls.idle(+1)
        try:
            while not event.wait(POLL_SECONDS):
                if self._now >= waiter.deadline:
                    break
            return event.is_set()
        finally:
            if calls is not None:
                calls.idle(-1)
            self._forget(waiter)

    def random(self) -> Random:
        """Seeded: the same draws in every run."""
        return self._random

    # --- moving it ---

    def advance(self, seconds: float) -> None:
        """Let time pass at once. Sleepers wake in the order of their deadlines and then see the time it has become."""
        target = self._now + seconds
        while self.step(target):
            pass
        self._now = max(self._now, target)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back (an NTP step, a suspended laptop); monotonic time does not move."""
        self._jumped_us += round(seconds * 1e6)

    def next_deadline(self) -> float | None:
        """The virtual time at which the next sleeper or waiting thread is due; None when there is none."""
        with self._lock:
            return self._earliest()

    def run(self, main: Coroutine[Any, Any, T], *, grace_seconds: float = 0.0, stuck_seconds_max: float = 10.0) -> T:
        """Run a coroutine to its end, moving time whenever everybody waits.

        `grace_seconds` of real silence go before each move, for answers that are on their way from other threads or
        processes. Raises EverybodyWaits after `stuck_seconds_max` of real time in which nothing happened and no
        deadline was left to move to."""
        loop = VirtualLoop(self, grace_seconds=grace_seconds, stuck_seconds_max=stuck_seconds_max)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(main)

    # --- what the virtual loop needs ---

    def step(self, limit: float) -> bool:
        """Move to the next deadline up to `limit` and wake who is due then. False when there is none."""
        with self._lock:
            due = self._earliest()
            if due is None or due > limit:
                return False
            waiter = heapq.heappop(self._deadlines)[2]
            self._now = max(self._now, due)
        waiter.wake()
        return True

    def reach(self, moment: float) -> None:
        """Move to a moment at which nobody on this clock is due."""
        self._now = max(self._now, moment)

    def threads_at_work(self) -> bool:
        """Whether a thread woken from `wait` is still doing what it was woken for."""
        with self._lock:
            now = _REAL.monotonic()
            self._woken = {t: until for t, until in self._woken.items() if t.is_alive() and now < until}
            return bool(self._woken)

    # --- inside ---

    def _earliest(self) -> float | None:
        while self._deadlines and self._deadlines[0][2].forgotten:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _register(self, seconds: float, wake: Callable[[], object]) -> _Waiter:
        with self._lock:
            self._woken.pop(threading.current_thread(), None)
            waiter = _Waiter(self._now + max(seconds, 0.0), wake)
            self._sequence += 1
            heapq.heappush(self._deadlines, (waiter.deadline, self._sequence, waiter))
            return waiter

    def _forget(self, waiter: _Waiter) -> None:
        with self._lock:
            waiter.forgotten = True
            self._forgotten += 1
            if self._forgotten > 64 and self._forgotten > len(self._deadlines) // 2:
                # Cancelled sleepers would stay until their time comes: for ever, in a long run with long timeouts.
                self._deadlines = [d for d in self._deadlines if not d[2].forgotten]
                heapq.heapify(self._deadlines)
                self._forgotten = 0

    def _mind(self, thread: threading.Thread) -> None:
        with self._lock:
            self._woken[thread] = _REAL.monotonic() + THREAD_SECONDS_MAX


class _Waiter:
    __slots__ = ("deadline", "forgotten", "wake")

    def __init__(self, deadline: float, wake: Callable[[], object]) -> None:
        self.deadline = deadline
        self.wake = wake
        self.forgotten = False

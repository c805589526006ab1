"""The event loop of `FakeClock.run`: its time is a clock's, and where it would block, it moves that clock."""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

from gapless.clock import SystemClock
from gapless.errors import GaplessError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

POLL_SECONDS = 0.002
"""How often, in real time, those who wait for threads look again."""
_REAL = SystemClock()


class EverybodyWaits(GaplessError):
    """All tasks wait, and nothing is left that could wake one: a deadlock in the code under test."""


class VirtualTime(Protocol):
    """The clock as its loop sees it."""

    def monotonic(self) -> float: ...

    def next_deadline(self) -> float | None: ...

    def step(self, limit: float) -> bool: ...

    def reach(self, moment: float) -> None: ...

    def threads_at_work(self) -> bool: ...


class ExecutorCalls:
    """Calls handed to executors and not finished, less those that are themselves waiting on the clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._idle = 0

    def started(self) -> None:
        with self._lock:
            self._under_way += 1

    def ended(self, _: object) -> None:
        with self._lock:
            self._under_way -= 1

    def idle(self, change: int) -> None:
        with self._lock:
            self._idle += change

    def at_work(self) -> bool:
        with self._lock:
            return self._under_way > self._idle

    def counted(self, func: Callable[[Unpack[Ts]], T]) -> Callable[[Unpack[Ts]], T]:
        def call(*args: *Ts) -> T:
            _here.calls = self
            try:
                return func(*args)
            finally:
                _here.calls = None

        return call


_here = threading.local()
"""`calls`: those of the loop whose executor call this thread is at work on."""


def executor_calls_of_this_thread() -> ExecutorCalls | None:
    found: ExecutorCalls | None = getattr(_here, "calls", None)
    return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time that knows which executor calls are under way."""

    def __init__(self, clock: VirtualTime, *, grace_seconds: float, stuck_seconds_max: float) -> None:
        self._calls = ExecutorCalls()
        self._clock = clock
        super().__init__(_IdleSelector(clock, self._calls, grace_seconds, stuck_seconds_max))

    def time(self) -> float:
        return self._clock.monotonic()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, self._calls.counted(func), *args)
        self._calls.started()
        future.add_done_callback(self._calls.ended)
        return future


class _IdleSelector(selectors.DefaultSelector):
    """Where an event loop would block, this moves the clock instead."""

    def __init__(
        self, clock: VirtualTime, calls: ExecutorCalls, grace_seconds: float, stuck_seconds_max: float
    ) -> None:
        super().__init__()
        self._clock = clock
        self._calls = calls
        self._grace_seconds = grace_seconds
        self._stuck_seconds_max = stuck_seconds_max

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """`timeout` is virtual: the loop's own next timer; 0 when callbacks are ready, None without timers."""
        if timeout == 0:
            return super().select(0)
        pause = self._grace_seconds
        give_up = _REAL.monotonic() + self._stuck_seconds_max
        while True:
            busy = self._calls.at_work() or self._clock.threads_at_work()
            events = super().select(POLL_SECONDS if busy else pause)
            if events:
                return events
            if busy:
                give_up = _REAL.monotonic() + self._stuck_seconds_max
            elif self._move(timeout):
                return []
            elif _REAL.monotonic() > give_up:
                raise EverybodyWaits("Every task waits and nothing is left to wake one", todo="See the tasks' stacks.")
            else:
                pause = POLL_SECONDS

    def _move(self, timeout: float | None) -> bool:
        due = self._clock.next_deadline()
        timer = None if timeout is None else self._clock.monotonic() + timeout
        if due is not None and (timer is None or due <= timer):
            return self._clock.step(due)
        if timer is None:
            return False
        # The loop compares its timers with time() in floating point: never stop short of one.
        self._clock.reach(timer + 1e-9)
        return True

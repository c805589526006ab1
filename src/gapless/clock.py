"""The only door to time, sleep and randomness.

Everything that waits, ages, expires or draws takes a `Clock`, so that tests and the simulation can move time
by themselves and a run can be repeated from one seed. Wall-clock time is for people and for lease rows read by
other processes; durations always come from `monotonic()`.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Time, sleep and randomness."""

    def now_us(self) -> int:
        """Wall-clock time: microseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary origin; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let other tasks run for this long."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Block this thread until the event is set, at most this long. True when it was set."""
        ...

    def random(self) -> random.Random:
        """The one source of randomness (jitter, audit choice); not for secrets."""
        ...


class SystemClock:
    """The real one."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)

    def random(self) -> random.Random:
        return self._random

"""Where synchronous work runs: the writing thread, the deriving thread, a reading thread.

One writing thread means one writing connection and commits in order. The simulation runs everything inline instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

R = TypeVar("R")


class Offload(Protocol):
    """Runs synchronous calls without blocking the loop. Once started, a call runs to its end, also when the task
    that waits for it is cancelled: a transaction is never torn by cancellation."""

    async def write(self, call: Callable[[], R]) -> R: ...

    async def derive(self, call: Callable[[], R]) -> R: ...

    async def read(self, call: Callable[[], R]) -> R: ...

    def close(self) -> None: ...


class Threads:
    """One thread for writing, one for deriving, a few for reading."""

    def __init__(self, readers_max: int = 4) -> None:
        self._writer = ThreadPoolExecutor(1, "gapless-write")
        self._deriver = ThreadPoolExecutor(1, "gapless-derive")
        self._readers = ThreadPoolExecutor(readers_max, "gapless-read")

    async def write(self, call: Callable[[], R]) -> R:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._writer, call))

    async def derive(self, call: Callable[[], R]) -> R:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._deriver, call))

    async def read(self, call: Callable[[], R]) -> R:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._readers, call))

    def close(self) -> None:
        """Wait for what is running; refuse what is not."""
        for executor in (self._deriver, self._writer, self._readers):
            executor.shutdown(wait=True, cancel_futures=True)


class Inline:
    """Everything at once, on the caller: for tests and the simulation."""

    async def write(self, call: Callable[[], R]) -> R:
        return call()

    async def derive(self, call: Callable[[], R]) -> R:
        return call()

    async def read(self, call: Callable[[], R]) -> R:
        return call()

    def close(self) -> None:
        return

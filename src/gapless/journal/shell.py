"""A `Journal` made of a `log.Log`: calls that wait for the disk run on a thread of their own, one after the other.

Appends under way at the same time are made durable together: while one sync runs, later callers queue up, and the
first of them takes them all. A call that was begun runs to its end, also when who waits for it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gapless.clock import Clock
from gapless.errors import JournalFull, JournalUnavailable
from gapless.journal import Damage, JournalState, Message, Record
from gapless.journal.log import Log

T = TypeVar("T")


class _Append:
    """One caller's messages, and what became of them."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.positions: list[int] | None = None
        self.trouble: Exception | None = None
        self.left = False
        """The caller does not wait any more."""

    @property
    def settled(self) -> bool:
        return self.positions is not None or self.trouble is not None


class Shell:
    """Waits, so that the log need not."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self.url = log.url
        self._log = log
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gapless-journal") if log.blocks else None
        self._turn = asyncio.Lock()
        self._queue: list[_Append] = []
        # Set once and replaced: who takes it before looking misses no change, however many look.
        self._grown = asyncio.Event()
        self._shrunk = asyncio.Event()
        self._closed = False

    async def open(self) -> None:
        try:
            await self._run(self._log.open)
        except BaseException:
            self._end()
            raise

    # --- writing ---

    async def append(self, messages: Sequence[Message]) -> list[int]:
        self._log.limits.check_messages(messages)
        deadline = self._clock.monotonic() + self._log.limits.append_timeout_seconds
        mine = _Append(messages)
        self._queue.append(mine)
        try:
            async with self._turn:
                while not mine.settled:
                    shrunk = self._shrunk
                    full = await asyncio.shield(asyncio.ensure_future(self._append_queued()))
                    if full is not None and not await self._wait(shrunk, deadline):
                        raise full
        finally:
            mine.left = True
        if mine.positions is None:
            raise mine.trouble or JournalUnavailable("The journal was closed during an append", todo="Append again.")
        return mine.positions

    async def _append_queued(self) -> JournalFull | None:
        """Append what everybody who waits has brought, with one sync; at high water leave it in the queue."""
        group = [one for one in self._queue if not one.left]
        self._queue = []
        messages = [m for one in group for m in one.messages]
        try:
            positions = await self._run(lambda: self._log.append(messages))
        except JournalFull as full:
            self._queue = group + self._queue
            return full
        except Exception as error:  # noqa: BLE001 - every one of the callers raises it
            for one in group:
                one.trouble = error
            return None
        at = 0
        for one in group:
            one.positions = positions[at : at + len(one.messages)]
            at += len(one.messages)
        self._grown.set()
        self._grown = asyncio.Event()
        return None

    # --- reading ---

    async def read(
        self, after: int, *, records_max: int = 1000, bytes_max: int = 8 * 2**20, wait_seconds: float = 0.0
    ) -> list[Record]:
        deadline = self._clock.monotonic() + wait_seconds
        while True:
            grown = self._grown
            found = await self._run(lambda: self._log.read(after, records_max, bytes_max))
            if found or not await self._wait(grown, deadline):
                return found

    async def subscribe(self, consumer: str) -> int:
        return await self._run(lambda: self._log.subscribe(consumer))

    async def acknowledge(self, consumer: str, upto: int) -> None:
        await self._run(lambda: self._log.acknowledge(consumer, upto))

    # --- keeping ---

    async def length(self) -> int:
        return (await self.state()).length

    async def trim(self, upto: int | None = None) -> int:
        floor = await self._run(lambda: self._log.trim(upto))
        self._shrunk.set()
        self._shrunk = asyncio.Event()
        return floor

    async def unsubscribe(self, consumer: str) -> None:
        await self._run(lambda: self._log.unsubscribe(consumer))

    async def state(self) -> JournalState:
        return await self._run(self._log.state)

    async def verify(self) -> list[Damage]:
        return await self._run(self._log.verify)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._grown.set()
            self._shrunk.set()
            try:
                await self._run(self._log.close, closing=True)
            finally:
                self._end()

    # --- inside ---

    async def _run(self, call: Callable[[], T], *, closing: bool = False) -> T:
        if self._closed and not closing:
            raise JournalUnavailable("The journal is closed", todo="Open it again.")
        if self._thread is None:
            await self._clock.sleep(0)  # a caller in a loop lets others run
            return call()
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _wait(self, event: asyncio.Event, deadline: float) -> bool:
        """False when the time is over."""
        left = deadline - self._clock.monotonic()
        if left <= 0:
            return False
        try:
            async with asyncio.timeout(left):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def _end(self) -> None:
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=False)

"""A lease keeper without a thread."""

from __future__ import annotations

import asyncio

from gapless.errors import LeaseLost
from gapless.model import Fence


class Keeper:
    """A lease as the world hands it out; whoever had it before may not notice."""

    last_error = None

    def __init__(self) -> None:
        self.held: Fence | None = None
        self._changed = asyncio.Event()

    @property
    def fence(self) -> Fence | None:
        return self.held

    def require(self) -> Fence:
        if self.held is None:
            raise LeaseLost("not held")
        return self.held

    def refused(self, fence: Fence) -> None:
        if self.held == fence:
            self.held = None

    def give(self, fence: Fence | None) -> None:
        self.held = fence
        self._changed.set()

    async def wait_held(self) -> Fence:
        while self.held is None:
            self._changed.clear()
            await self._changed.wait()
        return self.held

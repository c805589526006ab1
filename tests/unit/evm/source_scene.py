"""Where the source's tests play: heights of one scripted chain, and a bound on every scene."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

HEIGHT = 400
DEEP = (40, 60)
"""Final long ago, and fetched by filter."""
NEAR = (380, 390)
"""Not final yet, and fetched strictly."""


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await main()

    return asyncio.run(bounded())

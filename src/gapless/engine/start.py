"""Where a source begins when its start is not a number: at the head, or at the first block of a date."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from gapless.errors import StartBeyondHead
from gapless.sources import AnySource

Start = int | Literal["head"] | datetime


async def resolve_start(source: AnySource, start: Start) -> int:
    """The first position. A date is searched by block time: about 25 single-block fetches.

    Raises StartBeyondHead for a date after the newest block."""
    if isinstance(start, int):
        return start
    head = await source.head()
    if start == "head" or not isinstance(start, datetime):
        return head.latest.position
    wanted_us = int(start.timestamp() * 1_000_000)
    if head.time_us < wanted_us:
        raise StartBeyondHead(
            f"The newest block is older than {start.isoformat()}",
            source=source.name,
            todo='Set `start` to an earlier date, or to "head".',
        )
    low, high = 0, head.latest.position
    while low < high:
        middle = (low + high) // 2
        segment = await source.fetch(middle, middle, head=head)
        if segment.first.time_us < wanted_us:
            low = middle + 1
        else:
            high = middle
    return low

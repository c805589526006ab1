"""Where a source begins when its start is not a number: at the head, or at the first block of a date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from gapless.errors import HistoryPruned, StartBeyondHead
from gapless.model import Head
from gapless.sources import AnySource

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Start = int | Literal["head"] | datetime


async def resolve_start(source: AnySource, start: Start) -> int:
    """The first position. A date is searched by block time: about 25 single-block fetches.

    Raises StartBeyondHead for a date after the newest block, and HistoryPruned where the first block of the date may be
    among those the source no longer has."""
    if isinstance(start, int):
        return start
    head = await source.head()
    if start == "head" or not isinstance(start, datetime):
        return head.latest.position
    wanted_us = (start - _EPOCH) // timedelta(microseconds=1)
    if head.time_us < wanted_us:
        raise StartBeyondHead(
            f"The newest block is older than {start.isoformat()}",
            source=source.name,
            todo='Set `start` to an earlier date, or to "head".',
        )
    return await _first_at_or_after(source, wanted_us, head)


async def _first_at_or_after(source: AnySource, wanted_us: int, head: Head) -> int:
    low, high = 0, head.latest.position
    pruned: HistoryPruned | None = None
    while low < high:
        middle = (low + high) // 2
        try:
            earlier = (await source.fetch(middle, middle, head=head)).first.time_us < wanted_us
            pruned = None if earlier else pruned
        except HistoryPruned as error:
            earlier, pruned = True, error
        if earlier:
            low = middle + 1
        else:
            high = middle
    if pruned is not None:
        raise pruned  # The block below may be of the date as well: nobody here knows its time.
    return low

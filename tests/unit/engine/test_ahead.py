"""Fetching ahead: in order, and never further than told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gapless.clock import SystemClock
from gapless.engine.ahead import FetchAhead, Weight
from gapless.engine.flags import Switchboard
from gapless.engine.lane import Lane
from gapless.engine.observer import Observer
from gapless.engine.plan import FollowOptions
from unit.engine.scripted import ScriptedSource

BLOCKS = 50
SEGMENT_BYTES = 100
"""Of every segment of a scripted source."""


def read(**options: Any) -> tuple[list[int], int]:
    """Read a chain through; its positions, and how many segments were asked for at most beyond those taken."""
    source = ScriptedSource(span_positions=1)
    for _ in range(BLOCKS):
        source.mine()
    none: Any = None
    lane = Lane(
        source,
        none,
        none,
        FollowOptions(0, **options),
        SystemClock(),
        none,
        Observer(),
        none,
        none,
        Switchboard(none, none, SystemClock()),
    )

    async def main() -> tuple[list[int], int]:
        taken: list[int] = []
        most = 0
        async for segment in FetchAhead(lane, Weight(), 0, BLOCKS - 1, await source.head()):
            taken += [entry.position for entry in segment.entries]
            for _ in range(5):
                await asyncio.sleep(0)
            most = max(most, len(source.fetched) - len(taken))
        return taken, most

    return asyncio.run(main())


@pytest.mark.parametrize("limit", [1, 3])
def test_the_look_ahead_is_bounded(limit: int) -> None:
    """At most so many segments are on their way or wait; all come, in order."""
    assert read(inflight_segments_max=limit) == (list(range(BLOCKS)), limit)


@pytest.mark.parametrize(("limit", "segments"), [(SEGMENT_BYTES * 5 // 2, 2), (1, 1)])
def test_the_look_ahead_is_bounded_in_bytes(limit: int, segments: int) -> None:
    """Nor more than so many bytes, but always one segment."""
    taken, most = read(inflight_segments_max=1000, inflight_bytes_max=limit)
    assert taken == list(range(BLOCKS))
    assert most == segments

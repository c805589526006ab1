"""Fetch ahead of the one that derives, within bounds on requests and on bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from gapless.engine.lane import Lane
from gapless.model import Head, Segment

_FADE = 0.95
"""What an estimate keeps of itself with each lighter segment: heavy blocks come in bursts."""


class Weight:
    """Bytes a position has weighed lately: rises at once, falls slowly."""

    def __init__(self) -> None:
        self._bytes_per_position: float | None = None

    @property
    def known(self) -> bool:
        return self._bytes_per_position is not None

    def note(self, segment: Segment[Any]) -> None:
        found = segment.size_bytes / len(segment.entries)
        old = self._bytes_per_position
        self._bytes_per_position = found if old is None else max(found, _FADE * old + (1 - _FADE) * found)

    def of(self, positions: int) -> float:
        return positions * (self._bytes_per_position or 0.0)


class FetchAhead:
    """Segments in order. At most `inflight_segments_max` are under way or waiting, and together, by what such
    positions have weighed lately, at most `inflight_bytes_max`; but always one, and only one while nothing is known
    of their weight."""

    def __init__(self, lane: Lane, weight: Weight, first: int, last: int, head: Head) -> None:
        self._lane = lane
        self._weight = weight
        self._next = first
        self._last = last
        self._head = head
        self._ahead: deque[tuple[asyncio.Task[Segment[Any]], int]] = deque()
        """Requests and how many positions each is for."""

    def __aiter__(self) -> FetchAhead:
        return self

    async def __anext__(self) -> Segment[Any]:
        self._fill()
        if not self._ahead:
            raise StopAsyncIteration
        segment = await self._ahead[0][0]
        self._ahead.popleft()
        self._weight.note(segment)
        self._fill()
        return segment

    def _fill(self) -> None:
        options, source = self._lane.options, self._lane.source
        segments_max = self._lane.switches.segments_max(options.inflight_segments_max)
        while self._next <= self._last and len(self._ahead) < segments_max:
            positions = min(source.span(), self._last - self._next + 1)
            heavy = self._bytes() + self._weight.of(positions) > options.inflight_bytes_max
            if self._ahead and (heavy or not self._weight.known):
                break
            upto = self._next + positions - 1
            self._ahead.append((asyncio.create_task(self._fetch(self._next, upto)), positions))
            self._next = upto + 1
        self._lane.observer.queue(source.name, "segments", len(self._ahead), segments_max)

    def _bytes(self) -> float:
        """Received and not taken yet, or expected."""
        return sum(
            task.result().size_bytes
            if task.done() and not task.cancelled() and task.exception() is None
            else self._weight.of(positions)
            for task, positions in self._ahead
        )

    async def _fetch(self, first: int, last: int) -> Segment[Any]:
        lane = self._lane
        started = lane.clock.monotonic()
        segment = await lane.source.fetch(first, last, head=self._head)
        seconds = lane.clock.monotonic() - started
        lane.observer.fetched(lane.source.name, len(segment.entries), segment.size_bytes, seconds)
        return segment

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [task for task, _ in self._ahead]
        self._ahead.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""Fetching ahead stays within its bounds."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gapless.clock import SystemClock
from gapless.engine.ahead import FetchAhead, Weight
from gapless.engine.lane import Lane
from gapless.engine.observer import Observer
from gapless.engine.plan import FollowOptions
from gapless.errors import SourceUnavailable
from gapless.model import Cursor, Entry, Evidence, Head, Segment

HEAD = Head(Cursor(10**6, "x"), 0, 0)


class Chain:
    """Blocks of given sizes; knows what is under way or waiting to be taken."""

    name = "s"

    def __init__(self, sizes: list[int], span: int) -> None:
        self.sizes, self._span = sizes, span
        self.under_way = 0
        self.most = 0
        self.held_bytes = 0
        self.most_bytes = 0
        self.fails_at: int | None = None

    def span(self) -> int:
        return self._span

    async def fetch(self, first: int, last: int, *, head: Head) -> Segment[None]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        size = sum(self.sizes[first : last + 1])
        self.held_bytes += size
        self.most_bytes = max(self.most_bytes, self.held_bytes)
        await asyncio.sleep(0)
        if self.fails_at is not None and first <= self.fails_at <= last:
            raise SourceUnavailable("gone")
        entries = tuple(Entry(p, str(p), str(p - 1), 0, Evidence.CHECKED) for p in range(first, last + 1))
        return Segment("s", entries, None, size)

    def taken(self, segment: Segment[None]) -> None:
        self.under_way -= 1
        self.held_bytes -= segment.size_bytes


def ahead(chain: Chain, weight: Weight, **options: Any) -> FetchAhead:
    lane = SimpleNamespace(
        source=chain,
        options=FollowOptions(start=0, **options),
        clock=SystemClock(),
        observer=Observer(),
        switches=SimpleNamespace(segments_max=lambda configured: configured),
    )
    return FetchAhead(cast("Lane", lane), weight, 0, len(chain.sizes) - 1, HEAD)


async def consume(chain: Chain, weight: Weight, **options: Any) -> list[int]:
    positions: list[int] = []
    async for segment in ahead(chain, weight, **options):
        chain.taken(segment)
        positions += [e.position for e in segment.entries]
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
    return positions


@pytest.mark.parametrize("segments_max", [1, 2, 4])
def test_everything_comes_in_order_within_the_bound(segments_max: int) -> None:
    """However many are under way, they come in order, all of them, and never more than allowed at once."""
    chain = Chain([10] * 103, 7)
    assert asyncio.run(consume(chain, Weight(), inflight_segments_max=segments_max)) == list(range(103))
    assert chain.most <= segments_max


@pytest.mark.parametrize("seed", range(10))
def test_bytes_ahead_are_bounded(seed: int) -> None:
    """Counting what is under way by what such positions weighed lately: at most the limit and a tenth, on a chain whose
    blocks grow heavier a thousandfold and lighter again."""
    draw = random.Random(seed)
    weights = [2 ** (10 * (1 - abs(n - 500) / 500)) for n in range(1000)]
    chain = Chain([round(100 * w * draw.uniform(0.9, 1.1)) for w in weights], draw.randint(1, 3))
    limit = 1_000_000
    assert asyncio.run(consume(chain, Weight(), inflight_bytes_max=limit, inflight_segments_max=16)) == [*range(1000)]
    assert limit / 2 < chain.most_bytes <= 1.1 * limit


def test_a_burst_is_seen_as_soon_as_it_comes() -> None:
    """What was under way when blocks became heavy without warning comes, and then no more at once than the limit."""
    chain = Chain([1] * 50 + [1000] * 200, 1)
    weight, held = Weight(), []

    async def main() -> None:
        async for segment in ahead(chain, weight, inflight_bytes_max=2500, inflight_segments_max=8):
            chain.taken(segment)
            held.append(chain.held_bytes)
            await asyncio.sleep(0)

    asyncio.run(main())
    assert max(held) <= 8 * 1000
    assert max(held[70:]) <= 2500


def test_the_first_segment_is_fetched_alone() -> None:
    """While nothing is known of their weight one is enough: eight unknown ones may be more than the memory there is."""
    chain = Chain([10_000_000] * 40, 1)
    seen: list[int] = []

    async def main() -> None:
        weight = Weight()
        stream = ahead(chain, weight, inflight_bytes_max=25_000_000, inflight_segments_max=8)
        async for segment in stream:
            seen.append(chain.under_way)
            chain.taken(segment)

    asyncio.run(main())
    assert seen[0] == 1
    assert chain.most_bytes <= 40_000_000


def test_one_is_always_fetched() -> None:
    """A block heavier than the limit still comes, alone."""
    chain = Chain([10**9] * 5, 1)
    weight = Weight()
    assert asyncio.run(consume(chain, weight, inflight_bytes_max=1000)) == list(range(5))
    assert chain.most == 1


def test_a_failure_ends_it_and_leaves_nothing_behind() -> None:
    """What is under way behind the failure is given up."""

    async def main() -> None:
        chain = Chain([10] * 50, 2)
        chain.fails_at = 9
        weight = Weight()
        stream = ahead(chain, weight)
        seen: list[int] = []

        async def take_all() -> None:
            async for segment in stream:
                seen.append(segment.first.position)

        with pytest.raises(SourceUnavailable):
            await take_all()
        await stream.close()
        assert seen == [0, 2, 4, 6]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())

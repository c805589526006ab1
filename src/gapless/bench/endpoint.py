"""An endpoint by itself: the round trip, and how much it gives at several range sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from gapless.bench.asking import Asking, Timing
from gapless.bench.figures import RangeRate, RoundTrip
from gapless.clock import Clock
from gapless.errors import SourceUnavailable

SIZES = (1, 10, 100, 1000)
"""Blocks in a range."""
_ROUND_TRIPS_MAX = 100
_LOGS_ENOUGH = 20_000
_BYTES_ENOUGH = 16 << 20
"""A range whose answer is larger than this is larger than an indexer asks for: no larger one is tried."""
_TIMEOUT_SECONDS = 10.0
"""For one answer. Who needs longer is too slow for any indexer."""

Plan = Callable[[int, int], list[list[tuple[str, Any]]]]
"""The requests for the blocks from a first to a last one."""


async def round_trip(asking: Asking, clock: Clock, seconds: float, timeout_seconds: float) -> RoundTrip:
    """Ask for the chain id again and again, one at a time. Raises SourceUnavailable where it is refused too."""
    deadline = clock.monotonic() + seconds
    calls: list[tuple[str, list[Any]]] = [("eth_chainId", [])]
    first = await asking.ask(calls, timeout_seconds)  # makes the connection, and does not count
    if first.refusal is not None and not first.limited:
        raise SourceUnavailable(
            f"{asking.label} refuses eth_chainId: {first.refusal}", todo="Is this the address of an EVM node?"
        )
    found: list[float] = []
    while len(found) < _ROUND_TRIPS_MAX and (clock.monotonic() < deadline or not found):
        timing = await asking.ask(calls, timeout_seconds)
        found.append(timing.all_seconds)
    found.sort()
    return RoundTrip(len(found), median(found), found[int(len(found) * 0.9)])


@dataclass
class _Tally:
    """What the requests of one size came to."""

    requests: int = 0
    ranges: int = 0
    logs: int = 0
    size_bytes: int = 0
    node_seconds: float = 0.0
    network_seconds: float = 0.0
    refused: int = 0
    limited: int = 0
    refusal: str | None = None
    largest_logs: int = 0
    largest_bytes: int = 0

    def add(self, timing: Timing, trip_seconds: float) -> None:
        if timing.refusal is not None:
            self.refused += 1
            self.limited += timing.limited
            self.refusal = timing.refusal
            return
        self.requests += 1
        self.logs += timing.logs
        self.size_bytes += timing.size_bytes
        self.largest_logs = max(self.largest_logs, timing.logs)
        self.largest_bytes = max(self.largest_bytes, timing.size_bytes)
        self.node_seconds += max(0.0, timing.first_seconds - trip_seconds)
        self.network_seconds += min(trip_seconds, timing.first_seconds) + timing.all_seconds - timing.first_seconds

    @property
    def enough(self) -> bool:
        return self.largest_logs >= _LOGS_ENOUGH or self.largest_bytes >= _BYTES_ENOUGH


async def range_rates(
    asking: Asking,
    plan: Plan,
    positions: tuple[int, int],
    trip: RoundTrip,
    clock: Clock,
    seconds: float,
    concurrency: int,
) -> list[RangeRate]:
    """Every size for an equal part of the time; sizes that were refused outright, or are larger than anybody asks for,
    end the row. At least one size is measured, whatever it takes within the time."""
    low, high = positions
    sizes = [size for size in SIZES if size <= high - low + 1]
    deadline = clock.monotonic() + seconds
    found: list[RangeRate] = []
    for number, size in enumerate(sizes):
        left = deadline - clock.monotonic()
        if left <= 0 and found:
            break
        tally, spent = await _one_size(
            asking, plan, _ranges(low, high, size), trip, clock, left / (len(sizes) - number), concurrency
        )
        answered = tally.ranges > 0
        if answered or not found:
            found.append(_rate(size, tally, spent))
        if not answered or tally.enough:
            break
    return found


def _rate(size: int, tally: _Tally, seconds: float) -> RangeRate:
    count = max(1, tally.requests)
    return RangeRate(
        size,
        tally.ranges,
        tally.requests,
        seconds,
        tally.logs,
        tally.size_bytes,
        tally.node_seconds / count,
        tally.network_seconds / count,
        tally.refused,
        tally.limited,
        tally.refusal,
    )


def _ranges(low: int, high: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of one size one after the other, from the beginning again at the end."""
    while True:
        for first in range(low, high - size + 2, size):
            yield first, first + size - 1


async def _one_size(
    asking: Asking,
    plan: Plan,
    ranges: Iterator[tuple[int, int]],
    trip: RoundTrip,
    clock: Clock,
    seconds: float,
    concurrency: int,
) -> tuple[_Tally, float]:
    """Keep `concurrency` ranges in flight until the time is over; those under way are waited for."""
    tally = _Tally()
    started = clock.monotonic()
    deadline = started + seconds

    async def worker() -> None:
        while clock.monotonic() < deadline:
            first, last = next(ranges)
            whole = True
            for calls in plan(first, last):
                left = deadline - clock.monotonic()
                timing = await asking.ask(calls, max(left, _TIMEOUT_SECONDS))
                tally.add(timing, trip.median_seconds)
                whole &= timing.refusal is None
                if timing.limited:
                    await clock.sleep(min(max(left, 0.0), 0.2))
            tally.ranges += whole
            if not whole and not tally.limited and not tally.ranges:
                return

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return tally, clock.monotonic() - started

"""The measurements in their order, each with its share of the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gapless.bench import endpoint, stages
from gapless.bench.asking import Asking, requests_for
from gapless.bench.figures import Figures
from gapless.bench.limit import limit_of
from gapless.bench.scratch import scratch
from gapless.errors import StoreError, TimedOut, UsageError
from gapless.sources.evm.transport import label_of
from gapless.sources.evm.types import Verify
from gapless.wiring import build_source_at

if TYPE_CHECKING:
    from gapless.clock import Clock
    from gapless.config import Config
    from gapless.model import Head
    from gapless.schema import Schema
    from gapless.wiring import Wired

_SHARES = {"round trip": 0.05, "ranges": 0.3, "decode": 0.15, "write": 0.2, "run": 0.3}
_MIDDLE_BEYOND = 100_000
"""A chain longer than this is sampled from its middle: its first blocks are emptier than those that take the time."""
_ADDRESSES_MAX = 500
_OVERRUN_SECONDS = 60.0
"""Beside the time asked for: until the last requests and commits have ended, and everything is removed."""


@dataclass(frozen=True, slots=True)
class Course:
    """What is to be measured."""

    config: Config
    """Its store is the database beside which the scratch is made."""
    schema: Schema
    wired: Wired
    url: str
    """The endpoint."""
    first: int | None
    """Where the samples begin; None: chosen."""
    seconds: float

    async def measure(self, clock: Clock, tell: Callable[[str], None]) -> Figures:
        """Everything in turn; `tell` hears what is being done. Raises what endpoint and database raise, UsageError for
        a position that is not there, and TimedOut where the endpoint keeps it from coming to an end."""
        try:
            async with asyncio.timeout(self.seconds + _OVERRUN_SECONDS):
                return await self._measure(clock, tell)
        except TimeoutError as error:
            raise TimedOut(
                f"{label_of(self.url)} kept the measurement from coming to an end within "
                f"{self.seconds + _OVERRUN_SECONDS:g} s",
                todo="Look at it with `gapless doctor`, or give more --seconds.",
            ) from error

    async def _measure(self, clock: Clock, tell: Callable[[str], None]) -> Figures:
        settings = self.wired.settings
        concurrency = int(getattr(settings, "concurrency", 8))
        source = build_source_at(self.wired, self.url, clock)
        try:
            tell(f"asking {label_of(self.url)} who it is")
            identity, head = await source.identity(), await source.head()
            positions = self._positions(head)
            async with Asking(self.url, clock, concurrency) as asking:
                tell("measuring the round trip")
                timeout_seconds = max(5.0, self.seconds)
                trip = await endpoint.round_trip(asking, clock, self._share("round trip"), timeout_seconds)
                tell("measuring ranges")
                ranges = await endpoint.range_rates(
                    asking, self._plan, positions, trip, clock, self._share("ranges"), concurrency
                )
            tell("measuring decoding and checking")
            decoded, sample = await stages.decode(self.wired, source, head, positions, clock, self._share("decode"))
        finally:
            await source.close()
        if not sample.batches:
            raise StoreError("There was nothing to write: the sampled range has no blocks")
        with scratch(self.config, self.schema, clock) as place:
            tell(f"measuring the database, in {place.schema.app}")
            written = stages.write(place, identity, sample, clock, self._share("write"))
            await clock.sleep(0)  # a Ctrl-C during the writing, which does not wait for anything, is heard here
            sample.batches.clear()
            tell("measuring a run")
            running = build_source_at(self.wired, self.url, clock)
            limits, seconds = self.config.limits, self._share("run")
            whole = await stages.run(self.wired, running, place, limits, positions[0], clock, seconds)
            store = self.config.store.url
            if not store.startswith("sqlite:"):
                store = place.store.url  # without a password
        limit = limit_of(ranges, trip, decoded, written)
        return Figures(
            source=self.wired.name,
            endpoint=label_of(self.url),
            store=store,
            positions=positions,
            concurrency=concurrency,
            round_trip=trip,
            ranges=tuple(ranges),
            decode=decoded,
            database=written,
            end_to_end=whole,
            limit=limit,
            notes=tuple(self._notes(positions, head)),
        )

    def _share(self, part: str) -> float:
        return self.seconds * _SHARES[part]

    def _plan(self, first: int, last: int) -> list[list[tuple[str, object]]]:
        level = Verify(self.wired.settings.verify)
        return requests_for(self.wired.decoder.wants(), level, _ADDRESSES_MAX, first, last)

    def _positions(self, head: Head) -> tuple[int, int]:
        """Final blocks where there are any: they are fetched as most of a chain is."""
        start = self.wired.settings.start
        lowest = start if isinstance(start, int) else 0
        latest = head.latest.position
        high = head.finalized if head.finalized > lowest else latest
        low = self.first
        if low is None:
            low = (lowest + high) // 2 if high - lowest > _MIDDLE_BEYOND else min(lowest, latest)
        if low > latest:
            raise UsageError(f"Position {low} is above the head, {latest}", todo=f"Give --from {latest} or less.")
        return low, max(high, low) if low <= high else latest

    def _notes(self, positions: tuple[int, int], head: Head) -> list[str]:
        notes = []
        if positions[1] - positions[0] < 1000:
            notes.append(
                f"Only {positions[1] - positions[0] + 1} blocks were there to measure with: figures are rough."
            )
        if positions[1] > head.finalized:
            notes.append(
                "No block is final yet: near the head blocks are checked by all their receipts, which is slower."
            )
        return notes

"""Fetch ∥ derive ∥ commit over one stretch of positions, in order.

Fetching runs ahead within bounds, deriving has a thread, committing has a thread; commits are serial. Whatever goes
wrong, the stretch ends; what was derived and not committed is forgotten before the next one begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from gapless.engine import plan
from gapless.engine.ahead import FetchAhead, Weight
from gapless.engine.derive import Derivation
from gapless.engine.lane import Lane
from gapless.errors import Contradiction
from gapless.model import Cursor, Fence, Head, Segment
from gapless.store import Batch

log = structlog.get_logger("gapless.follow")


class ForkFound(Exception):
    """The source's chain does not contain the committed cursor."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What to commit: above `base`, up to `goal`, as seen from `head`."""

    base: Cursor
    stored: Cursor
    """The stored cursor: above `base` where a fork is replaced, else the same."""
    goal: int
    head: Head
    start: int
    fence: Fence
    replaced: Cursor | None = None
    """Where a fork is replaced: an entry that must not come again."""

    @property
    def is_fork(self) -> bool:
        return self.stored.position > self.base.position


class Pipeline:
    """One source's pipeline. `committed` hears of every commit, with the head it was made under."""

    def __init__(self, lane: Lane, committed: Callable[[Head], None]) -> None:
        self._lane = lane
        self._name = lane.source.name
        self._committed = committed
        self._weight = Weight()
        self._must_reset = True

    def forget(self) -> None:
        """Trust nothing in memory: somebody else may have written since."""
        self._must_reset = True

    async def run(self, stretch: Stretch) -> Cursor:
        """Commit the stretch, or as much of it as there is before writing is switched off; returns the new cursor.

        Raises ForkFound where an entry does not link, and whatever fetching, deriving or committing raises; what was
        being committed is finished first."""
        await self._prepare(stretch)
        cursor = stretch.base
        ahead = FetchAhead(self._lane, self._weight, cursor.position + 1, stretch.goal, stretch.head)
        committing: asyncio.Task[None] | None = None
        stored = None if stretch.stored.id == "" else stretch.stored
        rewind_to = stretch.base if stretch.is_fork else None
        try:
            async for segment in ahead:
                if not (await self._lane.switches.read()).writes_enabled:
                    break
                self._check_link(cursor, segment, stretch)
                derivation = await self._derive(segment, stretch.head, rewind_to)
                if committing is not None:
                    await asyncio.shield(committing)  # when this task is cancelled, the commit still gets its end
                    committing = None
                if derivation.batch is not None:
                    work = self._commit(derivation, derivation.batch, stored, stretch)
                    committing = asyncio.create_task(work, name=f"commit {self._name}")
                    cursor = stored = derivation.batch.entries[-1].cursor
                    rewind_to = None
                if derivation.failure is not None:
                    raise derivation.failure
        finally:
            try:
                await ahead.close()
            finally:
                if committing is not None:
                    await committing
        if cursor == stretch.base and stretch.is_fork:
            return stretch.stored  # Nothing was replaced: the state in memory is not the database's.
        self._must_reset = False
        return cursor

    async def _prepare(self, stretch: Stretch) -> None:
        """Make the state in memory that of the stretch's base."""
        lane = self._lane
        if stretch.is_fork:
            before = await lane.offload.read(lambda: lane.store.state_before(self._name, stretch.base.position))
            lane.deriver.reset(before)
        elif self._must_reset:
            lane.deriver.reset()
        self._must_reset = True

    def _check_link(self, cursor: Cursor, segment: Segment[Any], stretch: Stretch) -> None:
        first = segment.first
        if not plan.links(cursor, first, stretch.start):
            raise ForkFound
        if first.cursor == stretch.replaced:
            raise Contradiction(
                f"{first.served_by or 'The endpoint'} still has the entry that another one has replaced",
                kind="disputed",
                source=self._name,
                position=first.position,
            )

    async def _derive(self, segment: Segment[Any], head: Head, rewind_to: Cursor | None) -> Derivation:
        lane = self._lane
        started = lane.clock.monotonic()
        derivation = await lane.offload.derive(
            lambda: lane.deriver.derive(
                segment, finalized=head.finalized, head=head.latest.position, rewind_to=rewind_to
            )
        )
        lane.observer.derived(self._name, lane.clock.monotonic() - started)
        return derivation

    async def _commit(self, derivation: Derivation, batch: Batch, expected: Cursor | None, stretch: Stretch) -> None:
        lane = self._lane
        lane.keeper.require()
        started = lane.clock.monotonic()
        await lane.offload.write(lambda: lane.store.commit(batch, expected, stretch.fence))
        seconds = lane.clock.monotonic() - started
        lane.deriver.committed(derivation.number)
        self._committed(stretch.head)
        self._tell(batch, expected, seconds)

    def _tell(self, batch: Batch, expected: Cursor | None, seconds: float) -> None:
        observer = self._lane.observer
        observer.committed(self._name, len(batch.entries), sum(batch.counts), seconds)
        observer.position(self._name, batch.entries[-1].position, batch.entries[-1].time_us)
        if batch.rewind_to is not None and expected is not None:
            observer.reorg(self._name, expected.position - batch.rewind_to.position)
        if batch.quarantined:
            observer.quarantined(self._name, len(batch.quarantined))
            log.warning(
                "quarantined", source=self._name, items=len(batch.quarantined), first=batch.quarantined[0].reason
            )

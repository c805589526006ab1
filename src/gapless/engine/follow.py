"""Follow one source: the shell around `plan`.

    wait for the lease → bind identity → { head → fetch ∥ derive ∥ commit up to the target → wait for a new head }

Fetching runs ahead within bounds, deriving has a thread, committing has a thread; commits are serial and in order.
Whatever goes wrong between two commits ends in the same place: forget what is not committed, read the cursor, start
again from there. So no failure needs a recovery path of its own.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog

from gapless.clock import Clock
from gapless.engine import plan
from gapless.engine.derive import Derivation, Deriver
from gapless.engine.fork import find_ancestor
from gapless.engine.lease import LeaseKeeper
from gapless.engine.mend import Mender
from gapless.engine.observer import Observer
from gapless.engine.offload import Offload
from gapless.engine.report import Reporter
from gapless.errors import Contradiction, CursorMoved, GaplessError, LeaseLost, NotYetAvailable, StartBeyondHead
from gapless.model import Cursor, Fence, Head, Mode, Segment
from gapless.sources import AnySource
from gapless.store import Batch, Store

SPANS_PER_RUN = 64
"""After so many ranges the pipeline drains and looks at the head again."""
START_ATTEMPTS_MAX = 3
"""A source that was never reached fails the run after so many attempts more; once it was, it is retried for ever."""

log = structlog.get_logger("gapless.follow")


class ForkFound(Exception):
    """The source's chain does not contain the committed cursor."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Everything one source's follower works with."""

    source: AnySource
    deriver: Deriver
    store: Store
    options: plan.FollowOptions
    clock: Clock
    offload: Offload
    observer: Observer
    keeper: LeaseKeeper
    mender: Mender


class Follower:
    """Keeps one source's tables equal to its chain, until told to stop or until its run's end is reached."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.name = lane.source.name
        self._options = lane.options
        self._stopping = asyncio.Event()
        self._reporter = Reporter(self.name, lane.store, lane.clock, lane.offload, lane.observer)
        self._head_changed_at = lane.clock.monotonic()
        self._failures = 0
        self._led = False
        self._must_reset = True
        self._finalized = -1

    def stop(self) -> None:
        """Ask for a graceful end: nothing new is fetched, what is being committed is finished."""
        self._stopping.set()

    async def run(self) -> None:
        """Returns when stopped or when the run's end is reached. Raises what an operator must see to."""
        while not self._stopping.is_set():
            fence = await self._until_stopped(self._wait_lease())
            if fence is None:
                return
            try:
                if await self._lead(fence):
                    return
            except LeaseLost as error:
                log.warning("not the leader any more", source=self.name, reason=str(error))
                self._lane.observer.lease(self.name, False, 0)
            except GaplessError as error:
                if not error.retryable or (not self._led and self._failures >= START_ATTEMPTS_MAX):
                    await self._reporter.mode(Mode.HALTED, str(error), force=True)
                    raise
                await self._pause_after(error)

    # --- leading ----------------------------------------------------------------------------------------------------

    async def _wait_lease(self) -> Fence:
        fence = self._lane.keeper.fence
        if fence is None:
            self._lane.observer.mode(self.name, Mode.STANDBY, "another process leads this source")
            fence = await self._lane.keeper.wait_held()
        self._lane.observer.lease(self.name, True, fence.token)
        return fence

    async def _lead(self, fence: Fence) -> bool:
        """Lead until the run's end (True), or until asked to stop (False)."""
        lane = self._lane
        reported = await lane.offload.write(lambda: lane.store.reported(self.name))
        self._reporter.final = reported.finalized
        await self._reporter.mode(Mode.STARTING, None)
        identity = await lane.source.identity()
        plan.check_chain(self.name, identity, self._options)
        bound = await lane.offload.write(lambda: lane.store.bind_source(self.name, identity, self._options.start))
        start = bound.start
        head = self._saw(await lane.source.head(), start)
        cursor = await self._read_cursor(start)
        if cursor.position < start and head.latest.position < start:
            raise StartBeyondHead(
                f"The first position asked for is {start}, but the chain ends at {head.latest.position}",
                source=self.name,
                todo='Set `start` to a block that exists, or to "head".',
            )
        while not self._stopping.is_set():
            if plan.reached(cursor, head, self._options):
                await self._reporter.caught_up(head, cursor)
                return True
            cursor, head = await self._advance(cursor, head, start, fence)
            await lane.mender.mend(head, fence)
            lane.observer.gaps(self.name, lane.mender.gaps)
            lane.observer.source_statistics(self.name, lane.source.statistics())
            head = self._saw(await self._next_head(cursor, head), start)
            lane.keeper.require()
            self._failures = 0
            self._led = True
        return False

    async def _next_head(self, cursor: Cursor, head: Head) -> Head:
        """The next head to work towards: at once while behind, when it moves when there."""
        source = self._lane.source
        if cursor.position < plan.target(head, self._options):
            return await source.head()
        if head.latest.position < cursor.position:
            head = await source.head()  # the cursor may have moved past a head that is old by now
        await self._at_target(head, cursor)
        if plan.reached(cursor, head, self._options):
            return head
        moved = await self._until_stopped(source.wait_head(head.latest, self._options.poll_timeout_seconds))
        return head if moved is None else moved

    async def _advance(self, cursor: Cursor, head: Head, start: int, fence: Fence) -> tuple[Cursor, Head]:
        """Commit towards the target, undoing a fork first where there is one. Returns the new cursor, and the head
        worked towards."""
        try:
            if plan.head_contradicts(cursor, head):
                raise ForkFound
            goal = plan.target(head, self._options)
            if cursor.position >= goal:
                return cursor, head
            if not plan.is_live(cursor.position, goal):
                await self._reporter.mode(Mode.CATCHING_UP, None)
            goal = min(goal, cursor.position + SPANS_PER_RUN * self._lane.source.span())
            return await self._pipeline(cursor, cursor, goal, head, start, fence), head
        except ForkFound:
            return await self._switch(start, fence)

    async def _switch(self, start: int, fence: Fence) -> tuple[Cursor, Head]:
        """Move to the branch the source follows now: find the common ancestor and replace what is above it."""
        lane = self._lane
        cursor = await self._read_cursor(start)
        head = self._saw(await lane.source.head(), start)
        ancestor = await find_ancestor(lane.source, lane.store, lane.offload, cursor, start, self._options)
        if ancestor == cursor:
            return cursor, self._settle(cursor, head)
        goal = plan.target(head, self._options)
        if goal <= ancestor.position:
            return cursor, head  # The node went back without another branch yet: keep what we have until it has one.
        plan.check_fork(self.name, cursor, ancestor, self._reporter.final, self._options.reorg_positions_max)
        depth = cursor.position - ancestor.position
        log.warning("fork", source=self.name, depth=depth, ancestor=ancestor.position, replaced=cursor.id)
        overlay = await lane.offload.read(lambda: lane.store.state_before(self.name, ancestor.position))
        lane.deriver.reset(overlay)
        self._must_reset = False
        goal = min(goal, ancestor.position + SPANS_PER_RUN * lane.source.span())
        moved = await self._pipeline(ancestor, cursor, goal, head, start, fence)
        lane.observer.reorg(self.name, depth)
        return moved, head

    def _settle(self, cursor: Cursor, head: Head) -> Head:
        """It looked like a fork, but the committed cursor is on the chain. At the cursor's own height an endpoint names
        another head than the rest: the cursor it is. Above, the blocks served do not link: ask again, elsewhere."""
        if head.latest.position > cursor.position:
            raise Contradiction(
                "The blocks fetched do not link to the committed one, which is still on the chain",
                kind="unlinked",
                source=self.name,
                position=cursor.position + 1,
            )
        if head.latest.position == cursor.position and head.latest.id != cursor.id:
            log.warning("an endpoint names another head", source=self.name, position=cursor.position)
            return replace(head, latest=cursor)
        return head

    # --- the pipeline -----------------------------------------------------------------------------------------------

    async def _pipeline(
        self,
        cursor: Cursor,
        expected: Cursor,
        goal: int,
        head: Head,
        start: int,
        fence: Fence,
    ) -> Cursor:
        """Fetch ahead, derive, commit, in order, from above `cursor` to `goal`. `expected` is the stored cursor: it
        lies above `cursor` when a fork is being replaced."""
        lane = self._lane
        if self._must_reset:
            lane.deriver.reset()
        self._must_reset = True
        fetcher = _FetchAhead(lane, cursor.position + 1, goal, head, self._stopping)
        committing: asyncio.Task[None] | None = None
        stored = None if expected.id == "" else expected
        try:
            async for segment in fetcher:
                if self._stopping.is_set():
                    break
                if not plan.links(cursor, segment.first, start):
                    raise ForkFound
                rewind_to = cursor if expected.position > cursor.position else None
                derivation = await self._derive(segment, head, rewind_to)
                if committing is not None:
                    await committing
                    committing = None
                if derivation.batch is not None:
                    committing = asyncio.create_task(self._commit(derivation, stored, head, fence))
                    cursor = expected = derivation.batch.entries[-1].cursor
                    stored = cursor
                if derivation.failure is not None:
                    raise derivation.failure
        finally:
            await fetcher.close()
            if committing is not None:
                await committing
        self._must_reset = False
        return cursor

    async def _derive(self, segment: Segment[Any], head: Head, rewind_to: Cursor | None) -> Derivation:
        lane = self._lane
        started = lane.clock.monotonic()
        derivation = await lane.offload.derive(
            lambda: lane.deriver.derive(
                segment, finalized=head.finalized, head=head.latest.position, rewind_to=rewind_to
            )
        )
        lane.observer.derived(self.name, lane.clock.monotonic() - started)
        return derivation

    async def _commit(self, derivation: Derivation, expected: Cursor | None, head: Head, fence: Fence) -> None:
        lane = self._lane
        batch = derivation.batch
        if batch is None:
            return
        lane.keeper.require()
        started = lane.clock.monotonic()
        await lane.offload.write(lambda: lane.store.commit(batch, expected, fence))
        lane.deriver.committed(derivation.number)
        self._reporter.agreed(head)
        self._committed(batch, lane.clock.monotonic() - started)

    def _committed(self, batch: Batch, seconds: float) -> None:
        observer = self._lane.observer
        observer.committed(self.name, len(batch.entries), sum(batch.counts), seconds)
        observer.position(self.name, batch.entries[-1].position, batch.entries[-1].time_us)
        if batch.quarantined:
            observer.quarantined(self.name, len(batch.quarantined))
            log.warning(
                "quarantined", source=self.name, items=len(batch.quarantined), first=batch.quarantined[0].reason
            )

    # --- looking around ---------------------------------------------------------------------------------------------

    async def _read_cursor(self, start: int) -> Cursor:
        lane = self._lane
        cursor = await lane.offload.write(lambda: lane.store.cursor(self.name))
        return cursor or plan.before_first(start)

    def _saw(self, head: Head, start: int) -> Head:
        """Note a new head. What was final once stays final, whatever a lagging endpoint says later."""
        self._finalized = max(self._finalized, head.finalized)
        head = replace(head, finalized=self._finalized)
        observer = self._lane.observer
        observer.head(self.name, head.latest.position, head.finalized, head.time_us)
        observer.target(self.name, start, plan.target(head, self._options))
        if self._reporter.saw_head(head):
            self._head_changed_at = self._lane.clock.monotonic()
        return head

    async def _at_target(self, head: Head, cursor: Cursor) -> None:
        quiet_seconds = self._lane.clock.monotonic() - self._head_changed_at
        if head.latest.position < cursor.position:
            await self._reporter.mode(Mode.IDLE, f"the node went back to {head.latest.position}")
        elif quiet_seconds > self._options.stall_after_seconds:
            await self._reporter.mode(
                Mode.IDLE, f"the chain has not moved from {head.latest.position} for a while; watching"
            )
        else:
            await self._reporter.caught_up(head, cursor)

    async def _pause_after(self, error: GaplessError) -> None:
        """A failure that may pass: say so, wait a little longer each time, and try again from the stored cursor."""
        self._failures += 1
        lane = self._lane
        lane.observer.failed(self.name, "follow", type(error).__name__)
        longest = min(self._options.retry_seconds_max, 0.1 * 2 ** min(self._failures, 16))
        pause_seconds = longest * (0.5 + lane.clock.random().random() / 2)
        quiet = isinstance(error, Contradiction | NotYetAvailable | CursorMoved) and self._failures <= 2
        if not quiet:
            log.warning("will try again", source=self.name, pause_s=round(pause_seconds, 2), reason=str(error))
            with suppress(GaplessError):
                await self._reporter.mode(Mode.DEGRADED, str(error))
        await self._until_stopped(lane.clock.sleep(pause_seconds))

    async def _until_stopped(self, work: Any) -> Any:
        """The result of `work`, or None when stopped first (the work is then cancelled)."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            stopped.cancel()
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


class _FetchAhead:
    """Segments in order, fetched ahead: at most so many requests and so many received bytes in flight."""

    def __init__(self, lane: Lane, first: int, last: int, head: Head, stopping: asyncio.Event) -> None:
        self._lane = lane
        self._next = first
        self._last = last
        self._head = head
        self._stopping = stopping
        self._tasks: list[asyncio.Task[Segment[Any]]] = []

    def __aiter__(self) -> _FetchAhead:
        return self

    async def __anext__(self) -> Segment[Any]:
        self._fill()
        if not self._tasks:
            raise StopAsyncIteration
        segment = await self._tasks[0]
        del self._tasks[0]
        self._fill()
        return segment

    def _fill(self) -> None:
        options = self._lane.options
        ready_bytes = sum(t.result().size_bytes for t in self._tasks if t.done() and t.exception() is None)
        while (
            self._next <= self._last
            and not self._stopping.is_set()
            and len(self._tasks) < options.inflight_segments_max
            and (ready_bytes < options.inflight_bytes_max or not self._tasks)
        ):
            upto = min(self._next + self._lane.source.span() - 1, self._last)
            self._tasks.append(asyncio.create_task(self._fetch(self._next, upto)))
            self._next = upto + 1
        self._lane.observer.queue(self._lane.source.name, "segments", len(self._tasks), options.inflight_segments_max)

    async def _fetch(self, first: int, last: int) -> Segment[Any]:
        clock = self._lane.clock
        started = clock.monotonic()
        segment = await self._lane.source.fetch(first, last, head=self._head)
        self._lane.observer.fetched(
            self._lane.source.name, len(segment.entries), segment.size_bytes, clock.monotonic() - started
        )
        return segment

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

"""Follow one source: the shell around `plan`.

    wait for the lease → bind identity → { head → fetch ∥ derive ∥ commit up to the target → wait for a new head }

Whatever goes wrong between two commits ends in the same place: forget what is not committed, read the cursor, start
again from there. So no failure needs a recovery path of its own. A stop ends whatever is waited for, at every `await`,
except a commit, which is finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from gapless.engine import plan
from gapless.engine.flags import READ_EVERY_SECONDS
from gapless.engine.judge import Judge, Unsettled
from gapless.engine.lane import Lane
from gapless.engine.pipeline import ForkFound, Pipeline, Stretch
from gapless.engine.report import Reporter
from gapless.errors import (
    Contradiction,
    CursorMoved,
    GaplessError,
    Halted,
    LeaseLost,
    NotYetAvailable,
    SourceUnavailable,
    StartBeyondHead,
)
from gapless.model import Cursor, Fence, Head, Identity, Mode

SPANS_PER_RUN = 64
"""After so many ranges the pipeline drains and looks at the head again."""
START_ATTEMPTS_MAX = 3
"""A source of which nothing could be committed fails the run after so many attempts more."""
START_LOOKS_MAX = 3
"""How often to look again for a start just above the head."""
START_NEAR_POSITIONS = 128
START_PAUSE_SECONDS = 1.0
EARLY_SECONDS = 0.05
"""A wait for a new head that ends sooner, and again, for nothing new, is followed by a pause."""

STANDBY_SECONDS = 1.0
"""How often a standby says again what it waits for."""

T = TypeVar("T")

log = structlog.get_logger("gapless.follow")


class Follower:
    """Keeps one source's tables equal to its chain, until told to stop or until its run's end is reached."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.name = lane.source.name
        self._options = lane.options
        self._stopping = asyncio.Event()
        self._reporter = Reporter(self.name, lane.store, lane.clock, lane.offload, lane.observer)
        self._pipeline = Pipeline(lane, self._committed)
        self._judge = Judge(lane, self._reporter, self._stand)
        self._head_changed_at = lane.clock.monotonic()
        self._seen: Cursor | None = None
        """The source's own newest entry, as it named it last."""
        self._checked: Cursor | None = None
        """The head whose chain was seen to hold the cursor below it."""
        self._finalized = -1
        self._failures = 0
        """In a row."""
        self._strikes = 0
        """Of these, before anything was committed, the ones that do not pass by themselves."""
        self._fruitless = 0
        self.led = False
        """Whether anything was committed, or nothing was left to commit."""

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
                if await self._until_stopped(self._lead(fence)):
                    return
            except LeaseLost as error:
                self._lane.keeper.refused(fence)
                log.warning("not the leader any more", source=self.name, reason=str(error))
                self._lane.observer.lease(self.name, False, 0)
            except GaplessError as error:
                if not error.retryable or (not self.led and self._strikes >= START_ATTEMPTS_MAX):
                    await self._halt(error)
                    raise
                await self._pause_after(error)
            except Exception as error:
                await self._halt(error)
                raise

    # --- leading ----------------------------------------------------------------------------------------------------

    async def _wait_lease(self) -> Fence:
        keeper = self._lane.keeper
        fence = keeper.fence
        while fence is None:
            trouble = keeper.last_error
            reason = "another process leads this source" if trouble is None else f"the lease is not known: {trouble}"
            self._lane.observer.mode(self.name, Mode.STANDBY, reason)
            with suppress(TimeoutError):
                async with asyncio.timeout(STANDBY_SECONDS):
                    fence = await keeper.wait_held()
        self._lane.observer.lease(self.name, True, fence.token)
        return fence

    async def _lead(self, fence: Fence) -> bool:
        """Lead until the run's end."""
        lane, source = self._lane, self._lane.source
        self._pipeline.forget()  # somebody else may have led, and written, since
        await self._resume()
        identity = await source.identity()
        plan.check_chain(self.name, identity, self._options)
        start, head = await self._bind(identity)
        cursor = await self._read_cursor(start)
        while True:
            if plan.reached(cursor, head, self._options) and await self._is_at_end(cursor, head):
                self.led = True
                await self._reporter.caught_up(head, cursor)
                return True
            if not (await lane.switches.read()).writes_enabled:
                head = self._saw(await self._watch_only(), start)
                continue
            before = cursor
            cursor, head = await self._advance(cursor, head, start, fence)
            await lane.mender.mend(head, fence)
            lane.observer.gaps(self.name, lane.mender.gaps)
            lane.observer.source_statistics(self.name, source.statistics())
            if cursor == before:
                head = self._saw(await self._wait_head(cursor, head), start)
                self.led = True
            elif cursor.position < plan.target(head, self._options):
                head = self._saw(await source.head(), start)
            if lane.keeper.require() != fence:
                raise LeaseLost(f"The lease {fence.name!r} was lost and taken again", source=self.name)
            self._failures = 0

    async def _watch_only(self) -> Head:
        """An operator switched writing off: look at the source now and then, keep the lease, commit nothing."""
        lane = self._lane
        await self._reporter.mode(Mode.IDLE, "writing is switched off: `gapless flags set writes_enabled on`")
        await lane.clock.sleep(READ_EVERY_SECONDS)
        lane.keeper.require()
        return await lane.source.head()

    async def _resume(self) -> None:
        """Go on from what the last leader said: what is final stays so."""
        lane = self._lane
        reported = await lane.offload.write(lambda: lane.store.reported(self.name))
        cursor = await lane.offload.write(lambda: lane.store.cursor(self.name))
        self._finalized = max(self._finalized, self._reporter.resume(reported, cursor))
        if not self._failures:  # else it stays degraded until it gets on, however often it tries
            await self._reporter.mode(Mode.STARTING, None)

    async def _bind(self, identity: Identity) -> tuple[int, Head]:
        """Bind the source. Returns where it starts, and its head. A start that does not exist is refused before it is
        recorded, for the recorded one counts ever after."""
        lane = self._lane
        bound = await lane.offload.write(lambda: lane.store.source(self.name))
        if bound is None:
            head = await self._head_at(self._options.start)
            start = self._options.start
            bound = await lane.offload.write(lambda: lane.store.bind_source(self.name, identity, start))
            return bound.start, head
        start = bound.start
        await lane.offload.write(lambda: lane.store.bind_source(self.name, identity, start))
        cursor = await self._read_cursor(start)
        head = await (self._head_at(start) if cursor.position < start else lane.source.head())
        return start, self._saw(head, start)

    async def _head_at(self, start: int) -> Head:
        """The head, when it has come to the start. Near the head endpoints differ: they are given a moment."""
        looks = 0
        while True:
            head = self._saw(await self._lane.source.head(), start)
            if head.latest.position >= start:
                return head
            if looks >= START_LOOKS_MAX or start - head.latest.position > START_NEAR_POSITIONS:
                raise StartBeyondHead(
                    f"The first position asked for is {start}, but the chain ends at {head.latest.position}",
                    source=self.name,
                    todo='Set `start` to a block that exists, or to "head".',
                )
            looks += 1
            await self._lane.clock.sleep(min(START_PAUSE_SECONDS, self._options.retry_seconds_max))

    async def _is_at_end(self, cursor: Cursor, head: Head) -> bool:
        """Whether a run that has nothing left to do has reached its end: its last entry may have left the chain since,
        or before the run. A node that is behind us agrees with us as far as it goes."""
        if cursor.id == "" or head.latest == cursor:
            return True
        lane, name = self._lane, self.name
        if head.latest.position < cursor.position:
            at = head.latest.position
            stored = await lane.offload.read(lambda: lane.store.entries(name, at, at))
            return bool(stored) and stored[0].entry.cursor == head.latest
        [found] = await lane.source.cursors([cursor.position])
        if found is None:
            raise NotYetAvailable(
                "The endpoint asked does not have the last committed entry yet", source=name, position=cursor.position
            )
        return found == cursor

    async def _wait_head(self, cursor: Cursor, head: Head) -> Head:
        """The next head to work towards, as soon as it moves. Never at once for ever: a source may be quick to say
        that its head is another, and it comes to nothing again and again."""
        lane, clock = self._lane, self._lane.clock
        await self._at_target(head, cursor)
        began = clock.monotonic()
        patience_seconds = 2 * EARLY_SECONDS if lane.mender.busy else self._options.poll_timeout_seconds
        head = await lane.source.wait_head(self._seen or head.latest, patience_seconds)
        if clock.monotonic() - began >= EARLY_SECONDS:
            self._fruitless = 0
            return head
        self._fruitless += 1
        if self._fruitless > 1:
            await clock.sleep(min(self._options.retry_seconds_max, EARLY_SECONDS * 2 ** min(self._fruitless, 10)))
        return head

    async def _advance(self, cursor: Cursor, head: Head, start: int, fence: Fence) -> tuple[Cursor, Head]:
        """Commit towards the target, undoing a fork first where there is one. Returns the new cursor, and the head
        worked towards."""
        try:
            if plan.head_contradicts(cursor, head) or plan.reached(cursor, head, self._options):
                raise ForkFound  # A run that has reached its end, and goes on, is on another branch.
            goal = plan.target(head, self._options)
            if cursor.position >= goal:
                await self._check_cursor(cursor, head)
                return cursor, head
            if not plan.is_live(cursor.position, goal):
                await self._reporter.mode(Mode.CATCHING_UP, None)
            goal = min(goal, cursor.position + SPANS_PER_RUN * self._lane.source.span())
            return await self._pipeline.run(Stretch(cursor, cursor, goal, head, start, fence)), head
        except ForkFound:
            return await self._switch(start, fence)

    async def _check_cursor(self, cursor: Cursor, head: Head) -> None:
        """Where the head lies above what is to be committed (confirmations, an end), its id says nothing about the
        cursor: ask, once for each head. Raises ForkFound."""
        if cursor.id == "" or head.latest.position <= cursor.position or head.latest == self._checked:
            return
        [found] = await self._lane.source.cursors([cursor.position])
        if found is not None and found != cursor:
            raise ForkFound
        self._checked = head.latest

    # --- forks ------------------------------------------------------------------------------------------------------

    async def _switch(self, start: int, fence: Fence) -> tuple[Cursor, Head]:
        """Move to the branch the source follows now, where that is judged right."""
        verdict = await self._judge.judge(start)
        cursor, head, fork = verdict.cursor, verdict.head, verdict.fork
        if fork is None or fork.ancestor is None:
            return cursor, head
        ancestor, depth = fork.ancestor, cursor.position - fork.ancestor.position
        if not (await self._lane.switches.read()).rollback_automation:
            raise Halted(
                f"The chain replaced {depth} entries above {ancestor.position}, and rolling back is switched off",
                source=self.name,
                position=ancestor.position,
                todo="Nothing was undone. Look at the chain; then `gapless flags set rollback_automation on` and run "
                "again.",
            )
        log.warning("fork", source=self.name, depth=depth, ancestor=ancestor.position, replaced=cursor.id)
        goal = min(verdict.goal, ancestor.position + SPANS_PER_RUN * self._lane.source.span())
        try:
            stretch = Stretch(ancestor, cursor, goal, head, start, fence, fork.parted)
            return await self._pipeline.run(stretch), head
        except ForkFound as error:
            raise Unsettled(
                "The chain changed again while a fork was being followed",
                kind="unlinked",
                source=self.name,
                position=ancestor.position + 1,
            ) from error

    async def _stand(self, start: int) -> tuple[Cursor, Head]:
        cursor = await self._read_cursor(start)
        return cursor, self._saw(await self._lane.source.head(), start)

    # --- looking around ---------------------------------------------------------------------------------------------

    async def _read_cursor(self, start: int) -> Cursor:
        lane = self._lane
        cursor = await lane.offload.write(lambda: lane.store.cursor(self.name))
        return cursor or plan.before_first(start)

    def _saw(self, head: Head, start: int) -> Head:
        """Note a new head. What was final once stays final, whatever a lagging endpoint says later."""
        self._seen = head.latest
        self._finalized = max(self._finalized, head.finalized)
        head = replace(head, finalized=self._finalized)
        observer = self._lane.observer
        observer.head(self.name, head.latest.position, head.finalized, head.time_us)
        observer.target(self.name, start, plan.target(head, self._options))
        if self._reporter.saw_head(head):
            self._head_changed_at = self._lane.clock.monotonic()
        return head

    def _committed(self, head: Head) -> None:
        """The pipeline got on: whatever failed before has passed."""
        self._reporter.agreed(head)
        self.led = True
        self._failures = self._fruitless = 0

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

    # --- failing and stopping ---------------------------------------------------------------------------------------

    async def _halt(self, error: Exception) -> None:
        """Say why it ends here. That it cannot be said must not hide why."""
        reason = str(error) if isinstance(error, GaplessError) else f"{type(error).__name__}: {error}"
        with suppress(GaplessError):
            await self._reporter.mode(Mode.HALTED, reason, force=True)

    async def _pause_after(self, error: GaplessError) -> None:
        """A failure that may pass: say so, wait a little longer each time, and try again from the stored cursor."""
        lane = self._lane
        passing = isinstance(error, NotYetAvailable | CursorMoved)
        self._failures += 1
        self._strikes += not passing
        lane.observer.failed(self.name, "follow", type(error).__name__)
        longest = min(self._options.retry_seconds_max, 0.1 * 2 ** min(self._failures, 16))
        pause_seconds = longest * (0.5 + lane.clock.random().random() / 2)
        quiet = (passing or isinstance(error, Contradiction)) and self._failures <= 2
        if not quiet:
            log.warning("will try again", source=self.name, pause_s=round(pause_seconds, 2), reason=str(error))
            with suppress(GaplessError):
                await self._reporter.mode(Mode.DEGRADED, str(error))
        await self._until_stopped(lane.clock.sleep(pause_seconds))

    async def _until_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of `work`, or None when stopped first: the work is then cancelled, and its end waited for. What it
        raises meanwhile is raised."""
        task = asyncio.create_task(work, name=f"work {self.name}")
        stopped = asyncio.create_task(self._stopping.wait(), name=f"stop {self.name}")
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            task.cancel()  # no effect on what is done
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        finally:
            stopped.cancel()
        if task.cancelled():
            if not self._stopping.is_set():
                raise SourceUnavailable("The work was cancelled from within", source=self.name)
            return None
        return task.result()

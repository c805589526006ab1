"""Whether the committed branch is to be replaced: from what one endpoint says to what is done about it.

One endpoint's word starts the question and does not answer it. Before anything is undone, and before a fork that must
not be undone halts the run, every endpoint is asked whether it still has our entry:

    most, or all that know, have another one     follow it; or, where it must not be undone, halt after several looks
    as many have ours                            look again for a while; then follow
    most have ours                               stay, and doubt the others for a while

Where finality or the cap forbids to follow, and somebody still has ours after several looks, those who do not are
doubted too. So a node that lags, syncs, lies or is cut off neither halts the run nor makes it undo what others have.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from gapless.engine import plan
from gapless.engine.fork import Prober
from gapless.engine.lane import Lane
from gapless.engine.report import Reporter
from gapless.errors import Contradiction, GaplessError, NotYetAvailable
from gapless.model import Cursor, Head, Mode

log = structlog.get_logger("gapless.follow")

Standing = Callable[[int], Awaitable[tuple[Cursor, Head]]]
"""Reads the stored cursor, of a source that starts at the position given, and the source's head, now."""


class Unsettled(Contradiction):
    """The endpoints do not agree with what is committed, or not with each other. Tried again after a pause."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do: replace what is above the fork's ancestor up to `goal`, or, without a fork, go on from the cursor
    towards the head."""

    cursor: Cursor
    head: Head
    fork: plan.Fork | None = None
    goal: int = -1


class Judge:
    """One source's judge."""

    def __init__(self, lane: Lane, reporter: Reporter, standing: Standing) -> None:
        self._lane = lane
        self._name = lane.source.name
        self._options = lane.options
        self._reporter = reporter
        self._standing = standing

    async def judge(self, start: int) -> Verdict:
        """Look, and look again where that may help.

        Raises Unsettled and NotYetAvailable where it must be tried again later; ForkTooDeep and ForkBeyondFinality only
        when all endpoints that know still say so after several looks."""
        looks = 0
        while True:
            cursor, head = await self._standing(start)
            fork = await self._find(cursor, start)
            if fork is None or fork.parted is None:
                same = fork is not None and fork.ancestor == cursor
                return await self._stay(cursor, head, on_chain=same)
            refusal = plan.refusal(self._name, cursor, fork, self._reporter.final, self._options.reorg_positions_max)
            goal = plan.replacement(cursor, head, self._options)
            if refusal is None and fork.ancestor is not None and goal <= fork.ancestor.position:
                return Verdict(cursor, head)  # Gone back without another branch yet: keep ours until there is one.
            opinions = await self._lane.source.opinions(fork.parted.position)
            patient = looks >= self._options.fork_looks_max
            ours, theirs = plan.count(fork.parted, opinions.values())
            votes = plan.votes(ours, theirs)
            if votes is plan.Votes.STAY or (refusal is not None and ours and patient):
                self._doubt(fork.parted, opinions)
                return await self._stay(cursor, head, on_chain=True)
            if refusal is None and (votes is plan.Votes.FOLLOW or patient) and votes is not plan.Votes.SILENT:
                return Verdict(cursor, head, fork, goal)
            if patient:
                raise refusal if refusal is not None and votes is plan.Votes.FOLLOW else self._unsettled(cursor)
            await self._pause(looks, refusal or self._unsettled(cursor))
            looks += 1

    async def _find(self, cursor: Cursor, start: int) -> plan.Fork | None:
        if cursor.id == "":
            return plan.Fork(cursor)
        lane = self._lane
        depth_max = self._options.reorg_positions_max
        return await Prober(lane.source, lane.store, lane.offload, cursor, start, depth_max).fork()

    async def _stay(self, cursor: Cursor, head: Head, *, on_chain: bool) -> Verdict:
        """It looked like a fork, but our branch stays: the cursor is on the chain, or nobody can tell. At the cursor's
        own height an endpoint names another head than the rest: the cursor it is. Above, the blocks served do not link:
        they must come from elsewhere."""
        if not on_chain and head.latest.position >= cursor.position:
            raise NotYetAvailable(
                "The endpoint asked does not have the entries to compare with the committed ones yet",
                source=self._name,
                position=cursor.position,
            )
        if head.latest.position > cursor.position:
            opinions = await self._lane.source.opinions(cursor.position)
            if plan.votes(*plan.count(cursor, opinions.values())) is plan.Votes.STAY:
                self._doubt(cursor, opinions)
            raise Unsettled(
                "The blocks fetched do not link to the committed one, which is still on the chain",
                kind="unlinked",
                source=self._name,
                position=cursor.position + 1,
            )
        if head.latest.position == cursor.position and head.latest.id != cursor.id:
            log.warning("an endpoint names another head", source=self._name, position=cursor.position)
            return Verdict(cursor, replace(head, latest=cursor))
        return Verdict(cursor, head)

    def _doubt(self, ours: Cursor, opinions: dict[str, Cursor | None]) -> None:
        """Ask those on another branch last for a while, and do not count their heads."""
        others = frozenset(label for label, found in opinions.items() if found is not None and found != ours)
        if others:
            log.warning("on a chain of their own", source=self._name, endpoints=sorted(others), position=ours.position)
            self._lane.source.doubt(others)

    def _unsettled(self, cursor: Cursor) -> Unsettled:
        return Unsettled(
            "Some endpoints still have the last committed entries, others have replaced them, or none can tell",
            kind="disputed",
            source=self._name,
            position=cursor.position,
        )

    async def _pause(self, looks: int, why: GaplessError) -> None:
        log.warning("looking again at a fork", source=self._name, reason=str(why))
        await self._reporter.mode(Mode.DEGRADED, f"looking again: {why.what}")
        pause_seconds = self._options.fork_pause_seconds * 2**looks
        await self._lane.clock.sleep(min(pause_seconds, self._options.retry_seconds_max))

"""While following: what a lying endpoint served un-audited is fetched again elsewhere.

The ranges go into the gap ledger first, and what is mended is cut out of them in the transaction that mends it, so a
restart goes on where this process stopped. A turn between two looks at the head is short: the liar may have served
millions of blocks, and following must not wait for them. Ranges that cannot be mended wait their turn behind those that
were tried less often.
"""

from __future__ import annotations

import structlog

from gapless.clock import Clock
from gapless.engine.offload import Offload
from gapless.engine.repair import DISTRUSTED, Damage, Repairer
from gapless.errors import CursorMoved, HandlerFailed, Refused, SourceError
from gapless.model import Fence, Gap, Head
from gapless.sources import AnySource
from gapless.store import Store

TURN_SECONDS = 0.25
"""After which a turn ends; one span is always mended."""
SPANS_PER_TURN_MAX = 8
RETRY_SECONDS = 30.0
_LOOK_SECONDS = 30.0
"""Between two looks into the ledger, where commands enter what they find."""

log = structlog.get_logger("gapless.mend")


class Mender:
    """One source's mender."""

    def __init__(self, source: AnySource, repairer: Repairer, store: Store, offload: Offload, clock: Clock) -> None:
        self._source = source
        self._repairer = repairer
        self._store = store
        self._offload = offload
        self._clock = clock
        self._not_before = float("-inf")
        self._look_at = float("-inf")
        self._work = False
        """Whether the ledger holds ranges for us, as far as is known."""
        self._liars: frozenset[str] = frozenset()
        """Caught, and not in the ledger yet."""
        self.gaps = 0
        """Ranges in the ledger, as far as is known."""

    @property
    def busy(self) -> bool:
        """Whether another turn may follow at once."""
        return self._work and self._clock.monotonic() >= self._not_before

    async def mend(self, head: Head, fence: Fence) -> None:
        """Record what newly caught liars served, and mend some of what is open."""
        self._liars |= self._source.take_liars()
        if self._liars:
            liars = self._liars
            await self._offload.write(lambda: self._record(liars))
            self._liars = frozenset()
            self._look_at = float("-inf")
        began = self._clock.monotonic()
        if not self.busy and began < self._look_at:
            return
        gap = await self._look()
        for _ in range(SPANS_PER_TURN_MAX):
            if gap is None or not self.busy:
                return
            await self._mend_span(gap, head, fence)
            if self._clock.monotonic() - began >= TURN_SECONDS:
                return
            gap = await self._look()

    async def _look(self) -> Gap | None:
        """The range to mend next: of those tried least often, the first."""
        name = self._source.name
        gaps = await self._offload.read(lambda: self._store.gaps(name))
        ours = [gap for gap in gaps if gap.reason.startswith(DISTRUSTED)]
        self.gaps, self._work = len(gaps), bool(ours)
        self._look_at = self._clock.monotonic() + _LOOK_SECONDS
        return min(ours, key=lambda gap: (gap.attempts, gap.first), default=None)

    async def _mend_span(self, gap: Gap, head: Head, fence: Fence) -> None:
        name = self._source.name
        last = min(gap.last, gap.first + self._source.span() - 1)
        try:
            repaired = await self._repairer.mend(Damage(gap.first, last, gap.reason), head=head, fence=fence)
        except (SourceError, Refused, HandlerFailed, CursorMoved) as error:
            # The gap stays in the ledger with its attempts; status and metrics show it.
            log.warning("could not mend", source=name, first=gap.first, last=last, reason=str(error))
            self._not_before = self._clock.monotonic() + RETRY_SECONDS
            return
        whole = last == gap.last
        (log.info if whole else log.debug)("mended", source=name, first=gap.first, last=last, changed=repaired.changed)
        self.gaps -= whole

    def _record(self, liars: frozenset[str]) -> None:
        name = self._source.name
        for label in sorted(liars):
            for first, last in self._store.served_unaudited(name, label):
                log.warning("distrusted", source=name, endpoint=label, first=first, last=last)
                self._store.record_gap(Gap(name, first, last, DISTRUSTED + label, self._clock.now_us()))

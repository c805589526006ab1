"""While following: what a lying endpoint served un-audited is fetched again elsewhere.

The ranges go into the gap ledger first, so that a restart goes on where this process stopped, and are mended a few at
a time between two looks at the head, so that following is never held up for long.
"""

from __future__ import annotations

import structlog

from gapless.clock import Clock
from gapless.engine.offload import Offload
from gapless.engine.repair import DISTRUSTED, Damage, Repairer
from gapless.errors import Refused, SourceError
from gapless.model import Fence, Gap, Head
from gapless.sources import AnySource
from gapless.store import Store

_RANGES_PER_TURN_MAX = 4
_RETRY_SECONDS = 30.0
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
        self._not_before = 0.0
        self._open: list[Damage] | None = None
        self._looked_at = 0.0
        self.gaps = 0
        """Ranges in the ledger, as far as is known."""

    async def mend(self, head: Head, fence: Fence) -> None:
        """Record what newly caught liars served, and mend some of what is open."""
        name = self._source.name
        liars = self._source.take_liars()
        if liars:
            await self._offload.write(lambda: self._record(liars))
            self._open = None
        now = self._clock.monotonic()
        if self._open is None or now - self._looked_at >= _LOOK_SECONDS:
            gaps = await self._offload.read(lambda: self._store.gaps(name))
            self._open = [Damage(g.first, g.last, g.reason) for g in gaps if g.reason.startswith(DISTRUSTED)]
            self._looked_at, self.gaps = now, len(gaps)
        if not self._open or now < self._not_before:
            return
        for damage in self._open[:_RANGES_PER_TURN_MAX]:
            try:
                repaired = await self._repairer.mend(damage, head=head, fence=fence)
            except (SourceError, Refused) as error:
                # The gap stays in the ledger with its attempts; status and metrics show it.
                log.warning("could not mend", source=name, first=damage.first, last=damage.last, reason=str(error))
                self._not_before = self._clock.monotonic() + _RETRY_SECONDS
                return
            log.info("mended", source=name, first=damage.first, last=damage.last, changed=repaired.changed)
            self._open = self._open[1:]
            self.gaps -= 1

    def _record(self, liars: frozenset[str]) -> None:
        name = self._source.name
        for label in sorted(liars):
            for first, last in self._store.served_unaudited(name, label):
                log.warning("distrusted", source=name, endpoint=label, first=first, last=last)
                self._store.record_gap(Gap(name, first, last, DISTRUSTED + label, self._clock.now_us()))

"""Save what `gapless status` shows about a source: at once when the mode changes, else at most once a second."""

from __future__ import annotations

import structlog

from gapless.clock import Clock
from gapless.engine.observer import Observer
from gapless.engine.offload import Offload
from gapless.model import Cursor, Head, Mode, SourceReport
from gapless.store import Store

_EVERY_SECONDS = 1.0

log = structlog.get_logger("gapless.source")


class Reporter:
    """Keeps one source's report."""

    def __init__(self, source: str, store: Store, clock: Clock, offload: Offload, observer: Observer) -> None:
        self._source = source
        self._store = store
        self._clock = clock
        self._offload = offload
        self._observer = observer
        self._mode = Mode.STOPPED
        self._reason: str | None = None
        self._head: Head | None = None
        self.final: int | None = None
        """Highest committed position known to be final: from a head that the committed chain agreed with."""
        self._saved_at = float("-inf")
        self._resumed = False
        """Until then nothing is saved: it would replace what the last leader knew to be final."""

    def saw_head(self, head: Head) -> bool:
        """Remember the head; True when it is another than before."""
        changed = self._head is None or self._head.latest != head.latest
        self._head = head
        return changed

    def resume(self, reported: SourceReport, cursor: Cursor | None) -> int:
        """Go on from what was reported last. Returns the highest committed position that is final, -1 for none: what
        an operator has undone since is not final any more."""
        self._resumed = True
        self.final = None
        if reported.finalized is not None and cursor is not None:
            self.final = min(reported.finalized, cursor.position)
        return -1 if self.final is None else self.final

    def agreed(self, head: Head) -> None:
        """What was just committed is on the chain this head is on, so what the head says is final is final for us."""
        self.final = head.finalized if self.final is None else max(self.final, head.finalized)

    async def caught_up(self, head: Head, cursor: Cursor) -> None:
        """Nothing is left to commit. With confirmations the head is ahead of us, perhaps on another branch."""
        self.saw_head(head)
        if head.latest == cursor:
            self.agreed(head)
        await self.mode(Mode.LIVE, None)
        self._observer.position(self._source, cursor.position, head.time_us)

    async def mode(self, mode: Mode, reason: str | None, *, force: bool = False) -> None:
        changed = (mode, reason) != (self._mode, self._reason)
        if mode is not self._mode:
            log.info("mode", source=self._source, mode=mode.value, reason=reason)
        self._mode, self._reason = mode, reason
        self._observer.mode(self._source, mode, reason)
        now = self._clock.monotonic()
        if not self._resumed or (not (changed or force) and now - self._saved_at < _EVERY_SECONDS):
            return
        self._saved_at = now
        report = SourceReport(
            mode=mode,
            reason=reason,
            head=None if self._head is None else self._head.latest.position,
            head_time_us=None if self._head is None else self._head.time_us,
            finalized=self.final,
            updated_us=self._clock.now_us(),
        )
        await self._offload.write(lambda: self._store.report(self._source, report))

"""What a memory store holds, and its books: leases, gaps, quarantine, flags, reports."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gapless.clock import Clock
from gapless.errors import check
from gapless.model import Cursor, Fence, Gap, Identity, LeaseRow, SourceReport, StoredEntry, Undo
from gapless.store import FORMAT, QuarantineRow, StateRow
from gapless.store.batches import cut

Key = tuple[str | None, ...]
Row = tuple[str | None, ...]


@dataclass
class SourceData:
    """What is stored about one source."""

    identity: Identity | None = None
    start: int = 0
    cursor: Cursor | None = None
    report: SourceReport = field(default_factory=SourceReport)
    undo_floor: int | None = None
    entries: dict[int, StoredEntry] = field(default_factory=dict)
    undo: list[Undo] = field(default_factory=list)


@dataclass
class MemoryDatabase:
    """What outlives a `MemoryStore`, as a file outlives a process."""

    app: str | None = None
    format: int = FORMAT
    definition: str = ""
    sources: dict[str, SourceData] = field(default_factory=dict)
    facts: dict[str, dict[int, list[Row]]] = field(default_factory=dict)
    """By table and position; rows in key order."""
    state: dict[str, dict[Key, StateRow]] = field(default_factory=dict)
    gaps: dict[tuple[str, int, int], Gap] = field(default_factory=dict)
    quarantine: list[QuarantineRow] = field(default_factory=list)
    quarantine_id: int = 0
    flags: dict[str, str] = field(default_factory=dict)
    leases: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Holder, token, expiry in microseconds."""
    lock: threading.RLock = field(default_factory=threading.RLock)


class MemoryBooks:
    """LeaseStore and Ledger."""

    def __init__(self, database: MemoryDatabase, clock: Clock) -> None:
        self.database = database
        self._clock = clock

    def _source(self, source: str) -> SourceData:
        return self.database.sources.setdefault(source, SourceData())

    # --- LeaseStore -------------------------------------------------------------------------------------------------

    def acquire(self, name: str, holder: str, ttl_seconds: float) -> Fence | None:
        check(holder, "a lease is held by somebody")
        with self.database.lock:
            now_us = self._clock.now_us()
            leader, token, until = self.database.leases.get(name, ("", 0, 0))
            if leader and until > now_us:
                return None
            self.database.leases[name] = (holder, token + 1, now_us + round(ttl_seconds * 1e6))
            return Fence(name, holder, token + 1)

    def renew(self, fence: Fence, ttl_seconds: float) -> bool:
        return self._update_lease(fence, fence.holder, self._clock.now_us() + round(ttl_seconds * 1e6))

    def release(self, fence: Fence) -> None:
        self._update_lease(fence, "", self._clock.now_us())

    def _update_lease(self, fence: Fence, holder: str, until: int) -> bool:
        with self.database.lock:
            ours = self.database.leases.get(fence.name, ("", 0, 0))[:2] == (fence.holder, fence.token)
            if ours:
                self.database.leases[fence.name] = (holder, fence.token, until)
            return ours

    def leases(self) -> list[LeaseRow]:
        now_us = self._clock.now_us()
        with self.database.lock:
            return [
                LeaseRow(n, h, t, (until - now_us) / 1e6) for n, (h, t, until) in sorted(self.database.leases.items())
            ]

    # --- Ledger -----------------------------------------------------------------------------------------------------

    def gaps(self, source: str) -> list[Gap]:
        with self.database.lock:
            return [gap for (owner, _, _), gap in sorted(self.database.gaps.items()) if owner == source]

    def record_gap(self, gap: Gap) -> None:
        check(gap.first <= gap.last, "a gap has a first and a last position")
        with self.database.lock:
            slot = (gap.source, gap.first, gap.last)
            known = self.database.gaps.get(slot)
            self.database.gaps[slot] = gap if known is None else replace(gap, since_us=known.since_us)

    def clear_gaps(self, source: str, first: int, last: int) -> None:
        with self.database.lock:
            for gap in self.gaps(source):
                if gap.first <= last and gap.last >= first:
                    del self.database.gaps[gap.source, gap.first, gap.last]
                    for rest in cut(gap, first, last):
                        self.database.gaps.setdefault((rest.source, rest.first, rest.last), rest)

    def quarantine(self, source: str | None = None) -> list[QuarantineRow]:
        with self.database.lock:
            return [row for row in self.database.quarantine if source in (None, row.item.source)]

    def discard_quarantine(self, ids: Sequence[int]) -> int:
        with self.database.lock:
            kept = [row for row in self.database.quarantine if row.id not in set(ids)]
            gone = len(self.database.quarantine) - len(kept)
            self.database.quarantine = kept
            return gone

    def flags(self) -> dict[str, str]:
        with self.database.lock:
            return dict(sorted(self.database.flags.items()))

    def set_flag(self, name: str, value: str | None) -> None:
        with self.database.lock:
            if value is None:
                self.database.flags.pop(name, None)
            else:
                self.database.flags[name] = value

    def report(self, source: str, report: SourceReport) -> None:
        with self.database.lock:
            data = self._source(source)
            kept = data.report
            data.report = replace(report, reorgs=kept.reorgs, reorg_deepest=kept.reorg_deepest)

    def reported(self, source: str) -> SourceReport:
        with self.database.lock:
            data = self.database.sources.get(source)
            return SourceReport() if data is None else data.report

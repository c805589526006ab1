"""The operator's books in SQL: gaps, quarantine, flags, reports."""

from __future__ import annotations

from collections.abc import Sequence

from gapless.errors import check
from gapless.model import Gap, Mode, Quarantined, SourceReport
from gapless.schema import timestamp_text
from gapless.store import QuarantineRow
from gapless.store.batches import cut
from gapless.store.ddl import CURSORS, GAPS, QUARANTINE
from gapless.store.session import Session, SqlStore, micros, printable

_IDS_MAX = 500


class SqlLedger(SqlStore):
    """Ledger."""

    # --- gaps -------------------------------------------------------------------------------------------------------

    def gaps(self, source: str) -> list[Gap]:
        with self._reading() as s:
            return self._overlapping_gaps(s, source, -(2**63), 2**63 - 1)

    def record_gap(self, gap: Gap) -> None:
        check(gap.first <= gap.last, "a gap has a first and a last position")

        def work(s: Session) -> None:
            s.run(
                f'INSERT INTO {self._names.gaps} ("source", "first", "last", "reason", "since", "attempts")'
                ' VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT ("source", "first", "last")'
                ' DO UPDATE SET "reason" = excluded."reason", "attempts" = excluded."attempts"',
                *_gap_values(gap),
            )

        self._transact(work)

    def clear_gaps(self, source: str, first: int, last: int) -> None:
        self._transact(lambda s: self._clear_gaps(s, source, first, last))

    def _clear_gaps(self, s: Session, source: str, first: int, last: int) -> None:
        for gap in self._overlapping_gaps(s, source, first, last):
            s.run(
                f'DELETE FROM {self._names.gaps} WHERE "source" = ? AND "first" = ? AND "last" = ?',
                *(gap.source, gap.first, gap.last),
            )
            for rest in cut(gap, first, last):
                # The same range may be known by itself already; that record is kept.
                s.run(
                    f'INSERT INTO {self._names.gaps} ("source", "first", "last", "reason", "since", "attempts")'
                    ' VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT ("source", "first", "last") DO NOTHING',
                    *_gap_values(rest),
                )

    def _overlapping_gaps(self, s: Session, source: str, first: int, last: int) -> list[Gap]:
        rows = s.run(
            f'SELECT "source", "first", "last", "reason", {self._names.text_of(GAPS, "since")}, "attempts"'
            f' FROM {self._names.gaps} WHERE "source" = ? AND "first" <= ? AND "last" >= ? ORDER BY "first", "last"',
            *(source, last, first),
        )
        return [Gap(r[0], r[1], r[2], r[3], micros(r[4]), r[5]) for r in rows]

    # --- quarantine -------------------------------------------------------------------------------------------------

    def quarantine(self, source: str | None = None) -> list[QuarantineRow]:
        with self._reading() as s:
            created = self._names.text_of(QUARANTINE, "created")
            rows = s.run(
                'SELECT "id", "source", "position", "item", "consumer", "reason", "payload", '
                f'{created}, "attempts" FROM {self._names.quarantine}'
                + ("" if source is None else ' WHERE "source" = ?')
                + ' ORDER BY "id"',
                *(() if source is None else (source,)),
            )
            return [QuarantineRow(r[0], Quarantined(*r[1:7]), micros(r[7]), r[8]) for r in rows]

    def discard_quarantine(self, ids: Sequence[int]) -> int:
        def work(s: Session) -> int:
            gone = 0
            for i in range(0, len(ids), _IDS_MAX):
                part = ids[i : i + _IDS_MAX]
                marks = ", ".join("?" * len(part))
                gone += len(
                    s.run(f'DELETE FROM {self._names.quarantine} WHERE "id" IN ({marks}) RETURNING "id"', *part)
                )
            return gone

        return self._transact(work)

    # --- flags ------------------------------------------------------------------------------------------------------

    def flags(self) -> dict[str, str]:
        with self._reading() as s:
            return dict(s.run(f'SELECT "name", "value" FROM {self._names.flags} ORDER BY "name"'))

    def set_flag(self, name: str, value: str | None) -> None:
        def work(s: Session) -> None:
            if value is None:
                s.run(f'DELETE FROM {self._names.flags} WHERE "name" = ?', name)
                return
            s.run(
                f'INSERT INTO {self._names.flags} ("name", "value", "updated") VALUES (?, ?, ?) ON CONFLICT ("name")'
                ' DO UPDATE SET "value" = excluded."value", "updated" = excluded."updated"',
                *(name, value, timestamp_text(self._clock.now_us())),
            )

        self._transact(work)

    # --- reports ----------------------------------------------------------------------------------------------------

    def report(self, source: str, report: SourceReport) -> None:
        def work(s: Session) -> None:
            self._ensure_cursor_row(s, source)
            s.run(
                f'UPDATE {self._names.cursors} SET "mode" = ?, "reason" = ?, "head" = ?, "head_time" = ?,'
                ' "finalized" = ?, "updated" = ? WHERE "source" = ?',
                report.mode.value,
                None if report.reason is None else printable(report.reason),
                report.head,
                None if report.head_time_us is None else timestamp_text(report.head_time_us),
                report.finalized,
                timestamp_text(report.updated_us),
                source,
            )

        self._transact(work)

    def reported(self, source: str) -> SourceReport:
        time, updated = (self._names.text_of(CURSORS, c) for c in ("head_time", "updated"))
        with self._reading() as s:
            rows = s.run(
                f'SELECT "mode", "reason", "head", {time}, "finalized", {updated}, "reorgs", "reorg_deepest"'
                f' FROM {self._names.cursors} WHERE "source" = ?',
                source,
            )
            if not rows:
                return SourceReport()
            mode, reason, head, head_time, finalized, updated_at, reorgs, deepest = rows[0]
            return SourceReport(
                mode=Mode(mode),
                reason=reason,
                head=head,
                head_time_us=None if head_time is None else micros(head_time),
                finalized=finalized,
                updated_us=micros(updated_at),
                reorgs=reorgs,
                reorg_deepest=deepest,
            )

    def _ensure_cursor_row(self, s: Session, source: str) -> None:
        """A source has its row from its first sign of life: a report may come before it is known what the source is."""
        s.run(
            f'INSERT INTO {self._names.cursors} ("source", "mode", "updated", "reorgs", "reorg_deepest", "revision",'
            ' "token") VALUES (?, ?, ?, 0, 0, 0, 0) ON CONFLICT ("source") DO NOTHING',
            *(source, Mode.STOPPED.value, timestamp_text(0)),
        )


def _gap_values(gap: Gap) -> tuple[str, int, int, str, str, int]:
    return (gap.source, gap.first, gap.last, printable(gap.reason), timestamp_text(gap.since_us), gap.attempts)

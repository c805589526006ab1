"""Ordered, exactly-once effects in SQL: the commit protocol, written once for SQLite and Postgres.

A transaction that changes a source's data locks the source's cursor row and raises its `revision` by one, noting the
fencing token it ran under. Should the connection be lost at COMMIT, the pair tells for certain whether it took place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from gapless.errors import InvariantViolation, LeaseLost, WrongChain, check
from gapless.model import Cursor, Fence, Identity, Undo
from gapless.schema import Column_, Nature, Rows, Table, timestamp_text
from gapless.store import Batch, StoredSource
from gapless.store.batches import (
    check_base,
    check_batch,
    check_cursor,
    check_neighbours,
    check_undo,
    merged_changes,
    oldest,
    undo_floor,
)
from gapless.store.ddl import ENTRIES, QUARANTINE, UNDO, quote
from gapless.store.ledger import SqlLedger
from gapless.store.session import Session, Value, printable

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str | None, ...]).decode

_LAST_POSITION = 2**63 - 1


@dataclass(slots=True)
class CursorRow:
    """A row of `gapless_cursors`, locked, as far as writing needs it; and what the transaction changes in it."""

    cursor: Cursor | None
    start: int | None
    undo_floor: int | None
    reorgs: int
    reorg_deepest: int
    revision: int
    token: int
    updates: dict[str, Value] = field(default_factory=dict)


class SqlEntries(SqlLedger):
    """EntryStore."""

    def bind_source(self, source: str, identity: Identity, start: int) -> StoredSource:
        def work(s: Session) -> StoredSource:
            self._ensure_cursor_row(s, source)
            found = self._stored_source(s, source, lock=True)
            if found is None:
                s.run(
                    f'UPDATE {self._names.cursors} SET "kind" = ?, "chain" = ?, "genesis" = ?, "start" = ?'
                    ' WHERE "source" = ?',
                    *(identity.kind, identity.chain, identity.genesis, start, source),
                )
                return StoredSource(identity, start)
            if found.identity != identity:
                raise WrongChain(
                    f"The tables were filled from {_described(found.identity)}, the endpoint serves "
                    f"{_described(identity)}",
                    source=source,
                    todo="Point the source at the right chain, or use another database.",
                )
            return found

        return self._transact(work)

    def _stored_source(self, s: Session, source: str, *, lock: bool = False) -> StoredSource | None:
        rows = s.run(
            f'SELECT "kind", "chain", "genesis", "start" FROM {self._names.cursors} WHERE "source" = ?'
            + (self.dialect.lock_row if lock else ""),
            source,
        )
        if not rows or rows[0][0] is None:
            return None
        return StoredSource(Identity(*rows[0][:3]), rows[0][3])

    def commit(self, batch: Batch, expected: Cursor | None, fence: Fence) -> None:
        check_batch(batch, self._schema)

        def work(s: Session, row: CursorRow) -> None:
            self._check_cursor(batch.source, row.cursor, expected)
            check_base(batch, expected, row.start)
            restored: list[Undo] = []
            if batch.rewind_to is not None:
                restored = self._undo_above(s, batch.source, row, batch.rewind_to)[1]
            self._write_facts(s, batch)
            for table, changes in merged_changes(restored, batch.changes).items():
                s.upsert(self._names.versioned(self._schema.table(table)), self._schema.table(table), changes)
            self._write_entries(s, batch)
            self._clear_gaps(s, batch.source, batch.entries[0].position, batch.entries[-1].position)
            self._advance(s, row, batch, expected)

        self._change(batch.source, fence, work)

    def replace(self, batch: Batch, fence: Fence) -> None:
        check_batch(batch, self._schema)
        first, last = batch.entries[0].position, batch.entries[-1].position

        def work(s: Session, row: CursorRow) -> None:
            near = s.run(
                f'SELECT "position", "id", "parent_id" FROM {self._names.entries}'
                ' WHERE "source" = ? AND "position" IN (?, ?)',
                *(batch.source, first - 1, last + 1),
            )
            before = next((r[1] for r in near if r[0] == first - 1), None)
            parent_of_next = next((r[2] for r in near if r[0] == last + 1), None)
            check_neighbours(batch, row.cursor, before, parent_of_next)
            for table in self._schema.of(batch.source, Nature.FACT):
                s.run(
                    f"DELETE FROM {self._names.versioned(table)} WHERE {quote(table.position_column)} BETWEEN ? AND ?",
                    *(first, last),
                )
            for relation in (self._names.quarantine, self._names.entries):
                s.run(
                    f'DELETE FROM {relation} WHERE "source" = ? AND "position" BETWEEN ? AND ?',
                    *(batch.source, first, last),
                )
            self._write_facts(s, batch)
            self._write_entries(s, batch, with_undo=False)
            self._clear_gaps(s, batch.source, first, last)

        self._change(batch.source, fence, work)

    def rewind(self, source: str, ancestor: Cursor, expected: Cursor, fence: Fence) -> int:
        def work(s: Session, row: CursorRow) -> int:
            self._check_cursor(source, row.cursor, expected)
            check(ancestor.position <= expected.position, "a rewind goes back from the cursor")
            if ancestor == expected:
                return 0
            self._take_time(s)
            undone, restored = self._undo_above(s, source, row, ancestor)
            for table, changes in merged_changes(restored, ()).items():
                s.upsert(self._names.versioned(self._schema.table(table)), self._schema.table(table), changes)
            everything = ancestor.position < (row.start or 0)
            row.updates = {
                "position": None if everything else ancestor.position,
                "id": None if everything else ancestor.id,
                "undo_floor": _floor_after_rewind(row.undo_floor, ancestor.position),
                "updated": timestamp_text(self._clock.now_us()),
            }
            return undone

        return self._change(source, fence, work)

    def prune_undo(self, source: str, upto: int) -> None:
        def work(s: Session) -> None:
            row = self._lock_cursor(s, source)
            if row is None or row.cursor is None:
                return
            floor = undo_floor(row.undo_floor, upto, row.cursor.position)
            self._forget_undo(s, source, floor)
            s.run(f'UPDATE {self._names.cursors} SET "undo_floor" = ? WHERE "source" = ?', floor, source)

        self._transact(work)

    # --- the steps of a change --------------------------------------------------------------------------------------

    def _change(self, source: str, fence: Fence, work: Callable[[Session, CursorRow], T]) -> T:
        """Run `work` in one transaction under the fence and the lock of the source's cursor row."""
        revision = -1

        def body(s: Session) -> T:
            nonlocal revision
            self._check_fence(s, fence)
            row = self._lock_cursor(s, source)
            if row is None:
                raise InvariantViolation(f"Source {source!r} is written before it was bound")
            revision = row.revision + 1
            result = work(s, row)
            updates = {**row.updates, "revision": revision, "token": fence.token}
            columns = ", ".join(f"{quote(name)} = ?" for name in updates)
            s.run(f'UPDATE {self._names.cursors} SET {columns} WHERE "source" = ?', *updates.values(), source)
            return result

        def committed(s: Session) -> bool:
            row = self._lock_cursor(s, source)
            if row is not None and row.revision < revision:
                return False
            if row is not None and (row.revision, row.token) == (revision, fence.token):
                return True
            raise LeaseLost(
                "The connection was lost at COMMIT, and another process has written since",
                source=source,
                todo="It leads this source now; this process continues from what it wrote once it leads again.",
            )

        return self._transact(body, committed)

    def _check_cursor(self, source: str, stored: Cursor | None, expected: Cursor | None) -> None:
        check_cursor(source, stored, expected)

    def _lock_cursor(self, s: Session, source: str) -> CursorRow | None:
        rows = s.run(
            'SELECT "position", "id", "start", "undo_floor", "reorgs", "reorg_deepest", "revision", "token"'
            f' FROM {self._names.cursors} WHERE "source" = ?{self.dialect.lock_row}',
            source,
        )
        if not rows:
            return None
        position, id_, *rest = rows[0]
        return CursorRow(None if position is None else Cursor(position, id_), *rest)

    def _undo_above(self, s: Session, source: str, row: CursorRow, ancestor: Cursor) -> tuple[int, list[Undo]]:
        """Remove everything above the ancestor. Returns how many entries that were, and the state rows to put back."""
        start = row.start or 0
        check(ancestor.position >= start - 1, f"a rewind ends at {start - 1} at the lowest, before the first entry")
        everything = ancestor.position < start
        state_tables = self._schema.of(source, Nature.STATE)
        above = (source, ancestor.position)
        restored: list[Undo] = []
        if everything:
            for table in state_tables:
                s.run(f"DELETE FROM {self._names.versioned(table)}")
        else:
            self._check_ancestor(s, source, ancestor)
            check_undo(source, ancestor.position, row.undo_floor, has_state=bool(state_tables))
            restored = self._restored(s, source, ancestor.position)
        for table in self._schema.of(source, Nature.FACT):
            position = quote(table.position_column)
            s.run(f"DELETE FROM {self._names.versioned(table)} WHERE {position} > ?", ancestor.position)
        [(undone,)] = s.run(f'SELECT count(*) FROM {self._names.entries} WHERE "source" = ? AND "position" > ?', *above)
        for relation in (self._names.entries, self._names.quarantine, self._names.undo):
            s.run(f'DELETE FROM {relation} WHERE "source" = ? AND "position" > ?', *above)
        self._clear_gaps(s, source, ancestor.position + 1, _LAST_POSITION)
        return undone, restored

    def _check_ancestor(self, s: Session, source: str, ancestor: Cursor) -> None:
        """The ancestor must be the entry that is stored there; in a hole nothing is known, and the link will tell."""
        stored = s.run(
            f'SELECT "id" FROM {self._names.entries} WHERE "source" = ? AND "position" = ?', source, ancestor.position
        )
        if stored:
            self._check_cursor(source, Cursor(ancestor.position, stored[0][0]), ancestor)

    def _restored(self, s: Session, source: str, ancestor: int) -> list[Undo]:
        """Each state row changed above the ancestor as it was there."""
        rows = s.run(
            'SELECT "position", "table_name", "key", "previous", "previous_position" FROM '
            f'{self._names.undo} WHERE "source" = ? AND "position" > ? ORDER BY "position"',
            *(source, ancestor),
        )
        return oldest(
            Undo(position, table, _decode(key), None if old is None else _decode(old), old_position)
            for position, table, key, old, old_position in rows
        )

    def _write_facts(self, s: Session, batch: Batch) -> None:
        for rows in batch.rows:
            if len(rows):
                s.insert(self._names.versioned(rows.table), rows)

    def _write_entries(self, s: Session, batch: Batch, *, with_undo: bool = True) -> None:
        """Entries with their digests, and what else belongs to single entries: quarantine and undo."""
        items = zip(batch.entries, batch.counts, batch.digests, strict=True)
        _insert(
            s,
            self._names.entries,
            ENTRIES,
            [
                (
                    *(batch.source, str(e.position), e.id, e.parent_id, timestamp_text(e.time_us), e.evidence.value),
                    *(str(count), digest, e.served_by, "1" if e.audited else "0"),
                )
                for e, count, digest in items
            ],
        )
        if with_undo and batch.undo:
            _insert(s, self._names.undo, UNDO, [_undo_row(batch.source, u) for u in batch.undo])
        if batch.quarantined:
            now = timestamp_text(self._clock.now_us())
            _insert(
                s,
                self._names.quarantine,
                QUARANTINE,
                [
                    (
                        *(q.source, str(q.position), q.item, q.consumer),
                        *(printable(q.reason), printable(q.payload), now, "0"),
                    )
                    for q in batch.quarantined
                ],
            )

    def _advance(self, s: Session, row: CursorRow, batch: Batch, expected: Cursor | None) -> None:
        """Move the cursor to the batch's last entry and note head, finality and reorganisations."""
        last = batch.entries[-1]
        floor = row.undo_floor
        if batch.rewind_to is not None and expected is not None:
            floor = _floor_after_rewind(floor, batch.rewind_to.position)
            depth = expected.position - batch.rewind_to.position
            row.updates |= {"reorgs": row.reorgs + 1, "reorg_deepest": max(row.reorg_deepest, depth)}
        floor = undo_floor(floor, batch.finalized, last.position)
        if floor != row.undo_floor and self._schema.of(batch.source, Nature.STATE):
            self._forget_undo(s, batch.source, floor)
        row.updates |= {
            "position": last.position,
            "id": last.id,
            "undo_floor": floor,
            "updated": timestamp_text(self._clock.now_us()),
        }
        if batch.head is not None:
            row.updates["head"] = batch.head
        if batch.finalized is not None:
            row.updates["finalized"] = batch.finalized

    def _forget_undo(self, s: Session, source: str, upto: int | None) -> None:
        if upto is not None:
            s.run(f'DELETE FROM {self._names.undo} WHERE "source" = ? AND "position" <= ?', source, upto)


def _floor_after_rewind(floor: int | None, ancestor: int) -> int | None:
    return None if floor is None else min(floor, ancestor)


def _insert(s: Session, relation: str, table: Table, rows: Sequence[tuple[str | None, ...]]) -> None:
    columns: tuple[Column_, ...] = tuple(zip(*rows, strict=True))
    s.insert(relation, Rows(table, columns, (len(rows),)))


def _undo_row(source: str, undo: Undo) -> tuple[str | None, ...]:
    return (
        source,
        str(undo.position),
        undo.table,
        _json(undo.key),
        None if undo.previous is None else _json(undo.previous),
        None if undo.previous_position is None else str(undo.previous_position),
    )


def _json(values: tuple[str | None, ...]) -> str:
    return _encode(values).decode()


def _described(identity: Identity) -> str:
    return f"{identity.kind} chain {identity.chain} with genesis {identity.genesis}"

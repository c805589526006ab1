"""A store in plain Python: the same behaviour without a database, for tests and the simulation.

It is written apart from the SQL on purpose: what both do alike was thought of twice. Several `MemoryStore`s on one
`MemoryDatabase` are several processes on one database. Every change checks first and then applies, under one lock, so
it either happens or leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from gapless.clock import Clock, SystemClock
from gapless.errors import (
    InvariantViolation,
    NewerDatabase,
    SchemaChanged,
    StoreError,
    WrongChain,
    WrongDatabase,
    check,
)
from gapless.model import (
    Coverage,
    Cursor,
    Evidence,
    Fence,
    Identity,
    StoredEntry,
    Undo,
)
from gapless.schema import Column_, Nature, Rows, Schema, Table
from gapless.store import FORMAT, Batch, QuarantineRow, StateRow, StoredSource
from gapless.store.batches import (
    check_base,
    check_batch,
    check_cursor,
    check_neighbours,
    check_undo,
    columns_of,
    merged_changes,
    merged_ranges,
    oldest,
    row_order,
    undo_floor,
)
from gapless.store.ddl import SQLITE, check_schema, differences
from gapless.store.memory_books import MemoryBooks, MemoryDatabase, SourceData
from gapless.store.memory_query import query_memory
from gapless.store.select import check_select
from gapless.store.session import lease_lost

__all__ = ["MemoryDatabase", "MemoryStore"]

Key = tuple[str | None, ...]
Row = tuple[str | None, ...]


class MemoryStore(MemoryBooks):
    """`Store` in the memory of this process."""

    def __init__(self, database: MemoryDatabase | None = None, clock: Clock | None = None) -> None:
        super().__init__(database or MemoryDatabase(), clock or SystemClock())
        self.url = "memory:"
        self._opened: Schema | None = None

    def __repr__(self) -> str:
        return f"<MemoryStore {self.database.app}>"

    @property
    def _schema(self) -> Schema:
        if self._opened is None:
            raise InvariantViolation(f"The database {self.url} is used before open()")
        return self._opened

    def open(self, schema: Schema, *, create: bool) -> None:
        check_schema(schema, SQLITE)
        db = self.database
        with db.lock:
            if db.app is None:
                if not create:
                    raise StoreError(f"There is no database of app {schema.app!r} at {self.url} yet")
                db.app, db.definition = schema.app, schema.describe()
            if db.app != schema.app:
                raise WrongDatabase(f"{self.url} holds the tables of app {db.app!r}, not of {schema.app!r}")
            if db.format > FORMAT:
                raise NewerDatabase(f"{self.url} was written by a newer Gapless (format {db.format})")
            changed = differences(db.definition, schema)
            if changed:
                raise SchemaChanged(f"The app's tables differ from those in {self.url}: {'; '.join(changed)}")
        self._opened = schema

    def describe(self) -> dict[str, str]:
        return {"server": "memory of this process"}

    def close(self) -> None:
        self._opened = None

    # --- EntryStore -------------------------------------------------------------------------------------------------

    def bind_source(self, source: str, identity: Identity, start: int) -> StoredSource:
        with self.database.lock:
            data = self._source(source)
            if data.identity is None:
                data.identity, data.start = identity, start
            if data.identity != identity:
                raise WrongChain(f"The tables were filled from {data.identity}, not from {identity}", source=source)
            return StoredSource(data.identity, data.start)

    def cursor(self, source: str) -> Cursor | None:
        with self.database.lock:
            data = self.database.sources.get(source)
            return None if data is None else data.cursor

    def commit(self, batch: Batch, expected: Cursor | None, fence: Fence) -> None:
        check_batch(batch, self._schema)
        with self.database.lock:
            data = self._source(batch.source)
            self._check_fence(fence)
            self._check_cursor(batch.source, data.cursor, expected)
            check_base(batch, expected, None if data.identity is None else data.start)
            _check_rows(batch)
            restored: list[Undo] = []
            if batch.rewind_to is not None and expected is not None:
                restored = self._undo_above(batch.source, data, batch.rewind_to)[1]
                depth = expected.position - batch.rewind_to.position
                report = data.report
                data.report = replace(report, reorgs=report.reorgs + 1, reorg_deepest=max(report.reorg_deepest, depth))
            self._put(restored, batch)
            self._write(data, batch)
            data.undo.extend(batch.undo)
            last = batch.entries[-1]
            data.cursor = last.cursor
            self._raise_floor(data, batch.finalized)
            data.report = replace(
                data.report,
                head=data.report.head if batch.head is None else batch.head,
                finalized=data.report.finalized if batch.finalized is None else batch.finalized,
                updated_us=self._clock.now_us(),
            )

    def replace(self, batch: Batch, fence: Fence) -> None:
        check_batch(batch, self._schema)
        first, last = batch.entries[0].position, batch.entries[-1].position
        with self.database.lock:
            data = self._source(batch.source)
            self._check_fence(fence)
            before, after = data.entries.get(first - 1), data.entries.get(last + 1)
            check_neighbours(
                batch,
                data.cursor,
                None if before is None else before.entry.id,
                None if after is None else after.entry.parent_id,
            )
            _check_rows(batch)
            self._remove(batch.source, data, first, last)
            self._write(data, batch)

    def rewind(self, source: str, ancestor: Cursor, expected: Cursor, fence: Fence) -> int:
        with self.database.lock:
            data = self._source(source)
            self._check_fence(fence)
            self._check_cursor(source, data.cursor, expected)
            check(ancestor.position <= expected.position, "a rewind goes back from the cursor")
            if ancestor == expected:
                return 0
            undone, restored = self._undo_above(source, data, ancestor)
            self._put(restored, None)
            data.cursor = None if ancestor.position < data.start else ancestor
            data.report = replace(data.report, updated_us=self._clock.now_us())
            return undone

    def prune_undo(self, source: str, upto: int) -> None:
        with self.database.lock:
            self._raise_floor(self._source(source), upto)

    def _check_fence(self, fence: Fence) -> None:
        if self.database.leases.get(fence.name, ("", 0, 0))[:2] != (fence.holder, fence.token):
            raise lease_lost(fence)

    def _check_cursor(self, source: str, stored: Cursor | None, expected: Cursor | None) -> None:
        check_cursor(source, stored, expected)

    def _raise_floor(self, data: SourceData, upto: int | None) -> None:
        if data.cursor is None or upto is None:
            return
        floor = data.undo_floor = undo_floor(data.undo_floor, upto, data.cursor.position)
        data.undo = [u for u in data.undo if floor is None or u.position > floor]

    def _undo_above(self, source: str, data: SourceData, ancestor: Cursor) -> tuple[int, list[Undo]]:
        check(ancestor.position >= data.start - 1, "a rewind ends before the first entry at the lowest")
        state_tables = self._schema.of(source, Nature.STATE)
        restored: list[Undo] = []
        if ancestor.position < data.start:
            for table in state_tables:
                self.database.state.pop(table.name, None)
        else:
            stored = data.entries.get(ancestor.position)
            if stored is not None:
                self._check_cursor(source, stored.entry.cursor, ancestor)
            check_undo(source, ancestor.position, data.undo_floor, has_state=bool(state_tables))
            restored = self._restored(data, ancestor.position)
        undone = sum(position > ancestor.position for position in data.entries)
        self._remove(source, data, ancestor.position + 1, 2**63 - 1)
        data.undo = [u for u in data.undo if u.position <= ancestor.position]
        if data.undo_floor is not None:
            data.undo_floor = min(data.undo_floor, ancestor.position)
        return undone, restored

    def _restored(self, data: SourceData, ancestor: int) -> list[Undo]:
        above = sorted((u for u in data.undo if u.position > ancestor), key=lambda u: u.position)
        return oldest(above)

    def _remove(self, source: str, data: SourceData, first: int, last: int) -> None:
        """Facts, entries, quarantine and gaps of a range."""
        held: list[dict[int, Any]] = [self.database.facts.get(t.name, {}) for t in self._schema.of(source, Nature.FACT)]
        for by_position in (*held, data.entries):
            for position in [p for p in by_position if first <= p <= last]:
                del by_position[position]
        self.database.quarantine = [
            row
            for row in self.database.quarantine
            if row.item.source != source or not first <= row.item.position <= last
        ]
        self.clear_gaps(source, first, last)

    def _put(self, restored: Sequence[Undo], batch: Batch | None) -> None:
        for table, changes in merged_changes(restored, batch.changes if batch else ()).items():
            rows = self.database.state.setdefault(table, {})
            for change in changes:
                if change.values is None:
                    rows.pop(change.key, None)
                else:
                    rows[change.key] = StateRow(change.values, change.position)

    def _write(self, data: SourceData, batch: Batch) -> None:
        db = self.database
        for rows in batch.rows:
            table = db.facts.setdefault(rows.table.name, {})
            for row in zip(*rows.columns, strict=True):
                table.setdefault(int(row[0] or 0), []).append(row)
        for entry, count, digest in zip(batch.entries, batch.counts, batch.digests, strict=True):
            data.entries[entry.position] = StoredEntry(entry, count, digest)
        for item in batch.quarantined:
            db.quarantine_id += 1
            db.quarantine.append(QuarantineRow(db.quarantine_id, item, self._clock.now_us(), 0))
        self.clear_gaps(batch.source, batch.entries[0].position, batch.entries[-1].position)

    # --- ReadStore --------------------------------------------------------------------------------------------------

    def source(self, source: str) -> StoredSource | None:
        data = self.database.sources.get(source)
        return None if data is None or data.identity is None else StoredSource(data.identity, data.start)

    def _between(self, source: str, first: int, last: int) -> list[StoredEntry]:
        with self.database.lock:
            data = self.database.sources.get(source)
            entries = {} if data is None else data.entries
            if last - first < len(entries):
                return [entries[p] for p in range(first, last + 1) if p in entries]
            return [e for p, e in sorted(entries.items()) if first <= p <= last]

    def _all_entries(self, source: str) -> list[StoredEntry]:
        return self._between(source, -(2**63), 2**63 - 1)

    def entries(self, source: str, first: int, last: int) -> list[StoredEntry]:
        return self._between(source, first, last)

    def served_unaudited(self, source: str, served_by: str) -> list[tuple[int, int]]:
        stored = (s.entry for s in self._all_entries(source))
        return merged_ranges(
            e.position for e in stored if e.served_by == served_by and not e.audited and e.evidence != Evidence.PROVED
        )

    def coverage(self, source: str) -> Coverage:
        found = [s.entry for s in self._all_entries(source)]
        evidence = {kind.value: sum(e.evidence is kind for e in found) for kind in Evidence}
        return Coverage(
            found[0].position if found else None, found[-1].position if found else None, len(found), evidence
        )

    def missing(self, source: str, first: int, last: int) -> list[tuple[int, int]]:
        holes, at = [], first
        for stored in self._between(source, first, last):
            if stored.entry.position > at:
                holes.append((at, stored.entry.position - 1))
            at = stored.entry.position + 1
        return [*holes, (at, last)] if at <= last else holes

    def damaged(self, source: str, first: int, last: int) -> list[tuple[int, int, int]]:
        tables = [self.database.facts.get(t.name, {}) for t in self._schema.of(source, Nature.FACT)]
        counted = (
            (s.entry.position, s.rows, sum(len(t.get(s.entry.position, ())) for t in tables))
            for s in self._between(source, first, last)
        )
        return [c for c in counted if c[1] != c[2]]

    def facts(self, table: Table, first: int, last: int) -> tuple[list[Column_], list[int]]:
        with self.database.lock:
            stored = self.database.facts.get(table.name, {})
            rows = [row for position in stored if first <= position <= last for row in stored[position]]
        return columns_of(table, sorted(rows, key=row_order(table)))

    def state(self, table: Table, keys: Sequence[Key]) -> dict[Key, StateRow]:
        with self.database.lock:
            rows = self.database.state.get(table.name, {})
            return {key: rows[key] for key in keys if key in rows}

    def state_rows(self, table: Table) -> Iterator[StateRow]:
        with self.database.lock:
            rows = sorted(self.database.state.get(table.name, {}).items(), key=lambda item: [k or "" for k in item[0]])
        for _, row in rows:
            yield row

    def state_before(self, source: str, ancestor: int) -> list[Undo]:
        with self.database.lock:
            data = self.database.sources.get(source)
            return [] if data is None else self._restored(data, ancestor)

    def row_count(self, table: Table) -> int:
        with self.database.lock:
            if table.nature is Nature.STATE:
                return len(self.database.state.get(table.name, {}))
            return sum(map(len, self.database.facts.get(table.name, {}).values()))

    def query(self, sql: str, limit: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        return query_memory(self, self._schema, check_select(sql), limit, self._clock)


def _check_rows(batch: Batch) -> None:
    """What a database's constraints refuse: two rows with one key, NULL where there may be none."""
    for rows in batch.rows:
        if _has_doubles(rows):
            raise StoreError(f"Two rows of table {rows.table.name!r} have the same key", todo="Nothing was kept.")
        for column, values in zip(rows.table.columns, rows.columns, strict=True):
            if not column.nullable and None in values:
                raise StoreError(f"A row of {rows.table.name!r} has NULL in {column.name!r}", todo="Nothing was kept.")


def _has_doubles(rows: Rows) -> bool:
    keys = list(zip(*(rows.columns[i] for i in rows.table.key_indexes), strict=True))
    return len(set(keys)) != len(keys)

"""What is committed, in SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from types import NoneType
from typing import Any

from gapless.model import Coverage, Cursor, Entry, Evidence, StoredEntry, Undo
from gapless.schema import Column_, Kind, Nature, Table, canonical_json
from gapless.store import StateRow, StoredSource
from gapless.store.batches import columns_of, in_order, merged_ranges
from gapless.store.ddl import ENTRIES, quote
from gapless.store.entries import SqlEntries
from gapless.store.session import Session, micros

Key = tuple[str | None, ...]

_KEYS_MAX = 100
"""Keys asked for in one statement."""
_ROWS_AT_ONCE = 1000
_TEXT_OR_NONE = frozenset({str, NoneType})
_POSITIONS_MAX = 250_000
"""Entries whose rows are counted in one statement."""


class SqlReads(SqlEntries):
    """ReadStore, but for `query`, which each database confines in its own way."""

    def cursor(self, source: str) -> Cursor | None:
        with self._reading() as s:
            return self._read_cursor(s, source)

    def _read_cursor(self, s: Session, source: str, lock: str = "") -> Cursor | None:
        rows = s.run(f'SELECT "position", "id" FROM {self._names.cursors} WHERE "source" = ?{lock}', source)
        return Cursor(*rows[0]) if rows and rows[0][0] is not None else None

    def source(self, source: str) -> StoredSource | None:
        with self._reading() as s:
            return self._stored_source(s, source)

    # --- entries ----------------------------------------------------------------------------------------------------

    def entries(self, source: str, first: int, last: int) -> list[StoredEntry]:
        time = self._names.text_of(ENTRIES, "time")
        with self._reading() as s:
            rows = s.run(
                f'SELECT "position", "id", "parent_id", {time}, "evidence", "served_by", "audited", "rows", "digest"'
                f' FROM {self._names.entries} WHERE "source" = ? AND "position" BETWEEN ? AND ? ORDER BY "position"',
                *(source, first, last),
            )
            return [
                StoredEntry(Entry(r[0], r[1], r[2], micros(r[3]), Evidence(r[4]), r[5], bool(r[6])), r[7], r[8])
                for r in rows
            ]

    def served_unaudited(self, source: str, served_by: str) -> list[tuple[int, int]]:
        with self._reading() as s:
            rows = s.run(
                f'SELECT "position" FROM {self._names.entries} WHERE "source" = ? AND "served_by" = ?'
                ' AND "evidence" <> ? AND NOT "audited" ORDER BY "position"',
                *(source, served_by, Evidence.PROVED.value),
            )
        return merged_ranges(r[0] for r in rows)

    def coverage(self, source: str) -> Coverage:
        with self._reading(together=True) as s:
            counts = s.run(
                f'SELECT "evidence", count(*) FROM {self._names.entries} WHERE "source" = ? GROUP BY "evidence"', source
            )
            # Two statements: each is answered from one end of the key's index, together they would read all of it.
            ends = [
                s.run(f'SELECT {f}("position") FROM {self._names.entries} WHERE "source" = ?', source)[0][0]
                for f in ("min", "max")
            ]
            known = {Evidence(name): n for name, n in counts}
        return Coverage(ends[0], ends[1], sum(known.values()), {e.value: known.get(e, 0) for e in Evidence})

    def missing(self, source: str, first: int, last: int) -> list[tuple[int, int]]:
        if first > last:
            return []
        where = f'FROM {self._names.entries} WHERE "source" = ? AND "position" BETWEEN ? AND ?'
        args = (source, first, last)
        with self._reading(together=True) as s:
            [(low, high, count)] = s.run(f'SELECT min("position"), max("position"), count(*) {where}', *args)
            if count == 0:
                return [(first, last)]
            if count == last - first + 1:
                return []
            inner = s.run(
                'SELECT "position" + 1, "following" - 1 FROM (SELECT "position", lead("position") OVER'
                f' (ORDER BY "position") AS "following" {where}) AS "w" WHERE "following" > "position" + 1 ORDER BY 1',
                *args,
            )
        holes = [(first, low - 1), *((a, b) for a, b in inner), (high + 1, last)]
        return [(a, b) for a, b in holes if a <= b]

    def damaged(self, source: str, first: int, last: int) -> list[tuple[int, int, int]]:
        with self._reading() as s:
            where = f'FROM {self._names.entries} WHERE "source" = ? AND "position" BETWEEN ? AND ?'
            [(low, high)] = s.run(f'SELECT min("position"), max("position") {where}', source, first, last)
        if low is None:
            return []
        found: list[tuple[int, int, int]] = []
        # In parts: no single statement reads the whole database.
        for start in range(low, high + 1, _POSITIONS_MAX):
            found += self._damaged_part(source, start, min(start + _POSITIONS_MAX - 1, high))
        return found

    def _damaged_part(self, source: str, first: int, last: int) -> list[tuple[int, int, int]]:
        tables = self._schema.of(source, Nature.FACT)
        counted = " UNION ALL ".join(
            f'SELECT {quote(t.position_column)} AS "at", count(*) AS "n" FROM {self._names.versioned(t)}'
            f" WHERE {quote(t.position_column)} BETWEEN ? AND ? GROUP BY 1"
            for t in tables
        )
        counted = counted or 'SELECT 0 AS "at", 0 AS "n" WHERE 1 = 0'
        with self._reading() as s:
            rows = s.run(
                f'SELECT e."position", e."rows", coalesce(f."n", 0) FROM {self._names.entries} AS e LEFT JOIN'
                f' (SELECT "at", sum("n") AS "n" FROM ({counted}) AS c GROUP BY "at") AS f ON f."at" = e."position"'
                ' WHERE e."source" = ? AND e."position" BETWEEN ? AND ? AND e."rows" <> coalesce(f."n", 0)'
                ' ORDER BY e."position"',
                *((first, last) * len(tables)),
                *(source, first, last),
            )
        return [(position, recorded, int(found)) for position, recorded, found in rows]

    # --- rows -------------------------------------------------------------------------------------------------------

    def facts(self, table: Table, first: int, last: int) -> tuple[list[Column_], list[int]]:
        with self._reading() as s:
            # Named by table: a bare name would be the text selected, and '10' comes before '9'.
            order = ", ".join(f"t.{quote(k)}" for k in table.key)
            rows = s.run(
                f"SELECT {self._names.texts(table)} FROM {self._names.versioned(table)} AS t"
                f" WHERE {quote(table.position_column)} BETWEEN ? AND ? ORDER BY {order}",
                *(first, last),
            )
            rows = in_order(table, self._canonical(table, rows), self.dialect.unordered)
            return _texts(table, *columns_of(table, rows))

    def state(self, table: Table, keys: Sequence[Key]) -> dict[Key, StateRow]:
        found: dict[Key, StateRow] = {}
        with self._reading(together=len(keys) > _KEYS_MAX) as s:
            for i in range(0, len(keys), _KEYS_MAX):
                part = keys[i : i + _KEYS_MAX]
                one = " AND ".join(f"{quote(k)} = ?" for k in table.key)
                where = " OR ".join([f"({one})"] * len(part))
                rows = s.run(f"{self._select_state(table)} WHERE {where}", *(v for key in part for v in key))
                for row in self._state_rows(table, rows):
                    found[tuple(row.values[k] for k in table.key_indexes)] = row
        return found

    def state_rows(self, table: Table) -> Iterator[StateRow]:
        order = ", ".join(self._names.text(table.columns[i]) + self.dialect.bytewise for i in table.key_indexes)
        with self._reading(together=True) as s:
            for rows in s.stream(f"{self._select_state(table)} ORDER BY {order}", _ROWS_AT_ONCE):
                yield from self._state_rows(table, rows)

    def _select_state(self, table: Table) -> str:
        return f'SELECT {self._names.texts(table)}, "_position" FROM {self._names.versioned(table)}'

    def _state_rows(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> Iterator[StateRow]:
        for row in self._canonical(table, rows):
            if not _TEXT_OR_NONE.issuperset(map(type, row[:-1])):
                raise TypeError(f"a row of {table.name} that is not text")
            yield StateRow(row[:-1], int(row[-1] or 0))

    def state_before(self, source: str, ancestor: int) -> list[Undo]:
        with self._reading() as s:
            return self._restored(s, source, ancestor)

    def row_count(self, table: Table) -> int:
        with self._reading() as s:
            return int(s.run(f"SELECT count(*) FROM {self._names.versioned(table)}")[0][0])

    def _canonical(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Rows of canonical text, with JSON put back into its one form where the database re-arranges it."""
        parsed = [i for i, c in enumerate(table.columns) if c.kind is Kind.JSON] if self.dialect.json_is_parsed else []
        if not parsed:
            return list(rows)
        fixed = []
        for row in rows:
            values = list(row)
            for i in parsed:
                if values[i] is not None:
                    values[i] = canonical_json(json.loads(values[i]))
            fixed.append(tuple(values))
        return fixed


def _texts(table: Table, columns: list[Column_], positions: list[int]) -> tuple[list[Column_], list[int]]:
    """The columns, which must be text throughout, and NULL only where the table has it: SQLite believes what a damaged
    row says about its own types. Raises TypeError."""
    for column, values in zip(table.columns, columns, strict=True):
        if not (_TEXT_OR_NONE if column.nullable else {str}).issuperset(map(type, values)):
            raise TypeError(f"a value of {table.name}.{column.name} in {positions[0]}..{positions[-1]} is not text")
    return columns, positions

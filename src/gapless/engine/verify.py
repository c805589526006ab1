"""Derive again and compare with what is stored, entry by entry and table by table.

Facts are compared row by row through their canonical lines. State tables can only be compared as a whole, by folding
everything from the first block on: that happens when the range is everything that is committed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapless.engine.derive import Deriver
from gapless.errors import NotReady
from gapless.model import Cursor, Head, Segment
from gapless.schema import Nature, Rows, Schema, Table
from gapless.sources import AnySource
from gapless.store import Batch, StateRow, Store


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One entry's rows of one table differ. Digests are of the table's rows of that entry; for table
    `gapless_entries` they are the block ids, recorded digests or other columns themselves."""

    position: int
    table: str
    stored: str
    derived: str


@dataclass(frozen=True, slots=True)
class Verification:
    first: int
    last: int
    checked: int
    mismatches: tuple[Mismatch, ...]


class Verifier:
    """Verifies one source's stored tables against the source itself."""

    def __init__(self, source: AnySource, deriver: Deriver, store: Store, schema: Schema) -> None:
        self._source = source
        self._deriver = deriver
        self._store = store
        self._facts = schema.of(source.name, Nature.FACT)

    async def verify(self, first: int, last: int, head: Head) -> Verification:
        """Compare `first..last`, all of it committed."""
        if head.latest.position < last:
            raise NotReady(
                f"The source's head is {head.latest.position}, below {last}",
                source=self._source.name,
                todo="Verify against an endpoint that has the whole range.",
            )
        mismatches: list[Mismatch] = []
        position = first
        while position <= last:
            upto = min(position + self._source.span() - 1, last)
            segment = await self._source.fetch(position, upto, head=head)
            mismatches += self._compare(segment, head)
            position = upto + 1
        return Verification(first, last, last - first + 1, tuple(mismatches))

    def _compare(self, segment: Segment[Any], head: Head) -> list[Mismatch]:
        derivation = self._deriver.derive(segment, finalized=head.finalized)
        if derivation.failure is not None:
            raise derivation.failure
        batch = derivation.batch
        if batch is None:
            return []
        first, last = segment.first.position, segment.last.position
        found = self._compare_entries(batch, first, last)
        derived = {rows.table.name: rows for rows in batch.rows}
        for table in self._facts:
            if table.name in derivation.skipped:
                continue
            found += self._compare_table(table, derived.get(table.name), batch, first, last)
        return sorted(found, key=lambda m: (m.position, m.table))

    def _compare_entries(self, batch: Batch, first: int, last: int) -> list[Mismatch]:
        stored = {s.entry.position: s for s in self._store.entries(batch.source, first, last)}
        found = []
        for entry, digest, count in zip(batch.entries, batch.digests, batch.counts, strict=True):
            row = stored.get(entry.position)
            if row is None or row.entry.id != entry.id:
                found.append(Mismatch(entry.position, "gapless_entries", "" if row is None else row.entry.id, entry.id))
                continue
            said = [(row.entry.parent_id, entry.parent_id), (str(row.entry.time_us), str(entry.time_us))]
            if not self._deriver.has_state:
                said += [(row.digest, digest), (str(row.rows), str(count))]
            found += [Mismatch(entry.position, "gapless_entries", a, b) for a, b in said if a != b][:1]
        return found

    def at_cursor(self, cursor: Cursor) -> list[Mismatch]:
        """A cursor that has not moved names the last entry, and nothing is stored above it. A damaged log leaves
        something behind."""
        name, at, last = self._source.name, cursor.position, 2**63 - 1
        found = [
            Mismatch(at, "gapless_cursors", cursor.id, s.entry.id)
            for s in self._store.entries(name, at, at)
            if s.entry.id != cursor.id
        ]
        found += [
            Mismatch(s.entry.position, "gapless_entries", s.entry.id, "")
            for s in self._store.entries(name, at + 1, last)
        ]
        for table in self._facts:
            columns, positions = self._store.facts(table, at + 1, last)
            lines = Rows(table, tuple(columns), (len(positions),)).lines if positions else []
            found += [Mismatch(p, table.name, _digest(s), "") for p, s in _by_position(lines, positions).items()]
        return found

    def _compare_table(self, table: Table, derived: Rows | None, batch: Batch, first: int, last: int) -> list[Mismatch]:
        columns, positions = self._store.facts(table, first, last)
        lines = Rows(table, tuple(columns), (len(positions),)).lines if positions else []
        stored = _by_position(lines, positions)
        expected: dict[int, list[str]] = {}
        if derived is not None:
            start = 0
            for entry, count in zip(batch.entries, derived.counts, strict=True):
                expected[entry.position] = derived.lines[start : start + count]
                start += count
        return [
            Mismatch(p, table.name, _digest(stored.get(p, [])), _digest(expected.get(p, [])))
            for p in sorted({*stored, *expected})
            if stored.get(p, []) != expected.get(p, [])
        ]


def _by_position(lines: Sequence[str], positions: Sequence[int]) -> Mapping[int, list[str]]:
    grouped: dict[int, list[str]] = {}
    for line, position in zip(lines, positions, strict=True):
        grouped.setdefault(position, []).append(line)
    return grouped


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


async def fold_state(
    source: AnySource, deriver: Deriver, store: Store, schema: Schema, first: int, last: int, head: Head
) -> list[Mismatch]:
    """Fold everything from the first entry in memory and compare every state row with the stored one. The deriver
    must be one made for this, whose state reads find nothing and whose cache keeps everything."""
    position = first
    while position <= last:
        upto = min(position + source.span() - 1, last)
        segment = await source.fetch(position, upto, head=head)
        derivation = deriver.derive(segment, finalized=last)
        if derivation.failure is not None:
            raise derivation.failure
        position = upto + 1
    mismatches = []
    for table in schema.of(source.name, Nature.STATE):
        expected = {row.values for row in deriver.state_rows(table)}
        stored = {row.values for row in store.state_rows(table)}
        if expected != stored:
            mismatches.append(Mismatch(last, table.name, _rows_digest(stored), _rows_digest(expected)))
    return mismatches


def no_rows(_table: Table, _keys: Sequence[tuple[str | None, ...]]) -> dict[tuple[str | None, ...], StateRow]:
    """State as it is before the first entry."""
    return {}


def _rows_digest(rows: set[tuple[str | None, ...]]) -> str:
    return _digest(sorted("\t".join("\\N" if v is None else v for v in row) for row in rows))

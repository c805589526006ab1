"""Rules about batches, ranges and undo that hold in every database. Pure: no I/O, no SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

from gapless.errors import CursorMoved, NothingToUndo, check
from gapless.model import Cursor, Gap, StateChange, Undo
from gapless.schema import Column_, Kind, Schema, Table, from_text
from gapless.store import Batch

Slot = tuple[str, tuple[str | None, ...]]
"""A state row: its table and key."""


def check_batch(batch: Batch, schema: Schema) -> None:
    """Raise InvariantViolation for a batch that contradicts itself: it was built wrong, whatever the database says."""
    entries = batch.entries
    check(entries, "a batch has at least one entry")
    check(len(batch.digests) == len(batch.counts) == len(entries), "a batch has a digest and a count for each entry")
    for before, after in pairwise(entries):
        check(after.position == before.position + 1, f"entries are consecutive (after {before.position})")
        check(_links(before.cursor, after.parent_id), f"entries are linked (at {after.position})")
    totals = [0] * len(entries)
    for rows in batch.rows:
        check(rows.table.source == batch.source, f"table {rows.table.name} belongs to source {batch.source}")
        check(len(rows.counts) == len(entries), f"table {rows.table.name} has a count for each entry")
        expected: list[str] = []
        for i, (entry, count) in enumerate(zip(entries, rows.counts, strict=True)):
            expected += [str(entry.position)] * count
            totals[i] += count
        check(list(rows.columns[0]) == expected, f"rows of {rows.table.name} lie at their entries' positions")
    check(tuple(totals) == batch.counts, "the counts of a batch are those of its rows")
    for change in batch.changes:
        if change.values is not None:
            check_state_row(schema.table(change.table), change.key, change.values)


def check_state_row(table: Table, key: tuple[str | None, ...], values: tuple[str | None, ...]) -> None:
    """State values are whole rows in column order, so the key occurs in them."""
    check(len(values) == len(table.columns), f"a row of {table.name} has {len(table.columns)} values")
    check(tuple(values[i] for i in table.key_indexes) == key, f"the key of a row of {table.name} is in its values")


def check_base(batch: Batch, expected: Cursor | None, start: int | None) -> None:
    """Raise InvariantViolation unless the batch continues exactly where the table of entries ends after its rewind."""
    first = batch.entries[0]
    ancestor = batch.rewind_to
    if ancestor is not None:
        check(expected is not None and ancestor.position < expected.position, "a rewind goes back from the cursor")
    base = ancestor if ancestor is not None else expected
    check(start is not None, f"source {batch.source} is bound before its first commit")
    position = base.position if base is not None else (start or 0) - 1
    check(first.position == position + 1, f"the batch starts at {position + 1}, right after the cursor")
    check(base is None or _links(base, first.parent_id), f"the batch links to the cursor (at {first.position})")


def _links(parent: Cursor, parent_id: str) -> bool:
    """Feeds have no parent ids, and before the first entry there is nothing to link to."""
    return not parent.id or not parent_id or parent.id == parent_id


def check_neighbours(batch: Batch, cursor: Cursor | None, before: str | None, parent_of_next: str | None) -> None:
    """Raise CursorMoved unless replaced entries fit between the stored ones.

    `before`: id of the stored entry before the first; `parent_of_next`: parent id of the stored one after the last."""
    first, last = batch.entries[0], batch.entries[-1]
    if cursor is None or last.position > cursor.position:
        reason = "lie above the cursor"
    elif before is not None and not _links(Cursor(first.position - 1, before), first.parent_id):
        reason = "do not link to the stored entry before them"
    elif parent_of_next is not None and not _links(last.cursor, parent_of_next):
        reason = "are not the parents of the stored entry after them"
    elif last.position == cursor.position and last.id != cursor.id:
        reason = "end in another entry than the cursor's"
    else:
        return
    raise CursorMoved(
        f"Entries {first.position}..{last.position} cannot be replaced: the new ones {reason}",
        source=batch.source,
        position=first.position,
        todo="The chain changed meanwhile; fetch the range again.",
    )


def check_cursor(source: str, stored: Cursor | None, expected: Cursor | None) -> None:
    """The compare of compare-and-set: by position and id, never by number alone."""
    if stored != expected:
        raise CursorMoved(
            f"The cursor is at {_show(stored)}, not at {_show(expected)} where this batch was built",
            source=source,
            todo="Nothing was written. Read the cursor again and continue from there.",
        )


def _show(cursor: Cursor | None) -> str:
    return "nothing" if cursor is None else f"{cursor.position} ({cursor.id or 'before the first entry'})"


def check_undo(source: str, ancestor: int, floor: int | None, *, has_state: bool) -> None:
    """Raise NothingToUndo where the records needed to go back to `ancestor` are gone."""
    if has_state and floor is not None and ancestor < floor:
        raise NothingToUndo(
            f"State can be taken back to position {floor} and no further: what was before became final",
            source=source,
            position=ancestor,
            todo="Rewind to before the first entry instead and index again.",
        )


def undo_floor(floor: int | None, upto: int | None, cursor: int) -> int | None:
    """The lowest position that can be gone back to, once everything at or below `upto` is final."""
    if upto is None:
        return floor
    reached = min(upto, cursor)
    return reached if floor is None else max(floor, reached)


def oldest(records: Iterable[Undo]) -> list[Undo]:
    """Of records in position order, the first of each row: what it was before all of them."""
    found: dict[Slot, Undo] = {}
    for record in records:
        found.setdefault((record.table, record.key), record)
    return list(found.values())


def merged_changes(restored: Iterable[Undo], changes: Iterable[StateChange]) -> dict[str, list[StateChange]]:
    """The final change of each row, by table: first taken back, then changed by the batch; sorted by key."""
    final: dict[Slot, StateChange] = {}
    for u in restored:
        final[u.table, u.key] = StateChange(u.table, u.key, u.previous, u.previous_position or 0)
    for c in changes:
        final[c.table, c.key] = c
    ordered = sorted(final.values(), key=lambda c: (c.table, [k or "" for k in c.key]))
    return {table: list(group) for table, group in groupby(ordered, key=lambda c: c.table)}


def cut(gap: Gap, first: int, last: int) -> list[Gap]:
    """What remains of a gap outside first..last."""
    left = replace(gap, last=first - 1)
    right = replace(gap, first=last + 1)
    return [g for g in (left, right) if gap.first <= g.first <= g.last <= gap.last]


def merged_ranges(positions: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending positions as ranges."""
    ranges: list[tuple[int, int]] = []
    for position in positions:
        if ranges and ranges[-1][1] == position - 1:
            ranges[-1] = (ranges[-1][0], position)
        else:
            ranges.append((position, position))
    return ranges


def row_order(table: Table) -> Callable[[Sequence[str | None]], tuple[Any, ...]]:
    """Sort key for rows of canonical text: by the values of the table's key, numbers as numbers."""
    key = [(i, table.columns[i]) for i in table.key_indexes]
    return lambda row: tuple(from_text(column, row[i]) for i, column in key)


def in_order(
    table: Table, rows: list[tuple[str | None, ...]], unordered: frozenset[Kind]
) -> list[tuple[str | None, ...]]:
    """Rows sorted by key where the database's own order is not that of the values."""
    if any(table.columns[i].kind in unordered for i in table.key_indexes):
        return sorted(rows, key=row_order(table))
    return rows


def columns_of(table: Table, rows: Sequence[Sequence[str | None]]) -> tuple[list[Column_], list[int]]:
    """Rows as columns, and each row's position."""
    columns: list[Column_] = list(zip(*rows, strict=True)) if rows else [() for _ in table.columns]
    return columns, [int(text or 0) for text in columns[0]]

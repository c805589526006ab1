"""Read an archive back: every row of every file, rendered and hashed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gapless.digest import entry_digests, range_digest
from gapless.engine.archive_folder import ENTRIES, ArchiveFolder, Part
from gapless.model import Entry, Evidence
from gapless.schema import Column_, Kind, Rows, Table, timestamp_text

_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a part."""

    first: int
    last: int
    what: str


def check_archive(folder: ArchiveFolder, progress: Callable[[int, int], None]) -> list[Fault]:
    """Every part's files against its digests, and the parts against each other."""
    faults: list[Fault] = []
    parts = folder.contents.parts
    for done, part in enumerate(parts):
        before = parts[done - 1] if done else None
        if before is not None and (part.first != before.last + 1 or part.parent_id not in ("", before.last_id)):
            faults.append(Fault(part.first, part.last, f"does not continue the part that ends at {before.last}"))
        try:
            faults += [Fault(part.first, part.last, what) for what in _check_part(folder, part)]
        except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are ValueErrors
            faults.append(Fault(part.first, part.last, f"cannot be read: {error}"))
        progress(done + 1, len(parts))
    return faults


def _check_part(folder: ArchiveFolder, part: Part) -> Iterator[str]:
    readers = {name: _Reader(folder, table, part) for name, table in folder.tables.items() if name in part.rows}
    digests: list[str] = []
    expected = part.first
    for columns in _Reader(folder, ENTRIES, part).groups():
        entries = [_entry(row) for row in zip(*columns, strict=True)]
        for entry in entries:
            if entry.position != expected:
                yield f"entry {expected} is missing"
                return
            expected += 1
        rows = [reader.upto(entries) for reader in readers.values()]
        found, _ = entry_digests(entries, rows)
        stored = list(columns[6])
        for entry, is_, was in zip(entries, found, stored, strict=True):
            if is_ != was:
                yield f"the rows of entry {entry.position} are not those that were written"
        digests += [digest or "" for digest in stored]
    if expected != part.last + 1:
        yield f"it ends at {expected - 1}"
    elif range_digest(digests) != part.digest:
        yield "its entries are not those that were written"
    for reader in readers.values():
        if reader.left():
            yield f"{reader.table.name} has rows beyond its entries"


class _Reader:
    """One file of a part, a group of rows at a time."""

    def __init__(self, folder: ArchiveFolder, table: Table, part: Part) -> None:
        import pyarrow.parquet as parquet

        self.table = table
        self._file = parquet.ParquetFile(folder.file(table.name, part.first, part.last))
        self._waiting: list[list[str | None]] = [[] for _ in table.columns]
        self._source = self.groups()
        if self._file.metadata.num_rows != part.rows[table.name]:
            raise ValueError(f"{table.name} has {self._file.metadata.num_rows} rows, not {part.rows[table.name]}")

    def groups(self) -> Iterator[list[Column_]]:
        for number in range(self._file.metadata.num_row_groups):
            group = self._file.read_row_group(number)
            yield [_texts(c.kind, group.column(c.name)) for c in self.table.columns]

    def upto(self, entries: Sequence[Entry]) -> Rows:
        """The rows of consecutive entries."""
        last = entries[-1].position
        while not self._waiting[0] or int(self._waiting[0][-1] or 0) <= last:
            columns = next(self._source, None)
            if columns is None:
                break
            for waiting, column in zip(self._waiting, columns, strict=True):
                waiting += column
        positions = [int(text or 0) for text in self._waiting[0]]
        taken = sum(position <= last for position in positions)
        per_entry = {position: len(list(run)) for position, run in groupby(positions[:taken])}
        columns_taken = tuple(column[:taken] for column in self._waiting)
        self._waiting = [column[taken:] for column in self._waiting]
        return Rows(self.table, columns_taken, tuple(per_entry.get(e.position, 0) for e in entries))

    def left(self) -> bool:
        return bool(self._waiting[0]) or next(self._source, None) is not None


def _entry(row: Sequence[str | None]) -> Entry:
    position, id_, parent, _, evidence, _, _, served_by = [text or "" for text in row]
    return Entry(int(position), id_, parent, 0, Evidence(evidence), served_by)


def _texts(kind: Kind, values: Any) -> list[str | None]:
    """Arrow's values as canonical text."""
    if kind is Kind.TIMESTAMP:
        import pyarrow as pa

        return [None if v is None else timestamp_text(v) for v in values.cast(pa.int64()).to_pylist()]
    if kind is Kind.BOOL:
        return [None if v is None else "1" if v else "0" for v in values.to_pylist()]
    return [None if v is None else str(v) for v in values.to_pylist()]

"""An archive's folder: its list of parts, and the files of the part being written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gapless.arrow import arrow_schema, load, record_batch, rows_batch
from gapless.errors import GaplessError, UsageError
from gapless.model import Entry, Identity
from gapless.schema import Column, Kind, Nature, Schema, Table, timestamp_text
from gapless.store import Batch

LIST = "archive.json"
_UNFINISHED = ".unfinished"

ENTRIES = Table(
    "gapless_entries",
    "",
    Nature.FACT,
    (
        Column("position", Kind.INT),
        Column("id", Kind.TEXT),
        Column("parent_id", Kind.TEXT),
        Column("time", Kind.TIMESTAMP),
        Column("evidence", Kind.TEXT),
        Column("rows", Kind.INT),
        Column("digest", Kind.TEXT),
        Column("served_by", Kind.TEXT),
    ),
    ("position",),
)
"""What an archive says of each entry."""


class Part(msgspec.Struct, frozen=True):
    """A range of entries, whole."""

    first: int
    last: int
    parent_id: str
    last_id: str
    digest: str
    """The range's, as of `gapless digest`."""
    rows: dict[str, int]
    """By table. A table without rows has no file."""


class Contents(msgspec.Struct, frozen=True):
    """What `archive.json` holds."""

    schema: int
    app: str
    source: str
    chain: str
    genesis: str
    tables: str
    """Canonical JSON of the tables' definitions."""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose archive it is."""

    schema: Schema
    source: str
    identity: Identity

    def contents(self) -> Contents:
        names = self.identity
        return Contents(1, self.schema.app, self.source, names.chain, names.genesis, self.schema.describe())


class ArchiveFolder:
    """An archive, opened for writing by one process."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path = path
        self.contents = owner.contents()
        self.tables = {table.name: table for table in owner.schema.of(owner.source, Nature.FACT)}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Raises UsageError for a folder of something else, GaplessError where another process writes it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise GaplessError(f"{self.path} cannot be written: {error.strerror}", todo="Choose another.") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise GaplessError(f"Another process writes {self.path}", todo="Wait for it to end.") from error
            self._read()
            self._sweep()
            yield
        finally:
            os.close(lock)

    @property
    def next(self) -> int | None:
        """The position to go on from; None while there is nothing."""
        return self.contents.parts[-1].last + 1 if self.contents.parts else None

    @property
    def last_id(self) -> str | None:
        return self.contents.parts[-1].last_id if self.contents.parts else None

    def begin(self, first: Entry) -> PartWriter:
        return PartWriter(self, first)

    def file(self, table: str, first: int, last: int) -> Path:
        return self.path / table / f"{first:012}-{last:012}.parquet"

    def append(self, part: Part) -> None:
        """The part's files are there: now it is, too."""
        contents = msgspec.structs.replace(self.contents, parts=(*self.contents.parts, part))
        new = self.path / (LIST + _UNFINISHED)
        new.write_bytes(msgspec.json.format(msgspec.json.encode(contents), indent=1) + b"\n")
        sync(new)
        new.replace(self.path / LIST)
        sync(self.path)
        self.contents = contents

    def _read(self) -> None:
        try:
            found = msgspec.json.decode((self.path / LIST).read_bytes(), type=Contents)
        except FileNotFoundError:
            strangers = [p.name for p in self.path.iterdir() if p.name != ".lock" and p.name not in self.tables]
            if strangers and strangers != [ENTRIES.name]:
                raise UsageError(f"{self.path} is not empty, and no archive", todo="Name an empty folder.") from None
            return
        except (msgspec.DecodeError, OSError) as error:
            raise GaplessError(
                f"{self.path / LIST} cannot be read: {error}", todo="Restore it, or begin anew."
            ) from error
        same = msgspec.structs.replace(found, parts=())
        if same != msgspec.structs.replace(self.contents, parts=()):
            raise UsageError(
                f"{self.path} is an archive of other tables, another source or another chain",
                todo="Name another folder, or the configuration it was made with.",
            )
        self.contents = found

    def _sweep(self) -> None:
        """Remove what a process left behind that was ended in the middle of a part."""
        known = {self.file(table, part.first, part.last) for part in self.contents.parts for table in part.rows}
        for table in (*self.tables, ENTRIES.name):
            for path in (self.path / table).glob("*.parquet*"):
                if path not in known:
                    path.unlink()


class PartWriter:
    """A part on its way. `add` and `finish` block; one thread at a time."""

    def __init__(self, folder: ArchiveFolder, first: Entry) -> None:
        self._folder = folder
        self._first = self._last = first
        self._writers: dict[str, tuple[Any, Path]] = {}
        self._counts: dict[str, int] = {}

    def add(self, batch: Batch) -> None:
        for rows in batch.rows:
            if len(rows) and rows.table.name in self._folder.tables:
                self._put(rows.table, rows_batch(rows))
        items = zip(batch.entries, batch.counts, batch.digests, strict=True)
        columns = zip(
            *[
                (
                    str(e.position),
                    e.id,
                    e.parent_id,
                    timestamp_text(e.time_us),
                    e.evidence.value,
                    str(n),
                    d,
                    e.served_by,
                )
                for e, n, d in items
            ],
            strict=True,
        )
        self._put(ENTRIES, record_batch(ENTRIES, list(columns)))
        self._last = batch.entries[-1]

    def _put(self, table: Table, rows: Any) -> None:
        if table.name not in self._writers:
            load()
            import pyarrow.parquet as parquet

            folder = self._folder.path / table.name
            folder.mkdir(exist_ok=True)
            path = folder / f"{self._first.position:012}.parquet{_UNFINISHED}"
            self._writers[table.name] = parquet.ParquetWriter(path, arrow_schema(table), compression="zstd"), path
            self._counts[table.name] = 0
        self._writers[table.name][0].write_batch(rows)
        self._counts[table.name] += rows.num_rows

    def finish(self, digest: str) -> Part:
        """All files whole and in their place, and the part in the list."""
        first, last = self._first, self._last
        for table, (writer, path) in self._writers.items():
            writer.close()
            sync(path)
            path.replace(self._folder.file(table, first.position, last.position))
            sync(path.parent)
        self._writers = {}
        part = Part(first.position, last.position, first.parent_id, last.id, digest, self._counts)
        self._folder.append(part)
        return part

    def give_up(self) -> None:
        """Leave no trace."""
        for writer, path in self._writers.values():
            writer.close()
            path.unlink(missing_ok=True)
        self._writers = {}


def sync(path: Path) -> None:
    """Make a file's content, or a folder's names, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

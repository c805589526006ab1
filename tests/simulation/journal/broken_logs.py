"""File journals with one deliberate fault each: what the tests of durability have to catch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gapless.journal import Message, Record
from gapless.journal.blocks import Hole, Piece
from gapless.journal.books import Books
from gapless.journal.disk import Disk, File
from gapless.journal.file import FileLog
from gapless.journal.limits import Limits
from gapless.journal.segment import Segment


class _Through:
    """Hands everything on, but what a subclass has of its own."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _UnsyncedFile(_Through):
    def sync(self) -> None:
        pass


class _UnsyncedDisk(_Through):
    def create(self, path: Path) -> File:
        return _UnsyncedFile(self.inner.create(path))  # type: ignore[return-value]


class _UnsyncedNames(_Through):
    def sync_folder(self, folder: Path) -> None:
        pass


class NeverSyncs(FileLog):
    """Acknowledges what is in the page cache."""

    def __init__(self, folder: Path, limits: Limits, disk: Disk) -> None:
        super().__init__(folder, limits, _UnsyncedDisk(disk))  # type: ignore[arg-type]


class NeverSyncsNames(FileLog):
    """Syncs files, and not the folder they are in."""

    def __init__(self, folder: Path, limits: Limits, disk: Disk) -> None:
        super().__init__(folder, limits, _UnsyncedNames(disk))  # type: ignore[arg-type]


class AcknowledgesEarly(FileLog):
    """Answers first, and writes with the next append."""

    _waiting: tuple[Message, ...] = ()

    def append(self, messages: Sequence[Message]) -> list[int]:
        before, self._waiting = self._waiting, tuple(messages)
        if before:
            super().append(before)
        return self._recent.place(messages, self._last + 1)[0]

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]:
        self._flush()
        return super().read(after, records_max, bytes_max)

    def acknowledge(self, consumer: str, upto: int) -> None:
        self._flush()
        super().acknowledge(consumer, upto)

    def close(self) -> None:
        self._flush()
        super().close()

    def _flush(self) -> None:
        before, self._waiting = self._waiting, ()
        if before:
            super().append(before)


class TrustsThePageCache(FileLog):
    """Takes what it can read after a crash for what is durable."""

    def _settle_tail(self, newest: Segment) -> int:
        tail, proved, _ = newest.unproved(self._disk)
        return proved + len(tail) - 1


class GoesOnAfterFailure(FileLog):
    """Reports a failed sync, and carries on."""

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with super()._explained():
                yield
        finally:
            self._trouble = None


class CutsWhatIsNotProved(FileLog):
    """Takes the last append for torn, whatever it finds."""

    def _settle_tail(self, newest: Segment) -> int:
        _, proved, _ = newest.unproved(self._disk)
        return proved - 1


class _KeepsIslands(Segment):
    def unproved(self, disk: Disk) -> tuple[list[Piece], int, int]:
        found = [p for p in self._pieces(disk, 0) if not isinstance(p, Hole) and p.id is not None]
        return found, self.first, self.size


class KeepsWhatLiesBehindAHole(FileLog):
    """Keeps every whole record of a torn append, not only those before the first hole."""

    def _settle_tail(self, newest: Segment) -> int:
        return super()._settle_tail(_KeepsIslands(newest.path, newest.first, newest.size))


class TrimsUnread(FileLog):
    """Trims to the end, whoever still needs it."""

    def trim(self, upto: int | None) -> int:
        self._consumers.trimmable = lambda _upto, _floor: self._last  # type: ignore[method-assign]
        return super().trim(upto)


class RemovesFirst(FileLog):
    """Removes segments, and notes the trim after that."""

    def _write_books(self, trimmed: int | None = None) -> None:
        if trimmed is not None:
            self._floor = trimmed
            self._drop_trimmed()
        super()._write_books(trimmed)


class ForgetsIds(FileLog):
    """Does not know after a restart what it holds."""

    def _fill_recent(self) -> None:
        pass


class NeverKnowsIds(FileLog):
    """Appends whatever comes."""

    def append(self, messages: Sequence[Message]) -> list[int]:
        self._recent = type(self._recent)(1)
        return super().append(messages)


class RewritesInPlace(FileLog):
    """Writes the last append again without waiting for the disk before it takes the old one's place."""

    def _rewrite(self, tail: list[Piece]) -> None:
        segment = Segment.named(self.folder, tail[0].position)
        file = self._disk.create(segment.path)
        self._disk.sync_folder(self.folder)
        super()._rewrite(tail)
        file.close()


class BooksInPlace(FileLog):
    """Overwrites its books where they stand."""

    def _write_books(self, trimmed: int | None = None) -> None:
        import msgspec
        from google_crc32c import value

        books = Books(self._floor if trimmed is None else trimmed, self._last, self._consumers.positions())
        text = msgspec.json.encode(books)
        file = self._disk.create(self.folder / "books")
        self._disk.sync_folder(self.folder)
        file.write_at(0, text + b"\n%08x" % value(text))
        file.sync()
        file.close()


BROKEN: tuple[type[FileLog], ...] = (
    NeverSyncs,
    NeverSyncsNames,
    AcknowledgesEarly,
    TrustsThePageCache,
    GoesOnAfterFailure,
    CutsWhatIsNotProved,
    KeepsWhatLiesBehindAHole,
    TrimsUnread,
    RemovesFirst,
    ForgetsIds,
    NeverKnowsIds,
    RewritesInPlace,
    BooksInPlace,
)

"""A journal in a folder: durable before it is acknowledged, exact after any crash, and never silent about damage.

    00000000000000000001.log   segments, named for their first position; LevelDB's log format (`blocks.py`)
    00000000000000021734.log
    00000000000000021734.torn  bytes behind the last whole record, kept where a new segment took their file
    books                      consumers and what is trimmed (`books.py`)
    lock                       held by the one process that has it open

Opening reads the newest segments only, and writes what may not be durable (the last append, if it was not proved)
into a new segment before anything is served: after a failed sync the page cache shows bytes that the disk never got.
Other segments are checked whenever they are read. After any error of the disk the log refuses everything until it is
opened again, so that every failure is recovered in the one way a crash is.

Measured figures and the formats that were considered: docs/decisions/0010-file-journal.md.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gapless.errors import JournalDamaged, JournalDiskFull, JournalUnavailable, check
from gapless.journal import Damage, JournalState, Message, Record
from gapless.journal.blocks import Piece, encode
from gapless.journal.books import Books, read_books, write_books
from gapless.journal.consumers import Consumers
from gapless.journal.disk import Disk, File, SystemDisk, replace_file
from gapless.journal.limits import Gauge, Limits, RecentIds
from gapless.journal.log import check_reach
from gapless.journal.segment import Segment, first_position


class FileLog:
    """Segments in a folder. Used by one thread at a time."""

    blocks = True

    def __init__(self, folder: Path, limits: Limits, disk: Disk | None = None) -> None:
        check(limits.bytes_low >= 2 * limits.segment_bytes, "low water in bytes is at least two segments")
        self.limits = limits
        self.folder = folder
        self.url = f"file://{folder.absolute()}"
        self._disk = disk or SystemDisk()
        self._lock: File | None = None
        self._trouble: Exception | None = None
        self._reset()

    def _reset(self) -> None:
        self._segments: list[Segment] = []
        self._active: File | None = None
        self._floor = 0
        self._last = 0
        self._gauge = Gauge(self.limits)
        self._recent = RecentIds(self.limits.recent_ids)
        self._consumers = Consumers()
        self._notes: list[str] = []

    # --- opening and closing ---

    def open(self) -> None:
        """Raises JournalLocked, JournalUnavailable, JournalError (damaged books)."""
        check(self._lock is None, "a log is opened once")
        self._trouble = None
        self._reset()
        try:
            with self._explained():
                self._disk.make_folder(self.folder)
                self._lock = self._disk.lock(self.folder / "lock")
                self._recover()
        except BaseException:
            self._release()
            raise

    def close(self) -> None:
        """Leave a seal behind the last record. Raises JournalUnavailable when that failed; nothing is lost by it."""
        if self._lock is None:
            return
        try:
            if self._trouble is None:
                with self._explained():
                    self._seal()
                    self._write_books()
        finally:
            self._release()

    def _release(self) -> None:
        for file in (self._active, self._lock):
            if file is not None:
                file.close()
        self._active = self._lock = None

    def _recover(self) -> None:
        for name in self._disk.names(self.folder):
            if name.endswith(".new"):  # was being written when the process ended; nothing counted on it yet
                self._disk.remove(self.folder / name)
        books = read_books(self._disk, self.folder / "books")
        self._consumers = Consumers(books.consumers)
        self._floor = self._last = books.trimmed
        self._segments = self._found_segments()
        if self._segments:
            self._last = max(self._last, self._settle_tail(self._segments[-1]))
        if books.promised > self._last:
            self._notes.append(f"positions {self._last + 1} to {books.promised} are lost: the journal ends before them")
            self._last = books.promised
        self._drop_trimmed()
        self._fill_recent()

    def _found_segments(self) -> list[Segment]:
        found = []
        for name in self._disk.names(self.folder):
            first = first_position(name)
            if first is not None:
                file = self._disk.open(self.folder / name)
                found.append(Segment.named(self.folder, first, file.size()))
                file.close()
        return found

    def _settle_tail(self, newest: Segment) -> int:
        """Make what the newest segment holds durable beyond doubt, and return its last position."""
        tail, proved, end = newest.unproved(self._disk)
        torn = newest.size - end
        if torn:
            self._notes.append(f"{newest.path.name} has {torn} bytes behind its last whole record, at offset {end}")
        if proved == newest.first:  # a segment of that name will take the place of this one
            self._keep_aside(newest, end)
            self._segments.pop()
        if tail:
            self._rewrite(tail)
        return proved + len(tail) - 1

    def _keep_aside(self, segment: Segment, offset: int) -> None:
        """Nothing that stands in a segment is deleted unread: it may be an acknowledged record, damaged."""
        file = self._disk.open(segment.path)
        try:
            torn = file.read_at(offset, segment.size - offset)
        finally:
            file.close()
        if torn.strip(b"\0"):
            replace_file(self._disk, segment.path.with_suffix(".torn"), (torn,))

    def _rewrite(self, tail: list[Piece]) -> None:
        """Records that may be in the page cache only go into a new segment, whole, with a seal."""
        first = tail[0].position
        messages = [Message(p.id or "", p.payload, p.received_us) for p in tail]
        data, _ = encode(messages, first, 0, seal=True)
        segment = Segment.named(self.folder, first, len(data))
        replace_file(self._disk, segment.path, (data,))
        self._segments.append(segment)
        self._notes.append(f"positions {first} to {tail[-1].position} were written again: their sync was not proved")

    def _fill_recent(self) -> None:
        """Read segments from the newest back until enough ids are known."""
        index = bisect_right(self._segments, self._last + 1 - self.limits.recent_ids, key=_first) - 1
        if self._segments:
            for found in self._walk(max(self._segments[max(index, 0)].first - 1, 0)):
                if isinstance(found, Record):
                    self._recent.add(found.id, found.position)

    def _seal(self) -> None:
        if self._active is not None:
            segment = self._segments[-1]
            data, _ = encode((), self._last + 1, segment.size, seal=True)
            self._active.write_at(segment.size, data)
            self._active.sync()
            segment.size += len(data)

    # --- writing ---

    def append(self, messages: Sequence[Message]) -> list[int]:
        self._ready()
        self.limits.check_messages(messages)
        self._gauge.admit(self._last - self._floor, self._bytes_held())
        places, fresh = self._recent.place(messages, self._last + 1)
        if not fresh:
            return places
        with self._explained():
            segment, file = self._writable()
            data, starts = encode(fresh, self._last + 1, segment.size)
            file.write_at(segment.size, data)
            file.sync()
        for position, (message, start) in enumerate(zip(fresh, starts, strict=True), self._last + 1):
            segment.note(position, start)
            self._recent.add(message.id, position)
        segment.size += len(data)
        self._last += len(fresh)
        return places

    def _writable(self) -> tuple[Segment, File]:
        """The segment that appends go to; a new one when the last is large enough, or another process wrote it."""
        if self._active is not None and self._segments[-1].size < self.limits.segment_bytes:
            return self._segments[-1], self._active
        if self._active is not None:
            self._active.close()
            self._active = None
        segment = Segment.named(self.folder, self._last + 1)
        self._active = self._disk.create(segment.path)
        self._disk.sync_folder(self.folder)
        self._segments.append(segment)
        return segment, self._active

    # --- reading ---

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]:
        self._ready()
        check_reach(after, self._floor, self._last)
        out: list[Record] = []
        with self._explained():
            for found in self._walk(after):
                if isinstance(found, Damage):
                    if out:
                        break
                    raise JournalDamaged(
                        f"Positions {found.first} to {found.last} of the journal are lost: segment {found.segment}, "
                        f"offset {found.offset}: {found.why}",
                        first=found.first,
                        last=found.last,
                        todo="Fetch them from the source again, or record the gap, and read on after the last of them.",
                    )
                bytes_max -= len(found.payload)
                if out and bytes_max < 0:
                    break
                out.append(found)
                if len(out) >= records_max:
                    break
        return out

    def verify(self) -> list[Damage]:
        self._ready()
        with self._explained():
            return [found for found in self._walk(self._floor) if isinstance(found, Damage)]

    def _walk(self, after: int) -> Iterator[Record | Damage]:
        """Everything behind a position up to the last: each position is in a record or in a damage."""
        expected = after + 1
        index = max(bisect_right(self._segments, expected, key=_first) - 1, 0)
        for number in range(index, len(self._segments)):
            segment = self._segments[number]
            following = self._segments[number + 1].first if number + 1 < len(self._segments) else self._last + 1
            if segment.first > expected:
                why = "the segment that held them is not there"
                yield Damage(segment.path.name, 0, expected, segment.first - 1, why)
                expected = segment.first
            if expected < following:
                yield from segment.read(self._disk, expected, following)
                expected = following
        if expected <= self._last:
            yield Damage("books", 0, expected, self._last, "the segment that held them is not there")

    # --- consumers ---

    def subscribe(self, consumer: str) -> int:
        self._ready()
        if not self._consumers.known(consumer):
            self._consumers.add(consumer, self._floor)
            with self._explained():
                self._write_books()
        return self._consumers.acknowledged(consumer)

    def unsubscribe(self, consumer: str) -> None:
        self._ready()
        self._consumers.remove(consumer)
        with self._explained():
            self._write_books()

    def acknowledge(self, consumer: str, upto: int) -> None:
        self._ready()
        self._consumers.acknowledge(consumer, upto, self._last)

    def trim(self, upto: int | None) -> int:
        """The books first, the files after: what a crash leaves over is removed at the next opening."""
        self._ready()
        target = self._consumers.trimmable(upto, self._floor)
        if target > self._floor:
            with self._explained():
                self._write_books(target)
                self._floor = target
                self._drop_trimmed()
        return self._floor

    def _drop_trimmed(self) -> None:
        """Remove segments that end at or below the floor, the oldest first."""
        dropped = False
        while self._segments:
            following = self._segments[1].first if len(self._segments) > 1 else self._last + 1
            if following > self._floor + 1:
                break
            if len(self._segments) == 1 and self._active is not None:
                self._active.close()
                self._active = None
            self._disk.remove(self._segments[0].path)
            del self._segments[0]
            dropped = True
        if dropped:
            for name in self._disk.names(self.folder):
                if name.endswith(".torn") and (first_position(name.removesuffix(".torn") + ".log") or 0) <= self._floor:
                    self._disk.remove(self.folder / name)
            self._disk.sync_folder(self.folder)

    def _write_books(self, trimmed: int | None = None) -> None:
        books = Books(self._floor if trimmed is None else trimmed, self._last, self._consumers.positions())
        write_books(self._disk, self.folder / "books", books)

    # --- state ---

    def state(self) -> JournalState:
        self._ready()
        full = self._gauge.full(self._last - self._floor, self._bytes_held())
        consumers = self._consumers.positions()
        return JournalState(self._floor + 1, self._last, self._bytes_held(), full, consumers, tuple(self._notes))

    def _bytes_held(self) -> int:
        return sum([s.size for s in self._segments])

    def _ready(self) -> None:
        if self._trouble is not None:
            raise JournalUnavailable(
                "The journal's disk failed, and it has to be opened again", todo="See the cause."
            ) from self._trouble
        if self._lock is None:
            raise JournalUnavailable("The journal is closed", todo="Open it again.")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """After an error of the disk nobody knows what is durable: refuse everything until the next opening."""
        try:
            yield
        except OSError as error:
            self._trouble = error
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise JournalDiskFull(
                    f"The disk of the journal in {self.folder} is full",
                    todo="Free space. Appends are acknowledged only when they are durable, so none is lost.",
                ) from error
            raise JournalUnavailable(
                f"The disk of the journal in {self.folder} failed: {error}",
                todo="See the system's log for the disk. Opening the journal again recovers what was acknowledged.",
            ) from error


def _first(segment: Segment) -> int:
    return segment.first

"""One file of a journal: the records from the position it is named for up to where the next file begins.

The rule "a segment ends where the next begins" is what recovery rests on: records that were not proved durable are
written again into a new segment, and whatever stands in the old one from there on does not count any more. No byte
of a segment is ever changed or cut.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gapless.journal import Damage, Record
from gapless.journal.blocks import Hole, Piece, pieces, traces
from gapless.journal.disk import Disk

SUFFIX = ".log"
INDEX_BYTES = 2 * 32_768


@dataclass(slots=True, eq=False)
class Segment:
    """A file, and where in it some positions are: one for each 64 KiB, noted by whoever reads or writes past."""

    path: Path
    first: int
    size: int
    _positions: array[int] = field(default_factory=lambda: array("Q"))
    _offsets: array[int] = field(default_factory=lambda: array("Q"))

    @classmethod
    def named(cls, folder: Path, first: int, size: int = 0) -> Segment:
        return cls(folder / f"{first:020d}{SUFFIX}", first, size)

    def note(self, position: int, offset: int) -> None:
        """The record at this position begins at this offset."""
        if not self._offsets or offset >= self._offsets[-1] + INDEX_BYTES:
            self._positions.append(position)
            self._offsets.append(offset)

    def read(self, disk: Disk, expected: int, stop: int) -> Iterator[Record | Damage]:
        """The records from `expected` to before `stop`, and in the place of those that are lost, the damage."""
        trouble: Hole | None = None
        at = bisect_right(self._positions, expected) - 1
        for piece in self._pieces(disk, self._offsets[at] if at >= 0 else 0):
            if isinstance(piece, Hole):
                trouble = trouble or piece
                continue
            if piece.id is None:
                continue
            position = piece.position
            if position >= stop:
                break
            self.note(position, piece.start)
            if position >= expected:
                if position > expected:
                    yield self._damage(trouble, piece.start, expected, position - 1)
                yield Record(position, piece.id, piece.payload, piece.received_us)
                expected = position + 1
            trouble = None
        if expected < stop:
            yield self._damage(trouble, self.size, expected, stop - 1)

    def unproved(self, disk: Disk) -> tuple[list[Piece], int, int]:
        """The records of the last append, as far as they are there without a hole; the position before which
        everything was durable; the offset behind the last record that counts."""
        proved, end = self.first, 0
        tail: list[Piece] = []
        for piece in self._pieces(disk, 0):
            if isinstance(piece, Hole):
                missed = self._missed(disk, piece, proved + len(tail))
                if missed:
                    proved, end, tail = missed, piece.end, []
                continue
            if piece.proved > proved:
                proved, end, tail = piece.proved, piece.start, []
            if piece.id is None:
                end = piece.end
                continue
            self.note(piece.position, piece.start)
            if piece.position == proved + len(tail):
                tail.append(piece)
                end = piece.end
        return tail, proved, end

    def _missed(self, disk: Disk, hole: Hole, following: int) -> int:
        """The position behind the last record in unreadable bytes, if they prove that something durable is missing:
        what is behind damage in its block then counts as lost, not as never appended. Otherwise 0."""
        file = disk.open(self.path)
        try:
            most = following + hole.end - hole.start
            found = [p for p in traces(file, hole.start, hole.end) if following < p.proved <= p.position < most]
        finally:
            file.close()
        return max((p.position + (p.id is not None) for p in found), default=0)

    def _pieces(self, disk: Disk, offset: int) -> Iterator[Piece | Hole]:
        try:
            file = disk.open(self.path)
        except FileNotFoundError:
            return
        try:
            yield from pieces(file, offset, self.size)
        finally:
            file.close()

    def _damage(self, trouble: Hole | None, offset: int, first: int, last: int) -> Damage:
        if trouble is None:
            return Damage(self.path.name, offset, first, last, "the records are not there")
        return Damage(self.path.name, trouble.start, first, last, trouble.why)


def first_position(name: str) -> int | None:
    """The position a segment is named for; None for other files."""
    digits = name.removesuffix(SUFFIX)
    return int(digits) if name.endswith(SUFFIX) and len(digits) == 20 and digits.isdecimal() else None

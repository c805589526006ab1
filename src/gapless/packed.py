"""Rows of fixed-width text: a whole table's part as one matrix of characters.

Every row is its canonical line (see `gapless.schema`), each value padded with spaces to the width of its column, tabs
between and a newline at the end. No value of the kinds that come this way holds a space, so the lines are the matrix
without its spaces; a database reads them from it as they are, and a column of Python values is made only when somebody
asks for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Text = NDArray[np.uint8]
"""Values of one width: a row of ASCII characters for each."""

PAD, TAB, NEWLINE = 0x20, 0x09, 0x0A
_DIGITS_MAX = 18


@dataclass(frozen=True)
class Packed:
    """Lines as a matrix of ASCII characters, shape (rows, width)."""

    matrix: Text
    widths: tuple[int, ...]
    """Characters of each column, without the tab or newline after it."""

    @classmethod
    def of(cls, columns: Sequence[Text]) -> Packed:
        """From one matrix a column, each value padded at its end."""
        widths = tuple(column.shape[1] for column in columns)
        matrix = np.empty((len(columns[0]), sum(widths) + len(widths)), np.uint8)
        at = 0
        for column, width in zip(columns, widths, strict=True):
            matrix[:, at : at + width] = column
            at += width + 1
            matrix[:, at - 1] = TAB
        matrix[:, -1] = NEWLINE
        return cls(matrix, widths)

    def __len__(self) -> int:
        return len(self.matrix)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each column starts in a row."""
        return tuple(accumulate((width + 1 for width in self.widths), initial=0))[:-1]

    @property
    def buffer(self) -> memoryview:
        """The matrix, row by row."""
        return np.ascontiguousarray(self.matrix).data.cast("B")

    @cached_property
    def text(self) -> bytes:
        """The canonical lines, each with its newline."""
        return self.matrix.tobytes().replace(b" ", b"")

    def line_ends(self) -> NDArray[np.int64]:
        """Where in `text` each row's line ends."""
        lengths = np.full(len(self.matrix), self.matrix.shape[1], np.int64)
        for offset, width in zip(self.offsets, self.widths, strict=True):
            if (self.matrix[:, offset + width - 1] == PAD).any():
                lengths -= np.count_nonzero(self.matrix[:, offset : offset + width] == PAD, axis=1)
        return np.cumsum(lengths)

    def rows(self, start: int, end: int) -> Packed:
        return Packed(self.matrix[start:end], self.widths)

    def column(self, number: int) -> Column:
        return Column(self, number)

    def texts(self, number: int) -> list[str]:
        """The values of one column."""
        if not len(self.matrix):
            return []
        start = self.offsets[number]
        part = self.matrix[:, start : start + self.widths[number] + 1]
        separator = "\n" if number == len(self.widths) - 1 else "\t"
        return part.tobytes().replace(b" ", b"").decode("ascii")[:-1].split(separator)

    def unpadded(self, number: int) -> bytes | None:
        """The characters of one column, end to end; None where some value is padded."""
        part = self._part(number)
        return None if (part[:, -1] == PAD).any() else part.tobytes()

    def integers(self, number: int) -> NDArray[np.int64] | None:
        """The values of a column of integers; None where one is negative or has more than 18 digits."""
        part = self._part(number)
        if part.shape[1] > _DIGITS_MAX or (part == ord("-")).any():
            return None
        found = np.zeros(len(part), np.int64)
        for at in range(part.shape[1]):
            digit = part[:, at]
            found = np.where(digit == PAD, found, found * 10 + digit - ord("0"))
        return found

    def _part(self, number: int) -> Text:
        start = self.offsets[number]
        return self.matrix[:, start : start + self.widths[number]]


@dataclass(frozen=True, eq=False)
class Column(Sequence[str]):
    """One column of packed rows, made into text when it is first looked at."""

    packed: Packed = field(repr=False)
    number: int

    @cached_property
    def _texts(self) -> list[str]:
        return self.packed.texts(self.number)

    def __len__(self) -> int:
        return len(self.packed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        return self._texts[place]

    def __eq__(self, other: object) -> bool:
        return list(self._texts) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def padded(texts: Sequence[str]) -> Text:
    """ASCII texts of any widths as a matrix, padded at their ends."""
    if not texts:
        return np.empty((0, 1), np.uint8)
    column: Any = np.array(texts, dtype=np.bytes_)
    matrix: Text = column.view(np.uint8).reshape(len(texts), column.dtype.itemsize)
    return np.where(matrix == 0, np.uint8(PAD), matrix)


def decimals(numbers: NDArray[np.int64]) -> Text:
    """Integers as decimal text."""
    if not len(numbers):
        return np.empty((0, 1), np.uint8)
    lowest, highest = int(numbers.min()), int(numbers.max())
    if highest - lowest <= 4 * len(numbers) + 1024:
        return padded([str(n) for n in range(lowest, highest + 1)])[numbers - lowest]
    return padded([str(n) for n in numbers.tolist()])

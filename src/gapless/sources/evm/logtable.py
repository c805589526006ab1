"""Logs as columns: many logs of one answer as matrices of their characters, without an object for each.

A row of a matrix is one value as it was received, `0x` and lower-case hex digits; quantities are integers. Only what is
perfectly regular gets here (`regular.py`): everything else is decoded log by log, so nothing below has to expect the
unexpected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gapless.sources.evm.types import Log

Text: TypeAlias = NDArray[np.uint8]
"""Values of one width: a row of ASCII characters for each."""
Ints: TypeAlias = NDArray[np.int64]

ADDRESS, HASH = 42, 66
"""Characters of an address and of a hash, `0x` included."""


@dataclass(frozen=True, slots=True)
class LogShape:
    """The logs of a table that have so many topics and so much data."""

    rows: Ints
    """Which of the table's rows they are, ascending."""
    topics: tuple[Text, ...]
    data: Text


@dataclass(frozen=True, slots=True)
class LogTable:
    """Logs in the order of the answer. `len(table)` is how many."""

    number: Ints
    transaction_index: Ints
    log_index: Ints
    address: Text
    block_hash: Text
    transaction_hash: Text
    shapes: tuple[LogShape, ...]

    def __len__(self) -> int:
        return len(self.number)

    def logs(self, counts: Sequence[int]) -> list[list[Log]]:
        """The same as objects, by block; `counts` are the logs of each."""
        topics: list[list[str]] = [[] for _ in range(len(self))]
        data = [""] * len(self)
        for shape in self.shapes:
            rows = shape.rows.tolist()
            for column in map(texts, shape.topics):
                for row, text in zip(rows, column, strict=True):
                    topics[row].append(text)
            for row, text in zip(rows, texts(shape.data), strict=True):
                data[row] = text
        fields = zip(
            texts(self.address),
            topics,
            data,
            map(hex, self.number.tolist()),
            texts(self.block_hash),
            texts(self.transaction_hash),
            map(hex, self.transaction_index.tolist()),
            map(hex, self.log_index.tolist()),
            strict=True,
        )
        logs = [Log(*values) for values in fields]
        return [logs[start:end] for start, end in pairwise(accumulate(counts, initial=0))]

    def in_order(self) -> LogTable | None:
        """The same by block and log index; None where two have one place."""
        keys = self.number * (1 << 31) + self.log_index
        if bool((keys[1:] > keys[:-1]).all()):
            return self
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if not bool((keys[1:] > keys[:-1]).all()):
            return None
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return LogTable(
            self.number[order],
            self.transaction_index[order],
            self.log_index[order],
            self.address[order],
            self.block_hash[order],
            self.transaction_hash[order],
            tuple(_moved(shape, place) for shape in self.shapes),
        )


def joined(tables: Sequence[LogTable]) -> LogTable:
    """The tables' logs, one after the other."""
    if len(tables) == 1:
        return tables[0]
    starts = list(accumulate(map(len, tables), initial=0))
    by_shape: dict[tuple[int, int], list[LogShape]] = {}
    for start, table in zip(starts, tables, strict=False):
        for shape in table.shapes:
            key = (len(shape.topics), shape.data.shape[1])
            by_shape.setdefault(key, []).append(replace(shape, rows=shape.rows + start))
    return LogTable(
        np.concatenate([t.number for t in tables]),
        np.concatenate([t.transaction_index for t in tables]),
        np.concatenate([t.log_index for t in tables]),
        np.concatenate([t.address for t in tables]),
        np.concatenate([t.block_hash for t in tables]),
        np.concatenate([t.transaction_hash for t in tables]),
        tuple(joined_shapes(same) for same in by_shape.values()),
    )


def joined_shapes(shapes: Sequence[LogShape]) -> LogShape:
    """Shapes of equal widths as one, their rows ascending."""
    if len(shapes) == 1:
        return shapes[0]
    rows = np.concatenate([s.rows for s in shapes])
    topics = tuple(np.concatenate(parts) for parts in zip(*[s.topics for s in shapes], strict=True))
    return _sorted(LogShape(rows, topics, np.concatenate([s.data for s in shapes])))


def _moved(shape: LogShape, place: Ints) -> LogShape:
    return _sorted(replace(shape, rows=place[shape.rows]))


def _sorted(shape: LogShape) -> LogShape:
    if bool((shape.rows[1:] > shape.rows[:-1]).all()):
        return shape
    order = np.argsort(shape.rows)
    return LogShape(shape.rows[order], tuple(t[order] for t in shape.topics), shape.data[order])


def texts(column: Text) -> list[str]:
    """The values as Python text."""
    count, width = column.shape
    if not count:
        return []
    spaced = np.full((count, width + 1), ord(","), np.uint8)
    spaced[:, :width] = column
    return spaced.tobytes().decode("ascii")[:-1].split(",")


def byte_strings(column: Text) -> list[bytes]:
    """The values as Python bytes."""
    packed = np.ascontiguousarray(column)
    values: list[bytes] = packed.view(f"S{packed.shape[1]}").ravel().tolist()
    return values


def is_hex(digits: Text) -> bool:
    """Whether all characters are lower-case hex digits."""
    return bool((((digits - 48) <= 9) | ((digits - 97) <= 5)).all())


def is_hex_text(column: Text) -> bool:
    """Whether all values are `0x` and lower-case hex digits."""
    if all_equal(column):
        column = column[:1]
    return bool((column[:, 0] == 48).all() and (column[:, 1] == 120).all()) and is_hex(column[:, 2:])


def all_equal(column: Text) -> bool:
    """Whether all values are the same."""
    return bool((column[-1] == column[0]).all()) and bool((column == column[0]).all())


def distinct(column: Text) -> tuple[list[bytes], Ints]:
    """The values, each once, and which of them each row is."""
    if all_equal(column):
        return [column[0].tobytes()], np.zeros(len(column), np.int64)
    values = byte_strings(column)
    ids = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return list(ids), np.fromiter(map(ids.__getitem__, values), np.int64, len(values))

"""What handlers see of their tables: `tables[Holding].get(...)`, `.put(...)`, `tables[Trade].insert(...)`.

Values are converted to canonical text on the way in and back on the way out, so a value that does not fit its
column fails in the handler that wrote it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from gapless.engine.handlers import FACT_KEY_COLUMNS, TableBinding
from gapless.engine.state import Key, StateCache
from gapless.errors import UsageError
from gapless.model import Entry
from gapless.schema import Rows, from_text, to_text

T = TypeVar("T")

_FactRow = tuple[int, int, tuple[str | None, ...]]
"""Position, log index, and the user's own columns."""


class StateTable(Generic[T]):
    """A keyed table. Rows are instances of the user's class."""

    def __init__(self, binding: TableBinding, cache: StateCache) -> None:
        self._binding = binding
        self._cache = cache
        self._table = binding.table
        self._key_columns = [self._table.columns[i] for i in self._table.key_indexes]

    def _check_entry(self) -> None:
        if not self._cache.in_entry:
            raise UsageError(
                f"Table {self._table.name!r} is state, and a batch handler has many blocks at once: a fork could not "
                "be undone",
                todo="Use a handler without batch=True for it, or a table without a key.",
            )

    def _key(self, values: Sequence[Any]) -> Key:
        if len(values) != len(self._key_columns):
            names = ", ".join(c.name for c in self._key_columns)
            raise UsageError(f"Table {self._table.name!r} is keyed by ({names}); {len(values)} values were given")
        return tuple(to_text(c, v) for c, v in zip(self._key_columns, values, strict=True))

    def get(self, *key: Any) -> T | None:
        """The row with this key, as changed so far; None when there is none."""
        self._check_entry()
        row = self._cache.get(self._table, self._key(key))
        if row is None:
            return None
        values = (from_text(c, v) for c, v in zip(self._table.columns, row.values, strict=True))
        return cast("T", self._binding.row_type(**dict(zip(self._binding.fields, values, strict=True))))

    def put(self, row: T) -> None:
        """Insert or replace the row with this row's key."""
        self._check_entry()
        columns = self._table.columns
        values = tuple(to_text(c, getattr(row, f)) for c, f in zip(columns, self._binding.fields, strict=True))
        key = tuple(values[i] for i in self._table.key_indexes)
        self._cache.put(self._table, key, values)

    def delete(self, *key: Any) -> None:
        """Remove the row with this key; no effect when there is none."""
        self._check_entry()
        text = self._key(key)
        if self._cache.get(self._table, text) is not None:
            self._cache.put(self._table, text, None)


class FactTable(Generic[T]):
    """An append-only table: its rows belong to the event being handled and vanish with its block on a fork."""

    def __init__(self, binding: TableBinding) -> None:
        self._binding = binding
        self._table = binding.table
        self._own_columns = self._table.columns[FACT_KEY_COLUMNS:]
        self._rows: list[_FactRow] = []
        self._where: tuple[int, int] | None = None

    def insert(self, row: T) -> None:
        """Add a row. Its key is where it came from: block, log index, and its number within this event."""
        if self._where is None:
            raise UsageError(
                f"Table {self._table.name!r}: insert() belongs to per-event handlers",
                todo="Use insert_many(block_number=…, log_index=…, …) in a batch handler.",
            )
        values = tuple(
            to_text(c, getattr(row, f)) for c, f in zip(self._own_columns, self._binding.fields, strict=True)
        )
        self._rows.append((*self._where, values))

    def insert_many(self, *, block_number: Sequence[int], log_index: Sequence[int], **columns: Sequence[Any]) -> None:
        """Add many rows from a batch handler: which block and log each came from, and one sequence a column."""
        names = [c.name for c in self._own_columns]
        if set(columns) != set(names):
            raise UsageError(f"Table {self._table.name!r} has the columns {names}; got {sorted(columns)}")
        texts = [[to_text(c, v) for v in columns[c.name]] for c in self._own_columns]
        rows = zip(map(int, block_number), map(int, log_index), zip(*texts, strict=True), strict=True)
        self._rows.extend(rows)

    # --- driven by the deriver --------------------------------------------------------------------------------------

    def begin_batch(self) -> None:
        self._rows = []
        self._where = None

    def begin_event(self, position: int, index: int) -> None:
        self._where = (position, index)

    def end_events(self) -> None:
        self._where = None

    def mark(self) -> int:
        return len(self._rows)

    def cut(self, mark: int) -> None:
        """Take back the rows added since the mark."""
        del self._rows[mark:]

    def take(self, entries: Sequence[Entry]) -> Rows:
        """The rows in key order; rows of one event are numbered in the order they were added."""
        counts = Counter(position for position, _, _ in self._rows)
        known = {e.position for e in entries}
        strangers = set(counts) - known
        if strangers:
            raise UsageError(
                f"Table {self._table.name!r}: a row names block {min(strangers)}, which is not in the batch"
            )
        columns: list[list[str | None]] = [[] for _ in self._table.columns]
        number: Counter[tuple[int, int]] = Counter()
        for position, index, values in sorted(self._rows, key=lambda r: (r[0], r[1])):
            row = (str(position), str(index), str(number[position, index]), *values)
            number[position, index] += 1
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        return Rows(self._table, tuple(columns), tuple(counts[e.position] for e in entries))


class Tables:
    """The user's tables of one source, by class or by name. It has no public names of its own: each would be one that a
    user's table could not have."""

    def __init__(self, built: Sequence[tuple[TableBinding, Any]]) -> None:
        self._by_type: Mapping[type[Any], Any] = {b.row_type: t for b, t in built}
        self._by_name: Mapping[str, Any] = {b.table.name: t for b, t in built}

    def __getitem__(self, row_type: type[T]) -> Any:
        try:
            return self._by_type[row_type]
        except KeyError:
            raise UsageError(
                f"{row_type.__name__} is not a table of this source", todo="Declare it with @app.table."
            ) from None

    def __getattr__(self, name: str) -> Any:
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise AttributeError(f"no table {name!r}; this source has: {known}") from None


def build_tables(bindings: Sequence[TableBinding], cache: StateCache) -> tuple[Tables, list[FactTable[Any]]]:
    """What handlers see, and the fact tables in it for the deriver."""
    built: list[tuple[TableBinding, Any]] = [
        (b, StateTable[Any](b, cache) if b.is_state else FactTable[Any](b)) for b in bindings
    ]
    return Tables(built), [t for b, t in built if not b.is_state]

"""State rows in memory: what handlers read and write between the database and the next commit.

Reads go through: a row that is not here is read from the database, which holds everything committed. Rows changed
by batches that are not committed yet stay here until they are. Every first change of a row within an entry that is
not final leaves an undo record.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gapless.errors import GaplessError
from gapless.model import StateChange, Undo
from gapless.schema import Table
from gapless.store import StateRow

Key = tuple[str | None, ...]
Slot = tuple[str, Key]
Reader = Callable[[Table, Sequence[Key]], dict[Key, StateRow]]


@dataclass(frozen=True, slots=True)
class _Change:
    row: StateRow | None
    position: int


@dataclass(frozen=True, slots=True)
class _Before:
    """How things stood before one `put`."""

    slot: Slot
    row: StateRow | None
    first_touch: bool
    changed_at: int | None
    dirty: int | None


class StateCache:
    """One source's state tables. Used by one thread at a time: the deriving one."""

    def __init__(self, read: Reader, rows_max: int) -> None:
        self._read = read
        self._rows_max = rows_max
        self._rows: OrderedDict[Slot, StateRow | None] = OrderedDict()
        self._dirty: dict[Slot, int] = {}
        self._batch = 0
        self._position = 0
        self.in_entry = False
        """Whether it is known which entry a change belongs to."""
        self._keep_undo = False
        self._touched: set[Slot] = set()
        self._changed: dict[Slot, _Change] = {}
        self._undo: list[Undo] = []
        self._journals: list[list[_Before]] = []
        self._committed = 0
        self._trouble: GaplessError | None = None

    def reset(self, as_of_ancestor: Iterable[Undo] = ()) -> None:
        """Forget everything uncommitted. `as_of_ancestor`: rows as they were at the fork's common ancestor, which
        the database only shows once the rewinding batch is committed."""
        self._rows.clear()
        self._dirty.clear()
        self._clear_batch()
        self._batch += 1
        for record in as_of_ancestor:
            slot = (record.table, record.key)
            self._rows[slot] = (
                None if record.previous is None else StateRow(record.previous, record.previous_position or 0)
            )
            self._dirty[slot] = self._batch

    # --- within a batch ---------------------------------------------------------------------------------------------

    def begin_batch(self) -> None:
        self.in_entry = False
        self._clear_batch()
        self._evict()
        self._batch += 1

    def begin_entry(self, position: int, *, final: bool) -> None:
        self._position = position
        self.in_entry = True
        self._keep_undo = not final
        self._touched = set()

    def get(self, table: Table, key: Key) -> StateRow | None:
        slot = (table.name, key)
        if slot in self._rows:
            self._rows.move_to_end(slot)
            return self._rows[slot]
        try:
            row = self._read(table, [key]).get(key)
        except GaplessError as error:
            self._trouble = error
            raise
        self._rows[slot] = row
        return row

    def put(self, table: Table, key: Key, values: tuple[str | None, ...] | None) -> None:
        """Set a row, or delete it with None."""
        slot = (table.name, key)
        previous = self.get(table, key)
        first_touch = slot not in self._touched
        if self._journals:
            changed = self._changed.get(slot)
            changed_at = None if changed is None else changed.position
            self._journals[-1].append(_Before(slot, previous, first_touch, changed_at, self._dirty.get(slot)))
        if first_touch:
            self._touched.add(slot)
            if self._keep_undo:
                self._undo.append(
                    Undo(
                        self._position,
                        table.name,
                        key,
                        None if previous is None else previous.values,
                        None if previous is None else previous.position,
                    )
                )
        row = None if values is None else StateRow(values, self._position)
        self._rows[slot] = row
        self._changed[slot] = _Change(row, self._position)
        self._dirty[slot] = self._batch

    def take_trouble(self) -> GaplessError | None:
        """Why a row could not be read since the last call, or None. Handlers may swallow what a read raises, and what
        they did then must not count."""
        trouble, self._trouble = self._trouble, None
        return trouble

    def savepoint(self) -> None:
        """Start recording, so that what follows can be taken back alone. Savepoints nest."""
        self._journals.append([])

    def release(self) -> None:
        """Keep what was changed since the innermost savepoint."""
        journal = self._journals.pop()
        if self._journals:
            self._journals[-1].extend(journal)

    def rollback(self) -> None:
        """Take back every change since the innermost savepoint, newest first."""
        journal = self._journals.pop()
        for before in reversed(journal):
            slot = before.slot
            self._rows[slot] = before.row
            if before.first_touch:
                self._touched.discard(slot)
                if self._keep_undo:
                    self._undo.pop()
            if before.changed_at is None:
                del self._changed[slot]
            else:
                self._changed[slot] = _Change(before.row, before.changed_at)
            if before.dirty is None:
                del self._dirty[slot]
            else:
                self._dirty[slot] = before.dirty

    def take_batch(self) -> tuple[int, tuple[StateChange, ...], tuple[Undo, ...]]:
        """The batch's number, the final value of every changed row, and the undo records."""
        changes = tuple(
            StateChange(table, key, None if change.row is None else change.row.values, change.position)
            for (table, key), change in self._changed.items()
        )
        undo = tuple(self._undo)
        self._clear_batch()
        return self._batch, changes, undo

    # --- between batches --------------------------------------------------------------------------------------------

    def committed(self, batch: int) -> None:
        """Rows of batches up to this one are in the database now. May be called from another thread."""
        self._committed = batch

    def rows(self, table: Table) -> list[StateRow]:
        """Every row of a table that is in memory."""
        return [row for (name, _), row in self._rows.items() if name == table.name and row is not None]

    def _evict(self) -> None:
        """Drop the longest unread rows that the database can give back."""
        committed = self._committed
        self._dirty = {slot: batch for slot, batch in self._dirty.items() if batch > committed}
        excess = len(self._rows) - self._rows_max
        if excess > 0:
            for slot in [s for s in self._rows if s not in self._dirty][:excess]:
                del self._rows[slot]

    def _clear_batch(self) -> None:
        self._changed = {}
        self._undo = []
        self._touched = set()
        self._journals = []

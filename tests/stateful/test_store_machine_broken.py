"""The machine is worth something only if it notices: stores broken on purpose, each in one way, that it must catch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from gapless.errors import GaplessError
from gapless.model import Cursor, Fence, Gap, Undo
from gapless.schema import Nature, Table
from gapless.store import Batch
from gapless.store.batches import check_batch, check_cursor
from gapless.store.memory import MemoryStore
from gapless.store.postgres import PostgresStore
from gapless.store.session import Session
from gapless.store.sqlite import SqliteStore
from gapless.store.sqlite_connection import SqliteSession
from servers.postgres import PostgresServer
from stateful.databases import Database, InMemory, InPostgres, InSqlite
from stateful.drawn import SCHEMA
from stateful.profiles import hunting
from stateful.store_machine import machine_on


def caught(database: Database, examples: int = 200, steps: int = 40) -> BaseException | None:
    """What the machine says about the store; None where it finds nothing."""
    with closing(database):
        try:
            run_state_machine_as_test(machine_on(database), settings=hunting(examples, steps))
        except (AssertionError, GaplessError, pytest.fail.Exception) as fault:  # others are faults of the test
            return fault
    return None


# --- in memory -----------------------------------------------------------------------------------------------------


class ComparesNumbersOnly(MemoryStore):
    """The cursor is compared by number."""

    def _check_cursor(self, source: str, stored: Cursor | None, expected: Cursor | None) -> None:
        if (stored and stored.position) != (expected and expected.position):
            check_cursor(source, stored, expected)


class TakesBackTheNewest(MemoryStore):
    """Of several undo records of a row, the newest counts."""

    def _restored(self, data: Any, ancestor: int) -> list[Undo]:
        newest = {(u.table, u.key): u for u in data.undo if u.position > ancestor}
        return list(newest.values())


class ForgetsWhatItTrimmed(MemoryStore):
    """Undo records are trimmed, and that they were is not noted: going back further seems to work."""

    def _raise_floor(self, data: Any, upto: int | None) -> None:
        super()._raise_floor(data, upto)
        data.undo_floor = None


class KeepsTheOldBranchInQuarantine(MemoryStore):
    """Items of entries that were undone stay."""

    def _remove(self, source: str, data: Any, first: int, last: int) -> None:
        kept = self.database.quarantine
        super()._remove(source, data, first, last)
        self.database.quarantine = kept


class ReplacesWithAnything(MemoryStore):
    """What is replaced need not fit between its neighbours."""

    def replace(self, batch: Batch, fence: Fence) -> None:
        check_batch(batch, self._schema)
        data = self._source(batch.source)
        self._check_fence(fence)
        self._remove(batch.source, data, batch.entries[0].position, batch.entries[-1].position)
        self._write(data, batch)


class RemembersItsCursor(MemoryStore):
    """Each handle believes in the cursor it wrote itself."""

    _mine: Cursor | None = None

    def commit(self, batch: Batch, expected: Cursor | None, fence: Fence) -> None:
        super().commit(batch, expected, fence)
        self._mine = batch.entries[-1].cursor

    def cursor(self, source: str) -> Cursor | None:
        return self._mine or super().cursor(source)


class CountsTokensAnew(MemoryStore):
    """A released lease starts again at token 1."""

    def release(self, fence: Fence) -> None:
        if self._update_lease(fence, "", self._clock.now_us()):
            del self.database.leases[fence.name]


class SeesDamageOnlyWhereAllIsGone(MemoryStore):
    """An entry of which one row is left counts as whole."""

    def damaged(self, source: str, first: int, last: int) -> list[tuple[int, int, int]]:
        return [d for d in super().damaged(source, first, last) if d[2] == 0]


class ForgetsSinceWhen(MemoryStore):
    """A gap that is tried again seems to be new."""

    def record_gap(self, gap: Gap) -> None:
        self.database.gaps[gap.source, gap.first, gap.last] = gap


class TouchesTheNeighbour(MemoryStore):
    """A rewind takes the entries of every source."""

    def rewind(self, source: str, ancestor: Cursor, expected: Cursor, fence: Fence) -> int:
        undone = super().rewind(source, ancestor, expected, fence)
        other = self._source("t")
        for position in [p for p in other.entries if p > ancestor.position and undone]:
            del other.entries[position]
        return undone


# --- SQLite --------------------------------------------------------------------------------------------------------


class WithoutFence(SqliteStore):
    """A commit does not look at the lease."""

    def _check_fence(self, session: Session, fence: Fence) -> None:
        return


class MovesTheCursorFirst(SqliteStore):
    """The cursor moves in a transaction before that of the rows: a crash between the two loses them for ever."""

    def commit(self, batch: Batch, expected: Cursor | None, fence: Fence) -> None:
        last = batch.entries[-1]
        cursor = self.cursor(batch.source)
        check_cursor(batch.source, cursor, expected)
        if batch.rewind_to is None and self._has(fence):
            sql = f'UPDATE {self._names.cursors} SET "position" = ?, "id" = ? WHERE "source" = ?'
            self._transact(lambda s: s.run(sql, last.position, last.id, batch.source))
        super().commit(batch, expected, fence)

    def _has(self, fence: Fence) -> bool:
        return any((e.name, e.holder, e.token) == (fence.name, fence.holder, fence.token) for e in self.leases())

    def _check_cursor(self, source: str, stored: Cursor | None, expected: Cursor | None) -> None:
        return


class WritesStatementByStatement(SqliteStore):
    """Without a transaction, what came before a failure stays."""

    def _transact(self, work: Callable[[Session], Any], _committed: Any = None, /) -> Any:
        with self._explained():
            return work(SqliteSession(self._open_writer()))


class TakesNothingBack(SqliteStore):
    """Facts of the old branch go, state stays as it left it."""

    def _restored(self, s: Session, source: str, ancestor: int) -> list[Undo]:
        return []


class KeepsFactsOfTheOldBranch(SqliteStore):
    """The cursor goes back, and the rows above it stay."""

    def _undo_above(self, s: Session, source: str, row: Any, ancestor: Cursor) -> tuple[int, list[Undo]]:
        schema = self._schema
        hidden = replace(schema, tables=tuple(t for t in schema.tables if t.nature is Nature.STATE))
        names: Any = self._names
        self._opened = _NamesOf(names, hidden)  # type: ignore[assignment]
        try:
            return super()._undo_above(s, source, row, ancestor)
        finally:
            self._opened = names


class _NamesOf:
    """The names of a database, and another idea of its tables."""

    def __init__(self, names: Any, schema: Any) -> None:
        self._names = names
        self.schema = schema

    def __getattr__(self, name: str) -> Any:
        return getattr(self._names, name)


class LosesNull(SqliteStore):
    """NULL comes back as an empty text."""

    def facts(self, table: Table, first: int, last: int) -> Any:
        columns, positions = super().facts(table, first, last)
        return [["" if v is None else v for v in c] for c in columns], positions


# --- Postgres ------------------------------------------------------------------------------------------------------


class BelievesInNoAnswer(PostgresStore):
    """A COMMIT without an answer is taken for one that did not take place."""

    def _settle(self, committed: Any, lost: Any) -> bool:
        return False


class BelievesInEveryCommit(PostgresStore):
    """A COMMIT without an answer is taken for one that took place."""

    def _settle(self, committed: Any, lost: Any) -> bool:
        return True


IN_MEMORY: Sequence[type[MemoryStore]] = (
    ComparesNumbersOnly,
    TakesBackTheNewest,
    ForgetsWhatItTrimmed,
    KeepsTheOldBranchInQuarantine,
    ReplacesWithAnything,
    RemembersItsCursor,
    CountsTokensAnew,
    SeesDamageOnlyWhereAllIsGone,
    ForgetsSinceWhen,
    TouchesTheNeighbour,
)
IN_SQLITE: Sequence[type[SqliteStore]] = (
    WithoutFence,
    MovesTheCursorFirst,
    WritesStatementByStatement,
    TakesNothingBack,
    KeepsFactsOfTheOldBranch,
    LosesNull,
)
IN_POSTGRES: Sequence[type[PostgresStore]] = (BelievesInNoAnswer, BelievesInEveryCommit)


def test_sound_stores_are_not_caught() -> None:
    """Hunted in the same way, the stores as they are give nothing to catch."""
    assert caught(InMemory(SCHEMA), examples=60) is None
    assert caught(InSqlite(SCHEMA), examples=20) is None


@pytest.mark.parametrize("broken", IN_MEMORY, ids=lambda c: c.__name__)
def test_a_broken_store_in_memory_is_caught(broken: type[MemoryStore]) -> None:
    """Within some hundred histories the fault shows."""
    database = type("Broken", (InMemory,), {"make": broken})(SCHEMA)
    assert caught(database)


@pytest.mark.parametrize("broken", IN_SQLITE, ids=lambda c: c.__name__)
def test_a_broken_sqlite_store_is_caught(broken: type[SqliteStore]) -> None:
    """Crashes and all."""
    database = type("Broken", (InSqlite,), {"make": broken})(SCHEMA)
    assert caught(database)


@pytest.mark.postgres
@pytest.mark.parametrize("broken", IN_POSTGRES, ids=lambda c: c.__name__)
def test_a_broken_postgres_store_is_caught(broken: type[PostgresStore], postgres_server: PostgresServer) -> None:
    """What the others cannot have: answers that are lost."""
    database = type("Broken", (InPostgres,), {"make": broken})(SCHEMA, postgres_server)
    assert caught(database, examples=40)

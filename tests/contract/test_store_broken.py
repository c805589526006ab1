"""The contract is worth something only if a broken store fails it: each of these breaks one promise on purpose."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gapless.errors import CursorMoved
from gapless.model import Cursor, Fence, StateChange, Undo
from gapless.schema import Table
from gapless.store import Batch, Store
from gapless.store.batches import check_cursor
from gapless.store.memory import MemoryDatabase, MemoryStore
from gapless.store.session import Session
from gapless.store.sqlite import SqliteStore
from gapless.store.sqlite_connection import SqliteSession
from gapless.testing.fake_clock import FakeClock
from gapless.testing.store_contract import StoreContract


def breaks(rule: str, make: Callable[[Path, FakeClock], Store]) -> bool:
    """Whether a store fails this test of the contract."""
    clock = FakeClock()
    with tempfile.TemporaryDirectory() as folder:

        class Contract(StoreContract):
            def make_store(self) -> Store:
                return make(Path(folder), clock)

            def let_pass(self, seconds: float) -> None:
                clock.advance(seconds)

        try:
            getattr(Contract(), rule)()
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - any failure at all
            return True
    return False


class WithoutFence(SqliteStore):
    """Does not look at the lease."""

    def _check_fence(self, session: Session, fence: Fence) -> None:
        pass


class NumbersOnly(SqliteStore):
    """Compares the cursor by number."""

    def _check_cursor(self, source: str, stored: Cursor | None, expected: Cursor | None) -> None:
        if (stored and stored.position) != (expected and expected.position):
            check_cursor(source, stored, expected)


class NumbersOnlyInMemory(MemoryStore):
    """The same mistake in the other implementation."""

    def _check_cursor(self, source: str, stored: Cursor | None, expected: Cursor | None) -> None:
        if (stored and stored.position) != (expected and expected.position):
            check_cursor(source, stored, expected)


class WithoutTransaction(SqliteStore):
    """Writes statement by statement: what came before a failure stays."""

    def _transact(self, work: Callable[[Session], Any], _committed: Any = None, /) -> Any:
        with self._explained():
            return work(SqliteSession(self._open_writer()))


class CursorFirst(SqliteStore):
    """Moves the cursor in a transaction before that of the rows."""

    def commit(self, batch: Batch, expected: Cursor | None, fence: Fence) -> None:
        last = batch.entries[-1] if batch.entries else None
        if last is not None and batch.rewind_to is None and self.cursor(batch.source) == expected:
            self._transact(
                lambda s: s.run(
                    f'UPDATE {self._names.cursors} SET "position" = ?, "id" = ? WHERE "source" = ?',
                    *(last.position, last.id, batch.source),
                )
            )
        super().commit(batch, expected, fence)

    def _check_cursor(self, source: str, stored: Cursor | None, expected: Cursor | None) -> None:
        pass


class WithoutUndo(SqliteStore):
    """Removes facts on a fork and leaves state as it is."""

    def _restored(self, s: Session, source: str, ancestor: int) -> list[Undo]:
        return []


class WrongUndo(SqliteStore):
    """Puts back the newest record of a row instead of the oldest."""

    def _restored(self, s: Session, source: str, ancestor: int) -> list[Undo]:
        rows = super()._restored(s, source, ancestor)
        latest = s.run(
            f'SELECT "table_name", "key", max("position") FROM {self._names.undo} WHERE "source" = ? GROUP BY 1, 2',
            source,
        )
        newest = {(table, key): position for table, key, position in latest}
        return [u for u in rows if newest[u.table, _json(u.key)] == u.position]


class KeepsOrphans(SqliteStore):
    """Moves the cursor back on a fork and leaves the facts of the old branch."""

    def _undo_above(self, s: Session, source: str, row: Any, ancestor: Cursor) -> tuple[int, list[Undo]]:
        gone = s.run(
            f'DELETE FROM {self._names.entries} WHERE "source" = ? AND "position" > ? RETURNING 1',
            *(source, ancestor.position),
        )
        return len(gone), self._restored(s, source, ancestor.position)


class AppliesTwice(MemoryStore):
    """A batch that was committed is committed again."""

    def _check_cursor(self, source: str, stored: Cursor | None, expected: Cursor | None) -> None:
        if stored is None or expected is not None:
            check_cursor(source, stored, expected)


class LosesTypes(MemoryStore):
    """Gives numbers back with a leading zero: the same values, another text."""

    def facts(self, table: Table, first: int, last: int) -> Any:
        columns, positions = super().facts(table, first, last)
        return [[None if v is None else f"0{v}" for v in columns[0]], *columns[1:]], positions


class ForgetsTokens(MemoryStore):
    """Starts the token again after a release."""

    def release(self, fence: Fence) -> None:
        super().release(fence)
        if self.database.leases.get(fence.name, ("", 0, 0))[0] == "":
            self.database.leases[fence.name] = ("", 0, 0)


class NeverExpires(MemoryStore):
    """Grants a lease only once it was released."""

    def acquire(self, name: str, holder: str, ttl_seconds: float) -> Fence | None:
        return super().acquire(name, holder, ttl_seconds + 1e6)


class IgnoresDeletes(SqliteStore):
    """State rows that a batch deletes stay."""

    def _transact(self, work: Callable[[Session], Any], _committed: Any = None, /) -> Any:
        class Session_(SqliteSession):
            def upsert(self, relation: str, table: Table, changes: Sequence[StateChange]) -> None:
                super().upsert(relation, table, [c for c in changes if c.values is not None])

        def with_other(session: Any) -> Any:
            return work(Session_(session._connection))

        return super()._transact(with_other)


def _json(key: tuple[str | None, ...]) -> str:
    from gapless.store.entries import _json as json

    return json(key)


SQLITE: tuple[tuple[type[SqliteStore], str], ...] = (
    (WithoutFence, "test_a_thawed_leader_writes_nothing"),
    (NumbersOnly, "test_the_cursor_is_compared_by_position_and_id"),
    (WithoutTransaction, "test_a_batch_that_fails_in_the_middle_leaves_nothing"),
    (CursorFirst, "test_a_batch_that_fails_in_the_middle_leaves_nothing"),
    (WithoutUndo, "test_a_fork_replaces_what_lies_above_the_ancestor"),
    (WrongUndo, "test_a_rewind_goes_back_exactly"),
    (KeepsOrphans, "test_a_rewind_goes_back_exactly"),
    (IgnoresDeletes, "test_random_histories_equal_a_naive_model"),
)
MEMORY: tuple[tuple[type[MemoryStore], str], ...] = (
    (NumbersOnlyInMemory, "test_the_cursor_is_compared_by_position_and_id"),
    (AppliesTwice, "test_a_batch_is_committed_once"),
    (LosesTypes, "test_hard_values_come_back_exactly"),
    (ForgetsTokens, "test_a_released_lease_is_free_at_once"),
    (NeverExpires, "test_an_expired_lease_is_granted_with_a_greater_token"),
)


@pytest.mark.parametrize(("store", "rule"), SQLITE, ids=lambda v: getattr(v, "__name__", ""))
def test_a_broken_sqlite_store_fails(store: type[SqliteStore], rule: str) -> None:
    """The rule that is broken is noticed."""
    assert breaks(rule, lambda folder, clock: store(folder / "broken.db", clock))


@pytest.mark.parametrize(("store", "rule"), MEMORY, ids=lambda v: getattr(v, "__name__", ""))
def test_a_broken_memory_store_fails(store: type[MemoryStore], rule: str) -> None:
    """The rule that is broken is noticed."""
    database = MemoryDatabase()
    assert breaks(rule, lambda _, clock: store(database, clock))


@pytest.mark.parametrize("rule", sorted({rule for _, rule in (*SQLITE, *MEMORY)}))
def test_a_sound_store_fails_nothing(rule: str) -> None:
    """Run in the same way, the stores as they are keep these rules."""
    database = MemoryDatabase()
    assert not breaks(rule, lambda _, clock: MemoryStore(database, clock))
    assert not breaks(rule, lambda folder, clock: SqliteStore(folder / "sound.db", clock))


def test_the_broken_stores_are_broken_in_one_way() -> None:
    """A broken comparison still refuses another number: what fails is the rule, not the store."""
    store = NumbersOnly("unused.db")
    with pytest.raises(CursorMoved):
        store._check_cursor("s", Cursor(1, "a"), Cursor(2, "a"))
    store._check_cursor("s", Cursor(1, "a"), Cursor(1, "b"))

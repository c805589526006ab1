"""Databases for the machines: empty ones, stores on them that are cut off at COMMIT, and hands that write past them."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import apsw
import psycopg

from gapless.schema import Schema, Table
from gapless.store import Store
from gapless.store.memory import MemoryDatabase, MemoryStore
from gapless.store.postgres import PostgresStore
from gapless.store.postgres_connection import PostgresOptions
from gapless.store.sqlite import SqliteStore
from gapless.testing.fake_clock import FakeClock
from servers.postgres import PostgresServer


class Cut(StrEnum):
    """Where the process, or the way to the database, ends during a commit."""

    BEFORE = "before COMMIT took effect"
    AFTER = "after COMMIT took effect, before anybody was told"


class Crash(Exception):
    """The process ends here."""


class Database(ABC):
    """One database at a time. `store()` makes another handle on it; `fresh()` begins a new, empty one."""

    survives_lost_replies = False
    """Whether the store finds out by itself what became of a COMMIT whose answer was lost."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.clock = FakeClock()
        self._cut: Cut | None = None

    def __repr__(self) -> str:
        return type(self).__name__

    @abstractmethod
    def fresh(self) -> None: ...

    @abstractmethod
    def store(self) -> Store:
        """Not opened yet."""

    def opened(self) -> Store:
        store = self.store()
        store.open(self.schema, create=True)
        return store

    @abstractmethod
    def let_pass(self, seconds: float) -> None:
        """On the clock that leases live by."""

    @contextmanager
    def cut(self, cut: Cut) -> Iterator[None]:
        """The commit inside is cut off there: it raises Crash, or StoreUnavailable for the caller to live with."""
        self._cut = cut
        try:
            yield
            assert self._cut is None, "nothing was cut: the store does not commit where the test thinks it does"
        finally:
            self._cut = None

    def _take_cut(self, when: Cut) -> bool:
        taken = self._cut is when
        if taken:
            self._cut = None
        return taken

    @abstractmethod
    def delete_facts(self, table: Table, position: int, index: int | None = None) -> None:
        """Delete one row of an entry by hand, or all of one table."""

    @abstractmethod
    def delete_entries(self, first: int, last: int) -> None: ...

    def close(self) -> None:
        return


# --- in memory -----------------------------------------------------------------------------------------------------


class InMemory(Database):
    """Python's own."""

    make: Callable[..., MemoryStore] = MemoryStore

    def fresh(self) -> None:
        self.database = MemoryDatabase()

    def store(self) -> Store:
        store = type(self).make(self.database, self.clock)
        commit = store.commit

        def cut(*args: Any) -> None:
            if self._take_cut(Cut.BEFORE):
                raise Crash
            commit(*args)
            if self._take_cut(Cut.AFTER):
                raise Crash

        store.commit = cut  # type: ignore[method-assign]
        return store

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def delete_facts(self, table: Table, position: int, index: int | None = None) -> None:
        rows = self.database.facts.get(table.name, {}).get(position, [])
        rows[:] = [row for row in rows if index is not None and row[1] != str(index)]

    def delete_entries(self, first: int, last: int) -> None:
        for position in range(first, last + 1):
            self.database.sources["s"].entries.pop(position, None)


# --- SQLite --------------------------------------------------------------------------------------------------------


class InSqlite(Database):
    """A file in a temporary folder. A crash goes on with a copy of what was in the file, and in its log, at that very
    moment: what a killed process leaves behind."""

    make: Callable[..., SqliteStore] = SqliteStore

    def __init__(self, schema: Schema) -> None:
        super().__init__(schema)
        memory = Path("/dev/shm")
        self._folder = Path(tempfile.mkdtemp(prefix="gapless-stateful-", dir=memory if memory.is_dir() else None))
        self._numbers = itertools.count()
        self.path = self._folder / "none.db"

    def fresh(self) -> None:
        for old in self._folder.iterdir():
            old.unlink()
        self.path = self._folder / f"{next(self._numbers)}.db"

    def store(self) -> Store:
        store = type(self).make(self.path, self.clock)
        transact = store._transact

        def cut(work: Callable[[Any], Any], committed: Any = None, /) -> Any:
            def whole(session: Any) -> Any:
                result = work(session)
                if committed is not None and self._take_cut(Cut.BEFORE):
                    self._crash()
                return result

            result = transact(whole, committed)
            if committed is not None and self._take_cut(Cut.AFTER):
                self._crash()
            return result

        store._transact = cut  # type: ignore[method-assign]
        return store

    def _crash(self) -> None:
        left = self._folder / f"{next(self._numbers)}.db"
        for ending in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{self.path}{ending}", f"{left}{ending}")
        self.path = left
        raise Crash

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def by_hand(self, sql: str) -> None:
        connection = apsw.Connection(str(self.path))
        try:
            connection.set_busy_timeout(5000)
            connection.execute(sql)
        finally:
            connection.close()

    def delete_facts(self, table: Table, position: int, index: int | None = None) -> None:
        self.by_hand(_delete_sql(f"v1_{table.name}", position, index))

    def delete_entries(self, first: int, last: int) -> None:
        self.by_hand(f"DELETE FROM v1_gapless_entries WHERE source = 's' AND position BETWEEN {first} AND {last}")

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _delete_sql(relation: str, position: int, index: int | None) -> str:
    one = "" if index is None else f" AND log_index = {index}"
    return f"DELETE FROM {relation} WHERE block_number = {position}{one}"


# --- Postgres ------------------------------------------------------------------------------------------------------


class InPostgres(Database):
    """Databases on a real server. A cut closes the connection around COMMIT; leases age in the table itself."""

    survives_lost_replies = True
    make: Callable[..., PostgresStore] = PostgresStore

    def __init__(self, schema: Schema, server: PostgresServer) -> None:
        super().__init__(schema)
        self._server = server
        self._url = ""
        self._hand: psycopg.Connection[Any] | None = None

    def fresh(self) -> None:
        self.close()
        self._url = self._server.create_database()
        self._hand = psycopg.connect(self._url, autocommit=True)

    def store(self) -> Store:
        options = PostgresOptions(connect_timeout_seconds=20, settle_seconds_max=20)
        store = type(self).make(self._url, self.clock, options)
        commit = store._commit

        def cut(connection: Any, committed: Any) -> None:
            if committed is not None and self._cut is not None:
                self._break(connection)
            commit(connection, committed)

        store._commit = cut  # type: ignore[method-assign]
        return store

    def _break(self, connection: Any) -> None:
        """From now on its COMMIT fails: sent or not, the connection is gone."""
        whole = connection.commit

        def lost() -> None:
            if self._take_cut(Cut.AFTER):
                whole()
            self._take_cut(Cut.BEFORE)
            connection.close()
            raise psycopg.OperationalError("the connection was lost")

        connection.commit = lost

    def let_pass(self, seconds: float) -> None:
        self.by_hand(f"UPDATE stateful.gapless_leases SET expires = expires - interval '{seconds:.6f} seconds'")

    def by_hand(self, sql: str) -> None:
        assert self._hand is not None
        self._hand.execute(sql.encode())

    def delete_facts(self, table: Table, position: int, index: int | None = None) -> None:
        self.by_hand(_delete_sql(f"stateful_v1.{table.name}", position, index))

    def delete_entries(self, first: int, last: int) -> None:
        self.by_hand(
            f"DELETE FROM stateful_v1.gapless_entries WHERE source = 's' AND position BETWEEN {first} AND {last}"
        )

    def close(self) -> None:
        if self._hand is not None:
            self._hand.close()
            self._server.drop_database(self._url)
            self._hand = None

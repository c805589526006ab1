"""The SQLite store keeps the contract, and says what is wrong with a file."""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from gapless.errors import DiskFull, NewerDatabase, ReadOnlyStore, StoreError, StoreUnavailable, WrongDatabase
from gapless.model import Fence
from gapless.schema import Rows, Schema
from gapless.store import FORMAT
from gapless.store.sqlite import SqliteOptions, SqliteStore
from gapless.testing.fake_clock import FakeClock
from gapless.testing.store_contract import ByHandContract, StoreContract
from gapless.testing.store_contract.case import assert_holds, lead, nothing_written
from gapless.testing.store_contract.sample import SCHEMA, SOURCE, TRANSFERS, Chain, address

NOBODY = 65534
IMPATIENT = SqliteOptions(busy_timeout_seconds=0.3)


class TestSqliteStore(StoreContract, ByHandContract):
    """The whole contract, on a file, in virtual time."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "contract.db"
        self.clock = FakeClock()

    def make_store(self) -> SqliteStore:
        return SqliteStore(self.path, self.clock)

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def by_hand(self, sql: str) -> None:
        """In another process, with Python's own SQLite: two libraries in one process would undo each other's locks."""
        code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute(sys.argv[2])"
        subprocess.run([sys.executable, "-c", code, str(self.path), sql], check=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.db"


@contextmanager
def filled(path: Path, chain: Chain, options: SqliteOptions | None = None) -> Iterator[SqliteStore]:
    store = SqliteStore(path, options=options)
    store.open(SCHEMA, create=True)
    fence = lead(store, chain)
    if chain.blocks:
        store.commit(chain.batch(chain.start), None, fence)
    try:
        yield store
    finally:
        store.close()


def fence_of(store: SqliteStore) -> Fence:
    """Of the lease that `filled` took."""
    [lease] = store.leases()
    return Fence(lease.name, lease.holder, lease.token)


@contextmanager
def somebody_else() -> Iterator[None]:
    """File access as a user who owns nothing, in this thread only; root may otherwise write everything."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None)
    libc.setfsuid(NOBODY)
    try:
        yield
    finally:
        libc.setfsuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Everybody can look into it; pytest's own temporary folder is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="gapless-test-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


# --- durability ------------------------------------------------------------------------------------------------------


def test_commits_are_synced(path: Path) -> None:
    """Write-ahead log and full sync are set and read back; `describe` shows what was read."""
    with filled(path, Chain()) as store:
        facts = store.describe()
        assert (facts["journal_mode"], facts["synchronous"]) == ("wal", "full")
        assert facts["server"].startswith("SQLite 3.")
        assert int(facts["size_bytes"]) > 0


def test_a_file_that_cannot_be_made_durable_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite answers a mode it declines with the one it keeps: that is an error here, not a surprise later."""

    class Declining(apsw.Connection):
        def pragma(self, name: str, *value: object, **_: object) -> object:
            return "delete" if name == "journal_mode" else super().pragma(name, *value)

    monkeypatch.setattr(apsw, "Connection", Declining)
    with pytest.raises(StoreError, match=r"cannot be made durable.*local disk"):
        SqliteStore(path).open(SCHEMA, create=True)


def test_the_log_does_not_grow_without_bound(path: Path) -> None:
    """Commits move it into the file from time to time, with readers coming and going."""
    chain = Chain(seed=1)
    rows = 2000
    senders, numbers = [address(i) for i in range(rows)], [str(i) for i in range(rows)]
    with filled(path, chain, SqliteOptions(checkpoint_pages=100)) as store:
        fence = fence_of(store)
        for position in range(25):
            expected = chain.cursor() if chain.blocks else None
            chain.extend()
            bulk = Rows(TRANSFERS, ([str(position)] * rows, numbers, senders, senders, numbers), (rows,))
            batch = replace(chain.batch(position), rows=(bulk,), counts=(rows,), changes=(), undo=())
            store.commit(batch, expected, fence)
            store.row_count(TRANSFERS)
        log = path.with_name(path.name + "-wal")
        assert log.stat().st_size < 4_000_000 < path.stat().st_size


# --- other writers ---------------------------------------------------------------------------------------------------


@contextmanager
def another_process_writing(path: Path) -> Iterator[None]:
    """A process that holds the write lock."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True); sys.stdin.read(); c.execute('COMMIT')"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield
        process.stdin.close()


def test_another_writer_is_waited_for_and_not_for_ever(path: Path) -> None:
    """While another process holds the write lock, a commit waits so long as allowed and then says what holds it up."""
    chain = Chain(seed=2).extend(3)
    with filled(path, chain, IMPATIENT) as store:
        fence = fence_of(store)
        grown = Chain(seed=2).extend(4)
        with another_process_writing(path):
            started = time.monotonic()
            with nothing_written(store, chain), pytest.raises(StoreUnavailable, match=r"some\.db.*another process"):
                store.commit(grown.batch(3), chain.cursor(), fence)
            assert 0.2 < time.monotonic() - started < 3
            with pytest.raises(StoreUnavailable):
                store.renew(fence, 10)
        store.commit(grown.batch(3), chain.cursor(), fence)
        assert_holds(store, grown)


def test_the_lease_is_renewed_between_commits(path: Path) -> None:
    """A thread that commits without pause does not starve the one that renews."""
    with filled(path, Chain()) as store:
        fence = fence_of(store)
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                store.set_flag("busy", "yes")

        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        try:
            waits = []
            for _ in range(20):
                started = time.monotonic()
                assert store.renew(fence, 10)
                waits.append(time.monotonic() - started)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert max(waits) < 2


def test_two_processes_may_create_the_same_database(path: Path) -> None:
    """Whoever is second finds the tables there."""
    code = (
        "import sys; from gapless.store.sqlite import SqliteStore\n"
        "from gapless.testing.store_contract.sample import SCHEMA\n"
        "store = SqliteStore(sys.argv[1]); print('ready', flush=True); sys.stdin.readline()\n"
        "store.open(SCHEMA, create=True); store.close()"
    )
    command = [sys.executable, "-c", code, str(path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0]
    with filled(path, Chain(seed=8).extend(2)) as store:
        assert_holds(store, Chain(seed=8).extend(2))


# --- files that will not do ------------------------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """It is not created: the path may be a typing error."""
    store = SqliteStore(tmp_path / "nowhere" / "x.db")
    with pytest.raises(StoreError, match=r"folder .*nowhere.* does not exist.*mkdir"):
        store.open(SCHEMA, create=True)
    with pytest.raises(StoreError, match="is a folder"):
        SqliteStore(tmp_path).open(SCHEMA, create=True)


def test_a_file_of_something_else_is_refused(path: Path) -> None:
    """It is named, and left as it is."""
    content = b"This is a letter, not a database. " * 300
    path.write_bytes(content)
    for create in (True, False):
        with pytest.raises(StoreError, match=r"some\.db is not a SQLite database"):
            SqliteStore(path).open(SCHEMA, create=create)
    assert path.read_bytes() == content


def test_a_foreign_database_is_refused(path: Path) -> None:
    """A SQLite file with other tables, or of another app, is not written."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE letters (id INTEGER)")
    connection.close()
    with pytest.raises(WrongDatabase, match="letters"):
        SqliteStore(path).open(SCHEMA, create=True)
    path.unlink()
    with filled(path, Chain()):
        pass
    for create in (True, False):
        with pytest.raises(WrongDatabase, match="'contract', not of 'other'"):
            SqliteStore(path).open(Schema("other", SCHEMA.tables, SCHEMA.sources), create=create)


def test_a_newer_database_is_refused(path: Path) -> None:
    """The message says which format it has and what to do."""
    with filled(path, Chain()):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE gapless_meta SET value = ? WHERE name = 'format'", (str(FORMAT + 1),))
    connection.close()
    for create in (True, False):
        with pytest.raises(NewerDatabase, match=f"format {FORMAT + 1}.*pip install"):
            SqliteStore(path).open(SCHEMA, create=create)


def test_a_damaged_file_is_named(path: Path) -> None:
    """Reading damaged pages is an error that names the file; `check_pages` finds them when opening."""
    with filled(path, Chain(seed=3).extend(200)):
        pass
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2 - 8192))
    store = SqliteStore(path)
    store.open(SCHEMA, create=False)
    with pytest.raises(StoreError, match=r"some\.db is damaged.*backup"):
        store.facts(TRANSFERS, 0, 1000)
    store.close()
    with pytest.raises(StoreError, match=r"some\.db is damaged"):
        SqliteStore(path, options=SqliteOptions(check_pages=True)).open(SCHEMA, create=False)


def test_a_sound_file_passes_the_check(path: Path) -> None:
    """And is opened as always."""
    chain = Chain(seed=4).extend(5)
    with filled(path, chain):
        pass
    store = SqliteStore(path, options=SqliteOptions(check_pages=True))
    store.open(SCHEMA, create=True)
    assert_holds(store, chain)
    store.close()


def test_a_full_disk_keeps_nothing_of_the_batch(path: Path) -> None:
    """The transaction is undone; once there is room again, the same batch goes in."""
    chain = Chain(seed=5).extend(3)
    with filled(path, chain) as store:
        fence = fence_of(store)
        store.close()
        limited = SqliteStore(path, options=SqliteOptions(size_bytes_max=path.stat().st_size + 4 * 8192))
        limited.open(SCHEMA, create=True)
        grown = Chain(seed=5).extend(403)
        with nothing_written(limited, chain), pytest.raises(DiskFull, match=r"no space left for .*some\.db"):
            limited.commit(grown.batch(3), chain.cursor(), fence)
        limited.close()
        store.open(SCHEMA, create=True)
        store.commit(grown.batch(3), chain.cursor(), fence)
        assert_holds(store, grown)


def test_a_read_only_file_is_refused_for_writing(public_folder: Path) -> None:
    """Opening it to write is refused with what to change; opening it to read works."""
    path = public_folder / "some.db"
    chain = Chain(seed=6).extend(3)
    with filled(path, chain):
        pass
    path.chmod(0o444)
    if os.geteuid() != 0:
        public_folder.chmod(0o555)
    with somebody_else():
        store = SqliteStore(path)
        with pytest.raises(ReadOnlyStore, match=r"some\.db cannot be written.*chmod"):
            store.open(SCHEMA, create=True)
        store.close()


def test_a_read_only_folder_is_refused(public_folder: Path) -> None:
    """A database cannot be made in it."""
    public_folder.chmod(0o555)
    with somebody_else(), pytest.raises(ReadOnlyStore, match="cannot be written"):
        SqliteStore(public_folder / "new.db").open(SCHEMA, create=True)


def test_a_reader_cannot_write(path: Path) -> None:
    """The connections that read are opened read-only: a mistake in a query's SQL cannot change a row."""
    with filled(path, Chain()) as store, store._reading() as session, pytest.raises(apsw.ReadOnlyError):
        session.run("DELETE FROM v1_token_transfer")


def test_a_query_that_takes_too_long_is_stopped(path: Path) -> None:
    """With a message that says so."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    options = SqliteOptions(query_timeout_seconds=0.2)
    with filled(path, Chain(), options) as store, pytest.raises(StoreError, match=r"longer than 0\.2 s"):
        store.query(endless, 1)


def test_damage_is_found_in_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the range is divided for counting, each damaged entry is named once."""
    chain = Chain(seed=9, start=3).extend(50)
    with filled(path, chain) as store:
        store._transact(lambda s: s.run("DELETE FROM v1_token_transfer WHERE block_number % 3 = 0"))
        whole = store.damaged(SOURCE, 0, 1000)
        assert len(whole) > 5
        for size in (1, 7, 49, 50, 51):
            monkeypatch.setattr("gapless.store.reads._POSITIONS_MAX", size)
            assert store.damaged(SOURCE, 0, 1000) == whole
            assert store.damaged(SOURCE, 10, 20) == [d for d in whole if 10 <= d[0] <= 20]

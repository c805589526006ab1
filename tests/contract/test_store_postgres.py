"""The Postgres store keeps the contract, whatever happens to the server and on the way to it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from gapless.errors import (
    CommitUnknown,
    ConfigError,
    DiskFull,
    InvariantViolation,
    LeaseLost,
    NewerDatabase,
    ReadOnlyStore,
    StoreError,
    StoreUnavailable,
    WrongDatabase,
)
from gapless.model import Fence
from gapless.schema import Schema, Table
from gapless.store import FORMAT
from gapless.store.postgres import PostgresStore
from gapless.store.postgres_connection import Link, PostgresOptions
from gapless.testing.store_contract import ByHandContract, StoreContract
from gapless.testing.store_contract.case import assert_holds, lead, nothing_written
from gapless.testing.store_contract.sample import SCHEMA, SOURCE, TRANSFERS, Chain
from servers.postgres import PostgresServer
from servers.proxy import COMMIT, Fault, FaultyProxy

pytestmark = pytest.mark.postgres

IMPATIENT = PostgresOptions(
    connect_timeout_seconds=2,
    statement_timeout_seconds=2,
    reply_margin_seconds=0.5,
    lock_timeout_seconds=1,
    idle_in_transaction_seconds_max=30,
    lease_timeout_seconds=1,
    settle_seconds_max=10,
)


class TestPostgresStore(StoreContract, ByHandContract):
    """The whole contract, on a server; leases live and expire by its clock."""

    cascade = "CASCADE"

    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> None:
        self.url = postgres_url

    def make_store(self) -> PostgresStore:
        return PostgresStore(self.url)

    def by_hand(self, sql: str) -> None:
        run(self.url, sql)

    def versioned(self, table: str) -> str:
        return f"contract_v1.{table}"


def run(url: str, sql: str) -> list[tuple[Any, ...]]:
    """As an operator would, with the views in scope."""
    with psycopg.connect(url, autocommit=True, options="-c search_path=contract") as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


@contextmanager
def opened(url: str, options: PostgresOptions | None = None) -> Iterator[PostgresStore]:
    store = PostgresStore(url, options=options)
    store.open(SCHEMA, create=True)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def filled(url: str, chain: Chain, options: PostgresOptions = IMPATIENT) -> Iterator[tuple[PostgresStore, Fence]]:
    with opened(url, options) as store:
        fence = lead(store, chain)
        store.commit(chain.batch(chain.start), None, fence)
        yield store, fence


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(postgres_server.port) as proxy:
        yield proxy


@pytest.fixture
def proxied(postgres_url: str, proxy: FaultyProxy) -> str:
    """The database's URL through the proxy."""
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/{postgres_url.rsplit('/', 1)[1]}"


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run a call in a thread; its result or error comes in the list."""
    outcome: list[Any] = []

    def target() -> None:
        try:
            outcome.append(call())
        except StoreError as error:
            outcome.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    return thread, outcome


# --- the lost COMMIT -------------------------------------------------------------------------------------------------


def test_a_commit_whose_answer_is_lost_took_place(proxied: str, proxy: FaultyProxy) -> None:
    """The server got COMMIT and the connection broke: the cursor is read back, and the batch is there, once."""
    chain = Chain(seed=1).extend(4)
    with filled(proxied, chain) as (store, fence):
        for _ in range(5):
            expected, first = chain.cursor(), chain.last + 1
            chain.extend(3)
            proxy.arm(COMMIT, Fault.CUT_AFTER)
            store.commit(chain.batch(first), expected, fence)
            assert proxy.fired.is_set()
            assert_holds(store, chain)


def test_a_commit_that_never_arrived_did_not_take_place(proxied: str, proxy: FaultyProxy) -> None:
    """The connection broke before COMMIT reached the server: nothing is there, and the same batch goes in next."""
    chain = Chain(seed=2).extend(4)
    with filled(proxied, chain) as (store, fence):
        grown = Chain(seed=2).extend(8)
        with nothing_written(store, chain):
            proxy.arm(COMMIT, Fault.CUT_BEFORE)
            with pytest.raises(StoreUnavailable, match="nothing was written") as caught:
                store.commit(grown.batch(4), chain.cursor(), fence)
        assert not isinstance(caught.value, CommitUnknown)
        store.commit(grown.batch(4), chain.cursor(), fence)
        assert_holds(store, grown)


def test_a_commit_lost_in_silence_is_decided_too(proxied: str, proxy: FaultyProxy) -> None:
    """Nothing breaks, nothing answers: after a bounded wait the commit is looked up, and a session that waits for
    the lost client is ended."""
    chain = Chain(seed=3).extend(4)
    with filled(proxied, chain) as (store, fence):
        grown = Chain(seed=3).extend(6)
        proxy.arm(COMMIT, Fault.SILENCE_AFTER)
        started = time.monotonic()
        store.commit(grown.batch(4), chain.cursor(), fence)
        assert_holds(store, grown)
        further = Chain(seed=3).extend(9)
        with nothing_written(store, grown):
            proxy.arm(COMMIT, Fault.SILENCE_BEFORE)
            with pytest.raises(StoreUnavailable, match="nothing was written"):
                store.commit(further.batch(6), grown.cursor(), fence)
        assert time.monotonic() - started < 25
        store.commit(further.batch(6), grown.cursor(), fence)
        assert_holds(store, further)


def test_a_fork_whose_answer_is_lost_took_place(proxied: str, proxy: FaultyProxy) -> None:
    """Also where the cursor ends where it was: the revision tells."""
    chain = Chain(seed=4).extend(6)
    with filled(proxied, chain) as (store, fence):
        ancestor = chain.cursor(3)
        same_again = chain.batch(4, rewind_to=ancestor)
        proxy.arm(COMMIT, Fault.CUT_AFTER)
        store.commit(same_again, chain.cursor(), fence)
        assert store.reported(SOURCE).reorgs == 1
        proxy.arm(COMMIT, Fault.CUT_BEFORE)
        with pytest.raises(StoreUnavailable):
            store.commit(same_again, chain.cursor(), fence)
        assert store.reported(SOURCE).reorgs == 1
        assert_holds(store, chain)


def test_lost_rewinds_and_replacements_are_decided_too(proxied: str, proxy: FaultyProxy) -> None:
    """They change a source's data like a commit, and are settled like one."""
    chain = Chain(seed=5).extend(9)
    with filled(proxied, chain) as (store, fence):
        proxy.arm(COMMIT, Fault.CUT_AFTER)
        store.replace(chain.batch(2, 4), fence)
        assert_holds(store, chain)
        expected = chain.cursor()
        proxy.arm(COMMIT, Fault.CUT_AFTER)
        assert store.rewind(SOURCE, chain.fork(3), expected, fence) == 3
        assert_holds(store, chain)


def test_an_outcome_that_cannot_be_read_is_unknown(proxied: str, proxy: FaultyProxy) -> None:
    """Neither success nor failure is claimed while the server stays away; the cursor tells when it is back."""
    chain = Chain(seed=6).extend(4)
    with filled(proxied, chain, replace(IMPATIENT, settle_seconds_max=0.5)) as (store, fence):
        grown = Chain(seed=6).extend(7)
        proxy.arm(COMMIT, Fault.CUT_AFTER)
        proxy.refuse()
        with pytest.raises(CommitUnknown):
            store.commit(grown.batch(4), chain.cursor(), fence)
        proxy.refuse(refusing=False)
        assert store.cursor(SOURCE) == grown.cursor()
        assert_holds(store, grown)


def test_a_lost_commit_of_a_deposed_leader_is_not_claimed(proxied: str, postgres_url: str, proxy: FaultyProxy) -> None:
    """Another process has led and written since: this one says that it lost the lease, and nothing else."""
    chain = Chain(seed=7).extend(4)
    grown = Chain(seed=7).extend(6)
    with filled(proxied, chain) as (store, fence), opened(postgres_url) as other:
        proxy.arm(COMMIT, Fault.CUT_BEFORE)
        proxy.refuse()
        thread, outcome = in_background(lambda: store.commit(grown.batch(4), chain.cursor(), fence))
        assert proxy.fired.wait(5)
        other.release(fence)
        theirs = other.acquire(fence.name, "other", 60)
        assert theirs is not None
        branch = Chain(seed=7).extend(4)
        expected = branch.cursor()
        branch.fork(1)
        branch.extend(2)
        other.commit(branch.batch(3, rewind_to=branch.cursor(2)), expected, theirs)
        proxy.refuse(refusing=False)
        thread.join(20)
        assert isinstance(outcome[0], LeaseLost)
        assert_holds(other, branch)


# --- cut anywhere ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [b"set_config", b"COPY ", b"gapless_entries", b'UPDATE "contract_v1"'],
    ids=["fence", "copy", "entries", "cursor"],
)
def test_a_connection_lost_before_commit_leaves_nothing(proxied: str, proxy: FaultyProxy, words: bytes) -> None:
    """Wherever it breaks before COMMIT, nothing was written, and the next try goes through on a new connection."""
    chain = Chain(seed=8).extend(4)
    with filled(proxied, chain) as (store, fence):
        grown = Chain(seed=8).extend(7)
        with nothing_written(store, chain):
            proxy.arm(words, Fault.CUT_BEFORE)
            with pytest.raises(StoreUnavailable):
                store.commit(grown.batch(4), chain.cursor(), fence)
        assert proxy.fired.is_set()
        store.commit(grown.batch(4), chain.cursor(), fence)
        assert_holds(store, grown)


def test_a_copy_that_takes_fewer_rows_is_noticed(postgres_url: str) -> None:
    """A rule or trigger may make COPY leave rows out: the batch is refused, and nothing of it is kept."""
    chain = Chain(seed=21).extend(3)
    with filled(postgres_url, chain) as (store, fence):
        run(
            postgres_url,
            "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
            "CREATE TRIGGER leave_out BEFORE INSERT ON contract_v1.token_transfer"
            " FOR EACH ROW WHEN (NEW.log_index = 0) EXECUTE FUNCTION leave_out()",
        )
        grown = Chain(seed=21).extend(9)
        with nothing_written(store, chain), pytest.raises(InvariantViolation, match="rows"):
            store.commit(grown.batch(3), chain.cursor(), fence)


def test_backends_ended_at_random_lose_and_double_nothing(postgres_server: PostgresServer, postgres_url: str) -> None:
    """An administrator ends the store's sessions again and again while it commits: every batch is there once."""
    chain = Chain(seed=9).extend(1)
    ended = 0
    stop = threading.Event()
    name = postgres_url.rsplit("/", 1)[1]

    def end_sessions() -> None:
        nonlocal ended
        with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
            while not stop.wait(0.05):
                sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
                row = connection.execute(sql, [name]).fetchone()
                ended += row[0] if row else 0

    with filled(postgres_url, chain) as (store, fence):
        thread = threading.Thread(target=end_sessions)
        thread.start()
        failures = 0
        try:
            while ended < 10 or chain.last < 30:
                expected, first = chain.cursor(), chain.last + 1
                chain.extend(2)
                while True:
                    try:
                        store.commit(chain.batch(first), expected, fence)
                        break
                    except StoreUnavailable:
                        failures += 1
        finally:
            stop.set()
            thread.join()
        # A pooled connection that was used just now is not asked whether it still is one.
        time.sleep(0.6)
        assert_holds(store, chain)
        assert failures > 0


def test_a_restarted_server_is_found_again(postgres_server: PostgresServer, postgres_url: str) -> None:
    """While it is away, calls fail in time with what is wrong; when it is back, everything works on new connections."""
    chain = Chain(seed=10).extend(4)
    with filled(postgres_url, chain) as (store, fence):
        for kill in (False, True):
            postgres_server.stop(kill=kill)
            started = time.monotonic()
            for call in (
                lambda: store.cursor(SOURCE),
                lambda: store.renew(fence, 10),
                lambda: store.commit(Chain(seed=10).extend(5).batch(4), chain.cursor(), fence),
            ):
                with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
                    call()
            assert time.monotonic() - started < 15
            postgres_server.start()
            assert_holds(store, chain)
            assert store.renew(fence, 10)
        expected = chain.cursor()
        store.commit(chain.extend(2).batch(4), expected, fence)
        assert_holds(store, chain)


# --- leaders ---------------------------------------------------------------------------------------------------------


def test_a_leader_frozen_in_a_commit_does_not_keep_others_out(
    proxied: str, postgres_url: str, proxy: FaultyProxy
) -> None:
    """It holds the lease's row and stays silent in the middle of COPY; once its lease has expired, another takes over
    by ending its session. Thawed, it has written nothing."""
    chain = Chain(seed=11).extend(3)
    grown = Chain(seed=11).extend(9)
    patient = PostgresOptions(statement_timeout_seconds=60, settle_seconds_max=5)
    with filled(proxied, chain, patient) as (store, fence), opened(postgres_url, IMPATIENT) as standby:
        assert store.renew(fence, 0.5)
        proxy.arm(b'COPY "contract_v1"."gapless_entries"', Fault.DELAY)
        thread, outcome = in_background(lambda: store.commit(grown.batch(3), chain.cursor(), fence))
        assert proxy.fired.wait(5)
        assert standby.acquire(SOURCE, "standby", 60) is None
        time.sleep(0.6)
        started = time.monotonic()
        theirs = standby.acquire(SOURCE, "standby", 60)
        assert theirs is not None
        assert standby.cursor(SOURCE) == chain.cursor()
        assert time.monotonic() - started < 4
        proxy.let_go()
        thread.join(10)
        assert isinstance(outcome[0], StoreUnavailable)
        with nothing_written(standby, chain), pytest.raises(LeaseLost):
            store.commit(grown.batch(3), chain.cursor(), fence)
        standby.commit(grown.batch(3), chain.cursor(), theirs)
        assert_holds(standby, grown)


def test_the_lease_is_renewed_during_a_commit(proxied: str, postgres_url: str, proxy: FaultyProxy) -> None:
    """A commit in flight holds off a new grant, and no renewal."""
    chain = Chain(seed=12).extend(3)
    grown = Chain(seed=12).extend(9)
    with filled(proxied, chain, PostgresOptions()) as (store, fence), opened(postgres_url) as standby:
        proxy.arm(b'COPY "contract_v1"."gapless_entries"', Fault.DELAY)
        thread, outcome = in_background(lambda: store.commit(grown.batch(3), chain.cursor(), fence))
        assert proxy.fired.wait(5)
        started = time.monotonic()
        assert store.renew(fence, 30)
        assert time.monotonic() - started < 1
        assert standby.acquire(SOURCE, "standby", 60) is None
        proxy.let_go()
        thread.join(10)
        assert outcome == [None]
        assert_holds(standby, grown)


def test_the_cursor_waits_for_a_commit_in_flight(proxied: str, postgres_url: str, proxy: FaultyProxy) -> None:
    """Who reads it knows how the commit ended."""
    chain = Chain(seed=13).extend(3)
    grown = Chain(seed=13).extend(9)
    with filled(proxied, chain, PostgresOptions()) as (store, fence), opened(postgres_url) as other:
        proxy.arm(COMMIT, Fault.DELAY)
        commit, committed = in_background(lambda: store.commit(grown.batch(3), chain.cursor(), fence))
        assert proxy.fired.wait(5)
        read, seen = in_background(lambda: other.cursor(SOURCE))
        read.join(0.3)
        assert seen == []
        proxy.let_go()
        commit.join(10)
        read.join(10)
        assert committed == [None]
        assert seen == [grown.cursor()]


def test_one_of_many_gets_the_lease(postgres_url: str) -> None:
    """Eight ask at once, for new leases and for one released: exactly one is granted it, nobody fails, and no token is
    given twice."""
    with opened(postgres_url):
        pass
    stores = [PostgresStore(postgres_url) for _ in range(8)]
    for store in stores:
        store.open(SCHEMA, create=True)
    try:
        tokens = []
        for name in ["one"] * 5 + [f"new {number}" for number in range(40)]:
            barrier = threading.Barrier(len(stores))
            runs = [in_background(_asker(store, name, str(i), barrier)) for i, store in enumerate(stores)]
            for thread, _ in runs:
                thread.join(30)
            granted = [outcome[0] for _, outcome in runs if outcome[0] is not None]
            assert len(granted) == 1
            tokens.append(granted[0].token)
            stores[0].release(granted[0])
        assert tokens == [1, 2, 3, 4, 5] + [1] * 40
    finally:
        for store in stores:
            store.close()


def _asker(store: PostgresStore, name: str, holder: str, barrier: threading.Barrier) -> Callable[[], Fence | None]:
    def ask() -> Fence | None:
        barrier.wait(30)
        return store.acquire(name, holder, 60)

    return ask


# --- servers and databases that will not do --------------------------------------------------------------------------


def test_a_server_that_is_not_there(postgres_server: PostgresServer, proxy: FaultyProxy) -> None:
    """Refused, or silent: said within the connect timeout, with host and port."""
    proxy.refuse()
    for port in (1, proxy.port):
        store = PostgresStore(f"postgresql://postgres@127.0.0.1:{port}/x", options=IMPATIENT)
        with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}.*cannot be reached"):
            store.open(SCHEMA, create=True)


def test_a_missing_database_is_named(postgres_server: PostgresServer) -> None:
    """With the command that creates it."""
    with pytest.raises(StoreError, match=r"nowhere.*does not exist.*createdb") as caught:
        PostgresStore(postgres_server.url("nowhere")).open(SCHEMA, create=True)
    assert not caught.value.retryable


def test_a_refused_login_shows_no_password(postgres_server: PostgresServer, postgres_url: str) -> None:
    """Neither the error nor `url` nor `repr` holds it, however it was given."""
    postgres_server.run("CREATE ROLE nologin PASSWORD 'hunter2'")
    name = postgres_url.rsplit("/", 1)[1]
    host = f"127.0.0.1:{postgres_server.port}/{name}"
    try:
        for url in (f"postgresql://nologin:hunter2@{host}", f"postgresql://nologin@{host}?password=hunter2"):
            store = PostgresStore(url)
            with pytest.raises(StoreError, match="refuses the login") as caught:
                store.open(SCHEMA, create=True)
            shown = f"{caught.value} {caught.value.__cause__} {store.url} {store!r}"
            assert "hunter2" not in shown
            assert "nologin@127.0.0.1" in shown
    finally:
        postgres_server.run("DROP ROLE nologin")


def test_what_the_driver_says_shows_no_password() -> None:
    """Whatever it quotes."""
    link = Link("postgresql://me:hunter2@127.0.0.1/x", "contract", IMPATIENT)
    shown = str(link.in_words(psycopg.OperationalError('cannot parse "user=me password=hunter2 host=127.0.0.1"')))
    assert "hunter2" not in shown
    assert "cannot parse" in shown


def test_a_url_that_cannot_be_read_shows_no_password() -> None:
    """The parser's own message would quote it."""
    for url in (
        "postgresql://me:p@ss:w/rd@host:5432/x",
        "postgresql://me:ss:w/rd@host/x",
        "postgresql://me:ss:w?rd@h/x",
        "host=x password=ss:w",
    ):
        with pytest.raises(ConfigError, match="percent-encode") as caught:
            PostgresStore(url)
        assert caught.value.__cause__ is None
        assert "ss:w" not in f"{caught.value!r} {caught.value}"


def test_a_role_that_may_not_create_is_told_what_to_grant(postgres_server: PostgresServer, postgres_url: str) -> None:
    """And may read once it has been granted that; `create` is not needed for it."""
    name = postgres_url.rsplit("/", 1)[1]
    chain = Chain(seed=14).extend(3)
    run(postgres_url, "CREATE ROLE reader LOGIN")
    url = postgres_server.url(name, user="reader")
    try:
        with pytest.raises(StoreError, match="GRANT CREATE"):
            PostgresStore(url).open(SCHEMA, create=True)
        with filled(postgres_url, chain):
            pass
        for schema in ("contract", "contract_v1"):
            run(postgres_url, f"GRANT USAGE ON SCHEMA {schema} TO reader")
            run(postgres_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader")
        store = PostgresStore(url)
        store.open(SCHEMA, create=False)
        assert_holds(store, chain)
        with pytest.raises(StoreError, match="may not"):
            store.set_flag("a", "b")
        store.close()
    finally:
        run(postgres_url, "DROP OWNED BY reader")
        run(postgres_url, "DROP ROLE reader")


def test_a_read_only_server_is_refused_for_writing(postgres_url: str) -> None:
    """As a standby would be. Reading from it works."""
    chain = Chain(seed=15).extend(3)
    with filled(postgres_url, chain):
        pass
    name = postgres_url.rsplit("/", 1)[1]
    run(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(ReadOnlyStore, match="read-only"):
        PostgresStore(postgres_url).open(SCHEMA, create=True)
    store = PostgresStore(postgres_url)
    store.open(SCHEMA, create=False)
    assert_holds(store, chain)
    with pytest.raises(ReadOnlyStore):
        store.set_flag("a", "b")
    store.close()


def test_a_full_disk_keeps_nothing_of_the_batch(postgres_url: str) -> None:
    """Whichever statement it hits; the batch goes in when there is room again."""
    chain = Chain(seed=16).extend(3)
    with filled(postgres_url, chain) as (store, fence):
        run(
            postgres_url,
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$",
        )
        grown = Chain(seed=16).extend(8)
        for table in ("token_transfer", "holding", "gapless_entries", "gapless_undo"):
            run(
                postgres_url,
                f"CREATE TRIGGER full_disk BEFORE INSERT ON contract_v1.{table} EXECUTE FUNCTION full_disk()",
            )
            with nothing_written(store, chain), pytest.raises(DiskFull, match="Nothing was kept"):
                store.commit(grown.batch(3), chain.cursor(), fence)
            run(postgres_url, f"DROP TRIGGER full_disk ON contract_v1.{table}")
        store.commit(grown.batch(3), chain.cursor(), fence)
        assert_holds(store, grown)


def test_a_pooler_in_transaction_mode_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in session mode is not: there, two connections are two sessions."""
    answering = itertools.count(100)
    monkeypatch.setattr("gapless.store.postgres_connection.session_numbers", lambda _: (7, next(answering)))
    with opened(postgres_url):
        pass
    monkeypatch.setattr("gapless.store.postgres_connection.session_numbers", lambda _: (7, 100))
    with pytest.raises(StoreError, match=r"pooler in transaction mode.*pool_mode = session"):
        PostgresStore(postgres_url).open(SCHEMA, create=True)


def test_a_foreign_schema_is_refused(postgres_url: str) -> None:
    """A schema of the app's name with somebody else's tables is left alone."""
    run(postgres_url, "CREATE SCHEMA contract CREATE TABLE letters (id int)")
    with pytest.raises(WrongDatabase, match="letters"):
        PostgresStore(postgres_url).open(SCHEMA, create=True)


def test_an_empty_schema_is_used(postgres_url: str) -> None:
    """An administrator may have made it for a role that cannot."""
    run(postgres_url, "CREATE SCHEMA contract; CREATE SCHEMA contract_v1")
    with opened(postgres_url) as store:
        assert_holds(store, Chain())


def test_apps_share_a_database(postgres_url: str) -> None:
    """Each has its own schemas."""
    chain = Chain(seed=17).extend(3)
    with filled(postgres_url, chain) as (store, _):
        other = PostgresStore(postgres_url)
        other.open(Schema("Other app", SCHEMA.tables, SCHEMA.sources), create=True)
        assert_holds(other, Chain())
        assert_holds(store, chain)
        other.close()


def test_a_newer_database_is_refused(postgres_url: str) -> None:
    """The message says which format it has and what to do."""
    with opened(postgres_url):
        pass
    run(postgres_url, f"UPDATE gapless_meta SET value = '{FORMAT + 1}' WHERE name = 'format'")
    for create in (True, False):
        with pytest.raises(NewerDatabase, match=f"format {FORMAT + 1}.*pip install"):
            PostgresStore(postgres_url).open(SCHEMA, create=create)


def test_a_database_in_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    """Not every text would fit."""
    postgres_server.run("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    try:
        with pytest.raises(StoreError, match=r"encoded in LATIN1.*UTF8"):
            PostgresStore(postgres_server.url("latin")).open(SCHEMA, create=True)
    finally:
        postgres_server.run("DROP DATABASE latin")


def test_a_name_too_long_for_postgres_is_refused(postgres_url: str) -> None:
    """Postgres would cut it off, and two tables could become one."""
    table = Table("t" * 64, SOURCE, TRANSFERS.nature, TRANSFERS.columns, TRANSFERS.key)
    with pytest.raises(ConfigError, match="63 bytes"):
        PostgresStore(postgres_url).open(Schema("contract", (table,), SCHEMA.sources), create=True)


def test_many_processes_may_create_the_same_tables(postgres_url: str) -> None:
    """Whoever is second finds them there."""

    def create() -> PostgresStore:
        store = PostgresStore(postgres_url)
        store.open(SCHEMA, create=True)
        return store

    runs = [in_background(create) for _ in range(4)]
    for thread, _ in runs:
        thread.join(30)
    for _, [store] in runs:
        assert isinstance(store, PostgresStore)
        assert_holds(store, Chain())
        store.close()


# --- limits ----------------------------------------------------------------------------------------------------------


def test_every_session_has_its_limits(postgres_url: str) -> None:
    """Statement, lock and idle limits, UTC, durable commits: read back from the server."""
    run(postgres_url, f"ALTER DATABASE {postgres_url.rsplit('/', 1)[1]} SET synchronous_commit = off")
    with filled(postgres_url, Chain(seed=18).extend(1), PostgresOptions()) as (store, fence):
        assert store.renew(fence, 10)
        for connection, statement in ((store._writer, "30s"), (store._leaser, "4s")):
            assert connection is not None
            names = ("statement_timeout", "idle_in_transaction_session_timeout", "TimeZone", "synchronous_commit")
            shown = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in names]
            connection.rollback()
            assert shown == [(statement,), ("15s",), ("UTC",), ("on",)]
        assert store.describe()["synchronous_commit"] == "on"
        assert store.query("SELECT current_setting('statement_timeout')", 1)[1] == [("30s",)]


def test_the_pool_is_bounded(postgres_url: str) -> None:
    """More readers than connections wait their turn, and not for ever."""
    options = replace(PostgresOptions(), connections_max=2, connect_timeout_seconds=0.5)
    with filled(postgres_url, Chain(seed=19).extend(1), options) as (store, _):
        with store._reading() as one, store._reading() as two:
            assert one.run("SELECT 1") == two.run("SELECT 1")
            started = time.monotonic()
            with pytest.raises(StoreUnavailable, match="No connection"):
                store.coverage(SOURCE)
            assert time.monotonic() - started < 3
        assert store.coverage(SOURCE).entries == 1


def test_a_query_cannot_change_its_session(postgres_url: str) -> None:
    """What a function in it sets is taken back; what it does to rows is refused."""
    with filled(postgres_url, Chain(seed=20).extend(2), PostgresOptions(connections_max=1)) as (store, _):
        store.query("SELECT set_config('statement_timeout', '0', false)", 1)
        store.query("SELECT set_config('search_path', 'pg_catalog', false)", 1)
        assert store.query("SELECT current_setting('statement_timeout')", 1)[1] == [("30s",)]
        assert store.query("SELECT count(*) FROM token_transfer", 1)[1] == [(store.row_count(TRANSFERS),)]
        run(
            postgres_url,
            "CREATE FUNCTION sneaky() RETURNS int LANGUAGE sql AS 'DELETE FROM contract_v1.token_transfer RETURNING 1'",
        )
        with pytest.raises(ReadOnlyStore):
            store.query("SELECT sneaky()", 1)


def test_numbers_of_a_query_are_exact(postgres_url: str) -> None:
    """Sums of uint256 are integers, not floats."""
    with filled(postgres_url, Chain(seed=21).extend(9)) as (store, _):
        [(total,)] = store.query("SELECT sum(value) FROM token_transfer", 1)[1]
        assert type(total) is int
        assert store.query(f"SELECT {2**256 - 1}::numeric + 1", 1)[1] == [(2**256,)]


def test_state_leaves_no_dead_rows_in_the_catalogue(postgres_url: str) -> None:
    """The temporary table state passes through is made once a session, not once a commit."""
    chain = Chain(seed=22).extend(1)
    with filled(postgres_url, chain) as (store, fence):
        for _ in range(10):
            expected = chain.cursor()
            chain.extend(1)
            store.commit(chain.batch(chain.last), expected, fence)
        made = run(postgres_url, "SELECT count(*) FROM pg_class WHERE relname LIKE 'gapless_stage_%'")
        assert made == [(2,)]


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg, the store says how to install it."""
    import sys

    from gapless.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "psycopg", None)
    for module in ("gapless.store.postgres_connection", "gapless.store.postgres_session"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.delattr("gapless.store.postgres_connection", raising=False)
    monkeypatch.delattr("gapless.store.postgres_session", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'gapless\[postgres\]'"):
        PostgresStore("postgresql://localhost/x")

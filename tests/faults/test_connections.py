"""Connections to Postgres that end all at once: one failure, and none once the server is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from faults.live import through
from gapless.errors import StoreError, StoreUnavailable
from gapless.store.postgres import PostgresStore
from gapless.store.postgres_connection import PostgresOptions
from gapless.testing.store_contract.case import lead
from gapless.testing.store_contract.sample import SCHEMA, SOURCE, Chain
from gapless.testing.tcp_proxy import TcpProxy, Weather
from servers.postgres import PostgresServer

READERS = 4
OUTAGE_SECONDS = 16.0
"""Longer than the pool's first pauses: 1, 2, 4 and 8 s."""
BACK_SECONDS_MAX = 5.0


@contextmanager
def filled(url: str, options: PostgresOptions | None = None) -> Iterator[PostgresStore]:
    store, chain = PostgresStore(url, options=options), Chain(seed=1).extend(5)
    store.open(SCHEMA, create=True)
    fence = lead(store, chain)
    store.commit(chain.batch(0), None, fence)
    try:
        yield store
    finally:
        store.close()


def fill_pool(store: PostgresStore) -> None:
    """Let the pool have several connections, all of them just used."""
    together = threading.Barrier(READERS)

    def read() -> None:
        with store._reading() as session:
            together.wait(10)
            session.run("SELECT 1")

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


@pytest.mark.postgres
def test_connections_that_end_together_are_one_failure(postgres_url: str) -> None:
    """However many connections the pool has used just now, after the first that is found lost none fails another."""
    with filled(postgres_url) as store:
        fill_pool(store)
        with psycopg.connect(postgres_url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        failures = 0
        for _ in range(READERS):
            try:
                store.source(SOURCE)
            except StoreUnavailable:
                failures += 1
        assert failures <= 1


@pytest.mark.postgres
@pytest.mark.slow
def test_a_server_that_is_back_is_noticed_soon(postgres_server: PostgresServer, postgres_url: str) -> None:
    """After an outage no pause is left over: reads go on within the time one connection may take."""
    with TcpProxy(postgres_server.port) as proxy, filled(through(postgres_url, proxy.port)) as store:
        proxy.weather = Weather(refusing=True)
        proxy.cut()
        end = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < end:
            with pytest.raises(StoreError):
                store.source(SOURCE)
        proxy.calm()
        began = time.monotonic()
        store.source(SOURCE)
        assert time.monotonic() - began <= BACK_SECONDS_MAX


@pytest.mark.postgres
@pytest.mark.slow
def test_half_open_connections_are_not_waited_for_one_by_one(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """The first costs what a statement may take; the others only what an answer to nothing may take."""
    options = PostgresOptions(statement_timeout_seconds=10)
    with TcpProxy(postgres_server.port) as proxy, filled(through(postgres_url, proxy.port), options) as store:
        fill_pool(store)
        proxy.forsake()
        began = time.monotonic()
        while True:
            try:
                store.source(SOURCE)
                break
            except StoreUnavailable:
                assert time.monotonic() - began < 60
        assert time.monotonic() - began <= 32  # one statement's 15 s, three times 2.5 s, connecting; it was 60 s

"""The Store port equals a trivial model, whatever happens in whatever order, on every database."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis.stateful import run_state_machine_as_test

from servers.postgres import PostgresServer
from stateful.databases import InMemory, InPostgres, InSqlite
from stateful.drawn import SCHEMA
from stateful.profiles import sized
from stateful.store_machine import machine_on


def test_a_store_in_memory_equals_the_model() -> None:
    """After each step everything it says is what the model says."""
    run_state_machine_as_test(machine_on(InMemory(SCHEMA)), settings=sized("store memory"))


@pytest.mark.timeout(600)
def test_a_sqlite_store_equals_the_model() -> None:
    """The same machine on a file, crashes included."""
    with closing(InSqlite(SCHEMA)) as database:
        run_state_machine_as_test(machine_on(database), settings=sized("store sqlite"))


@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_a_postgres_store_equals_the_model(postgres_server: PostgresServer) -> None:
    """The same machine on a server, whose connections break around COMMIT."""
    with closing(InPostgres(SCHEMA, postgres_server)) as database:
        run_state_machine_as_test(machine_on(database), settings=sized("store postgres"))

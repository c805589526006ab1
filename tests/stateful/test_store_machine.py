"""The Store port equals a trivial model, whatever happens in whatever order, on every database."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis.stateful import run_state_machine_as_test

from servers.postgres import PostgresServer
from stateful.databases import InMemory, InPostgres, InSqlite
from stateful.drawn import SCHEMA
from stateful.profiles import PROFILES, sized
from stateful.store_machine import machine_on


@pytest.mark.parametrize("profile", PROFILES)
def test_a_store_in_memory_equals_the_model(profile: str) -> None:
    """After each step everything it says is what the model says."""
    run_state_machine_as_test(machine_on(InMemory(SCHEMA)), settings=sized("store memory", profile))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_sqlite_store_equals_the_model(profile: str) -> None:
    """The same machine on a file, crashes included."""
    with closing(InSqlite(SCHEMA)) as database:
        run_state_machine_as_test(machine_on(database), settings=sized("store sqlite", profile))


@pytest.mark.postgres
@pytest.mark.parametrize("profile", PROFILES)
def test_a_postgres_store_equals_the_model(profile: str, postgres_server: PostgresServer) -> None:
    """The same machine on a server, whose connections break around COMMIT."""
    with closing(InPostgres(SCHEMA, postgres_server)) as database:
        run_state_machine_as_test(machine_on(database), settings=sized("store postgres", profile))

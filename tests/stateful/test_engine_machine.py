"""The engine's tables equal a fold from scratch, whatever happens in whatever order, on every database."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis.stateful import run_state_machine_as_test

from servers.postgres import PostgresServer
from stateful.databases import InMemory, InPostgres, InSqlite
from stateful.engine_machine import machine_on
from stateful.profiles import sized
from stateful.scripted_chain import SCHEMA


def test_the_engine_in_memory_equals_the_fold() -> None:
    """After each step and each commit."""
    run_state_machine_as_test(machine_on(InMemory(SCHEMA)), settings=sized("engine memory"))


@pytest.mark.timeout(600)
def test_the_engine_on_sqlite_equals_the_fold() -> None:
    """The same machine on a file."""
    with closing(InSqlite(SCHEMA)) as database:
        run_state_machine_as_test(machine_on(database), settings=sized("engine sqlite"))


@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_the_engine_on_postgres_equals_the_fold(postgres_server: PostgresServer) -> None:
    """The same machine on a server."""
    with closing(InPostgres(SCHEMA, postgres_server)) as database:
        run_state_machine_as_test(machine_on(database), settings=sized("engine postgres"))

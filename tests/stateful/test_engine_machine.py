"""The engine's tables equal a fold from scratch, whatever happens in whatever order, on every database."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis.stateful import run_state_machine_as_test

from servers.postgres import PostgresServer
from stateful.databases import InMemory, InPostgres, InSqlite
from stateful.engine_machine import machine_on
from stateful.profiles import PROFILES, sized
from stateful.scripted_chain import SCHEMA


@pytest.mark.parametrize("profile", PROFILES)
def test_the_engine_in_memory_equals_the_fold(profile: str) -> None:
    """After each step and each commit."""
    run_state_machine_as_test(machine_on(InMemory(SCHEMA)), settings=sized("engine memory", profile))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_engine_on_sqlite_equals_the_fold(profile: str) -> None:
    """The same machine on a file."""
    with closing(InSqlite(SCHEMA)) as database:
        run_state_machine_as_test(machine_on(database), settings=sized("engine sqlite", profile))


@pytest.mark.postgres
@pytest.mark.parametrize("profile", PROFILES)
def test_the_engine_on_postgres_equals_the_fold(profile: str, postgres_server: PostgresServer) -> None:
    """The same machine on a server."""
    with closing(InPostgres(SCHEMA, postgres_server)) as database:
        run_state_machine_as_test(machine_on(database), settings=sized("engine postgres", profile))

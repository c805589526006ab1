"""The Postgres store keeps the contract."""

from __future__ import annotations

import pytest

from gapless.store.postgres import PostgresStore
from gapless.testing.store_contract import StoreContract


@pytest.mark.postgres
class TestPostgresStore(StoreContract):
    """The whole contract, on a server; leases live and expire by its clock."""

    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> None:
        self.url = postgres_url

    def make_store(self) -> PostgresStore:
        return PostgresStore(self.url)

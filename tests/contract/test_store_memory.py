"""The store in plain Python keeps the contract."""

from __future__ import annotations

import pytest

from gapless.errors import NewerDatabase, WrongDatabase
from gapless.schema import Schema
from gapless.store import FORMAT
from gapless.store.memory import MemoryDatabase, MemoryStore
from gapless.testing.fake_clock import FakeClock
from gapless.testing.store_contract import StoreContract
from gapless.testing.store_contract.sample import SCHEMA


class TestMemoryStore(StoreContract):
    """The whole contract, in virtual time."""

    @pytest.fixture(autouse=True)
    def _database(self) -> None:
        self.database = MemoryDatabase()
        self.clock = FakeClock()

    def make_store(self) -> MemoryStore:
        return MemoryStore(self.database, self.clock)

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def test_a_database_of_another_app_is_refused(self) -> None:
        """Its tables would be filled from the wrong configuration."""
        with self.opened():
            pass
        with pytest.raises(WrongDatabase, match="contract"):
            self.make_store().open(Schema("other", SCHEMA.tables, SCHEMA.sources), create=True)

    def test_a_database_of_a_newer_gapless_is_refused(self) -> None:
        """What its tables mean is not known here."""
        with self.opened():
            self.database.format = FORMAT + 1
        with pytest.raises(NewerDatabase, match="newer"):
            self.make_store().open(SCHEMA, create=True)

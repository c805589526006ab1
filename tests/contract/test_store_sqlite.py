"""The SQLite store keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapless.store.sqlite import SqliteStore
from gapless.testing.fake_clock import FakeClock
from gapless.testing.store_contract import StoreContract


class TestSqliteStore(StoreContract):
    """The whole contract, on a file."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "contract.db"
        self.clock = FakeClock()

    def make_store(self) -> SqliteStore:
        return SqliteStore(self.path, self.clock)

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

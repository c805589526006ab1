"""Fixtures for every test: real servers, started on first use."""

import pytest

pytest_plugins = ["servers.anvil", "servers.postgres"]
pytest.register_assert_rewrite(
    "gapless.testing.store_contract", "gapless.testing.journal_contract", "gapless.testing.source_contract"
)

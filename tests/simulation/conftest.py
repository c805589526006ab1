"""Kept seeds go first: what broke once breaks again sooner than anything else."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "test_kept_seeds" not in item.nodeid)

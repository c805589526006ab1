"""The page about the product's own tables names every one of their columns, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gapless.schema import Table
from gapless.store.ddl import APP_TABLES, QUARANTINE, VERSION_TABLES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "tables.md"


@pytest.mark.parametrize("table", [*APP_TABLES, *VERSION_TABLES], ids=lambda t: t.name)
def test_every_column_is_explained(table: Table) -> None:
    """In order, with its kind and whether it may be NULL."""
    section = PAGE.read_text().split(f"## {table.name}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", section, re.MULTILINE)
    expected = [(c.name, c.kind.value + (" or NULL" if c.nullable else "")) for c in table.columns]
    if table is QUARANTINE:
        expected.insert(0, ("id", "int"))
    assert found == expected

"""Differences between an app and its database, said in words; names and statements."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gapless.errors import ConfigError
from gapless.schema import Column, Kind, Nature, Schema, Table
from gapless.store.ddl import (
    POSTGRES,
    SQLITE,
    Names,
    check_schema,
    create_version_tables,
    create_views,
    differences,
    quote,
)

KEY = (Column("block_number", Kind.INT), Column("log_index", Kind.INT))
EVENT = Table("event", "s", Nature.FACT, (*KEY, Column("value", Kind.UINT256)), ("block_number", "log_index"))


def schema(*tables: Table) -> Schema:
    return Schema("app", tables, ("s",))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            replace(EVENT, name="other"),
            "table other is not in the database; table event is in the database, but not in the app",
        ),
        (replace(EVENT, columns=EVENT.columns[:2]), "column event.value is in the database, but not in the app"),
        (replace(EVENT, columns=(*EVENT.columns, Column("x", Kind.INT))), "column event.x is not in the database"),
        (
            replace(EVENT, columns=(*KEY, Column("value", Kind.TEXT, nullable=True))),
            "column event.value: uint256 in the database, text or NULL in the app",
        ),
        (
            replace(EVENT, columns=(EVENT.columns[0], EVENT.columns[2], EVENT.columns[1])),
            "table event: the columns are in another order",
        ),
        (
            replace(EVENT, key=("block_number",)),
            "table event: key (block_number, log_index) in the database, (block_number) in the app",
        ),
        (replace(EVENT, source="t"), "table event: source 's' in the database, 't' in the app"),
        (replace(EVENT, nature=Nature.STATE), "table event: nature 'fact' in the database, 'state' in the app"),
    ],
)
def test_differences_are_said_in_words(changed: Table, words: str) -> None:
    """Each names the table, the column and both sides."""
    assert "; ".join(differences(schema(EVENT).describe(), schema(changed))) == words


def test_equal_tables_do_not_differ() -> None:
    """Whatever order they are declared in."""
    second = replace(EVENT, name="another")
    assert differences(schema(EVENT, second).describe(), schema(second, EVENT)) == []


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (replace(EVENT, columns=(KEY[0], replace(KEY[1], nullable=True))), "may be NULL"),
        (replace(EVENT, columns=(KEY[0], replace(KEY[1], kind=Kind.JSON))), "holds JSON"),
        (replace(EVENT, columns=(*KEY, Column("_position", Kind.INT))), "_position"),
        (replace(EVENT, name="gapless_x"), "reserved"),
    ],
)
def test_tables_that_cannot_be_are_refused(table: Table, words: str) -> None:
    """By every database alike."""
    for dialect in (SQLITE, POSTGRES):
        with pytest.raises(ConfigError, match=words):
            check_schema(schema(table), dialect)


def test_names_are_quoted() -> None:
    """Quotes and keywords in names do no harm, and neither do braces."""
    assert quote('a"b') == '"a""b"'
    table = replace(EVENT, name='sel"ect {app}')
    assert Names(SQLITE, schema(table)).versioned(table) == '"v1_sel""ect {app}"'
    assert Names(POSTGRES, Schema('a"b', (table,), ("s",))).public(table) == '"a""b"."sel""ect {app}"'


def test_state_keeps_the_position_behind_the_view() -> None:
    """The table has it, the view does not."""
    state = Table("holding", "s", Nature.STATE, (Column("holder", Kind.TEXT),), ("holder",))
    names = Names(POSTGRES, schema(state))
    [table] = [s for s in create_version_tables(names) if '"holding"' in s]
    [view] = [s for s in create_views(names) if '"holding"' in s]
    assert '"_position" BIGINT NOT NULL' in table
    assert "_position" not in view

"""Declaring tables in Python: column types, keys, and what `@app.table` makes of a class.

    @app.table
    class Holding:
        token: gapless.Address = gapless.key()
        holder: gapless.Address = gapless.key()
        balance: gapless.UInt256

A class with a key is a state table; one without is a fact table, whose rows start with where they came from:
`block_number`, `log_index`, and `row_index` within that event.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from datetime import datetime
from typing import Annotated, Any, Union

from gapless.engine.handlers import TableBinding
from gapless.errors import ConfigError
from gapless.schema import Column, Kind, Nature, Table

Address = Annotated[str, Kind.ADDRESS]
"""`0x` and 40 lower-case hex digits."""
Hash = Annotated[str, Kind.HASH]
"""`0x` and 64 lower-case hex digits."""
Bytes = Annotated[str, Kind.BYTES]
"""`0x` and any number of lower-case hex digits."""
UInt256 = Annotated[int, Kind.UINT256]
"""An exact integer of up to 78 digits, signed or not."""
Int64 = Annotated[int, Kind.INT]
"""An integer of 64 bits."""
Json = Annotated[Any, Kind.JSON]
"""Anything JSON can hold."""

_PLAIN: dict[Any, Kind] = {
    str: Kind.TEXT,
    int: Kind.INT,
    bool: Kind.BOOL,
    bytes: Kind.BYTES,
    datetime: Kind.TIMESTAMP,
    dict: Kind.JSON,
    list: Kind.JSON,
}
_KEY = "gapless.key"
_RESERVED = {"_position"}

FACT_COLUMNS = (Column("block_number", Kind.INT), Column("log_index", Kind.INT), Column("row_index", Kind.INT))


def key() -> Any:
    """Marks a column as part of the table's key."""
    return dataclasses.field(metadata={_KEY: True})


def snake(name: str) -> str:
    """`TokenHolding` -> `token_holding`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def bind(declared: type[Any], source: str) -> TableBinding:
    """The stored table of a declared class (already a dataclass). Raises ConfigError naming class and column."""
    hints = typing.get_type_hints(declared, include_extras=True)
    fields = dataclasses.fields(declared)
    columns = tuple(_column(declared, f.name, hints[f.name]) for f in fields)
    keys = tuple(f.name for f in fields if f.metadata.get(_KEY))
    names = tuple(f.name for f in fields)
    if not columns:
        raise ConfigError(f"Table {declared.__name__} has no columns", todo="Give it annotated attributes.")
    name = snake(declared.__name__)
    if keys:
        return TableBinding(Table(name, source, Nature.STATE, columns, keys), declared, names)
    taken = {c.name for c in FACT_COLUMNS} & set(names)
    if taken:
        raise ConfigError(
            f"Table {declared.__name__}: {min(taken)!r} is a column every fact table has",
            todo="Rename it, or give the table a gapless.key().",
        )
    table = Table(name, source, Nature.FACT, (*FACT_COLUMNS, *columns), tuple(c.name for c in FACT_COLUMNS))
    return TableBinding(table, declared, names)


def _column(declared: type[Any], name: str, hint: Any) -> Column:
    if name in _RESERVED:
        raise ConfigError(f"Table {declared.__name__}: {name!r} is a name Gapless uses itself", todo="Rename it.")
    nullable = False
    if typing.get_origin(hint) in (Union, types.UnionType):
        rest = [a for a in typing.get_args(hint) if a is not type(None)]
        nullable = len(rest) < len(typing.get_args(hint))
        if len(rest) == 1:
            hint = rest[0]
    kind = None
    if typing.get_origin(hint) is Annotated:
        kind = next((m for m in typing.get_args(hint)[1:] if isinstance(m, Kind)), None)
    kind = kind or _PLAIN.get(typing.get_origin(hint) or hint)
    if kind is None:
        raise ConfigError(
            f"Table {declared.__name__}: column {name!r} has the type {hint!r}, which has no place in a table",
            todo="Use gapless.Address, Hash, Bytes, UInt256, Int64, Json, or str, int, bool, bytes, datetime.",
        )
    return Column(name, kind, nullable)

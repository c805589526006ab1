"""Canonical columns as Arrow: for batch handlers and exports. Needs the `arrow` extra.

INT is int64, BOOL bool, TIMESTAMP timestamp[us, UTC]; everything else is string. UINT256 stays decimal text: no
Arrow number holds 78 digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gapless.errors import MissingExtra
from gapless.schema import Column_, Kind, Table, python_column

if TYPE_CHECKING:
    import pyarrow as pa


def load() -> Any:
    """The pyarrow module. Raises MissingExtra."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtra("Arrow and Parquet need pyarrow", todo="Run: pip install 'gapless[arrow]'") from error
    return pa


def arrow_schema(table: Table) -> pa.Schema:
    arrow = load()
    types = {Kind.INT: arrow.int64(), Kind.BOOL: arrow.bool_(), Kind.TIMESTAMP: arrow.timestamp("us", tz="UTC")}
    return arrow.schema([arrow.field(c.name, types.get(c.kind, arrow.string()), c.nullable) for c in table.columns])


def record_batch(table: Table, columns: Sequence[Column_]) -> pa.RecordBatch:
    """One Arrow batch of canonical columns."""
    arrow = load()
    schema = arrow_schema(table)
    arrays = []
    for column, values, arrow_field in zip(table.columns, columns, schema, strict=True):
        typed = column.kind in (Kind.INT, Kind.BOOL, Kind.TIMESTAMP)
        arrays.append(arrow.array(python_column(column, values) if typed else list(values), type=arrow_field.type))
    return arrow.RecordBatch.from_arrays(arrays, schema=schema)

"""Canonical columns as Arrow: for batch handlers and exports. Needs the `arrow` extra.

INT is int64, BOOL bool, TIMESTAMP timestamp[us, UTC]; everything else is string. UINT256 stays decimal text: no
Arrow number holds 78 digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gapless.errors import MissingExtra
from gapless.schema import Column, Column_, Kind, Rows, Table, from_text, python_column

if TYPE_CHECKING:
    import pyarrow as pa

    from gapless.packed import Packed


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
    arrays = [
        _array(column, values, kind.type) for column, values, kind in zip(table.columns, columns, schema, strict=True)
    ]
    return arrow.RecordBatch.from_arrays(arrays, schema=schema)


def rows_batch(rows: Rows) -> pa.RecordBatch:
    """The same of rows, without a Python value for each where they are packed."""
    if rows.packed is None:
        return record_batch(rows.table, rows.columns)
    arrow = load()
    schema = arrow_schema(rows.table)
    arrays = []
    for number, (column, kind) in enumerate(zip(rows.table.columns, schema, strict=True)):
        array = _packed_array(column, rows.packed, number)
        arrays.append(_array(column, rows.columns[number], kind.type) if array is None else array)
    return arrow.RecordBatch.from_arrays(arrays, schema=schema)


def _array(column: Column, values: Column_, kind: pa.DataType) -> pa.Array:
    arrow = load()
    if column.kind is Kind.TIMESTAMP:  # few, since a block's rows share one
        known = {value: from_text(column, value) for value in dict.fromkeys(values)}
        return arrow.array([known[value] for value in values], type=kind)
    typed = column.kind in (Kind.INT, Kind.BOOL)
    return arrow.array(python_column(column, values) if typed else list(values), type=kind)


def _packed_array(column: Column, packed: Packed, number: int) -> pa.Array | None:
    """One column of packed rows; None for what has to be read value by value."""
    arrow = load()
    if column.kind is Kind.INT:
        integers = packed.integers(number)
        return None if integers is None else arrow.array(integers, type=arrow.int64())
    if column.kind in (Kind.BOOL, Kind.TIMESTAMP):
        return None
    text = packed.unpadded(number)
    if text is None:
        return None
    ends = range(0, len(text) + 1, packed.widths[number]) if len(packed) else range(1)
    offsets = arrow.array(ends, type=arrow.int32())
    return arrow.StringArray.from_buffers(len(packed), offsets.buffers()[1], arrow.py_buffer(text))

"""`gapless query`: one read-only statement over the live version's tables."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, JsonOption
from gapless.cli.project import load
from gapless.errors import UsageError

_FLOAT_EXACT_MAX = 2**53


class QueryFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT; - reads it from standard input.")],
    config: ConfigOption = None,
    form: Annotated[QueryFormat, typer.Option("--format", "-f", help="How to print the rows.")] = QueryFormat.TABLE,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most rows to fetch.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Run one SELECT.

    Nothing can be changed with it: the database itself is asked to allow reading only."""
    form = QueryFormat.JSON if as_json else form
    binary = form in {QueryFormat.PARQUET, QueryFormat.ARROW}
    if binary and file is None and sys.stdout.isatty():
        raise UsageError(f"{form.value} is not for a terminal", todo="Add --output FILE.")
    project = load(config)
    statement = sys.stdin.read() if sql == "-" else sql
    with project.store() as store:
        columns, rows = store.query(statement, limit + 1)
    truncated = len(rows) > limit
    rows = exact(rows[:limit])
    if truncated:
        output.talk(f"There are more than {limit} rows; ask for them with --limit.")
    if binary:
        _write_arrow(form, columns, rows, file)
    elif file is None:
        _print(form, columns, rows, truncated)
    else:
        with file.open("w", encoding="utf-8", newline="") as stream:
            _write(form, columns, rows, truncated, stream)


def exact(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows with whole columns as text where a number is too large for readers that know floats only."""
    wide = {i for row in rows for i, value in enumerate(row) if type(value) is int and abs(value) > _FLOAT_EXACT_MAX}
    if not wide:
        return rows
    return [tuple(str(v) if i in wide and type(v) is int else v for i, v in enumerate(row)) for row in rows]


def _print(form: QueryFormat, columns: list[str], rows: list[tuple[Any, ...]], truncated: bool) -> None:
    if form is QueryFormat.TABLE:
        numbers = [c for i, c in enumerate(columns) if rows and isinstance(rows[0][i], int | float | Decimal)]
        output.table(columns, [tuple(_shown(v) for v in row) for row in rows], right=numbers)
    elif form is QueryFormat.JSON:
        output.document(_document(columns, rows, truncated))
    else:
        _write(form, columns, rows, truncated, sys.stdout)


def _write(form: QueryFormat, columns: list[str], rows: list[tuple[Any, ...]], truncated: bool, stream: Any) -> None:
    if form is QueryFormat.CSV:
        import csv

        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if v is None else _shown(v) for v in row] for row in rows])
    elif form is QueryFormat.JSONL:
        for row in rows:
            fields = dict(zip(columns, map(_plain, row), strict=True))
            stream.write(json.dumps(fields, ensure_ascii=False) + "\n")
    elif form is QueryFormat.JSON:
        stream.write(json.dumps({"schema": output.SCHEMA, **_document(columns, rows, truncated)}) + "\n")
    else:
        width = [max([len(c), *(len(_shown(r[i])) for r in rows)]) for i, c in enumerate(columns)]
        for line in (columns, *[[_shown(v) for v in row] for row in rows]):
            stream.write("  ".join(text.ljust(width[i]) for i, text in enumerate(line)).rstrip() + "\n")


def _document(columns: list[str], rows: list[tuple[Any, ...]], truncated: bool) -> dict[str, Any]:
    return {"columns": columns, "rows": [[_plain(v) for v in row] for row in rows], "truncated": truncated}


def _plain(value: Any) -> Any:
    """A database value as JSON. What JSON numbers cannot hold exactly in every reader stays text."""
    if value is None or isinstance(value, bool | str | int | float | dict | list):
        return value
    return _shown(value)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes | memoryview):
        return "0x" + bytes(value).hex()
    if isinstance(value, Decimal):
        return format(value, "f")
    if hasattr(value, "isoformat"):
        return str(value.isoformat()).replace("+00:00", "Z")
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _write_arrow(form: QueryFormat, columns: list[str], rows: list[tuple[Any, ...]], file: Path | None) -> None:
    from gapless.arrow import load as load_arrow

    arrow = load_arrow()
    arrays = []
    for index in range(len(columns)):
        values = [_plain(row[index]) for row in rows]
        if any(isinstance(v, dict | list) for v in values) or len({type(v) for v in values if v is not None}) > 1:
            values = [None if v is None else _shown(v) for v in values]
        arrays.append(arrow.array(values))
    table = arrow.Table.from_arrays(arrays, names=columns)
    sink = sys.stdout.buffer if file is None else str(file)
    if form is QueryFormat.PARQUET:
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, sink)
    else:
        with arrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)

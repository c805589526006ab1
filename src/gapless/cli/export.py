"""`gapless export`: a table's rows as CSV, JSON Lines, Parquet or Arrow, a bounded part at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, Range, RangeOption, parse_range
from gapless.cli.project import load
from gapless.cli.steps import Steps
from gapless.errors import GaplessError, UsageError

if TYPE_CHECKING:
    from gapless.schema import Column_, Table
    from gapless.store import Store

Part = Sequence["Column_"]
"""Columns of canonical text."""

_ROWS_AT_ONCE = 20_000
"""What a part should hold; how many positions that takes is learned on the way."""
_POSITIONS_AT_ONCE_MAX = 100_000


class ExportFormat(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    ARROW = "arrow"


def export(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Name of the table, such as token_transfer.")],
    config: ConfigOption = None,
    form: Annotated[
        ExportFormat | None,
        typer.Option("--format", "-f", help="Left out: by the file's ending, else csv.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Left out: standard output.", show_default=False),
    ] = None,
    range_: RangeOption = None,
) -> None:
    """Write the rows of a table to a file.

    Rows come in key order, and memory stays flat however many there are. uint256 is written as decimal text, so that
    no reader rounds it."""
    wanted = parse_range(range_)
    form = form or _by_ending(file)
    if file is None and form in {ExportFormat.PARQUET, ExportFormat.ARROW} and sys.stdout.isatty():
        raise UsageError(f"{form.value} is not for a terminal", todo="Add --output FILE.")
    project = load(config)
    with project.store() as store:
        chosen = _table(project.schema.tables, table)
        with Steps("export", project.clock) as steps, _target(file) as sink:
            rows = _WRITERS[form](chosen, _parts(store, chosen, wanted, steps), sink)
    output.talk(f"{output.counted(rows, 'row')} of {table} written{'' if file is None else f' to {file}'}.")


def _by_ending(file: Path | None) -> ExportFormat:
    endings = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".arrow": "arrow", ".arrows": "arrow"}
    return ExportFormat(endings.get("" if file is None else file.suffix, "csv"))


def _table(tables: Sequence[Table], name: str) -> Table:
    from gapless.config.problems import suggestion

    for table in tables:
        if table.name == name:
            return table
    raise UsageError(f"There is no table {name!r}{suggestion(name, [t.name for t in tables])}")


# --- reading -------------------------------------------------------------------------------------------------------


def _parts(store: Store, table: Table, wanted: Range, steps: Steps) -> Iterator[Part]:
    from gapless.engine.operate import bounds
    from gapless.schema import Nature

    if table.nature is Nature.STATE:
        if wanted != Range():
            raise UsageError(f"{table.name} is a state table: it has no range", todo="Leave out --range.")
        return _state_parts(store, table)
    first, last = bounds(store, table.source).clip(wanted.first, wanted.last)
    return _fact_parts(store, table, first, last, steps)


def _fact_parts(store: Store, table: Table, first: int, last: int, steps: Steps) -> Iterator[Part]:
    span, total = 1_000, last - first + 1
    while first <= last:
        columns, positions = store.facts(table, first, min(first + span - 1, last))
        if positions:
            yield columns
        first += span
        steps.tick(total - max(0, last - first + 1), total)
        fit = span * 2 if not positions else span * _ROWS_AT_ONCE // len(positions)
        span = max(1, min(fit, span * 2, _POSITIONS_AT_ONCE_MAX))


def _state_parts(store: Store, table: Table) -> Iterator[Part]:
    rows: list[tuple[str | None, ...]] = []
    for row in store.state_rows(table):
        rows.append(row.values)
        if len(rows) == _ROWS_AT_ONCE:
            yield list(zip(*rows, strict=True))
            rows = []
    if rows:
        yield list(zip(*rows, strict=True))


# --- writing -------------------------------------------------------------------------------------------------------


@contextmanager
def _target(file: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears only when it is whole."""
    if file is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        stream = unfinished.open("wb")
    except OSError as error:
        raise GaplessError(f"{file} cannot be written: {error.strerror}", todo="Choose another --output.") from error
    try:
        with stream:
            yield stream
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_csv(table: Table, parts: Iterator[Part], sink: BinaryIO) -> int:
    import csv
    import io

    text = io.TextIOWrapper(sink, encoding="utf-8", newline="", write_through=False)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    rows = 0
    for columns in parts:
        writer.writerows(zip(*columns, strict=True))
        rows += len(columns[0])
    text.flush()
    text.detach()
    return rows


def _write_jsonl(table: Table, parts: Iterator[Part], sink: BinaryIO) -> int:
    import json

    from gapless.schema import Kind, python_column

    exact = {Kind.INT, Kind.BOOL, Kind.JSON}
    names = [column.name for column in table.columns]
    rows = 0
    for columns in parts:
        plain = [
            python_column(column, values) if column.kind in exact else values
            for column, values in zip(table.columns, columns, strict=True)
        ]
        lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in zip(*plain, strict=True)]
        sink.write(("\n".join(lines) + "\n").encode())
        rows += len(lines)
    return rows


def _write_parquet(table: Table, parts: Iterator[Part], sink: BinaryIO) -> int:
    from gapless.arrow import arrow_schema
    from gapless.arrow import load as load_arrow

    load_arrow()
    import pyarrow.parquet

    with pyarrow.parquet.ParquetWriter(sink, arrow_schema(table), compression="zstd") as writer:
        return _write_batches(table, parts, writer.write_batch)


def _write_arrow(table: Table, parts: Iterator[Part], sink: BinaryIO) -> int:
    from gapless.arrow import arrow_schema
    from gapless.arrow import load as load_arrow

    with load_arrow().ipc.new_stream(sink, arrow_schema(table)) as writer:
        return _write_batches(table, parts, writer.write_batch)


def _write_batches(table: Table, parts: Iterator[Part], write: Callable[[Any], None]) -> int:
    from gapless.arrow import record_batch

    rows = 0
    for columns in parts:
        write(record_batch(table, columns))
        rows += len(columns[0])
    return rows


_WRITERS: dict[ExportFormat, Callable[[Table, Iterator[Part], BinaryIO], int]] = {
    ExportFormat.CSV: _write_csv,
    ExportFormat.JSONL: _write_jsonl,
    ExportFormat.PARQUET: _write_parquet,
    ExportFormat.ARROW: _write_arrow,
}

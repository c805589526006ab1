"""What commands print: data on standard output, talk on standard error. `--json` prints one document."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

SCHEMA = 1
"""Of every JSON document; grows only when a field changes its meaning. New fields may come at any time."""


def document(fields: dict[str, Any]) -> None:
    """Print the command's JSON document."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps({"schema": SCHEMA, **fields}, indent=indent, ensure_ascii=False))


def line(fields: dict[str, Any]) -> None:
    """Print one document of a stream of them (JSON Lines)."""
    print(json.dumps({"schema": SCHEMA, **fields}, ensure_ascii=False), flush=True)


def say(text: str) -> None:
    """Data for people."""
    print(text)


def talk(text: str) -> None:
    """Everything that is not data: progress, hints, warnings."""
    print(text, file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """A table for people; `right` names the columns of numbers. In a pipe it is as wide as it needs to be."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, emoji=False, markup=False)
    console.print(rendered(columns, rows, right=right))


def rendered(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> Any:
    """The same as a rich renderable."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(value if isinstance(value, Text) else Text(cell(value)) for value in row))
    return made


def cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}".replace(",", " ") if isinstance(value, int) and not isinstance(value, bool) else str(value)


def span(seconds: float | None) -> str:
    """A duration for people: `1.2 s`, `3 min 5 s`, `2 h 10 min`, `41 days`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `4 711 rows`."""
    return f"{cell(number)} {noun if number == 1 else plural or noun + 's'}"

"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import typer

from gapless.errors import UsageError

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="gapless.toml (the default, or $GAPLESS_CONFIG), or app.py:app for an app in Python.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
SourceOption = Annotated[
    str | None,
    typer.Option("--source", "-s", metavar="NAME", help="Which source, where there are several.", show_default=False),
]
RangeOption = Annotated[
    str | None,
    typer.Option(
        "--range", metavar="A..B", help="Positions, both ends included: 5..9, 5.., ..9, or 7.", show_default=False
    ),
]

_RANGE = re.compile(r"\s*([0-9][0-9_]*)?\s*(\.\.)?\s*([0-9][0-9_]*)?\s*")


@dataclass(frozen=True, slots=True)
class Range:
    """Positions as asked for; an open end is None."""

    first: int | None = None
    last: int | None = None

    def __str__(self) -> str:
        ends = ("" if end is None else str(end) for end in (self.first, self.last))
        return "..".join(ends)


def parse_range(text: str | None) -> Range:
    """The range of `--range`. Raises UsageError."""
    if text is None:
        return Range()
    match = _RANGE.fullmatch(text)
    if match is None or not any(match.groups()):
        raise UsageError(f"{text!r} is not a range", todo="Write --range 5..9, 5.., ..9, or 7.")
    first, dots, last = match.groups()
    low = None if first is None else int(first)
    high = low if not dots else None if last is None else int(last)
    if low is not None and high is not None and low > high:
        raise UsageError(f"The range {text} ends before it begins", todo=f"Write --range {high}..{low}.")
    return Range(low, high)

"""Durations, sizes, shares, finality and start as people write them, and as annotated types of the configuration.

A quantity in the file is text with its unit (`"30 seconds"`, `"64 MB"`, `"1%"`); a bare number is refused, because
nobody can see its unit. Each annotated type parses its text, prints itself back the same way (`config show`), and
carries the JSON Schema and the word the reference page uses for it.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from gapless.model import Finality, FinalityRule

_QUANTITY = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z%]+)\s*")

_SECONDS = {
    "ms": 0.001,
    "millisecond": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
_NAMED_SECONDS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))

_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_NAMED_BYTES = tuple((name, _BYTES[name.lower()]) for name in ("GB", "GiB", "MB", "MiB", "KB", "KiB"))

_POSITIONS = frozenset({"block", "blocks", "position", "positions"})


def _quantity(text: Any) -> tuple[float, str] | None:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    return (float(match[1].replace("_", "")), match[2]) if match else None


# --- text -> value -------------------------------------------------------------------------------------------------


def duration_seconds(text: Any) -> float:
    """Seconds of `"500 ms"`, `"30 seconds"`, `"15 minutes"`, `"2 hours"`, `"1 day"`. Raises ValueError."""
    found = _quantity(text)
    if found is not None:
        number, unit = found
        unit = unit.lower()
        factor = _SECONDS.get(unit) or _SECONDS.get(unit.removesuffix("s"))
        if factor is not None:
            return number * factor
    raise ValueError(f'{text!r} is not a duration; write a number and a unit, such as "30 seconds" or "500 ms"')


def size_bytes(text: Any) -> int:
    """Bytes of `"64 MB"` (powers of ten) or `"64 MiB"` (powers of two). Raises ValueError."""
    found = _quantity(text)
    if found is not None:
        number, unit = found
        factor = _BYTES.get(unit.lower())
        if factor is not None:
            return round(number * factor)
    raise ValueError(f'{text!r} is not a size; write a number and a unit, such as "64 MB"')


def share(text: Any) -> float:
    """A share from 0 to 1 of `"1%"`. Raises ValueError."""
    found = _quantity(text)
    if found is not None and found[1] == "%" and 0 <= found[0] <= 100:
        return found[0] / 100
    raise ValueError(f'{text!r} is not a share; write a percentage from "0%" to "100%"')


def finality(text: Any) -> Finality:
    """`"finalized"` or `"safe"` (the chain's tag), `"12 blocks"` (depth), `"15 minutes"` (age). Raises ValueError."""
    if isinstance(text, Finality):
        return text
    if isinstance(text, str) and text in {"finalized", "safe"}:
        return Finality(FinalityRule.TAG, text)
    found = _quantity(text)
    if found is not None and found[1].lower() in _POSITIONS and found[0] == int(found[0]):
        return Finality(FinalityRule.DEPTH, int(found[0]))
    try:
        return Finality(FinalityRule.AGE, duration_seconds(text))
    except ValueError:
        raise ValueError(
            f'{text!r} is not a finality rule; write "finalized", "safe", a depth such as "12 blocks", '
            'or an age such as "15 minutes"'
        ) from None


def start(value: Any) -> int | Literal["head"] | datetime:
    """A first position, `"head"`, or a date (midnight UTC) or time (UTC where no zone is given). Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if value == "head":
        return "head"
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise ValueError('is neither a position (0 or more), nor "head", nor a date such as 2026-11-22')


# --- value -> text -------------------------------------------------------------------------------------------------


def _plain(number: float) -> str:
    return f"{number:.9f}".rstrip("0").rstrip(".")


def duration_text(seconds: float) -> str:
    """The shortest exact way to write a duration: `"15 seconds"`, `"5 minutes"`, `"500 ms"`."""
    for name, factor in _NAMED_SECONDS:
        if seconds >= factor and seconds % factor == 0:
            count = _plain(seconds / factor)
            return f"{count} {name}" + ("" if count == "1" else "s")
    return f"{_plain(seconds)} seconds" if seconds >= 1 else f"{_plain(seconds * 1000)} ms"


def size_text(size: int) -> str:
    """The shortest exact way to write a size: `"64 MB"`, `"1 GiB"`."""
    for name, factor in _NAMED_BYTES:
        if size >= factor and size % factor == 0:
            return f"{size // factor} {name}"
    return f"{size} B"


def share_text(value: float) -> str:
    return f"{_plain(value * 100)}%"


def finality_text(rule: Finality) -> str:
    if rule.rule is FinalityRule.DEPTH:
        return f"{rule.value} blocks"
    return str(rule.value) if rule.rule is FinalityRule.TAG else duration_text(float(rule.value))


def start_text(value: int | str | datetime) -> int | str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


# --- annotated types -----------------------------------------------------------------------------------------------


def _schema(word: str, *examples: str, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "x-word": word, "examples": list(examples), **more})


Duration = Annotated[
    float,
    Field(gt=0),
    BeforeValidator(duration_seconds),
    PlainSerializer(duration_text, return_type=str),
    _schema("duration", "30 seconds", "500 ms", "15 minutes"),
]
Size = Annotated[
    int,
    Field(gt=0),
    BeforeValidator(size_bytes),
    PlainSerializer(size_text, return_type=str),
    _schema("size", "64 MB", "1 GiB"),
]
Share = Annotated[
    float,
    BeforeValidator(share),
    PlainSerializer(share_text, return_type=str),
    _schema("share", "1%", "100%"),
]
FinalityText = Annotated[
    Finality,
    BeforeValidator(finality),
    PlainSerializer(finality_text, return_type=str),
    _schema("finality rule", "finalized", "safe", "12 blocks", "15 minutes"),
]
Start = Annotated[
    int | Literal["head"] | datetime,
    BeforeValidator(start),
    PlainSerializer(start_text, return_type=int | str),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}],
            "x-word": 'position, "head" or date',
            "examples": [0, "head", "2026-11-22"],
        }
    ),
]

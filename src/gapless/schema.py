"""Tables, columns, and the one canonical text form of every value.

A value has exactly one canonical text, whatever the source that produced it and the database that holds it.
Rows travel as columns of canonical text from decoding to the database and into the digest, so nothing is converted
twice and SQLite, Postgres and a second machine cannot disagree:

| kind      | canonical text                        | Python        | SQLite  | Postgres       |
|-----------|---------------------------------------|---------------|---------|----------------|
| INT       | `-12`: signed, 64 bits                | int           | INTEGER | BIGINT         |
| UINT256   | `115…`: any integer, exact            | int           | TEXT    | NUMERIC(78,0)  |
| ADDRESS   | `0x` + 40 lower-case hex digits       | str           | TEXT    | TEXT           |
| HASH      | `0x` + 64 lower-case hex digits       | str           | TEXT    | TEXT           |
| BYTES     | `0x` + lower-case hex digits          | str           | TEXT    | TEXT           |
| BOOL      | `0` or `1`                            | bool          | INTEGER | BOOLEAN        |
| TIMESTAMP | `2026-11-22T07:00:00Z`, micros if any | datetime UTC  | TEXT    | TIMESTAMPTZ    |
| TEXT      | as is, without NUL                    | str           | TEXT    | TEXT           |
| JSON      | compact, keys sorted                  | list/dict/…   | TEXT    | JSONB          |

NULL is Python's None in a column.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gapless.errors import ConfigError, check

if TYPE_CHECKING:
    from gapless.packed import Packed

Column_ = Sequence["str | None"]
"""A column of canonical text."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""NUL as `json` writes it. After an odd number of backslashes: after an even one it is text about NUL."""


class Kind(StrEnum):
    """What a column holds."""

    INT = "int"
    UINT256 = "uint256"
    ADDRESS = "address"
    HASH = "hash"
    BYTES = "bytes"
    BOOL = "bool"
    TIMESTAMP = "timestamp"
    TEXT = "text"
    JSON = "json"


_NEEDS_ESCAPE = frozenset({Kind.TEXT, Kind.JSON})


class Nature(StrEnum):
    """Facts belong to one entry and vanish with it; state is keyed by the user and undone on a fork."""

    FACT = "fact"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the app, belonging to one source.

    A fact table's first column is the position of its entry (`block_number` on chains), and starts its key.
    A state table gets a `_position` column from the store: the entry that wrote the row last."""

    name: str
    source: str
    nature: Nature
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        if len(set(names)) != len(names):
            doubled = sorted({n for n in names if names.count(n) > 1})
            raise ConfigError(f"Table {self.name!r} has the column {doubled[0]!r} twice", todo="Rename one of them.")
        check(set(self.key) <= set(names), f"the key of table {self.name} names its columns")
        if self.nature is Nature.FACT:
            check(self.key[0] == names[0], f"table {self.name} starts with its position")

    @property
    def position_column(self) -> str:
        return self.columns[0].name if self.nature is Nature.FACT else "_position"

    @cached_property
    def key_indexes(self) -> tuple[int, ...]:
        names = [c.name for c in self.columns]
        return tuple(names.index(k) for k in self.key)

    def describe(self) -> dict[str, Any]:
        """Plain data for the stored definition; equal definitions have equal descriptions."""
        return {
            "name": self.name,
            "source": self.source,
            "nature": self.nature.value,
            "columns": [[c.name, c.kind.value, c.nullable] for c in self.columns],
            "key": list(self.key),
        }


@dataclass(frozen=True)
class Schema:
    """All tables of an app, and the version they live in."""

    app: str
    tables: tuple[Table, ...]
    sources: tuple[str, ...]
    version: str = "v1"

    def __post_init__(self) -> None:
        names = [t.name for t in self.tables]
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            raise ConfigError(f"Two tables are named {doubled[0]!r}", todo="Rename a contract, event or table.")

    def table(self, name: str) -> Table:
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(name)

    def of(self, source: str, nature: Nature | None = None) -> tuple[Table, ...]:
        """The tables of one source, sorted by name (the order of digests)."""
        found = (t for t in self.tables if t.source == source and (nature is None or t.nature is nature))
        return tuple(sorted(found, key=lambda t: t.name))

    def describe(self) -> str:
        """Canonical JSON of the tables, as stored in `gapless_versions`."""
        return canonical_json([t.describe() for t in sorted(self.tables, key=lambda t: t.name)])

    def fingerprint(self) -> str:
        return hashlib.sha256(self.describe().encode()).hexdigest()


@dataclass(frozen=True)
class Rows:
    """Fact rows of one table for a run of entries, as columns of canonical text.

    `counts[i]` is the number of rows of the i-th entry; rows are in entry order, then in key order."""

    table: Table
    columns: tuple[Column_, ...]
    counts: tuple[int, ...]
    packed: Packed | None = None
    """The same rows as one matrix, where they were made so: then `columns` are made from it when looked at."""

    def __len__(self) -> int:
        return len(self.columns[0])

    @classmethod
    def of_packed(cls, table: Table, packed: Packed, counts: Sequence[int]) -> Rows:
        return cls(table, tuple(map(packed.column, range(len(table.columns)))), tuple(counts), packed)

    def part(self, first: int, upto: int) -> Rows:
        """The rows of the entries first..upto-1, counted from 0."""
        start, end = sum(self.counts[:first]), sum(self.counts[:upto])
        if self.packed is not None:
            return Rows.of_packed(self.table, self.packed.rows(start, end), self.counts[first:upto])
        return Rows(self.table, tuple(c[start:end] for c in self.columns), self.counts[first:upto])

    @cached_property
    def text(self) -> bytes:
        """The canonical lines, each with a newline."""
        return self.packed.text if self.packed is not None else ("\n".join(self.lines) + "\n").encode()

    @cached_property
    def lines(self) -> list[str]:
        """One canonical line per row: tab-separated, `\\N` for NULL, escaped as in Postgres' COPY text format."""
        if self.packed is not None:
            return self.text.decode("ascii").splitlines()
        rendered: list[Column_] = []
        for column, values in zip(self.table.columns, self.columns, strict=True):
            if column.kind in _NEEDS_ESCAPE:
                values = [None if v is None else escape(v) for v in values]
            if column.nullable:
                values = ["\\N" if v is None else v for v in values]
            rendered.append(values)
        return list(map("\t".join, zip(*rendered, strict=True)))


def escape(text: str) -> str:
    """Backslash escapes of Postgres' COPY text format."""
    if "\\" in text or "\t" in text or "\n" in text or "\r" in text:
        return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return text


# --- canonical text <-> Python -------------------------------------------------------------------------------------


def timestamp_text(microseconds: int) -> str:
    """Canonical text of a time given in microseconds since 1970 UTC. Raises OverflowError for one that no database
    holds: before the year 1, or after 9999."""
    return _moment_text(_EPOCH + timedelta(microseconds=microseconds))


def _moment_text(moment: datetime) -> str:
    # isoformat, because strftime does not fill the year up to four digits.
    return moment.replace(tzinfo=None).isoformat() + "Z"


def _timestamp(value: datetime | str) -> str:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if value.tzinfo is None:
        raise ValueError("a timestamp needs a time zone")
    try:
        return _moment_text(value.astimezone(UTC))
    except OverflowError as error:
        raise ValueError(f"{value} is before the year 1 or after 9999 in UTC") from error


def _integer(value: Any) -> str:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()) or int(value) != value:
        raise ValueError(f"{value!r} is not an integer")
    return str(int(value))


def _int64(value: Any) -> str:
    text = _integer(value)
    if not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"{value} does not fit 64 bits")
    return text


def _uint256(value: Any) -> str:
    if isinstance(value, str):
        value = int(value)
    text = _integer(value)
    if len(text.lstrip("-")) > 78:
        raise ValueError("more than 78 digits")
    return text


def _hex(digits: int | None) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if isinstance(value, bytes | bytearray | memoryview):
            text = "0x" + bytes(value).hex()
        else:
            text = str(value).lower()
            if not text.startswith("0x"):
                raise ValueError(f"{value!r} does not start with 0x")
            bytes.fromhex(text[2:])
        if digits is not None and len(text) != digits + 2:
            raise ValueError(f"{value!r} does not have {digits} hex digits")
        return text

    return convert


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    if "\0" in value:
        raise ValueError("text with NUL, which Postgres cannot store")
    value.encode()  # half of a surrogate pair is no text: a ValueError
    return value


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys; refuses NaN and infinities. Integers of any size stay exact.

    Numbers are written so that a database that reads them as decimals (JSONB) gives the same text back: a whole number
    of 1e16 and above without exponent, and zero without a sign."""
    text = _dumped(value)
    return _dumped(_without_exponents(value)) if "e+" in text or "-0.0" in text else text


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)


def _without_exponents(value: Any) -> Any:
    if isinstance(value, float):
        return int(Decimal(repr(value))) if abs(value) >= 1e16 else value or 0.0
    if isinstance(value, dict):
        return {k: _without_exponents(v) for k, v in value.items()}
    return [_without_exponents(v) for v in value] if isinstance(value, list | tuple) else value


def _json(value: Any) -> str:
    _check_keys(value)
    text = canonical_json(value)
    if "\\u0000" in text and _NUL_IN_JSON.search(text):
        raise ValueError("JSON text with NUL, which Postgres cannot store")
    text.encode()
    return text


def _check_keys(value: Any) -> None:
    """A key that is no text becomes one in JSON, and then sorts differently: 2 comes before 10, "10" before "2"."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} of a JSON object is not text")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)


def _bool(value: Any) -> str:
    if value not in (0, 1, True, False):
        raise ValueError(f"{value!r} is not a truth value")
    return "1" if value else "0"


_TO_TEXT: dict[Kind, Callable[[Any], str]] = {
    Kind.INT: _int64,
    Kind.UINT256: _uint256,
    Kind.ADDRESS: _hex(40),
    Kind.HASH: _hex(64),
    Kind.BYTES: _hex(None),
    Kind.BOOL: _bool,
    Kind.TIMESTAMP: _timestamp,
    Kind.TEXT: _text,
    Kind.JSON: _json,
}

_FROM_TEXT: dict[Kind, Callable[[str], Any]] = {
    Kind.INT: int,
    Kind.UINT256: int,
    Kind.ADDRESS: str,
    Kind.HASH: str,
    Kind.BYTES: str,
    Kind.BOOL: lambda t: t == "1",
    Kind.TIMESTAMP: datetime.fromisoformat,
    Kind.TEXT: str,
    Kind.JSON: json.loads,
}


def to_text(column: Column, value: Any) -> str | None:
    """Canonical text of a Python or database value. Raises ValueError when the value does not fit the column."""
    if value is None:
        if not column.nullable:
            raise ValueError(f"column {column.name} may not be NULL")
        return None
    return _TO_TEXT[column.kind](value)


def from_text(column: Column, text: str | None) -> Any:
    """The Python value of a canonical text."""
    return None if text is None else _FROM_TEXT[column.kind](text)


def python_column(column: Column, texts: Column_) -> list[Any]:
    """A whole column as Python values."""
    convert = _FROM_TEXT[column.kind]
    if convert is str:
        return list(texts)
    if column.nullable:
        return [None if t is None else convert(t) for t in texts]
    return [convert(t) for t in texts]  # type: ignore[arg-type]

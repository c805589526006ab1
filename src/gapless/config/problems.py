"""What is wrong with a configuration, in plain words, with file, line and key; all of it at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gapless.config.keys import Path_, keys_at
from gapless.config.secrets import redact
from gapless.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_ASSIGNMENT = re.compile(r"\s*([A-Za-z0-9_.\-\"' ]+?)\s*=")
_EMPTY = "is empty"
_EXPECTED = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "model_type": "a table of keys",
    "model_attributes_type": "a table of keys",
    "mapping_type": "a table of tables",
    "dict_type": "a table of tables",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend."""

    key: Path_
    what: str
    """Reads on after the key: `is not a duration; write …`."""
    origin: str | None = None
    """Where the value comes from, when that is not the file."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; perhaps you mean 'url'` for a near miss, else the words there are, else nothing."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; perhaps you mean {near[0]!r}"
    return f"; known: {', '.join(known)}" if known else ""


def key_text(path: Sequence[str]) -> str:
    return ".".join(path)


# --- pydantic's errors, in our words -------------------------------------------------------------------------------


def from_validation(error: ValidationError, raw: Mapping[str, Any]) -> list[Problem]:
    """Problems of a failed validation of `raw`. Unknown kinds of source are left out: they are found before."""
    found = [
        _problem(item, raw) for item in error.errors(include_url=False) if not item["type"].startswith("union_tag")
    ]
    keys = [problem.key for problem in found]
    return [problem for problem in found if problem.what != _EMPTY or keys.count(problem.key) == 1]


def _problem(item: ErrorDetails, raw: Mapping[str, Any]) -> Problem:
    location = [str(part) for part in item["loc"]]
    if location[:1] == ["sources"] and len(location) > 2:
        del location[2]  # the tag of the union: which kind of source
    key_itself = "[key]" in location
    path = tuple(part for part in location if part != "[key]" and not part.isdigit())
    kind = item["type"]
    if kind == "missing":
        return Problem(path, "is missing")
    if kind == "extra_forbidden":
        return Problem(path, "is not a known key" + suggestion(path[-1], keys_at(path[:-1], raw)))
    what = _said(item, _value_at(raw, location))
    return Problem(path, f"has a name that does not do: {what}" if key_itself else what)


def _value_at(raw: Any, location: Sequence[str]) -> Any:
    name = ""
    for part in location:
        if isinstance(raw, Mapping) and part in raw:
            raw, name = raw[part], part
        elif isinstance(raw, list) and part.isdigit() and int(part) < len(raw):
            raw = raw[int(part)]
    return redact(raw, name)


def _said(item: ErrorDetails, value: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    shown = repr(value) if not isinstance(value, Mapping) else "a table"
    if kind == "value_error":
        said = str(context["error"])
        return said if said.startswith(("'", '"', repr(value))) else f"{shown} {said}"
    if kind in _EXPECTED:
        return f"{shown} is not {_EXPECTED[kind]}"
    if kind == "literal_error":
        return f"{shown} is not one of {context['expected']}".replace(" or ", ", ")
    if kind in {"greater_than_equal", "greater_than"}:
        least = context.get("ge", context.get("gt"))
        return f"{shown} is too small; it must be {'at least' if 'ge' in context else 'more than'} {least}"
    if kind in {"too_short", "string_too_short"}:
        return _EMPTY
    return f"{shown}: {item['msg']}"


# --- where it is ---------------------------------------------------------------------------------------------------


def line_of(text: str, path: Path_) -> int | None:
    """The line (from 1) that sets the key, or else opens its table. A search, not a parser: good for a message."""
    table: Path_ = ()
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.fullmatch(line)
        if header:
            table = _split(header[1])
            at = table
        elif assignment := _ASSIGNMENT.match(line):
            at = table + _split(assignment[1])
        else:
            continue
        if at and at == path[: len(at)] and (best is None or len(at) > best[0]):
            best = (len(at), number)
    return best[1] if best else None


def _split(dotted: str) -> Path_:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def refuse(problems: Sequence[Problem], where: str, text: str) -> ConfigError:
    """One error that names every problem, in the order of the file."""
    placed = sorted(
        ((line_of(text, p.key) if p.origin is None else None, p) for p in problems),
        key=lambda item: (item[0] is None, item[0] or 0, item[1].key),
    )
    said = [_sentence(line, problem, where) for line, problem in placed]
    if len(said) == 1:
        return ConfigError(said[0], todo="Correct it and run `gapless config check`.")
    lines = "".join(f"\n  - {one}" for one in said)
    return ConfigError(
        f"{where} has {len(said)} problems:{lines}", todo="\nCorrect them and run `gapless config check`."
    )


def _sentence(line: int | None, problem: Problem, where: str) -> str:
    place = problem.origin or (f"{where}, line {line}" if line else where)
    return f"{place}: {key_text(problem.key)}: {problem.what}" if problem.key else f"{place}: {problem.what}"

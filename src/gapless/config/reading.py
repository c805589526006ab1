"""From TOML, environment and secret files to plain values, remembering where each came from and what is wrong.

Order: file, `${VAR}` in it, then `GAPLESS_SECTION__KEY` from the environment, which wins.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from gapless.config.keys import Path_, field_at
from gapless.config.problems import Problem
from gapless.errors import ConfigError

ENVIRONMENT_PREFIX = "GAPLESS_"
SEPARATOR = "__"
"""Between the parts of a key in an environment variable; a variable without it (`GAPLESS_DEBUG`) is not a key."""

FILE = "file"
"""Origin of what stands in the configuration file itself."""
PYTHON = "python"
"""Origin of what an app in Python declares."""

_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(slots=True)
class Reading:
    """Values on their way to the tree."""

    raw: dict[str, Any]
    base: Path
    where: str
    """The file's name as shown in messages."""
    text: str = ""
    origins: dict[Path_, str] = field(default_factory=dict)
    """Of every key that is set; what is not here has its default."""
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, key: Path_, what: str) -> None:
        self.problems.append(Problem(key, what, self.elsewhere(key)))

    def elsewhere(self, key: Path_) -> str | None:
        """Where a key's value comes from, unless it is the file itself."""
        origin = self.origins.get(key)
        if origin is None:  # a table: all of it may come from elsewhere
            below = {o for k, o in self.origins.items() if k[: len(key)] == key}
            origin = below.pop() if len(below) == 1 else FILE
        return None if origin == FILE else origin

    def tables(self, pattern: Path_) -> list[tuple[dict[str, Any], Path_]]:
        """The tables a pattern such as `("sources", "*")` stands for, with their keys."""
        found: list[tuple[dict[str, Any], Path_]] = [(self.raw, ())]
        for part in pattern:
            found = [
                (table[name], (*key, name))
                for table, key in found
                for name in (list(table) if part == "*" else [part])
                if isinstance(table.get(name), dict)
            ]
        return found


def read_file(path: Path) -> tuple[dict[str, Any], str]:
    """Values and text of a TOML file. Raises ConfigError."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration at {path}",
            todo="Run `gapless init` to make one, or name yours with `-c FILE`.",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", todo="Check the path and its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start} is not", todo="Save it as UTF-8.") from error
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
        said = str(error)[: place.start()] if place else str(error)
        at = f", line {place[1]}, column {place[2]}" if place and place[1] else f", line {text.count(chr(10)) + 1}"
        raise ConfigError(f"{path}{at}: not valid TOML: {said}", todo="Correct the syntax there.") from error


def interpolate(reading: Reading, environment: Mapping[str, str]) -> None:
    """Replace `${VAR}` and `${VAR:-default}` in every text; `$${` stands for `${`."""

    def walk(value: Any, key: Path_) -> Any:
        if isinstance(value, dict):
            return {k: walk(v, (*key, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(v, key) for v in value]
        return _VARIABLE.sub(lambda m: replaced(m, key), value) if isinstance(value, str) else value

    def replaced(match: re.Match[str], key: Path_) -> str:
        name, default = match[1], match[2]
        if name is None:
            return "${"
        value = environment.get(name)
        if default is not None:
            return value or default
        if value is None:
            reading.refuse(
                key, f"needs the environment variable {name}, which is not set; set it, or write ${{{name}:-default}}"
            )
            return match[0]
        return value

    reading.raw = walk(reading.raw, ())


def mark(reading: Reading, origin: str) -> None:
    """Remember the origin of every value there is."""
    for key in leaves(reading.raw):
        reading.origins.setdefault(key, origin)


def leaves(raw: Mapping[str, Any], prefix: Path_ = ()) -> Iterator[Path_]:
    for name, value in raw.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name)


# --- environment ---------------------------------------------------------------------------------------------------


def override(reading: Reading, environment: Mapping[str, str]) -> None:
    """Set keys from `GAPLESS_SECTION__KEY` variables."""
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX) or SEPARATOR not in variable:
            continue
        key = tuple(part.lower() for part in variable.removeprefix(ENVIRONMENT_PREFIX).split(SEPARATOR))
        if not all(key):
            continue
        reading.origins[key] = f"environment {variable}"
        try:
            _set(reading.raw, key, _typed(reading.raw, key, environment[variable]))
        except ValueError as error:
            reading.refuse(key, str(error))


def _set(raw: dict[str, Any], key: Path_, value: Any) -> None:
    for part in key[:-1]:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise ValueError("lies inside a key that is not a table")
    raw[key[-1]] = value


def _typed(raw: Mapping[str, Any], key: Path_, text: str) -> Any:
    """The text as the type the key has: a list as JSON or separated by commas, a number, a truth value, or text."""
    found = field_at(key, raw)
    types = set(_types(found.annotation)) if found else set()
    if tuple in types:
        if not text.lstrip().startswith("["):
            return [part.strip() for part in text.split(",") if part.strip()]
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"is not a JSON list: {error.msg} at character {error.pos}") from error
    if bool in types and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if int in types and re.fullmatch(r"-?[0-9][0-9_]*", text):
        return int(text)
    return text


def _types(annotation: Any) -> Iterator[Any]:
    yield get_origin(annotation) or annotation
    for part in get_args(annotation):
        yield from _types(part)

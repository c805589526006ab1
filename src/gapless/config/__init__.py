"""Configuration: one frozen typed tree, parsed once from TOML and the environment, every problem reported at once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gapless.config import completion, problems, reading
from gapless.config.tree import (
    Chain,
    Config,
    Contract,
    EvmSource,
    Hashing,
    Journal,
    Lease,
    Limits,
    ReplaySource,
    Store,
    Telemetry,
)

__all__ = [
    "Chain",
    "Config",
    "Contract",
    "EvmSource",
    "Hashing",
    "Journal",
    "Lease",
    "Limits",
    "ReplaySource",
    "Store",
    "Telemetry",
    "load",
    "parse",
]


def load(path: Path | None, environment: Mapping[str, str]) -> Config:
    """Read the configuration from a TOML file and `GAPLESS_SECTION__KEY` variables; without a file, from the latter.

    Raises ConfigError that names every problem with file, line, key and what to write instead."""
    if path is None:
        return _finish(reading.Reading({}, Path.cwd(), "the environment"), environment, None)
    path = path.absolute()
    raw, text = reading.read_file(path)
    values = reading.Reading(raw, path.parent, path.name, text)
    reading.mark(values, reading.FILE)
    reading.interpolate(values, environment)
    return _finish(values, environment, path)


def parse(values: Mapping[str, Any], *, base: Path, environment: Mapping[str, str] | None = None) -> Config:
    """The same from plain data with the keys of the file, for an app declared in Python.

    Relative paths are relative to `base`. Raises ConfigError."""
    built = reading.Reading(copy.deepcopy(dict(values)), base.absolute(), "the app's configuration")
    reading.mark(built, reading.PYTHON)
    return _finish(built, environment or {}, None)


def _finish(values: reading.Reading, environment: Mapping[str, str], path: Path | None) -> Config:
    reading.override(values, environment)
    completion.read_secrets(values)
    completion.complete(values)
    config = None
    try:
        config = Config.model_validate(values.raw)
    except ValidationError as error:
        refused = {problem.key for problem in values.problems}
        found = problems.from_validation(error, values.raw)
        values.problems += [
            problems.Problem(p.key, p.what, values.elsewhere(p.key)) for p in found if p.key not in refused
        ]
    if config is None or values.problems:
        raise problems.refuse(values.problems, values.where, values.text)
    return config.with_origins(path, {".".join(k): origin for k, origin in values.origins.items()})

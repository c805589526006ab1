"""How much of each fault: the small numbers of `make test`, the large ones of `make nightly`, and how to repeat a run.

Every number has an environment variable: `FAULTS_KILLS=300 make nightly`. So has the seed: `FAULTS_SEED=7`. What a
suite measured is printed, and appended as JSON to the file that `FAULTS_FIGURES` names.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest


def tiers(name: str, commit: int, nightly: int, *, timeout_seconds: int = 3600) -> list[Any]:
    """Parameters of a test in both tiers; `FAULTS_<NAME>` replaces the nightly number."""
    many = int(os.environ.get(f"FAULTS_{name}", nightly))
    return [commit, pytest.param(many, marks=[pytest.mark.slow, pytest.mark.timeout(timeout_seconds)])]


def draws(test: str, number: int) -> random.Random:
    """The randomness of one test. Says how to have it again."""
    seed = int(os.environ.get("FAULTS_SEED", 1))
    print(f"again: FAULTS_SEED={seed} .venv/bin/python -m pytest tests/faults -k '{test} and {number}'")
    return random.Random(f"{test} {number} {seed}")


def patience(*, few: bool) -> float:
    """What limits of time are multiplied by: much where few samples say little, and machines are shared;
    `FAULTS_PATIENCE` for a machine that is busy with other things."""
    return 5.0 if few else float(os.environ.get("FAULTS_PATIENCE", 1))


def figures(test: str, **found: Any) -> None:
    """Print what was measured, and keep it."""
    line = {"test": test, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **found}
    print(json.dumps(line))
    kept = os.environ.get("FAULTS_FIGURES")
    if kept:
        with Path(kept).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def quantile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]

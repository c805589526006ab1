"""How long the machines run: `commit` in `make test`, `nightly` in `make nightly`.

`STATEFUL_PROFILE=whole .venv/bin/python -m pytest tests/stateful` runs 5,000 histories of 100 steps on every database,
which takes hours on a server; any other name of a profile is taken likewise, in the place of these two.

A failure prints the steps that lead to it, as a program to paste into `test_found.py`, where they are kept; Hypothesis
tries what failed last first (`.hypothesis`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, settings


@dataclass(frozen=True)
class Size:
    examples: int
    steps: int


WHOLE = Size(5_000, 100)
SIZES: dict[str, dict[str, Size]] = {
    "store memory": {"commit": Size(200, 50), "nightly": WHOLE},
    "store sqlite": {"commit": Size(50, 50), "nightly": WHOLE},
    "store postgres": {"commit": Size(20, 40), "nightly": Size(800, 100)},
    "engine memory": {"commit": Size(50, 40), "nightly": Size(2_000, 100)},
    "engine sqlite": {"commit": Size(12, 40), "nightly": Size(800, 100)},
    "engine postgres": {"commit": Size(6, 30), "nightly": Size(150, 100)},
}
_COMMIT_SECONDS_MAX, _LONG_SECONDS_MAX = 600, 12 * 3600
_CHOSEN = os.environ.get("STATEFUL_PROFILE")
PROFILES = (
    [pytest.param(_CHOSEN, marks=pytest.mark.timeout(_LONG_SECONDS_MAX))]
    if _CHOSEN
    else [
        pytest.param("commit", marks=pytest.mark.timeout(_COMMIT_SECONDS_MAX)),
        pytest.param("nightly", marks=[pytest.mark.slow, pytest.mark.timeout(_LONG_SECONDS_MAX)]),
    ]
)


def sized(kind: str, profile: str) -> settings:
    """Hypothesis' settings for one machine on one database."""
    size = (SIZES[kind] | {"whole": WHOLE})[profile]
    return settings(
        max_examples=size.examples,
        stateful_step_count=size.steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def hunting(examples: int, steps: int) -> settings:
    """For stores and engines broken on purpose: the first failure is enough, and it is the same one each time."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
    )

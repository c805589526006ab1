"""How long the machines run. `STATEFUL_PROFILE=nightly` is the long run; `commit`, what `make test` does.

A failure prints the steps that lead to it, as a program to paste into a test, and Hypothesis tries them first next
time (`.hypothesis`). What was found once stands in the tests of found failures.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings


@dataclass(frozen=True)
class Size:
    examples: int
    steps: int


SIZES: dict[str, dict[str, Size]] = {
    "commit": {
        "store memory": Size(200, 50),
        "store sqlite": Size(50, 50),
        "store postgres": Size(20, 40),
        "engine memory": Size(50, 40),
        "engine sqlite": Size(12, 40),
        "engine postgres": Size(6, 30),
    },
    "nightly": dict.fromkeys(
        ("store memory", "store sqlite", "store postgres", "engine memory", "engine sqlite", "engine postgres"),
        Size(5_000, 100),
    ),
}
PROFILE = os.environ.get("STATEFUL_PROFILE", "commit")


def sized(kind: str, profile: str = PROFILE) -> settings:
    """Hypothesis' settings for one machine on one database."""
    size = SIZES[profile][kind]
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

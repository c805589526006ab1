"""Which app and which database a seed is run with, and the seeds that found something once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.simulation.ledger import (
    BalancesFold,
    TotalsFold,
    TransfersFold,
    balances_app,
    totals_app,
    transfers_app,
)

from gapless.testing.simulated_world import SimulatedApp
from gapless.testing.simulation import Outcome, run, subject_of
from gapless.testing.simulation_plan import draw_plan

KEPT = Path(__file__).with_name("seeds.txt")
_SQLITE_EVERY = 10


@cache
def subjects() -> tuple[SimulatedApp, ...]:
    """The apps that are run, with their oracles."""
    return (
        subject_of(transfers_app(), oracle=TransfersFold()),
        subject_of(balances_app(), oracle=BalancesFold()),
        subject_of(totals_app(), oracle=TotalsFold()),
    )


def play(seed: int, *, tell: Callable[[str], None] | None = None, setting: Mapping[str, Any] | None = None) -> Outcome:
    """One seed: its app, and in a share of the seeds SQLite in the place of memory. `setting`: fields of the plan in
    the place of what the seed draws."""
    plan, subject = draw_plan(seed), subjects()[seed % 3]
    if setting:
        plan = replace(plan, **setting)
        always = {"lie": 3.0} if "lies" in setting else {}
        always |= {"fault": 3.0} if "faults" in setting else {}
        plan = replace(plan, events=plan.events | always)
    if on_sqlite(seed):
        with TemporaryDirectory(prefix="gapless-simulation-") as folder:
            return run(plan, subject, path=Path(folder) / "seed.db", tell=tell)
    return run(plan, subject, tell=tell)


def on_sqlite(seed: int) -> bool:
    """Whether a seed runs on SQLite."""
    return seed % _SQLITE_EVERY == 0


def again(seed: int) -> str:
    """The command that replays a seed."""
    return f"python -m tests.simulation --seed {seed} --trace"


def kept() -> list[int]:
    """The seeds in seeds.txt: the first word of each line that is no comment."""
    lines = (line.split("#")[0].strip() for line in KEPT.read_text(encoding="utf-8").splitlines())
    return [int(line) for line in lines if line]

"""Whole runs from seeds: everything that can go wrong, at once, and the proof that the simulation would notice."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.simulation.broken import BROKEN, Broken
from tests.simulation.seeds import again, kept, on_sqlite, play

from gapless.clock import SystemClock
from gapless.testing.simulation_plan import EVENTS, FAULTS, LIES_AT_PROVED, draw_plan

CHECKOUT = Path(__file__).resolve().parents[2]
SEEDS, SEEDS_AT_ONCE = 240, 20
"""About a minute of one idle core."""
SAME_SEEDS = 20


def passes(seed: int) -> None:
    """One seed; a failure says how to see it again."""
    try:
        play(seed)
    except Exception as error:
        error.add_note(f"Again: {again(seed)}\nKeep it: add it to tests/simulation/seeds.txt with what it found.")
        raise


@pytest.mark.parametrize("seed", kept())
def test_kept_seeds(seed: int) -> None:
    """What found a fault once is tried for ever, and first."""
    passes(seed)


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_AT_ONCE))
def test_seeds(first: int) -> None:
    """Whatever goes wrong, in whatever order: after each commit the tables are the fold over some branch, written by
    the one who leads; and once it is over they come to what an undisturbed run gives, in bounded time."""
    for seed in range(first, first + SEEDS_AT_ONCE):
        passes(seed)


# --- one seed, one history -----------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_a_seed_gives_one_history() -> None:
    """A seed played twice does the same to the last request, here and in a process whose sets are ordered otherwise."""
    seeds = [seed for seed in range(100, 130) if not on_sqlite(seed)][:SAME_SEEDS]
    code = f"from tests.simulation.seeds import play\nfor s in {seeds}: print(play(s).trace)"
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True
    ) as other:
        once, twice = ([play(seed).trace for seed in seeds] for _ in range(2))
        elsewhere = (other.communicate()[0] or "").split()
    assert once == twice == elsewhere
    assert len(set(once)) == SAME_SEEDS


def test_a_seed_gives_one_history_on_sqlite() -> None:
    """The same where a real database takes part."""
    assert play(10).trace == play(10).trace


def test_a_trace_tells_everything() -> None:
    """The one command that replays a seed shows what happened, with its time, down to single requests."""
    lines: list[str] = []
    outcome = play(1, tell=lines.append)
    kinds = Counter(line.split()[1] for line in lines)
    assert {"start", "event", "rpc", "store", "commit", "log", "mode", "heal"} <= kinds.keys()
    assert outcome.steps > 1000
    assert outcome.commits == kinds["commit"]


def test_every_kind_of_trouble_comes_up() -> None:
    """Each event, lie and fault there is is drawn by some seeds of an ordinary run, and is absent in others."""
    plans = [draw_plan(seed) for seed in range(SEEDS)]
    for kind in EVENTS:
        drawn = sum(kind in plan.events for plan in plans)
        assert drawn > SEEDS / 4, kind
        assert drawn < SEEDS or kind in ("mine", "ease")
    told = {repr(lie) for plan in plans for lie in plan.lies}
    assert told == {repr(lie) for lie in LIES_AT_PROVED}
    assert {repr(fault) for plan in plans for fault in plan.faults} == {repr(fault) for fault in FAULTS}


# --- broken on purpose ---------------------------------------------------------------------------------------------


def noticed_after(broken: Broken, seeds_max: int) -> int | None:
    """How many seeds it takes until one fails; None where none does."""
    with broken.put_in():
        in_memory = (seed for seed in itertools.count(broken.first) if not on_sqlite(seed))  # the faults are there
        for tried, seed in enumerate(itertools.islice(in_memory, seeds_max), 1):
            try:
                play(seed, setting=broken.setting)
            except Exception:  # noqa: BLE001 - however it shows
                return tried
    return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_what_is_broken_is_noticed(broken: Broken) -> None:
    """Each fault of the catalogue fails a seed within its bound: without that, seeds that pass would prove nothing."""
    began = SystemClock().monotonic()
    tried = noticed_after(broken, broken.seeds_max)
    assert tried is not None, f"{broken.what}: not noticed in {broken.seeds_max} seeds"
    print(f"{broken.name}: noticed by seed {tried}, after {SystemClock().monotonic() - began:.1f} s")

"""The file journal on a disk that loses everything that was not synced."""

from __future__ import annotations

import os

import pytest

from gapless.journal.file import FileLog
from simulation.journal.broken_logs import BROKEN
from simulation.journal.power_cut_run import Broken, runs

SEEDS_THAT_FOUND_SOMETHING: tuple[int, ...] = ()
FIRST = int(os.environ.get("GAPLESS_POWER_CUT_SEED", "0"))
"""`GAPLESS_POWER_CUT_SEED=123` plays from that seed on; a failure names its own."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(10))
def test_nothing_acknowledged_is_lost_in_a_power_cut(part: int) -> None:
    """200 seeds a part, each 200 operations, power cuts, crashes, failing disks: nothing lost, nothing invented."""
    for seed in SEEDS_THAT_FOUND_SOMETHING:
        runs(range(seed, seed + 1), 200)
    cuts = runs(range(FIRST + part * 200, FIRST + (part + 1) * 200), 200)
    assert cuts > 200 * 10


@pytest.mark.slow
def test_nothing_is_lost_in_a_hundred_thousand_runs() -> None:
    """The same, all night."""
    assert runs(range(1_000_000, 1_100_000), 200) > 1_000_000


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: b.__name__)
def test_journals_with_a_fault_break_the_law(broken: type[FileLog]) -> None:
    """A journal that omits one of its precautions is caught."""
    with pytest.raises(Broken):
        runs(range(150), 200, broken)

"""Random histories of trouble, and the proof that they notice engines broken on purpose."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from gapless.engine import plan
from gapless.engine.derive import Deriver
from gapless.engine.pipeline import Pipeline
from gapless.engine.state import StateCache
from gapless.store.memory import MemoryStore
from unit.engine import chaos
from unit.engine.chaos import World

SEEDS, SEEDS_AT_ONCE = 200, 20
SQLITE_SEEDS = 20
NOTABLE = (106, 111, 312, 1698)
"""Seeds that found something once: a cursor left on a dead branch below confirmations; finality forgotten by a report;
an ancestor guessed too low because whoever was asked lagged."""


def play(seed: int, path: Path | None = None) -> None:
    """One history; a failure says how to see it again."""
    try:
        with structlog.testing.capture_logs():
            World(seed, path).run()
    except Exception as error:
        error.add_note(f"Again: CHAOS_SEED={seed} pytest tests/unit/engine/test_chaos.py -k test_one_seed")
        raise


@pytest.mark.skipif("CHAOS_SEED" not in os.environ, reason="CHAOS_SEED names no seed")
def test_one_seed() -> None:
    """One history by itself, with its log."""
    World(int(os.environ["CHAOS_SEED"])).run()


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_AT_ONCE))
def test_random_trouble_in_memory(first: int) -> None:
    """Whatever fails, in whatever order: after each commit the tables are the fold over some branch, in the end over
    the present chain, and nobody writes who does not lead."""
    for seed in range(first, first + SEEDS_AT_ONCE):
        play(seed)


@pytest.mark.parametrize("first", range(0, SQLITE_SEEDS, SEEDS_AT_ONCE))
def test_random_trouble_on_sqlite(first: int, tmp_path: Path) -> None:
    """The same on a real database."""
    for seed in range(first, first + SEEDS_AT_ONCE):
        play(seed, tmp_path / f"{seed}.db")


@pytest.mark.parametrize("seed", NOTABLE)
def test_notable_seeds(seed: int) -> None:
    """What found a fault once is tried for ever."""
    play(seed)


# --- engines broken on purpose -------------------------------------------------------------------------------------

Break = Callable[[pytest.MonkeyPatch], None]


def commits_without_fence(patch: pytest.MonkeyPatch) -> None:
    """The database does not look at the token."""
    patch.setattr(MemoryStore, "_check_fence", lambda self, fence: None)


def compares_numbers_only(patch: pytest.MonkeyPatch) -> None:
    """Whatever has the next number continues the chain; no compare-and-set by id behind it."""
    patch.setattr(plan, "links", lambda cursor, first, start: first.position == cursor.position + 1)
    patch.setattr(plan, "head_contradicts", lambda cursor, head: False)
    patch.setattr("gapless.store.batches._links", lambda parent, parent_id: True)


def forgets_the_overlay(patch: pytest.MonkeyPatch) -> None:
    """On a fork, state is read as the old branch left it."""
    patch.setattr(MemoryStore, "state_before", lambda self, source, ancestor: [])


def moves_the_cursor_first(patch: pytest.MonkeyPatch) -> None:
    """The cursor moves in a transaction of its own, before the rows."""
    whole = chaos.FaultyStore.commit

    def torn(self: Any, batch: Any, expected: Any, fence: Any) -> None:
        self._inner.database.sources["s"].cursor = batch.entries[-1].cursor
        if self._draw.random() < self.trouble:
            raise chaos.StoreUnavailable("between the two")
        self._inner.database.sources["s"].cursor = expected
        whole(self, batch, expected, fence)

    patch.setattr(chaos.FaultyStore, "commit", torn)


def keeps_what_was_not_committed(patch: pytest.MonkeyPatch) -> None:
    """After a failed commit the state in memory stays as if it had not failed."""
    patch.setattr(Deriver, "reset", lambda self, before=(): None)


def trusts_memory_after_others_led(patch: pytest.MonkeyPatch) -> None:
    """Back in the lead, the state in memory is taken for the database's."""
    patch.setattr(Pipeline, "forget", lambda self: None)


def keeps_no_undo(patch: pytest.MonkeyPatch) -> None:
    """Every entry is taken for final."""
    whole = StateCache.begin_entry
    patch.setattr(StateCache, "begin_entry", lambda self, position, *, final: whole(self, position, final=True))


def evicts_what_is_not_committed(patch: pytest.MonkeyPatch) -> None:
    """A bounded cache drops rows that the database does not have yet."""
    whole = StateCache._evict

    def evict(self: StateCache) -> None:
        self._dirty.clear()
        whole(self)

    patch.setattr(StateCache, "_evict", evict)


def never_rewinds(patch: pytest.MonkeyPatch) -> None:
    """A new branch is written on top of the old one."""
    whole = Deriver.derive
    patch.setattr(
        Deriver, "derive", lambda self, segment, **given: whole(self, segment, **{**given, "rewind_to": None})
    )


def halts_at_first_sight(patch: pytest.MonkeyPatch) -> None:
    """A fork that must not be undone ends the run when one endpoint tells of it."""
    patch.setattr(plan, "votes", lambda ours, theirs: plan.Votes.FOLLOW)
    patch.setattr(plan.View, "silent_above", lambda self, common, parted: False)
    whole = World.__post_init__

    def made(self: World) -> None:
        whole(self)
        self.options = replace(self.options, fork_looks_max=0)

    patch.setattr(World, "__post_init__", made)


def blames_the_handler_for_the_database(patch: pytest.MonkeyPatch) -> None:
    """A row that cannot be read is the handler's failure."""
    patch.setattr(StateCache, "take_trouble", lambda self: None)


BREAKS: tuple[Break, ...] = (
    commits_without_fence,
    compares_numbers_only,
    forgets_the_overlay,
    moves_the_cursor_first,
    keeps_what_was_not_committed,
    trusts_memory_after_others_led,
    keeps_no_undo,
    evicts_what_is_not_committed,
    never_rewinds,
    halts_at_first_sight,
    blames_the_handler_for_the_database,
)
BROKEN_SEEDS_MAX = 200


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda b: b.__name__)
def test_a_broken_engine_is_noticed(breaks: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these faults shows within some hundred seeds; a test that none of them fails would prove nothing."""
    breaks(monkeypatch)
    with structlog.testing.capture_logs():
        for seed in range(BROKEN_SEEDS_MAX):
            try:
                World(seed).run()
            except Exception:  # noqa: BLE001 - however it shows
                return
    pytest.fail("nothing was noticed")

"""Engines broken on purpose, each in one way, that the machine must catch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from gapless.engine import plan
from gapless.engine.derive import Deriver
from gapless.engine.pipeline import Pipeline
from gapless.engine.repair import Repairer
from gapless.engine.state import StateCache
from gapless.errors import GaplessError, StoreUnavailable
from gapless.model import Fence, Undo
from gapless.store.memory import MemoryStore
from stateful.databases import InMemory
from stateful.engine_machine import machine_on
from stateful.processes import Fate, WayToTheStore
from stateful.profiles import hunting
from stateful.scripted_chain import SCHEMA


def caught(store: type[MemoryStore] = MemoryStore, examples: int = 200) -> BaseException | None:
    """What the machine says about the engine; None where it finds nothing."""
    database = type("Broken", (InMemory,), {"make": store})(SCHEMA)
    try:
        run_state_machine_as_test(machine_on(database), settings=hunting(examples, 30))
    except (AssertionError, GaplessError, pytest.fail.Exception) as fault:
        return fault
    return None


# --- on stores that are broken for it ------------------------------------------------------------------------------


class WithoutFence(MemoryStore):
    """Who was deposed writes on."""

    def _check_fence(self, fence: Fence) -> None:
        return


class KnowsNoStateBefore(MemoryStore):
    """On a fork, state is read as the old branch left it."""

    def state_before(self, source: str, ancestor: int) -> list[Undo]:
        return []


class BlindForDamage(MemoryStore):
    """Rows removed by hand are not missed."""

    def damaged(self, source: str, first: int, last: int) -> list[tuple[int, int, int]]:
        return []


@pytest.mark.parametrize("store", [WithoutFence, KnowsNoStateBefore, BlindForDamage], ids=lambda c: c.__name__)
def test_an_engine_on_a_broken_store_is_caught(store: type[MemoryStore]) -> None:
    """What only shows when an engine uses it, too."""
    assert caught(store)


# --- engines -------------------------------------------------------------------------------------------------------

Break = Callable[[pytest.MonkeyPatch], None]


def compares_numbers_only(patch: pytest.MonkeyPatch) -> None:
    """Whatever has the next number continues the chain."""
    patch.setattr(plan, "links", lambda cursor, first, start: first.position == cursor.position + 1)
    patch.setattr(plan, "head_contradicts", lambda cursor, head: False)
    patch.setattr("gapless.store.batches._links", lambda parent, parent_id: True)


def keeps_no_undo(patch: pytest.MonkeyPatch) -> None:
    """Every entry is taken for final."""
    whole = StateCache.begin_entry
    patch.setattr(StateCache, "begin_entry", lambda self, position, *, final: whole(self, position, final=True))


def never_rewinds(patch: pytest.MonkeyPatch) -> None:
    """A new branch is written on top of the old one."""
    whole = Deriver.derive
    patch.setattr(
        Deriver, "derive", lambda self, segment, **given: whole(self, segment, **{**given, "rewind_to": None})
    )


def keeps_what_was_not_committed(patch: pytest.MonkeyPatch) -> None:
    """After a failed commit the state in memory stays as if it had not failed."""
    patch.setattr(Deriver, "reset", lambda self, before=(): None)


def trusts_memory_after_others_led(patch: pytest.MonkeyPatch) -> None:
    """Back in the lead, the state in memory is taken for the database's."""
    patch.setattr(Pipeline, "forget", lambda self: None)


def forgets_what_waits_in_quarantine(patch: pytest.MonkeyPatch) -> None:
    """A repair drops the items of handlers that it does not run."""
    patch.setattr(Repairer, "_waiting", lambda self, first, last, handlers: [])


def commits_again_after_an_unknown_commit(patch: pytest.MonkeyPatch) -> None:
    """A commit whose fate is not known is done again, without comparing the cursor."""
    whole = WayToTheStore.commit

    def commit(self: Any, batch: Any, expected: Any, fence: Fence) -> None:
        lost = bool(self.fates) and self.fates[0] is Fate.LOST_AFTER
        try:
            whole(self, batch, expected, fence)
        except StoreUnavailable:
            if not lost:
                raise
            with self.inner.database.lock:
                self.inner._put((), batch)
                self.inner._write(self.inner._source("s"), batch)

    patch.setattr(WayToTheStore, "commit", commit)


def moves_the_cursor_first(patch: pytest.MonkeyPatch) -> None:
    """The cursor moves in a transaction before that of the rows."""
    whole = WayToTheStore.commit

    def commit(self: Any, batch: Any, expected: Any, fence: Fence) -> None:
        if self.fates and self.fates[0] is Fate.LOST_BEFORE:
            self.inner._source("s").cursor = batch.entries[-1].cursor
        whole(self, batch, expected, fence)

    patch.setattr(WayToTheStore, "commit", commit)


BREAKS: tuple[Break, ...] = (
    compares_numbers_only,
    keeps_no_undo,
    never_rewinds,
    keeps_what_was_not_committed,
    trusts_memory_after_others_led,
    forgets_what_waits_in_quarantine,
    commits_again_after_an_unknown_commit,
    moves_the_cursor_first,
)


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda b: b.__name__)
def test_a_broken_engine_is_caught(breaks: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within some hundred histories the fault shows."""
    breaks(monkeypatch)
    assert caught()


def test_a_sound_engine_is_not_caught() -> None:
    """Hunted in the same way, the engine as it is gives nothing to catch."""
    assert caught(examples=10) is None

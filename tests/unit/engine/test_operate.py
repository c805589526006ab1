"""What an operator asks for: rows and state that somebody changed are found, and put right or refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gapless.clock import SystemClock
from gapless.declare import UInt256, bind, key
from gapless.engine.handlers import Handler
from gapless.engine.observer import Observer
from gapless.engine.operate import Operator
from gapless.engine.plan import FollowOptions, Until
from gapless.engine.repair import Damage, find_damage
from gapless.engine.runner import Job, Runner
from gapless.errors import Refused
from gapless.schema import Schema
from gapless.store import StateRow
from gapless.store.memory import MemoryStore
from unit.engine.scripted import TABLE, ListDecoder, ScriptedSource

HEIGHT = 9
TTL_SECONDS = 5.0


@dataclass(frozen=True)
class Total:
    name: str = key()
    value: UInt256 = 0


TOTAL = bind(Total, "s")


def add(transfer: Any, tables: Any) -> None:
    total = tables[Total].get("all")
    tables[Total].put(Total("all", (total.value if total else 0) + transfer.value))


class World:
    """A chain of ten blocks with two transfers each, all of it committed."""

    def __init__(self, *, state: bool = True) -> None:
        self.clock = SystemClock(1)
        self.source = ScriptedSource()
        for position in range(HEIGHT + 1):
            self.source.mine(position + 20, position + 50)
        handlers = (Handler("add", "token.Transfer", add),) if state else ()
        bindings = (TOTAL,) if state else ()
        self.schema = Schema("app", (TABLE, *(b.table for b in bindings)), ("s",))
        self.store = MemoryStore(clock=self.clock)
        self.store.open(self.schema, create=True)
        job = Job(self.source, ListDecoder(), handlers, bindings, FollowOptions(0, until=Until.HEAD))
        asyncio.run(Runner([job], self.schema, self.store, self.clock, Observer(), TTL_SECONDS).run())
        self.operator = Operator(job, self.schema, self.store, self.clock, TTL_SECONDS)
        self.facts = self.store.database.facts[TABLE.name]
        assert self.found() == []

    def found(self) -> list[tuple[int, str]]:
        """What verifying everything finds: position and table."""
        verification = asyncio.run(self.operator.verify(0, HEIGHT))
        return [(m.position, m.table) for m in verification.mismatches]


@pytest.mark.parametrize("state", [True, False])
def test_a_changed_row_is_named(state: bool) -> None:
    """One value of one row: its block and table; repairing the block puts it right."""
    world = World(state=state)
    good = world.facts[4][1]
    world.facts[4][1] = (*good[:-1], "7")
    assert world.found() == [(4, TABLE.name)]
    asyncio.run(world.operator.repair([Damage(4, 4, "by hand")]))
    assert world.facts[4][1] == good
    assert world.found() == []


def test_changed_state_is_named() -> None:
    """State is folded again from the first block on."""
    world = World()
    rows = world.store.database.state[TOTAL.table.name]
    rows[("all",)] = StateRow(("all", "7"), HEIGHT)
    assert world.found() == [(HEIGHT, TOTAL.table.name)]


def test_removed_rows_are_damage() -> None:
    """The books say how many there were."""
    world = World()
    del world.facts[3][0]
    del world.facts[6]
    damage = find_damage(world.store, "s")
    assert [(d.first, d.last) for d in damage] == [(3, 3), (6, 6)]
    asyncio.run(world.operator.repair(damage))
    assert find_damage(world.store, "s") == []
    assert world.found() == []


def test_other_facts_under_derived_state_are_refused() -> None:
    """State was derived from the facts as they were recorded: they cannot be exchanged below it. Without state they
    can."""
    for state in (True, False):
        world = World(state=state)
        before = list(world.facts[4])
        world.source.blocks[4] = replace(world.source.blocks[4], values=(99,))
        if state:
            with pytest.raises(Refused, match=r"replay --range 4\.\."):
                asyncio.run(world.operator.repair([Damage(4, 4, "by hand")]))
            assert world.facts[4] == before
        else:
            asyncio.run(world.operator.repair([Damage(4, 4, "by hand")]))
            assert [row[-1] for row in world.facts[4]] == ["99"]

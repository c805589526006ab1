"""Histories that found a fault once, as the machines printed them, made short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stateful.databases import InMemory
from stateful.engine_machine import EngineMachine, machine_on
from stateful.scripted_chain import SCHEMA


@contextmanager
def history(*, start: int, contents: list[list[int]]) -> Iterator[EngineMachine]:
    machine = machine_on(InMemory(SCHEMA))()
    machine.begin(contents=contents, start=start, confirmations=0, segments=1, rows=1000, spans=(3, 3))
    try:
        yield machine
        machine.nobody_ended_badly()
        machine.the_tables_are_the_fold()
    finally:
        machine.teardown()


def test_a_fork_above_entries_that_somebody_deleted_at_the_start() -> None:
    """Nothing below the fork is known: everything is undone. (It was tried again for ever, as if the source lagged.)"""
    with history(start=3, contents=[[1], [2], [3]]) as machine:
        machine.mine([[4]], pause=1.0)
        machine.delete_entries_by_hand(below=9, length=9)
        machine.fork(2, [[7], [8], [9]], pause=1.0)
        assert machine._comes_to_the_end()
        assert machine._compare(machine.watch) == set()

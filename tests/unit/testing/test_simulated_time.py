"""The line of time that simulated processes share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gapless.errors import InvariantViolation
from gapless.testing.simulated_process import SimulatedHeartbeat, SimulatedWorkers
from gapless.testing.simulated_time import SimulatedClock, SimulatedLoop, Timeline
from gapless.testing.virtual_loop import EverybodyWaits


def play(timeline: Timeline, loop: SimulatedLoop, scene: Coroutine[Any, Any, Any]) -> Any:
    return timeline.run(loop.create_task(scene), steps_max=10_000)


def test_processes_share_one_time() -> None:
    """What two loops wait for happens in the order of its moments, and takes no real time."""
    timeline = Timeline()
    loops = [SimulatedLoop.on(timeline) for _ in range(2)]
    told: list[tuple[float, int]] = []

    async def tick(which: int, pause_seconds: float) -> None:
        clock = SimulatedClock(loops[which], which)
        for _ in range(3):
            await clock.sleep(pause_seconds)
            told.append((round(clock.monotonic(), 3), which))

    loops[1].create_task(tick(1, 1000.0))
    play(timeline, loops[0], tick(0, 1500.0))
    assert told == [(1000.0, 1), (1500.0, 0), (2000.0, 1), (3000.0, 0), (3000.0, 1), (4500.0, 0)]


def test_a_paused_process_catches_up_in_order() -> None:
    """While it stands still nothing happens in it; afterwards everything that was due does, first things first."""
    timeline = Timeline()
    still, world = SimulatedLoop.on(timeline), SimulatedLoop.on(timeline)
    told: list[tuple[str, float]] = []
    for name, moment in (("one", 1.0), ("two", 2.0), ("late", 9.0)):
        still.call_later(moment, lambda name=name: told.append((name, round(timeline.now, 3))))

    async def scene() -> None:
        still.pause(5.0)
        assert still.paused_seconds == 5.0
        await SimulatedClock(world, 0).sleep(10.0)

    play(timeline, world, scene())
    assert told == [("one", 5.0), ("two", 5.0), ("late", 9.0)]


def test_a_killed_process_does_nothing_more() -> None:
    """Its tasks are gone at once, also one that had not begun; its timers never come."""
    timeline = Timeline()
    dead, world = SimulatedLoop.on(timeline), SimulatedLoop.on(timeline)
    told: list[str] = []

    async def work(name: str) -> None:
        try:
            await SimulatedClock(dead, 1).sleep(1.0)
            told.append(f"{name} worked")
        finally:
            told.append(f"{name} over")

    async def scene() -> None:
        clock = SimulatedClock(world, 0)
        begun = dead.create_task(work("begun"))
        await clock.sleep(0.5)
        fresh = dead.create_task(work("fresh"))
        dead.call_later(0.1, lambda: told.append("timer"))
        dead.bury()
        assert begun.cancelled()
        assert fresh.cancelled()
        await clock.sleep(5.0)

    play(timeline, world, scene())
    assert told == ["begun over"]


def test_a_clock_that_goes_fast_wakes_early() -> None:
    """Drift is in everything that goes by the process's time."""
    timeline = Timeline()
    fast = SimulatedLoop.on(timeline, 1.25)

    async def scene() -> float:
        await SimulatedClock(fast, 0).sleep(10.0)
        return timeline.now

    assert play(timeline, fast, scene()) == pytest.approx(8.0)


def test_a_deadlock_and_a_busy_loop_are_named() -> None:
    """A world in which nobody can go on, or in which somebody goes on for ever without time passing, ends."""
    timeline = Timeline()
    loop = SimulatedLoop.on(timeline)
    with pytest.raises(EverybodyWaits):
        play(timeline, loop, asyncio.Event().wait())

    async def busy() -> None:
        while True:
            await SimulatedClock(loop, 0).sleep(0.0)

    with pytest.raises(InvariantViolation, match="no end"):
        play(timeline, loop, busy())
    for each in (loop,):
        each.bury()


def test_a_call_once_begun_runs_to_its_end() -> None:
    """Writing calls follow one another, and whoever stops waiting for one does not stop it."""
    timeline = Timeline()
    loop = SimulatedLoop.on(timeline)
    told: list[tuple[str, float]] = []

    async def scene() -> None:
        workers = SimulatedWorkers(loop, lambda _: (1.0, 0.5))
        first = loop.create_task(workers.write(lambda: told.append(("first", round(timeline.now, 3)))))
        second = loop.create_task(workers.write(lambda: told.append(("second", round(timeline.now, 3)))))
        await SimulatedClock(loop, 0).sleep(0.1)
        first.cancel()
        with pytest.raises(ZeroDivisionError):
            await workers.read(lambda: 1 // 0)
        assert await workers.close(10.0)
        assert first.cancelled()
        assert second.done()

    play(timeline, loop, scene())
    assert told == [("first", 1.0), ("second", 2.5)]


def test_a_heartbeat_beats_while_the_loop_is_frozen() -> None:
    """As a thread would; at its end the last call is made once."""
    timeline = Timeline()
    main, thread = SimulatedLoop.on(timeline), SimulatedLoop.on(timeline)
    told: list[tuple[str, float]] = []

    def tell(what: str) -> None:
        told.append((what, round(timeline.now, 3)))

    async def scene() -> None:
        heartbeat = SimulatedHeartbeat(main, thread, lambda: tell("beat"), 1.0, lambda: tell("last"))
        heartbeat.start()
        main.pause(2.5)
        await SimulatedClock(main, 0).sleep(0.1)
        await heartbeat.end(5.0)

    play(timeline, main, scene())
    assert told == [("beat", 0.0), ("beat", 1.0), ("beat", 2.0), ("last", 2.5)]

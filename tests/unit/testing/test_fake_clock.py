"""Virtual time: order, idleness, threads."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from gapless.clock import Clock
from gapless.testing.fake_clock import FakeClock
from gapless.testing.virtual_loop import EverybodyWaits


def test_it_is_a_clock() -> None:
    """The fake one can stand wherever the real one does."""
    clock: Clock = FakeClock()

    assert clock.monotonic() == 0.0
    assert FakeClock(seed=3).random().random() == FakeClock(seed=3).random().random()


def test_sleepers_wake_in_order_of_their_deadlines() -> None:
    """Each task sees exactly the time it asked for, and the earlier one runs first."""
    clock = FakeClock()
    seen: list[tuple[str, float]] = []

    async def nap(name: str, seconds: float, times: int) -> None:
        for _ in range(times):
            await clock.sleep(seconds)
            seen.append((name, clock.monotonic()))

    async def main() -> None:
        await asyncio.gather(nap("slow", 5, 1), nap("fast", 2, 3), nap("zero", 0, 1))

    clock.run(main())

    assert seen == [("zero", 0), ("fast", 2), ("fast", 4), ("slow", 5), ("fast", 6)]


def test_an_hour_takes_no_time() -> None:
    """Time jumps as soon as everybody waits."""
    clock = FakeClock()

    async def main() -> None:
        for _ in range(3600):
            await clock.sleep(1)

    started = time.monotonic()
    clock.run(main())

    assert clock.monotonic() == 3600
    assert clock.now_us() == 1_700_000_000_000_000 + 3600 * 1_000_000
    assert time.monotonic() - started < 5


def test_the_loops_own_timers_are_virtual() -> None:
    """asyncio.timeout and a sleep on the clock race in one and the same time."""
    clock = FakeClock()

    async def main() -> str:
        try:
            async with asyncio.timeout(30):
                await clock.sleep(60)
        except TimeoutError:
            return f"{clock.monotonic():.3f}"
        return "slept"

    assert clock.run(main()) == "30.000"


def test_by_hand_nothing_moves_by_itself() -> None:
    """On an ordinary loop a sleeper wakes only when the test advances the clock far enough."""
    clock = FakeClock()

    async def main() -> None:
        sleeper = asyncio.ensure_future(clock.sleep(10))
        await asyncio.sleep(0)
        clock.advance(9.9)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not sleeper.done()
        clock.advance(0.1)
        await asyncio.wait_for(sleeper, 1)

    asyncio.run(main())


def test_a_jump_moves_the_wall_clock_only() -> None:
    """Durations must not notice an NTP step."""
    clock = FakeClock()
    before = clock.now_us()
    clock.jump(-3600)

    assert clock.now_us() == before - 3_600_000_000
    assert clock.monotonic() == 0.0


def test_a_thread_waits_in_virtual_time() -> None:
    """wait() ends when its time is over, or at once when the event is set, and says which."""
    clock = FakeClock()
    answers: list[bool] = []
    event = threading.Event()
    thread = threading.Thread(target=lambda: answers.append(clock.wait(event, 100)))
    thread.start()
    while clock.next_deadline() is None:
        time.sleep(0.001)
    clock.advance(99)
    thread.join(0.05)
    assert thread.is_alive()
    clock.advance(1)
    thread.join(5)
    assert answers == [False]

    event.set()
    assert clock.wait(event, 100) is True


def test_threads_and_tasks_share_one_order() -> None:
    """A keeper thread that waits 3 s at a time gets its turns while a task sleeps 10 s: none is skipped."""
    clock = FakeClock()
    stop = threading.Event()
    beats: list[float] = []

    def keep() -> None:
        while not clock.wait(stop, 3):
            time.sleep(0.01)  # real work of the thread, during which virtual time must stand still
            beats.append(clock.monotonic())

    async def main() -> None:
        thread = threading.Thread(target=keep)
        thread.start()
        while clock.next_deadline() is None:
            await asyncio.sleep(0)
        await clock.sleep(10)
        stop.set()
        await asyncio.to_thread(thread.join, 5)

    clock.run(main())

    assert beats == [3, 6, 9]


def test_time_stands_still_during_executor_calls() -> None:
    """A commit at work in a thread takes no virtual time, however long it really takes."""
    clock = FakeClock()

    async def main() -> None:
        timer = asyncio.ensure_future(clock.sleep(1))
        await asyncio.to_thread(time.sleep, 0.05)
        assert clock.monotonic() == 0.0
        assert not timer.done()
        await timer

    clock.run(main())


def test_an_executor_call_may_wait_on_the_clock() -> None:
    """A thread of the executor that waits for virtual time does not stop virtual time."""
    clock = FakeClock()

    async def main() -> bool:
        return await asyncio.to_thread(clock.wait, threading.Event(), 5)

    assert clock.run(main()) is False
    assert clock.monotonic() == 5


def test_a_deadlock_is_reported() -> None:
    """A test whose tasks all wait for one another fails instead of hanging."""
    clock = FakeClock()

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(EverybodyWaits):
        clock.run(main(), stuck_seconds_max=0.05)


def test_cancelled_sleepers_are_forgotten() -> None:
    """A long run with long timeouts does not gather up sleepers that gave up."""
    clock = FakeClock()

    async def main() -> None:
        for _ in range(1000):
            sleeper = asyncio.ensure_future(clock.sleep(86_400))
            await asyncio.sleep(0)
            sleeper.cancel()
            await asyncio.sleep(0)

    clock.run(main())

    assert len(clock._deadlines) < 200

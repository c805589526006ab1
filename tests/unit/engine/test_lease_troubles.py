"""Leadership in trouble: refusals nobody told of, errors of any kind, names that two machines share, short lives."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import pytest

from gapless.clock import SystemClock
from gapless.engine import lease as lease_module
from gapless.engine.lease import LeaseKeeper, holder_name, take
from gapless.errors import InvariantViolation, StoreUnavailable
from gapless.model import Fence, Mode
from gapless.store.memory import MemoryDatabase, MemoryStore
from gapless.testing.store_contract.sample import SCHEMA
from unit.engine.world import World


def opened(database: MemoryDatabase | None = None) -> MemoryStore:
    store = MemoryStore(database)
    store.open(SCHEMA, create=True)
    return store


async def until(condition: Any, seconds: float = 10.0) -> float:
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
    return time.monotonic() - began


def test_a_refused_leader_waits_and_does_not_try_at_once() -> None:
    """The store refuses a commit while the last renewal still counts: without waiting for the next one, a leader
    would fetch and be refused again and again."""

    async def scenario() -> None:
        world = World()
        world.source.mine(20)
        async with world.running(ttl_seconds=30.0):
            await world.until(world.exact)
            [lease] = world.store.leases()
            world.store.release(Fence(lease.name, lease.holder, lease.token))
            assert world.store.acquire(lease.name, "intruder", 30.0) is not None
            world.source.mine(21)
            await world.until(lambda: world.heard.modes[-1] is Mode.STANDBY)
            before = len(world.source.fetched)
            await asyncio.sleep(0.3)
            assert len(world.source.fetched) == before
            assert world.facts() == [(0, 0, 20)]

    asyncio.run(scenario())


def test_a_lease_that_only_ran_out_is_renewed_at_once() -> None:
    """The database was away for longer than the lease; when it is back and nobody has taken the lease, this process
    leads again with the next renewal, not a lease's length later."""

    async def scenario() -> None:
        store = opened()
        keeper = LeaseKeeper(store, "l", "me:1", 1.5, SystemClock())
        whole = store.renew

        def away(*_: Any) -> bool:
            raise StoreUnavailable("away")

        keeper.start()
        try:
            fence = await keeper.wait_held()
            store.renew = away  # type: ignore[method-assign]
            await until(lambda: keeper.fence is None)
            keeper.refused(fence)  # a follower found out; the lease may still be ours, and is
            waiting = asyncio.create_task(keeper.wait_held())
            await asyncio.sleep(0.01)
            store.renew = whole  # type: ignore[method-assign]
            began = time.monotonic()
            assert await waiting == fence
            assert time.monotonic() - began < 0.8
        finally:
            await keeper.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [RuntimeError("odd"), InvariantViolation("used before open()"), OSError("odd")])
def test_the_keepers_thread_survives_everything(error: Exception) -> None:
    """An error nobody thought of must not end the thread: nobody would renew any more, and nobody would lead."""

    async def scenario() -> None:
        store = opened()
        keeper = LeaseKeeper(store, "l", "me:1", 0.3, SystemClock())
        whole, broken = store.acquire, [True]

        def acquire(*given: Any) -> Fence | None:
            if broken:
                raise error
            return whole(*given)

        store.acquire = acquire  # type: ignore[method-assign]
        keeper.start()
        try:
            await until(lambda: keeper.last_error is error)
            broken.clear()
            assert (await asyncio.wait_for(keeper.wait_held(), 5)).token == 1
            assert keeper.last_error is None
        finally:
            await keeper.stop()
        assert not any(row.live for row in store.leases())

    asyncio.run(scenario())


def test_a_standby_says_when_it_does_not_know() -> None:
    """A database that does not answer is another thing than another leader."""

    async def scenario() -> None:
        world = World()
        world.source.mine(20)
        reasons: list[str | None] = []
        world.heard.mode = lambda source, mode, reason: reasons.append(reason)  # type: ignore[method-assign]
        keeper_error = StoreUnavailable("the database is away")

        def acquire(*_: Any) -> Fence | None:
            raise keeper_error

        world.store.acquire = acquire  # type: ignore[method-assign]
        runner = world.runner(ttl_seconds=0.2)
        task = asyncio.create_task(runner.run())
        await until(lambda: any(r and "the database is away" in r for r in reasons))
        runner.stop()
        await task

    asyncio.run(scenario())


def test_two_machines_of_one_name_do_not_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process number says something only where the numbers are given out: a leader in another container, or on
    another machine of the same name, is not gone because its number is not there."""
    store = opened()
    monkeypatch.setattr(lease_module, "_process_space", lambda: "aaaaaa")
    there = take(store, "l", holder_name().rpartition(":")[0] + ":999999999", 60.0)
    assert there is not None
    monkeypatch.setattr(lease_module, "_process_space", lambda: "bbbbbb")
    assert take(store, "l", holder_name(), 60.0) is None
    monkeypatch.setattr(lease_module, "_process_space", lambda: "aaaaaa")
    here = take(store, "l", holder_name(), 60.0)
    assert here is not None
    assert here.token == there.token + 1


def test_a_holder_is_a_host_and_a_process() -> None:
    """As documented; the same for all processes of one host, and a different one for each."""
    host, _, process = holder_name().rpartition(":")
    assert process == str(os.getpid())
    assert host
    assert ":" not in host


@pytest.mark.parametrize("ttl_seconds", [0.15, 0.5])
def test_a_very_short_lease_flaps_and_stays_right(ttl_seconds: float) -> None:
    """Two processes with a lease that a busy machine can hardly keep: leadership goes to and fro, and every row is
    there once."""

    async def scenario() -> None:
        world = World()
        world.source.mine(20)
        others = [world.runner(ttl_seconds=ttl_seconds) for _ in range(2)]
        tasks = [asyncio.create_task(runner.run()) for runner in others]
        busy = threading.Event()

        def work() -> None:
            while not busy.is_set():
                sum(range(20_000))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            for n in range(40):
                world.source.mine(n + 20)
                await asyncio.sleep(0.02)
            await world.until(world.exact, 20)
        finally:
            busy.set()
            for runner in others:
                runner.stop()
            await asyncio.gather(*tasks)
            thread.join()

    asyncio.run(scenario())


def test_state_is_read_again_after_somebody_else_led() -> None:
    """A process that comes back into the lead computes from the database, not from what it remembers."""

    async def scenario() -> None:
        world = World()
        for n in range(5):
            world.source.mine(n + 20)
        first, second = world.runner(ttl_seconds=30.0), world.runner(ttl_seconds=30.0)
        tasks = [asyncio.create_task(first.run())]
        await world.until(world.exact)
        keeper = first._followers[0]._lane.keeper
        [lease] = world.store.leases()
        fence = Fence(lease.name, lease.holder, lease.token)
        keeper._set(None, 0.0)  # it lost the lease, and knows
        world.store.release(fence)
        tasks.append(asyncio.create_task(second.run()))
        await world.until(lambda: world.store.leases()[0].token > lease.token)
        for n in range(3):
            world.source.mine(n + 40)
        await world.until(world.exact)
        second.stop()
        await tasks[1]
        keeper._set(take(world.store, lease.name, keeper.holder, 30.0), time.monotonic() + 20)
        world.source.mine(50)
        await world.until(world.exact)
        first.stop()
        await tasks[0]

    asyncio.run(scenario())

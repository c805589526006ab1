"""Leadership as one process sees it: how long it may trust its lease, and when it must not keep it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from gapless.engine.lease import LeaseKeeper, holder_name, take
from gapless.engine.runner import lease_name, led
from gapless.errors import LeaseHeld, LeaseLost, StoreUnavailable
from gapless.model import Fence
from gapless.store.memory import MemoryStore
from gapless.testing.fake_clock import FakeClock
from gapless.testing.store_contract.sample import SCHEMA, SOURCE

TTL_SECONDS = 10.0
TRUST_SECONDS = 9.0
"""The lease's length less the margin."""
RENEWAL_SECONDS = TTL_SECONDS / 3


class Store(MemoryStore):
    """A database that can be away, or slow to say that a lease is renewed."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.open(SCHEMA, create=True)
        self.away = False
        self.answer_seconds = 0.0

    def renew(self, fence: Fence, ttl_seconds: float) -> bool:
        if self.away:
            raise StoreUnavailable("away")
        renewed = super().renew(fence, ttl_seconds)
        if self.answer_seconds:
            self._clock.wait(threading.Event(), self.answer_seconds)
        return renewed


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Store:
    return Store(clock)


def keeping(clock: FakeClock, store: Store, scene: Callable[[LeaseKeeper], Awaitable[None]]) -> None:
    """Play a scene that begins when the lease has just been taken."""

    async def main() -> None:
        keeper = LeaseKeeper(store, "one", "me:1", TTL_SECONDS, clock)
        keeper.start()
        try:
            await keeper.wait_held()
            await scene(keeper)
        finally:
            await keeper.stop()

    clock.run(main())


def test_a_lease_that_is_renewed_is_trusted(clock: FakeClock, store: Store) -> None:
    """For as long as the database answers."""

    async def scene(keeper: LeaseKeeper) -> None:
        fence = keeper.require()
        for _ in range(50):
            await clock.sleep(1.0)
            assert keeper.require() == fence

    keeping(clock, store, scene)
    assert not store.leases()[0].live


def test_trust_ends_by_itself(clock: FakeClock, store: Store) -> None:
    """While the database does not answer nothing tells that the lease is lost: its time does."""

    async def scene(keeper: LeaseKeeper) -> None:
        store.away = True
        await clock.sleep(TRUST_SECONDS / 2)  # the last renewal may lie a little before this scene began
        assert keeper.fence is not None
        await clock.sleep(TRUST_SECONDS / 2 + 0.1)
        assert keeper.fence is None
        with pytest.raises(LeaseLost):
            keeper.require()

    keeping(clock, store, scene)


def test_trust_is_counted_from_before_the_renewal(clock: FakeClock, store: Store) -> None:
    """An answer that is three seconds late says what was true when it was asked for, not now."""

    async def scene(keeper: LeaseKeeper) -> None:
        store.answer_seconds = 3.0
        await clock.sleep(RENEWAL_SECONDS + 3.1)
        store.away = True
        await clock.sleep(TRUST_SECONDS - 3.1 - 0.1)
        assert keeper.fence is not None
        await clock.sleep(0.2)
        assert keeper.fence is None

    keeping(clock, store, scene)


def test_a_refused_renewal_ends_the_trust_at_once(clock: FakeClock, store: Store) -> None:
    """Somebody else has the lease: what is left of our time does not count."""

    async def scene(keeper: LeaseKeeper) -> None:
        store.release(keeper.require())
        assert store.acquire("one", "other:1", 60.0) is not None
        await clock.sleep(RENEWAL_SECONDS + 0.1)
        assert keeper.fence is None

    keeping(clock, store, scene)


def test_a_frozen_loop_loses_the_lease(clock: FakeClock, store: Store) -> None:
    """The thread that renews is alive, but what it keeps the lease for is not: another process can take over."""

    async def main() -> None:
        keeper = LeaseKeeper(store, "one", "me:1", TTL_SECONDS, clock)
        keeper.start()
        await keeper.wait_held()
        for _ in range(60):
            clock.advance(0.5)
            time.sleep(0.02)  # noqa: ASYNC251 - the loop is frozen on purpose; the thread is not
        assert store.acquire("one", "other:1", TTL_SECONDS) is not None
        stopping = asyncio.create_task(keeper.stop())
        while not stopping.done():
            clock.advance(0.5)
            await asyncio.sleep(0.01)

    asyncio.run(main())


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that lives until it is told otherwise."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child
        child.communicate(b"\n")


def test_a_living_process_keeps_its_lease(store: Store) -> None:
    """One of this host that has ended does not: a restart need not wait for the lease to run out."""
    here = holder_name().rpartition(":")[0]
    with process() as child:
        old = take(store, "one", f"{here}:{child.pid}", TTL_SECONDS)
        assert old is not None
        assert take(store, "one", holder_name(), TTL_SECONDS) is None
        assert take(store, "one", f"elsewhere:{os.getpid()}", TTL_SECONDS) is None
    new = take(store, "one", holder_name(), TTL_SECONDS)
    assert new is not None
    assert new.token > old.token


def test_a_command_does_not_run_beside_a_leader(clock: FakeClock, store: Store) -> None:
    """It says who leads, and touches nothing; once the lease is free it runs, and gives it up afterwards."""

    async def main() -> None:
        name = lease_name(SCHEMA, SOURCE)
        theirs = store.acquire(name, "leader:1", 60.0)
        assert theirs is not None
        with pytest.raises(LeaseHeld, match="leader:1"):
            async with led(store, SCHEMA, SOURCE, TTL_SECONDS, clock):
                pytest.fail("it ran")
        store.release(theirs)
        async with led(store, SCHEMA, SOURCE, TTL_SECONDS, clock) as fence:
            assert fence.token > theirs.token
        assert not store.leases()[0].live

    clock.run(main())

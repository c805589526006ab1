"""Stopping: at any moment, whatever is waited for, within its bound, with nothing torn and nothing left behind."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gapless.engine import runner as runner_module
from gapless.engine.handlers import Handler
from gapless.engine.offload import Threads
from gapless.errors import HandlerFailed, SourceUnavailable, StoreUnavailable
from gapless.model import Cursor, Head, Identity, Segment
from gapless.testing.fake_clock import FakeClock
from unit.engine.scripted import Payload, ScriptedSource
from unit.engine.world import World, change


class Hanging(ScriptedSource):
    """Never answers the questions named in `hangs`."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs: set[str] = set()
        self.waiting: set[str] = set()

    async def _perhaps(self, what: str) -> None:
        if what in self.hangs:
            self.waiting.add(what)
            await asyncio.Event().wait()

    async def identity(self) -> Identity:
        await self._perhaps("identity")
        return await super().identity()

    async def head(self) -> Head:
        await self._perhaps("head")
        return await super().head()

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        await self._perhaps("wait_head")
        return await super().wait_head(known, timeout_seconds)

    async def fetch(
        self, first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()
    ) -> Segment[Payload]:
        await self._perhaps("mend" if avoid else "fetch")
        return await super().fetch(first, last, head=head, avoid=avoid)

    async def cursors(self, positions: Sequence[int]) -> list[Cursor | None]:
        await self._perhaps("cursors")
        return await super().cursors(positions)

    async def opinions(self, position: int) -> dict[str, Cursor | None]:
        await self._perhaps("opinions")
        return await super().opinions(position)


def scene(blocks: int = 10) -> tuple[World, Hanging]:
    world, source = World(), Hanging()
    world.source = source
    for n in range(blocks):
        source.mine(n + 20)
    return world, source


async def stop(runner: Any, task: asyncio.Task[None], seconds_max: float) -> None:
    began = time.monotonic()
    runner.stop()
    async with asyncio.timeout(seconds_max + 5):
        await task
    assert time.monotonic() - began < seconds_max
    await asyncio.sleep(0)
    left = {t.get_name() for t in asyncio.all_tasks()} - {asyncio.current_task().get_name()}  # type: ignore[union-attr]
    assert not left, left


@pytest.mark.parametrize("what", ["identity", "head", "fetch", "wait_head", "cursors", "opinions", "mend"])
def test_a_source_that_hangs_keeps_nobody(what: str) -> None:
    """Whichever question is not answered, a stop ends the wait at once, and the lease is free for another."""

    async def scenario() -> None:
        world, source = scene()
        await world.runner(until=5).run()
        source.hangs = {what}
        if what in ("cursors", "opinions"):
            source.fork(6, *[[30]] * 8, branch="b")
        if what == "mend":
            source.liars = frozenset({"one"})
        runner = world.runner(ttl_seconds=5.0)
        task = asyncio.create_task(runner.run())
        await world.until(lambda: what in source.waiting)
        await stop(runner, task, 1.0)
        assert not any(lease.live for lease in world.store.leases())

    asyncio.run(scenario())


def test_a_standby_stops_at_once() -> None:
    """Waiting for the lease is waiting like any other."""

    async def scenario() -> None:
        world, _ = scene()
        assert world.store.acquire("v1:s", "somebody", 60.0) is not None
        runner = world.runner(ttl_seconds=30.0)
        task = asyncio.create_task(runner.run())
        await asyncio.sleep(0.1)
        await stop(runner, task, 1.0)

    asyncio.run(scenario())


def blocked(world: World, method: str, release: threading.Event) -> threading.Event:
    """Make a method of the store wait for a release. Returns what tells that it does."""
    whole = getattr(world.store, method)
    reached = threading.Event()

    def call(*args: Any) -> Any:
        reached.set()
        release.wait(30)
        return whole(*args)

    setattr(world.store, method, call)
    return reached


def test_a_commit_under_way_is_finished() -> None:
    """What is being committed when the stop comes is there afterwards."""

    async def scenario() -> None:
        world, _ = scene()
        release = threading.Event()
        reached = blocked(world, "commit", release)
        runner = world.runner()
        task = asyncio.create_task(runner.run())
        await world.until(reached.is_set)
        runner.stop()
        await asyncio.sleep(0.1)
        assert not task.done()
        assert world.facts() == []
        release.set()
        await task
        assert len(world.facts()) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["commit", "bind_source", "cursor", "report", "renew", "release", "state"])
def test_a_database_that_hangs_ends_with_the_bound(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that does not return holds a stop up for its bound and no longer; the thread it is in is left behind, and
    does not keep the process from ending."""
    monkeypatch.setattr(runner_module, "STOP_SECONDS_MAX", 2.0)
    monkeypatch.setattr(runner_module, "_CANCEL_SECONDS", 0.2)
    release = threading.Event()

    async def scenario() -> None:
        world, source = scene()
        reached = blocked(world, method, release)
        runner = world.runner(ttl_seconds=0.6)
        task = asyncio.create_task(runner.run())
        if method == "release":
            await world.until(world.exact)
        else:
            await world.until(reached.is_set)
        source.mine(1)
        await asyncio.sleep(0.05)
        await stop(runner, task, 4.0)

    try:
        asyncio.run(scenario())
        left = [t for t in threading.enumerate() if t.name.startswith(("gapless-", "lease"))]
        assert all(t.daemon for t in left)
    finally:
        release.set()


def test_a_handler_that_hangs_ends_with_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does user code that never returns."""
    monkeypatch.setattr(runner_module, "STOP_SECONDS_MAX", 2.0)
    release, reached = threading.Event(), threading.Event()

    def hang(_transfer: Any, _tables: Any) -> None:
        reached.set()
        release.wait(30)

    async def scenario() -> None:
        world, _ = scene()
        world.handlers = (Handler("hang", "token.Transfer", hang),)
        runner = world.runner()
        task = asyncio.create_task(runner.run())
        await world.until(reached.is_set)
        await stop(runner, task, 4.0)
        assert world.facts() == []

    try:
        asyncio.run(scenario())
    finally:
        release.set()


def test_cancelled_from_outside() -> None:
    """A cancelled run (Ctrl-C where no handler is set) ends as a stopped one, and says that it was cancelled."""

    async def scenario() -> None:
        world, source = scene()
        source.hangs = {"fetch"}
        task = asyncio.create_task(world.runner().run())
        await world.until(lambda: "fetch" in source.waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not any(lease.live for lease in world.store.leases())

    asyncio.run(scenario())


def test_what_fails_while_stopping_is_not_lost() -> None:
    """An error that an operator must see comes out also when it is found during the stop."""

    async def scenario() -> None:
        world, source = scene(3)
        source.mine(13)
        release = threading.Event()
        reached = blocked(world, "commit", release)
        runner = world.runner()
        task = asyncio.create_task(runner.run())
        await world.until(reached.is_set)
        await asyncio.sleep(0.05)
        release.set()
        with pytest.raises(HandlerFailed):
            await task
        assert len(world.facts()) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [StoreUnavailable("away"), SourceUnavailable("gone")])
def test_saying_why_it_halts_must_not_hide_why(error: Exception) -> None:
    """When the database is gone as well, the error that comes out is still the one that ended the run."""

    async def scenario() -> None:
        world, source = scene(3)
        source.mine(13)
        whole = world.store.report

        def report(name: str, said: Any) -> None:
            if said.mode.value == "halted":
                raise StoreUnavailable("the database is gone too")
            whole(name, said)

        world.store.report = report  # type: ignore[method-assign]
        with pytest.raises(HandlerFailed):
            await world.runner().run()

    asyncio.run(scenario())


def test_an_unexpected_error_is_reported_and_raised() -> None:
    """A fault of ours halts the source with its name; it is neither retried for ever nor silent."""

    async def scenario() -> None:
        world, source = scene(3)

        async def head() -> Head:
            raise ZeroDivisionError("a fault")

        source.head = head  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            await world.runner().run()
        assert world.store.reported("s").reason == "ZeroDivisionError: a fault"
        assert not any(lease.live for lease in world.store.leases())

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(12))
def test_stopped_at_random_moments(seed: int) -> None:
    """Stop after stop at any moment of a busy life, and in the end everything is exact and nothing runs any more."""

    async def scenario() -> None:
        draw = random.Random(seed)
        world, source = scene(3)
        for step in range(12):
            runner = world.runner()
            task = asyncio.create_task(runner.run())
            for n in range(draw.randint(0, 3)):
                change(source, draw, f"s{step}n{n}-")
                await asyncio.sleep(draw.choice((0, 0.001, 0.02)))
            if draw.random() < 0.3:
                task.cancel()
                await asyncio.wait({task})
            else:
                await stop(runner, task, 3.0)
        async with world.running():
            await world.until(world.exact)

    before = {t.ident for t in threading.enumerate()}
    asyncio.run(scenario())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and {t.ident for t in threading.enumerate()} - before:
        time.sleep(0.01)
    assert not {t.name for t in threading.enumerate() if t.ident not in before}


# --- threads --------------------------------------------------------------------------------------------------------


def test_calls_run_in_order_and_give_their_results() -> None:
    """One writing thread: what was asked first happens first."""

    async def scenario() -> None:
        threads = Threads()
        seen: list[int] = []
        works: list[Callable[[], None]] = [lambda n=n: seen.append(n) for n in range(50)]  # type: ignore[misc]
        await asyncio.gather(*map(threads.write, works))
        assert seen == list(range(50))
        with pytest.raises(ZeroDivisionError):
            await threads.write(lambda: 1 // 0)
        assert await threads.close(1.0)
        with pytest.raises(RuntimeError, match="ended"):
            await threads.write(lambda: 1)

    asyncio.run(scenario())


def test_deriving_has_a_thread_for_each_source() -> None:
    """A handler of one source that takes for ever does not hold up another source."""

    async def scenario() -> None:
        threads = Threads(derivers_max=2)
        begun, release = threading.Event(), threading.Event()
        slow = asyncio.create_task(threads.derive(lambda: begun.set() or release.wait(10)))
        async with asyncio.timeout(5):
            assert await threads.derive(lambda: 7) == 7
            assert await asyncio.to_thread(begun.wait, 5)
        assert not await threads.close(0.05)
        release.set()
        assert await slow

    asyncio.run(scenario())


def test_a_cancelled_wait_does_not_stop_the_call() -> None:
    """A transaction is never torn: it runs to its end, and closing waits for it."""

    async def scenario() -> None:
        threads = Threads()
        done = threading.Event()

        def work() -> None:
            time.sleep(0.1)
            done.set()

        task = asyncio.create_task(threads.write(work))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert not done.is_set()
        assert await threads.close(5.0)
        assert done.is_set()

    asyncio.run(scenario())


def test_a_run_in_virtual_time_stops_too() -> None:
    """The same in virtual time, where tests of whole runs live."""
    clock = FakeClock()
    world = World(clock)
    world.source.mine(1)

    async def scenario() -> None:
        async with world.running():
            await world.until(world.exact)

    clock.run(scenario())

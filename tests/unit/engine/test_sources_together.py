"""Several sources in one process: each with its own fate."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
import structlog.testing

from gapless.declare import bind
from gapless.engine.handlers import Handler
from gapless.engine.operate import Operator
from gapless.engine.plan import FollowOptions, Until
from gapless.engine.runner import Job, Runner
from gapless.errors import ForkTooDeep, HandlerFailed, SourceUnavailable, StartBeyondHead, WrongChain
from gapless.model import Identity, Mode, Segment
from gapless.schema import Schema
from gapless.sources import Decoded, Events
from gapless.store.memory import MemoryStore
from gapless.testing.fake_clock import FakeClock
from unit.engine.scripted import TABLE, ListDecoder, Payload, ScriptedSource
from unit.engine.world import Heard, Total


class NamedDecoder(ListDecoder):
    """The list decoder for a source with a table of its own."""

    def __init__(self, name: str) -> None:
        self.table = replace(TABLE, name=f"{name}_transfer", source=name)

    def decode(self, segment: Segment[Payload]) -> Decoded:
        [rows] = super().decode(segment).rows
        rows = replace(rows, table=self.table)
        order = [(int(str(p)), int(str(i))) for p, i in zip(rows.columns[0], rows.columns[2], strict=True)]
        return Decoded((rows,), (Events("token.Transfer", rows, order),), ())


class Both:
    """Two sources, each with facts and state."""

    def __init__(self, clock: Any = None) -> None:
        self.clock = clock or FakeClock()
        self.heard: dict[str, list[Mode]] = {}
        self.sources = {name: ScriptedSource(name=name) for name in ("a", "b")}
        self.decoders = {name: NamedDecoder(name) for name in self.sources}
        bound = {name: bind(Total, name) for name in self.sources}
        self.bindings = {n: replace(b, table=replace(b.table, name=f"{n}_total")) for n, b in bound.items()}
        tables = [d.table for d in self.decoders.values()] + [b.table for b in self.bindings.values()]
        self.schema = Schema("app", tuple(tables), ("a", "b"))
        self.store = MemoryStore(clock=self.clock)
        self.store.open(self.schema, create=True)
        for source in self.sources.values():
            for n in range(10):
                source.mine(n + 20)
        self.options = {"poll_timeout_seconds": 1.0, "retry_seconds_max": 0.2, "fork_pause_seconds": 0.05}

    def job(self, name: str, **options: Any) -> Job:
        def add(transfer: Any, tables: Any) -> None:
            if transfer.value == 13:
                raise ValueError("thirteen")
            total = tables[Total].get("all")
            tables[Total].put(Total("all", (total.value if total else 0) + transfer.value))

        merged = FollowOptions(**{"start": 0, **self.options, **options})
        handlers = (Handler("add", "token.Transfer", add),)
        return Job(self.sources[name], self.decoders[name], handlers, (self.bindings[name],), merged)

    def runner(self, **options: Any) -> Runner:
        heard = self.heard

        class Ear(Heard):
            def mode(self, source: str, mode: Mode, reason: str | None) -> None:
                heard.setdefault(source, []).append(mode)

        jobs = [self.job(name, **options) for name in self.sources]
        return Runner(jobs, self.schema, self.store, self.clock, Ear(), 1e5)

    async def started(self, runner: Runner) -> asyncio.Task[None]:
        """Virtual time stands still while something runs in a thread: until the keepers' threads have begun."""
        task = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        await asyncio.to_thread(self._wait_led)
        return task

    def _wait_led(self) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until and sum(lease.live for lease in self.store.leases()) < len(self.sources):
            time.sleep(0.001)

    def exact(self, name: str) -> bool:
        source, cursor = self.sources[name], self.store.cursor(name)
        if cursor is None or cursor.id != source.blocks[-1].id:
            return False
        columns, _ = self.store.facts(self.decoders[name].table, 0, 10**9)
        assert [(int(b), int(i), int(v)) for b, _, i, v in zip(*columns, strict=True)] == source.facts()
        [row] = self.store.state_rows(self.bindings[name].table)
        assert int(str(row.values[1])) == sum(v for *_, v in source.facts())
        return True

    async def until(self, name: str) -> None:
        async with asyncio.timeout(60):
            while not self.exact(name):
                await asyncio.sleep(0.01)


def test_forks_of_one_leave_the_other_alone() -> None:
    """Undoing is of one source: facts and state of the other stay, whatever their positions."""
    both = Both()

    async def scenario() -> None:
        runner = both.runner()
        task = await both.started(runner)
        for n in range(5):
            both.sources["a"].fork(3 + n, *[[30 + n]] * (4 + n), branch=f"x{n}-")
            both.sources["b"].mine(40 + n)
            await both.until("a")
            await both.until("b")
        runner.stop()
        await task

    both.clock.run(scenario())


@pytest.mark.parametrize("error", [HandlerFailed, ForkTooDeep])
def test_one_that_halts_does_not_stop_the_other(error: type[Exception]) -> None:
    """The other goes on being followed exactly; what halted is told at once, its lease is free for an operator, and in
    the end the run fails with the reason."""
    both = Both()

    async def scenario() -> None:
        runner = both.runner(reorg_positions_max=4)
        task = await both.started(runner)
        await both.until("a")
        await both.until("b")
        if error is HandlerFailed:
            both.sources["a"].mine(13)
        else:
            both.sources["a"].fork(8, *[[30]] * 9, branch="x")
        while both.heard["a"][-1] is not Mode.HALTED:
            await asyncio.sleep(0.01)
        for n in range(5):
            both.sources["b"].mine(50 + n)
            await both.until("b")
        await asyncio.sleep(1)
        assert not task.done()
        assert [lease.name for lease in both.store.leases() if lease.live] == ["v1:b"]
        job = both.job("a")
        operator = Operator(job, both.schema, both.store, both.clock, 5.0)
        assert await operator.rewind(5) == 4
        runner.stop()
        with pytest.raises(error):
            await task
        assert both.heard["a"][-1] is Mode.HALTED
        assert both.heard["b"][-1] is Mode.STOPPED

    with structlog.testing.capture_logs() as said:
        both.clock.run(scenario())
    assert [e["source"] for e in said if e["event"] == "halted, the other sources go on"] == ["a"]


def test_with_an_end_the_other_reaches_it() -> None:
    """A run that has an end does what it can for every source before it fails."""
    both = Both()
    both.sources["a"].mine(13)
    both.sources["b"].mine(50)
    with pytest.raises(HandlerFailed):
        both.clock.run(both.runner(until=Until.HEAD).run())
    assert both.exact("b")


async def _no_route(*_: Any, **__: Any) -> Any:
    raise SourceUnavailable("no route")


async def _other_chain() -> Identity:
    return Identity("scripted", "2", "genesis")


@pytest.mark.parametrize(
    ("method", "broken", "options", "error"),
    [
        ("head", _no_route, {}, SourceUnavailable),
        ("identity", _other_chain, {"chain": "1"}, WrongChain),
        ("statistics", None, {"start": 500}, StartBeyondHead),
    ],
)
def test_one_that_cannot_begin_ends_the_run(
    method: str, broken: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    """A mistake in what was just configured is for the person who just started it."""
    both = Both()
    if broken is not None:
        setattr(both.sources["a"], method, broken)
    with pytest.raises(error):
        both.clock.run(both.runner(**options).run())


def test_one_that_fails_for_a_while_is_waited_for() -> None:
    """Troubles that pass stay inside their source."""
    both = Both()

    async def scenario() -> None:
        runner = both.runner()
        task = await both.started(runner)
        await both.until("a")
        both.sources["a"].failures = [SourceUnavailable("gone")] * 20
        both.sources["a"].mine(60)
        both.sources["b"].mine(61)
        await both.until("b")
        await both.until("a")
        runner.stop()
        await task

    both.clock.run(scenario())
    assert Mode.DEGRADED in both.heard["a"]
    assert Mode.DEGRADED not in both.heard["b"]


@pytest.mark.parametrize("fork", [False, True])
def test_writing_is_switched_off_in_the_middle(fork: bool) -> None:
    """The flag is obeyed within a second or two also while much is to be committed or a fork is followed, and what
    goes on later goes on exactly."""
    both = Both()
    source = both.sources["a"]

    async def scenario() -> None:
        runner = both.runner()
        task = await both.started(runner)
        await both.until("a")
        if fork:
            source.fork(8, branch="x")
        for n in range(40):
            source.mine(n + 20, branch="x")
        await asyncio.sleep(0.5)
        both.store.set_flag("writes_enabled", "off")
        slow = source.fetch

        async def fetch(*args: Any, **kwargs: Any) -> Segment[Payload]:
            await asyncio.sleep(1.0)
            return await slow(*args, **kwargs)

        source.fetch = fetch  # type: ignore[method-assign]
        await asyncio.sleep(3.0)
        before = both.store.cursor("a")
        await asyncio.sleep(10.0)
        assert both.store.cursor("a") == before
        assert both.heard["a"][-1] is Mode.IDLE
        source.fetch = slow  # type: ignore[method-assign]
        both.store.set_flag("writes_enabled", None)
        await both.until("a")
        runner.stop()
        await task

    both.clock.run(scenario())

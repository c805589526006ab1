"""Several endpoints of which one is on a chain of its own: followed to the end, nothing undone, nothing halted.

Whole runs over HTTP: engine, source, store and all in between are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gapless.app import App
from gapless.clock import SystemClock
from gapless.engine import plan
from gapless.engine.observer import Observer
from gapless.engine.runner import Runner
from gapless.model import Cursor, Mode
from gapless.schema import from_text
from gapless.store.memory import MemoryStore
from gapless.testing import block_lies, faults
from gapless.testing.chain import ScriptedChain
from gapless.testing.fold import fold
from gapless.testing.node import FakeNode
from gapless.wiring import build_job, wire

BLOCKS, FINAL_DEPTH = 80, 20


def chain() -> ScriptedChain:
    made = ScriptedChain(seed=7, finalized_distance=FINAL_DEPTH, holders=3)
    made.mine(BLOCKS, logs=4)
    return made


class Heard(Observer):
    def __init__(self) -> None:
        self.modes: list[tuple[Mode, str | None]] = []
        self.reorgs: list[int] = []

    def mode(self, source: str, mode: Mode, reason: str | None) -> None:
        self.modes.append((mode, reason))

    def reorg(self, source: str, depth: int) -> None:
        self.reorgs.append(depth)


class Scene:
    """An app on several nodes."""

    def __init__(self, path: Path, nodes: list[FakeNode], **options: Any) -> None:
        self.app = App("app", base=path)
        source = self.app.evm(
            "chain", rpc=[n.url for n in nodes], timeout="2 seconds", poll="50 ms", span_max=16, **options
        )
        source.contract("token", abi="erc20", events=["Transfer"])
        self.store = MemoryStore()
        self.schema, self.wired = wire(self.app)
        self.store.open(self.schema, create=True)
        self.heard = Heard()

    async def runner(self, until: plan.Until | int = plan.Until.FOREVER) -> Runner:
        clock = SystemClock(1)
        job = await build_job(self.app, self.wired["chain"], self.store, clock, until=until)
        return Runner([job], self.schema, self.store, clock, self.heard, 15.0)

    async def index(self) -> None:
        async with asyncio.timeout(40):
            await (await self.runner(plan.Until.HEAD)).run()

    async def follow(self, scene: Callable[[], Awaitable[None]]) -> None:
        runner = await self.runner()
        task = asyncio.create_task(runner.run())
        try:
            await scene()
        finally:
            runner.stop()
            await task

    def transfers(self) -> list[tuple[Any, ...]]:
        table = self.schema.table("token_transfer")
        columns, _ = self.store.facts(table, 0, 10**9)
        rows = [
            tuple(from_text(c, v) for c, v in zip(table.columns, row, strict=True))
            for row in zip(*columns, strict=True)
        ]
        return [(r[0], r[5], r[7], r[8], r[9]) for r in rows]

    def at(self, chain: ScriptedChain) -> bool:
        head = chain.block(chain.height)
        return head is not None and self.store.cursor("chain") == Cursor(head.number, head.hash)


def expected(chain: ScriptedChain) -> list[tuple[int, int, str, str, int]]:
    return [(t.block_number, t.log_index, t.from_, t.to_, t.value) for t in fold(chain).transfers]


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("depth", "longer"), [(5, 0), (30, 0), (30, 10), (60, 3)])
def test_an_endpoint_on_a_chain_of_its_own_changes_nothing(tmp_path: Path, depth: int, longer: int) -> None:
    """It tells of a fork, deep below what was final even, and has more blocks to show for it; two others have what
    is committed. Nothing is undone or halted, and what the others mine next is followed."""
    good, bad = chain(), chain()
    with FakeNode(good) as one, FakeNode(good) as two, FakeNode(bad) as liar:
        for honest in (one, two):
            honest.behave(faults.Late(0.01))  # so that the liar is the one preferred
        scene = Scene(tmp_path, [liar, one, two])
        asyncio.run(scene.index())
        assert scene.transfers() == expected(good)
        bad.reorg(depth, depth + longer)

        async def forked() -> None:
            await asyncio.sleep(2.0)
            assert scene.transfers() == expected(good)
            for _ in range(longer + 3):
                good.mine(1, logs=3)
                await asyncio.sleep(0.05)
            await until(lambda: scene.at(good))

        asyncio.run(scene.follow(forked))
        assert scene.transfers() == expected(good)
    assert scene.heard.reorgs == []
    assert not [reason for mode, reason in scene.heard.modes if mode is Mode.HALTED]


def test_a_real_fork_is_followed_by_all(tmp_path: Path) -> None:
    """When all see it, there is nothing to wait for."""
    good = chain()
    with FakeNode(good) as one, FakeNode(good) as two:
        scene = Scene(tmp_path, [one, two])
        asyncio.run(scene.index())

        async def forked() -> None:
            good.reorg(12, 13)
            await until(lambda: scene.at(good), 5)

        asyncio.run(scene.follow(forked))
        assert scene.transfers() == expected(good)
    assert scene.heard.reorgs == [12]


def test_a_node_that_starts_over_is_waited_for(tmp_path: Path) -> None:
    """A single node that syncs again from its first block has no fork to tell of."""
    good, syncing = chain(), ScriptedChain(seed=7, finalized_distance=FINAL_DEPTH, holders=3)
    syncing.mine(3, logs=4)
    with FakeNode(good) as node:
        scene = Scene(tmp_path, [node], reorg_max=10)
        asyncio.run(scene.index())

        async def synced() -> None:
            node.chain = syncing
            await until(lambda: scene.heard.modes[-1][0] is Mode.IDLE)
            await asyncio.sleep(0.5)
            assert scene.transfers() == expected(good)
            syncing.mine(BLOCKS, logs=4)
            await until(lambda: scene.at(syncing))

        asyncio.run(scene.follow(synced))
        assert scene.transfers() == expected(syncing)
    assert scene.heard.reorgs == []


def test_a_time_beyond_the_calendar_is_refused(tmp_path: Path) -> None:
    """A header whose time no table can hold comes from an endpoint that lies or errs: another one is asked, and
    nothing halts."""
    good = chain()
    with FakeNode(good) as liar, FakeNode(good) as honest:
        honest.behave(faults.Late(0.03))
        switch = liar.behave(block_lies.TamperedHeader("timestamp", "0xffffffffffff"), first=1)
        scene = Scene(tmp_path, [liar, honest])
        asyncio.run(scene.index())
        assert switch.used > 0
        assert scene.transfers() == expected(good)

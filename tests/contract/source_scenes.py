"""Scenes for the source contract: the EVM source over fake nodes, over a recording, and the tests' scripted source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from gapless.clock import SystemClock
from gapless.errors import SourceUnavailable
from gapless.model import Segment
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.recording import Recording
from gapless.sources.evm.source import EvmSource
from gapless.sources.evm.transport import HttpTransport
from gapless.sources.evm.types import Wants
from gapless.sources.replay import ReplayTransport
from gapless.testing.chain import ScriptedChain
from gapless.testing.node import FakeNode
from gapless.testing.source_contract import Known, SourceScene
from servers.evm_source import ALL_LOGS, plain
from unit.engine.scripted import ScriptedSource

QUICK = {
    "backoff_base_seconds": 0.002,
    "backoff_max_seconds": 0.02,
    "rest_seconds": 0.02,
    "rest_max_seconds": 0.1,
    "request_timeout_seconds": 5.0,
    "head_timeout_seconds": 1.0,
    "head_refresh_seconds": 0.0,
    "poll_seconds": 0.02,
    "span_start": 8,
}


class NodeScene(SourceScene):
    """An EVM source over fake nodes of one chain."""

    def __init__(self, nodes: list[FakeNode], chain: ScriptedChain, wants: Wants, **options: Any) -> None:
        self._nodes = nodes
        self._chain = chain
        settings: dict[str, Any] = {**QUICK, **options}
        transports = [HttpTransport(node.url) for node in nodes]
        self.source = EvmSource("chain", EvmOptions(**settings), wants, SystemClock(seed=1), transports)

    def truth(self) -> list[Known]:
        return [
            Known(b.number, b.hash, b.header.parent_hash, [plain(log) for log in b.logs]) for b in self._chain.blocks()
        ]

    def contents(self, segment: Segment[Any]) -> list[Any]:
        return [[plain(log) for log in logs] for logs in segment.payload.logs]

    async def grow(self, entries: int) -> None:
        self._chain.mine(entries, logs=2)

    async def fork(self, depth: int, entries: int) -> None:
        self._chain.reorg(depth, entries, logs=2)

    async def cut(self) -> None:
        for node in self._nodes:
            await asyncio.to_thread(node.stop)

    async def restore(self) -> None:
        for node in self._nodes:
            await asyncio.to_thread(node.start)


@asynccontextmanager
async def node_scene(nodes: int = 2, wants: Wants = ALL_LOGS, **options: Any) -> AsyncIterator[NodeScene]:
    chain = ScriptedChain(seed=4, finalized_distance=30)
    chain.mine(60, logs=2)
    running = [FakeNode(chain) for _ in range(nodes)]
    for node in running:
        await asyncio.to_thread(node.start)
    scene = NodeScene(running, chain, wants, **options)
    try:
        yield scene
    finally:
        await scene.source.close()
        await scene.cut()


class RecordedScene(SourceScene):
    """An EVM source over a recording, whose script alone moves the head."""

    def __init__(self, recording: Recording) -> None:
        self._node = ReplayTransport(recording)
        self.source = EvmSource("chain", EvmOptions(**QUICK), ALL_LOGS, SystemClock(seed=1), [self._node])  # type: ignore[arg-type]

    def truth(self) -> list[Known]:
        chain = self._node.recording.chains[self._node.step]
        parents = ["0x" + "00" * 32, *(block.hash for block in chain[:-1])]
        return [
            Known(block.number, block.hash, parent, len(block.logs))
            for block, parent in zip(chain, parents, strict=True)
        ]

    def contents(self, segment: Segment[Any]) -> list[Any]:
        return [len(logs) for logs in segment.payload.logs]


class ScriptedScene(SourceScene):
    """The source of the engine's tests. `source` may be broken on purpose."""

    def __init__(self, source: ScriptedSource) -> None:
        self.source = source
        self._script = source
        self._forks = 0
        for value in range(40):
            source.mine(value)
        source.final_depth = 30

    def truth(self) -> list[Known]:
        blocks = self._script.blocks
        parents = ["", *(block.id for block in blocks[:-1])]
        return [Known(p, b.id, parent, b.values) for p, (b, parent) in enumerate(zip(blocks, parents, strict=True))]

    def contents(self, segment: Segment[Any]) -> list[Any]:
        return [tuple(values) for values in segment.payload]

    async def grow(self, entries: int) -> None:
        for value in range(entries):
            self._script.mine(value)

    async def fork(self, depth: int, entries: int) -> None:
        self._forks += 1
        self._script.fork(depth, *([100 * self._forks + n] for n in range(entries)), branch=f"f{self._forks}.")

    async def cut(self) -> None:
        self._script.away = SourceUnavailable("nobody answers", source="s")

    async def restore(self) -> None:
        self._script.away = None


class Reachable(ScriptedSource):
    """A scripted source that can be cut off."""

    away: SourceUnavailable | None = None

    def _reach(self) -> None:
        if self.away is not None:
            raise self.away

    async def identity(self) -> Any:
        self._reach()
        return replace(await super().identity(), genesis=self.blocks[0].id)

    async def head(self) -> Any:
        self._reach()
        head = await super().head()
        return replace(head, time_us=head.latest.position)

    async def fetch(self, first: int, last: int, **given: Any) -> Any:
        self._reach()
        return await super().fetch(first, last, **given)

    async def cursors(self, positions: Any) -> Any:
        self._reach()
        return await super().cursors(positions)

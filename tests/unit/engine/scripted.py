"""A source whose chain is a list: for holding the engine's shell to its rules without a node."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from gapless.errors import NotYetAvailable, SourceError
from gapless.model import Cursor, Entry, Evidence, Head, Identity, Segment
from gapless.schema import Column, Kind, Nature, Rows, Table
from gapless.sources import Decoded, Events, SourceStatistics

TABLE = Table(
    "token_transfer",
    "s",
    Nature.FACT,
    (
        Column("block_number", Kind.INT),
        Column("transaction_hash", Kind.HASH),
        Column("log_index", Kind.INT),
        Column("value", Kind.UINT256),
    ),
    ("block_number", "log_index"),
)
Payload = list[list[int]]


class ListDecoder:
    """The payload is, entry by entry, the list of transferred values."""

    def decode(self, segment: Segment[Payload]) -> Decoded:
        columns: list[list[str | None]] = [[], [], [], []]
        order = []
        for entry, values in zip(segment.entries, segment.payload, strict=True):
            for index, value in enumerate(values):
                row = (str(entry.position), "0x" + "11" * 32, str(index), str(value))
                for column, cell in zip(columns, row, strict=True):
                    column.append(cell)
                order.append((entry.position, index))
        rows = Rows(TABLE, tuple(columns), tuple(len(v) for v in segment.payload))
        return Decoded((rows,), (Events("token.Transfer", rows, order),), ())


@dataclass(frozen=True)
class Block:
    id: str
    values: tuple[int, ...]


@dataclass
class ScriptedSource:
    """Serves `blocks`; tests change the list while it is followed."""

    blocks: list[Block] = field(default_factory=list)
    final_depth: int = 1000
    span_positions: int = 3
    failures: list[SourceError] = field(default_factory=list)
    """Raised by the next fetches, in turn."""
    liars: frozenset[str] = frozenset()
    served_by: str = "one"
    name: str = "s"
    kind: str = "scripted"
    fetched: list[tuple[int, int, frozenset[str]]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def mine(self, *values: int, branch: str = "a") -> None:
        number = len(self.blocks)
        self.blocks.append(Block(f"{branch}{number}", values))
        self.changed.set()

    def fork(self, depth: int, *blocks: Sequence[int], branch: str) -> None:
        del self.blocks[len(self.blocks) - depth :]
        for values in blocks:
            self.mine(*values, branch=branch)
        self.changed.set()

    def facts(self) -> list[tuple[int, int, int]]:
        """The oracle: (block, log index, value) of the present chain."""
        return [(n, i, v) for n, block in enumerate(self.blocks) for i, v in enumerate(block.values)]

    # --- the Source port --------------------------------------------------------------------------------------------

    async def identity(self) -> Identity:
        return Identity("scripted", "1", "genesis")

    async def head(self) -> Head:
        last = len(self.blocks) - 1
        return Head(Cursor(last, self.blocks[last].id), last - self.final_depth, last * 1_000_000)

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        head = await self.head()
        if head.latest == known:
            self.changed.clear()
            try:
                async with asyncio.timeout(min(timeout_seconds, 0.05)):
                    await self.changed.wait()
            except TimeoutError:
                return await self.head()
        return await self.head()

    def span(self) -> int:
        return self.span_positions

    async def fetch(
        self, first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()
    ) -> Segment[Payload]:
        await asyncio.sleep(0)
        self.fetched.append((first, last, avoid))
        if self.failures:
            raise self.failures.pop(0)
        if last >= len(self.blocks):
            raise NotYetAvailable("beyond the head", source=self.name, position=last)
        served = "other" if self.served_by in avoid else self.served_by
        entries = tuple(
            Entry(p, self.blocks[p].id, self.blocks[p - 1].id if p else "", p, Evidence.CHECKED, served)
            for p in range(first, last + 1)
        )
        return Segment(self.name, entries, [list(self.blocks[p].values) for p in range(first, last + 1)], 100)

    async def cursors(self, positions: Sequence[int]) -> list[Cursor | None]:
        return [Cursor(p, self.blocks[p].id) if p < len(self.blocks) else None for p in positions]

    async def opinions(self, position: int) -> dict[str, Cursor | None]:
        return {self.served_by: (await self.cursors([position]))[0]}

    def doubt(self, labels: frozenset[str]) -> None:
        return

    def take_liars(self) -> frozenset[str]:
        liars, self.liars = self.liars, frozenset()
        return liars

    def statistics(self) -> SourceStatistics:
        return SourceStatistics()

    async def close(self) -> None:
        return

"""A chain that forks on demand, what processes see of it, and what its blocks must come to: a fold from scratch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gapless.declare import UInt256, bind, key
from gapless.engine.handlers import Handler
from gapless.errors import Contradiction, NotYetAvailable, SourceUnavailable
from gapless.model import Cursor, Entry, Evidence, Head, Identity, Segment
from gapless.schema import Column, Kind, Nature, Rows, Schema, Table
from gapless.sources import Decoded, Events, SourceStatistics
from gapless.testing.fake_clock import FakeClock

NO_STATE_FOR = 13
"""A value that the handler of the state table does not take."""
NO_NOTE_FOR = 17
"""A value that the handler of the fact table does not take."""

TABLE = Table(
    "transfer",
    "s",
    Nature.FACT,
    (Column("block_number", Kind.INT), Column("log_index", Kind.INT), Column("value", Kind.UINT256)),
    ("block_number", "log_index"),
)


@dataclass(frozen=True)
class Total:
    """Kept in state: a sum for each remainder by three, removed where a multiple of five comes out."""

    name: str = key()
    value: UInt256 = 0


@dataclass(frozen=True)
class Note:
    """Kept as facts."""

    doubled: UInt256


TOTAL, NOTE = bind(Total, "s"), bind(Note, "s")
SCHEMA = Schema("stateful", (TABLE, TOTAL.table, NOTE.table), ("s",))


def add(transfer: Any, tables: Any) -> None:
    name = f"r{transfer.value % 3}"
    before = tables[Total].get(name)
    total = (before.value if before else 0) + transfer.value
    if total % 5 == 0:
        tables[Total].delete(name)
    else:
        tables[Total].put(Total(name, total))
    if transfer.value == NO_STATE_FOR:
        raise ValueError("not this one")


def note(transfer: Any, tables: Any) -> None:
    tables[Note].insert(Note(2 * transfer.value))
    if transfer.value == NO_NOTE_FOR:
        raise ValueError("nor this")


HANDLERS = (
    Handler("add", "token.Transfer", add, independent=True),
    Handler("note", "token.Transfer", note, independent=True),
)
BINDINGS = (TOTAL, NOTE)


class ListDecoder:
    """The payload is, entry by entry, the list of transferred values."""

    def decode(self, segment: Segment[Any]) -> Decoded:
        triples = [
            (entry.position, index, value)
            for entry, values in zip(segment.entries, segment.payload, strict=True)
            for index, value in enumerate(values)
        ]
        columns = tuple([str(cell) for cell in column] for column in zip(*triples, strict=True)) or ([], [], [])
        rows = Rows(TABLE, columns, tuple(len(values) for values in segment.payload))
        return Decoded((rows,), (Events("token.Transfer", rows, [(p, i) for p, i, _ in triples]),), ())


@dataclass(frozen=True)
class Block:
    position: int
    id: str
    parent_id: str
    values: tuple[int, ...]


@dataclass
class Folded:
    """What the tables hold."""

    ids: dict[int, str] = field(default_factory=dict)
    facts: set[tuple[int, int, int]] = field(default_factory=set)
    notes: set[tuple[int, int, int]] = field(default_factory=set)
    totals: dict[str, int] = field(default_factory=dict)
    quarantined: set[tuple[int, str, str]] = field(default_factory=set)

    def take(self, block: Block) -> None:
        self.ids[block.position] = block.id
        for index, value in enumerate(block.values):
            self.facts.add((block.position, index, value))
            if value == NO_NOTE_FOR:
                self.quarantined.add((block.position, f"log:{index}", "note"))
            else:
                self.notes.add((block.position, index, 2 * value))
            if value == NO_STATE_FOR:
                self.quarantined.add((block.position, f"log:{index}", "add"))
                continue
            name = f"r{value % 3}"
            total = self.totals.pop(name, 0) + value
            if total % 5:
                self.totals[name] = total


class Chain:
    """The present chain, and every block that ever was."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.stale: list[Block] = []
        """The chain before its last fork, for as long as a lagging endpoint may serve it."""
        self.final = -1
        self._forked_at = -1
        self._known: dict[str, Block] = {}

    @property
    def last(self) -> int:
        return len(self.blocks) - 1

    def mine(self, contents: Sequence[Sequence[int]]) -> None:
        for values in contents:
            parent = self.blocks[-1].id if self.blocks else ""
            block = Block(len(self.blocks), f"0x{len(self._known):x}", parent, tuple(values))
            self.blocks.append(block)
            self._known[block.id] = block

    def fork(self, depth: int, contents: Sequence[Sequence[int]]) -> None:
        """The newest blocks, none of them final, are replaced by others: fewer, as many, or more."""
        self.stale, self._forked_at = list(self.blocks), self.last - depth
        del self.blocks[len(self.blocks) - depth :]
        self.mine(contents)

    def finalize(self, position: int) -> None:
        self.final = max(self.final, min(position, self.last))
        if self.final > self._forked_at:
            self.stale = []

    def fold(self, start: int, cursor: Cursor | None) -> Folded:
        """From scratch, over the branch that ends in the cursor, from the first indexed block on."""
        branch = []
        at = "" if cursor is None else cursor.id
        while at and self._known[at].position >= start:
            branch.append(self._known[at])
            at = self._known[at].parent_id
        folded = Folded()
        for block in reversed(branch):
            folded.take(block)
        return folded

    def parent(self, cursor: Cursor, position: int) -> Cursor:
        """The ancestor of a block at a position."""
        block = self._known[cursor.id]
        while block.position > position:
            block = self._known[block.parent_id]
        return Cursor(block.position, block.id)


class Trouble(StrEnum):
    """What may befall one call of a source."""

    DOWN = "nobody answers"
    LIE = "blocks that contradict themselves"
    LAG = "a node that is two blocks behind"
    STALE = "a node that has not heard of the last fork"


class Source:
    """One process's way to the chain. Each call takes one of the `troubles`, while there are any."""

    name = "s"
    kind = "scripted"

    def __init__(self, chain: Chain, clock: FakeClock, span_positions: int) -> None:
        self._chain = chain
        self._clock = clock
        self._span_positions = span_positions
        self.troubles: deque[Trouble] = deque()
        self.liars: frozenset[str] = frozenset()

    async def _ask(self) -> tuple[Trouble | None, list[Block]]:
        await self._clock.sleep(0.001)
        trouble = self.troubles.popleft() if self.troubles else None
        if trouble is Trouble.DOWN:
            raise SourceUnavailable("no route", source="s")
        blocks = self._chain.blocks
        if trouble is Trouble.LAG:
            blocks = blocks[: max(1, len(blocks) - 2)]
        elif trouble is Trouble.STALE and self._chain.stale:
            blocks = self._chain.stale
        return trouble, list(blocks)

    async def identity(self) -> Identity:
        await self._ask()
        return Identity("scripted", "1", "genesis")

    async def head(self) -> Head:
        _, blocks = await self._ask()
        last = blocks[-1]
        return Head(Cursor(last.position, last.id), min(self._chain.final, last.position), last.position * 10**6)

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        until = self._clock.monotonic() + timeout_seconds
        while True:
            head = await self.head()
            if head.latest != known or self._clock.monotonic() >= until:
                return head
            await self._clock.sleep(0.5)

    def span(self) -> int:
        return self._span_positions

    async def fetch(self, first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()) -> Segment[Any]:
        trouble, blocks = await self._ask()
        if trouble is Trouble.LIE:
            raise Contradiction("a lie", kind="foreign_log", source="s", position=first)
        if last >= len(blocks):
            raise NotYetAvailable("beyond the head", source="s", position=last)
        label = next(label for label in ("one", "two") if label not in avoid)
        served = blocks[first : last + 1]
        entries = tuple(Entry(b.position, b.id, b.parent_id, b.position, Evidence.CHECKED, label) for b in served)
        return Segment("s", entries, [list(b.values) for b in served], 100 * len(served))

    async def cursors(self, positions: Sequence[int]) -> list[Cursor | None]:
        _, blocks = await self._ask()
        return [Cursor(p, blocks[p].id) if 0 <= p < len(blocks) else None for p in positions]

    async def opinions(self, position: int) -> dict[str, Cursor | None]:
        found = {}
        for label in ("one", "two"):
            try:
                found[label] = (await self.cursors([position]))[0]
            except SourceUnavailable:
                continue
        return found

    def doubt(self, labels: frozenset[str]) -> None:
        return

    def take_liars(self) -> frozenset[str]:
        liars, self.liars = self.liars, frozenset()
        return liars

    def statistics(self) -> SourceStatistics:
        return SourceStatistics()

    async def close(self) -> None:
        await asyncio.sleep(0)

"""The model that stores are compared with: dicts and lists, thought of apart from any store.

Where a store keeps undo records and takes them back, the model keeps a copy of all state after every block; where a
store counts tokens and floors, the model remembers who was granted what, and which blocks can still be undone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gapless.model import Cursor, Entry, Evidence, Fence, Gap, Quarantined, SourceReport, StateChange, Undo
from gapless.schema import Rows, Table, escape
from gapless.store import Batch
from stateful.drawn import FACTS, MEMOS, SOURCE, START, TIME_US, TRANSFERS, Drawn

Row = tuple[str | None, ...]
Slot = tuple[str, Row]
Held = tuple[Row, int]
"""A state row's values, and the block that wrote them."""


@dataclass(frozen=True)
class Block:
    """A block and everything it produced."""

    entry: Entry
    rows: dict[str, tuple[Row, ...]]
    touched: tuple[Slot, ...]
    state: dict[Slot, Held]
    """All state after it."""
    quarantined: tuple[Quarantined, ...]

    @property
    def count(self) -> int:
        return sum(map(len, self.rows.values()))

    @property
    def digest(self) -> str:
        """As docs and docstring of `gapless.digest` say, once more."""
        text = f"gapless entry 1\n{self.entry.position}\t{self.entry.id}\n"
        for name in sorted(n for n, rows in self.rows.items() if rows):
            text += f"{name}\t{len(self.rows[name])}\n"
            for row in self.rows[name]:
                text += "\t".join("\\N" if cell is None else escape(cell) for cell in row) + "\n"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Lease:
    holder: str
    token: int
    until: float


@dataclass
class Model:
    """What a database must hold."""

    chain: list[Block] = field(default_factory=list)
    undoable: set[int] = field(default_factory=set)
    """Positions whose undo records were not trimmed."""
    entries: set[int] = field(default_factory=set)
    """Positions whose entry row nobody has deleted."""
    facts: dict[str, set[Row]] = field(default_factory=lambda: {t.name: set() for t in FACTS})
    quarantine: list[Quarantined] = field(default_factory=list)
    """In the order in which they came."""
    gaps: dict[tuple[int, int], Gap] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    report: SourceReport = field(default_factory=SourceReport)
    now: float = 0.0
    made: int = 0
    """Blocks made so far: each has an id of its own."""

    # --- the chain --------------------------------------------------------------------------------------------------

    @property
    def last(self) -> int:
        return START + len(self.chain) - 1

    @property
    def cursor(self) -> Cursor | None:
        return self.chain[-1].entry.cursor if self.chain else None

    def block(self, position: int) -> Block:
        return self.chain[position - START]

    def at(self, position: int) -> Cursor:
        """The cursor at a position; the one before the first has no id."""
        return self.block(position).entry.cursor if position >= START else Cursor(START - 1, "")

    def state_at(self, position: int) -> dict[Slot, Held]:
        return self.block(position).state if position >= START else {}

    def draw(self, base: int, drawn: Sequence[Drawn]) -> list[Block]:
        """Blocks on top of the one at `base`; they are not committed by this."""
        parent, state, blocks = self.at(base).id, self.state_at(base), []
        for position, one in enumerate(drawn, base + 1):
            self.made += 1
            entry = Entry(
                position,
                f"0x{self.made:x}",
                parent,
                TIME_US + position,
                one.evidence,
                one.served_by,
                one.audited,
            )
            blocks.append(_block(entry, one, state))
            parent, state = entry.id, blocks[-1].state
        return blocks

    def batch(self, blocks: Sequence[Block], **given: Any) -> Batch:
        """What the engine would commit for these blocks, with undo for those that are not final."""
        final = given.get("finalized")
        before = self.state_at(blocks[0].entry.position - 1)
        changes: dict[Slot, StateChange] = {}
        undo = []
        for block in blocks:
            position = block.entry.position
            for slot in block.touched:
                values = block.state[slot][0] if slot in block.state else None
                changes[slot] = StateChange(*slot, values, position)
                if final is None or position > final:
                    old = before.get(slot)
                    undo.append(Undo(position, *slot, old[0] if old else None, old[1] if old else None))
            before = block.state
        return Batch(
            source=SOURCE,
            entries=tuple(b.entry for b in blocks),
            digests=tuple(b.digest for b in blocks),
            counts=tuple(b.count for b in blocks),
            rows=tuple(_columns(table, blocks) for table in (TRANSFERS, MEMOS)),
            changes=tuple(changes.values()),
            undo=tuple(undo),
            quarantined=tuple(q for b in blocks for q in b.quarantined),
            **given,
        )

    # --- what happens to it -----------------------------------------------------------------------------------------

    def commit(self, blocks: Sequence[Block], batch: Batch) -> None:
        if batch.rewind_to is not None:
            depth = self.last - batch.rewind_to.position
            self.drop(batch.rewind_to.position)
            deepest = max(self.report.reorg_deepest, depth)
            self.report = replace(self.report, reorgs=self.report.reorgs + 1, reorg_deepest=deepest)
        self.chain += blocks
        self.undoable |= {b.entry.position for b in blocks}
        self._write(blocks)
        if batch.finalized is not None:
            self.trim(batch.finalized)
            self.report = replace(self.report, finalized=batch.finalized)
        if batch.head is not None:
            self.report = replace(self.report, head=batch.head)

    def replaced(self, blocks: Sequence[Block]) -> None:
        """Other contents, same state: `replace` leaves state and undo alone."""
        for block in blocks:
            old = self.block(block.entry.position)
            self.chain[block.entry.position - START] = replace(block, state=old.state, touched=old.touched)
        self._clear(blocks[0].entry.position, blocks[-1].entry.position)
        self._write(blocks)

    def can_undo(self, ancestor: int) -> bool:
        return ancestor < START or self.undoable >= set(range(ancestor + 1, self.last + 1))

    def drop(self, ancestor: int) -> int:
        """Undo everything above; how many entry rows that were."""
        gone = sum(p > ancestor for p in self.entries)
        self._clear(ancestor + 1, 10**18)
        self.undoable = {p for p in self.undoable if p <= ancestor}
        del self.chain[max(0, ancestor - START + 1) :]
        return gone

    def trim(self, upto: int) -> None:
        self.undoable = {p for p in self.undoable if p > upto}

    def _write(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self.entries.add(block.entry.position)
            for name, rows in block.rows.items():
                self.facts[name] |= set(rows)
            self.quarantine += block.quarantined
        self.clear_gaps(blocks[0].entry.position, blocks[-1].entry.position)

    def _clear(self, first: int, last: int) -> None:
        self.entries = {p for p in self.entries if not first <= p <= last}
        for name, rows in self.facts.items():
            self.facts[name] = {row for row in rows if not first <= int(row[0] or 0) <= last}
        self.quarantine = [q for q in self.quarantine if not first <= q.position <= last]
        self.clear_gaps(first, last)

    # --- books ------------------------------------------------------------------------------------------------------

    def record_gap(self, gap: Gap) -> None:
        known = self.gaps.get((gap.first, gap.last))
        self.gaps[gap.first, gap.last] = replace(gap, since_us=known.since_us if known else gap.since_us)

    def clear_gaps(self, first: int, last: int) -> None:
        for (a, b), gap in sorted(self.gaps.items()):
            if a > last or b < first:
                continue
            del self.gaps[a, b]
            for low, high in ((a, first - 1), (last + 1, b)):
                if low <= high:
                    self.gaps.setdefault((low, high), replace(gap, first=low, last=high))

    def acquire(self, name: str, holder: str, ttl_seconds: float) -> Fence | None:
        lease = self.leases.setdefault(name, Lease("", 0, 0.0))
        if lease.holder and lease.until > self.now:
            return None
        self.leases[name] = Lease(holder, lease.token + 1, self.now + ttl_seconds)
        return Fence(name, holder, lease.token + 1)

    def holds(self, fence: Fence) -> bool:
        """Also when it has expired, as long as nobody took it."""
        lease = self.leases.get(fence.name)
        return lease is not None and (lease.holder, lease.token) == (fence.holder, fence.token)

    # --- what the reading methods must say --------------------------------------------------------------------------

    def rows(self, table: Table) -> list[Row]:
        return sorted(self.facts[table.name], key=lambda r: (int(r[0] or 0), int(r[1] or 0)))

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        return ranges(p for p in range(first, last + 1) if p not in self.entries)

    def damaged(self) -> list[tuple[int, int, int]]:
        found = []
        for block in self.chain:
            position = block.entry.position
            there = sum(int(r[0] or 0) == position for rows in self.facts.values() for r in rows)
            if position in self.entries and there != block.count:
                found.append((position, block.count, there))
        return found

    def unaudited(self, label: str) -> list[tuple[int, int]]:
        present = (b.entry for b in self.chain if b.entry.position in self.entries)
        bare = (e for e in present if not e.audited and e.evidence is not Evidence.PROVED)
        return ranges(e.position for e in bare if e.served_by == label)

    def before(self, ancestor: int) -> set[tuple[str, Row, Row | None, int | None]]:
        """What every state row that was changed above the ancestor was there."""
        then = self.state_at(ancestor)
        touched = {slot for block in self.chain if block.entry.position > ancestor for slot in block.touched}
        return {(*slot, *then.get(slot, (None, None))) for slot in touched}


def ranges(positions: Any) -> list[tuple[int, int]]:
    """Ascending positions as runs."""
    found: list[tuple[int, int]] = []
    for p in positions:
        found = [*found[:-1], (found[-1][0], p)] if found and found[-1][1] == p - 1 else [*found, (p, p)]
    return found


def _block(entry: Entry, drawn: Drawn, before: dict[Slot, Held]) -> Block:
    position, state = entry.position, dict(before)
    touched: dict[Slot, None] = {}
    for put in drawn.puts:
        slot = (put.table.name, put.key)
        touched[slot] = None
        state.pop(slot, None)
        if put.rest is not None:
            state[slot] = ((*put.key, *put.rest), position)
    rows = {
        TRANSFERS.name: tuple((str(position), str(i), str(v)) for i, v in enumerate(drawn.values)),
        MEMOS.name: tuple((str(position), str(8 + 3 * i), said) for i, said in enumerate(drawn.memos)),
    }
    faulty = Quarantined(SOURCE, position, "log:7", "transfer", "does not decode", '{"data":"0x"}')
    return Block(entry, rows, tuple(touched), state, (faulty,) if drawn.faulty else ())


def _columns(table: Table, blocks: Sequence[Block]) -> Rows:
    rows = [row for block in blocks for row in block.rows[table.name]]
    columns = tuple(zip(*rows, strict=True)) if rows else tuple(() for _ in table.columns)
    return Rows(table, columns, tuple(len(b.rows[table.name]) for b in blocks))

"""What must be true after every commit of a simulation, and at its end.

The checks read the database through a handle of their own, and know the blocks from the script. What the tables must
hold comes from an oracle, which is to share no code with the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gapless.digest import range_digest, state_digest
from gapless.model import Cursor, Fence
from gapless.schema import Nature, Schema, Table
from gapless.store import Batch, Store
from gapless.testing.block import ScriptedBlock

Row = tuple[str | None, ...]
State = Mapping[str, Mapping[Row, Row]]
"""State table → key → row, in canonical text."""

_ALL = 2**62


class SimulationFailed(AssertionError):
    """A rule does not hold. The message ends with what repeats the run."""


@dataclass(frozen=True, slots=True)
class Produced:
    """What a block adds to fact tables and to quarantine."""

    facts: Mapping[str, tuple[Row, ...]]
    """Table → rows in key order, in canonical text; tables without rows may be left out."""
    waiting: tuple[tuple[str, str], ...] = ()
    """(item, consumer) of what its handlers do not take."""


class Oracle(Protocol):
    """Which rows an app's tables must hold: a fold over blocks, as simple as can be."""

    def fold(self, state: State, block: ScriptedBlock) -> tuple[State, Produced]:
        """What one block makes of the state tables, and adds to the others. May not change what it is given."""
        ...


@dataclass(frozen=True, slots=True)
class _Prefix:
    state: State
    produced: Produced


class Checker:
    """The checks of one run. `blocks` are all there ever were, by hash. Raises SimulationFailed."""

    def __init__(
        self,
        store: Store,
        schema: Schema,
        lease: str,
        start: int,
        blocks: Mapping[str, ScriptedBlock],
        oracle: Oracle | None,
        full_check_every: int,
        note: Callable[..., None],
    ) -> None:
        self.store = store
        self._schema = schema
        (self._source,) = schema.sources
        self._lease = lease
        self._start = start
        self._blocks = blocks
        self._oracle = oracle
        self._full_check_every = full_check_every
        self._note = note
        self._facts = schema.of(self._source, Nature.FACT)
        self._states = schema.of(self._source, Nature.STATE)
        self._prefixes: dict[str, _Prefix] = {}
        self._token = 0
        self.damaged: set[int] = set()
        """Positions whose rows were removed by hand and are not repaired yet."""
        self.commits = 0
        self.forks = 0
        self.fork_deepest = 0

    # --- after each commit ------------------------------------------------------------------------------------------

    def wrote(self, kind: str, batch: Batch, expected: Cursor | None, fence: Fence) -> None:
        """A batch was committed, or replaced, just now."""
        first, last = batch.entries[0], batch.entries[-1]
        self._note(kind, fence.holder, fence.token, first.position, last.position, last.id, batch.rewind_to)
        self._check_leader(fence)
        self._check_links(batch)
        if kind == "commit":
            self._check_place(batch, expected)
            self.commits += 1
        self.damaged -= set(range(first.position, last.position + 1))
        self._check_rows(first.position, last.position)
        self._check_state()
        if self.commits % self._full_check_every == 0:
            self.check_all()

    def _check_leader(self, fence: Fence) -> None:
        [lease] = [x for x in self.store.leases() if x.name == self._lease]
        _must((fence.holder, fence.token) == (lease.holder, lease.token), f"{fence} wrote, but {lease} leads")
        _must(fence.token >= self._token, f"token {fence.token} wrote after {self._token}")
        self._token = fence.token

    def _check_links(self, batch: Batch) -> None:
        parent = None
        for entry in batch.entries:
            block = self._blocks.get(entry.id)
            if block is None:
                raise SimulationFailed(f"{entry} is a block that never was")
            if (block.number, block.parent_hash) != (entry.position, entry.parent_id):
                raise SimulationFailed(f"{entry} is block {block.number} on {block.parent_hash}")
            if parent is not None and parent.cursor != Cursor(entry.position - 1, entry.parent_id):
                raise SimulationFailed(f"{entry} does not link to {parent}")
            parent = entry

    def _check_place(self, batch: Batch, expected: Cursor | None) -> None:
        """It continues what was there, and the cursor is its last entry."""
        first, last = batch.entries[0], batch.entries[-1]
        under = batch.rewind_to if batch.rewind_to is not None else expected
        if under is None or under.position < self._start:
            _must(first.position == self._start, f"the first entry is {first}")
        else:
            _must(Cursor(first.position - 1, first.parent_id) == under, f"{first} was put on {under}")
        if batch.rewind_to is not None and expected is not None:
            self.forks += 1
            self.fork_deepest = max(self.fork_deepest, expected.position - batch.rewind_to.position)
        cursor = self.store.cursor(self._source)
        _must(cursor == last.cursor, f"the cursor is {cursor} after {last.cursor} was committed")
        above = self.store.entries(self._source, last.position + 1, _ALL)
        _must(not above, f"entries above the cursor: {above[:1]}")

    def _check_rows(self, first: int, last: int) -> None:
        """The rows of these positions are those of their blocks, all of them and no others."""
        entries = self.store.entries(self._source, first, last)
        _must(
            [e.entry.position for e in entries] == list(range(first, last + 1)),
            f"of {first}..{last} there are {[e.entry.position for e in entries]}",
        )
        found = {table.name: self._rows(table, first, last) for table in self._facts}
        counts = {e.entry.position: 0 for e in entries}
        for rows in found.values():
            for position, held in rows.items():
                counts[position] = counts.get(position, 0) + len(held)
        for stored in entries:
            position = stored.entry.position
            if position in self.damaged:
                continue
            if counts[position] != stored.rows:
                raise SimulationFailed(f"{position} has {counts[position]} rows, {stored.rows} in its books")
            if self._oracle is not None:
                produced = self._prefix(stored.entry.id).produced
                for table in self._facts:
                    must = produced.facts.get(table.name, ())
                    is_ = found[table.name].get(position, ())
                    if is_ != must:
                        raise SimulationFailed(f"{table.name} at {position}:\n  holds {is_}\n  must  {must}")
        _must(counts.keys() <= set(range(first, last + 1)), f"rows of no entry: {sorted(counts)}")

    def _rows(self, table: Table, first: int, last: int) -> dict[int, tuple[Row, ...]]:
        columns, positions = self.store.facts(table, first, last)
        rows: dict[int, list[Row]] = {}
        for position, row in zip(positions, zip(*columns, strict=True), strict=True):
            rows.setdefault(position, []).append(row)
        return {position: tuple(held) for position, held in rows.items()}

    def _check_state(self) -> None:
        cursor = self.store.cursor(self._source)
        if self._oracle is None or not self._states:
            return
        must = {} if cursor is None else self._prefix(cursor.id).state
        for table in self._states:
            wanted = sorted(must.get(table.name, {}).values(), key=str)
            held = sorted((row.values for row in self.store.state_rows(table)), key=str)
            if held != wanted:
                raise SimulationFailed(f"{table.name} at {cursor}:\n  holds {held}\n  must  {wanted}")

    # --- everything -------------------------------------------------------------------------------------------------

    def check_all(self) -> None:
        """Every table against the whole committed prefix."""
        cursor = self.store.cursor(self._source)
        self.damaged = {p for p in self.damaged if cursor is not None and p <= cursor.position}
        self._check_state()
        if cursor is None:
            held = [t.name for t in self._facts if self.store.row_count(t)]
            _must(not held, f"rows in {held} before the first commit")
            return
        self._check_rows(self._start, cursor.position)
        for table in self._facts:
            inside = sum(map(len, self._rows(table, self._start, cursor.position).values()))
            _must(inside == self.store.row_count(table), f"{table.name} has rows outside of {self._start}..{cursor}")
        at = cursor.id
        for stored in reversed(self.store.entries(self._source, self._start, cursor.position)):
            if stored.entry.id != at:
                raise SimulationFailed(f"{stored.entry} is not on the branch of {cursor}")
            at = stored.entry.parent_id
        self._check_quarantine(cursor)

    def _check_quarantine(self, cursor: Cursor) -> None:
        if self._oracle is None:
            return
        must = []
        block: ScriptedBlock | None = self._blocks[cursor.id]
        while block is not None and block.number >= self._start:
            must += [(block.number, *item) for item in self._prefix(block.hash).produced.waiting]
            block = self._blocks.get(block.parent_hash)
        rows = self.store.quarantine(self._source)
        held = sorted((r.item.position, r.item.item, r.item.consumer) for r in rows)
        _must(held == sorted(must), f"in quarantine at {cursor}:\n  are  {held}\n  must {sorted(must)}")

    def digests(self) -> tuple[str, str]:
        """Of all entries, and of all state."""
        entries = self.store.entries(self._source, 0, _ALL)
        states = [
            (t.name, ["\t".join("\\N" if v is None else v for v in row.values) for row in self.store.state_rows(t)])
            for t in self._states
        ]
        return range_digest(e.digest for e in entries), state_digest(states)

    def _prefix(self, block_hash: str) -> _Prefix:
        """What the oracle makes of the branch that ends in a block, from the first indexed one on."""
        missing: list[ScriptedBlock] = []
        at = block_hash
        while at not in self._prefixes and at in self._blocks and self._blocks[at].number >= self._start:
            missing.append(self._blocks[at])
            at = self._blocks[at].parent_hash
        prefix = self._prefixes.get(at) or _Prefix({}, Produced({}))
        for block in reversed(missing):
            if self._oracle is not None:
                prefix = self._prefixes[block.hash] = _Prefix(*self._oracle.fold(prefix.state, block))
        return prefix


def _must(holds: bool, rule: str) -> None:
    if not holds:
        raise SimulationFailed(rule)

"""The Store port under random histories, after every step of which everything a store says equals the model.

Two handles on one database stand for two processes. Each step is one call of the port, or something that happens to the
database behind its back. A machine's class names its database, so that Hypothesis can make as many as it wants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gapless.digest import entry_digests
from gapless.errors import CursorMoved, LeaseLost, NothingToUndo, StoreError, StoreUnavailable, WrongChain
from gapless.model import Cursor, Entry, Evidence, Fence, Gap, Mode, SourceReport, StateChange, Undo
from gapless.schema import Rows
from gapless.store import Batch, StateRow, Store
from stateful.databases import Crash, Cut, Database
from stateful.drawn import (
    BLOCKS,
    BRANCHES,
    FACTS,
    IDENTITY,
    NEIGHBOUR,
    OTHER_STATE,
    OTHERS,
    SOURCE,
    START,
    STATES,
    TIME_US,
    TRANSFERS,
    Drawn,
)
from stateful.model import Block, Lease, Model, ranges

LEAD, OTHER_LEASE = "v1:s", "v1:t"
TTL_SECONDS = 3600.0
SLACK_SECONDS = 300.0
"""By which the real clock of a server may have moved during one history."""
EVER = (START - 10, START + 10_000)

HANDLES = st.integers(0, 1)
EVERYTHING = 11
NUMBERS = st.integers(0, EVERYTHING)
"""Picks one of whatever there is; or how far to go back, the last one for as far as can be."""
FINALS = st.none() | st.integers(-3, 6)
"""How far below (or above) the end of a batch everything is final."""


def machine_on(database: Database, machine: type[StoreMachine] | None = None) -> type[StoreMachine]:
    """The machine on one database."""
    return type("StoreMachine", (machine or StoreMachine,), {"database": database})


class StoreMachine(RuleBasedStateMachine):
    """One history."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.handles: list[Store] = []
        self.fence = Fence(LEAD, "nobody", 0)
        """The last one granted."""
        self.lost: list[Fence] = []
        self.checks = 0

    @initialize(drawn=st.lists(BLOCKS, min_size=3, max_size=8), below=FINALS)
    def begin(self, drawn: list[Drawn], below: int | None) -> None:
        self.database.fresh()
        self.handles = [self.database.opened(), self.database.opened()]
        store = self.handles[0]
        store.bind_source(SOURCE, IDENTITY, START)
        self._commit_neighbour(store)
        self.take_lease(0, "p0", TTL_SECONDS)
        self.grow(0, drawn, below)

    def teardown(self) -> None:
        for store in self.handles:
            store.close()

    def _commit_neighbour(self, store: Store) -> None:
        """Something of another source, which must stay as it is whatever happens to ours."""
        store.bind_source(NEIGHBOUR, IDENTITY, 0)
        fence = store.acquire(OTHER_LEASE, "n", 10**6)
        assert fence is not None
        self.model.leases[OTHER_LEASE] = Lease("n", 1, 10.0**6)
        entries = tuple(
            Entry(p, f"n{p}", f"n{p - 1}" if p else "", TIME_US + p, Evidence.CHECKED, "one") for p in range(12)
        )
        rows = Rows(OTHERS, ([str(p) for p in range(12)], ["0"] * 12), (1,) * 12)
        digests, counts = entry_digests(entries, [rows])
        changes = (StateChange(OTHER_STATE.name, ("ann",), ("ann", "7"), 11),)
        undo = (Undo(11, OTHER_STATE.name, ("ann",), None, None),)
        store.commit(Batch(NEIGHBOUR, entries, tuple(digests), tuple(counts), (rows,), changes, undo), None, fence)
        store.record_gap(Gap(NEIGHBOUR, 3, 9, "theirs", 5))

    # --- picking ----------------------------------------------------------------------------------------------------

    def _leads(self) -> bool:
        return self.model.holds(self.fence)

    def _leads_something(self) -> bool:
        return self._leads() and bool(self.model.chain)

    def _pick(self, number: int) -> int:
        """One of the committed positions."""
        return START + 13 * number % len(self.model.chain)

    def _final(self, last: int, below: int | None) -> int | None:
        return None if below is None else last - below

    def _ancestor(self, number: int) -> int:
        """A position below the cursor that can be gone back to; START - 1 always can."""
        fitting = [p for p in range(START - 1, self.model.last) if self.model.can_undo(p)]
        return fitting[0 if number == EVERYTHING else -1 - number % 6 % len(fitting)]

    # --- commits ----------------------------------------------------------------------------------------------------

    def _build(self, drawn: list[Drawn], below: int | None, depth: int | None) -> tuple[list[Block], Batch]:
        """A batch on the cursor, or, with a depth, on an ancestor."""
        base = self.model.last if depth is None or not self.model.chain else self._ancestor(depth)
        blocks = self.model.draw(base, drawn)
        last = base + len(blocks)
        to = None if base == self.model.last else self.model.at(base)
        return blocks, self.model.batch(blocks, rewind_to=to, finalized=self._final(last, below), head=last + 2)

    @precondition(_leads)
    @rule(h=HANDLES, drawn=BRANCHES, below=FINALS)
    def grow(self, h: int, drawn: list[Drawn], below: int | None) -> None:
        blocks, batch = self._build(drawn, below, None)
        self.handles[h].commit(batch, self.model.cursor, self.fence)
        self.model.commit(blocks, batch)

    @precondition(_leads)
    @rule(h=HANDLES, drawn=BRANCHES, more=BRANCHES)
    def grow_twice(self, h: int, drawn: list[Drawn], more: list[Drawn]) -> None:
        """One process after the other, and one knows of the other's."""
        self.grow(h, drawn, None)
        self.grow(1 - h, more, 3)

    @precondition(_leads_something)
    @rule(h=HANDLES, drawn=BRANCHES, below=FINALS, depth=NUMBERS)
    def fork(self, h: int, drawn: list[Drawn], below: int | None, depth: int) -> None:
        blocks, batch = self._build(drawn, below, depth)
        self.handles[h].commit(batch, self.model.cursor, self.fence)
        self.model.commit(blocks, batch)

    @precondition(_leads_something)
    @rule(h=HANDLES, drawn=BRANCHES)
    def fork_too_deep(self, h: int, drawn: list[Drawn]) -> None:
        """Below what was trimmed, but not to the very beginning, state cannot be taken back."""
        deep = [p for p in range(START, self.model.last) if not self.model.can_undo(p)]
        if deep:
            blocks = self.model.draw(deep[0], drawn)
            batch = self.model.batch(blocks, rewind_to=self.model.at(deep[0]))
            with pytest.raises(NothingToUndo):
                self.handles[h].commit(batch, self.model.cursor, self.fence)

    @precondition(_leads)
    @rule(h=HANDLES, drawn=BRANCHES, which=NUMBERS)
    def commit_on_another_cursor(self, h: int, drawn: list[Drawn], which: int) -> None:
        """The same number with another id, an older one, one that is not there yet, none: refused."""
        known = self.model.cursor
        cursors = [Cursor(self.model.last, "0xdead"), None, Cursor(self.model.last + 1, "0xbeef")]
        cursors += [b.entry.cursor for b in self.model.chain[:-1]]
        wrong = [c for c in cursors if c != known][which % (len(cursors) - (known is None))]
        blocks = self.model.draw(self.model.last, drawn)
        batch = self.model.batch(blocks)
        if wrong is not None and wrong.position == self.model.last:
            first = replace(batch.entries[0], parent_id=wrong.id)
            batch = replace(batch, entries=(first, *batch.entries[1:]))
        with pytest.raises(CursorMoved):
            self.handles[h].commit(batch, wrong, self.fence)

    @precondition(_leads_something)
    @rule(h=HANDLES)
    def commit_again(self, h: int) -> None:
        """What a process does that was not told that its commit went through."""
        before = self.model.at(self.model.last - 1) if self.model.last > START else None
        with pytest.raises(CursorMoved):
            self.handles[h].commit(self.model.batch(self.model.chain[-1:]), before, self.fence)

    @precondition(_leads)
    @rule(h=HANDLES, drawn=BRANCHES, depth=st.none() | NUMBERS)
    def commit_what_fails_in_the_middle(self, h: int, drawn: list[Drawn], depth: int | None) -> None:
        """Two rows with one key: nothing of it stays, and what it would have undone is not undone."""
        _, batch = self._build(drawn, None, depth)
        last = str(batch.entries[-1].position)
        rows = [r for r in batch.rows if r.table is not TRANSFERS]
        doubled = next(r for r in batch.rows if r.table is TRANSFERS)
        columns = tuple((*c, v, v) for c, v in zip(doubled.columns, (last, "99", "1"), strict=True))
        rows.append(Rows(TRANSFERS, columns, (*doubled.counts[:-1], doubled.counts[-1] + 2)))
        batch = replace(batch, rows=tuple(rows), counts=(*batch.counts[:-1], batch.counts[-1] + 2))
        with pytest.raises(StoreError):
            self.handles[h].commit(batch, self.model.cursor, self.fence)

    @rule(h=HANDLES, drawn=BRANCHES, which=NUMBERS, what=st.sampled_from(["commit", "replace", "rewind"]))
    def write_without_the_lease(self, h: int, drawn: list[Drawn], which: int, what: str) -> None:
        """Whoever led before, or never, or another source, writes nothing."""
        strangers = [f for f in (*self.lost, Fence(LEAD, "p9", 99), Fence(OTHER_LEASE, "n", 2)) if f != self.fence]
        stranger, store = strangers[which % len(strangers)], self.handles[h]
        cursor = self.model.cursor
        batch = self.model.batch(self.model.draw(self.model.last, drawn))
        writes: dict[str, Callable[[], Any]] = {"commit": lambda: store.commit(batch, cursor, stranger)}
        if cursor is not None:
            again = self.model.batch(self.model.chain[-1:])
            writes["replace"] = lambda: store.replace(again, stranger)
            writes["rewind"] = lambda: store.rewind(SOURCE, self.model.at(START - 1), cursor, stranger)
        with pytest.raises(LeaseLost):
            writes.get(what, writes["commit"])()

    # --- crashes ----------------------------------------------------------------------------------------------------

    @precondition(_leads)
    @rule(drawn=BRANCHES, below=FINALS, depth=st.none() | NUMBERS, cut=st.sampled_from(Cut))
    def crash_at_commit(self, drawn: list[Drawn], below: int | None, depth: int | None, cut: Cut) -> None:
        """All of it is there or nothing, and the cursor tells which."""
        blocks, batch = self._build(drawn, below, depth)
        before = self.model.cursor
        self._cut(cut, lambda store: store.commit(batch, before, self.fence))
        if cut is Cut.AFTER:
            self.model.commit(blocks, batch)
        assert self.handles[0].cursor(SOURCE) == self.model.cursor

    @precondition(_leads_something)
    @rule(number=NUMBERS, cut=st.sampled_from(Cut))
    def crash_at_rewind(self, number: int, cut: Cut) -> None:
        if isinstance(self.handles[0], self._unjournaled):
            return
        ancestor, before = self._ancestor(number), self.model.cursor
        assert before is not None
        self._cut(cut, lambda store: store.rewind(SOURCE, self.model.at(ancestor), before, self.fence))
        if cut is Cut.AFTER:
            self.model.drop(ancestor)

    @property
    def _unjournaled(self) -> type:
        """A store in memory has one step for a rewind, with nothing to cut."""
        from gapless.store.memory import MemoryStore

        return MemoryStore

    def _cut(self, cut: Cut, write: Callable[[Store], Any]) -> None:
        """Cut it off; then, where the process ended, all handles are gone, and others are opened."""
        if not self.database.survives_lost_replies:
            with self.database.cut(cut), pytest.raises(Crash):
                write(self.handles[0])
            self._open_anew()
        elif cut is Cut.BEFORE:
            with self.database.cut(cut), pytest.raises(StoreUnavailable):
                write(self.handles[0])
        else:
            with self.database.cut(cut):
                write(self.handles[0])

    def _open_anew(self) -> None:
        for store in self.handles:
            store.close()
        self.handles = [self.database.opened(), self.database.opened()]

    @rule(h=HANDLES)
    def reopen(self, h: int) -> None:
        self.handles[h].close()
        self.handles[h] = self.database.opened()

    # --- going back, and again --------------------------------------------------------------------------------------

    @precondition(_leads_something)
    @rule(h=HANDLES, number=NUMBERS)
    def rewind(self, h: int, number: int) -> None:
        ancestor, before = self.model.last if number == 0 else self._ancestor(number - 1), self.model.cursor
        assert before is not None
        undone = self.handles[h].rewind(SOURCE, self.model.at(ancestor), before, self.fence)
        expected = 0 if ancestor == self.model.last else self.model.drop(ancestor)
        assert undone == expected

    @precondition(_leads_something)
    @rule(h=HANDLES, number=NUMBERS)
    def rewind_wrongly(self, h: int, number: int) -> None:
        """Deeper than there is undo for; to an entry that is not there; from another cursor."""
        model, store, before = self.model, self.handles[h], self.model.cursor
        assert before is not None
        position = self._pick(number)
        if not model.can_undo(position):
            with pytest.raises(NothingToUndo):
                store.rewind(SOURCE, model.at(position), before, self.fence)
        elif position in model.entries and position < model.last:
            with pytest.raises(CursorMoved):
                store.rewind(SOURCE, Cursor(position, "0xdead"), before, self.fence)
        with pytest.raises(CursorMoved):
            store.rewind(SOURCE, model.at(START - 1), Cursor(before.position, "0xdead"), self.fence)

    @precondition(_leads_something)
    @rule(h=HANDLES, number=NUMBERS, drawn=st.lists(BLOCKS, min_size=1, max_size=3), same=st.booleans())
    def replace(self, h: int, number: int, drawn: list[Drawn], same: bool) -> None:
        """The same again (a repair), or what another version derives from the same entries (a replay)."""
        first = self._pick(number)
        old = self.model.chain[first - START :][: len(drawn)]
        blocks = old if same else _derived_anew(self.model, old, drawn)
        self.handles[h].replace(replace(self.model.batch(blocks), changes=(), undo=()), self.fence)
        self.model.replaced(blocks)

    @precondition(_leads_something)
    @rule(h=HANDLES, number=NUMBERS, drawn=st.lists(BLOCKS, min_size=1, max_size=3))
    def replace_with_another_branch(self, h: int, number: int, drawn: list[Drawn]) -> None:
        """Refused where anything around it tells: a neighbour that is there, or the cursor."""
        first = self._pick(number)
        foreign = self.model.draw(first - 1, drawn)
        last = foreign[-1].entry.position
        told = last >= self.model.last or last + 1 in self.model.entries
        if told:
            with pytest.raises(CursorMoved):
                self.handles[h].replace(replace(self.model.batch(foreign), changes=(), undo=()), self.fence)

    @rule(h=HANDLES, number=st.integers(-2, 12))
    def trim(self, h: int, number: int) -> None:
        """Undo records at and below what is final are forgotten."""
        upto = START + number
        self.handles[h].prune_undo(SOURCE, upto)
        self.model.trim(min(upto, self.model.last))

    # --- by hand ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: bool(self.model.chain))
    @rule(number=NUMBERS, table=st.sampled_from(FACTS), index=st.none() | st.sampled_from([0, 1, 8]))
    def delete_facts_by_hand(self, number: int, table: Any, index: int | None) -> None:
        position = self._pick(number)
        self.database.delete_facts(table, position, index)
        rows = self.model.facts[table.name]
        rows -= {r for r in rows if r[0] == str(position) and index in (None, int(r[1] or 0))}

    @precondition(lambda self: bool(self.model.chain))
    @rule(number=NUMBERS, length=st.integers(1, 3))
    def delete_entries_by_hand(self, number: int, length: int) -> None:
        first = self._pick(number)
        self.database.delete_entries(first, first + length - 1)
        self.model.entries -= set(range(first, first + length))

    @precondition(_leads_something)
    @rule(h=HANDLES)
    def repair(self, h: int) -> None:
        """Whatever is missing or damaged is replaced, range by range; then nothing is."""
        store, last = self.handles[h], self.model.last
        holes = {p for a, b in store.missing(SOURCE, START, last) for p in range(a, b + 1)}
        holes |= {position for position, _, _ in store.damaged(SOURCE, *EVER)}
        for a, b in ranges(sorted(holes)):
            blocks = self.model.chain[a - START : b - START + 1]
            store.replace(replace(self.model.batch(blocks), changes=(), undo=()), self.fence)
            self.model.replaced(blocks)
        assert store.damaged(SOURCE, *EVER) == []
        assert store.missing(SOURCE, START, last) == []

    # --- leases -----------------------------------------------------------------------------------------------------

    @rule(h=HANDLES, holder=st.sampled_from(["p0", "p1"]), ttl_seconds=st.sampled_from([TTL_SECONDS, TTL_SECONDS / 4]))
    def take_lease(self, h: int, holder: str, ttl_seconds: float) -> None:
        """Granted when it is free or has expired, with a greater token; whoever had it before has lost it."""
        granted = self.handles[h].acquire(LEAD, holder, ttl_seconds)
        assert granted == self.model.acquire(LEAD, holder, ttl_seconds)
        if granted is not None:
            self.lost.append(self.fence)
            self.fence = granted

    @rule(h=HANDLES)
    def renew_lease(self, h: int) -> None:
        ours = self._leads()
        assert self.handles[h].renew(self.fence, TTL_SECONDS) is ours
        if ours:
            self.model.leases[LEAD].until = self.model.now + TTL_SECONDS

    @precondition(lambda self: bool(self.lost))
    @rule(h=HANDLES, which=NUMBERS)
    def renew_and_release_what_is_lost(self, h: int, which: int) -> None:
        old = self.lost[which % len(self.lost)]
        assert not self.handles[h].renew(old, TTL_SECONDS)
        self.handles[h].release(old)

    @rule(h=HANDLES, then=st.none() | st.sampled_from(["p0", "p1", "p2"]))
    def release_lease(self, h: int, then: str | None) -> None:
        """Given up, it is free at once: for whoever asks next, or for nobody yet."""
        if self._leads():
            self.model.leases[LEAD].holder = ""
            self.model.leases[LEAD].until = self.model.now
        self.handles[h].release(self.fence)
        if then is not None:
            self.take_lease(1 - h, then, TTL_SECONDS)

    @rule(share=st.sampled_from([0.5, 2.0]))
    def time_passes(self, share: float) -> None:
        seconds = share * TTL_SECONDS
        self.database.let_pass(seconds)
        self.model.now += seconds

    # --- books ------------------------------------------------------------------------------------------------------

    @rule(h=HANDLES, first=st.integers(0, 2), length=st.sampled_from([1, 6]), attempts=st.integers(0, 2))
    def record_gap(self, h: int, first: int, length: int, attempts: int) -> None:
        first = START + 3 * first
        gap = Gap(SOURCE, first, first + length - 1, f"why {attempts}", TIME_US + attempts, attempts)
        self.handles[h].record_gap(gap)
        self.model.record_gap(gap)

    @rule(h=HANDLES, first=st.integers(START - 1, START + 12), length=st.integers(1, 6))
    def clear_gaps(self, h: int, first: int, length: int) -> None:
        self.handles[h].clear_gaps(SOURCE, first, first + length - 1)
        self.model.clear_gaps(first, first + length - 1)

    @rule(h=HANDLES, picks=st.sets(NUMBERS, max_size=3))
    def discard_quarantine(self, h: int, picks: set[int]) -> None:
        ids = [row.id for row in self.handles[h].quarantine(SOURCE)]
        chosen = {p % len(ids) for p in picks} if ids else set()
        assert self.handles[h].discard_quarantine([*(ids[p] for p in sorted(chosen)), 10**12]) == len(chosen)
        self.model.quarantine = [q for place, q in enumerate(self.model.quarantine) if place not in chosen]

    @rule(h=HANDLES, name=st.sampled_from(["writes_enabled", "x"]), value=st.none() | st.sampled_from(["on", ""]))
    def set_flag(self, h: int, name: str, value: str | None) -> None:
        self.handles[h].set_flag(name, value)
        self.model.flags.pop(name, None)
        if value is not None:
            self.model.flags[name] = value

    @rule(h=HANDLES, mode=st.sampled_from([Mode.LIVE, Mode.DEGRADED]), head=st.none() | st.integers(0, 99))
    def report_and_bind_again(self, h: int, mode: Mode, head: int | None) -> None:
        said = SourceReport(mode, f"because {head}", head, TIME_US, head, TIME_US)
        self.handles[h].report(SOURCE, replace(said, reorgs=77, reorg_deepest=77))
        old = self.model.report
        self.model.report = replace(said, reorgs=old.reorgs, reorg_deepest=old.reorg_deepest)
        assert self.handles[h].bind_source(SOURCE, IDENTITY, START + 50).start == START
        with pytest.raises(WrongChain):
            self.handles[h].bind_source(SOURCE, replace(IDENTITY, genesis="another"), START)

    # --- the comparison ---------------------------------------------------------------------------------------------

    @invariant()
    def everything_equals_the_model(self) -> None:
        if not self.handles:
            return
        self.checks += 1
        store, model = self.handles[self.checks % 2], self.model
        assert store.cursor(SOURCE) == model.cursor
        self._compare_entries(store)
        self._compare_tables(store)
        self._compare_books(store)
        assert store.coverage(NEIGHBOUR).entries == 12
        assert store.row_count(OTHERS) == 12
        assert store.damaged(NEIGHBOUR, 0, 99) == []
        assert [row.values for row in store.state_rows(OTHER_STATE)] == [("ann", "7")]

    def _compare_entries(self, store: Store) -> None:
        model = self.model
        present = [b for b in model.chain if b.entry.position in model.entries]
        found = [(s.entry, s.rows, s.digest) for s in store.entries(SOURCE, *EVER)]
        assert found == [(b.entry, b.count, b.digest) for b in present]
        assert store.missing(SOURCE, START, model.last) == model.missing(START, model.last)
        assert store.damaged(SOURCE, *EVER) == model.damaged()
        coverage = store.coverage(SOURCE)
        positions = [b.entry.position for b in present]
        assert (coverage.first, coverage.last) == ((positions[0], positions[-1]) if positions else (None, None))
        kinds = [b.entry.evidence for b in present]
        assert {k: n for k, n in coverage.evidence.items() if n} == {k.value: kinds.count(k) for k in set(kinds)}
        assert coverage.entries == len(present)
        assert store.served_unaudited(SOURCE, "one") == model.unaudited("one")

    def _compare_tables(self, store: Store) -> None:
        model = self.model
        for table in FACTS:
            columns, positions = store.facts(table, *EVER)
            rows = list(zip(*columns, strict=True))
            assert rows == model.rows(table), table.name
            assert positions == [int(row[0] or 0) for row in rows]
            assert store.row_count(table) == len(rows)
        held = model.state_at(model.last)
        for table in STATES:
            expected = {key: StateRow(*row) for (name, key), row in held.items() if name == table.name}
            ordered = [expected[key] for key in sorted(expected, key=lambda k: [str(part).encode() for part in k])]
            assert list(store.state_rows(table)) == ordered, table.name
            assert store.state(table, list(expected)) == expected
        ancestor = model.last
        while ancestor in model.undoable:
            ancestor -= 1
        found = [(u.table, u.key, u.previous, u.previous_position) for u in store.state_before(SOURCE, ancestor)]
        assert len(found) == len(set(found))
        assert set(found) == model.before(ancestor)

    def _compare_books(self, store: Store) -> None:
        model = self.model
        assert store.gaps(SOURCE) == [gap for _, gap in sorted(model.gaps.items())]
        assert [(g.first, g.last, g.reason) for g in store.gaps(NEIGHBOUR)] == [(3, 9, "theirs")]
        kept = store.quarantine(SOURCE)
        assert [row.item for row in kept] == model.quarantine
        assert [row.id for row in kept] == sorted({row.id for row in kept})
        assert store.flags() == model.flags
        assert replace(store.reported(SOURCE), updated_us=0) == replace(model.report, updated_us=0)
        leases = {row.name: row for row in store.leases()}
        assert {n: (r.holder, r.token) for n, r in leases.items()} == {
            n: (lease.holder, lease.token) for n, lease in model.leases.items()
        }
        for name, lease in model.leases.items():
            assert leases[name].live is (bool(lease.holder) and lease.until > model.now), name
            if lease.holder:
                assert abs(leases[name].expires_in_seconds - (lease.until - model.now)) < SLACK_SECONDS


def _derived_anew(model: Model, old: list[Block], drawn: list[Drawn]) -> list[Block]:
    """The same entries with other rows and other evidence."""
    made = model.draw(old[0].entry.position - 1, drawn[: len(old)])
    blocks = []
    for was, now in zip(old, made, strict=False):
        entry = replace(was.entry, evidence=now.entry.evidence, served_by="new", audited=now.entry.audited)
        blocks.append(replace(now, entry=entry, state=was.state, touched=was.touched))
    return blocks

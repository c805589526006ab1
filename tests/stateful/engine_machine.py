"""The engine on a store, under random histories: two indexers, an operator, a chain that forks, and all that fails.

After every step, and after every single commit, the tables are what a fold over the branch of the cursor gives, but for
what somebody deleted by hand; and all of that, and nothing else, is found as damage. In quiet times the cursor comes to
the end of the present chain, and after a repair everything is exact. Time is virtual and everything runs in one thread:
the same steps are the same history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

import structlog
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gapless.engine.observer import Observer
from gapless.engine.operate import Operator
from gapless.engine.plan import FollowOptions
from gapless.engine.repair import find_damage
from gapless.engine.runner import Job, lease_name
from gapless.errors import ForkBeyondFinality, GaplessError, LeaseHeld, NothingToUndo, NotReady, Refused
from gapless.model import Cursor, Fence
from gapless.store import Store
from gapless.testing.fake_clock import FakeClock
from gapless.testing.virtual_loop import VirtualLoop
from stateful.databases import Database
from stateful.processes import TTL_SECONDS, Fate, Indexer, InlineProcess
from stateful.scripted_chain import (
    BINDINGS,
    HANDLERS,
    NO_NOTE_FOR,
    NO_STATE_FOR,
    NOTE,
    SCHEMA,
    TABLE,
    TOTAL,
    Chain,
    Folded,
    ListDecoder,
    Source,
    Trouble,
)

T = TypeVar("T")

LEASE = lease_name(SCHEMA, "s")
STUCK_SECONDS_MAX = 20.0
QUIET_TURNS_MAX = 30
QUIET_TURN_SECONDS = 2.0
COMMAND_SECONDS_MAX = 60.0
EVER = 10**6

WHO = st.integers(0, 1)
VALUES = st.sampled_from([1, 2, 3, 4, 5, 10, 30, NO_STATE_FOR, NO_NOTE_FOR])
CONTENTS = st.lists(st.lists(VALUES, max_size=3), min_size=1, max_size=6)
PAUSES = st.sampled_from([0.0, 0.002, 0.05, 1.0, 30.0])
"""Virtual seconds that pass after a step: what is under way is met at any point."""


def machine_on(database: Database, machine: type[EngineMachine] | None = None) -> type[EngineMachine]:
    """The machine on one database."""
    return type("EngineMachine", (machine or EngineMachine,), {"database": database})


class EngineMachine(RuleBasedStateMachine):
    """One history."""

    database: Database
    indexers: list[Indexer]
    watch: Store
    options: FollowOptions

    def __init__(self) -> None:
        super().__init__()
        self.database.clock = self.clock = FakeClock()
        self.loop = asyncio.Runner(
            loop_factory=lambda: VirtualLoop(self.clock, grace_seconds=0, stuck_seconds_max=STUCK_SECONDS_MAX)
        )
        self.chain = Chain()
        self.hurt: set[int] = set()
        """Positions at which somebody deleted rows, and which may be damaged since."""
        self.broken: BaseException | None = None
        """What was wrong after a commit: raised where it is seen, in the middle of an indexer, it would be a failure
        of the indexer's."""
        self.began = False
        self.ending = ExitStack()
        self.ending.enter_context(structlog.testing.capture_logs())

    @initialize(
        contents=CONTENTS,
        start=st.sampled_from([0, 3]),
        confirmations=st.sampled_from([0, 0, 2]),
        segments=st.integers(1, 4),
        rows=st.sampled_from([0, 1, 1000]),
        spans=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    )
    def begin(
        self,
        contents: list[list[int]],
        start: int,
        confirmations: int,
        segments: int,
        rows: int,
        spans: tuple[int, int],
    ) -> None:
        self.database.fresh()
        self.watch = self.database.opened()
        self.spans = spans
        self.options = FollowOptions(
            start=start,
            confirmations=confirmations,
            poll_timeout_seconds=1.0,
            retry_seconds_max=1.0,
            fork_pause_seconds=0.1,
            inflight_segments_max=segments,
            state_cache_rows_max=rows,
        )
        self.chain.mine([[1]] * start)
        self.chain.mine(contents)
        self.indexers = self._run(self._start_all())
        self.began = True

    def teardown(self) -> None:
        if self.began:
            self._run(self._end_all())
            self.watch.close()
        self.loop.close()
        self.ending.close()

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it on the private loop, indexers alongside; leases on a server's clock then age by as much."""
        before = self.clock.monotonic()
        result = self.loop.run(work)
        passed = self.clock.monotonic() - before
        if passed and self.database.survives_lost_replies:
            self.database.let_pass(passed)
        return result

    def _pass(self, seconds: float) -> None:
        self._run(self.clock.sleep(seconds))

    async def _start_all(self) -> list[Indexer]:
        return [self._indexer(0), self._indexer(1)]

    async def _end_all(self) -> None:
        for indexer in self.indexers:
            await indexer.kill()

    def _indexer(self, who: int) -> Indexer:
        source = Source(self.chain, self.clock, self.spans[who])
        store = self.database.opened()
        return Indexer(f"p{who}:x", store, source, self.options, self.clock, self._committed)

    # --- the chain --------------------------------------------------------------------------------------------------

    @rule(contents=CONTENTS, pause=PAUSES)
    def mine(self, contents: list[list[int]], pause: float) -> None:
        self.chain.mine(contents)
        self._pass(pause)

    @precondition(lambda self: self.began and self._forkable() > 0)
    @rule(depth=st.integers(1, 8), contents=CONTENTS, pause=PAUSES)
    def fork(self, depth: int, contents: list[list[int]], pause: float) -> None:
        self.chain.fork(min(depth, self._forkable()), contents)
        self._pass(pause)

    def _forkable(self) -> int:
        return self.chain.last - max(self.chain.final, self.options.start, 0)

    @rule(below=st.integers(0, 6), pause=PAUSES)
    def finality_moves(self, below: int, pause: float) -> None:
        self.chain.finalize(self.chain.last - below)
        self._pass(pause)

    # --- what fails -------------------------------------------------------------------------------------------------

    @rule(who=WHO, troubles=st.lists(st.sampled_from(Trouble), min_size=1, max_size=6), pause=PAUSES)
    def source_troubles(self, who: int, troubles: list[Trouble], pause: float) -> None:
        self.indexers[who].source.troubles.extend(troubles)
        self._pass(pause)

    @rule(who=WHO, fates=st.lists(st.sampled_from(Fate), min_size=1, max_size=3), pause=PAUSES)
    def store_troubles(self, who: int, fates: list[Fate], pause: float) -> None:
        self.indexers[who].store.fates.extend(fates)
        self._pass(pause)

    @rule(who=WHO, gracefully=st.booleans(), meanwhile=PAUSES, pause=PAUSES)
    def restart(self, who: int, gracefully: bool, meanwhile: float, pause: float) -> None:
        """Stopped or killed, at whatever it is doing; after a while another one takes its place."""
        self._run(self._replace_indexer(who, gracefully, meanwhile))
        self._pass(pause)

    async def _replace_indexer(self, who: int, gracefully: bool, meanwhile: float) -> None:
        await (self.indexers[who].stop() if gracefully else self.indexers[who].kill())
        await self.clock.sleep(meanwhile)
        self.indexers[who] = self._indexer(who)

    @rule(pause=PAUSES, meanwhile=PAUSES)
    def lose_the_lease(self, meanwhile: float, pause: float) -> None:
        """Somebody takes it without a word: the leader goes on in good faith, and what it commits is refused."""
        stolen = self._steal()
        self._pass(meanwhile)
        self.watch.release(stolen)
        self._pass(pause)

    def _steal(self) -> Fence:
        for lease in self.watch.leases():
            self.watch.release(Fence(lease.name, lease.holder, lease.token))
        stolen = self.watch.acquire(LEASE, "thief", 10**6)
        assert stolen is not None
        return stolen

    @rule(contents=CONTENTS, first=WHO)
    def leadership_wanders(self, contents: list[list[int]], first: int) -> None:
        """From one to the other and back, each of them told in time."""
        for idle in (first, 1 - first, first):
            stolen = self._steal()
            self._pass(TTL_SECONDS)
            for who, indexer in enumerate(self.indexers):
                indexer.process.frozen = who == idle
            self.watch.release(stolen)
            self._pass(TTL_SECONDS)
            self.chain.mine(contents)
            self._pass(TTL_SECONDS)
        for indexer in self.indexers:
            indexer.process.frozen = False

    @rule(who=WHO, frozen=st.booleans(), pause=PAUSES)
    def freeze_renewal(self, who: int, frozen: bool, pause: float) -> None:
        self.indexers[who].process.frozen = frozen
        self._pass(pause)

    @rule(who=WHO, pause=PAUSES)
    def a_liar_is_caught(self, who: int, pause: float) -> None:
        """What one endpoint served is fetched again elsewhere."""
        self.indexers[who].source.liars = frozenset({"one"})
        self._pass(pause)

    @rule(on=st.booleans(), pause=PAUSES)
    def switch_writing(self, on: bool, pause: float) -> None:
        self.watch.set_flag("writes_enabled", None if on else "false")
        self._pass(pause)

    # --- by hand ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.began and self.watch.cursor("s") is not None)
    @rule(below=st.integers(0, 9), table=st.sampled_from([TABLE, NOTE.table]), index=st.none() | st.integers(0, 2))
    def delete_facts_by_hand(self, below: int, table: Any, index: int | None) -> None:
        position = self._committed_position(below)
        self.database.delete_facts(table, position, index)
        self.hurt.add(position)

    @precondition(lambda self: self.began and self.watch.cursor("s") is not None)
    @rule(below=st.integers(0, 9), length=st.integers(1, 3))
    def delete_entries_by_hand(self, below: int, length: int) -> None:
        first = self._committed_position(below)
        self.database.delete_entries(first, first + length - 1)
        self.hurt |= set(range(first, first + length))

    def _committed_position(self, below: int) -> int:
        cursor = self.watch.cursor("s")
        assert cursor is not None
        return max(self.options.start, cursor.position - below)

    @rule()
    def trim_what_is_final(self) -> None:
        final = self.watch.reported("s").finalized
        if final is not None:
            self.watch.prune_undo("s", final)

    # --- the operator -----------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["repair", "rewind", "rewind", "replay", "everything"]),
        below=st.integers(0, 9),
        stopped=st.sampled_from([True, True, False]),
        pause=PAUSES,
    )
    def operate(self, what: str, below: int, stopped: bool, pause: float) -> None:
        """A command, mostly while the indexers are stopped, as it must be."""
        if stopped:
            self._run(self._stop_all())
        leads = [lease for lease in self.watch.leases() if lease.name == LEASE and lease.live]
        try:
            self._run(self._command(what, below))
        except LeaseHeld:
            assert leads, "nobody leads"
        except (NotReady, NothingToUndo, Refused):
            pass  # a block is missing, or was final, or a handler's state is needed: nothing was done
        except GaplessError as error:
            if not error.retryable:
                raise
        if stopped:
            self._compare(self.watch)
            self.indexers = self._run(self._start_all())
        self._pass(pause)

    async def _stop_all(self) -> None:
        for indexer in self.indexers:
            indexer.process.frozen = False
            await indexer.stop()

    async def _command(self, what: str, below: int) -> None:
        operator = self._operator()
        cursor = self.watch.cursor("s")
        if cursor is None:
            return
        if what == "repair":
            await operator.repair(operator.damage(record=True))
        elif what == "rewind":
            await operator.rewind(max(self.options.start - 1, cursor.position - below))
        elif what == "everything":
            await operator.rewind(self.options.start - 1)
        elif cursor.position >= self.options.start:
            # It waits where the chain is shorter now, or writing is switched off, until somebody interrupts it.
            with suppress(TimeoutError):
                async with asyncio.timeout(COMMAND_SECONDS_MAX):
                    await operator.replay(max(self.options.start, cursor.position - below), cursor.position, Observer())

    def _operator(self) -> Operator:
        job = Job(Source(self.chain, self.clock, 3), ListDecoder(), HANDLERS, BINDINGS, self.options)
        return Operator(job, SCHEMA, self.watch, self.clock, TTL_SECONDS, InlineProcess("operator:x", self.clock))

    # --- quiet ------------------------------------------------------------------------------------------------------

    @rule()
    def quiet_at_last(self) -> None:
        """Nothing fails any more: the tables come to the end of the present chain, and are exact after a repair."""
        self.watch.set_flag("writes_enabled", None)
        for indexer in self.indexers:
            indexer.source.troubles.clear()
            indexer.store.fates.clear()
            indexer.process.frozen = False
        self.chain.mine([[2]] * (self.options.confirmations + 1))
        if not self._comes_to_the_end():
            assert self._hides_the_ancestor(), f"never at the end: at {self.watch.cursor('s')}"
            self._begin_anew()
        self._mend_by_hand()
        cursor = self.watch.cursor("s")
        assert self._compare(self.watch) == set(), "whole after a repair"
        verification = self._run(self._operator().verify(self.options.start, cursor.position if cursor else 0))
        assert not verification.mismatches

    def _is_exact(self) -> bool:
        cursor, goal = self.watch.cursor("s"), self.chain.last - self.options.confirmations
        return cursor is not None and cursor == Cursor(goal, self.chain.blocks[goal].id)

    def _comes_to_the_end(self) -> bool:
        for _ in range(QUIET_TURNS_MAX):
            self._pass(QUIET_TURN_SECONDS)
            self.nobody_ended_badly()
            if self._is_exact():
                return True
        return False

    def _hides_the_ancestor(self) -> bool:
        """Where the entry at which a fork parts was deleted by hand, only lower ones can be seen to be common; and if
        these are final, the fork is refused."""
        cursor = self.watch.cursor("s")
        return cursor is not None and bool(self.watch.missing("s", self.options.start, cursor.position))

    def _mend_by_hand(self) -> None:
        """Repair; and where state would be needed for that, from the very beginning."""
        if not self._compare(self.watch):
            return
        self._run(self._stop_all())
        operator = self._operator()
        try:
            self._run(operator.repair(operator.damage(record=True)))
        except Refused:
            self._begin_anew()
            return
        self.indexers = self._run(self._start_all())
        assert self._comes_to_the_end()

    def _begin_anew(self) -> None:
        self._run(self._stop_all())
        self._run(self._operator().rewind(self.options.start - 1))
        self.indexers = self._run(self._start_all())
        assert self._comes_to_the_end(), "never at the end, though everything was undone"

    # --- the oracle -------------------------------------------------------------------------------------------------

    @invariant()
    def the_tables_are_the_fold(self) -> None:
        if self.began:
            self._compare(self.watch)

    @invariant()
    def nobody_ended_badly(self) -> None:
        if self.broken is not None:
            raise self.broken
        for who, indexer in enumerate(self.indexers if self.began else ()):
            error = indexer.ended_badly()
            if isinstance(error, ForkBeyondFinality) and self._hides_the_ancestor():
                error = None
            if error is not None:
                raise AssertionError(f"{indexer.process.holder} ended: {error!r}") from error
            if indexer.task.done():
                self._run(self._replace_indexer(who, True, 0.0))

    def _committed(self, fence: Fence) -> None:
        """After a commit, in the middle of an indexer."""
        try:
            [lease] = [lease for lease in self.watch.leases() if lease.name == LEASE]
            assert (fence.holder, fence.token) == (lease.holder, lease.token), "committed without the lease"
            self._compare(self.watch)
        except Exception as error:  # noqa: BLE001 - raised at the end of the step
            self.broken = self.broken or error

    def _compare(self, store: Store) -> set[int]:
        """Compare everything with the fold; the positions that are damaged, each for a reason."""
        expected, found = self.chain.fold(self.options.start, store.cursor("s")), self._tables(store)
        assert found.totals == expected.totals
        assert found.quarantined == expected.quarantined
        lacking = {p for p, id_ in expected.ids.items() if found.ids.get(p) != id_}
        lacking |= {row[0] for row in expected.facts ^ found.facts}
        lacking |= {row[0] for row in expected.notes ^ found.notes}
        assert found.ids.keys() <= expected.ids.keys()
        assert lacking <= self.hurt, f"not the fold at {sorted(lacking - self.hurt)}"
        named = {p for d in find_damage(store, "s") if "served by" not in d.reason for p in range(d.first, d.last + 1)}
        assert lacking <= named, "damage that is not found"
        return lacking

    def _tables(self, store: Store) -> Folded:
        def rows(table: Any) -> set[tuple[int, int, int]]:
            found = list(zip(*store.facts(table, 0, EVER)[0], strict=True))
            values = {(int(row[0] or 0), int(row[1] or 0), int(row[-1] or 0)) for row in found}
            assert len(values) == len(found), "a row twice"
            return values

        return Folded(
            {s.entry.position: s.entry.id for s in store.entries("s", 0, EVER)},
            rows(TABLE),
            rows(NOTE.table),
            {str(row.values[0]): int(row.values[1] or 0) for row in store.state_rows(TOTAL.table)},
            {(q.item.position, q.item.item, q.item.consumer) for q in store.quarantine("s")},
        )

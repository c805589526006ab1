"""What befalls a simulated world: one method for each kind of event of a plan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gapless.engine.observer import Observer
from gapless.engine.operate import Operator
from gapless.engine.repair import Damage, Repaired
from gapless.errors import GaplessError, NothingToUndo
from gapless.schema import Nature as TableNature
from gapless.store.memory import MemoryStore
from gapless.testing.block import ScriptedBlock
from gapless.testing.block_lies import ForeignBlock, GoesBackwards, OtherChainId, OtherGenesis, StaleReplica
from gapless.testing.chain import ScriptedChain
from gapless.testing.simulated_wire import SimulatedNode
from gapless.testing.simulated_world import EXCUSES, World
from gapless.testing.simulation_checks import SimulationFailed

STOP_SECONDS_MAX = 12.0
"""A graceful stop takes no longer than this: the engine's own bound, and a little for slow calls."""
HEAL_SECONDS_MAX = 600.0
"""So long after the last fault everything must be right again."""
_FINAL_MARGIN = 2
"""Forks keep so far away from what is final: an endpoint may name a block above it as final, and that is no lie that
could be seen."""
_WAITS = (0.0, 0.01, 0.2, 0.7, 2.0, 3.0, 8.0)


@dataclass(slots=True)
class _Spell:
    """Something that goes wrong until it is eased."""

    end: Callable[[], None]
    holds_final_at: int | None = None
    """Nothing above this may become final meanwhile."""


class Weather:
    """Draws what happens, and makes it happen."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._draw = world.draw
        self._plan = world.plan
        self._spells: list[_Spell] = []
        self._final = -1
        """The highest position that any node called final so far."""
        self._branches: list[list[ScriptedBlock]] = []
        """Branches that were left, as blocks from above their fork point on."""
        self._settle_final()

    async def blow(self) -> None:
        """All of the plan's steps."""
        world = self._world
        for kind in ("lie", "lie", "lie", "lie", "fault", "lag"):
            if kind in self._plan.events and self._draw.random() < 0.6:
                getattr(self, f"_{kind}")()  # some trouble is there already when the first process starts
        for place in range(self._plan.processes):
            world.start(place)
        kinds, weights = list(self._plan.events), list(self._plan.events.values())
        self._database_worse()
        for _ in range(self._plan.steps):
            [kind] = self._draw.choices(kinds, weights)
            world.note("event", kind)
            if kind in EXCUSES:
                world.excuse(EXCUSES[kind])
            happened = getattr(self, f"_{kind}")()
            if happened is not None:
                await happened
            self._settle_final()
            await world.clock.sleep(self._draw.choice(_WAITS))

    # --- the chain --------------------------------------------------------------------------------------------------

    def _settle_final(self) -> None:
        """Move finality on as far as it may, and keep it where it was otherwise."""
        chain = self._world.main
        held = [s.holds_final_at for s in self._spells if s.holds_final_at is not None]
        may = min([chain.height - self._plan.finalized_distance, *held])
        self._final = max(self._final, may, 0)
        self._show_final(chain)

    def _show_final(self, chain: ScriptedChain) -> None:
        chain.finalized_distance = max(0, chain.height - self._final)

    def _mine(self) -> None:
        self._extend(self._draw.choice((1, 1, 2, 5, 12)))

    def _extend(self, count: int) -> None:
        world = self._world
        before = world.main.finalized_distance
        world.main.mine(count, logs=world.logs())
        # Until the next settling the same positions are final as before.
        world.main.finalized_distance = None if before is None else before + count
        world.note("mined", world.main.height, world.main.head.hash)
        self._ring()

    def _room(self) -> int:
        """How many blocks a fork may replace."""
        return self._world.main.height - max(self._final + _FINAL_MARGIN, self._plan.start - 1, 0)

    def _fork(self) -> None:
        """Another branch: shorter, as long, or longer."""
        for _ in range(self._draw.choice((1, 1, 1, 2, 3))):
            room = self._room()
            if room < 1:
                return
            depth = min(self._draw.randint(1, self._plan.fork_depth_max), room)
            self._leave(depth)
            longer = self._draw.choice((-1, 0, 1, 1, 2, 3, 5))
            world = self._world
            logs = world.logs() if self._draw.random() < 0.5 else None
            keep = logs is None and self._draw.random() < 0.3
            world.main.reorg(depth, max(1, depth + longer), logs=logs, keep_transactions=keep)
            self._show_final(world.main)
            world.note("fork", depth, world.main.height, world.main.head.hash)
            self._ring()

    def _leave(self, depth: int) -> None:
        main = self._world.main
        self._branches.append(main.blocks(main.height - depth + 1))

    def _unfork(self) -> None:
        """Back to a branch that was left, and on from there."""
        main = self._world.main
        while self._branches:
            branch = self._branches.pop()
            parent = main.block(branch[0].number - 1)
            if parent is None or parent.hash != branch[0].parent_hash:
                continue
            depth = main.height - parent.number
            if 1 <= depth <= self._room():
                self._leave(depth)
                main.adopt(branch)
                self._show_final(main)
                self._world.note("unfork", main.height, main.head.hash)
                self._ring()
                return

    def _rollback(self) -> None:
        """Every node forgets its newest blocks, and comes upon other ones, or the same."""
        room = self._room()
        if room >= 1:
            self._leave(depth := self._draw.randint(1, min(room, 12)))
            self._world.main.rollback(depth)
            self._show_final(self._world.main)
            self._world.note("rollback", depth)

    def _finality(self) -> None:
        """Finality stands still for a while."""
        self._spells.append(_Spell(lambda: None, self._final))

    # --- nodes ------------------------------------------------------------------------------------------------------

    def _node(self) -> SimulatedNode:
        return self._draw.choice(self._world.nodes)

    def _cast(self, node: SimulatedNode, switch: Any, holds_final_at: int | None = None) -> None:
        self._spells.append(_Spell(lambda: node.ease(switch), holds_final_at))

    def _lie(self) -> None:
        """One node lies about some blocks, now and then or always."""
        node, lie, height = self._node(), self._draw.choice(self._plan.lies), self._world.main.height
        first = self._draw.choice((1, 1, max(1, height - 5), self._draw.randint(1, height + 1)))
        last = self._draw.choice((None, None, first, first + 10))
        held = None
        if isinstance(lie, ForeignBlock):
            # One block of another fork, right in itself, is beyond what a client can see where it is final.
            first = max(first, self._final + 1 + _FINAL_MARGIN)
            held = self._final
        switch = node.behave(lie, first=first, last=last, every=self._draw.choice((1, 1, 3)))
        self._cast(node, switch, held)
        self._world.note("lie", node.label, type(lie).__name__, first, last)

    def _fault(self) -> None:
        node, fault = self._node(), self._draw.choice(self._plan.faults)
        self._cast(node, node.behave(fault, every=self._draw.choice((1, 2, 5))))
        self._world.note("fault", node.label, type(fault).__name__)

    def _lag(self) -> None:
        node = self._node()
        behaviour = StaleReplica(self._draw.choice((1, 2, 5, 30)), syncing=self._draw.random() < 0.3)
        self._cast(node, node.behave(behaviour, every=self._draw.choice((1, 1, 2))))

    def _backwards(self) -> None:
        node = self._node()
        self._cast(node, node.behave(GoesBackwards(self._draw.randint(0, self._world.main.height))))

    def _branch(self) -> None:
        """One node is cut off from the others and makes a branch of its own."""
        world, room = self._world, self._room()
        honest = [n for n in world.nodes if n.dispatcher.chain is world.main]
        if room < 1 or len(honest) < 2:
            return
        node, depth = self._draw.choice(honest), self._draw.randint(1, min(room, 12))
        own = world.main.copy()
        # The copies' branches must differ from each other and from those to come.
        own.seed = self._draw.getrandbits(32)
        own.reorg(depth, self._draw.randint(1, depth + 6), logs=world.logs())
        fork_point = world.main.height - depth
        own.finalized_distance = own.height - min(self._final, fork_point)
        node.dispatcher.chain = own
        world.note("branch", node.label, depth, own.head.hash)
        self._spells.append(_Spell(lambda: self._rejoin(node), min(self._final, fork_point)))

    def _rejoin(self, node: SimulatedNode) -> None:
        node.dispatcher.chain = self._world.main

    def _other_chain(self) -> None:
        """One node says it is of another chain. Not before the database knows which is the right one."""
        world, node = self._world, self._node()
        if world.checker.store.source(world.subject.source) is None:
            return
        lie = self._draw.choice((OtherChainId(), OtherGenesis()))
        self._cast(node, node.behave(lie))

    def _unreachable(self) -> None:
        """A node goes away: for all, or for one process."""
        world, node = self._world, self._draw.randrange(len(self._world.nodes))
        if self._draw.random() < 0.5:
            world.nodes[node].away = True
            self._spells.append(_Spell(lambda: setattr(world.nodes[node], "away", False)))
        else:
            line = self._draw.choice(world.lines)[node]
            line.cut = True
            self._spells.append(_Spell(lambda: setattr(line, "cut", False)))

    def _slow(self) -> None:
        node = self._node()
        node.slow_seconds = self._draw.choice((0.2, 2.0))
        self._spells.append(_Spell(lambda: setattr(node, "slow_seconds", 0.0)))

    def _ease(self) -> None:
        """Some of what is wrong passes."""
        for _ in range(self._draw.randint(1, 3)):
            if self._spells:
                self._spells.pop(self._draw.randrange(len(self._spells))).end()

    def _ring(self) -> None:
        """Push channels tell of it: most of them, sooner or later."""
        for life in self._world.lives.values():
            if life.bell is not None and self._draw.random() < 0.8:
                life.process.loop.call_later(self._draw.choice((0.0, 0.05, 1.0)), life.bell.ring.set)

    # --- processes --------------------------------------------------------------------------------------------------

    def _place(self) -> int:
        return self._draw.randrange(self._plan.processes)

    def _crash(self) -> None:
        place = self._leader()
        self._world.kill(place)
        self._world.loop.call_later(self._draw.choice((0.0, 0.5, 5.0)), self._revive, place)

    def _revive(self, place: int) -> None:
        if place not in self._world.lives and place not in self._world.down:
            self._world.start(place)

    async def _stop(self) -> None:
        """Gracefully; it is started again by its supervisor."""
        await self._stopped(self._place())

    async def _stopped(self, place: int) -> None:
        """Ask a process to end, and hold it to its bound."""
        world, life = self._world, self._world.lives.get(place)
        if life is None or life.over:
            return
        world.stop(place)
        paused_seconds = life.process.loop.paused_seconds
        limit = world.timeline.now + STOP_SECONDS_MAX + 6 * self._plan.pace_seconds + paused_seconds
        while not life.over:
            if life.runner is None:
                world.kill(place)  # It has not come to where it could be asked.
            elif world.timeline.now > limit:
                raise SimulationFailed(f"{life.process.holder} was asked to stop, and did not")
            await world.clock.sleep(0.1)

    def _leader(self) -> int:
        """The place of the process that leads, mostly; any other now and then."""
        for place, life in sorted(self._world.lives.items()):
            leases = self._world.checker.store.leases()
            if self._draw.random() < 0.8 and any(lease.holder == life.process.holder for lease in leases):
                return place
        return self._place()

    def _pause(self) -> None:
        life = self._world.lives.get(self._leader())
        if life is not None:
            seconds = self._plan.lease_seconds * self._draw.choice((0.3, 1.0, 3.0))
            self._world.note("pause", life.process.holder, seconds)
            life.process.pause(seconds)

    async def _handover(self) -> None:
        """Leaders in turn are stopped in the middle of their work, for long enough that another one takes over."""
        world = self._world
        for _ in range(self._draw.choice((1, 2, 3, 3))):
            self._extend(self._draw.choice((1, 2, 5)))
            await world.clock.sleep(self._plan.poll_seconds * self._draw.uniform(0.0, 2.5))
            life = world.lives.get(self._leader())
            if life is not None:
                world.note("handover", life.process.holder)
                life.process.pause(self._plan.lease_seconds * self._draw.choice((1.5, 2.0, 3.0)))
            await world.clock.sleep(self._plan.lease_seconds * self._draw.choice((1.2, 1.8, 2.5)))
            self._extend(self._draw.choice((1, 3)))
            await world.clock.sleep(self._draw.uniform(0.0, 3.0))

    def _freeze(self) -> None:
        life = self._world.lives.get(self._leader())
        if life is not None:
            seconds = self._plan.lease_seconds * self._draw.choice((0.2, 0.5, 2.0, 10.0))
            self._world.note("freeze", life.process.holder, seconds)
            life.process.freeze(seconds)

    # --- the database -----------------------------------------------------------------------------------------------

    def _database_away(self) -> None:
        """For all, or for one process."""
        trouble = self._draw.choice(self._world.troubles)
        trouble.away = True
        self._spells.append(_Spell(lambda: setattr(trouble, "away", False)))

    def _database_worse(self) -> None:
        plan, trouble = self._plan, self._world.troubles[0]
        trouble.refused, trouble.lost = plan.database_refused, plan.database_lost
        trouble.commit_refused, trouble.commit_unknown = plan.commit_refused, plan.commit_unknown
        trouble.full = plan.disk_full

    def _calm_database(self) -> None:
        for trouble in self._world.troubles:
            trouble.away = False
            trouble.refused = trouble.lost = trouble.commit_refused = trouble.commit_unknown = trouble.full = 0.0

    def _flag(self) -> None:
        name, value = self._draw.choice(
            (
                ("writes_enabled", "off"),
                ("writes_enabled", "on"),
                ("rollback_automation", "off"),
                ("rollback_automation", None),
                ("inflight_max", "1"),
                ("inflight_max", "nonsense"),
                ("inflight_max", None),
            )
        )
        store = self._world.checker.store
        store.set_flag(name, value)
        self._spells.append(_Spell(lambda: store.set_flag(name, None)))

    # --- operators --------------------------------------------------------------------------------------------------

    async def _alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """While all processes are stopped."""
        world, places = self._world, range(self._plan.processes)
        world.down.update(places)
        for place in places:
            await self._stopped(place)
            world.lives.pop(place, None)
        await work()
        world.down.clear()
        for place in places:
            world.start(place)

    async def _rewind(self) -> None:
        """An operator undoes some of it, or all."""
        await self._alone(self._undo_some)

    async def _undo_some(self) -> None:
        world = self._world
        cursor = world.checker.store.cursor(world.subject.source)
        if cursor is None:
            return
        to = self._draw.choice((self._plan.start - 1, self._draw.randint(self._plan.start - 1, cursor.position)))
        try:
            await world.operator(lambda operator: operator.rewind(to))
        except NothingToUndo:
            world.note("nothing to undo", to)
        except GaplessError as error:
            if not error.retryable:
                raise
        world.checker.check_all()

    async def _tamper(self) -> None:
        """Somebody deletes rows by hand; an operator repairs."""
        if isinstance(self._world.checker.store, MemoryStore) and self._world.subject.mendable:
            await self._alone(self._delete_some)

    async def _delete_some(self) -> None:
        world, store = self._world, self._world.checker.store
        if not isinstance(store, MemoryStore):
            return
        main, source = world.main, world.subject.source
        rows = [store.database.facts.get(t.name, {}) for t in world.subject.schema.of(source, TableNature.FACT)]
        entries = store.entries(source, self._plan.start, self._final)
        settled = [e.entry.position for e in entries if main.blocks(e.entry.position)[0].hash == e.entry.id]
        filled = [p for p in settled if any(table.get(p) for table in rows)]
        chosen = self._draw.sample(filled, min(len(filled), self._draw.randint(1, 6)))
        for position in chosen:
            for table in rows:
                if table.get(position):
                    table[position] = table[position][: self._draw.randrange(len(table[position]))]
        world.checker.damaged |= set(chosen)
        world.note("deleted", sorted(chosen))
        await self._repair(5)

    async def _repair(self, attempts_max: int) -> None:
        """As `gapless repair` does. In trouble it may fail: what is damaged stays so, and is repaired in the end."""
        world = self._world
        for attempt in range(attempts_max):
            try:
                damages = await world.operator(lambda operator: operator.damage(record=True))
                named = {p for d in damages if d.reason.endswith("rows") for p in range(d.first, d.last + 1)}
                if not world.checker.damaged <= named:
                    raise SimulationFailed(f"damaged are {world.checker.damaged}, found were {damages}")
                await world.operator(_repairing(damages))
            except GaplessError as error:
                world.note("not repaired", error)
                if attempt == attempts_max - 1 and attempts_max > 5:
                    raise
                await world.clock.sleep(2.0)
            else:
                return

    # --- afterwards -------------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """End everything that is wrong, and see everything come right within bounds."""
        world = self._world
        world.note("heal")
        for spell in self._spells:
            spell.end()
        self._spells.clear()
        for node in world.nodes:
            node.calm()
            node.dispatcher.chain = world.main
        self._calm_database()
        for name in world.checker.store.flags():
            world.checker.store.set_flag(name, None)
        if world.checker.damaged:
            await self._alone(lambda: self._repair(20))
        self._settle_final()
        self._outgrow()
        for place in range(self._plan.processes):
            self._revive(place)
        await self._until(lambda: world.checker.store.cursor(world.subject.source) == world.expected(), "at the head")
        if not world.subject.mendable and world.checker.store.gaps(world.subject.source):
            await self._alone(self._replay)
            await self._until(lambda: world.checker.store.cursor(world.subject.source) == world.expected(), "back")
        await self._until(lambda: not world.checker.store.gaps(world.subject.source), "without a gap")
        world.checker.check_all()

    async def _replay(self) -> None:
        """What a mender must leave to an operator: facts that come from state are derived again from the first on."""
        await self._world.operator(
            lambda operator: operator.replay(self._plan.start, self._world.main.height, Observer())
        )

    def _outgrow(self) -> None:
        """A chain that has become shorter is not followed before it is longer again than what is committed."""
        world = self._world
        highest = max(self._plan.start, *(block.number for block in world.known.values()))
        self._extend(1 + self._plan.confirmations + highest - world.main.height)

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        world = self._world
        limit = world.timeline.now + HEAL_SECONDS_MAX
        while not holds():
            if world.timeline.now > limit:
                store, source = world.checker.store, world.subject.source
                raise SimulationFailed(
                    f"{HEAL_SECONDS_MAX:g} simulated seconds after the last fault it is not {what}: the cursor is "
                    f"{store.cursor(source)}, the head {world.expected()}, gaps {store.gaps(source)}, "
                    f"{store.reported(source)}"
                )
            await world.clock.sleep(0.25)


def _repairing(damages: Sequence[Damage]) -> Callable[[Operator], Awaitable[Repaired]]:
    return lambda operator: operator.repair(damages)

"""The world of one simulation: a chain, its nodes, one database, and the processes between them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random  # noqa: TID251 - drawn from the plan's seed
from typing import Any

from gapless.app import App
from gapless.engine.observer import Observer
from gapless.engine.operate import Operator
from gapless.engine.plan import Until
from gapless.engine.runner import Runner, lease_name
from gapless.errors import (
    GaplessError,
    Halted,
    HistoryPruned,
    LeaseHeld,
    StartBeyondHead,
    WrongChain,
)
from gapless.model import Cursor, Fence, Finality, FinalityRule, Mode
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.source import EvmSource
from gapless.sources.evm.types import Verify
from gapless.store import Batch, Store
from gapless.store.memory import MemoryDatabase, MemoryStore
from gapless.store.sqlite import SqliteStore
from gapless.testing.behaviour import Response
from gapless.testing.block import ScriptedBlock
from gapless.testing.chain import Logs, ScriptedChain
from gapless.testing.fake_clock import START_US
from gapless.testing.simulated_process import SimulatedProcess
from gapless.testing.simulated_store import SimulatedStore, StoreTrouble
from gapless.testing.simulated_time import SimulatedClock, SimulatedLoop, Timeline
from gapless.testing.simulated_wire import Line, SimulatedBell, SimulatedNode, SimulatedTransport
from gapless.testing.simulation_checks import Checker, Oracle, SimulationFailed
from gapless.testing.simulation_plan import Plan
from gapless.testing.trial import moved
from gapless.wiring import Wired, build_job, evm_options, wire

_RESTART_SECONDS_MAX = 3.0
_POSSIBLE = (StartBeyondHead, HistoryPruned)
"""What a run may end with because its endpoints say so: an operator looks, and starts it again."""


class RecordedChain(ScriptedChain):
    """A chain that keeps a book of every block it ever showed, shared with its copies."""

    def __init__(self, seed: int, *, finalized_distance: int, holders: int) -> None:
        self.known: dict[str, ScriptedBlock] = {}
        super().__init__(seed, safe_distance=None, finalized_distance=finalized_distance, holders=holders)
        self.known[self.genesis.hash] = self.genesis

    def sibling(self, number: int) -> ScriptedBlock | None:
        block = super().sibling(number)
        if block is not None:
            self.known[block.hash] = block
        return block

    def _append(self, block: ScriptedBlock) -> ScriptedBlock:
        self.known[block.hash] = block
        return super()._append(block)


class SimulatedApp:
    """An app on simulated endpoints, with what is the same for all its processes and seeds.

    `logs`: what blocks hold, as `ScriptedChain.mine` takes it; None for as many transfers as a seed draws. `oracle`:
    which rows the tables must hold. Raises ConfigError, and UsageError where the app has not one EVM source."""

    def __init__(
        self, app: App, *, addresses: Mapping[str, str] | None = None, logs: Logs | None = None, oracle: Oracle | None
    ) -> None:
        self.app = App.from_config(app.config)
        self.app.__dict__.update(app.__dict__)
        self.app._config = moved(app.config, ("http://simulated.example",), addresses or {})  # noqa: SLF001 - a copy's
        self.logs = logs
        self.oracle = oracle
        self.schema, wired = wire(self.app)
        ((self.source, self._wired),) = wired.items()

    @property
    def mendable(self) -> bool:
        """Whether a block's facts can be derived by themselves: not where a handler's facts may come from state."""
        kinds = {b.is_state for b in self.app.bindings(self.source)}
        return kinds != {True, False}

    def wired(self, plan: Plan) -> Wired:
        """The source's wiring with the plan's settings in the place of the configured ones."""
        settings = self._wired.settings.model_copy(
            update={
                "start": plan.start,
                "end": None,
                "confirmations": plan.confirmations,
                "verify": plan.verify,
                "finality": Finality(FinalityRule.TAG, "finalized"),
                "chain_id": None,
                "reorg_max": 1000,
            }
        )
        return replace(self._wired, settings=settings)


class _Modes(Observer):
    """Writes what a process says of itself into the trace, as long as it lives."""

    def __init__(self, note: Callable[..., None], life: Life) -> None:
        self._note = note
        self._life = life

    def mode(self, source: str, mode: Mode, reason: str | None) -> None:  # noqa: ARG002 - there is one source
        if not self._life.over:
            self._note("mode", self._life.process.holder, mode.value, reason)


@dataclass
class Life:
    """One process from its start to its end."""

    process: SimulatedProcess
    store: SimulatedStore
    transports: list[SimulatedTransport]
    bell: SimulatedBell | None
    options: EvmOptions
    runner: Runner | None = None
    stop_asked_at: float | None = None
    ended: bool = False

    @property
    def over(self) -> bool:
        """Whether it ended, or was killed."""
        return self.ended or self.store.severed

    def sever(self) -> None:
        """Nothing it does has an effect from now on."""
        self.store.severed = True
        for transport in self.transports:
            transport.severed = True


@dataclass
class World:
    """Everything there is in one run. `tell` hears each line of the trace."""

    plan: Plan
    subject: SimulatedApp
    path: Path | None = None
    """Of a SQLite file; None for a database in memory."""
    tell: Callable[[str], None] | None = None
    chain: RecordedChain | None = None
    """A chain that is there already; None to make one."""
    until: Until = Until.FOREVER
    timeline: Timeline = field(default_factory=Timeline)
    lives: dict[int, Life] = field(default_factory=dict)
    allowed: set[type[GaplessError]] = field(default_factory=set)
    """Ends that something which happened here excuses."""
    down: set[int] = field(default_factory=set)
    """Places that are not started again by themselves for now."""

    def __post_init__(self) -> None:
        plan = self.plan
        self.draw = Random(f"world {plan.seed}")
        self._trace = hashlib.blake2b(digest_size=16)
        self.loop = SimulatedLoop.on(self.timeline)
        self.clock = SimulatedClock(self.loop, f"{plan.seed} world")
        self._births = 0
        if self.chain is None:
            self.chain = RecordedChain(plan.seed, finalized_distance=plan.finalized_distance, holders=12)
            self.chain.mine(plan.start + plan.blocks_at_first, logs=self.logs())
        self.main = self.chain
        self.troubles = [StoreTrouble() for _ in range(plan.processes + 1)]
        """The database's own, then each process's."""
        self.nodes = [
            SimulatedNode(f"node{i}", self.main, plan.limits[i % len(plan.limits)], self.loop.time)
            for i in range(plan.nodes)
        ]
        self.lines = [[Line(plan.latency_seconds) for _ in self.nodes] for _ in range(plan.processes + 1)]
        self._database = MemoryDatabase()
        self.wired = self.subject.wired(plan)
        self.lease = lease_name(self.subject.schema, self.subject.source)
        self.known = self.main.known
        """Every block there ever was, by hash."""
        self.checker = Checker(
            self.connect(),
            self.subject.schema,
            self.lease,
            plan.start,
            self.known,
            self.subject.oracle,
            plan.full_check_every,
            self.note,
        )

    # --- what all share ---------------------------------------------------------------------------------------------

    def logs(self) -> Logs:
        """What the next blocks hold."""
        if self.subject.logs is not None:
            return self.subject.logs
        return self.draw.randint(0, self.plan.logs_max)

    def connect(self) -> Store:
        """A handle of the database. Its clock is the database's own, or the machine's: not that of a process."""
        store: Store = (
            MemoryStore(self._database, self.clock) if self.path is None else SqliteStore(self.path, self.clock)
        )
        store.open(self.subject.schema, create=True)
        return store

    def note(self, kind: str, *what: object) -> None:
        """A line of the trace."""
        line = f"{self.timeline.now:.6f} {kind} {' '.join(map(str, what))}"
        self._trace.update(line.encode())
        self._trace.update(b"\n")
        if self.tell is not None:
            self.tell(line)

    @property
    def trace(self) -> str:
        """The hash over all that happened so far, in order."""
        return self._trace.hexdigest()

    def time_us(self) -> int:
        return START_US + round(self.timeline.now * 1e6)

    # --- processes --------------------------------------------------------------------------------------------------

    def start(self, place: int) -> None:
        """Start a process in this place: as an operator or a supervisor does."""
        life = self.lives[place] = self._born(place, f"sim{place}")
        life.process.loop.create_task(self._main(place, life), name=life.process.holder)
        self.note("start", life.process.holder, life.options.span_start, life.options.batch_calls_start)

    def _born(self, place: int, name: str) -> Life:
        plan, draw = self.plan, self.draw
        self._births += 1
        holder = f"{name}:{self._births}x"
        pace_seconds = plan.pace_seconds
        process = SimulatedProcess(
            self.timeline,
            holder,
            f"{plan.seed} {holder}",
            lambda _: (draw.expovariate(1.0) * pace_seconds, draw.expovariate(1.0) * pace_seconds),
            rate=1 + draw.uniform(-1, 1) * plan.clock_drift,
            off_seconds=draw.uniform(-1, 1) * plan.clock_off_seconds,
        )
        troubles = (self.troubles[0], self.troubles[1 + place % plan.processes])
        inner = self.connect()
        store = SimulatedStore(inner, troubles, draw, self._wrote, lambda *call: self.note("store", holder, *call))
        lines = self.lines[place]
        transports = [
            SimulatedTransport(node, line, process.loop, process.clock, draw, self._heard)
            for node, line in zip(self.nodes, lines, strict=True)
        ]
        draw.shuffle(transports)
        bell = SimulatedBell() if plan.hints else None
        return Life(process, store, transports, bell, self._options())

    def _wrote(self, kind: str, batch: Batch, expected: Cursor | None, fence: Fence) -> None:
        try:
            self.checker.wrote(kind, batch, expected, fence)
        except SimulationFailed as failure:
            self.timeline.abort(failure)
            raise

    def _heard(self, label: str, body: bytes, response: Response) -> None:
        self.note("rpc", label, body[:160].decode("ascii", "replace"), response.status, len(response.body))

    def _options(self) -> EvmOptions:
        """The options of one process: an operator changes them between two starts."""
        plan, draw = self.plan, self.draw
        span = draw.choice((1, 2, 5, 16, 64))
        batch = draw.choice((1, 3, 32))
        return replace(
            evm_options(self.wired.settings),
            verify=Verify(plan.verify),
            audit_share=draw.choice((0.0, 0.1, 1.0)),
            strict_positions_max=plan.strict_positions_max,
            request_timeout_seconds=plan.request_seconds,
            deadline_seconds=4 * plan.request_seconds,
            poll_seconds=plan.poll_seconds,
            span_start=span,
            span_max=max(span, draw.choice((1, 8, 200))),
            batch_calls_start=batch,
            batch_calls_max=max(batch, draw.choice((1, 16, 64))),
            concurrency_max=draw.choice((1, 3, 8)),
            rest_max_seconds=10.0,
            distrust_seconds=draw.choice((20.0, 120.0)),
        )

    def _source(self, life: Life) -> EvmSource:
        hints = () if life.bell is None else (life.bell,)
        wants = self.wired.decoder.wants()
        return EvmSource(self.subject.source, life.options, wants, life.process.clock, life.transports, hints)

    async def _main(self, place: int, life: Life) -> None:
        """What the process does, and what its supervisor makes of its end."""
        error: BaseException | None = None
        try:
            await self._run(life)
        except Exception as raised:  # noqa: BLE001 - looked at below
            error = raised
        if life.store.severed:
            return
        life.ended = True
        self.note("end", life.process.holder, type(error).__name__, error or "")
        if life.stop_asked_at is None or error is not None:
            self._judge(error)
        if place not in self.down and self.until is Until.FOREVER:
            self.loop.call_later(self.draw.uniform(0.0, _RESTART_SECONDS_MAX), self._again, place, life)

    async def _run(self, life: Life) -> None:
        job = await build_job(
            self.subject.app, self.wired, life.store, life.process.clock, until=self.until, source=self._source(life)
        )
        options = replace(
            job.options,
            inflight_segments_max=self.draw.randint(1, 4),
            state_cache_rows_max=self.draw.choice((0, 1, 5, 200_000)),
            retry_seconds_max=5.0,
        )
        process = life.process
        life.runner = Runner(
            [replace(job, options=options)],
            self.subject.schema,
            life.store,
            process.clock,
            _Modes(self.note, life),
            self.plan.lease_seconds,
            process,
        )
        if life.stop_asked_at is not None:
            life.runner.stop()
        await life.runner.run()

    def _judge(self, error: BaseException | None) -> None:
        """Whether a process may end so here: what passes by itself, and what something that happened excuses."""
        if error is None:
            if self.until is Until.FOREVER:
                self.timeline.abort(SimulationFailed("A process that follows for ever ended by itself"))
            return
        excused = isinstance(error, (*_POSSIBLE, *self.allowed))
        passing = isinstance(error, GaplessError) and error.retryable
        if not (excused or passing):
            failure = SimulationFailed(f"A process ended with {type(error).__name__}: {error}")
            failure.__cause__ = error
            self.timeline.abort(failure)

    def _again(self, place: int, life: Life) -> None:
        if self.lives.get(place) is life and place not in self.down:
            self.start(place)

    def kill(self, place: int) -> None:
        """At once, in the middle of anything."""
        life = self.lives.pop(place, None)
        if life is None or life.ended:
            return
        self.note("kill", life.process.holder)
        life.sever()
        life.process.bury()

    def stop(self, place: int) -> None:
        """Ask for a graceful end."""
        life = self.lives.get(place)
        if life is not None and not life.ended and life.stop_asked_at is None:
            self.note("stop", life.process.holder)
            life.stop_asked_at = self.timeline.now
            if life.runner is not None:
                life.process.loop.call_soon(life.runner.stop)

    async def operator(self, work: Callable[[Operator], Any]) -> Any:
        """Let an operator do something with a process of its own; what it raises, but a lease that is held, which is
        waited for."""
        while True:
            life = self._born(self.plan.processes, "op")
            try:
                return await self._operate(life, work)
            except LeaseHeld:
                await self.clock.sleep(self.plan.lease_seconds / 2)
            finally:
                life.sever()
                life.process.bury()

    async def _operate(self, life: Life, work: Callable[[Operator], Any]) -> Any:
        done = self.loop.create_future()

        async def main() -> None:
            try:
                source = self._source(life)
                job = await build_job(self.subject.app, self.wired, life.store, life.process.clock, source=source)
                operator = Operator(
                    job, self.subject.schema, life.store, life.process.clock, self.plan.lease_seconds, life.process
                )
                found = work(operator)
                done.set_result(await found if hasattr(found, "__await__") else found)
                await source.close()
            except Exception as error:  # noqa: BLE001 - told to whoever asked
                if not done.done():
                    done.set_exception(error)

        life.process.loop.create_task(main(), name=life.process.holder)
        return await done

    # --- the end ----------------------------------------------------------------------------------------------------

    def expected(self) -> Cursor | None:
        """Where the tables must come to."""
        position = self.main.height - self.plan.confirmations
        block = self.main.block(position)
        return None if block is None or position < self.plan.start else Cursor(block.number, block.hash)

    def excuse(self, kind: type[GaplessError]) -> None:
        """From now on a process may end so."""
        self.allowed.add(kind)

    def close(self) -> None:
        for place in list(self.lives):
            self.kill(place)
        self.checker.store.close()


EXCUSES: Mapping[str, type[GaplessError]] = {"other_chain": WrongChain, "flag": Halted}
"""What an event excuses."""

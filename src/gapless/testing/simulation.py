"""Whole runs of an app on a virtual clock, with everything that can go wrong, from one seed.

    from gapless.testing import simulate

    def test_my_app_survives():
        simulate(app, seeds=range(100))

Each seed is a world of its own: an ERC-20 chain that forks, two to four nodes that lag, lie, stall and disagree, a
database that refuses commits or loses their answers, and up to three processes that follow the one into the other, are
killed, paused, frozen, stopped and started again. The engine and the EVM source are the real ones; sockets, threads and
time are not. In the end all is healed, and the tables must be those of an undisturbed run over the same chain.

Which seeds fail, and how, depends on nothing but the seed: not on the machine, its load, or the order of a hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from gapless.clock import SystemClock
from gapless.engine.plan import Until
from gapless.testing.chain import Logs
from gapless.testing.simulated_nature import Weather
from gapless.testing.simulated_world import SimulatedApp, World
from gapless.testing.simulation_checks import Oracle, SimulationFailed
from gapless.testing.simulation_plan import Plan, draw_plan, quiet

if TYPE_CHECKING:
    from gapless.app import App

STEPS_MAX = 300_000
_QUIET_SECONDS_MAX = 600.0
_REAL = SystemClock()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a seed that passed came to."""

    seed: int
    trace: str
    """Hash over all that happened, in order."""
    steps: int
    """Callbacks run."""
    simulated_seconds: float
    real_seconds: float
    commits: int
    forks: int
    fork_deepest: int
    height: int


def simulate(
    app: App,
    seeds: Sequence[int] = range(100),
    *,
    addresses: Mapping[str, str] | None = None,
    logs: Logs | None = None,
    oracle: Oracle | None = None,
) -> list[Outcome]:
    """Run an app of one EVM source through the simulation, once a seed.

    `addresses`: contract name → where it is on the simulated chain (`TOKEN` emits its transfers); an only contract is
    put there by itself. `logs`: what blocks hold, as for `ScriptedChain.mine`. `oracle`: which rows the tables must
    hold after each commit. Raises SimulationFailed, naming the seed; ConfigError and UsageError where the app cannot be
    simulated."""
    subject = subject_of(app, addresses=addresses, logs=logs, oracle=oracle)
    outcomes = []
    for seed in seeds:
        try:
            outcomes.append(run(draw_plan(seed), subject))
        except Exception as failure:
            again = f"simulate(app, seeds=[{seed}])"
            raise SimulationFailed(f"Seed {seed}: {type(failure).__name__}: {failure}\nAgain: {again}") from failure
    return outcomes


def subject_of(
    app: App,
    *,
    addresses: Mapping[str, str] | None = None,
    logs: Logs | None = None,
    oracle: Oracle | None = None,
) -> SimulatedApp:
    """An app made ready to be simulated, any number of times."""
    from gapless.testing.block import TOKEN

    contracts = list(app.config.contracts)
    if addresses is None and len(contracts) == 1:
        addresses = {contracts[0]: TOKEN}
    return SimulatedApp(app, addresses=addresses, logs=logs, oracle=oracle)


def run(
    plan: Plan, subject: SimulatedApp, *, path: Path | None = None, tell: Callable[[str], None] | None = None
) -> Outcome:
    """One seed: trouble, healing, and the comparison with an undisturbed run. `path`: of a SQLite file to use in the
    place of a database in memory. Raises SimulationFailed, and whatever a fault raises."""
    began = _REAL.monotonic()
    world = World(plan, subject, path=path, tell=tell)
    with _heard(tell, world):
        try:
            weather = Weather(world)
            _play(world, _all(weather))
            found = world.checker.digests()
            undisturbed = _undisturbed(plan, subject, world)
            if found != undisturbed:
                raise SimulationFailed(f"The digests are {found}, those of an undisturbed run {undisturbed}")
        finally:
            world.close()
    return Outcome(
        plan.seed,
        world.trace,
        world.timeline.steps,
        world.timeline.now,
        _REAL.monotonic() - began,
        world.checker.commits,
        world.checker.forks,
        world.checker.fork_deepest,
        world.main.height,
    )


async def _all(weather: Weather) -> None:
    await weather.blow()
    await weather.heal()


def _undisturbed(plan: Plan, subject: SimulatedApp, world: World) -> tuple[str, str]:
    """The digests of a run in which nothing goes wrong, over the chain as it is now."""
    calm = World(replace(quiet(plan)), subject, chain=world.main, until=Until.HEAD)

    async def follow() -> None:
        calm.start(0)
        limit = calm.timeline.now + _QUIET_SECONDS_MAX
        while not calm.lives[0].ended:
            if calm.timeline.now > limit:
                raise SimulationFailed("An undisturbed run does not come to its end")
            await calm.clock.sleep(1.0)

    try:
        _play(calm, follow())
        return calm.checker.digests()
    finally:
        calm.close()


def _play(world: World, script: Any) -> None:
    task = world.loop.create_task(script)
    try:
        world.timeline.run(task, steps_max=STEPS_MAX)
    finally:
        world.loop.bury()


@contextmanager
def _heard(tell: Callable[[str], None] | None, world: World) -> Iterator[None]:
    """Logs go into the trace that is told, and nowhere else."""

    def swallow(_logger: Any, method: str, event: Any) -> Any:
        if tell is not None:
            told = " ".join(f"{k}={v}" for k, v in event.items() if k != "event")
            tell(f"{world.timeline.now:.6f} log {method} {event['event']} {told}")
        raise structlog.DropEvent

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[swallow])
    try:
        yield
    finally:
        structlog.configure(processors=before)

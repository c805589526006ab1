"""Try an app on a node of the test's own: the real engine, tables in memory, no configuration to write.

trial = Trial(app, node.url, addresses={"token": TOKEN})
trial.run()                                # to the head, as `gapless run --until head`
chain.reorg(12)
trial.run()                                # a restart later: the fork is undone
assert trial.rows(Holding) == …
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from gapless.clock import Clock, SystemClock
from gapless.errors import UsageError
from gapless.schema import Nature, Table, from_text
from gapless.store.memory import MemoryStore

if TYPE_CHECKING:
    from gapless.app import App
    from gapless.config import Config
    from gapless.engine.plan import Until
    from gapless.store import QuarantineRow

T = TypeVar("T")

RUN_SECONDS_MAX = 60.0
LEASE_SECONDS = 15.0
_POLL_SECONDS = 0.02


class Trial:
    """An app of one EVM source on other endpoints and contracts; its tables live as long as the trial.

    `addresses`: contract name → where it is on the test's chain, for those that are elsewhere there. `clock`: whose
    seed decides what is audited and how long pauses are. The app itself is not changed. Raises ConfigError, and
    UsageError where the app has not one EVM source."""

    def __init__(self, app: App, *rpc: str, addresses: Mapping[str, str] | None = None, clock: Clock | None = None):
        from gapless.wiring import wire

        self._app = copy.copy(app)
        self._app._config = moved(app.config, rpc, addresses or {})  # noqa: SLF001 - the app of this trial only
        self._clock = clock or SystemClock(seed=1)
        self._schema, self._wired = wire(self._app)
        (self._source,) = self._wired
        self._bindings = {b.row_type: b for b in self._app.bindings(self._source)}
        self.store = MemoryStore(clock=self._clock)
        self.store.open(self._schema, create=True)

    def run(self, until: Until | int | None = None) -> None:
        """Index up to a position, or to the head; what is there already stays. Raises what `gapless run` ends with:
        HandlerFailed, ForkBeyondFinality, …; TimeoutError after a minute."""
        asyncio.run(self._run(until))

    async def _run(self, until: Until | int | None) -> None:
        from gapless.engine.observer import Observer
        from gapless.engine.plan import Until
        from gapless.engine.runner import Runner
        from gapless.wiring import build_job

        goal = Until.HEAD if until is None else until
        async with asyncio.timeout(RUN_SECONDS_MAX):
            job = await build_job(self._app, self._wired[self._source], self.store, self._clock, until=goal)
            await Runner([job], self._schema, self.store, self._clock, Observer(), LEASE_SECONDS).run()

    def rows(self, table: type[T]) -> list[T]:
        """The rows of a declared table, in the order of its key."""
        binding = self._bindings.get(table)
        if binding is None:
            raise UsageError(f"{table.__name__} is not a table of this app", todo="Declare it with @app.table.")
        return [table(**{f: row[f] for f in binding.fields}) for row in self._read(binding.table)]

    def events(self, table: str) -> list[dict[str, Any]]:
        """The rows of an event's table or a dataset (`token_transfer`, `blocks`), in chain order."""
        return self._read(self._schema.table(table))

    def quarantine(self) -> list[QuarantineRow]:
        """What could not be decoded or handled."""
        return self.store.quarantine(self._source)

    def _read(self, table: Table) -> list[dict[str, Any]]:
        cursor = self.store.cursor(self._source)
        rows: list[tuple[str | None, ...]] = []
        if table.nature is Nature.STATE:
            rows = [row.values for row in self.store.state_rows(table)]
        elif cursor is not None:
            rows = list(zip(*self.store.facts(table, 0, cursor.position)[0], strict=True))
        return [{c.name: from_text(c, v) for c, v in zip(table.columns, row, strict=True)} for row in rows]


def moved(config: Config, rpc: tuple[str, ...], addresses: Mapping[str, str]) -> Config:
    """The configuration with other endpoints and addresses."""
    from gapless.config import EvmSource

    kinds = [isinstance(source, EvmSource) for source in config.sources.values()]
    if kinds != [True]:
        raise UsageError("A trial needs an app with one source, an EVM chain", todo="Split the app, or run it whole.")
    strange = addresses.keys() - config.contracts.keys()
    if strange:
        raise UsageError(f"The app has no contract {min(strange)!r}", todo=f"It has {', '.join(config.contracts)}.")
    sources = {
        name: source.model_copy(update={"rpc": rpc, "poll_seconds": _POLL_SECONDS})
        for name, source in config.sources.items()
    }
    contracts = {
        name: contract.model_copy(update={"address": (addresses[name].lower(),)}) if name in addresses else contract
        for name, contract in config.contracts.items()
    }
    return config.model_copy(update={"sources": sources, "contracts": contracts})

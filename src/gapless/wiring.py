"""Put the parts of an app together: the one place that knows which adapter serves which configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gapless.app import App
from gapless.clock import Clock
from gapless.config import Config
from gapless.config import EvmSource as EvmSettings
from gapless.config import ReplaySource as ReplaySettings
from gapless.engine import plan
from gapless.errors import ConfigError
from gapless.schema import Schema
from gapless.sources import AnySource
from gapless.store import Store

if TYPE_CHECKING:
    from gapless.config import Chain
    from gapless.engine.runner import Job
    from gapless.sources.evm.decode import EvmDecoder
    from gapless.sources.evm.options import EvmOptions
    from gapless.sources.evm.types import Wants


@dataclass(frozen=True, slots=True)
class Wired:
    """One source's decoder with the tables it fills."""

    name: str
    decoder: EvmDecoder
    settings: Chain


def wire(app: App) -> tuple[Schema, dict[str, Wired]]:
    """The app's tables and decoders. Reads ABIs; touches neither network nor database. Raises ConfigError."""
    wired = {name: Wired(name, _decoder(app, name), settings) for name, settings in app.config.sources.items()}
    tables = [t for w in wired.values() for t in w.decoder.tables()]
    tables += [b.table for name in wired for b in app.bindings(name)]
    return Schema(app.config.app.name, tuple(tables), tuple(sorted(wired))), wired


def _decoder(app: App, source: str) -> EvmDecoder:
    from gapless.sources.evm.contracts import ContractSpec
    from gapless.sources.evm.decode import EvmDecoder

    config = app.config
    contracts = [
        ContractSpec.load(name, app.abis.get(name, contract.abi), contract.address, contract.events)
        for name, contract in config.contracts.items()
        if contract.source == source
    ]
    prefix = f"{source}_" if len(config.sources) > 1 else ""
    subscribed = frozenset(h.event for h in app.handlers(source))
    datasets = frozenset(config.sources[source].datasets)
    return EvmDecoder(source, contracts, datasets, subscribed, prefix)


def open_store(config: Config, schema: Schema, clock: Clock, *, create: bool, check_pages: bool = False) -> Store:
    """The configured database, opened; with `check_pages` one that is a file is read as a whole first, for damage.
    Raises what `Store.open` raises, and MissingExtra."""
    store = _store(config, clock, check_pages)
    store.open(schema, create=create)
    return store


def _store(config: Config, clock: Clock, check_pages: bool) -> Store:
    settings = config.store
    if settings.url.startswith("sqlite:"):
        from gapless.store.sqlite import SqliteOptions, SqliteStore

        return SqliteStore(settings.url.removeprefix("sqlite:///"), clock, SqliteOptions(check_pages=check_pages))
    from gapless.store.postgres import PostgresStore
    from gapless.store.postgres_connection import PostgresOptions

    options = PostgresOptions(
        connections_max=settings.pool_max,
        idle_seconds_max=settings.idle_timeout_seconds,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        statement_timeout_seconds=settings.statement_timeout_seconds,
    )
    return PostgresStore(settings.url, clock, options)


def build_source(wired: Wired, store: Store | None, clock: Clock) -> AnySource:
    """The source of a lane. `store`: where a replay goes on from."""
    from gapless.sources.evm.source import EvmSource

    settings = wired.settings
    options = evm_options(settings)
    if isinstance(settings, ReplaySettings):
        from gapless.sources.replay import open_recording

        replay = open_recording(settings.file, clock=clock)
        known = None if store is None else store.cursor(wired.name)
        if known is not None:
            replay.seek(known)
        return EvmSource(wired.name, options, wired.decoder.wants(), clock, [replay])
    if not isinstance(settings, EvmSettings):
        raise ConfigError(f"Source {wired.name!r} has a kind that cannot be followed")
    return _connected(wired.name, settings.rpc, options, wired.decoder.wants(), clock)


def _connected(name: str, urls: Sequence[str], options: EvmOptions, wants: Wants, clock: Clock) -> AnySource:
    from gapless.sources.evm.hints import NewHeads
    from gapless.sources.evm.source import EvmSource
    from gapless.sources.evm.transport import HttpTransport

    transports = [
        HttpTransport(
            url,
            connect_timeout_seconds=options.connect_timeout_seconds,
            connections_max=options.concurrency_max,
            answer_bytes_max=options.answer_bytes_max,
        )
        for url in urls
        if not url.startswith("ws")
    ]
    hints = tuple(NewHeads(url, options, clock) for url in urls if url.startswith("ws"))
    return EvmSource(name, options, wants, clock, transports, hints)


def build_source_at(wired: Wired, url: str, clock: Clock) -> AnySource:
    """The same source through one other endpoint: for `verify --against`."""
    return _connected(wired.name, [url], evm_options(wired.settings), wired.decoder.wants(), clock)


def evm_options(settings: Chain) -> EvmOptions:
    """A configured chain's options."""
    from gapless.sources.evm.options import EvmOptions
    from gapless.sources.evm.types import Verify
    from gapless.sources.evm.verify import ChainHashing

    defaults = EvmOptions()
    common: dict[str, Any] = {
        "verify": Verify(settings.verify),
        "finality": settings.finality,
        "poll_seconds": settings.poll_seconds,
        "span_max": settings.span_max,
        "span_start": min(defaults.span_start, settings.span_max),
        "hashing": ChainHashing(**settings.hashing.model_dump()),
    }
    if isinstance(settings, EvmSettings):
        common |= {
            "audit_share": settings.audit,
            "request_timeout_seconds": settings.timeout_seconds,
            "deadline_seconds": settings.deadline_seconds,
            "request_attempts_max": settings.attempts_max,
            "batch_calls_max": settings.batch_max,
            "batch_calls_start": min(defaults.batch_calls_start, settings.batch_max),
            "concurrency_max": settings.concurrency,
            "answer_bytes_max": settings.answer_max_bytes,
            "hint_silence_seconds": settings.silence_seconds,
        }
    return EvmOptions(**common)


async def build_job(
    app: App,
    wired: Wired,
    store: Store,
    clock: Clock,
    *,
    until: plan.Until | int = plan.Until.FOREVER,
    source: AnySource | None = None,
) -> Job:
    """Everything the engine needs to follow one source. `source`: taken in the place of the configured one, and closed
    where this fails, as that would be."""
    from gapless.engine.runner import Job
    from gapless.engine.start import resolve_start

    settings = wired.settings
    source = source or build_source(wired, store, clock)
    try:
        bound = store.source(wired.name)
        start = bound.start if bound is not None else await resolve_start(source, settings.start)
    except BaseException:
        await source.close()
        raise
    limits = app.config.limits
    options = plan.FollowOptions(
        start=start,
        chain=None if settings.chain_id is None else str(settings.chain_id),
        end=settings.end,
        confirmations=settings.confirmations,
        until=until,
        reorg_positions_max=settings.reorg_max,
        stall_after_seconds=settings.stall_after_seconds,
        inflight_segments_max=limits.inflight_segments_max,
        inflight_bytes_max=limits.memory_max_bytes,
    )
    return Job(source, wired.decoder, app.handlers(wired.name), app.bindings(wired.name), options)

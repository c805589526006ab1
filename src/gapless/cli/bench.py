"""`gapless bench`: measure one's own endpoint, machine and database, and name what limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, JsonOption, SourceOption
from gapless.cli.project import DEFAULT_FILE, GIVEN_APP, GIVEN_SPEC, Project, finish, load
from gapless.errors import UsageError

if TYPE_CHECKING:
    from gapless.bench.course import Course
    from gapless.bench.figures import Figures

_SECONDS_MIN, _SECONDS_MAX = 1.0, 3600.0
_APP = "bench"


def bench(
    config: ConfigOption = None,
    source: SourceOption = None,
    rpc: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An endpoint. Left out: the source's first http one.", show_default=False),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A database. Left out: the app's, else SQLite here.", show_default=False),
    ] = None,
    first: Annotated[
        int | None,
        typer.Option("--from", metavar="N", min=0, help="Where the samples begin.", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="About how long to measure.")] = 20.0,
    as_json: JsonOption = False,
) -> None:
    """Measure endpoint, machine and database, and name what limits.

    Nothing of the app is touched: rows go to a scratch schema or file beside its database, which is removed
    afterwards, also when this is interrupted or killed. Without a configuration, --rpc alone measures with ERC-20
    transfers."""
    if not _SECONDS_MIN <= seconds <= _SECONDS_MAX:
        raise UsageError(f"--seconds is {seconds:g}", todo=f"Give {_SECONDS_MIN:g} to {_SECONDS_MAX:g}.")
    project = _project(config, rpc, store)
    course = _course(project, source, rpc, store, first, seconds)
    quiet = (lambda _: None) if as_json else output.talk
    figures = finish(course.measure(project.clock, quiet))
    if as_json:
        output.document(figures.document())
    else:
        _print(figures)


def _project(spec: str | None, rpc: str | None, store: str | None) -> Project:
    """The app's, with another store where one is named; or one made up of the addresses alone."""
    import os

    from gapless.app import App
    from gapless.config import parse

    named = spec or GIVEN_SPEC.get() or GIVEN_APP.get() or os.environ.get("GAPLESS_CONFIG")
    if named or Path(DEFAULT_FILE).exists() or "GAPLESS_APP__NAME" in os.environ:
        return load(spec)
    if rpc is None:
        raise UsageError(
            f"There is no {DEFAULT_FILE} here, and no endpoint is named",
            todo="Add --rpc URL, or name a configuration with -c FILE.",
        )
    keys: dict[str, Any] = {
        "app": {"name": _APP},
        "store": {"url": store or f"sqlite:///{_APP}.db"},
        "sources": {"chain": {"kind": "evm", "rpc": [rpc]}},
        "contracts": {"token": {"abi": "erc20", "events": ["Transfer"]}},
    }
    return Project(App.from_config(parse(keys, base=Path.cwd())))


def _course(
    project: Project, source: str | None, rpc: str | None, store: str | None, first: int | None, seconds: float
) -> Course:
    from gapless.bench.course import Course
    from gapless.config import EvmSource

    name = project.source(source)
    settings = project.config.sources[name]
    if not isinstance(settings, EvmSource):
        raise UsageError(
            f"Source {name!r} is a recording: there is no endpoint to measure",
            todo="Choose another one with --source, or name an endpoint with --rpc where there is no configuration.",
        )
    url = rpc or next((each for each in settings.rpc if not each.startswith("ws")), None)
    if url is None:
        raise UsageError(f"Source {name!r} has no http endpoint", todo="Add --rpc URL.")
    config = project.config
    if store is not None:
        config = config.model_copy(update={"store": config.store.model_copy(update={"url": store})})
    return Course(config, project.schema, project.wired[name], url, first, seconds)


# --- for people ----------------------------------------------------------------------------------------------------


def _print(figures: Figures) -> None:
    first, last = figures.positions
    output.say(f"Endpoint {figures.endpoint}, blocks {first}..{last}, {figures.concurrency} requests in flight.")
    trip = figures.round_trip
    output.say(
        f"Round trip: {_ms(trip.median_seconds)} in the median, {_ms(trip.worst_seconds)} at the 90th percentile."
    )
    output.say("")
    columns = ("range", "blocks/s", "logs/s", "MB/s", "node", "network", "refused")
    output.table(columns, _range_rows(figures), right=columns[1:])
    output.say("")
    stages = (
        ("endpoint, best range", figures.best.blocks_per_second, figures.best.logs_per_second),
        ("decode and check, one core", figures.decode.blocks_per_second, figures.decode.rows_per_second),
        (f"database, {figures.store}", figures.database.rate.blocks_per_second, figures.database.rate.rows_per_second),
        ("all together, while it learns", figures.end_to_end.blocks_per_second, figures.end_to_end.rows_per_second),
    )
    rows = [(name, round(blocks), round(logs)) for name, blocks, logs in stages]
    output.table(("stage", "blocks/s", "rows/s"), rows, right=("blocks/s", "rows/s"))
    output.say("")
    output.say(f"A commit of one block takes {_ms(figures.database.single_seconds)}.")
    for note in figures.notes:
        output.say(note)
    output.say(f"The limit is the {_named(figures.limit.name)}: {figures.limit.reason}.")
    output.say(figures.limit.suggestion)


def _named(limit: str) -> str:
    return "decoding" if limit == "decode" else limit


def _range_rows(figures: Figures) -> Sequence[Sequence[Any]]:
    return [
        (
            output.counted(rate.blocks, "block"),
            round(rate.blocks_per_second),
            round(rate.logs_per_second),
            f"{rate.size_bytes / max(rate.seconds, 1e-9) / 1e6:.1f}",
            _ms(rate.node_seconds),
            _ms(rate.network_seconds),
            f"{rate.refused}: {rate.refusal}" if rate.refused else 0,
        )
        for rate in figures.ranges
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"

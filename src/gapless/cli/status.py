"""`gapless status`: where each source stands, read from the database alone."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapless.cli import output
from gapless.cli.gaps import described
from gapless.cli.options import ConfigOption, JsonOption
from gapless.cli.project import Project, load

if TYPE_CHECKING:
    from gapless.model import LeaseRow
    from gapless.store import Store

_WATCH_SECONDS = 2.0


def status(
    config: ConfigOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every 2 seconds, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show where every source stands.

    Mode, head, lag, evidence, leader and gaps of every source, and the rows of every table."""
    project = load(config)
    with project.store() as store:
        if watch:
            _watch(project, store, as_json)
        elif as_json:
            output.document(read(project, store))
        else:
            _print(read(project, store))


def read(project: Project, store: Store) -> dict[str, Any]:
    """The document, without its schema number."""
    from gapless.engine.names import lease_name

    leases = {lease.name: lease for lease in store.leases()}
    schema = project.schema
    return {
        "app": project.config.app.name,
        "version": schema.version,
        "sources": {
            name: _source(project, store, name, leases.get(lease_name(schema, name))) for name in schema.sources
        },
        "tables": {table.name: {"rows": store.row_count(table)} for table in schema.tables},
    }


def _source(project: Project, store: Store, name: str, lease: LeaseRow | None) -> dict[str, Any]:
    report, cursor, coverage = store.reported(name), store.cursor(name), store.coverage(name)
    led = lease is not None and lease.live
    indexed = None if cursor is None else cursor.position
    age_seconds = None
    if cursor is not None and (last := store.entries(name, cursor.position, cursor.position)):
        age_seconds = max(0.0, (project.clock.now_us() - last[0].entry.time_us) / 1e6)
    mode, reason = _mode(report.mode.value, report.reason, led)
    lag = None if report.head is None or indexed is None else max(0, report.head - indexed)
    return {
        "kind": project.config.sources[name].kind,
        "mode": mode,
        "head": report.head,
        "finalized": None if report.finalized is None or report.finalized < 0 else report.finalized,
        "indexed": indexed,
        "hash": None if cursor is None else cursor.id,
        "lag": {"positions": lag, "seconds": None if age_seconds is None else round(age_seconds, 3)},
        "gaps": _gaps(store, name, coverage.missing),
        "evidence": {kind: coverage.evidence.get(kind, 0) for kind in ("proved", "checked", "trusted")},
        "leader": {"holder": lease.holder, "fence": lease.token} if led and lease is not None else None,
        "reorgs": {"count": report.reorgs, "deepest": report.reorg_deepest},
        "quarantined": len(store.quarantine(name)),
        "reason": reason,
    }


def _mode(mode: str, reason: str | None, led: bool) -> tuple[str, str | None]:
    """What the leader said last counts while there is one; a run that halted left its reason behind."""
    if led:
        return mode, reason
    return "stopped", f"halted: {reason}" if mode == "halted" and reason else "no process follows it: `gapless run`"


def _gaps(store: Store, name: str, missing: int) -> list[dict[str, Any]]:
    """The ledger, and holes that are not in it yet. Damage inside entries is for `gapless gaps` to find."""
    from gapless.model import Gap

    found = store.gaps(name)
    bound, cursor = store.source(name), store.cursor(name)
    if missing and bound is not None and cursor is not None:
        known = {(gap.first, gap.last) for gap in found}
        holes = store.missing(name, bound.start, cursor.position)
        found += [Gap(name, a, b, "no entry", 0) for a, b in holes if (a, b) not in known]
    return [described(gap) for gap in sorted(found, key=lambda gap: gap.first)]


# --- for people ----------------------------------------------------------------------------------------------------

_COLUMNS = (
    *("source", "mode", "indexed", "head", "final", "behind", "age", "evidence"),
    *("gaps", "quarantined", "reorgs", "leader"),
)
_RIGHT = ("indexed", "head", "final", "behind", "age", "gaps", "quarantined", "reorgs", "rows")


def _renderables(found: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    styles = {"live": "green", "idle": "green", "halted": "bold red", "degraded": "yellow", "stopped": "dim"}
    sources = []
    for name, s in found["sources"].items():
        deepest = f" (deepest {s['reorgs']['deepest']})" if s["reorgs"]["count"] else ""
        sources.append(
            (
                name,
                Text(s["mode"], style=styles.get(s["mode"], "")),
                s["indexed"],
                s["head"],
                s["finalized"],
                s["lag"]["positions"],
                output.span(s["lag"]["seconds"]),
                ", ".join(f"{count} {kind}" for kind, count in s["evidence"].items() if count),
                len(s["gaps"]),
                s["quarantined"],
                f"{s['reorgs']['count']}{deepest}",
                None if s["leader"] is None else s["leader"]["holder"],
            )
        )
    made = [output.rendered(_COLUMNS, sources, right=_RIGHT)]
    made += [Text(f"\n{name}: {s['reason']}") for name, s in found["sources"].items() if s["reason"]]
    made += [
        Text(""),
        output.rendered(("table", "rows"), [(t, v["rows"]) for t, v in found["tables"].items()], right=_RIGHT),
    ]
    return made


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, emoji=False, markup=False)
    for renderable in _renderables(found):
        console.print(renderable)


def _watch(project: Project, store: Store, as_json: bool) -> None:
    """Until Ctrl-C, taken as a signal: raised inside the database driver, a KeyboardInterrupt can get lost."""
    from rich.console import Console, Group
    from rich.live import Live

    stopped = threading.Event()
    signal.signal(signal.SIGINT, lambda _number, _frame: stopped.set())
    if as_json or not sys.stdout.isatty():
        while not stopped.is_set():
            output.line(read(project, store)) if as_json else _print(read(project, store))
            project.clock.wait(stopped, _WATCH_SECONDS)
        raise typer.Exit(130)
    console = Console(highlight=False, emoji=False, markup=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not stopped.is_set():
            live.update(Group(*_renderables(read(project, store))), refresh=True)
            project.clock.wait(stopped, _WATCH_SECONDS)
    raise typer.Exit(130)

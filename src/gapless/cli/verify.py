"""`gapless verify`: derive again and compare with what is stored; or compare with another database."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, JsonOption, Range, RangeOption, SourceOption, parse_range
from gapless.cli.project import Project, finish, load
from gapless.cli.steps import Steps

if TYPE_CHECKING:
    from gapless.engine.verify import Mismatch, Verification
    from gapless.store import Store

_POSITIONS_AT_ONCE = 1_000
_SHOWN_MAX = 20


def verify(
    config: ConfigOption = None,
    range_: RangeOption = None,
    source: SourceOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Another endpoint (http…), or another deployment's database.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Derive a range again and compare.

    Every row of every fact table is compared with what the source says now. Where the range is all that is stored,
    state tables are compared too, and a SQLite file is searched for damage. With the URL of another database of the
    same app, the recorded digests are compared instead.
    Exit code 1 on any difference."""
    wanted = parse_range(range_)
    project = load(config)
    name = project.source(source)
    everything = wanted.first is None and wanted.last is None
    with project.store(check_pages=everything) as store:
        if against is not None and against.startswith(("sqlite:", "postgresql:", "postgres:")):
            found = _compare_stores(project, store, name, wanted, against)
        else:
            found = finish(_derive_again(project, store, name, wanted, against))
    if as_json:
        mismatches = [asdict(mismatch) for mismatch in found.mismatches]
        range_found = [found.first, found.last]
        output.document({"source": name, "range": range_found, "checked": found.checked, "mismatches": mismatches})
    else:
        _print(name, found)
    if found.mismatches:
        raise typer.Exit(1)


def _print(name: str, found: Verification) -> None:
    if found.mismatches:
        rows = [(m.position, m.table, m.stored, m.derived) for m in found.mismatches[:_SHOWN_MAX]]
        output.table(("position", "table", "stored", "derived"), rows, right=("position",))
    differences = output.counted(len(found.mismatches), "difference") if found.mismatches else "no difference"
    compared = output.counted(found.checked, "position")
    output.say(f"{name} {found.first}..{found.last}: {compared} compared, {differences}.")


async def _derive_again(project: Project, store: Store, name: str, wanted: Range, against: str | None) -> Verification:
    from gapless.cli.lane import operating
    from gapless.engine.operate import bounds
    from gapless.engine.verify import Verification

    committed = bounds(store, name)
    first, last = committed.clip(wanted.first, wanted.last)
    async with operating(project, store, name, against=against) as operator:
        if operator.has_state and (first, last) == (committed.start, committed.cursor.position):
            output.talk("Comparing state tables too, which takes two passes.")
            return await operator.verify(first, last)
        mismatches: list[Mismatch] = []
        with Steps("verify", project.clock) as steps:
            for low in range(first, last + 1, _POSITIONS_AT_ONCE):
                high = min(low + _POSITIONS_AT_ONCE - 1, last)
                mismatches += (await operator.verify(low, high)).mismatches
                steps.tick(high - first + 1, last - first + 1)
    return Verification(first, last, last - first + 1, tuple(mismatches))


# --- against another database --------------------------------------------------------------------------------------


def _compare_stores(project: Project, store: Store, name: str, wanted: Range, url: str) -> Verification:
    from gapless.engine.operate import bounds
    from gapless.engine.verify import Verification
    from gapless.wiring import open_store

    settings = project.config.store.model_copy(update={"url": _database(url)})
    other = open_store(
        project.config.model_copy(update={"store": settings}), project.schema, project.clock, create=False
    )
    try:
        both = min(bounds(store, name).cursor.position, bounds(other, name).cursor.position)
        first, last = bounds(store, name).clip(wanted.first, both if wanted.last is None else min(both, wanted.last))
        mismatches: list[Mismatch] = []
        for low in range(first, last + 1, _POSITIONS_AT_ONCE):
            mismatches += _compare_entries(store, other, name, low, min(low + _POSITIONS_AT_ONCE - 1, last))
    finally:
        other.close()
    return Verification(first, last, last - first + 1, tuple(mismatches))


def _database(url: str) -> str:
    """A database URL as the configuration would hold it; a relative SQLite path starts at the working directory."""
    if url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
        return f"sqlite:///{Path(url.removeprefix('sqlite:///')).absolute()}"
    return url.replace("postgres:", "postgresql:", 1) if url.startswith("postgres:") else url


def _compare_entries(store: Store, other: Store, name: str, first: int, last: int) -> list[Mismatch]:
    from gapless.engine.verify import Mismatch

    found = []
    here = {s.entry.position: s for s in store.entries(name, first, last)}
    there = {s.entry.position: s for s in other.entries(name, first, last)}
    for position in sorted({*here, *there}):
        a, b = here.get(position), there.get(position)
        if a is None or b is None or a.entry.id != b.entry.id:
            ids = ["" if s is None else s.entry.id for s in (a, b)]
            found.append(Mismatch(position, "gapless_entries", *ids))
        elif a.digest != b.digest:
            found.append(Mismatch(position, "gapless_entries", a.digest, b.digest))
    return found

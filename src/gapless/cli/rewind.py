"""`gapless rewind` and `gapless replay`: undo, and derive again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, DryRunOption, JsonOption, RangeOption, SourceOption, parse_range
from gapless.cli.project import Project, finish, load
from gapless.cli.steps import Steps
from gapless.errors import Refused, UsageError

if TYPE_CHECKING:
    from gapless.store import Store

_POSITIONS_AT_ONCE = 1_000

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def rewind(
    to: Annotated[int, typer.Option("--to", metavar="N", help="The last position that stays.", show_default=False)],
    config: ConfigOption = None,
    source: SourceOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Undo everything above a position.

    Facts, state, quarantine and entries go back in one transaction; `gapless run` indexes them again. The position
    below the first one undoes everything."""
    from gapless.engine.operate import bounds

    project = load(config)
    name = project.source(source)
    with project.store() as store:
        committed = bounds(store, name)
        top = committed.cursor.position
        if not committed.start - 1 <= to <= top:
            raise UsageError(
                f"Cannot go back to {to}",
                source=name,
                todo=f"Committed is {committed.start}..{top}; {committed.start - 1} undoes everything.",
            )
        undone = top - to
        if undone and not dry_run:
            _confirm(f"Undo {output.counted(undone, 'position')} of {name}, {to + 1}..{top}?", yes)
            undone = finish(_rewind(project, store, name, to))
    if as_json:
        output.document({"source": name, "to": to, "undone": undone, "dry_run": dry_run})
    else:
        output.say(f"{'Would undo' if dry_run else 'Undid'} {output.counted(undone, 'position')} of {name} above {to}.")


def _confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; elsewhere the command itself is the answer."""
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    if not typer.confirm(question, err=True):
        raise Refused("Nothing was undone", todo="You said no.")


async def _rewind(project: Project, store: Store, name: str, to: int) -> int:
    """Undoing asks the database only: it works while the source is out of reach."""
    from gapless.engine.operate import Operator
    from gapless.wiring import build_job

    job = await build_job(project.app, project.wired[name], store, project.clock)
    try:
        return await Operator(job, project.schema, store, project.clock, project.config.lease.ttl_seconds).rewind(to)
    finally:
        await job.source.close()


# --- replay --------------------------------------------------------------------------------------------------------


def replay(
    config: ConfigOption = None,
    range_: RangeOption = None,
    source: SourceOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Derive a range again and replace it.

    Each part is replaced in one transaction, so readers see no hole. With state tables everything from the range's
    beginning is undone and indexed again, because state cannot be derived from the middle."""
    from gapless.engine.operate import bounds
    from gapless.schema import Nature

    wanted = parse_range(range_)
    project = load(config)
    name = project.source(source)
    with project.store() as store:
        committed = bounds(store, name)
        first, last = committed.clip(wanted.first, wanted.last)
        stateful = bool(project.schema.of(name, Nature.STATE))
        if stateful:
            last = committed.cursor.position
        found: dict[str, Any] = {"source": name, "range": [first, last], "dry_run": dry_run}
        if not dry_run:
            if stateful:
                _confirm(f"Undo {name} {first}..{last} and index it again?", yes)
            found |= finish(_replay(project, store, name, first, last))
    if as_json:
        output.document(found)
    elif dry_run:
        output.say(f"Would derive {name} {first}..{last} again.")
    else:
        said = f"{found['changed']} changed" if found["changed"] else "all digests as before"
        output.say(f"Derived {name} {first}..{last} again: {output.counted(found['entries'], 'position')}, {said}.")


async def _replay(project: Project, store: Store, name: str, first: int, last: int) -> dict[str, int]:
    from gapless.cli.lane import operating
    from gapless.engine.observer import Observer
    from gapless.engine.plan import ranges
    from gapless.engine.repair import Damage

    before = _digests(store, name, first, last)
    async with operating(project, store, name) as operator:
        if operator.has_state:
            await operator.replay(first, last, Observer())
        else:
            parts = [Damage(a, b, "replay") for a, b in ranges(first, last, _POSITIONS_AT_ONCE)]
            with Steps("replay", project.clock) as steps:
                await operator.repair(parts, steps.tick)
    after = _digests(store, name, first, last)
    changed = sum(before.get(position) != after.get(position) for position in {*before, *after})
    return {"entries": len(after), "changed": changed}


def _digests(store: Store, name: str, first: int, last: int) -> dict[int, str]:
    return {stored.entry.position: stored.digest for stored in store.entries(name, first, last)}

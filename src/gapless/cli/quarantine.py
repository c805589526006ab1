"""`gapless quarantine`: what could not be decoded or handled, with its bytes and the reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, DryRunOption, JsonOption, SourceOption
from gapless.cli.project import GIVEN_SPEC, Project, finish, load
from gapless.errors import UsageError

if TYPE_CHECKING:
    from gapless.store import QuarantineRow, Store

group = typer.Typer(rich_markup_mode=None)

Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", help="Which items.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@group.callback(invoke_without_command=True)
def _without_command(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """See, retry, discard what could not be handled."""
    if config is not None:
        GIVEN_SPEC.set(config)
    if context.invoked_subcommand is None:
        list_(config, None, as_json)


@group.command("list")
def list_(config: ConfigOption = None, source: SourceOption = None, as_json: JsonOption = False) -> None:
    """List the items that wait."""
    project = load(config)
    names = project.sources(source)
    with project.store() as store:
        rows = [row for name in names for row in store.quarantine(name)]
    if as_json:
        output.document({"quarantine": [_described(row) for row in rows]})
    elif not rows:
        output.say("The quarantine is empty.")
    else:
        shown = [(r.id, r.item.source, r.item.position, r.item.item, r.item.consumer, r.item.reason) for r in rows]
        output.table(("id", "source", "position", "item", "consumer", "reason"), shown, right=("id", "position"))


@group.command()
def show(
    id_: Annotated[int, typer.Argument(metavar="ID", help="Which item.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one item with its bytes as received."""
    project = load(config)
    with project.store() as store:
        (row,) = select(store, [id_], everything=False, source=None)
    found = {**_described(row), "payload": _payload(row.item.payload)}
    if as_json:
        output.document(found)
        return
    for name, value in found.items():
        output.say(f"{name}: {json.dumps(value, indent=2) if isinstance(value, dict | list) else value}")


@group.command()
def discard(
    ids: Ids = None,
    config: ConfigOption = None,
    source: SourceOption = None,
    everything: All = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Forget items for good: their rows stay missing from the tables."""
    project = load(config)
    with project.store() as store:
        rows = select(store, ids or [], everything=everything, source=source)
        discarded = 0 if dry_run else store.discard_quarantine([row.id for row in rows])
    if as_json:
        output.document({"chosen": [row.id for row in rows], "discarded": discarded})
    else:
        output.say(f"{'Would discard' if dry_run else 'Discarded'} {output.counted(len(rows), 'item')}.")


@group.command()
def retry(
    ids: Ids = None,
    config: ConfigOption = None,
    source: SourceOption = None,
    everything: All = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Derive the entries of items again, after a fix."""
    project = load(config)
    left = 0
    with project.store() as store:
        rows = select(store, ids or [], everything=everything, source=source)
        by_source: dict[str, set[int]] = {}
        for row in rows:
            by_source.setdefault(row.item.source, set()).add(row.item.position)
        if not dry_run:
            for name, positions in by_source.items():
                left += finish(_retry(project, store, name, sorted(positions)))
    entries = sum(map(len, by_source.values()))
    if as_json:
        output.document({"chosen": [row.id for row in rows], "entries": entries, "left": left, "dry_run": dry_run})
    elif dry_run:
        output.say(f"Would derive {output.counted(entries, 'position')} again.")
    else:
        output.say(f"Derived {output.counted(entries, 'position')} again; {output.counted(left, 'item')} could not be.")
    if left:
        raise typer.Exit(1)


async def _retry(project: Project, store: Store, name: str, positions: list[int]) -> int:
    """Derive the entries at these positions again; returns how many items are in quarantine there afterwards."""
    from gapless.cli.lane import operating
    from gapless.engine.repair import Damage

    async with operating(project, store, name) as operator:
        await operator.repair([Damage(position, position, "quarantine") for position in positions])
    return sum(row.item.position in positions for row in store.quarantine(name))


def select(store: Store, ids: Sequence[int], *, everything: bool, source: str | None) -> list[QuarantineRow]:
    """The items a command is about. Raises UsageError where one is not there or none is named."""
    rows = {row.id: row for row in store.quarantine(source)}
    if everything:
        return list(rows.values())
    if not ids:
        raise UsageError("Which items?", todo="Name their ids (`gapless quarantine list`), or add --all.")
    unknown = [str(id_) for id_ in ids if id_ not in rows]
    if unknown:
        raise UsageError(f"Not in quarantine: {', '.join(unknown)}", todo="See `gapless quarantine list`.")
    return [rows[id_] for id_ in ids]


def _described(row: QuarantineRow) -> dict[str, Any]:
    from gapless.schema import timestamp_text

    return {
        "id": row.id,
        "source": row.item.source,
        "position": row.item.position,
        "item": row.item.item,
        "consumer": row.item.consumer,
        "reason": row.item.reason,
        "created": timestamp_text(row.created_us),
        "attempts": row.attempts,
    }


def _payload(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text

"""`gapless flags`: switches that a running process obeys without a restart."""

from __future__ import annotations

from typing import Annotated

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, DryRunOption, JsonOption
from gapless.cli.project import GIVEN_SPEC, load

group = typer.Typer(rich_markup_mode=None)


@group.callback(invoke_without_command=True)
def _without_command(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List and set run-time switches."""
    if config is not None:
        GIVEN_SPEC.set(config)
    if context.invoked_subcommand is None:
        list_(config, as_json)


@group.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the flags, and what they are set to."""
    from gapless.engine.flags import FLAGS

    project = load(config)
    with project.store() as store:
        found = dict(sorted(store.flags().items()))
    if as_json:
        output.document({"flags": found})
    else:
        names = sorted({*FLAGS, *found})
        output.table(("flag", "value", "does"), [(n, found.get(n, "not set"), FLAGS.get(n, "–")) for n in names])


@group.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which flag.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Its new value.")],
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set a flag."""
    _change(name, value, config, dry_run, as_json)


@group.command()
def unset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which flag.")],
    config: ConfigOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go back to a flag's default."""
    _change(name, None, config, dry_run, as_json)


def _change(name: str, value: str | None, config: str | None, dry_run: bool, as_json: bool) -> None:
    from gapless.engine.flags import FLAGS, check_flag

    project = load(config)
    with project.store() as store:
        before = store.flags().get(name)
        if value is not None or (name not in FLAGS and before is None):
            check_flag(name, value)
        changed = before != value
        if changed and not dry_run:
            store.set_flag(name, value)
    if as_json:
        output.document({"flag": name, "before": before, "after": value, "changed": changed and not dry_run})
    elif not changed:
        output.say(f"{name} already is {'not set' if value is None else value}.")
    else:
        does = "Would set" if dry_run else "Set"
        output.say(f"{does} {name}: {before or 'not set'} → {value or 'not set'}.")

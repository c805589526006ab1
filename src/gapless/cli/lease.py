"""`gapless lease`: who leads each source, and making a dead leader give way."""

from __future__ import annotations

from typing import Annotated

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, DryRunOption, JsonOption, SourceOption
from gapless.cli.project import GIVEN_SPEC, load

group = typer.Typer(rich_markup_mode=None)


@group.callback(invoke_without_command=True)
def _without_command(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show who leads, and make a dead leader give way."""
    if config is not None:
        GIVEN_SPEC.set(config)
    if context.invoked_subcommand is None:
        show(config, as_json)


@group.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List leases, with holder, fencing token and the time left."""
    project = load(config)
    with project.store() as store:
        leases = sorted(store.leases(), key=lambda lease: lease.name)
    rows = [
        {
            "source": lease.name.rpartition(":")[2],
            "name": lease.name,
            "holder": lease.holder or None,
            "fence": lease.token,
            "live": lease.live,
            "expires_in_seconds": round(lease.expires_in_seconds, 3) if lease.holder else None,
        }
        for lease in leases
    ]
    if as_json:
        output.document({"leases": rows})
    elif not rows:
        output.say("No process has led a source yet.")
    else:
        shown = [
            (r["source"], r["holder"], r["fence"], output.span(lease.expires_in_seconds) if r["live"] else "not held")
            for r, lease in zip(rows, leases, strict=True)
        ]
        output.table(("source", "holder", "fence", "expires in"), shown, right=("fence",))


@group.command()
def release(
    config: ConfigOption = None,
    source: SourceOption = None,
    force: Annotated[bool, typer.Option("--force", help="Also where the lease has not expired.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a dead leader give way.

    Its lease is taken away, so that another process need not wait for it to expire. Safe even if it lives: its next
    commit is refused, because its token is no longer the valid one."""
    from gapless.engine.names import lease_name
    from gapless.errors import LeaseHeld
    from gapless.model import Fence

    project = load(config)
    name = project.source(source)
    with project.store() as store:
        held = {lease.name: lease for lease in store.leases()}.get(lease_name(project.schema, name))
        if held is not None and held.live and not force:
            raise LeaseHeld(
                f"{held.holder} leads this source; its lease runs for another {held.expires_in_seconds:.0f} s",
                source=name,
                todo="Stop that process, or wait; with --force it is made to give way.",
            )
        released = held is not None and bool(held.holder)
        if released and held is not None and not dry_run:
            store.release(Fence(held.name, held.holder, held.token))
    if as_json:
        output.document({"source": name, "released": released and not dry_run, "holder": held and held.holder})
    elif not released:
        output.say(f"No process holds {name}.")
    else:
        output.say(f"{'Would take' if dry_run else 'Took'} {name} from {held and held.holder}.")

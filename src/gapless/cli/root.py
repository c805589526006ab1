"""All commands under one name."""

from __future__ import annotations

from typing import Any

import typer

from gapless.cli import (
    config,
    digest,
    doctor,
    export,
    flags,
    gaps,
    init,
    lease,
    plan,
    project,
    quarantine,
    query,
    repair,
    rewind,
    run,
    status,
    verify,
)
from gapless.cli.options import ConfigOption

_HELP = """Follow ordered sources for ever and turn them into tables: every block there once, whole and checked.

Data goes to standard output, talk to standard error. Exit codes: 0 done, 1 failed, 2 usage, 3 not ready,
4 refused for safety, 130 interrupted."""


def _version(value: bool) -> None:
    if value:
        from gapless import __version__

        typer.echo(f"gapless {__version__}")
        raise typer.Exit


def _root(
    config: ConfigOption = None,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    del version
    project.GIVEN_SPEC.set(config)


def _reference() -> None:
    """Print docs/reference/cli.md."""
    from gapless.cli.reference import reference

    typer.echo(reference(command()), nl=False)


def command() -> Any:
    """The command line as one callable."""
    app = typer.Typer(
        name="gapless", help=_HELP, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True
    )
    app.callback()(_root)
    for verb in (
        init.init,
        run.run,
        plan.plan,
        status.status,
        gaps.gaps,
        repair.repair,
        verify.verify,
        digest.digest,
        rewind.rewind,
        rewind.replay,
        query.query,
        export.export,
        doctor.doctor,
    ):
        app.command()(verb)
    for name, group in (
        ("quarantine", quarantine.group),
        ("flags", flags.group),
        ("lease", lease.group),
        ("config", config.group),
    ):
        group.info.no_args_is_help = group is config.group
        app.add_typer(group, name=name)
    app.command("reference", hidden=True)(_reference)
    return typer.main.get_command(app)

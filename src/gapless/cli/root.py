"""All commands under one name, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import typer

from gapless.cli import project
from gapless.cli.options import ConfigOption

_HELP = """Follow ordered sources for ever and turn them into tables: every block there once, whole and checked.

Data goes to standard output, talk to standard error. Exit codes: 0 done, 1 failed, 2 usage, 3 not ready,
4 refused for safety, 130 interrupted."""

_PLACES = {
    "init": "init:init",
    "run": "run:run",
    "plan": "plan:plan",
    "status": "status:status",
    "gaps": "gaps:gaps",
    "repair": "repair:repair",
    "verify": "verify:verify",
    "digest": "digest:digest",
    "rewind": "rewind:rewind",
    "replay": "rewind:replay",
    "query": "query:query",
    "export": "export:export",
    "archive": "archive:archive",
    "doctor": "doctor:doctor",
    "bench": "bench:bench",
    "quarantine": "quarantine:group",
    "flags": "flags:group",
    "lease": "lease:group",
    "config": "config:group",
    "reference": "root:_reference",
}
"""Every command, in the order of the help, and the function (or group of functions) of `gapless.cli` that it is."""
_HIDDEN = frozenset({"reference"})
_SPEECHLESS = frozenset({"config"})
"""Groups that do nothing without a command, and show their help instead."""


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


class _Commands(Mapping[str, Any]):
    """The commands by name, each made when it is first looked at: a command loads what it needs, and no other's."""

    def __getitem__(self, name: str) -> Any:
        return _made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


@cache
def _made(name: str) -> Any:
    module, _, attribute = _PLACES[name].partition(":")
    verb = getattr(import_module(f"gapless.cli.{module}"), attribute)
    app = _app()
    if isinstance(verb, typer.Typer):
        app.add_typer(verb, name=name, no_args_is_help=name in _SPEECHLESS)
    else:
        app.command(name, hidden=name in _HIDDEN)(verb)
    return _root_of(app).commands[name]


def _app() -> typer.Typer:
    app = typer.Typer(
        name="gapless", help=_HELP, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True
    )
    app.callback()(_root)
    return app


def _root_of(app: typer.Typer) -> Any:
    return typer.main.get_command(app)


def command() -> Any:
    """The command line as one callable."""
    root = _root_of(_app())
    root.commands = _Commands()
    return root

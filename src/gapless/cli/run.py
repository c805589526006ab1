"""`gapless run`: follow all sources in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, JsonOption
from gapless.cli.project import finish, load
from gapless.errors import UsageError

if TYPE_CHECKING:
    from gapless.engine.plan import Until

ROLES = ("ingest", "index")
LATER_ROLES = ("backfill", "enrich", "settle", "serve")

UntilOption = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="head|finalized|N", help="Stop there. Left out: follow for ever.", show_default=False
    ),
]


def run(
    config: ConfigOption = None,
    until: UntilOption = None,
    roles: Annotated[
        str | None,
        typer.Option(metavar="ROLE,…", help="This release runs ingest,index together.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Index from the first position and follow for ever.

    Stop it with Ctrl-C or SIGTERM: what is being committed is finished, within 10 seconds. Start it again at any
    time; a second one beside it is a standby that takes over."""
    goal = parse_until(until)
    _check_roles(roles)
    project = load(config)
    with project.store(create=True) as store:
        from gapless.cli.following import Run

        interrupted = finish(Run(project, store, goal).follow())
        if as_json:
            from gapless.cli.status import read

            output.document(read(project, store))
    if interrupted:
        raise typer.Exit(130)


def parse_until(text: str | None) -> Until | int:
    """The end of `--until`. Raises UsageError."""
    from gapless.engine.plan import Until

    if text is None:
        return Until.FOREVER
    if text in {Until.HEAD, Until.FINALIZED}:
        return Until(text)
    if text.replace("_", "").isdecimal():
        return int(text)
    raise UsageError(f"{text!r} is no place to stop at", todo="Write --until head, --until finalized, or a position.")


def _check_roles(text: str | None) -> None:
    from gapless.config.problems import suggestion

    named = set(ROLES) if text is None else {role.strip() for role in text.split(",") if role.strip()}
    for role in sorted(named):
        if role in LATER_ROLES:
            raise UsageError(f"The role {role!r} comes in a later release", todo="Leave out --roles.")
        if role not in ROLES:
            raise UsageError(f"There is no role {role!r}{suggestion(role, ROLES)}")
    if named != set(ROLES):
        raise UsageError(
            f"The roles {' and '.join(ROLES)} share a journal in memory and run in one process only",
            todo="Leave out --roles.",
        )

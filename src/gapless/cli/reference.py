"""docs/reference/cli.md, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

_WIDTH = 100
_INTRODUCTION = """\
# Commands

Generated from the code by `gapless reference`; do not edit.

`-c FILE` names the configuration (`gapless.toml` unless said otherwise, or `app.py:app` for an app in Python);
`python app.py COMMAND` is the same with the app built in. Data goes to standard output and talk to standard error.
`--json` prints one document, `{"schema": 1, …}`, to which fields may be added. `NO_COLOR` is obeyed, and nothing is
asked without a terminal. `GAPLESS_DEBUG=1` shows the traceback of an error.

Exit codes: 0 done, 1 failed, 2 usage, 3 not ready, 4 refused for safety, 130 interrupted.
"""


def reference(command: Any) -> str:
    """The page for a command line, one section a command."""
    sections = [f"## {path}\n\n```text\n{text}\n```\n" for path, text in _helps(command, "gapless", None)]
    return "\n".join([_INTRODUCTION, *sections])


def _helps(command: Any, name: str, parent: typer.Context | None) -> Iterator[tuple[str, str]]:
    """Path and help of a command and of those below it; hidden ones are left out."""
    context = typer.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH)
    lines = (line.rstrip() for line in command.get_help(context).strip().splitlines())
    yield context.command_path, "\n".join(lines)
    for below, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield from _helps(each, below, context)

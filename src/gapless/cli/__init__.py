"""The command line. One thin file a command group; what is heavy is imported by the command that needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from gapless.app import App


def main(arguments: Sequence[str] | None = None, *, app: App | None = None) -> NoReturn:
    """Run a command and exit with its code. `app`: the app it works on unless `-c` names another."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    from gapless.cli.endings import run_to_exit

    sys.exit(run_to_exit(arguments, app))

"""The command line. One thin file a command group; what is heavy is imported by the command that needs it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from gapless.app import App

_OBJECTS_BETWEEN_COLLECTIONS = 200_000
"""Starting makes up to 150,000 objects that stay; by its default Python looks for garbage among them 130 times."""


def main(arguments: Sequence[str] | None = None, *, app: App | None = None) -> NoReturn:
    """Run a command and exit with its code. `app`: the app it works on unless `-c` names another."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    from gapless.cli.endings import run_to_exit

    code = run_to_exit(arguments, app)
    gc.freeze()  # What is to be closed is closed; the rest goes with the process, which need not search it first.
    sys.exit(code)

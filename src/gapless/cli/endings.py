"""How a command ends: an exit code, and for an error one paragraph on standard error.

Codes: 0 done, 1 failed, 2 usage, 3 not ready, 4 refused for safety, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gapless.errors import GaplessError

if TYPE_CHECKING:
    from gapless.app import App

FAILED, USAGE, INTERRUPTED = 1, 2, 130
DEBUG_VARIABLE = "GAPLESS_DEBUG"


def run_to_exit(arguments: Sequence[str], app: App | None) -> int:
    """Run one command line; returns its exit code. Nothing is raised but what `GAPLESS_DEBUG=1` asks for."""
    if arguments == ["--version"]:
        from gapless import __version__

        print(f"gapless {__version__}")
        return 0
    try:
        code = _run(arguments, app)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _pipe_closed()
    except KeyboardInterrupt:
        return INTERRUPTED
    except GaplessError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        say_error(str(error))
        return error.exit_code
    except ExceptionGroup as group:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _ended_by_group(group)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _unexpected(error)


def _run(arguments: Sequence[str], app: App | None) -> int:
    from typer import TyperException

    from gapless.cli import project, root

    given = project.GIVEN_APP.set(app)
    spec = project.GIVEN_SPEC.set(None)
    try:
        code = root.command()(list(arguments), prog_name="gapless", standalone_mode=False)
    except TyperException as error:
        say_error(_usage_text(error, arguments))
        return USAGE
    finally:
        project.GIVEN_APP.reset(given)
        project.GIVEN_SPEC.reset(spec)
    return code if isinstance(code, int) else 0


def _usage_text(error: Exception, arguments: Sequence[str]) -> str:
    said = str(getattr(error, "format_message", lambda: error)()).strip()
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "gapless"
    if said.startswith("Usage:"):  # a group without a command
        return f"Which command? See below.\n\n{said}" if arguments else f"Which command?\n\n{said}"
    return f"{said.rstrip('.')}. See `{path} --help`."


def say_error(text: str) -> None:
    """One paragraph on standard error."""
    print(f"error: {text}", file=sys.stderr)


def _ended_by_group(group: ExceptionGroup[Exception]) -> int:
    """Several tasks failed together: each has its paragraph; the first one's code counts."""
    ours, others = group.split(GaplessError)
    if ours is None:
        return _unexpected(others or group)
    found = [error for error in _leaves(ours) if isinstance(error, GaplessError)]
    for error in found:
        say_error(str(error))
    return found[0].exit_code


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def _unexpected(error: Exception) -> int:
    place = ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None:
        place = f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119
    said = " ".join(str(error).split())
    say_error(
        f"Something unexpected happened{place}: {type(error).__name__}{': ' + said if said else ''}. "
        f"What is committed is safe. Run it again with {DEBUG_VARIABLE}=1 for the traceback, and please report it."
    )
    return FAILED


def _pipe_closed() -> int:
    """The reader went away (`| head`): end quietly, and keep the interpreter from complaining at its exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    return FAILED

"""Commands that ask the source meanwhile say what is wrong where talk belongs."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import structlog
from gapless.cli.project import finish

async def work():
    log = structlog.get_logger("gapless.evm")
    log.warning("answer refused", url="http://me:hunter2@host/")
    log.info("mode")
    return "data"

print(finish(work()))
"""


def test_warnings_do_not_mix_with_data() -> None:
    """A warning during `verify --json` is a line on standard error, without secrets; lesser talk is left out."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "data\n"
    [line] = done.stderr.splitlines()
    assert json.loads(line)["event"] == "answer refused"
    assert "hunter2" not in line

"""A project on the recorded chain that comes with Gapless, and the command line as a child process. No network."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from gapless import examples

LAST_BLOCK = 408
COMMAND_SECONDS_MAX = 60.0


class RecordedProject:
    """The packaged example in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "gapless.toml"

    @classmethod
    def create(cls, folder: Path) -> RecordedProject:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("gapless.toml", "chain.jsonl.gz"):
            shutil.copy(examples.path(f"erc20/{name}"), folder / name)
        return cls(folder)

    def copy(self, folder: Path) -> RecordedProject:
        """A project of its own with everything that was indexed so far."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return RecordedProject(folder)

    def add(self, toml: str) -> None:
        """Append to the configuration."""
        self.config.write_text(self.config.read_text() + "\n" + toml)

    def change(self, old: str, new: str) -> None:
        """Replace in the configuration."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GAPLESS_")}
        return {**kept, "NO_COLOR": "1", **more}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """A command in the background, its output in pipes."""
        return subprocess.Popen(
            [sys.executable, "-m", "gapless", *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, whatever that is."""
        return subprocess.run(
            [sys.executable, "-m", "gapless", *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )

    def ok(self, *arguments: str) -> str:
        """Standard output of a command that must end well."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The document of a command."""
        done = self.run(*arguments, "--json")
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        found = json.loads(done.stdout)
        assert found["schema"] == 1
        return found

    def refused(self, *arguments: str, code: int, **environment: str) -> str:
        """The one paragraph of a command that must fail with this code."""
        done = self.run(*arguments, **environment)
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.stdout == ""
        said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert said[0].startswith("error: "), done.stderr
        assert "Traceback" not in done.stderr
        return "\n".join(said)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """SQL by another client, as somebody's hands would do it."""
        with closing(sqlite3.connect(self.folder / "erc20.db", timeout=10)) as connection, connection:
            return connection.execute(statement).fetchall()

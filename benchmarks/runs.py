"""The runs: Gapless as a user starts it, from an empty folder to the head, and the stripped loop beside it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chain import FLAGS, ROOT, Chain, Truth, digest_transfers
from benchmarks.measure import Cost, measured
from servers.anvil import start_anvil

TRANSFERS = "select block_number, log_index, from_, to_, value from {table}"
WHOLE_TABLES = ("blocks", "transactions", "logs")


class WrongRows(Exception):
    """A run ended well and its tables are not what the chain has."""


@dataclass(frozen=True)
class Run:
    """One thing to measure."""

    program: str
    """`gapless`, or `stripped`: the same bytes and rows without checks."""
    node: str
    """`replay` or `anvil`."""
    store: str
    """`sqlite` or `postgres`."""
    job: str = "transfers"
    """`transfers`: the token's events, by filter. `whole`: every block, transaction and log too."""
    options: str = ""
    """Further lines of the source's section."""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.program, self.node, self.store, self.job, self.options)))


@dataclass(frozen=True)
class Node:
    """Something that serves the chain."""

    url: str
    pid: int
    served: Callable[[], dict[str, int]]
    """Requests and bytes since last asked, where the node counts them."""


@dataclass(frozen=True)
class Result:
    run: Run
    cost: Cost
    blocks: int
    logs: int
    served: dict[str, int]


@contextmanager
def replay_node(chain: Chain) -> Iterator[Node]:
    """The recording in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.server", str(chain.recording)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = f"http://127.0.0.1:{int(process.stdout.readline())}"

    def served() -> dict[str, int]:
        with urllib.request.urlopen(url) as answer:
            found: dict[str, int] = json.load(answer)
        return found

    try:
        yield Node(url, process.pid, served)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def anvil_node(chain: Chain) -> Iterator[Node]:
    """Anvil with the chain's state loaded."""
    with start_anvil(*FLAGS, "--load-state", str(chain.state)) as anvil:
        yield Node(anvil.url, anvil.process.pid, dict)


NODES = {"replay": replay_node, "anvil": anvil_node}


def perform(run: Run, node: Node, truth: Truth, postgres: tuple[Callable[[], str], int] | None) -> Result:
    """Run it in an empty folder or a new database, and check every row. Raises RunFailed, WrongRows."""
    folder = Path(tempfile.mkdtemp(prefix="gapless-bench-"))
    servers = {"node": node.pid}
    try:
        if run.store == "postgres":
            assert postgres is not None
            target, servers["database"] = postgres[0](), postgres[1]
        else:
            target = str(folder / "bench.db")
        node.served()
        cost = measured(_command(run, node.url, target, folder), folder, servers)
        served = node.served()
        logs = check(run, target, truth)
        return Result(run, cost, truth.head + 1, logs, served)
    finally:
        shutil.rmtree(folder)


def _command(run: Run, rpc: str, target: str, folder: Path) -> list[str]:
    if run.program == "stripped":
        (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
        return [sys.executable, "-m", "benchmarks.stripped", rpc, run.store, target]
    url = target if run.store == "postgres" else f"sqlite:///{target}"
    datasets = f"datasets = {json.dumps(WHOLE_TABLES)}\n" if run.job == "whole" else ""
    (folder / "gapless.toml").write_text(
        f'[app]\nname = "bench"\n[store]\nurl = "{url}"\n'
        f'[sources.chain]\nkind = "evm"\nrpc = ["{rpc}"]\n{datasets}{run.options}\n'
        f'[contracts.token]\nabi = "erc20"\nevents = ["Transfer"]\n'
    )
    return [str(Path(sys.executable).with_name("gapless")), "run", "--until", "head"]


# --- checking ------------------------------------------------------------------------------------------------------


def check(run: Run, target: str, truth: Truth) -> int:
    """Compare the tables with the truth; the number of logs the run was about."""
    prefix = "bench." if run.store == "postgres" and run.program == "gapless" else ""
    read = _reader(run, target)
    rows = read(TRANSFERS.format(table=f"{prefix}token_transfer"))
    if (len(rows), digest_transfers(rows)) != (truth.transfers, truth.digest):
        raise WrongRows(f"{run.name}: {len(rows)} transfers, not the {truth.transfers} that the chain has")
    if run.job != "whole":
        return len(rows)
    counts = [read(f"select count(*) from {prefix}{table}")[0][0] for table in WHOLE_TABLES]
    if counts != [truth.head + 1, truth.transactions, truth.logs]:
        raise WrongRows(f"{run.name}: {dict(zip(WHOLE_TABLES, counts, strict=True))}")
    return int(counts[2])


def _reader(run: Run, target: str) -> Callable[[str], list[Any]]:
    def sqlite(sql: str) -> list[Any]:
        connection = sqlite3.connect(target)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def postgres(sql: str) -> list[Any]:
        import psycopg

        with psycopg.connect(target) as connection:
            return connection.execute(sql).fetchall()

    return postgres if run.store == "postgres" else sqlite

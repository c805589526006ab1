"""Latency at the head: from the node having a block to its rows being visible to a reader of the database.

python -m benchmarks head                     1,000 blocks every 0.1 s: both databases, WebSocket and polling; 8 minutes
python -m benchmarks head --blocks 50         a look
python -m benchmarks head --resume            go on with what was measured before

The node mines in a process of its own and says when it has each block; the database is asked every millisecond.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.chain import ROOT
from benchmarks.contest import Postgres
from benchmarks.measure import tree_cpu_seconds
from benchmarks.ours import GAPLESS
from benchmarks.results import Results, write_document
from benchmarks.rounds import postgres_server, say

LOGS = 5
CAUGHT_UP_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.001
SILENCE_SECONDS_MAX = 30.0
SETTINGS = tuple((store, way) for store in ("postgres", "sqlite") for way in ("websocket", "polling"))


def main(given: Sequence[str]) -> int:
    """Measure each setting; 1 where a block's rows never became visible."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks head", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=1_000)
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between two blocks")
    parser.add_argument("--poll", default="0.5 seconds", help="the source's `poll`")
    parser.add_argument("--only", default="", help="words that a setting's name must have")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    chosen = [s for s in SETTINGS if set(arguments.only.split()) <= set(s)]
    say(f"about {len(chosen) * (arguments.blocks * arguments.interval + 10) / 60:.1f} minutes")
    about = {
        "blocks": f"{arguments.blocks:,} every {arguments.interval:g} s, {LOGS} transfers each, poll {arguments.poll}"
    }
    results = Results("head", resume=arguments.resume, about=about)
    with postgres_server() as postgres:
        for store, way in chosen:
            key = f"{store} {way} {arguments.blocks} {arguments.interval:g}"
            if results.get(key) is not None or (store == "postgres" and postgres is None):
                continue
            load = os.getloadavg()[0]
            found = measure(store, way, arguments, postgres)
            results.add(key, {"store": store, "way": way, "load_before": round(load, 1), **found})
            say(f"{store}, {way}: p50 {found['p50_seconds'] * 1000:.1f} ms, p99 {found['p99_seconds'] * 1000:.1f} ms")
    rows = list(results.all().values())
    write_document(results.path.with_suffix(".json"), results.about, {"settings": rows})
    text = page(results.about, rows)
    print(json.dumps({"schema": 1, "about": results.about, "settings": rows}, indent=1) if arguments.json else text)
    if arguments.write:
        report.replace_part(ROOT / "docs" / "BENCHMARKS.md", "head", text)
    return 1 if any(row["missing"] for row in rows) else 0


def page(about: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| database | head found by | p50 ms | p99 ms | worst ms | blocks | CPU share of one core |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|")
    for row in rows:
        cells = " | ".join(f"{row[name] * 1000:.1f}" for name in ("p50_seconds", "p99_seconds", "worst_seconds"))
        lines.append(f"| {row['store']} | {row['way']} | {cells} | {row['blocks']:,} | {row['cpu_share']:.0%} |")
    return "\n".join([*report.about_lines(about), "", *lines]) + "\n"


def measure(store: str, way: str, arguments: argparse.Namespace, postgres: Postgres | None) -> dict[str, Any]:
    """One setting, from a chain of a hundred blocks on."""
    with tempfile.TemporaryDirectory(prefix="gapless-bench-") as name, _node(arguments) as node:
        folder = Path(name)
        database = postgres.create_database() if store == "postgres" and postgres is not None else ""
        rpc = [node.url, node.ws_url] if way == "websocket" else [node.url]
        (folder / "gapless.toml").write_text(
            f'[app]\nname = "bench"\n[store]\nurl = "{database or "sqlite:///bench.db"}"\n'
            f'[sources.chain]\nkind = "evm"\nrpc = {json.dumps(rpc)}\npoll = "{arguments.poll}"\n'
            f'[contracts.token]\nabi = "erc20"\nevents = ["Transfer"]\n'
        )
        with (folder / "said.log").open("wb") as log:
            process = subprocess.Popen([GAPLESS, "run"], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            newest = _looker(store, folder / "bench.db", database)
            _wait_for(newest, node.first - 1, process)
            spent = tree_cpu_seconds(process.pid)
            started = time.perf_counter()
            seen = _watch(newest, node, arguments.blocks)
            share = (tree_cpu_seconds(process.pid) - spent) / (time.perf_counter() - started)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
            process.wait()
    delays = sorted(seen[number] - had for number, had in node.had.items() if number in seen)
    missing = arguments.blocks - len(delays)
    return {
        "blocks": len(delays),
        "missing": missing,
        "p50_seconds": round(median(delays), 5),
        "p99_seconds": round(delays[min(len(delays) - 1, int(len(delays) * 0.99))], 5),
        "worst_seconds": round(delays[-1], 5),
        "cpu_share": round(share, 3),
    }


# --- the node ------------------------------------------------------------------------------------------------------


class Miner:
    """The node's process as seen from here: when it had which block, by the machine's monotonic clock."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self._process = process
        self.url, self.ws_url, first = process.stdout.readline().split()
        self.first = int(first)
        self.had: dict[int, float] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def mine(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            number, moment = line.split()
            self.had[int(number)] = float(moment)


@contextmanager
def _node(arguments: argparse.Namespace) -> Iterator[Miner]:
    command = [sys.executable, "-m", "benchmarks.mining", str(arguments.blocks), str(arguments.interval), str(LOGS)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Miner(process)
    finally:
        process.kill()
        process.wait()


# --- looking -------------------------------------------------------------------------------------------------------


def _looker(store: str, file: Path, database: str) -> Callable[[], int]:
    """A function that tells the newest block with rows, -1 while there is none."""
    if store == "sqlite":
        return _sqlite_looker(file)
    import psycopg

    connection = psycopg.connect(database, autocommit=True)
    statement = b"select coalesce(max(block_number), -1) from bench.token_transfer"

    def newest() -> int:
        try:
            row = connection.execute(statement, prepare=True).fetchone()
        except psycopg.errors.UndefinedTable:
            return -1
        return int(row[0]) if row else -1

    return newest


def _sqlite_looker(file: Path) -> Callable[[], int]:
    connections: list[sqlite3.Connection] = []
    last = [-1, -1]

    def newest() -> int:
        if not connections:
            if not file.exists():
                return -1
            connections.append(sqlite3.connect(file, timeout=1))
        with suppress(sqlite3.OperationalError):  # the table is not there yet
            [version] = connections[0].execute("pragma data_version").fetchone()
            if version != last[0]:
                [found] = (
                    connections[0].execute("select coalesce(max(block_number), -1) from token_transfer").fetchone()
                )
                last[:] = version, found
        return last[1]

    return newest


def _wait_for(newest: Callable[[], int], number: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.perf_counter() + CAUGHT_UP_SECONDS_MAX
    while newest() < number:
        if process.poll() is not None or time.perf_counter() > deadline:
            raise RuntimeError(f"gapless did not catch up with block {number}")
        time.sleep(0.05)
    time.sleep(2.0)


def _watch(newest: Callable[[], int], node: Miner, blocks: int) -> dict[int, float]:
    """When each block's rows were seen first."""
    seen: dict[int, float] = {}
    last = node.first + blocks - 1
    at = node.first - 1
    node.mine()
    heard = time.perf_counter()
    while at < last and time.perf_counter() - heard < SILENCE_SECONDS_MAX:
        found = newest()
        if found > at:
            heard = time.perf_counter()
            moment = time.monotonic()
            seen.update(dict.fromkeys(range(at + 1, found + 1), moment))
            at = found
        time.sleep(LOOK_SECONDS)
    return seen

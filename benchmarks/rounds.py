"""Contenders in turns: in each round everybody runs once, so that a busy minute of the machine hits all of them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.chain import Truth
from benchmarks.contest import Absent, Contender, Place, Postgres, WrongRows, perform
from benchmarks.measure import RunFailed, measured
from benchmarks.node import Invented, Node, NodeMissing, serve_invented
from benchmarks.results import Results
from servers.postgres import PostgresMissing, PostgresServer

JOBS = {
    "postgres": "transfers into Postgres",
    "sqlite": "transfers into SQLite",
    "whole": "blocks, transactions and logs",
    "parquet": "transfers into Parquet files",
}


@dataclass
class Outcome:
    """What came of the rounds."""

    results: Results
    wrong: list[str] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Who could not take part, and why."""


@contextmanager
def postgres_server() -> Iterator[Postgres | None]:
    """A server as durable as it comes; None, with the reason said, where there is none."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(PostgresServer(settings={}))
        except PostgresMissing as error:
            say(str(error))
            yield None
            return
        pid = (server.home / "data" / "postmaster.pid").read_text().splitlines()[0]
        yield Postgres(server.create_database, server.drop_database, int(pid))


def compete(
    contenders: Sequence[Contender],
    rounds: int,
    node: Node,
    truth: Truth,
    postgres: Postgres | None,
    results: Results,
) -> Outcome:
    """Every contender `rounds` times, in turns; one whose run was wrong or failed is left out from then on."""
    outcome = Outcome(results)
    homes: dict[str, Path] = {}
    for contender in contenders:
        try:
            home = homes[contender.name] = contender.install()
            if contender.prepare is not None:
                contender.prepare(home, node.url)
        except Absent as error:
            homes.pop(contender.name, None)
            outcome.absent[contender.name] = str(error)
            say(f"{contender.name}: left out: {error}")
    for at in range(rounds):
        for contender in contenders:
            if contender.name in homes and not _run_once(contender, homes, node, truth, postgres, at, outcome):
                del homes[contender.name]
    return outcome


def _run_once(
    contender: Contender,
    homes: dict[str, Path],
    node: Node,
    truth: Truth,
    postgres: Postgres | None,
    at: int,
    outcome: Outcome,
) -> bool:
    key = f"{contender.job} | {contender.name} | {at}"
    if outcome.results.get(key) is not None:
        return True
    load = os.getloadavg()[0]
    try:
        result = perform(contender, homes[contender.name], node, truth, postgres, at)
    except Absent as error:
        outcome.absent[contender.name] = str(error)
        say(f"{contender.name}: left out: {error}")
        return False
    except (RunFailed, WrongRows) as error:
        outcome.wrong.append(f"{contender.name}: {error}")
        say(f"WRONG: {contender.name}: {error}")
        return False
    cost = result.cost
    counted = truth.logs if contender.job == "whole" else truth.transfers
    outcome.results.add(
        key,
        {
            "job": contender.job,
            "program": contender.program,
            "sink": contender.sink,
            "round": at,
            "load_before": round(load, 1),
            "wall_seconds": round(cost.wall_seconds, 3),
            "cpu_seconds": round(cost.cpu_seconds, 2),
            "beside_cpu_seconds": {name: round(value, 2) for name, value in cost.beside.items()},
            "peak_mb": round(cost.peak_bytes / 1e6),
            "logs": counted,
            "blocks": truth.head + 1,
            "served": {name: result.served.get(name) for name in ("requests", "calls", "bytes")},
        },
    )
    say(f"{contender.name}: {cost.wall_seconds:.2f} s, {counted / cost.wall_seconds:,.0f} logs/s, rows right")
    return True


def start_up(contenders: Sequence[Contender], rounds: int, postgres: Postgres | None) -> dict[str, float]:
    """Median seconds of the same command on a chain of two blocks: what does not grow with the work."""
    found: dict[str, list[float]] = {}
    try:
        with serve_invented(Invented(blocks=2, logs=1)) as node:
            for _ in range(rounds):
                for contender in contenders:
                    if contender.wants_database and postgres is None:
                        continue
                    found.setdefault(contender.name, []).append(_start_once(contender, node, postgres))
    except NodeMissing as error:
        say(f"start-up is not measured: {error}")
    return {name: round(median(seconds), 3) for name, seconds in found.items()}


def _start_once(contender: Contender, node: Node, postgres: Postgres | None) -> float:
    with tempfile.TemporaryDirectory(prefix="gapless-bench-") as name:
        database = postgres.create_database() if contender.wants_database and postgres is not None else ""
        place = Place(Path(name), node.url, 1, Path(name), database)
        command = contender.command(place)
        return measured(command.words, place.folder, {}, environment=command.environment).wall_seconds


# --- figures -------------------------------------------------------------------------------------------------------


def medians(results: Results) -> list[dict[str, Any]]:
    """One row for each contender: the median of each figure by itself."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for item in results.all().values():
        groups.setdefault((item["job"], item["program"], item["sink"]), []).append(item)
    rows = []
    for (job, program, sink), same in groups.items():
        wall = median(item["wall_seconds"] for item in same)
        beside = {n: median(i["beside_cpu_seconds"][n] for i in same) for n in same[0]["beside_cpu_seconds"]}
        rows.append(
            {
                "job": job,
                "program": program,
                "sink": sink,
                "runs": len(same),
                "wall_seconds": wall,
                "wall_seconds_each": [item["wall_seconds"] for item in same],
                "logs_per_second": round(same[0]["logs"] / wall),
                "blocks_per_second": round(same[0]["blocks"] / wall),
                "cpu_seconds": median(item["cpu_seconds"] for item in same),
                "beside_cpu_seconds": beside,
                "peak_mb": median(item["peak_mb"] for item in same),
                "served": same[0]["served"],
            }
        )
    order = list(JOBS)
    return sorted(rows, key=lambda row: (order.index(row["job"]), row["wall_seconds"]))


def ratios(results: Results, ours: str) -> list[dict[str, Any]]:
    """How many times faster `ours` was than each other program at the same job, pair by pair of the same round."""
    items = list(results.all().values())
    mine = {(i["job"], i["sink"], i["round"]): i for i in items if i["program"] == ours}
    pairs: dict[tuple[str, str, str, str], list[tuple[float, float]]] = {}
    for item in items:
        if item["program"].startswith("gapless"):
            continue
        for (job, sink, at), own in mine.items():
            if (job, at) == (item["job"], item["round"]):
                two = (item["wall_seconds"] / own["wall_seconds"], item["cpu_seconds"] / own["cpu_seconds"])
                pairs.setdefault((job, sink, item["program"], item["sink"]), []).append(two)
    return [
        {
            "job": job,
            "ours": f"{ours} → {sink}",
            "peer": f"{program} → {peer_sink}",
            "times_faster": round(median(wall for wall, _ in found), 2),
            "least": round(min(wall for wall, _ in found), 2),
            "most": round(max(wall for wall, _ in found), 2),
            "times_less_cpu": round(median(cpu for _, cpu in found), 2),
            "pairs": len(found),
        }
        for (job, sink, program, peer_sink), found in sorted(pairs.items())
    ]


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)

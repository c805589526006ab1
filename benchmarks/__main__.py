"""Measure and print a table; exit 1 when any run's rows are wrong.

python -m benchmarks                          everything, once
python -m benchmarks --repeat 3               medians of three
python -m benchmarks --only "gapless replay"  only runs whose name has these words
python -m benchmarks --json                   one document on standard output
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

from benchmarks.chain import BLOCKS, Chain, Truth, chain, truth
from benchmarks.machine import machine
from benchmarks.measure import Cost, RunFailed
from benchmarks.runs import NODES, Node, Result, Run, WrongRows, perform
from gapless.sources.evm.recording import read_recording
from servers.postgres import PostgresMissing, PostgresServer

MATRIX = (
    Run("gapless", "replay", "sqlite"),
    Run("gapless", "replay", "postgres"),
    Run("gapless", "anvil", "sqlite"),
    Run("gapless", "anvil", "postgres"),
    Run("gapless", "replay", "sqlite", options='verify = "proved"'),
    Run("gapless", "replay", "sqlite", "whole"),
    Run("gapless", "replay", "postgres", "whole"),
    Run("stripped", "replay", "sqlite"),
    Run("stripped", "replay", "postgres"),
)


def main() -> int:
    arguments = _arguments()
    chosen = [run for run in MATRIX if set(arguments.only.split()) <= set(run.name.replace('"', "").split())]
    if not chosen:
        print(f"no run is named so; there are: {', '.join(run.name for run in MATRIX)}", file=sys.stderr)
        return 2
    about, load = machine(), os.getloadavg()[0]
    _say(f"the chain of {arguments.blocks:,} blocks (built once, kept in .tools/bench)")
    built = chain(arguments.blocks)
    found = truth(read_recording(built.recording))
    results: list[Result] = []
    wrong: list[str] = []
    for node in dict.fromkeys(run.node for run in chosen):
        results += _measure([run for run in chosen if run.node == node], built, found, arguments.repeat, wrong)
    about["load"] = f"{load:.1f} before the first run, {os.getloadavg()[0]:.1f} after the last, in the last minute"
    report = _report(results)
    if arguments.json:
        print(json.dumps({"schema": 1, "machine": about, "runs": report, "wrong": wrong}, indent=1))
    else:
        _print(about, found, report)
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed of Gapless on this machine.")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each kind; medians are shown")
    parser.add_argument("--only", default="", help="words that a run's name must have")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="length of the chain")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    return parser.parse_args()


def _measure(runs: Sequence[Run], built: Chain, found: Truth, repeat: int, wrong: list[str]) -> Iterator[Result]:
    """Every run on one kind of node, which is started once for all of them."""
    with ExitStack() as stack:
        node: Node = stack.enter_context(NODES[runs[0].node](built))
        postgres = stack.enter_context(_postgres()) if any(run.store == "postgres" for run in runs) else None
        for run in runs:
            if run.store == "postgres" and postgres is None:
                _say(f"{run.name}: left out, there is no Postgres here")
                continue
            for _ in range(repeat):
                try:
                    result = perform(run, node, found, postgres)
                except (RunFailed, WrongRows) as error:
                    wrong.append(f"{run.name}: {error}")
                    break
                _say(f"{run.name}: {result.cost.wall_seconds:.2f} s")
                yield result


def _report(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row for each kind of run: medians of its repetitions."""
    rows = []
    for run in dict.fromkeys(result.run for result in results):
        same = [result for result in results if result.run == run]
        middle = median_of([result.cost for result in same])
        first = same[0]
        rows.append(
            {
                **dataclasses.asdict(run),
                "name": run.name,
                "repetitions": len(same),
                "wall_seconds": round(middle.wall_seconds, 3),
                "logs_per_second": round(first.logs / middle.wall_seconds),
                "blocks_per_second": round(first.blocks / middle.wall_seconds),
                "cpu_seconds": round(middle.cpu_seconds, 2),
                "beside_cpu_seconds": {name: round(value, 2) for name, value in middle.beside.items()},
                "peak_mb": round(middle.peak_bytes / 1e6),
                "served": first.served,
            }
        )
    return rows


def median_of(costs: Sequence[Cost]) -> Cost:
    """The median of each figure by itself."""
    beside = {name: median(cost.beside[name] for cost in costs) for name in costs[0].beside}
    return Cost(
        median(cost.wall_seconds for cost in costs),
        median(cost.cpu_seconds for cost in costs),
        int(median(cost.peak_bytes for cost in costs)),
        beside,
    )


def _print(about: dict[str, str], found: Truth, report: Sequence[dict[str, Any]]) -> None:
    for key, value in about.items():
        print(f"{key:10} {value}")
    print(
        f"{'job':10} {found.head + 1:,} blocks, {found.transfers:,} transfers, from nothing to the head; rows checked"
    )
    print()
    columns = ("run", "wall s", "logs/s", "blocks/s", "CPU s", "node CPU", "db CPU", "peak MB", "requests", "MB")
    print(f"{columns[0]:52}" + "".join(f"{column:>10}" for column in columns[1:]))
    for row in report:
        beside, served = row["beside_cpu_seconds"], row["served"]
        cells = [
            f"{row['wall_seconds']:.2f}",
            f"{row['logs_per_second']:,}",
            f"{row['blocks_per_second']:,}",
            f"{row['cpu_seconds']:.2f}",
            f"{beside['node']:.2f}",
            f"{beside['database']:.2f}" if "database" in beside else "-",
            f"{row['peak_mb']:,}",
            f"{served['requests']:,}" if served else "-",
            f"{served['bytes'] / 1e6:.0f}" if served else "-",
        ]
        print(f"{row['name']:52}" + "".join(f"{cell:>10}" for cell in cells))


@contextmanager
def _postgres() -> Iterator[tuple[Callable[[], str], int] | None]:
    """A server for these runs, as durable as it comes: makes a new database and tells its URL; its process."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(PostgresServer(settings={}))
        except PostgresMissing as error:
            _say(str(error))
            yield None
            return
        pid = (server.home / "data" / "postmaster.pid").read_text().splitlines()[0]
        yield server.create_database, int(pid)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Time and memory as things grow, one point after the other; what was measured is kept, and `--resume` goes on.

python -m benchmarks growth                      everything: about an hour and a half on a quiet machine
python -m benchmarks growth blocks memory        some of it: blocks, logs, contracts, table, memory
python -m benchmarks growth --scale 0.01         the same points, a hundred times smaller: a look
python -m benchmarks growth --resume --write     go on, then write tables and pictures into docs/

Chains are made up while they are asked for, so that their size costs nothing; every run's rows are counted and summed
and compared with what the node says.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.contest import Postgres, read_postgres, read_sqlite, run_postgres
from benchmarks.measure import RunFailed, measured
from benchmarks.node import ROOT, Invented, Node, NodeMissing, serve_invented
from benchmarks.ours import GAPLESS
from benchmarks.remote import SUMS
from benchmarks.results import Results, write_document
from benchmarks.rounds import postgres_server, say

LOGS_PER_SECOND, BLOCKS_PER_SECOND, FILLED_ROWS_PER_SECOND = 50_000, 2_000, 100_000
"""Only for the estimate of how long it takes."""
HOURS_MAX = 3
ROWS_OF_A_BLOCK = 100


@dataclass(frozen=True)
class Point:
    """One run. `x` is what grows."""

    dimension: str
    x: int
    chain: Invented
    filled_rows: int = 0
    """Already in the table, below the first block."""

    @property
    def key(self) -> str:
        return f"{self.dimension} {self.x} {self.chain.blocks}"

    @property
    def first(self) -> int:
        return self.filled_rows // ROWS_OF_A_BLOCK

    @property
    def blocks(self) -> int:
        return self.chain.blocks - self.first

    @property
    def estimate_seconds(self) -> float:
        logs = self.blocks * self.chain.logs
        return 5 + logs / LOGS_PER_SECOND + self.blocks / BLOCKS_PER_SECOND + self.filled_rows / FILLED_ROWS_PER_SECOND


@dataclass(frozen=True)
class Dimension:
    """What grows, and what is drawn over it."""

    name: str
    x: str
    per: str
    """`blocks` or `logs`: time is told for one of them."""
    sizes: tuple[int, ...]
    scaled: bool = True
    """Whether `--scale` makes its sizes smaller, not only its chains."""

    def points(self, scale: float) -> list[Point]:
        sizes = [max(1, round(size * scale)) if self.scaled else size for size in self.sizes]
        return [self._point(size, scale) for size in dict.fromkeys(sizes)]

    def _point(self, size: int, scale: float) -> Point:
        logs = max(1_000, round(200_000 * scale))
        blocks = max(20, round(2_000 * scale))
        match self.name:
            case "blocks":
                return Point(self.name, size, Invented(size, 1))
            case "logs":
                return Point(self.name, size, Invented(max(10, logs // size) + 1, size))
            case "contracts":
                return Point(self.name, size, Invented(blocks, ROWS_OF_A_BLOCK, tokens=size))
            case "table":
                return Point(self.name, size, Invented(size // ROWS_OF_A_BLOCK + blocks, ROWS_OF_A_BLOCK), size)
        return Point(self.name, size, Invented(max(2, size // ROWS_OF_A_BLOCK) + 1, ROWS_OF_A_BLOCK))


DIMENSIONS = (
    Dimension("blocks", "blocks of one log", "blocks", (10_000, 100_000, 1_000_000)),
    Dimension("logs", "logs in a block", "logs", (1, 10, 100, 1_000, 5_000), scaled=False),
    Dimension("contracts", "contract addresses", "blocks", (1, 100, 10_000), scaled=False),
    Dimension("table", "rows in the table before", "blocks", (1_000_000, 5_000_000, 20_000_000, 50_000_000)),
    Dimension("memory", "logs in all", "logs", (200_000, 2_000_000, 20_000_000)),
)


def main(given: Sequence[str]) -> int:
    """Measure the chosen points; 1 where rows are wrong."""
    arguments = _arguments(given)
    chosen = [d for d in DIMENSIONS if not arguments.dimensions or d.name in arguments.dimensions]
    points = [point for dimension in chosen for point in dimension.points(arguments.scale)]
    points = [point for point in points if not arguments.max or point.x <= arguments.max]
    about = {"load before": f"{os.getloadavg()[0]:.1f}", "store": arguments.store}
    results = Results(f"growth-{arguments.store}", resume=arguments.resume, about=about)
    left = [point for point in points if results.get(point.key) is None]
    say(f"{len(left)} of {len(points)} runs to do, about {sum(p.estimate_seconds for p in left) / 60:.1f} minutes")
    wrong = 0
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server()) if arguments.store == "postgres" else None
        if arguments.store == "postgres" and postgres is None:
            return 2
        for point in left:
            say(f"{point.key}: about {point.estimate_seconds:.0f} s")
            try:
                found = measure(point, postgres)
            except NodeMissing as error:
                say(str(error))
                return 2
            except RunFailed as error:
                say(f"WRONG: {point.key}: {error}")
                wrong += 1
                continue
            wrong += not found["right"]
            results.add(point.key, found)
            say(f"{point.key}: {found['wall_seconds']:.1f} s, {found['peak_mb']:.0f} MB, right: {found['right']}")
    _show(results, chosen, arguments)
    return 1 if wrong else 0


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks growth", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("dimensions", nargs="*", help=", ".join(d.name for d in DIMENSIONS))
    parser.add_argument("--store", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--scale", type=float, default=1.0, help="of the chains, and of sizes that are counts of work")
    parser.add_argument("--max", type=int, default=0, help="leave out points that grow beyond this")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--write", action="store_true", help="write tables and pictures into docs/")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    unknown = set(arguments.dimensions) - {d.name for d in DIMENSIONS}
    if unknown:
        parser.error(f"no such dimension: {', '.join(sorted(unknown))}")
    return arguments


# --- a run ---------------------------------------------------------------------------------------------------------


def measure(point: Point, postgres: Postgres | None) -> dict[str, Any]:
    """One point: an empty folder and a new database, or one filled before."""
    with serve_invented(point.chain) as node, tempfile.TemporaryDirectory(prefix="gapless-bench-") as name:
        folder = Path(name)
        database = postgres.create_database() if postgres is not None else ""
        try:
            (folder / "gapless.toml").write_text(_configuration(point, node, database, folder))
            if point.filled_rows:
                _fill(point, database, folder)
            load = os.getloadavg()[0]
            servers = {} if postgres is None else {"database": postgres.pid}
            cost = measured((GAPLESS, "run", "--until", "head"), folder, servers, seconds_max=HOURS_MAX * 3600)
            right = _right(point, node, database, folder)
        finally:
            if postgres is not None:
                postgres.drop_database(database)
    logs = point.blocks * point.chain.logs
    return {
        "dimension": point.dimension,
        "x": point.x,
        "right": right,
        "load_before": round(load, 1),
        "blocks": point.blocks,
        "logs": logs,
        "wall_seconds": round(cost.wall_seconds, 2),
        "cpu_seconds": round(cost.cpu_seconds, 2),
        "us_per_block": round(cost.wall_seconds / point.blocks * 1e6, 1),
        "us_per_log": round(cost.wall_seconds / logs * 1e6, 2),
        "peak_mb": round(cost.peak_bytes / 1e6),
    }


def _configuration(point: Point, node: Node, database: str, folder: Path) -> str:
    addresses = ""
    if point.dimension == "contracts":
        tokens = ["0x" + sha256(f"token {i}".encode()).hexdigest()[:40] for i in range(point.chain.tokens)]
        addresses = f"address = {json.dumps(tokens)}\n"
    return (
        f'[app]\nname = "bench"\n[store]\nurl = "{database or f"sqlite:///{folder}/bench.db"}"\n'
        f'[sources.chain]\nkind = "evm"\nrpc = ["{node.url}"]\nstart = {point.first}\n'
        f'[contracts.token]\nabi = "erc20"\nevents = ["Transfer"]\n{addresses}'
    )


def _fill(point: Point, database: str, folder: Path) -> None:
    """The tables as Gapless makes them, with so many rows below the first block."""
    from gapless.cli.project import load
    from gapless.clock import SystemClock
    from gapless.wiring import open_store

    project = load(str(folder / "gapless.toml"))
    open_store(project.config, project.schema, SystemClock(), create=True).close()
    if not database:
        raise RunFailed("only Postgres can be filled before: leave out the dimension `table` with --store sqlite")
    hexed = "'0x' || md5(i::text) || md5((-i)::text)"
    run_postgres(
        database,
        "insert into bench_v1.token_transfer"
        f" select i / {ROWS_OF_A_BLOCK}, to_timestamp(1600000000 + i / 100), {hexed}, {hexed}, 0,"
        f" i % {ROWS_OF_A_BLOCK}, '0x' || substr(md5(i::text), 1, 32) || '00000000',"
        " '0x' || md5(i::text) || '00000000', '0x' || md5((i * 7)::text) || '00000000', i"
        f" from generate_series(0, {point.filled_rows - 1}) as i",
    )
    run_postgres(database, "vacuum analyze bench_v1.token_transfer")
    run_postgres(database, "checkpoint")


def _right(point: Point, node: Node, database: str, folder: Path) -> bool:
    """Rows counted and summed, against what the node says it made."""
    if not point.filled_rows:
        truth = node.truth()
        expected = (truth["rows"], truth["block_numbers"], truth["log_indexes"], truth["values"])
        if database:
            sums = SUMS.replace("cast(value as integer)", "value").replace("from token", "from bench.token")
            return tuple(map(int, read_postgres(database, sums)[0])) == expected
        return tuple(read_sqlite(folder / "bench.db", SUMS)[0]) == expected
    counted = f"select count(*) from bench.token_transfer where block_number >= {point.first}"
    [(rows,)] = read_postgres(database, counted)
    return bool(rows == point.blocks * point.chain.logs)


# --- showing -------------------------------------------------------------------------------------------------------


def _show(results: Results, chosen: Sequence[Dimension], arguments: argparse.Namespace) -> None:
    rows = list(results.all().values())
    write_document(results.path.with_suffix(".json"), results.about, {"points": rows})
    drawn = {d.name: draw(d, rows, results.path.with_name(f"growth-{d.name}.svg")) for d in DIMENSIONS}
    text = page(results.about, chosen, rows)
    print(json.dumps({"schema": 1, "about": results.about, "points": rows}, indent=1) if arguments.json else text)
    if arguments.write:
        folder = ROOT / "docs" / "benchmarks"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "growth.json").write_text(results.path.with_suffix(".json").read_text())
        for name, made in drawn.items():
            if made:
                picture = results.path.with_name(f"growth-{name}.svg")
                (folder / picture.name).write_text(picture.read_text())
        pictures = {name for name, made in drawn.items() if made}
        report.replace_part(ROOT / "docs" / "BENCHMARKS.md", "growth", page(results.about, DIMENSIONS, rows, pictures))


def page(
    about: dict[str, Any],
    chosen: Sequence[Dimension],
    rows: Sequence[dict[str, Any]],
    pictures: frozenset[str] | set[str] = frozenset(),
) -> str:
    parts = ["\n".join(report.about_lines(about))]
    for dimension in chosen:
        some = sorted((row for row in rows if row["dimension"] == dimension.name), key=lambda row: int(row["x"]))
        if not some:
            continue
        if dimension.name in pictures:
            parts.append(f"![{dimension.x}](benchmarks/growth-{dimension.name}.svg)")
        lines = [f"| {dimension.x} | seconds | µs a block | µs a log | peak MB | load before |"]
        lines.append("|--:|--:|--:|--:|--:|--:|")
        lines += [
            f"| {row['x']:,} | {row['wall_seconds']:.1f} | {row['us_per_block']:,.0f} | {row['us_per_log']:,.1f} "
            f"| {row['peak_mb']:.0f} | {row['load_before']:.1f} |"
            for row in some
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def draw(dimension: Dimension, rows: Sequence[dict[str, Any]], path: Path) -> bool:
    """Time for each block or log, and memory, over what grows. False where there is nothing to draw (with)."""
    some = sorted((row for row in rows if row["dimension"] == dimension.name), key=lambda row: int(row["x"]))
    plt = report.plotting()
    if plt is None or not some:
        return False
    figure, axis = plt.subplots(figsize=(6, 2.6))
    per = "us_per_block" if dimension.per == "blocks" else "us_per_log"
    xs = [row["x"] for row in some]
    axis.plot(xs, [row[per] for row in some], "o-", color=report.OURS, label=f"µs for each of the {dimension.per}")
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel(dimension.x)
    axis.set_ylabel(f"µs / {dimension.per[:-1]}", color=report.OURS)
    memory = axis.twinx()
    memory.plot(xs, [row["peak_mb"] for row in some], "s--", color=report.PEER, label="peak memory")
    memory.set_ylim(bottom=0)
    memory.set_ylabel("peak MB", color=report.PEER)
    figure.tight_layout()
    report.save(figure, path)
    plt.close(figure)
    return True

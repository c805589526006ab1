"""A remote endpoint: 50 ms away, 100 requests a second, 10,000 logs an answer, 1,000 blocks a range.

python -m benchmarks remote                the measured chain and a sparse one, simulated limits; 3 minutes
python -m benchmarks remote --quick        small chains

Nothing about the limits is configured: what must show is that sizes grow to the knee by themselves and stay there. The
node refuses what exceeds them (429, -32005, -32602) and notes every range and batch it was asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.contest import read_sqlite
from benchmarks.measure import measured
from benchmarks.node import ROOT, Invented, Limits, Node, NodeMissing, serve_invented
from benchmarks.ours import GAPLESS, configuration
from benchmarks.results import Results, write_document
from benchmarks.rounds import say

LIMITS = Limits(latency_ms=50, requests_per_second=100, range_max=1_000, results_max=10_000)
TAIL_SHARE = 0.25
"""The last part of a run's requests, in which sizes must have settled."""


@dataclass(frozen=True)
class Scene:
    """A chain behind the limits, and which of them its ranges meet first."""

    name: str
    chain: Invented
    knee_blocks: int
    """The largest range that the node answers."""


SCENES = (
    Scene("dense: 100 logs a block, the answer's limit is met", Invented(2_000, 100), 100),
    Scene("middling: 20 logs a block, the answer's limit is met", Invented(10_000, 20), 500),
    Scene("sparse: one log a block, the range's limit is met", Invented(50_000, 1), 1_000),
)
QUICK = (
    Scene("dense, quick", Invented(500, 100), 100),
    Scene("sparse, quick", Invented(5_000, 1), 1_000),
)


def main(given: Sequence[str]) -> int:
    """Run each scene; 1 where rows are missing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks remote", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    scenes = QUICK if arguments.quick else SCENES
    say(f"about {0.3 if arguments.quick else 3:g} minutes")
    about = {
        "endpoint": f"{LIMITS.latency_ms:g} ms, {LIMITS.requests_per_second:g} requests/s, "
        f"{LIMITS.results_max:,} logs an answer, {LIMITS.range_max:,} blocks a range"
    }
    results = Results("remote", resume=arguments.resume, about=about)
    wrong = 0
    for scene in scenes:
        if results.get(scene.name) is not None:
            continue
        try:
            found = measure(scene)
        except NodeMissing as error:
            say(str(error))
            return 2
        wrong += not found["right"]
        results.add(scene.name, found)
        say(f"{scene.name}: {found['wall_seconds']:.1f} s, ranges of {found['settled_range_blocks']:.0f} blocks")
    rows = results.all()
    write_document(results.path.with_suffix(".json"), results.about, {"scenes": rows})
    text = page(results.about, rows)
    print(json.dumps({"schema": 1, "about": results.about, "scenes": rows}, indent=1) if arguments.json else text)
    if arguments.write:
        report.replace_part(ROOT / "docs" / "BENCHMARKS.md", "remote", text)
    return 1 if wrong else 0


def page(about: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    columns = ("seconds", "blocks/s", "requests/s", "of those allowed", "refused: rate, range, logs")
    columns += ("knee, blocks", "range settled at", "calls a batch")
    lines = [f"| chain | {' | '.join(columns)} |", "|---" + "|--:" * len(columns) + "|"]
    for name, row in rows.items():
        refused = ", ".join(str(row["refused"].get(kind, 0)) for kind in ("rate", "range", "results"))
        lines.append(
            f"| {name} | {row['wall_seconds']:.1f} | {row['blocks_per_second']:,.0f} "
            f"| {row['requests_per_second']:.0f} "
            f"| {row['requests_per_second'] / LIMITS.requests_per_second:.0%} | {refused} "
            f"| {row['knee_blocks']:,} | {row['settled_range_blocks']:,.0f} | {row['settled_batch_calls']:.0f} |"
        )
    return "\n".join([*report.about_lines(about), "", *lines]) + "\n"


def measure(scene: Scene) -> dict[str, Any]:
    """From nothing to the head of the scene's chain, through its limits."""
    with serve_invented(scene.chain, LIMITS) as node, _folder(node) as folder:
        load = os.getloadavg()[0]
        cost = measured((GAPLESS, "run", "--until", "head"), folder, {})
        served, truth = node.served(), node.truth()
        rows = read_sqlite(folder / "bench.db", SUMS)[0]
    asked = [span["blocks"] for span in served["ranges"] or [] if span["ok"]]
    batches = [size for size in served["batches"] or [] if size > 1]
    return {
        "right": rows == (truth["rows"], truth["block_numbers"], truth["log_indexes"], truth["values"]),
        "load_before": round(load, 1),
        "wall_seconds": round(cost.wall_seconds, 2),
        "blocks_per_second": round(scene.chain.blocks / cost.wall_seconds, 1),
        "requests": served["requests"],
        "requests_per_second": round(served["requests"] / cost.wall_seconds, 1),
        "refused": served["refused"],
        "knee_blocks": scene.knee_blocks,
        "settled_range_blocks": _settled(asked),
        "settled_batch_calls": _settled(batches),
        "ranges": asked[:200],
    }


SUMS = (
    "select count(*), coalesce(sum(block_number), 0), coalesce(sum(log_index), 0),"
    " coalesce(sum(cast(value as integer)), 0) from token_transfer"
)
"""What the made-up chain's node gives as its truth."""


def _settled(sizes: Sequence[int]) -> float:
    """The median of the last part; the very last is often cut short."""
    tail = sizes[int(len(sizes) * (1 - TAIL_SHARE)) : -1] or sizes
    return float(median(tail)) if tail else 0.0


@contextmanager
def _folder(node: Node) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gapless-bench-") as name:
        folder = Path(name)
        (folder / "gapless.toml").write_text(configuration(node.url, f"sqlite:///{folder}/bench.db"))
        yield folder

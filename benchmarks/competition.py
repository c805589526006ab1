"""`python -m benchmarks` and `python -m benchmarks peers`: ours alone, or beside the peers, in turns in one run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import ours, report
from benchmarks.chain import FLAGS, Chain, chain, truth_of
from benchmarks.contest import Contender
from benchmarks.node import ROOT, Node, serve_recording
from benchmarks.results import Results, write_document
from benchmarks.rounds import Outcome, compete, medians, postgres_server, ratios, say, start_up
from servers.anvil import start_anvil

DOCUMENT = ROOT / "docs" / "benchmarks"
FULL_BLOCKS = 2_000
OURS = "gapless, checked"
SLOW_SECONDS = {"ponder": 80.0, "envio": 45.0, "squid": 12.0, "dipdup": 50.0, "web3": 75.0, "ethereum-etl": 15.0}
"""Only for the estimate of how long it takes."""


def main(arguments: argparse.Namespace) -> int:
    """Run the chosen contenders; 1 when any run's rows were wrong."""
    contenders = chosen(arguments)
    if not contenders:
        say("no contender is named so; see --list")
        return 2
    if arguments.list:
        print("\n".join(f"{contender.job:10} {contender.name}" for contender in contenders))
        return 0
    say(f"the chain of {arguments.blocks:,} blocks (built once, kept in .tools/bench)")
    say(f"about {_estimate_seconds(contenders) * arguments.runs * arguments.blocks / FULL_BLOCKS / 60:.0f} minutes")
    built = chain(arguments.blocks)
    found = truth_of(built)
    name = "peers" if arguments.command == "peers" else "ours"
    results = Results(name, resume=arguments.resume, about={"load before": f"{os.getloadavg()[0]:.1f}"})
    with ExitStack() as stack:
        node = stack.enter_context(_node(arguments.node, built))
        postgres = stack.enter_context(postgres_server())
        results.about |= {
            "node": f"{node.kind}, {found.head + 1:,} blocks, {found.transactions:,} transactions, "
            f"{found.logs:,} logs, {found.transfers:,} of them transfers",
            "runs": f"{arguments.runs} of each, in turns; medians; every run's rows compared with the chain's",
        }
        outcome = compete(contenders, arguments.runs, node, found, postgres, results)
        started = start_up(_fast(contenders), arguments.runs, postgres) if not arguments.no_start_up else {}
    results.about["load after"] = f"{os.getloadavg()[0]:.1f}"
    _show(outcome, started, arguments)
    return 1 if outcome.wrong else 0


def chosen(arguments: argparse.Namespace) -> list[Contender]:
    """Those that `--only` leaves, job by job, ours first in each."""
    everyone: list[Contender] = list(ours.FAST)
    if arguments.command == "peers":
        from benchmarks.peers.contenders import PEERS

        everyone = [one for one in everyone if one not in ours.LEVELS] + list(PEERS)
    jobs = list(dict.fromkeys(contender.job for contender in everyone))
    words = arguments.only.lower().split()
    named = [one for one in everyone if all(word in f"{one.job} {one.name}".lower() for word in words)]
    return sorted(named, key=lambda one: jobs.index(one.job))


def _estimate_seconds(contenders: Sequence[Contender]) -> float:
    """Of one round on a quiet machine."""
    return sum(next((s for name, s in SLOW_SECONDS.items() if name in one.name), 5.0) for one in contenders)


def _fast(contenders: Sequence[Contender]) -> list[Contender]:
    return [one for one in contenders if one.program in (OURS, "stripped loop") and one.job in ("postgres", "sqlite")]


@contextmanager
def _node(kind: str, built: Chain) -> Any:
    if kind == "replay":
        with serve_recording(built.recording) as node:
            yield node
    else:
        with start_anvil(*FLAGS, "--load-state", str(built.state)) as anvil:
            yield Node(anvil.url, anvil.process.pid, "anvil", dict)


def _show(outcome: Outcome, started: dict[str, float], arguments: argparse.Namespace) -> None:
    results = outcome.results
    rows, pairs = medians(results), ratios(results, OURS)
    fields: dict[str, Any] = {"runs": list(results.all().values()), "medians": rows, "ratios": pairs}
    fields |= {"start_up_seconds": started, "wrong": outcome.wrong, "absent": outcome.absent}
    kept = results.path.with_suffix(".json")
    write_document(kept, results.about, fields)
    text = page(results.about, rows, pairs, started, outcome.absent)
    kept.with_suffix(".md").write_text(text)
    picture = kept.with_suffix(".svg")
    if rows and not report.bars(rows, results.about, picture):
        say(report.SKIP_PICTURE)
    if arguments.json:
        print(json.dumps({"schema": 1, "about": results.about, **fields}, indent=1))
    else:
        print(text)
    for line in outcome.wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    if arguments.write and not outcome.wrong:
        publish(kept, picture, text, rows, pairs, results.about, arguments.note)


def page(
    about: dict[str, Any],
    rows: list[dict[str, Any]],
    pairs: list[dict[str, Any]],
    started: dict[str, float],
    absent: dict[str, str],
) -> str:
    parts = ["\n".join(report.about_lines(about)), report.table(rows, started)]
    if pairs:
        parts.append(report.ratio_table(pairs))
    parts += ["\n".join(report.absent_lines(absent))] if absent else []
    return "\n\n".join(parts) + "\n"


# --- documents -----------------------------------------------------------------------------------------------------


def publish(
    kept: Path,
    picture: Path,
    text: str,
    rows: list[dict[str, Any]],
    pairs: list[dict[str, Any]],
    about: dict[str, Any],
    note: str,
) -> None:
    """Copy the figures into docs/ and write the generated parts of the pages that show them anew."""
    DOCUMENT.mkdir(parents=True, exist_ok=True)
    (DOCUMENT / kept.name).write_text(kept.read_text())
    if picture.exists():
        (DOCUMENT / picture.name).write_text(picture.read_text())
    image = f"![logs per second of each program](benchmarks/{picture.name})\n\n" if picture.exists() else ""
    introduction = f"{note}\n\n" if note else ""
    report.replace_part(ROOT / "docs" / "BENCHMARKS.md", kept.stem, introduction + image + text)
    if kept.stem == "peers":
        report.replace_part(ROOT / "README.md", "figures", readme(rows, pairs, about, note))
    say(f"written: docs/BENCHMARKS.md, docs/benchmarks/{kept.name}" + (", README.md" if kept.stem == "peers" else ""))


def readme(rows: list[dict[str, Any]], pairs: list[dict[str, Any]], about: dict[str, Any], note: str) -> str:
    """The short form for the front page."""
    faster: dict[tuple[str, str], float] = {}
    for pair in pairs:
        key = (pair["job"], pair["peer"])
        faster[key] = max(faster.get(key, 0.0), pair["times_faster"])
    introduction = (
        f"200,002 ERC-20 transfers in 2,002 blocks, from nothing to the head, whole process with start-up, a replay\n"
        f"node that is not the limit, every run's rows compared with the chain's. {about['machine']},\n"
        f"Python {about['python']}, {about['date']}; {about['runs'].split(';')[0]}. `make bench-peers` repeats it;\n"
        f"all figures, versions and ratios: [docs/BENCHMARKS.md](docs/BENCHMARKS.md).{' ' + note if note else ''}"
    )
    floor = (
        "The stripped loop makes the same requests and writes the same tables with no check, digest, undo or resuming."
    )
    lines = [
        introduction,
        floor,
        "",
        "![logs per second of each program](docs/benchmarks/peers.svg)",
        "",
        "| job | program | seconds | logs/s | peak MB | Gapless is faster by |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        name = f"{row['program']} → {row['sink']}"
        times = faster.get((row["job"], name))
        lines.append(
            f"| {report.JOBS[row['job']]} | {name} | {row['wall_seconds']:.2f} | {row['logs_per_second']:,} "
            f"| {row['peak_mb']:.0f} | {'' if times is None else f'{times:.1f} ×'} |"
        )
    return "\n".join(lines)

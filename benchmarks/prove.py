"""What checking costs, on real mainnet blocks and on made-up transfers.

python -m benchmarks prove                   a quarter of a minute
python -m benchmarks prove --seconds 5       longer for each figure

The mainnet run (15 blocks of 181 transactions and 417 logs on average) comes from the shared data beside the checkout
(or `GAPLESS_SHARED`). Whole blocks are measured on one core and on all of them, a process each; the filtered answer
(100 blocks of 100 ERC-20 transfers) on one. CPU time decides, so that a busy machine changes little; the figures on all
cores are by wall time.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import report
from benchmarks.node import ROOT
from benchmarks.results import Results, write_document
from benchmarks.rounds import say
from gapless.sources.evm import bloom, prove, verify
from gapless.sources.evm.types import FullBlock, Header, Log, LogClause, Receipt, Verify

SHARED = Path(os.environ.get("GAPLESS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
RUN = SHARED / "data/evm/mainnet-run-17686110/blocks-17686110-17686124.jsonl.gz"
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
TOKEN = "0x" + "a0" * 20

Block = tuple[FullBlock, list[Receipt]]


def main(given: Sequence[str]) -> int:
    """Measure and print; 1 where a block's hash or root is not what its header says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks prove", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    if not RUN.exists():
        say(f"there are no mainnet blocks at {RUN}: name the folder that holds data/ in GAPLESS_SHARED")
        return 2
    blocks = mainnet_run()
    if not right(blocks):
        say("WRONG: a hash or root of a mainnet block differs from its header")
        return 1
    results = Results("prove", resume=False, about={"load before": f"{os.getloadavg()[0]:.1f}"})
    rows = figures(blocks, arguments.seconds)
    for name, row in rows.items():
        results.add(name, row)
    write_document(results.path.with_suffix(".json"), results.about, {"figures": rows})
    text = page(results.about, rows)
    print(json.dumps({"schema": 1, "about": results.about, "figures": rows}, indent=1) if arguments.json else text)
    if arguments.write:
        report.replace_part(ROOT / "docs" / "BENCHMARKS.md", "prove", text)
    return 0


def figures(blocks: list[Block], seconds: float) -> dict[str, dict[str, Any]]:
    """Rates by name."""
    cores = len(os.sched_getaffinity(0))
    found: dict[str, dict[str, Any]] = {}

    def add(name: str, unit: str, rate: float) -> None:
        found[name] = {"unit": unit, "per_second": round(rate, 1)}
        say(f"{name}: {rate:,.0f} {unit}/s")

    count = len(blocks)
    add("block hash, transaction hashes, both roots; one core", "blocks", count * rate(lambda: hashes(blocks), seconds))
    add("the same on all cores, by wall time", "blocks", on_all_cores(cores, seconds))
    for level in (Verify.LINKED, Verify.CHECKED, Verify.PROVED):
        add(f"whole blocks, {level}; one core", "blocks", count * rate(lambda at=level: whole(blocks, at), seconds))
    clauses = [LogClause(frozenset({TOKEN}), frozenset({TRANSFER}))]
    for holders in (100, 1_000, 10**9):
        headers, logs = transfers(holders)
        check = lambda h=headers, lo=logs: verify.check_filtered_logs(h, lo, clauses)  # noqa: E731
        add(f"filtered logs, {holders:,} holders; one core", "logs", len(logs) * rate(check, seconds))
    return found


def page(about: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    lines = ["| what is checked | per second |", "|---|--:|"]
    lines += [f"| {name} | {row['per_second']:,.0f} {row['unit']} |" for name, row in rows.items()]
    return "\n".join([*report.about_lines(about), "", *lines]) + "\n"


def rate(act: Callable[[], object], seconds: float) -> float:
    """Rounds a second of CPU time, each with an empty cache of bloom masks; the best, since others use the core too."""
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until or best == float("inf"):
        bloom.bits.cache_clear()
        start = time.process_time()
        act()
        best = min(best, time.process_time() - start)
    return 1 / best


def on_all_cores(cores: int, seconds: float) -> float:
    """Blocks a second of as many processes as there are cores, all at once, for the same time."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(cores)
    with context.Pool(cores, _ready, (barrier,)) as pool:
        return sum(pool.starmap(_work, [(seconds,)] * cores, chunksize=1))


_BARRIER: list[Any] = []


def _ready(barrier: Any) -> None:
    _BARRIER.append(barrier)


def _work(seconds: float) -> float:
    blocks = mainnet_run()
    _BARRIER[0].wait()
    started = time.perf_counter()
    done = 0
    while time.perf_counter() - started < seconds:
        hashes(blocks)
        done += len(blocks)
    return done / (time.perf_counter() - started)


# --- what is checked -----------------------------------------------------------------------------------------------


def mainnet_run() -> list[Block]:
    with gzip.open(RUN, "rt") as lines:
        found = [json.loads(line) for line in lines]
    return [
        (msgspec.convert(item["block"], FullBlock), msgspec.convert(item["receipts"], list[Receipt])) for item in found
    ]


def right(blocks: list[Block]) -> bool:
    return all(
        prove.header_hash(block) == block.hash and prove.receipts_root(receipts) == block.receipts_root
        for block, receipts in blocks
    )


def hashes(blocks: list[Block]) -> None:
    for block, receipts in blocks:
        prove.header_hash(block)
        prove.hashed_transactions_root(block.transactions)
        prove.receipts_root(receipts)


def whole(blocks: list[Block], level: Verify) -> None:
    first = int(blocks[0][0].number, 16)
    verify.check_headers([block for block, _ in blocks], first, first + len(blocks) - 1, None, level)
    for block, receipts in blocks:
        verify.check_block(block, level)
        verify.check_receipts(block, block.transactions, receipts, level)


def transfers(holders: int, blocks: int = 100, logs: int = 100) -> tuple[list[Header], list[Log]]:
    """A filtered answer as decoded from JSON: every text its own object."""
    rng = random.Random(holders)
    headers, answer, parent = [], [], "0x" + "00" * 32
    for number in range(1000, 1000 + blocks):
        identity = "0x" + hashlib.sha256(b"%d" % number).hexdigest()
        some = [_log(rng, holders, number, index, identity) for index in range(logs)]
        union = bloom.of_logs(msgspec.convert(some, list[Log]))
        headers.append(Header(hex(number), identity, parent, hex(number), f"0x{union:0512x}"))
        answer += some
        parent = identity
    return headers, msgspec.json.decode(msgspec.json.encode(answer), type=list[Log])


def _log(rng: random.Random, holders: int, number: int, index: int, block_hash: str) -> dict[str, Any]:
    two = [hashlib.sha256(b"h%d" % rng.randrange(holders)).hexdigest()[:40] for _ in range(2)]
    return {
        "address": TOKEN,
        "topics": [TRANSFER, *("0x" + "00" * 12 + holder for holder in two)],
        "data": f"0x{rng.randrange(1 << 80):064x}",
        "blockNumber": hex(number),
        "blockHash": block_hash,
        "transactionHash": "0x" + hashlib.sha256(b"%d/%d" % (number, index // 6)).hexdigest(),
        "transactionIndex": hex(index // 6),
        "logIndex": hex(index),
    }

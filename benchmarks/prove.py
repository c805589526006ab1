"""How fast EVM answers are verified, on one core: `python benchmarks/evm_verification.py`.

The mainnet run (15 blocks of 181 transactions and 417 logs on average) comes from the shared data beside the checkout
(or `GAPLESS_SHARED`); the filtered answer (100 blocks of 100 ERC-20 transfers among 1,000 holders) is made up.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gapless.sources.evm import bloom, prove, verify
from gapless.sources.evm.types import FullBlock, Header, Log, LogClause, Receipt, Verify

SHARED = Path(os.environ.get("GAPLESS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
RUN = SHARED / "data/evm/mainnet-run-17686110/blocks-17686110-17686124.jsonl.gz"
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
TOKEN = "0x" + "a0" * 20
ROUNDS = 10

Block = tuple[FullBlock, list[Receipt]]


def mainnet_run() -> list[Block]:
    with gzip.open(RUN, "rt") as lines:
        found = [json.loads(line) for line in lines]
    return [
        (msgspec.convert(item["block"], FullBlock), msgspec.convert(item["receipts"], list[Receipt])) for item in found
    ]


def transfers(holders: int, blocks: int = 100, logs: int = 100) -> tuple[list[Header], list[Log]]:
    """A filtered answer as decoded from JSON: every text its own object."""
    rng = random.Random(holders)
    headers, answer, parent = [], [], "0x" + "00" * 32
    for number in range(1000, 1000 + blocks):
        identity = "0x" + hashlib.sha256(b"%d" % number).hexdigest()
        some: list[dict[str, Any]] = []
        for index in range(logs):
            two = [hashlib.sha256(b"h%d" % rng.randrange(holders)).hexdigest()[:40] for _ in range(2)]
            some.append(
                {
                    "address": TOKEN,
                    "topics": [TRANSFER, *("0x" + "00" * 12 + holder for holder in two)],
                    "data": f"0x{rng.randrange(1 << 80):064x}",
                    "blockNumber": hex(number),
                    "blockHash": identity,
                    "transactionHash": "0x" + hashlib.sha256(b"%d/%d" % (number, index // 6)).hexdigest(),
                    "transactionIndex": hex(index // 6),
                    "logIndex": hex(index),
                }
            )
        union = bloom.of_logs(msgspec.convert(some, list[Log]))
        headers.append(Header(hex(number), identity, parent, hex(number), f"0x{union:0512x}"))
        answer += some
        parent = identity
    return headers, msgspec.json.decode(msgspec.json.encode(answer), type=list[Log])


def best_seconds(act: Callable[[], object]) -> float:
    """Of several rounds, each with an empty cache of masks."""
    best = float("inf")
    for _ in range(ROUNDS):
        bloom.bits.cache_clear()
        start = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - start)
    return best


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


def main() -> None:
    blocks = mainnet_run()
    count = len(blocks)
    print(f"block hash, transaction hashes, both roots: {count / best_seconds(lambda: hashes(blocks)):.0f} blocks/s")
    for level in (Verify.CHECKED, Verify.PROVED):
        print(f"whole blocks, {level}: {count / best_seconds(lambda level=level: whole(blocks, level)):.0f} blocks/s")
    clauses = [LogClause(frozenset({TOKEN}), frozenset({TRANSFER}))]
    for holders in (100, 1000, 10**9):
        headers, logs = transfers(holders)
        seconds = best_seconds(lambda h=headers, lo=logs: verify.check_filtered_logs(h, lo, clauses))
        print(f"filtered logs, {holders} holders: {len(logs) / seconds:.0f} logs/s")


if __name__ == "__main__":
    main()

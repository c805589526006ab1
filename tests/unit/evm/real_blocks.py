"""Real blocks for tests: those carried in `tests/data/evm/blocks`, and the larger collection beside the checkout."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gapless.sources.evm import verify
from gapless.sources.evm.types import FullBlock, Log, LogClause, Receipt, Verify

CARRIED = Path(__file__).resolve().parents[2] / "data" / "evm" / "blocks"
SHARED = Path(os.environ.get("GAPLESS_SHARED", Path(__file__).resolve().parents[4] / "shared")) / "data"
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
TRANSFERS = (LogClause(None, frozenset({TRANSFER})),)


@dataclass
class RealBlock:
    """One block as a node answered it. Tamper with the dicts of a `copy`, then look at the typed views."""

    block: dict[str, Any]
    receipts: list[dict[str, Any]] | None = None
    origin: str = ""

    @property
    def number(self) -> int:
        return int(self.block["number"], 16)

    @property
    def full(self) -> FullBlock:
        return msgspec.convert(self.block, FullBlock)

    @property
    def typed_receipts(self) -> list[Receipt]:
        return msgspec.convert(self.receipts or [], list[Receipt])

    @property
    def logs(self) -> list[Log]:
        return [log for receipt in self.typed_receipts for log in receipt.logs]

    def copy(self) -> RealBlock:
        return deepcopy(self)

    def accept(self, level: Verify, hashing: verify.ChainHashing = verify.ETHEREUM, number: int | None = None) -> None:
        """All checks of whole-block mode. `number` is the one asked for."""
        asked = self.number if number is None else number
        full = self.full
        verify.check_headers([full], asked, asked, None, level, hashing)
        verify.check_block(full, level, hashing)
        if self.receipts is not None:
            verify.check_receipts(full, full.transactions, self.typed_receipts, level, hashing)


def read(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


def carried(name: str) -> RealBlock:
    """A block that every checkout holds."""
    found = read(CARRIED / f"{name}.json.gz")
    return RealBlock(found["block"], found["receipts"], name)


def all_carried() -> list[RealBlock]:
    return [carried(path.name.removesuffix(".json.gz")) for path in sorted(CARRIED.glob("*.json.gz"))]


def pair() -> list[RealBlock]:
    """Two linked mainnet blocks with 949 and 233 logs."""
    return [carried("mainnet-22431083"), carried("mainnet-22431084")]


def shared(folder: str) -> Path:
    """A folder of the large collection; the test is skipped where it is not at hand."""
    path = SHARED / folder
    if not path.is_dir():
        pytest.skip(f"the shared data is not beside this checkout ({folder})")
    return path


def blocks_in(folder: str) -> Iterator[RealBlock]:
    """Every block with its full body in a folder of the collection, in whichever of its forms."""
    for path in sorted(shared(folder).rglob("*")):
        name = path.name
        if name.endswith(".jsonl.gz"):
            with gzip.open(path, "rt") as lines:
                for line in lines:
                    found = json.loads(line)
                    yield RealBlock(found["block"], found["receipts"], name)
        elif name.endswith(".io"):
            for line in path.read_text().splitlines():
                result = json.loads(line[2:]).get("result") if line.startswith("<<") else None
                yield from _whole(result, None, f"{path.parent.name}/{name}")
        elif name.endswith((".json", ".json.gz")) and not name.startswith(("receipts", "tx-")):
            found = read(path)
            if isinstance(found, list):  # Erigon's transcripts: requests with their answers.
                for item in found:
                    yield from _whole(item["response"].get("result"), None, f"{path.parent.name}/{name}")
                continue
            receipts = found.get("receipts")
            for beside in path.parent.glob("receipts.json*") if name.startswith("block.json") else ():
                receipts = read(beside)
                receipts = receipts["result"] if isinstance(receipts, dict) else receipts
            yield from _whole(found.get("block") or found.get("result") or found, receipts, str(path.parent.name))


def _whole(block: Any, receipts: list[dict[str, Any]] | None, origin: str) -> Iterator[RealBlock]:
    if isinstance(block, dict) and all(isinstance(item, dict) for item in block["transactions"]):
        yield RealBlock(block, receipts, origin)

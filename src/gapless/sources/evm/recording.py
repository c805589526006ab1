"""A recorded chain: every block and receipt of each branch as a node gave them, and the script of where its head stood.

JSON Lines, usually compressed with gzip:

    {"recording": 1, "kind": "evm", "chain_id": 31337, "client": "…", "contracts": {"token": "0x…"}, "steps": [
        {"head": "0x… hash", "safe": 396, "finalized": 392}, …]}             one line, first
    {"block": {… as eth_getBlockByNumber(…, true) …}, "receipts": [… as eth_getBlockReceipts …]}    one a block
    {"truth": {"transfers": 4709, "balances": {"0x…": "12"}, …}}             optional, last: what must be found

Each step's chain is found from its head by parent hashes, down to block 0; blocks of several branches may stand in any
order. Blocks are kept as the bytes they came in and answered as such.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from gapless.errors import ConfigError

FORMAT = 1
RECORDING_BYTES_MAX = 1 << 30
"""A recording is held in memory; one that unpacks to more is refused."""
_GZIP_MAGIC = b"\x1f\x8b"
_TODO = "Name a file that tools/record_example.py wrote, or take the one that comes with Gapless."


class Step(msgspec.Struct, frozen=True):
    """Where the chain stood at one moment."""

    head: str
    """Hash of the newest block."""
    safe: int
    finalized: int


class Title(msgspec.Struct, frozen=True):
    """The first line."""

    recording: int
    kind: str
    chain_id: int
    steps: list[Step]
    client: str = ""
    contracts: dict[str, str] = {}


class Truth(msgspec.Struct, frozen=True):
    """What an indexer must find on the last step's chain. Balances are the token contract's own `balanceOf`."""

    blocks: int
    transactions: int
    logs: int
    transfers: int
    total_supply: str
    balances: dict[str, str]


class RecordedLog(msgspec.Struct, gc=False, frozen=True):
    """A log as bytes, with what filters look at (lower-case)."""

    address: str
    topics: tuple[str, ...]
    json: bytes


class _Line(msgspec.Struct):
    block: msgspec.Raw = msgspec.Raw()
    receipts: msgspec.Raw = msgspec.Raw()
    truth: Truth | None = None


class _Place(msgspec.Struct, rename="camel"):
    number: str
    hash: str
    parent_hash: str


class _LogFields(msgspec.Struct, gc=False):
    address: str
    topics: list[str]


class _ReceiptFields(msgspec.Struct, rename="camel"):
    transaction_hash: str
    logs: list[msgspec.Raw]


class _TransactionFields(msgspec.Struct):
    hash: str


_LINE = msgspec.json.Decoder(_Line)
_PLACE = msgspec.json.Decoder(_Place)
_LOG = msgspec.json.Decoder(_LogFields)
_RECEIPT = msgspec.json.Decoder(_ReceiptFields)
_TRANSACTION = msgspec.json.Decoder(_TransactionFields)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, eq=False)
class RecordedBlock:
    """One block, equal only to itself; the forms an answer may need are made on first use and kept."""

    number: int
    hash: str
    parent_hash: str
    full: bytes
    """With whole transactions."""
    receipts: bytes

    @cached_property
    def header(self) -> bytes:
        """With transaction hashes in the place of transactions."""
        fields: dict[str, Any] = msgspec.json.decode(self.full)
        fields["transactions"] = [t["hash"] for t in fields["transactions"]]
        return msgspec.json.encode(fields)

    @cached_property
    def receipt_of(self) -> dict[str, bytes]:
        """Receipts by transaction hash."""
        return {_RECEIPT.decode(raw).transaction_hash.lower(): bytes(raw) for raw in _RAWS.decode(self.receipts)}

    @cached_property
    def transaction_of(self) -> dict[str, bytes]:
        """Transactions by hash."""
        fields: dict[str, msgspec.Raw] = msgspec.json.decode(self.full, type=dict[str, msgspec.Raw])
        return {_TRANSACTION.decode(raw).hash.lower(): bytes(raw) for raw in _RAWS.decode(fields["transactions"])}

    @cached_property
    def logs(self) -> tuple[RecordedLog, ...]:
        """In log index order."""
        raws = [raw for receipt in _RAWS.decode(self.receipts) for raw in _RECEIPT.decode(receipt).logs]
        return tuple(_recorded_log(bytes(raw)) for raw in raws)

    @cached_property
    def logs_joined(self) -> bytes:
        """All logs as the inside of a JSON array."""
        return b",".join(log.json for log in self.logs)


def _recorded_log(raw: bytes) -> RecordedLog:
    fields = _LOG.decode(raw)
    return RecordedLog(fields.address.lower(), tuple(topic.lower() for topic in fields.topics), raw)


@dataclass(frozen=True)
class Recording:
    """All of it, with the chain of each step."""

    title: Title
    blocks: dict[str, RecordedBlock]
    """By hash, of every branch."""
    chains: tuple[tuple[RecordedBlock, ...], ...]
    """For each step: its blocks, the one numbered i at index i."""
    truth: Truth | None


def read_recording(path: Path) -> Recording:
    """The recording in a file. Raises ConfigError when the file is missing, damaged or something else."""
    lines = _unpacked(path).splitlines()
    title = _title(lines[0] if lines else b"", path)
    blocks: dict[str, RecordedBlock] = {}
    truth: Truth | None = None
    for number, line in enumerate(lines[1:], start=2):
        try:
            found = _LINE.decode(line)
            if found.truth is not None:
                truth = found.truth
            else:
                block = _block(bytes(found.block), bytes(found.receipts))
                blocks[block.hash] = block
        except (ValueError, msgspec.MsgspecError) as error:
            raise ConfigError(f"Line {number} of the recording {path} cannot be read ({error})", todo=_TODO) from error
    return Recording(title, blocks, tuple(_chain(step, blocks, path) for step in title.steps), truth)


def _unpacked(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP_MAGIC
        with gzip.open(path) if packed else path.open("rb") as stream:
            body: bytes = stream.read(RECORDING_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"The recording {path} cannot be read ({error})", todo=_TODO) from error
    if len(body) > RECORDING_BYTES_MAX:
        raise ConfigError(f"The recording {path} unpacks to more than {RECORDING_BYTES_MAX:,} bytes", todo=_TODO)
    return body


def _title(line: bytes, path: Path) -> Title:
    try:
        title = msgspec.json.decode(line, type=Title)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a recording ({error})", todo=_TODO) from error
    if title.recording != FORMAT or title.kind != "evm":
        raise ConfigError(
            f"The recording {path} has form {title.recording} of kind {title.kind!r}; this Gapless reads form "
            f"{FORMAT} of kind 'evm'",
            todo=_TODO,
        )
    if not title.steps:
        raise ConfigError(f"The recording {path} has no steps: its head is nowhere", todo=_TODO)
    return title


def _block(full: bytes, receipts: bytes) -> RecordedBlock:
    if not full or receipts[:1] != b"[":
        raise ValueError("neither a block with its receipts nor the truth")
    place = _PLACE.decode(full)
    return RecordedBlock(int(place.number, 16), place.hash.lower(), place.parent_hash.lower(), full, receipts)


def _chain(step: Step, blocks: dict[str, RecordedBlock], path: Path) -> tuple[RecordedBlock, ...]:
    """The blocks from 0 to the step's head."""
    chain: list[RecordedBlock] = []
    wanted = step.head.lower()
    while not chain or chain[-1].number > 0:
        block = blocks.get(wanted)
        if block is None or (chain and block.number != chain[-1].number - 1):
            where = f"below block {chain[-1].number}" if chain else "at the head of a step"
            raise ConfigError(f"The recording {path} lacks block {wanted} {where}", todo=_TODO)
        chain.append(block)
        wanted = block.parent_hash
    return tuple(reversed(chain))


def joined(parts: Iterable[bytes]) -> bytes:
    """A JSON array of ready parts; empty ones are left out."""
    return b"".join((b"[", b",".join(filter(None, parts)), b"]"))

"""One block of a scripted chain: what it is made from, its real hashes, and the JSON a node serves for it.

The script (transactions with their logs) is the input; roots, blooms and hashes are computed by the same functions
that verify real chains (`gapless.sources.evm.prove`), so a scripted block passes every level of verification, and a
tampered one fails where a real one would. Signatures are derived bytes that no key ever made: nothing recovers them.
Keys are those that Anvil 1.7 serves, which are go-ethereum's and a few more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.types import Header, Log, Receipt

TRANSFER_TOPIC = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
TOKEN = "0x" + keccak256(b"gapless token")[-20:].hex()
"""The contract that emits a scripted chain's transfers."""
NOBODY = "0x" + "00" * 20


# --- the script ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScriptedLog:
    """A log to be emitted. Address, topics (32 bytes each, at most four) and data are lower-case `0x` text."""

    address: str
    topics: tuple[str, ...]
    data: str = "0x"


@dataclass(frozen=True, slots=True)
class ScriptedTransaction:
    """A transaction to be included, with the logs it emits.

    Types 0 to 4 and 0x7e are encoded as their standards say; of any other the encoding is made up, as nobody but its
    chain knows it. A `salt` makes the transaction the same, hash included, wherever it is included; without one the
    chain derives it from block and index."""

    logs: tuple[ScriptedLog, ...] = ()
    type: int = 2
    status: int = 1
    to: str | None = TOKEN
    """None creates a contract."""
    value: int = 0
    input: str = "0x"
    salt: str = ""


def word(value: int) -> str:
    """An unsigned integer as one 32-byte word of `0x` text."""
    return f"0x{value:064x}"


def holder(index: int) -> str:
    """The address of one of the holders that scripted transfers move tokens between."""
    return "0x" + keccak256(b"holder" + index.to_bytes(8, "big"))[-20:].hex()


def transfer(from_: str, to: str, value: int, *, token: str = TOKEN) -> ScriptedLog:
    """The log of an ERC-20 transfer of `value` base units."""
    topics = (TRANSFER_TOPIC, "0x" + from_[2:].rjust(64, "0"), "0x" + to[2:].rjust(64, "0"))
    return ScriptedLog(token, topics, word(value))


# --- as served -----------------------------------------------------------------------------------------------------


class ServedHeader(Header, gc=False, rename="camel", kw_only=True, omit_defaults=True):
    """A header as nodes serve it; fields its generation does not have are left out."""

    total_difficulty: str


class ServedLog(Log, gc=False, rename="camel", kw_only=True):
    block_timestamp: str


class ServedReceipt(Receipt, gc=False, rename="camel", kw_only=True, omit_defaults=True):
    """A receipt as nodes serve it: `to` and `contractAddress` may be null, fields of other chains are left out."""

    contract_address: str | None
    sender: str = msgspec.field(name="from")
    to: str | None
    blob_gas_price: str
    block_timestamp: str


@dataclass(frozen=True, slots=True)
class ScriptedBlock:
    """A block of a scripted chain. The structs in it are shared with every other reader: never change them."""

    number: int
    timestamp: int
    header: ServedHeader
    transactions: list[dict[str, Any]]
    receipts: list[ServedReceipt]
    script: tuple[ScriptedTransaction, ...]
    """What it was made from, salts filled in: mined again elsewhere, these are the same transactions."""

    @property
    def hash(self) -> str:
        return self.header.hash

    @property
    def parent_hash(self) -> str:
        return self.header.parent_hash

    @property
    def logs(self) -> list[Log]:
        """All of them (as ServedLog), in the order of their indices."""
        return [log for receipt in self.receipts for log in receipt.logs]

    def header_json(self) -> bytes:
        """As `eth_subscribe` pushes it."""
        return _encode(self.header)

    def json(self, *, full: bool) -> bytes:
        """As `eth_getBlockByNumber` answers: with whole transactions, or their hashes."""
        listed = self.transactions if full else [t["hash"] for t in self.transactions]
        tail = b',"uncles":[],"transactions":' + _encode(listed)
        if self.header.withdrawals_root is not None:
            tail += b',"withdrawals":[]'
        return _encode(self.header)[:-1] + tail + b"}"

    def receipts_json(self) -> bytes:
        """As `eth_getBlockReceipts` answers."""
        return _encode(self.receipts)

    def receipt_json(self, index: int) -> bytes:
        """As `eth_getTransactionReceipt` answers."""
        return _encode(self.receipts[index])


_encode = msgspec.json.encode

"""JSON-RPC answers as typed structs: only the fields we use are decoded, the rest of a transaction is kept aside.

Quantities stay `0x…` text as received: they are converted where they are used, exactly. Names are those of the
execution-apis specification. `gc=False`: hot-path structs hold no cycles, and the collector must not scan them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from gapless.sources.evm.logtable import LogTable


class Verify(StrEnum):
    """How much of every answer is checked before it may be committed."""

    OFF = "off"
    LINKED = "linked"
    CHECKED = "checked"
    PROVED = "proved"


@dataclass(frozen=True, slots=True)
class LogClause:
    """Logs of these addresses (None: any) whose first topic is one of these (None: any, anonymous ones too).

    Addresses and topics are lower-case `0x` text."""

    addresses: frozenset[str] | None
    topics: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Wants:
    """What the app asks for; decides how blocks are fetched.

    `logs` is the union of clauses to fetch by filter. `all_logs`: every log of every block (the `logs` dataset).
    `whole_blocks`: transactions and receipts too."""

    logs: tuple[LogClause, ...]
    all_logs: bool = False
    whole_blocks: bool = False
    as_columns: bool = field(default=False, compare=False)
    """Whether the logs may come as columns: all of them become rows of events of one-word parameters."""


class Log(msgspec.Struct, gc=False, rename="camel"):
    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    transaction_index: str
    log_index: str
    removed: bool = False


class Header(msgspec.Struct, gc=False, rename="camel"):
    """A block without its transactions' bodies. Absent fields stay None: never zero, never guessed."""

    number: str
    hash: str
    parent_hash: str
    timestamp: str
    logs_bloom: str
    transactions_root: str | None = None
    receipts_root: str | None = None
    state_root: str | None = None
    sha3_uncles: str | None = None
    miner: str | None = None
    difficulty: str | None = None
    extra_data: str | None = None
    gas_limit: str | None = None
    gas_used: str | None = None
    mix_hash: str | None = None
    nonce: str | None = None
    base_fee_per_gas: str | None = None
    withdrawals_root: str | None = None
    blob_gas_used: str | None = None
    excess_blob_gas: str | None = None
    parent_beacon_block_root: str | None = None
    requests_hash: str | None = None
    size: str | None = None


class Receipt(msgspec.Struct, gc=False, rename="camel"):
    transaction_hash: str
    transaction_index: str
    block_hash: str
    block_number: str
    cumulative_gas_used: str
    gas_used: str
    logs: list[Log]
    logs_bloom: str
    type: str | None = None
    status: str | None = None
    root: str | None = None
    contract_address: str | None = None
    effective_gas_price: str | None = None
    deposit_nonce: str | None = None
    deposit_receipt_version: str | None = None
    blob_gas_used: str | None = None
    blob_gas_price: str | None = None


class RawReceipt(Receipt, gc=False, rename="camel"):
    """A receipt whose logs are not taken apart yet."""

    logs: list[msgspec.Raw]  # type: ignore[assignment]


class FullBlock(Header, gc=False, rename="camel"):
    """A block with its transactions as received: dicts, so that unknown types pass through exactly."""

    transactions: list[dict[str, Any]] = msgspec.field(default_factory=list)
    uncles: list[str] = msgspec.field(default_factory=list)
    withdrawals: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class EvmPayload:
    """The payload of an EVM segment, entry by entry in the same order as `Segment.entries`.

    `logs[i]` are the logs of entry i in log index order: all of them, or those the filter matches. `transactions`
    and `receipts` are there in whole-block mode only."""

    headers: list[Header]
    logs: list[list[Log]]
    transactions: list[list[dict[str, Any]]] = field(default_factory=list)
    receipts: list[list[Receipt]] = field(default_factory=list)
    table: LogTable | None = None
    """The logs as columns, by block and index, where they came so: then `logs` holds none."""
    counts: tuple[int, ...] = ()
    """How many logs of the table each entry has. Then `receipts` are RawReceipts."""

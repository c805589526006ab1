"""Making a scripted block: from a script to transactions, receipts, roots and the hash over them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import shake_256
from typing import Any

import msgspec

from gapless.errors import Contradiction
from gapless.sources.evm import bloom, prove
from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.trie import EMPTY_ROOT, ordered_root
from gapless.sources.evm.types import Header, Log
from gapless.testing.block import (
    NOBODY,
    TOKEN,
    ScriptedBlock,
    ScriptedTransaction,
    ServedHeader,
    ServedLog,
    ServedReceipt,
)

NO_HASH = "0x" + "00" * 32
EMPTY_BLOOM = "0x" + "00" * 256
EMPTY_TRIE = "0x" + EMPTY_ROOT.hex()
EMPTY_UNCLES = "0x" + keccak256(b"\xc0").hex()
EMPTY_REQUESTS = "0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""EIP-7685: the SHA-256 of nothing."""
GAS_LIMIT = 30_000_000
HEADER_BYTES = 0x267
"""What Anvil gives as the size of an empty block."""

HeaderHash = Callable[[Header], str]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all blocks of a chain."""

    chain_id: int
    header_hash: HeaderHash = prove.header_hash


def build_block(
    setting: Setting, parent: ServedHeader | None, timestamp: int, mix: str, script: Sequence[ScriptedTransaction]
) -> ScriptedBlock:
    """The block on top of `parent` (None: the genesis block). `mix` makes it differ from others at its place."""
    number = 0 if parent is None else int(parent.number, 16) + 1
    salted = tuple(t if t.salt else _salted(t, f"{mix}/{i}") for i, t in enumerate(script))
    transactions = [_transaction(t, setting.chain_id) for t in salted]
    encodings = [_encoding(t) for t in transactions]
    for transaction, encoding in zip(transactions, encodings, strict=True):
        transaction["hash"] = "0x" + keccak256(encoding).hex()
    receipts = _receipts(salted, transactions)
    header = _header(number, parent, timestamp, mix)
    if transactions:
        header.transactions_root = "0x" + ordered_root(encodings).hex()
        header.receipts_root = prove.receipts_root(receipts)
        header.gas_used = receipts[-1].cumulative_gas_used
        header.gas_limit = hex(max(GAS_LIMIT, int(header.gas_used, 16)))
        header.size = hex(HEADER_BYTES + sum(map(len, encodings)))
        header.state_root = "0x" + keccak256(f"{header.state_root}{mix}".encode()).hex()
        header.logs_bloom = _bloom_text([log for receipt in receipts for log in receipt.logs])
    header.hash = setting.header_hash(header)
    _place(header, transactions, receipts)
    return ScriptedBlock(number, timestamp, header, transactions, receipts, salted)


def _salted(transaction: ScriptedTransaction, salt: str) -> ScriptedTransaction:
    t = transaction
    return ScriptedTransaction(t.logs, t.type, t.status, t.to, t.value, t.input, salt)


def _header(number: int, parent: ServedHeader | None, timestamp: int, mix: str) -> ServedHeader:
    return ServedHeader(
        hash=NO_HASH,
        parent_hash=NO_HASH if parent is None else parent.hash,
        sha3_uncles=EMPTY_UNCLES,
        miner=NOBODY,
        state_root=EMPTY_TRIE if parent is None else parent.state_root,
        transactions_root=EMPTY_TRIE,
        receipts_root=EMPTY_TRIE,
        logs_bloom=EMPTY_BLOOM,
        difficulty="0x0",
        number=hex(number),
        gas_limit=hex(GAS_LIMIT),
        gas_used="0x0",
        timestamp=hex(timestamp),
        extra_data="0x",
        mix_hash=mix,
        nonce="0x0000000000000000",
        base_fee_per_gas="0x7",
        withdrawals_root=EMPTY_TRIE,
        blob_gas_used="0x0",
        excess_blob_gas="0x0",
        parent_beacon_block_root=NO_HASH,
        requests_hash=EMPTY_REQUESTS,
        total_difficulty="0x0",
        size=hex(HEADER_BYTES),
    )


def _transaction(scripted: ScriptedTransaction, chain_id: int) -> dict[str, Any]:
    """A transaction as served, without its hash and its place."""
    derived = shake_256(scripted.salt.encode()).digest(88)
    fields: dict[str, Any] = {
        "type": hex(scripted.type),
        "chainId": hex(chain_id),
        "nonce": hex(int.from_bytes(derived[84:], "big")),
        "gas": hex(_gas(scripted)),
        "to": scripted.to,
        "value": hex(scripted.value),
        "input": scripted.input,
        "r": hex(int.from_bytes(derived[:32], "big")),
        "s": hex(int.from_bytes(derived[32:64], "big")),
        "from": "0x" + derived[64:84].hex(),
        "gasPrice": "0x3b9aca07",
    }
    if scripted.type == 0:
        return fields | {"v": hex(35 + 2 * chain_id)}
    fields |= {"v": "0x0", "yParity": "0x0", "accessList": []}
    if scripted.type in (2, 3, 4):
        fields |= {"maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x3b9aca00"}
    if scripted.type == 3:
        fields |= {"maxFeePerBlobGas": "0x1", "blobVersionedHashes": ["0x01" + derived[:31].hex()]}
    if scripted.type == 4:
        authorization = {"chainId": hex(chain_id), "address": TOKEN, "nonce": "0x0", "yParity": "0x1"}
        fields |= {"authorizationList": [authorization | {"r": fields["r"], "s": fields["s"]}]}
    if scripted.type == 0x7E:
        fields |= {"sourceHash": "0x" + derived[:32].hex(), "mint": "0x0", "isSystemTx": False}
    return fields


def _gas(scripted: ScriptedTransaction) -> int:
    return 21_000 + 2_000 * len(scripted.logs)


def _encoding(transaction: dict[str, Any]) -> bytes:
    try:
        return prove.transaction_bytes(transaction)
    except Contradiction as error:
        if error.kind != "unknown_transaction_type":
            raise
        return bytes((int(transaction["type"], 16),)) + msgspec.json.encode(transaction)


def _receipts(script: Sequence[ScriptedTransaction], transactions: list[dict[str, Any]]) -> list[ServedReceipt]:
    """Receipts without their block. A failed transaction has no logs: the machine takes them back."""
    receipts: list[ServedReceipt] = []
    gas = position = 0
    for index, (scripted, transaction) in enumerate(zip(script, transactions, strict=True)):
        at, hash_ = hex(index), transaction["hash"]
        logs: list[Log] = []
        for log in scripted.logs if scripted.status else ():
            logs.append(
                ServedLog(
                    address=log.address,
                    topics=list(log.topics),
                    data=log.data,
                    block_number="",
                    block_hash="",
                    transaction_hash=hash_,
                    transaction_index=at,
                    log_index=hex(position),
                    block_timestamp="",
                )
            )
            position += 1
        used = _gas(scripted)
        gas += used
        receipts.append(
            ServedReceipt(
                type=transaction["type"],
                status=hex(scripted.status),
                cumulative_gas_used=hex(gas),
                logs=logs,
                logs_bloom=_bloom_text(logs) if logs else EMPTY_BLOOM,
                transaction_hash=hash_,
                transaction_index=at,
                block_hash="",
                block_number="",
                gas_used=hex(used),
                effective_gas_price=transaction["gasPrice"],
                blob_gas_price="0x1",
                sender=transaction["from"],
                to=scripted.to,
                contract_address=_created(hash_) if scripted.to is None else None,
                block_timestamp="",
            )
        )
    return receipts


def _created(transaction_hash: str) -> str:
    return "0x" + keccak256(bytes.fromhex(transaction_hash[2:]))[-20:].hex()


def _bloom_text(logs: Sequence[Log]) -> str:
    return f"0x{bloom.of_logs(logs):0512x}"


def _place(header: ServedHeader, transactions: list[dict[str, Any]], receipts: list[ServedReceipt]) -> None:
    """Fill in what is known only once the block has its hash."""
    for index, transaction in enumerate(transactions):
        transaction["blockHash"] = header.hash
        transaction["blockNumber"] = header.number
        transaction["transactionIndex"] = hex(index)
        transaction["blockTimestamp"] = header.timestamp
    for receipt in receipts:
        receipt.block_hash = header.hash
        receipt.block_number = header.number
        receipt.block_timestamp = header.timestamp
        for log in receipt.logs:
            log.block_hash = header.hash
            log.block_number = header.number
            if isinstance(log, ServedLog):
                log.block_timestamp = header.timestamp

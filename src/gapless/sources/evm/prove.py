"""Recompute the hashes that commit to a block: header, transactions, receipts, withdrawals.

Sources of the rules: yellow paper section 4.3 and appendix B; EIP-2718 (typed transactions and receipts), EIP-155,
2930, 1559, 4844, 7702 (transaction types), EIP-658 (status), EIP-1559, 4895, 4844, 4788, 7685 (header fields); OP Stack
specification, deposits (0x7e). Every function takes values as JSON-RPC gives them and raises Contradiction of kind
`malformed` where they cannot be encoded.

What no hash commits to, and so nothing here can prove: a transaction's `from` and an authorisation's `authority` (they
follow from signatures, which are not recovered), the `gasPrice` of types 2 to 4, its block hash, number and index
(compared, not hashed), any field that is not part of its type; a receipt's `contractAddress`, `effectiveGasPrice`, and
the `status` of receipts before EIP-658, which have a `root` instead; a block's `size`, `uncles` (only whether there
are any) and total difficulty. Of type 0x7e `from` is hashed, but neither `nonce` nor a signature; of type 0x6a only
`chainId` and `input` are.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gapless.errors import Contradiction
from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.lies import lie
from gapless.sources.evm.rlp import (
    EMPTY_LIST_TEXT,
    EMPTY_TEXT,
    address_text,
    data_text,
    hash_text,
    list_text,
    quantity_text,
)
from gapless.sources.evm.trie import ordered_root
from gapless.sources.evm.types import Header, Log, Receipt

Transaction = Mapping[str, Any]

LEGACY_TYPE = 0
ARBITRUM_INTERNAL_TYPE = 0x6A
DEPOSIT_TYPE = 0x7E
_TOPICS_PREFIX = ("c0", "e1", "f842", "f863", "f884")
"""What stands before a list of so many topics."""
_BLOOM_LENGTH = 2 + 512


_UNREADABLE = (LookupError, ValueError, TypeError, AttributeError)
"""What the text functions raise for values that are not what their field holds."""


def _malformed(error: Exception) -> Contradiction:
    if isinstance(error, KeyError):
        return lie("malformed", f"The field {error} is missing")
    return lie("malformed", f"A value cannot be encoded: {error}")


def _bytes(text: str) -> bytes:
    """The one conversion from text. Lower case is demanded, as tables keep the text and not the bytes."""
    if text.lower() != text:
        raise ValueError("capitals in hex text")
    return unhexlify(text)


def _hex(digest: bytes) -> str:
    return "0x" + digest.hex()


# --- header --------------------------------------------------------------------------------------------------------


def header_hash(header: Header) -> str:
    """The block hash of a header of any generation, from its own fields.

    Later forks append fields: a header is as long as the last of them that is there. A root absent before it is
    encoded as empty; an absent quantity could not be told from zero, and is refused."""
    try:
        fields = [
            hash_text(header.parent_hash),
            hash_text(_there(header.sha3_uncles, "sha3Uncles")),
            address_text(_there(header.miner, "miner")),
            hash_text(_there(header.state_root, "stateRoot")),
            hash_text(_there(header.transactions_root, "transactionsRoot")),
            hash_text(_there(header.receipts_root, "receiptsRoot")),
            _bloom_text(header.logs_bloom),
            quantity_text(_there(header.difficulty, "difficulty")),
            quantity_text(header.number),
            quantity_text(_there(header.gas_limit, "gasLimit")),
            quantity_text(_there(header.gas_used, "gasUsed")),
            quantity_text(header.timestamp),
            data_text(_there(header.extra_data, "extraData")),
            hash_text(_there(header.mix_hash, "mixHash")),
            data_text(_there(header.nonce, "nonce")),
            _later_text(header),
        ]
        return _hex(keccak256(_bytes(list_text("".join(fields)))))
    except _UNREADABLE as error:
        raise _malformed(error) from error


def _there(value: str | None, name: str) -> str:
    if value is None:
        raise KeyError(name)
    return value


def _later_text(header: Header) -> str:
    """The fields that forks appended, up to the last that is there."""
    fields = [
        ("baseFeePerGas", header.base_fee_per_gas, quantity_text),
        ("withdrawalsRoot", header.withdrawals_root, hash_text),
        ("blobGasUsed", header.blob_gas_used, quantity_text),
        ("excessBlobGas", header.excess_blob_gas, quantity_text),
        ("parentBeaconBlockRoot", header.parent_beacon_block_root, hash_text),
        ("requestsHash", header.requests_hash, hash_text),
    ]
    while fields and fields[-1][1] is None:
        fields.pop()
    text = ""
    for name, value, encode in fields:
        if value is None and encode is hash_text:
            text += EMPTY_TEXT
        else:
            text += encode(_there(value, name))
    return text


def _bloom_text(value: str) -> str:
    if len(value) != _BLOOM_LENGTH or value[:2] != "0x":
        raise ValueError("a logs bloom is 256 bytes of 0x text")
    return "b90100" + value[2:]


# --- transactions --------------------------------------------------------------------------------------------------


def transaction_type(transaction: Transaction) -> int:
    """The number of its type; nodes older than EIP-2718 leave it out."""
    text = transaction.get("type")
    try:
        return LEGACY_TYPE if text is None else int(text, 16)
    except _UNREADABLE as error:
        raise _malformed(error) from error


def transaction_bytes(transaction: Transaction) -> bytes:
    """The canonical encoding of a transaction: what its hash is the hash of, and what the transactions trie holds.

    Raises Contradiction `unknown_transaction_type` for types other than 0 to 4, 0x6a and 0x7e; `malformed`."""
    kind = transaction_type(transaction)
    encode = _ENCODERS.get(kind)
    if encode is None:
        raise lie(
            "unknown_transaction_type",
            f"Transaction {transaction.get('hash')} is of type {kind:#x}, whose hash cannot be recomputed: "
            "with the hashing of transactions switched off such a chain is checked, not proved",
        )
    try:
        text = list_text(encode(transaction))
        return _bytes(text if kind == LEGACY_TYPE else f"{kind:02x}{text}")
    except _UNREADABLE as error:
        raise _malformed(error) from error


def transaction_hash(transaction: Transaction) -> str:
    """The hash of a transaction, from its own fields. Raises as `transaction_bytes`."""
    return _hex(keccak256(transaction_bytes(transaction)))


def transactions_root(transactions: Sequence[Transaction]) -> str:
    """The root a header commits to. Raises as `transaction_bytes`."""
    return _hex(ordered_root([transaction_bytes(transaction) for transaction in transactions]))


def hashed_transactions_root(transactions: Sequence[Transaction]) -> tuple[list[str], str]:
    """The hash of each transaction and the root of all, encoding each but once. Raises as `transaction_bytes`."""
    encoded = [transaction_bytes(transaction) for transaction in transactions]
    return ["0x" + keccak256(item).hex() for item in encoded], _hex(ordered_root(encoded))


def _to_text(value: str | None) -> str:
    return EMPTY_TEXT if value is None else address_text(value)


def _access_list_text(items: Sequence[Mapping[str, Any]] | None) -> str:
    """EIP-2930: [[address, [slot, …]], …]."""
    if not items:
        return EMPTY_LIST_TEXT
    pairs = [
        list_text(address_text(item["address"]) + list_text("".join(map(hash_text, item["storageKeys"]))))
        for item in items
    ]
    return list_text("".join(pairs))


def _authorizations_text(items: Sequence[Mapping[str, Any]]) -> str:
    """EIP-7702: [[chain id, address, nonce, y parity, r, s], …]."""
    return list_text("".join([list_text(_authorization_text(item)) for item in items]))


def _authorization_text(item: Mapping[str, Any]) -> str:
    return (
        f"{quantity_text(item['chainId'])}{address_text(item['address'])}{quantity_text(item['nonce'])}"
        f"{_signature_text(item)}"
    )


def _signature_text(item: Mapping[str, Any]) -> str:
    """Parity, r, s. Nodes give the parity as `yParity`, as `v`, or as both, which must then agree."""
    parity, also = item.get("yParity"), item.get("v")
    if parity is None:
        parity = item["v"]
    elif also is not None and also != parity and int(also, 16) != int(parity, 16):
        raise ValueError(f"v is {also} and yParity is {parity}")
    return quantity_text(parity) + quantity_text(item["r"]) + quantity_text(item["s"])


def _legacy_text(tx: Transaction) -> str:
    """Type 0. EIP-155 hides the chain id in v: 35 + 2 * chain id + parity; where it is told as well it must agree."""
    v, chain = tx["v"], tx.get("chainId")
    if chain is not None:
        signed = int(v, 16)
        if signed >= 35 and (signed - 35) >> 1 != int(chain, 16):
            raise ValueError(f"v is {v} and chainId is {chain}")
    return (
        f"{quantity_text(tx['nonce'])}{quantity_text(tx['gasPrice'])}{quantity_text(tx['gas'])}{_to_text(tx['to'])}"
        f"{quantity_text(tx['value'])}{data_text(tx['input'])}"
        f"{quantity_text(v)}{quantity_text(tx['r'])}{quantity_text(tx['s'])}"
    )


def _access_text(tx: Transaction) -> str:
    """Type 1, EIP-2930."""
    return (
        f"{quantity_text(tx['chainId'])}{quantity_text(tx['nonce'])}{quantity_text(tx['gasPrice'])}"
        f"{quantity_text(tx['gas'])}{_to_text(tx['to'])}{quantity_text(tx['value'])}{data_text(tx['input'])}"
        f"{_access_list_text(tx['accessList'])}{_signature_text(tx)}"
    )


def _fees_text(tx: Transaction) -> str:
    """What types 2, 3 and 4 begin with."""
    return (
        f"{quantity_text(tx['chainId'])}{quantity_text(tx['nonce'])}{quantity_text(tx['maxPriorityFeePerGas'])}"
        f"{quantity_text(tx['maxFeePerGas'])}{quantity_text(tx['gas'])}{_to_text(tx['to'])}"
        f"{quantity_text(tx['value'])}{data_text(tx['input'])}{_access_list_text(tx['accessList'])}"
    )


def _dynamic_fee_text(tx: Transaction) -> str:
    """Type 2, EIP-1559."""
    return _fees_text(tx) + _signature_text(tx)


def _blob_text(tx: Transaction) -> str:
    """Type 3, EIP-4844, without the blobs themselves."""
    hashes = list_text("".join(map(hash_text, tx["blobVersionedHashes"])))
    return f"{_fees_text(tx)}{quantity_text(tx['maxFeePerBlobGas'])}{hashes}{_signature_text(tx)}"


def _set_code_text(tx: Transaction) -> str:
    """Type 4, EIP-7702."""
    return _fees_text(tx) + _authorizations_text(tx["authorizationList"]) + _signature_text(tx)


def _deposit_text(tx: Transaction) -> str:
    """Type 0x7e, OP Stack: not signed; `mint` may be null and `isSystemTx` may be left out."""
    mint, system = tx.get("mint"), tx.get("isSystemTx", False)
    if not isinstance(system, bool):
        raise TypeError(f"isSystemTx is {system!r}")
    return (
        f"{hash_text(tx['sourceHash'])}{address_text(tx['from'])}{_to_text(tx['to'])}"
        f"{EMPTY_TEXT if mint is None else quantity_text(mint)}{quantity_text(tx['value'])}{quantity_text(tx['gas'])}"
        f"{'01' if system else EMPTY_TEXT}{data_text(tx['input'])}"
    )


def _arbitrum_internal_text(tx: Transaction) -> str:
    """Type 0x6a, Arbitrum Nitro: the first transaction of each block, made by the sequencer itself and not signed."""
    return quantity_text(tx["chainId"]) + data_text(tx["input"])


_ENCODERS: dict[int, Callable[[Transaction], str]] = {
    LEGACY_TYPE: _legacy_text,
    1: _access_text,
    2: _dynamic_fee_text,
    3: _blob_text,
    4: _set_code_text,
    ARBITRUM_INTERNAL_TYPE: _arbitrum_internal_text,
    DEPOSIT_TYPE: _deposit_text,
}


# --- receipts ------------------------------------------------------------------------------------------------------


def receipt_bytes(receipt: Receipt) -> bytes:
    """The canonical encoding of a receipt: [root or status, cumulative gas, bloom, logs], typed ones behind their
    type (EIP-2718).

    A type we do not know is encoded as all known ones are. Deposits (0x7e) have their nonce and version hashed from
    the version on that introduced it (OP Stack, Canyon), before that neither."""
    try:
        kind = LEGACY_TYPE if receipt.type is None else int(receipt.type, 16)
        root = receipt.root
        if root is not None and len(root) == 66:
            outcome = hash_text(root)
        else:
            outcome = quantity_text(_there(receipt.status, "status"))
        logs = list_text("".join(map(_log_text, receipt.logs)))
        payload = f"{outcome}{quantity_text(receipt.cumulative_gas_used)}{_bloom_text(receipt.logs_bloom)}{logs}"
        if kind == DEPOSIT_TYPE and receipt.deposit_receipt_version is not None:
            nonce = quantity_text(_there(receipt.deposit_nonce, "depositNonce"))
            payload += nonce + quantity_text(receipt.deposit_receipt_version)
        text = list_text(payload)
        return _bytes(text if kind == LEGACY_TYPE else f"{kind:02x}{text}")
    except _UNREADABLE as error:
        raise _malformed(error) from error


def receipts_root(receipts: Sequence[Receipt]) -> str:
    """The root a header commits to. Raises Contradiction `malformed`."""
    return _hex(ordered_root([receipt_bytes(receipt) for receipt in receipts]))


def _log_text(log: Log) -> str:
    """[address, [topic, …], data]."""
    topics = log.topics
    text = f"{address_text(log.address)}{_TOPICS_PREFIX[len(topics)]}"
    for topic in topics:
        if len(topic) != 66 or topic[:2] != "0x":
            raise ValueError(f"{topic[:80]!r} is not a topic")
        text += "a0" + topic[2:]
    return list_text(text + data_text(log.data))


# --- withdrawals ---------------------------------------------------------------------------------------------------


def withdrawals_root(withdrawals: Sequence[Mapping[str, Any]]) -> str:
    """The root a header commits to (EIP-4895). Raises Contradiction `malformed`."""
    try:
        return _hex(ordered_root([_withdrawal_bytes(item) for item in withdrawals]))
    except _UNREADABLE as error:
        raise _malformed(error) from error


def _withdrawal_bytes(item: Mapping[str, Any]) -> bytes:
    return _bytes(
        list_text(
            f"{quantity_text(item['index'])}{quantity_text(item['validatorIndex'])}"
            f"{address_text(item['address'])}{quantity_text(item['amount'])}"
        )
    )

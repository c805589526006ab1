"""The raw tables: every block, transaction and log, field by field.

Names are those of the JSON-RPC specification (ethereum/execution-apis) in snake case; a field that is absent or null
is NULL. Numbers that the specification bounds by less than 64 bits are INT; gas, fees, nonces and values are UINT256,
for chains exist that use all 64 bits and more.

Nothing of a transaction is lost: a field without a column of its own, and a value that its column cannot hold, is kept
as received in the JSON column `extra`. So transactions of types this version has never heard of pass through exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from gapless.errors import check
from gapless.model import Quarantined
from gapless.schema import Column, Column_, Kind, Nature, Rows, Table, canonical_json
from gapless.sources.evm.abi import FIXED_COLUMNS
from gapless.sources.evm.columns import Columns, Irregular, any_bytes, fixed_bytes, integers, joined, quantity, sift
from gapless.sources.evm.events import LOG_COLUMNS, log_columns
from gapless.sources.evm.names import column_names
from gapless.sources.evm.rows import Blocks
from gapless.sources.evm.types import EvmPayload, Header, Log, Receipt

if TYPE_CHECKING:
    from gapless.sources.evm.logtable import LogTable

DATASETS = ("blocks", "transactions", "logs")
TOPICS_MAX = 4

Converter = Callable[[Sequence[Any]], list[str]]


@dataclass(frozen=True, slots=True)
class Field:
    """A JSON-RPC field and its column."""

    key: str
    column: Column


def _fields(kinds: dict[str, Kind]) -> tuple[Field, ...]:
    names = column_names(list(kinds), ())
    columns = (Column(name, kind, nullable=True) for name, kind in zip(names, kinds.values(), strict=True))
    return tuple(Field(key, column) for key, column in zip(kinds, columns, strict=True))


HEADER_FIELDS = _fields(
    {
        "sha3Uncles": Kind.HASH,
        "miner": Kind.ADDRESS,
        "stateRoot": Kind.HASH,
        "transactionsRoot": Kind.HASH,
        "receiptsRoot": Kind.HASH,
        "logsBloom": Kind.BYTES,
        "difficulty": Kind.UINT256,
        "gasLimit": Kind.UINT256,
        "gasUsed": Kind.UINT256,
        "extraData": Kind.BYTES,
        "mixHash": Kind.HASH,
        "nonce": Kind.BYTES,
        "baseFeePerGas": Kind.UINT256,
        "withdrawalsRoot": Kind.HASH,
        "blobGasUsed": Kind.UINT256,
        "excessBlobGas": Kind.UINT256,
        "parentBeaconBlockRoot": Kind.HASH,
        "requestsHash": Kind.HASH,
        "size": Kind.UINT256,
    }
)
TRANSACTION_FIELDS = _fields(
    {
        "type": Kind.INT,
        "from": Kind.ADDRESS,
        "to": Kind.ADDRESS,
        "nonce": Kind.UINT256,
        "value": Kind.UINT256,
        "input": Kind.BYTES,
        "gas": Kind.UINT256,
        "gasPrice": Kind.UINT256,
        "maxFeePerGas": Kind.UINT256,
        "maxPriorityFeePerGas": Kind.UINT256,
        "maxFeePerBlobGas": Kind.UINT256,
        "chainId": Kind.UINT256,
        "accessList": Kind.JSON,
        "blobVersionedHashes": Kind.JSON,
        "authorizationList": Kind.JSON,
        "v": Kind.UINT256,
        "r": Kind.UINT256,
        "s": Kind.UINT256,
        "yParity": Kind.INT,
    }
)
RECEIPT_FIELDS = _fields(
    {
        "status": Kind.INT,
        "root": Kind.HASH,
        "gasUsed": Kind.UINT256,
        "cumulativeGasUsed": Kind.UINT256,
        "effectiveGasPrice": Kind.UINT256,
        "contractAddress": Kind.ADDRESS,
        "blobGasUsed": Kind.UINT256,
        "blobGasPrice": Kind.UINT256,
        "depositNonce": Kind.UINT256,
        "depositReceiptVersion": Kind.UINT256,
    }
)
_EXTRA = Column("extra", Kind.JSON, nullable=True)
_PLACE_KEYS = frozenset({"hash", "blockNumber", "blockHash", "blockTimestamp", "transactionIndex"})
_TRANSACTION_KEYS = _PLACE_KEYS | {f.key for f in TRANSACTION_FIELDS}

_COLUMNS: dict[str, tuple[Column, ...]] = {
    "blocks": (
        Column("number", Kind.INT),
        Column("timestamp", Kind.TIMESTAMP),
        Column("hash", Kind.HASH),
        Column("parent_hash", Kind.HASH),
        *(f.column for f in HEADER_FIELDS),
        _EXTRA,
    ),
    "transactions": (
        *FIXED_COLUMNS[:3],
        Column("transaction_index", Kind.INT),
        Column("hash", Kind.HASH),
        *(f.column for f in TRANSACTION_FIELDS),
        *(f.column for f in RECEIPT_FIELDS),
        _EXTRA,
    ),
    "logs": (
        *FIXED_COLUMNS,
        *(Column(f"topic{n}", Kind.HASH, nullable=True) for n in range(TOPICS_MAX)),
        Column("data", Kind.BYTES),
    ),
}
_KEYS = {
    "blocks": ("number",),
    "transactions": ("block_number", "transaction_index"),
    "logs": ("block_number", "log_index"),
}


def dataset_table(dataset: str, source: str, prefix: str = "") -> Table:
    """The table of a dataset; with a prefix, such as `base_`, where several sources of an app have it."""
    return Table(prefix + dataset, source, Nature.FACT, _COLUMNS[dataset], _KEYS[dataset])


def decode_dataset(dataset: str, table: Table, payload: EvmPayload, blocks: Blocks) -> tuple[Rows, list[Quarantined]]:
    """The dataset's rows of a segment. What cannot be a row (a hash that is none, text that no database stores) is
    quarantined."""
    return _DECODE[dataset](table, payload, blocks)


def log_item(log: Log) -> tuple[str, str]:
    """A log's name within its block, and the log as JSON."""
    try:
        index = str(quantity(log.log_index, 256))
    except Irregular:
        index = log.log_index
    return f"log:{index}", msgspec.json.encode(log).decode()


# --- blocks --------------------------------------------------------------------------------------------------------


def _blocks(table: Table, payload: EvmPayload, blocks: Blocks) -> tuple[Rows, list[Quarantined]]:
    headers = payload.headers

    def build(chosen: Sequence[int]) -> Columns:
        some = [headers[i] for i in chosen]
        strays: list[dict[str, Any]] = [{} for _ in chosen]
        lead = [
            [blocks.numbers[i] for i in chosen],
            [blocks.times[i] for i in chosen],
            fixed_bytes([blocks.hashes[i] for i in chosen], 32),
            fixed_bytes([h.parent_hash for h in some], 32),
        ]
        fields = [_field(f, [getattr(h, f.column.name) for h in some], strays) for f in HEADER_FIELDS]
        return [*lead, *fields, _extra(strays)]

    parts, odd = sift(range(len(headers)), build)
    counts = [1] * len(headers)
    rows = Rows(table, tuple(joined(parts, len(table.columns))), tuple(int(i not in odd) for i in range(len(headers))))
    return rows, blocks.quarantined(table.name, headers, counts, odd, _header_item)


def _header_item(header: Header) -> tuple[str, str]:
    return "block", msgspec.json.encode(header).decode()


# --- transactions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Transaction:
    index: str
    body: dict[str, Any]
    receipt: Receipt | None
    strays: dict[str, Any]
    """What goes to `extra` whatever the columns take."""


def _transactions(table: Table, payload: EvmPayload, blocks: Blocks) -> tuple[Rows, list[Quarantined]]:
    count = len(blocks.positions)
    check(len(payload.transactions) == count, "the transactions dataset is decoded from whole blocks")
    items: list[_Transaction] = []
    counts = []
    for i, bodies in enumerate(payload.transactions):
        items += _placed(bodies, payload.receipts[i] if payload.receipts else [], blocks, i)
        counts.append(len(bodies))
    parts, odd = sift(items, _transaction_columns)
    rows = blocks.rows(table, joined(parts, len(table.columns) - 3), counts, odd)
    return rows, blocks.quarantined(table.name, items, counts, odd, _transaction_item)


def _placed(bodies: list[dict[str, Any]], receipts: list[Receipt], blocks: Blocks, block: int) -> list[_Transaction]:
    """Join a block's transactions with their receipts, by hash: some chains have receipts without a transaction."""
    by_hash = {r.transaction_hash.lower(): r for r in receipts}
    expected = {
        "blockNumber": blocks.positions[block],
        "blockHash": _number(blocks.hashes[block]),
        "blockTimestamp": blocks.seconds[block],
    }
    received = [_number(body.get("transactionIndex"), 63) for body in bodies]
    ordered = all(a is not None and b is not None and a < b for a, b in pairwise(received))
    items = []
    for place, (body, index) in enumerate(zip(bodies, received, strict=True)):
        strays = {key: body[key] for key in body.keys() - _TRANSACTION_KEYS}
        for key, value in expected.items():
            if body.get(key) is not None and _number(body[key]) != value:
                strays[key] = body[key]
        if index is None or not ordered:
            # The index is by definition the place in the block; an answer that says otherwise is kept beside it.
            if body.get("transactionIndex") is not None and index != place:
                strays["transactionIndex"] = body["transactionIndex"]
            index = place
        receipt = by_hash.get(str(body.get("hash")).lower())
        items.append(_Transaction(str(index), body, receipt, strays))
    return items


def _transaction_columns(items: Sequence[_Transaction]) -> Columns:
    bodies = [item.body for item in items]
    strays = [dict(item.strays) for item in items]
    try:
        hashes = fixed_bytes([body.get("hash") or "" for body in bodies], 32)
    except (Irregular, TypeError) as fault:
        raise Irregular(f"hash: {fault}") from fault
    columns: Columns = [[item.index for item in items], hashes]
    columns += [_field(f, [body.get(f.key) for body in bodies], strays) for f in TRANSACTION_FIELDS]
    receipts = [item.receipt for item in items]
    for f in RECEIPT_FIELDS:
        name = f.column.name
        columns.append(_field(f, [None if r is None else getattr(r, name) for r in receipts], strays, "receipt."))
    return [*columns, _extra(strays)]


def _transaction_item(item: _Transaction) -> tuple[str, str]:
    receipt = None if item.receipt is None else msgspec.json.decode(msgspec.json.encode(item.receipt))
    return f"transaction:{item.index}", json.dumps({"transaction": item.body, "receipt": receipt})


def _number(value: Any, bits: int = 256) -> int | None:
    try:
        return quantity(value, bits)
    except (Irregular, AttributeError):
        return None


# --- logs ----------------------------------------------------------------------------------------------------------


def _logs(table: Table, payload: EvmPayload, blocks: Blocks) -> tuple[Rows, list[Quarantined]]:
    if payload.table is not None:
        return blocks.rows(table, _table_columns(payload.table), payload.counts, {}), []
    logs = list(chain.from_iterable(payload.logs))
    counts = list(map(len, payload.logs))
    parts, odd = sift(logs, _raw_log_columns)
    rows = blocks.rows(table, joined(parts, LOG_COLUMNS + TOPICS_MAX + 1), counts, odd)
    return rows, blocks.quarantined(table.name, logs, counts, odd, log_item)


def _table_columns(logs: LogTable) -> Columns:
    """The same columns of logs that came as columns: all of them are as they must be."""
    from gapless.sources.evm.logtable import texts

    topics: list[list[str | None]] = [[None] * len(logs) for _ in range(TOPICS_MAX)]
    data = [""] * len(logs)
    for shape in logs.shapes:
        rows = shape.rows.tolist()
        for column, found in zip(topics, shape.topics, strict=False):
            for row, text in zip(rows, texts(found), strict=True):
                column[row] = text
        for row, text in zip(rows, texts(shape.data), strict=True):
            data[row] = text
    indices = [list(map(str, values.tolist())) for values in (logs.transaction_index, logs.log_index)]
    return [texts(logs.transaction_hash), *indices, texts(logs.address), *topics, data]


def _raw_log_columns(logs: Sequence[Log]) -> Columns:
    topics = [log.topics for log in logs]
    if max(map(len, topics)) > TOPICS_MAX:
        raise Irregular(f"more than {TOPICS_MAX} topics")
    columns = log_columns(logs)
    for n in range(TOPICS_MAX):
        columns.append(_present([t[n] if len(t) > n else None for t in topics], _CONVERTERS[Kind.HASH]))
    return [*columns, any_bytes([log.data for log in logs])]


# --- any field -----------------------------------------------------------------------------------------------------


def _field(field: Field, values: list[Any], strays: list[dict[str, Any]], prefix: str = "") -> Column_:
    """A column; a value it cannot hold becomes NULL and is kept among the row's strays."""
    convert = _CONVERTERS[field.column.kind]
    try:
        return _present(values, convert)
    except _MISFIT:
        column: list[str | None] = []
        for value, stray in zip(values, strays, strict=True):
            try:
                column += _present([value], convert)
            except _MISFIT:
                stray[prefix + field.key] = value
                column.append(None)
        return column


def _present(values: list[Any], convert: Converter) -> Column_:
    there = [v for v in values if v is not None]
    if len(there) == len(values):
        return convert(values)
    if not there:
        return values
    converted = iter(convert(there))
    return [None if v is None else next(converted) for v in values]


def _extra(strays: Sequence[dict[str, Any]]) -> Column_:
    return [_json_text(s) if s else None for s in strays]


def _json_text(value: Any) -> str:
    text = canonical_json(value)
    if _NUL.search(text):
        raise Irregular("text with a NUL character, which Postgres cannot store")
    return text


_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_MISFIT = (Irregular, TypeError, AttributeError)
"""Not text of the right form, or not text at all."""
_CONVERTERS: dict[Kind, Converter] = {
    Kind.HASH: partial(fixed_bytes, size=32),
    Kind.ADDRESS: partial(fixed_bytes, size=20),
    Kind.BYTES: any_bytes,
    Kind.INT: integers,
    Kind.UINT256: lambda values: [str(quantity(v, 256)) for v in values],
    Kind.JSON: lambda values: list(map(_json_text, values)),
}
_DECODE = {"blocks": _blocks, "transactions": _transactions, "logs": _logs}

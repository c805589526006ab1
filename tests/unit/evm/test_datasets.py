"""The raw tables: every field of every block, transaction and log, exactly."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gapless.errors import DecodeError
from gapless.model import Entry, Evidence, Quarantined, Segment
from gapless.schema import Kind, Rows, from_text, to_text
from gapless.sources.evm.datasets import (
    HEADER_FIELDS,
    RECEIPT_FIELDS,
    TRANSACTION_FIELDS,
    dataset_table,
    decode_dataset,
)
from gapless.sources.evm.names import snake_case
from gapless.sources.evm.rows import Blocks
from gapless.sources.evm.types import EvmPayload, FullBlock, Header, Log, Receipt

SHARED = Path(os.environ.get("GAPLESS_SHARED", Path(__file__).resolve().parents[4] / "shared"))
EVM = SHARED / "data/evm"
HASH = "0x" + "ab" * 32
ZERO = "0x" + "00" * 32


def block(number: int, *transactions: dict[str, Any], **fields: Any) -> FullBlock:
    given = {"number": hex(number), "hash": HASH, "parentHash": ZERO, "timestamp": hex(1_700_000_000 + number)}
    bodies = {"logsBloom": "0x" + "00" * 256, "transactions": list(transactions)}
    return msgspec.convert({**given, **bodies, **fields}, FullBlock)


def segment(blocks: list[FullBlock], receipts: list[list[Receipt]] | None = None) -> Segment[EvmPayload]:
    entries = [
        Entry(int(b.number, 16), b.hash, b.parent_hash, int(b.timestamp, 16) * 1_000_000, Evidence.CHECKED)
        for b in blocks
    ]
    receipts = receipts or [[] for _ in blocks]
    logs = [[log for r in group for log in r.logs] for group in receipts]
    payload = EvmPayload(list(blocks), logs, [b.transactions for b in blocks], receipts)
    return Segment("mainnet", tuple(entries), payload, 1)


def dataset(name: str, of: Segment[EvmPayload]) -> tuple[list[dict[str, str | None]], Rows, list[Quarantined]]:
    """Rows as dictionaries, as the store gets them, and what was left out. Every value is canonical."""
    rows, odd = decode_dataset(name, dataset_table(name, of.source), of.payload, Blocks.of(of))
    assert len(rows.columns) == len(rows.table.columns)
    assert {len(c) for c in rows.columns} == {sum(rows.counts)}
    assert len(rows.counts) == len(of.entries)
    for column, values in zip(rows.table.columns, rows.columns, strict=True):
        for value in values:
            assert to_text(column, from_text(column, value)) == value
    names = [c.name for c in rows.table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*rows.columns, strict=True)], rows, odd


def transaction(index: int, **fields: Any) -> dict[str, Any]:
    return {"hash": f"0x{index:064x}", "transactionIndex": hex(index), "from": "0x" + "a1" * 20, **fields}


def receipt(index: int, **fields: Any) -> Receipt:
    place = {
        "transactionHash": f"0x{index:064x}",
        "transactionIndex": hex(index),
        "blockHash": HASH,
        "blockNumber": "0x1",
    }
    gas = {"cumulativeGasUsed": "0x5208", "gasUsed": "0x5208", "logs": [], "logsBloom": "0x"}
    return msgspec.convert({**place, **gas, **fields}, Receipt)


# --- tables --------------------------------------------------------------------------------------------------------


def test_tables_start_with_the_position() -> None:
    """The first column is the block's number, which starts the key; a prefix tells two sources' tables apart."""
    tables = [dataset_table(d, "mainnet") for d in ("blocks", "transactions", "logs")]
    assert [(t.name, t.position_column, t.key[1:]) for t in tables] == [
        ("blocks", "number", ()),
        ("transactions", "block_number", ("transaction_index",)),
        ("logs", "block_number", ("log_index",)),
    ]
    assert dataset_table("logs", "base", "base_").name == "base_logs"
    assert {"from_", "to_"} <= {c.name for c in tables[1].columns}


def test_every_field_that_is_received_has_a_column() -> None:
    """A field added to the structs of the RPC must be added to the tables as well."""
    placed = {"number", "hash", "parent_hash", "timestamp"}
    assert {f.column.name for f in HEADER_FIELDS} | placed == set(Header.__struct_fields__)
    joined = {"transaction_hash", "transaction_index", "block_hash", "block_number", "logs", "logs_bloom", "type"}
    assert {f.column.name for f in RECEIPT_FIELDS} | joined == set(Receipt.__struct_fields__)
    assert {snake_case(f.key) for f in RECEIPT_FIELDS} == {f.column.name for f in RECEIPT_FIELDS}


# --- blocks --------------------------------------------------------------------------------------------------------


def test_a_block_is_its_header() -> None:
    """Absent fields are NULL, numbers exact to 256 bits, bytes in lower case."""
    rows, _, odd = dataset(
        "blocks",
        segment([block(7, difficulty=hex(2**200), nonce="0x00000000000000AB", size=None, gasLimit=hex(2**64 - 1))]),
    )
    assert not odd
    row = rows[0]
    assert (row["number"], row["timestamp"], row["hash"]) == ("7", "2023-11-14T22:13:27Z", HASH)
    assert (row["difficulty"], row["nonce"], row["size"]) == (str(2**200), "0x00000000000000ab", None)
    assert (row["gas_limit"], row["base_fee_per_gas"], row["extra"]) == (str(2**64 - 1), None, None)


def test_a_header_value_its_column_cannot_hold_is_kept() -> None:
    """An odd field neither stops the block nor is lost: the column is NULL and `extra` has it as received."""
    rows, _, odd = dataset("blocks", segment([block(1), block(2, nonce="0x0", mixHash="0x12"), block(3)]))
    assert not odd
    assert [r["extra"] for r in rows] == [None, '{"mixHash":"0x12","nonce":"0x0"}', None]
    assert rows[1]["nonce"] is None


def test_a_block_without_a_hash_is_quarantined() -> None:
    """Hashes are what rows are checked by: a header whose parent is no hash is left out, its siblings are kept."""
    rows, table_rows, odd = dataset("blocks", segment([block(1), block(2, parentHash="0x12"), block(3)]))
    assert [r["number"] for r in rows] == ["1", "3"]
    assert table_rows.counts == (1, 0, 1)
    assert [(q.position, q.item, q.consumer) for q in odd] == [(2, "block", "blocks")]
    assert json.loads(odd[0].payload)["parentHash"] == "0x12"


def test_a_time_beyond_all_calendars_is_an_error() -> None:
    """A chain that counts milliseconds has times that no TIMESTAMP holds: said at once, with the block."""
    with pytest.raises(DecodeError, match="beyond the year 9999") as caught:
        dataset("blocks", segment([block(1, timestamp=hex(10**15))]))
    assert caught.value.position == 1


# --- transactions --------------------------------------------------------------------------------------------------


def test_what_has_no_column_goes_to_extra() -> None:
    """Unknown fields and values of an unknown form pass through as received; null and absent known ones are NULL."""
    odd_one = transaction(
        0, type="0x7e", mint="0x38d7ea4c68000", isSystemTx=False, nested={"a": [1, None]}, value=5, to="0x", gas=None
    )
    rows, _, odd = dataset("transactions", segment([block(1, odd_one, transaction(1, type="0x0", value="0x05"))]))
    assert not odd
    assert (rows[0]["type"], rows[0]["value"], rows[0]["to_"], rows[0]["gas"]) == ("126", None, None, None)
    assert json.loads(rows[0]["extra"] or "") == {
        "mint": "0x38d7ea4c68000",
        "isSystemTx": False,
        "nested": {"a": [1, None]},
        "value": 5,
        "to": "0x",
    }
    assert (rows[1]["value"], rows[1]["extra"]) == ("5", None)


def test_lists_are_canonical_json() -> None:
    """Access list, blob hashes and authorizations are JSON as received; an empty list is not NULL."""
    access = [{"storageKeys": [ZERO], "address": "0x" + "b0" * 20}]
    rows, _, _ = dataset("transactions", segment([block(1, transaction(0, accessList=access, blobVersionedHashes=[]))]))
    assert rows[0]["access_list"] == f'[{{"address":"0x{"b0" * 20}","storageKeys":["{ZERO}"]}}]'
    assert (rows[0]["blob_versioned_hashes"], rows[0]["authorization_list"]) == ("[]", None)


def test_receipts_are_joined_by_hash() -> None:
    """Some chains have receipts without a transaction, or none for one: what belongs together is told by the hash."""
    receipts = [
        receipt(9, status="0x0"),
        receipt(1, status="0x1", effectiveGasPrice="0x7", contractAddress="0x" + "C0" * 20, blobGasPrice="0x1"),
        receipt(2, root=HASH, depositNonce="0x2", gasUsed="nonsense"),
    ]
    bodies = [transaction(i) for i in range(3)]
    rows, _, odd = dataset("transactions", segment([block(1, *bodies)], [receipts]))
    assert not odd
    assert [r["status"] for r in rows] == [None, "1", None]
    assert [r["gas_used"] for r in rows] == [None, "21000", None]
    assert (rows[1]["contract_address"], rows[1]["blob_gas_price"]) == ("0x" + "c0" * 20, "1")
    assert (rows[2]["root"], rows[2]["deposit_nonce"]) == (HASH, "2")
    assert json.loads(rows[2]["extra"] or "") == {"receipt.gasUsed": "nonsense"}


def test_the_place_of_a_transaction_is_not_taken_on_trust() -> None:
    """Indices that repeat would break the key: the place in the block counts then, and what was received is kept."""
    bodies = [
        transaction(0),
        transaction(1),
        transaction(2, transactionIndex="0x1"),
        transaction(3, transactionIndex=None),
    ]
    rows, _, _ = dataset("transactions", segment([block(1, *bodies)]))
    assert [r["transaction_index"] for r in rows] == ["0", "1", "2", "3"]
    assert [r["extra"] for r in rows] == [None, None, '{"transactionIndex":"0x1"}', None]
    rows, _, _ = dataset("transactions", segment([block(1, transaction(5), transaction(6, transactionIndex="0x5"))]))
    assert [r["transaction_index"] for r in rows] == ["0", "1"]
    assert [r["extra"] for r in rows] == ['{"transactionIndex":"0x5"}'] * 2
    rows, _, _ = dataset("transactions", segment([block(1, transaction(49))]))
    assert rows[0]["transaction_index"] == "49"


def test_a_place_that_contradicts_the_block_is_kept() -> None:
    """The row has the block it was found in; a body that names another one keeps its word in `extra`."""
    same = transaction(0, blockNumber="0x01", blockHash=HASH.upper().replace("X", "x"), blockTimestamp="0x6553f101")
    other = transaction(1, blockNumber="0x2", blockHash=ZERO, blockTimestamp=1)
    rows, _, _ = dataset("transactions", segment([block(1, same, other)]))
    assert rows[0]["extra"] is None
    assert json.loads(rows[1]["extra"] or "") == {"blockNumber": "0x2", "blockHash": ZERO, "blockTimestamp": 1}


def test_a_transaction_that_no_database_holds_is_quarantined() -> None:
    """A body without a hash, or with a NUL in its text: left out whole, with both halves, siblings kept."""
    bodies = [transaction(0), transaction(1, memo="a\0b"), transaction(2), transaction(3, hash=None)]
    rows, table_rows, odd = dataset(
        "transactions", segment([block(1, *bodies), block(2, transaction(0))], [[receipt(1)], []])
    )
    assert [(r["block_number"], r["transaction_index"]) for r in rows] == [("1", "0"), ("1", "2"), ("2", "0")]
    assert table_rows.counts == (2, 1)
    assert [(q.position, q.item, q.consumer) for q in odd] == [
        (1, "transaction:1", "transactions"),
        (1, "transaction:3", "transactions"),
    ]
    assert "NUL" in odd[0].reason
    assert json.loads(odd[0].payload)["transaction"]["memo"] == "a\0b"
    assert json.loads(odd[0].payload)["receipt"]["gasUsed"] == "0x5208"


# --- logs ----------------------------------------------------------------------------------------------------------


def log(index: int, *topics: str, data: str = "0x", **fields: str) -> Log:
    place = {"blockNumber": "0x1", "blockHash": HASH, "transactionHash": ZERO, "transactionIndex": "0x0"}
    body = {"address": "0x" + "a1" * 20, "topics": list(topics), "data": data, "logIndex": hex(index)}
    return msgspec.convert({**place, **body, **fields}, Log)


def test_a_log_is_its_topics_and_data() -> None:
    """Absent topics are NULL; a log that cannot be a row is quarantined, its siblings are kept."""
    logs = [
        log(0),
        log(1, HASH.upper().replace("X", "x"), data="0xAB"),
        log(2, HASH, ZERO, HASH, ZERO, data="0x" + "11" * 100),
        log(3, "0x12"),
        log(4, data="0x1"),
        log(5, *[HASH] * 5),
        log(6, transactionHash="0x"),
        log(7, ZERO),
    ]
    rows, _, odd = dataset("logs", segment([block(1)], [[receipt(0, logs=[])]]))
    assert not rows
    of = segment([block(1)])
    of.payload.logs[0].extend(logs)
    rows, _, odd = dataset("logs", of)
    assert [r["log_index"] for r in rows] == ["0", "1", "2", "7"]
    assert [[r[f"topic{n}"] for n in range(4)] for r in rows] == [
        [None] * 4,
        [HASH, None, None, None],
        [HASH, ZERO, HASH, ZERO],
        [ZERO, None, None, None],
    ]
    assert [r["data"] for r in rows] == ["0x", "0xab", "0x" + "11" * 100, "0x"]
    assert [q.item for q in odd] == ["log:3", "log:4", "log:5", "log:6"]
    assert json.loads(odd[0].payload)["topics"] == ["0x12"]


# --- real blocks ---------------------------------------------------------------------------------------------------


def read(path: Path) -> Any:
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)


def recorded() -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Blocks with their receipts, as nodes of many chains answered."""
    for path in sorted((EVM / "rpc-fixtures").glob("*/*/block.json*")):
        others = list(path.parent.glob("receipts.json*"))
        answer = read(path)
        receipts = read(others[0]) if others else []
        yield str(path), answer.get("result", answer), receipts if isinstance(receipts, list) else receipts["result"]
    for path in sorted((EVM / "chain-blocks").glob("*.gz")):
        for line in gzip.decompress(path.read_bytes()).splitlines():
            yield str(path), json.loads(line)["block"], json.loads(line)["receipts"]
    for path in sorted((EVM / "chain-oddities").rglob("*.json")):
        answer = read(path)
        found = answer.get("result", answer) if isinstance(answer, dict) else None
        if isinstance(found, dict) and "transactions" in found:
            yield str(path), found, []


def normal(kind: Kind, value: Any) -> Any:
    """What a received value means."""
    if kind in (Kind.INT, Kind.UINT256):
        return int(value, 16)
    return value if kind is Kind.JSON else value.lower()


def stored(kind: Kind, text: str) -> Any:
    """What a canonical text means."""
    if kind in (Kind.INT, Kind.UINT256):
        return int(text)
    return json.loads(text) if kind is Kind.JSON else text


def rebuilt(row: dict[str, str | None]) -> dict[str, Any]:
    """A transaction's JSON-RPC object from its row alone, null fields left out."""
    found = {f.key: stored(f.column.kind, text) for f in TRANSACTION_FIELDS if (text := row[f.column.name]) is not None}
    found |= {"hash": row["hash"], "blockHash": row["block_hash"]}
    found |= {"blockNumber": int(row["block_number"] or ""), "transactionIndex": int(row["transaction_index"] or "")}
    extra = json.loads(row["extra"] or "{}")
    return found | {k: v for k, v in extra.items() if not k.startswith("receipt.")}


def received(body: dict[str, Any]) -> dict[str, Any]:
    """The object as received: values by their meaning, null fields left out."""
    kinds = {f.key: f.column.kind for f in TRANSACTION_FIELDS}
    kinds |= {"hash": Kind.HASH, "blockHash": Kind.HASH, "blockNumber": Kind.INT, "transactionIndex": Kind.INT}
    return {
        key: normal(kinds[key], value) if key in kinds else value
        for key, value in body.items()
        if value is not None and key != "blockTimestamp"
    }


def test_no_field_of_a_real_transaction_is_lost() -> None:
    """Transactions of eight chains and many types (0x6a, 0x78 and 0x7e among them): the JSON object is
    rebuilt from the row and equals the one received, field by field, value by value."""
    if not EVM.exists():
        pytest.skip("no shared test data beside the checkout")
    types: set[Any] = set()
    checked = 0
    for origin, body, receipts in recorded():
        bodies = [t for t in body["transactions"] if isinstance(t, dict)]
        full = block(int(body["number"], 16), *bodies, hash=body["hash"], timestamp=body["timestamp"])
        parsed = [msgspec.convert(r, Receipt) for r in receipts or []]
        rows, _, odd = dataset("transactions", segment([full], [parsed]))
        assert not odd, origin
        for row, sent in zip(rows, bodies, strict=True):
            wanted = received(sent)
            missing = {"blockHash", "blockNumber", "transactionIndex"} - wanted.keys()
            assert {k: v for k, v in rebuilt(row).items() if k not in missing} == wanted, origin
            types.add(sent.get("type"))
            checked += 1
    assert checked > 1400
    assert {None, "0x0", "0x2", "0x3", "0x6a", "0x78", "0x7e"} <= types


def test_real_receipts_headers_and_logs_have_their_values() -> None:
    """Every field we know of a real receipt, header and log is in its row; nothing is quarantined."""
    if not EVM.exists():
        pytest.skip("no shared test data beside the checkout")
    logs = 0
    for origin, body, receipts in recorded():
        if "logsBloom" not in body or "parentHash" not in body:
            continue
        full = msgspec.convert({**body, "transactions": [], "uncles": []}, FullBlock)
        full.transactions = [t for t in body["transactions"] if isinstance(t, dict)]
        of = segment([full], [[msgspec.convert(r, Receipt) for r in receipts or []]])
        heads, _, odd = dataset("blocks", of)
        assert not odd, origin
        for f in HEADER_FIELDS:
            value = body.get(f.key)
            text = heads[0][f.column.name]
            assert (text is None) == (value is None), (origin, f.key)
            assert text is None or stored(f.column.kind, text) == normal(f.column.kind, value)
        by_hash = {r["transactionHash"]: r for r in receipts or []}
        for row in dataset("transactions", of)[0]:
            for f in RECEIPT_FIELDS:
                value = by_hash.get(row["hash"], {}).get(f.key)
                text = row[f.column.name]
                assert (text is None) == (value is None), (origin, f.key)
                assert text is None or stored(f.column.kind, text) == normal(f.column.kind, value)
        rows, _, odd = dataset("logs", of)
        assert not odd, origin
        sent = [(hex(int(e["logIndex"], 16)), e["topics"], e["data"]) for r in receipts or [] for e in r["logs"]]
        topics = [[t for n in range(4) if (t := row[f"topic{n}"]) is not None] for row in rows]
        assert [(hex(int(r["log_index"] or "")), t, r["data"]) for r, t in zip(rows, topics, strict=True)] == sent
        logs += len(sent)
    assert logs > 3000

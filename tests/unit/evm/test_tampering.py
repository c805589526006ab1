"""At `proved`, no committed value can change: every field of real blocks is flipped, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gapless.errors import Contradiction
from gapless.sources.evm.types import Verify
from unit.evm.real_blocks import RealBlock, carried

WHOLE = ["mainnet-468179", "mainnet-15537393", "mainnet-19426587", "base-goerli-1041847", "arbitrum-150000000"]
"""Small enough to flip everything."""
SAMPLED = ["mainnet-22431082", "mainnet-22431084", "mainnet-22431086"]
PER_TYPE_MAX = 2
"""Transactions of each type looked at in the larger blocks."""

NOT_COMMITTED = {
    "block": {
        "size",
        "totalDifficulty",
        "transactions",
        "uncles",
        "withdrawals",
        "l1BlockNumber",
        "sendCount",
        "sendRoot",
    },
    "0x0": {"from"},
    "0x1": {"from"},
    "0x2": {"from", "gasPrice"},
    "0x3": {"from", "gasPrice"},
    "0x4": {"from", "gasPrice", "authority"},
    "0x6a": {"from", "to", "value", "gas", "gasPrice", "nonce", "v", "r", "s"},
    "0x7e": {"gasPrice", "nonce", "v", "r", "s"},
    "receipt": {"from", "to", "contractAddress", "effectiveGasPrice", "gasPrice", "gasUsedForL1"}
    | {"l1BlockNumber", "l1Fee", "l1FeeScalar", "l1GasPrice", "l1GasUsed", "blobGasUsed", "blobGasPrice"},
    "log": {"blockTimestamp"},
}
"""What no hash holds, as the docs of `prove` say, and what is not read at all. Everything else must be caught."""

Put = Callable[[Any], None]


def flipped(value: Any) -> Any:
    """Another value of the same kind: the last digit of hex text, the other truth, something for nothing."""
    if value is None:
        return "0x" + "12" * 20
    if isinstance(value, bool):
        return not value
    assert isinstance(value, str)
    if value == "0x":
        return "0x00"
    return value[:-1] + ("1" if value[-1] != "1" else "2")


def leaves(holder: Any, path: str, skip: frozenset[str] = frozenset()) -> Iterator[tuple[str, Any, Put]]:
    """Every plain value below a dict or list, with what puts another in its place."""
    for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        if key in skip:
            continue
        if isinstance(value, dict | list):
            yield from leaves(value, f"{path}.{key}", skip)
        else:
            yield f"{path}.{key}", value, lambda new, key=key: holder.__setitem__(key, new)


def committed(real: RealBlock, per_type_max: int | None) -> Iterator[tuple[str, Any, Put]]:
    """Every value of a block that some hash commits to, or that is compared with one that is."""
    yield from leaves(real.block, "block", frozenset(NOT_COMMITTED["block"]))
    yield from leaves(real.block.get("withdrawals") or [], "withdrawals")
    looked_at: dict[str, int] = {}
    for index, transaction in enumerate(real.block["transactions"]):
        kind = transaction["type"]
        looked_at[kind] = looked_at.get(kind, 0) + 1
        if per_type_max is not None and looked_at[kind] > per_type_max:
            continue
        yield from leaves(transaction, f"transaction {index}", frozenset(NOT_COMMITTED[kind]))
        if real.receipts is not None:
            receipt = real.receipts[index]
            yield from leaves(receipt, f"receipt {index}", frozenset(NOT_COMMITTED["receipt"] | {"logs"}))
            for place, log in enumerate(receipt["logs"]):
                yield from leaves(log, f"receipt {index} log {place}", frozenset(NOT_COMMITTED["log"]))


def survivors(real: RealBlock, per_type_max: int | None, level: Verify) -> tuple[list[str], int]:
    """Values that could be flipped without being refused, and how many were tried."""
    number, passed, tried = real.number, [], 0
    for path, value, put in committed(real, per_type_max):
        put(flipped(value))
        tried += 1
        try:
            real.accept(level, number=number)
        except Contradiction:
            pass
        else:
            passed.append(path)
        put(value)
    real.accept(level, number=number)
    return passed, tried


@pytest.mark.parametrize("name", WHOLE)
def test_no_value_of_a_small_block_can_change(name: str) -> None:
    """Each value of header, withdrawals, transactions, receipts and logs, one at a time: all are refused."""
    passed, tried = survivors(carried(name), None, Verify.PROVED)
    assert tried > 30
    assert passed == []


@pytest.mark.parametrize("name", SAMPLED)
def test_no_value_of_any_transaction_type_can_change(name: str) -> None:
    """The same for two transactions of each type in larger blocks, access lists, blobs and authorisations included."""
    passed, tried = survivors(carried(name), PER_TYPE_MAX, Verify.PROVED)
    assert tried > 30
    assert passed == []


def test_checked_alone_would_not_catch_them() -> None:
    """The test can fail: at `checked` a good part of the same changes passes."""
    passed, tried = survivors(carried("mainnet-15537393"), None, Verify.CHECKED)
    assert 10 < len(passed) < tried
    assert "block.stateRoot" in passed
    assert "receipt 0 log 0.data" in passed


def test_what_is_said_not_to_be_committed_is_not() -> None:
    """The docs of `prove` do not understate: those values pass at `proved`."""
    for field in ("from", "gasPrice"):
        real = carried("mainnet-19426587")
        transaction = next(item for item in real.block["transactions"] if item["type"] == "0x2")
        transaction[field] = flipped(transaction[field])
        real.accept(Verify.PROVED)


@pytest.mark.parametrize("name", WHOLE + SAMPLED)
def test_no_field_can_be_left_out(name: str) -> None:
    """A field of the header or of a transaction that is gone is refused, but for those that mean the same absent: the
    legacy type and the chain id that v holds, one of two names of the parity, and no mint."""
    real = carried(name)
    number = real.number
    decoded = {"number", "hash", "parentHash", "timestamp", "logsBloom"}
    holders = [(real.block, NOT_COMMITTED["block"] | decoded)]
    for transaction in {item["type"]: item for item in real.block["transactions"]}.values():
        kind = transaction["type"]
        same = {"0x0": {"type", "chainId"}, "0x7e": {"mint"}, "0x6a": set()}.get(kind, {"v", "yParity"})
        holders.append((transaction, NOT_COMMITTED[kind] | same))
    for holder, skip in holders:
        for key in set(holder) - skip:
            value = holder.pop(key)
            with pytest.raises(Contradiction):
                real.accept(Verify.PROVED, number=number)
            holder[key] = value
    real.accept(Verify.PROVED, number=number)


def test_no_item_can_be_left_out_added_or_moved() -> None:
    """Transactions, receipts, logs and withdrawals: each list is whole and in order, or refused."""
    real = carried("mainnet-19426587")
    assert real.receipts
    with_logs = next(receipt["logs"] for receipt in real.receipts if len(receipt["logs"]) > 1)
    number = real.number
    for items in (real.block["transactions"], real.receipts, with_logs, real.block["withdrawals"]):
        kept = list(items)
        for changed in (kept[:-1], kept[1:], [*kept, kept[-1]], kept[::-1], [kept[1], kept[0], *kept[2:]], []):
            items[:] = changed
            with pytest.raises(Contradiction):
                real.accept(Verify.PROVED, number=number)
            items[:] = kept
    real.accept(Verify.PROVED, number=number)

"""Recomputed hashes equal those of real chains, of every header generation and transaction type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gapless.errors import Contradiction
from gapless.sources.evm import prove
from gapless.sources.evm.types import FullBlock
from unit.evm.real_blocks import RealBlock, all_carried, blocks_in, carried

EMPTY = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"


def prove_all(real: RealBlock, header: bool = True) -> None:
    full = real.full
    if header:
        assert prove.header_hash(full) == full.hash
    assert prove.hashed_transactions_root(full.transactions) == (
        [item["hash"] for item in full.transactions],
        full.transactions_root,
    )
    assert prove.transactions_root(full.transactions) == full.transactions_root
    if full.withdrawals is not None:
        assert prove.withdrawals_root(full.withdrawals) == full.withdrawals_root
    if real.receipts is not None:
        assert prove.receipts_root(real.typed_receipts) == full.receipts_root


def refused(kind: str, act: Callable[[], object]) -> str:
    with pytest.raises(Contradiction) as caught:
        act()
    assert caught.value.kind == kind
    return caught.value.what


def transaction(name: str, kind: str) -> dict[str, Any]:
    return next(dict(item) for item in carried(name).block["transactions"] if item["type"] == kind)


# --- real chains ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("real", all_carried(), ids=lambda real: real.origin)
def test_carried_blocks_hash_to_what_they_say(real: RealBlock) -> None:
    """Block hash, transaction hashes and every root, of the blocks each checkout holds."""
    prove_all(real)


def test_the_carried_blocks_hold_every_type_we_know() -> None:
    """What is tested is complete: each type that can be encoded occurs."""
    seen = Counter(prove.transaction_type(item) for real in all_carried() for item in real.block["transactions"])
    assert set(seen) == {0, 1, 2, 3, 4, 0x6A, 0x7E}


@pytest.mark.parametrize(
    ("folder", "count"),
    [
        ("evm/mainnet-run-17686110", 16),
        ("evm/mainnet-run-22431080", 7),
        ("evm/mainnet-fork-boundaries", 9),
        ("evm/mainnet-forks", 10),
        ("evm/mainnet-2026-blocks", 2),
        ("evm/chain-blocks", 11),
        ("evm/era1", 16_384),
        ("evm/rpc-fixtures/ethereum", 3),
        ("evm/rpc-fixtures/polygon", 1),
        ("evm/rpc-fixtures/arbitrum", 1),
        ("evm/execution-apis/tests/eth_getBlockByNumber", 4),
        ("evm/execution-apis/tests/eth_getBlockByHash", 1),
        ("evm/erigon-rpc-tests/mainnet/eth_getBlockByNumber", 8),
        ("evm/erigon-rpc-tests/arb-sepolia/eth_getBlockByNumber", 3),
        ("evm/erigon-rpc-tests/arb-sepolia/eth_getBlockByHash", 1),
        ("taiko/l2-mainnet-blocks", 2),
    ],
)
def test_real_chains_hash_to_what_they_say(folder: str, count: int) -> None:
    """Every block of the collection that is said to follow Ethereum: mainnet from Frontier to 2026, Sepolia, Goerli,
    Polygon, Base, Arbitrum, Taiko."""
    blocks = list(blocks_in(folder))
    assert len(blocks) == count
    for real in blocks:
        prove_all(real)


@pytest.mark.parametrize(("folder", "roots"), [("stable-testnet", True), ("tempo-mainnet", True), ("cronos", False)])
def test_chains_that_hash_otherwise_are_told_apart(folder: str, roots: bool) -> None:
    """Their block hash is not ours to recompute, and is not taken for right by chance."""
    for real in blocks_in(f"evm/rpc-fixtures/{folder}"):
        assert prove.header_hash(real.full) != real.block["hash"]
        if roots:
            prove_all(real, header=False)


# --- headers -------------------------------------------------------------------------------------------------------


def test_a_field_of_a_later_fork_is_not_guessed() -> None:
    """A header is as long as its last field: one cut off, or one added, is another block."""
    full = carried("mainnet-22431084").full
    assert prove.header_hash(full) == full.hash
    for name in ("requests_hash", "parent_beacon_block_root", "withdrawals_root"):
        assert prove.header_hash(msgspec.structs.replace(full, **{name: None})) != full.hash
    earlier = carried("mainnet-15537393").full
    assert prove.header_hash(msgspec.structs.replace(earlier, withdrawals_root=EMPTY)) != earlier.hash


def test_an_absent_quantity_is_not_zero() -> None:
    """Before later fields it would be encoded as zero is, and a table would show nothing where the block says 0."""
    full = carried("mainnet-19426587").full
    assert full.excess_blob_gas == "0x0"
    for name in ("excess_blob_gas", "blob_gas_used", "base_fee_per_gas"):
        refused("malformed", lambda n=name: prove.header_hash(msgspec.structs.replace(full, **{n: None})))


def test_a_header_that_cannot_be_encoded_is_malformed() -> None:
    """Missing fields, no hex, capitals, wrong lengths: malformed, not an accident."""
    full = carried("mainnet-19426587").full
    for name, value in (
        ("miner", None),
        ("mix_hash", None),
        ("miner", "0x12"),
        ("state_root", full.state_root + "00"),
        ("state_root", full.state_root.upper().replace("X", "x")),
        ("logs_bloom", "0x00"),
        ("gas_used", "12"),
        ("gas_used", "0xzz"),
        ("extra_data", "0xabc"),
        ("extra_data", "0x12 4"),
    ):
        refused("malformed", lambda n=name, v=value: prove.header_hash(msgspec.structs.replace(full, **{n: v})))


# --- transactions --------------------------------------------------------------------------------------------------


def test_unknown_types_are_named() -> None:
    """A type nobody told us how to hash is a case of its own, so that callers can decide."""
    known = transaction("mainnet-22431082", "0x2")
    for kind in ("0x5", "0x64", "0x76", "0xff"):
        what = refused("unknown_transaction_type", lambda k=kind: prove.transaction_hash({**known, "type": k}))
        assert kind in what


def test_the_type_may_be_left_out_of_legacy_transactions() -> None:
    """Nodes older than EIP-2718 do not write it."""
    legacy = transaction("mainnet-22431082", "0x0")
    del legacy["type"]
    assert prove.transaction_hash(legacy) == legacy["hash"]


def test_padded_quantities_are_the_same_number() -> None:
    """Some nodes write r and s with leading zeros."""
    known = transaction("mainnet-22431082", "0x2")
    padded = {**known, "r": "0x" + known["r"][2:].zfill(66), "value": "0x00" + known["value"][2:]}
    assert prove.transaction_hash(padded) == known["hash"]


def test_parity_told_twice_must_agree() -> None:
    """`v` and `yParity` are one field under two names."""
    known = transaction("mainnet-22431082", "0x2")
    other = "0x0" if known["v"] == "0x1" else "0x1"
    assert prove.transaction_hash({**known, "yParity": known["v"]}) == known["hash"]
    refused("malformed", lambda: prove.transaction_hash({**known, "yParity": other}))
    refused("malformed", lambda: prove.transaction_hash({**known, "yParity": known["v"], "v": other}))


def test_the_chain_id_of_a_legacy_transaction_must_agree() -> None:
    """EIP-155 hides it in v; told beside it, it is the same."""
    legacy = next(
        t for t in carried("mainnet-22431082").block["transactions"] if t["type"] == "0x0" and t["v"] > "0x1c"
    )
    assert prove.transaction_hash({**legacy, "chainId": "0x1"}) == legacy["hash"]
    refused("malformed", lambda: prove.transaction_hash({**legacy, "chainId": "0x38"}))


def test_a_deposit_may_leave_out_what_is_nothing() -> None:
    """`mint` null or absent is nothing, and `isSystemTx` absent is false."""
    deposit = transaction("base-goerli-1041847", "0x7e")
    assert prove.transaction_hash({**deposit, "mint": None}) == deposit["hash"]
    assert prove.transaction_hash({k: v for k, v in deposit.items() if k != "isSystemTx"}) != deposit["hash"]
    refused("malformed", lambda: prove.transaction_hash({**deposit, "isSystemTx": "0x1"}))


def test_a_transaction_that_cannot_be_encoded_is_malformed() -> None:
    """Missing, null or misshapen fields."""
    known = transaction("mainnet-22431082", "0x2")
    for field in ("nonce", "gas", "to", "value", "input", "maxFeePerGas", "accessList", "r", "s"):
        refused("malformed", lambda f=field: prove.transaction_hash({k: v for k, v in known.items() if k != f}))
    for field, value in (("nonce", None), ("nonce", 7), ("value", "5"), ("to", "0x"), ("input", "0xAA"), ("type", "x")):
        refused("malformed", lambda f=field, v=value: prove.transaction_hash({**known, f: v}))


# --- receipts ------------------------------------------------------------------------------------------------------


def test_bytes_cannot_move_between_fields() -> None:
    """Text is refused by length before it is joined: an address of 19 bytes before a topic of 33 would otherwise give
    the very bytes that were hashed, where the address ends in 0xa0, the prefix of a topic."""
    real = carried("mainnet-15537393")
    (receipt,) = real.typed_receipts
    (log,) = receipt.logs
    log.address = log.address[:-2] + "a0"
    honest = prove.receipt_bytes(receipt)
    log.address, log.topics[0] = log.address[:-2], "0xa0" + log.topics[0][2:]
    refused("malformed", lambda: prove.receipt_bytes(receipt))
    log.address, log.topics[0] = log.address + "a0", "0x" + log.topics[0][4:]
    assert prove.receipt_bytes(receipt) == honest


def test_a_deposit_hashes_its_nonce_from_the_version_on_that_introduced_it() -> None:
    """OP Stack: before Canyon neither nonce nor version is in the trie, since then both are."""
    receipt = carried("base-goerli-1041847").typed_receipts[0]
    before = prove.receipt_bytes(receipt)
    receipt.deposit_nonce = "0x10"
    assert prove.receipt_bytes(receipt) == before
    receipt.deposit_receipt_version = "0x1"
    assert prove.receipt_bytes(receipt).endswith(b"\xc0\x10\x01")
    receipt.type = "0x2"
    assert not prove.receipt_bytes(receipt).endswith(b"\x10\x01")


def test_a_receipt_that_cannot_be_encoded_is_malformed() -> None:
    """No outcome, five topics, a short bloom, half bytes of data."""
    (receipt,) = carried("mainnet-15537393").typed_receipts
    (log,) = receipt.logs
    replace = msgspec.structs.replace
    for bad in (
        replace(receipt, status=None),
        replace(receipt, logs_bloom="0x"),
        replace(receipt, type="two"),
        replace(receipt, logs=[replace(log, topics=log.topics * 5)]),
        replace(receipt, logs=[replace(log, data=log.data[:-1])]),
        replace(receipt, logs=[replace(log, address=log.address.upper())]),
    ):
        refused("malformed", lambda b=bad: prove.receipts_root([b]))


def test_withdrawals_that_cannot_be_encoded_are_malformed() -> None:
    """As everything else."""
    assert prove.withdrawals_root([]) == EMPTY
    full: FullBlock = carried("mainnet-19426587").full
    assert full.withdrawals
    for field in ("index", "validatorIndex", "address", "amount"):
        refused("malformed", lambda f=field: prove.withdrawals_root([{**full.withdrawals[0], f: None}]))

"""The ways an EVM answer can contradict itself, the chain, or what was asked: one stable word each.

The words are metric labels and stand in docs/GUARANTEES.md: add to them, never rename.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gapless.errors import Contradiction, check

LIES: Mapping[str, str] = MappingProxyType(
    {
        "malformed": "A value is not what its field holds: no hex, a wrong length, capitals, a missing field.",
        "null_block": "A block that must exist came as null, or did not come at all.",
        "wrong_number": "A block carries another number than the one asked for.",
        "unlinked": "A block's parent hash is not the hash of the block before.",
        "block_hash": "The block hash is not the hash of the header.",
        "transaction_mismatch": "A transaction names another block, number or index than its place, or comes twice.",
        "transaction_hash": "A transaction's hash is not the hash of its content.",
        "unknown_transaction_type": "A transaction is of a type whose hash cannot be recomputed.",
        "transactions_root": "The transactions are not those the header commits to.",
        "withdrawals_root": "The withdrawals are not those the header commits to.",
        "uncles_hash": "The header commits to uncles and none are listed, or the other way round.",
        "null_receipt": "A receipt that must exist came as null.",
        "receipt_count": "There are more or fewer receipts than transactions.",
        "receipt_mismatch": "A receipt contradicts its block, its transaction, its neighbours or its own logs.",
        "receipts_root": "The receipts are not those the header commits to.",
        "out_of_range_log": "A log is of a block that was not asked for.",
        "foreign_log": "A log's block hash is not the header's: it comes from another fork.",
        "removed_log": "A log is marked as removed by a reorganisation.",
        "duplicate_log": "Two logs of a block have one index.",
        "transaction_mixed": "Logs of a block disagree on which transaction stands at which index.",
        "not_asked_for": "A log does not match the filter it was asked with.",
        "not_in_bloom": "The header's bloom denies an address or topic of a log.",
        "empty_for_bloom": "No log came for a block that has some.",
        "bloom_mismatch": "All logs together do not make the header's bloom: some are missing.",
        "audit_mismatch": "Two endpoints gave different logs for a range; found by comparing, not by an answer alone.",
        "index_gap": "The indices of all logs do not run 0, 1, 2, …: some are missing.",
    }
)
"""Kind of lie → what it means."""


def lie(kind: str, what: str, position: int | None = None) -> Contradiction:
    """The error to raise; `kind` is one of `LIES`."""
    check(kind in LIES, f"lies are named in advance, {kind!r} is not")
    return Contradiction(what, kind=kind, position=position)

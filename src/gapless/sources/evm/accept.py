"""What `verify.check_filtered_logs` checks, for logs in columns: all at once, and only to accept.

Nothing here blames anybody. An answer that passes is one the checks of `verify` would pass at every level, and they
would return the same; one that does not is given to them log by log, and they say what is wrong with it, and whether
the level asked for minds. So a doubt costs time and never a verdict.
"""

from __future__ import annotations

from binascii import Error as HexError
from binascii import unhexlify
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gapless.sources.evm import bloom
from gapless.sources.evm.logtable import HASH, Ints, LogTable, Text, all_equal, byte_strings, distinct, joined
from gapless.sources.evm.types import Header, Log, LogClause, Receipt

_BLOOM_BITS = 2048
_BLOOM_TEXT = 2 + _BLOOM_BITS // 4
_INDEX_MAX = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Accepted:
    """Logs that hold, by block and log index, and how many each block has."""

    table: LogTable
    counts: list[int]

    def logs(self) -> list[list[Log]]:
        """The logs of each block, as objects."""
        return self.table.logs(self.counts)

    def followed_by(self, later: Accepted) -> Accepted:
        """These and those of the blocks that come next."""
        return Accepted(joined([self.table, later.table]), self.counts + later.counts)


def merged_columns(parts: Sequence[Accepted]) -> Accepted | None:
    """The logs of the same blocks from the answers to several filters. None where two answers have one log: whether
    they agree on it is seen log by log."""
    table = joined([part.table for part in parts]).in_order()
    return (
        None
        if table is None
        else Accepted(table, [sum(counts) for counts in zip(*[p.counts for p in parts], strict=True)])
    )


def accept(
    headers: Sequence[Header], table: LogTable, clauses: Sequence[LogClause], *, blooms: bool
) -> Accepted | None:
    """The logs of consecutive, checked headers, where everything about them is in order. None where it is not.

    `blooms`: whether the headers' blooms cover their logs."""
    place = table.number - int(headers[0].number, 16)
    if not len(table) or int(place.min()) < 0 or int(place.max()) >= len(headers):
        return None
    if int(table.log_index.max()) > _INDEX_MAX:
        return None
    ordered = table.in_order()
    if ordered is None:
        return None
    if ordered is not table:
        table, place = ordered, ordered.number - int(headers[0].number, 16)
    holds = (
        _of_their_blocks(headers, table, place)
        and _asked_for(table, clauses)
        and _of_one_transaction_each(table, place)
        and (not blooms or _in_blooms(headers, table, place))
    )
    if not holds:
        return None
    return Accepted(table, np.bincount(place, minlength=len(headers)).tolist())


def accept_receipts(
    blocks: Sequence[Header], receipts: Sequence[Sequence[Receipt]], table: LogTable, *, blooms: bool
) -> Accepted | None:
    """All logs of consecutive, checked blocks as their receipts list them, where everything about them is in order.

    `table` are the logs of all receipts, one after the other; the receipts themselves are checked elsewhere."""
    flat = [receipt for of_block in receipts for receipt in of_block]
    each = np.array([len(receipt.logs) for receipt in flat], np.int64)
    of_receipt = np.repeat(np.arange(len(flat)), each)
    if len(of_receipt) != len(table):
        return None
    sizes = [len(of_block) for of_block in receipts]
    block = np.repeat(np.arange(len(blocks)), sizes)
    index = np.concatenate([np.arange(size) for size in sizes])
    place = block[of_receipt]
    counts = np.bincount(place, minlength=len(blocks))
    within = np.arange(len(table)) - (np.cumsum(counts) - counts)[place]
    known = _hashes([receipt.transaction_hash for receipt in flat])
    holds = (
        known is not None
        and bool((table.number == place + int(blocks[0].number, 16)).all())
        and bool((table.log_index == within).all())
        and bool((table.transaction_index == index[of_receipt]).all())
        and bool((table.transaction_hash == known[of_receipt]).all())
        and _of_their_blocks(blocks, table, place)
        and (not blooms or _make_blooms(blocks, flat, block, table, of_receipt))
    )
    return Accepted(table, counts.tolist()) if holds else None


def _hashes(texts: Sequence[str]) -> Text | None:
    if set(map(len, texts)) != {HASH} or not all(map(str.isascii, texts)):
        return None
    return np.frombuffer("".join(texts).encode(), np.uint8).reshape(len(texts), HASH)


def _make_blooms(
    blocks: Sequence[Header], receipts: Sequence[Receipt], block: Ints, table: LogTable, of_receipt: Ints
) -> bool:
    """Whether the logs of each receipt, and of each block, make exactly its bloom."""
    claimed, together = _bits_set(receipts), _bits_set(blocks)
    if claimed is None or together is None:
        return False
    exact = np.zeros_like(claimed)
    exact[of_receipt[:, None], _places.of(table.address)] = 1
    for shape in table.shapes:
        rows = of_receipt[shape.rows]
        for topic in shape.topics:
            exact[rows[:, None], _places.of(topic)] = 1
    if not bool((exact == claimed).all()):
        return False
    made = np.zeros_like(together)
    begins = np.flatnonzero(np.concatenate([[True], block[1:] != block[:-1]]))
    made[block[begins]] = np.maximum.reduceat(exact, begins, axis=0)
    return bool((made == together).all())


def _of_their_blocks(headers: Sequence[Header], table: LogTable, place: Ints) -> bool:
    known = _hashes([header.hash for header in headers])
    return known is not None and bool((table.block_hash == known[place]).all())


def _asked_for(table: LogTable, clauses: Sequence[LogClause]) -> bool:
    """Whether each pair of address and first topic is one that some clause wants."""
    pairs: set[tuple[bytes, bytes | None]] = set()
    for shape in table.shapes:
        addresses, first = distinct(table.address if len(shape.rows) == len(table) else table.address[shape.rows])
        if not shape.topics:
            pairs.update((address, None) for address in addresses)
            continue
        topics, second = distinct(shape.topics[0])
        found = np.unique(first * len(topics) + second).tolist()
        pairs.update((addresses[pair // len(topics)], topics[pair % len(topics)]) for pair in found)
    return all(
        any(
            (c.addresses is None or address.decode() in c.addresses)
            and (c.topics is None or (topic is not None and topic.decode() in c.topics))
            for c in clauses
        )
        for address, topic in pairs
    )


def _of_one_transaction_each(table: LogTable, place: Ints) -> bool:
    """Whether within each block logs come in the order of their transactions, and index and hash name the same."""
    index, text = table.transaction_index, table.transaction_hash
    same_block = place[1:] == place[:-1]
    same_hash = (text[1:] == text[:-1]).all(axis=1)
    same_index = index[1:] == index[:-1]
    if not bool((~same_block | ((same_hash == same_index) & (index[1:] >= index[:-1]))).all()):
        return False
    begins = np.flatnonzero(np.concatenate([[True], ~(same_block & same_hash)]))
    return len(set(byte_strings(text[begins]))) == len(begins)


# --- blooms --------------------------------------------------------------------------------------------------------


def _in_blooms(headers: Sequence[Header], table: LogTable, place: Ints) -> bool:
    """Whether every address and topic is in its block's bloom."""
    blooms = _bits_set(headers)
    if blooms is None:
        return False
    if not _admitted(blooms, table.address, place):
        return False
    for shape in table.shapes:
        at = place if len(shape.rows) == len(table) else place[shape.rows]
        if not all(_admitted(blooms, topic, at) for topic in shape.topics):
            return False
    return True


def _bits_set(bearers: Sequence[Header | Receipt]) -> Text | None:
    """A row for each bloom: the character at i tells of bit i."""
    text = [bearer.logs_bloom for bearer in bearers]
    if set(map(len, text)) != {_BLOOM_TEXT} or not all(bloom[:2] == "0x" for bloom in text):
        return None
    try:
        raw = unhexlify("".join([bloom[2:] for bloom in text]))
    except (HexError, ValueError):
        return None
    packed = np.frombuffer(raw, np.uint8).reshape(len(text), _BLOOM_BITS // 8)
    return np.unpackbits(packed[:, ::-1], axis=1, bitorder="little")


def _admitted(blooms: Text, column: Text, place: Ints) -> bool:
    if all_equal(column):
        bits = np.array(bloom.places(column[0].tobytes()))
        return bool(blooms[np.unique(place)[:, None], bits].all())
    return bool(blooms[place[:, None], _places.of(column)].all())


class _Places:
    """The bits of addresses and topics seen lately: they repeat from block to block."""

    def __init__(self, values_max: int) -> None:
        self._values_max = values_max
        self._rows: dict[bytes, int] = {}
        self._bits = np.empty((0, 3), np.int16)

    def of(self, column: Text) -> np.ndarray:
        """The three bits of each value."""
        values = byte_strings(column)
        rows = list(map(self._rows.get, values))
        if None in rows:
            self._learn([value for value, row in zip(values, rows, strict=True) if row is None], values)
            rows = list(map(self._rows.get, values))
        return self._bits[np.array(rows, np.int64)]

    def _learn(self, unknown: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Where too many are known, all but `values` are forgotten."""
        if len(self._rows) > self._values_max:
            self._rows, self._bits, unknown = {}, self._bits[:0], values
        new = list(dict.fromkeys(unknown))
        found = np.array([bloom.places(value) for value in new], np.int16)
        self._rows |= zip(new, range(len(self._rows), len(self._rows) + len(new)), strict=True)
        self._bits = np.concatenate([self._bits, found])


_places = _Places(bloom.MASKS_CACHED_MAX)

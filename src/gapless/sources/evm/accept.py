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
from gapless.sources.evm.types import Header, Log, LogClause

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


def _of_their_blocks(headers: Sequence[Header], table: LogTable, place: Ints) -> bool:
    hashes = [header.hash.encode() for header in headers]
    if set(map(len, hashes)) != {HASH}:
        return False
    known = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), HASH)
    return bool((table.block_hash == known[place]).all())


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


def _bits_set(headers: Sequence[Header]) -> Text | None:
    """A row for each bloom: the character at i tells of bit i."""
    text = [header.logs_bloom for header in headers]
    if set(map(len, text)) != {_BLOOM_TEXT}:
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
        try:
            rows = np.fromiter(map(self._rows.__getitem__, values), np.int64, len(values))
        except KeyError:
            self._learn(values)
            rows = np.fromiter(map(self._rows.__getitem__, values), np.int64, len(values))
        return self._bits[rows]

    def _learn(self, values: Sequence[bytes]) -> None:
        if len(self._rows) > self._values_max:
            self._rows, self._bits = {}, self._bits[:0]
        new = [value for value in dict.fromkeys(values) if value not in self._rows]
        found = np.array([bloom.places(value) for value in new], np.int16)
        self._rows |= zip(new, range(len(self._rows), len(self._rows) + len(new)), strict=True)
        self._bits = np.concatenate([self._bits, found])


_places = _Places(bloom.MASKS_CACHED_MAX)

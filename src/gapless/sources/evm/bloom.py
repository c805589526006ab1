"""Log blooms: the 2048-bit filter in every header and receipt (yellow paper, section 4.3.1, equations for `M`).

A value (an address or a topic) sets three bits: the low 11 bits of each of the first three byte pairs of its
Keccak-256. Bit 0 is the last bit of the 256 bytes, so a bloom read as one big-endian integer has bit i at `1 << i`:
union is `|`, and a value can only be there if all bits of its mask are. It never denies what is there; it may admit
what is not.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Collection, Iterable
from functools import lru_cache, reduce
from operator import or_
from struct import Struct

from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.types import Log, LogClause

MASKS_CACHED_MAX = 16_384
"""About 10 MB: addresses and topics repeat from block to block."""
CLAUSES_CACHED_MAX = 64

_BIT = tuple(1 << place for place in range(2048))
_pairs = Struct(">3H").unpack_from


@lru_cache(maxsize=MASKS_CACHED_MAX)
def bits(value: bytes | str) -> int:
    """The mask of an address or topic, given as bytes or lower-case `0x` text. Raises ValueError for other text."""
    if isinstance(value, str):
        if value[:2] != "0x" or value.lower() != value:
            raise ValueError(f"{value[:80]!r} is not lower-case 0x text")
        value = unhexlify(value[2:])
    pairs: tuple[int, int, int] = _pairs(keccak256(value))
    first, second, third = pairs
    return _BIT[first & 2047] | _BIT[second & 2047] | _BIT[third & 2047]


def places(text: bytes) -> tuple[int, int, int]:
    """The three bits that an address or topic sets, given as the ASCII bytes of lower-case `0x` text."""
    first, second, third = _pairs(keccak256(unhexlify(text[2:])))
    return first & 2047, second & 2047, third & 2047


def contains(bloom: int, mask: int) -> bool:
    """Whether the bloom admits what the mask stands for (one value or several)."""
    return bloom & mask == mask


def of_values(values: Iterable[str]) -> int:
    """The exact bloom of addresses and topics. Repeated values cost as much as new ones: give a set."""
    return reduce(or_, map(bits, values), 0)


def of_logs(logs: Collection[Log]) -> int:
    """The exact bloom of logs: the address and every topic of each."""
    values = {log.address for log in logs}
    values.update(*[log.topics for log in logs])
    return of_values(values)


def admits(bloom: int, clause: LogClause) -> bool:
    """Whether a block with this bloom can hold a log of the clause: one of its addresses and one of its topics."""
    if not bloom:
        return False
    addresses, topics = _masks(clause)
    return (addresses is None or any(bloom & mask == mask for mask in addresses)) and (
        topics is None or any(bloom & mask == mask for mask in topics)
    )


@lru_cache(maxsize=CLAUSES_CACHED_MAX)
def _masks(clause: LogClause) -> tuple[list[int] | None, list[int] | None]:
    """Masks of the clause's addresses and topics; uncached by value, since a clause may name very many."""
    compute = bits.__wrapped__
    return (
        None if clause.addresses is None else [compute(address) for address in clause.addresses],
        None if clause.topics is None else [compute(topic) for topic in clause.topics],
    )

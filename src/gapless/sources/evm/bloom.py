"""Log blooms: the 2048-bit filter in every header and receipt (yellow paper, section 4.3.1, equations for `M`).

A value (an address or a topic) sets three bits: the low 11 bits of each of the first three byte pairs of its
Keccak-256. Bit 0 is the last bit of the 256 bytes, so a bloom read as one big-endian integer has bit i at `1 << i`:
union is `|`, and a value can only be there if all bits of its mask are. It never denies what is there; it may admit
what is not.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Collection, Iterable
from functools import lru_cache

from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.types import Log, LogClause

MASKS_CACHED_MAX = 16_384
"""About 10 MB: addresses and topics repeat from block to block."""
CLAUSES_CACHED_MAX = 64

_BIT = tuple(1 << place for place in range(2048))


@lru_cache(maxsize=MASKS_CACHED_MAX)
def bits(value: bytes | str) -> int:
    """The mask of an address or topic, given as bytes or lower-case `0x` text. Raises ValueError for no hex."""
    digest = keccak256(value if isinstance(value, bytes) else unhexlify(value[2:]))
    return (
        _BIT[(digest[0] & 7) << 8 | digest[1]]
        | _BIT[(digest[2] & 7) << 8 | digest[3]]
        | _BIT[(digest[4] & 7) << 8 | digest[5]]
    )


def contains(bloom: int, mask: int) -> bool:
    """Whether the bloom admits what the mask stands for (one value or several)."""
    return bloom & mask == mask


def of_values(values: Iterable[str]) -> int:
    """The exact bloom of addresses and topics. Repeated values cost as much as new ones: give a set."""
    bloom = 0
    for value in values:
        bloom |= bits(value)
    return bloom


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

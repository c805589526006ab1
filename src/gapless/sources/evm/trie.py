"""The root of an ordered trie: how a header commits to its transactions, receipts and withdrawals.

Yellow paper, section 4.3.2 and appendix D: a Merkle-Patricia trie whose keys are `rlp(index)`. Keys are handled as
hex text, one character a nibble. No tree is kept: sorted keys are cut into runs that share a nibble, and each run
becomes the bytes of one node. No key is a prefix of another (`rlp` of an integer tells its own length), so no branch
ever holds a value.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Sequence
from functools import lru_cache

from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.rlp import encode_bytes, encode_int, list_prefix, string_prefix

EMPTY_ROOT = keccak256(b"\x80")
"""The root of nothing: 0x56e81f17…b421."""

_PATHS_CACHED_MAX = 1024
_KEYS = tuple(encode_int(index).hex() for index in range(1024))
_ABSENT = tuple(b"\x80" * count for count in range(18))


def ordered_root(items: Sequence[bytes]) -> bytes:
    """The 32-byte root of the trie {rlp(0): items[0], rlp(1): items[1], …}; items are encoded already.

    An empty item cannot be told from an absent one and does not occur: every transaction, receipt and withdrawal
    encodes to at least one byte."""
    count = len(items)
    if not count:
        return EMPTY_ROOT
    # In key order: 0x01…0x7f, then 0x80 (index 0), then 0x8180…, 0x820100….
    order = [*range(1, min(count, 128)), 0, *range(128, count)]
    known = len(_KEYS)
    keys = [_KEYS[index] if index < known else encode_int(index).hex() for index in order]
    return keccak256(_node(keys, [items[index] for index in order], 0, count, 0))


def _node(keys: list[str], values: list[bytes], first: int, end: int, depth: int) -> bytes:
    """The node for `keys[first:end]`, which agree on their first `depth` nibbles."""
    if end - first == 1:
        value = values[first]
        path = _path(keys[first][depth:], "2", "3")
        if len(value) == 1:
            value = encode_bytes(value)
            return b"".join((list_prefix(len(path) + len(value)), path, value))
        prefix = string_prefix(len(value))
        return b"".join((list_prefix(len(path) + len(prefix) + len(value)), path, prefix, value))
    low, high, fork = keys[first], keys[end - 1], depth
    while low[fork] == high[fork]:
        fork += 1
    branch = _branch(keys, values, first, end, fork)
    if fork == depth:
        return branch
    path, child = _path(low[depth:fork], "0", "1"), _reference(branch)
    return list_prefix(len(path) + len(child)) + path + child


def _branch(keys: list[str], values: list[bytes], first: int, end: int, depth: int) -> bytes:
    """The branch for `keys[first:end]`, which differ at nibble `depth`."""
    parts: list[bytes] = []
    slot = 0
    while first < end:
        digit = keys[first][depth]
        stop = first + 1
        while stop < end and keys[stop][depth] == digit:
            stop += 1
        nibble = int(digit, 16)
        if nibble > slot:
            parts.append(_ABSENT[nibble - slot])
        parts.append(_reference(_node(keys, values, first, stop, depth + 1)))
        slot = nibble + 1
        first = stop
    parts.append(_ABSENT[17 - slot])
    payload = b"".join(parts)
    return list_prefix(len(payload)) + payload


def _reference(node: bytes) -> bytes:
    """How a parent names a node: by hash, or by the node itself where that is shorter."""
    return node if len(node) < 32 else b"\xa0" + keccak256(node)


@lru_cache(maxsize=_PATHS_CACHED_MAX)
def _path(nibbles: str, even: str, odd: str) -> bytes:
    """RLP of a hex-prefix encoded path (yellow paper, appendix C); `even` and `odd` tell the kind of node."""
    return encode_bytes(unhexlify(odd + nibbles if len(nibbles) & 1 else even + "0" + nibbles))

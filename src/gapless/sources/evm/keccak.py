"""Keccak-256 as Ethereum uses it: the sponge before NIST changed the padding, so not `hashlib.sha3_256`.

The only door to the library behind it (docs/decisions/0003-keccak-and-trie.md).
"""

from __future__ import annotations

from sha3 import keccak_256


def keccak256(data: bytes) -> bytes:
    """The 32-byte Keccak-256 digest of `data` (yellow paper, section 3, `KEC`)."""
    digest: bytes = keccak_256(data).digest()
    return digest

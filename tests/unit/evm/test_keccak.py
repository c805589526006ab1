"""The hash everything else stands on."""

from __future__ import annotations

import hashlib

from gapless.sources.evm.keccak import keccak256


def test_it_is_keccak_and_not_sha3() -> None:
    """The known digests of nothing and of `abc`; the standardised SHA-3 pads differently and gives others."""
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"abc").hex() == "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"
    assert keccak256(b"abc") != hashlib.sha3_256(b"abc").digest()

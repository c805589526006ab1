"""Public keys and signatures: did:key, Multikey and the older forms of DID documents, for k256 and p256.

Cryptography specification: ECDSA over SHA-256; a signature is r and s in 64 bytes, s the lower of its two values.
k256 is checked by libsecp256k1, many times faster than OpenSSL; p256 by OpenSSL. This module is the only door to both
(docs/decisions/0006-atproto-libraries.md).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

import libipld
from coincurve import PublicKey as K256Key
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from gapless.sources.atproto.refusals import refusal

Curve = Literal["k256", "p256"]

KEYS_CACHED_MAX: Final = 65_536
_CODEC: dict[bytes, Curve] = {b"\xe7\x01": "k256", b"\x80\x24": "p256"}
_CODEC_OF: dict[Curve, bytes] = {curve: codec for codec, curve in _CODEC.items()}
_LEGACY: dict[str, Curve] = {
    "EcdsaSecp256k1VerificationKey2019": "k256",
    "EcdsaSecp256r1VerificationKey2019": "p256",
}
_ORDER = {
    "k256": 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141,
    "p256": 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551,
}
_LOW_S_MAX = {curve: (order // 2).to_bytes(32, "big") for curve, order in _ORDER.items()}
_ECDSA = ec.ECDSA(SHA256())
_COMPRESSED_LENGTH = 33
DID_KEY = "did:key:"


class PublicKey:
    """A parsed key."""

    __slots__ = ("_k256", "_low_s_max", "_p256", "compressed", "curve")

    def __init__(self, curve: Curve, point: bytes) -> None:
        """`point` is SEC 1 encoded, compressed or not. Raises Contradiction `key`."""
        self.curve: Curve = curve
        self._k256: K256Key | None = None
        self._p256: ec.EllipticCurvePublicKey | None = None
        self._low_s_max = _LOW_S_MAX[curve]
        if not point or point[0] not in (2, 3, 4):
            raise refusal("key", "A public key is not a point in SEC 1 form")
        try:
            if curve == "k256":
                self._k256 = K256Key(point)
                self.compressed = self._k256.format(compressed=True)
            else:
                self._p256 = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
                x = self._p256.public_numbers().x.to_bytes(32, "big")
                self.compressed = bytes((2 + self._p256.public_numbers().y % 2,)) + x
        except ValueError as error:
            raise refusal("key", f"A public key is not a point of the curve {curve}") from error

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the 64 bytes of `signature` sign the message (which is hashed here)."""
        if len(signature) != 64 or signature[32:] > self._low_s_max:
            return False
        encoded = _der(signature)
        if encoded is None:
            return False
        if self._k256 is not None:
            return self._k256.verify(encoded, message)
        if self._p256 is None:
            return False
        try:
            self._p256.verify(encoded, message, _ECDSA)
        except InvalidSignature:
            return False
        return True

    @property
    def did_key(self) -> str:
        """`did:key:z…`: the one text form of a key."""
        return DID_KEY + str(libipld.encode_multibase("z", _CODEC_OF[self.curve] + self.compressed))

    def __repr__(self) -> str:
        return f"PublicKey({self.did_key})"


def _der(signature: bytes) -> bytes | None:
    """The signature as both libraries take it; None where a part is zero."""
    r, s = signature[:32].lstrip(b"\0"), signature[32:].lstrip(b"\0")
    if not r or not s:
        return None
    if r[0] & 0x80:
        r = b"\0" + r
    if s[0] & 0x80:
        s = b"\0" + s
    return b"\x30%c\x02%c%b\x02%c%b" % (len(r) + len(s) + 4, len(r), r, len(s), s)


@lru_cache(maxsize=KEYS_CACHED_MAX)
def parse_did_key(text: str) -> PublicKey:
    """The key of `did:key:z…` or of a Multikey's bare `z…`. Raises Contradiction `key`."""
    data = _base58(text.removeprefix(DID_KEY))
    curve = _CODEC.get(data[:2])
    if curve is None or len(data) != 2 + _COMPRESSED_LENGTH:
        raise refusal("key", f"The key {text[:80]!r} is of an unknown kind")
    return PublicKey(curve, data[2:])


def parse_multikey(kind: str, text: str) -> PublicKey:
    """The key of a DID document's verification method: its `type` and `publicKeyMultibase`.

    The two `…VerificationKey2019` types hold a bare point, today's `Multikey` says itself what it is.
    Raises Contradiction `key`."""
    if kind == "Multikey":
        return parse_did_key(text)
    curve = _LEGACY.get(kind)
    if curve is None:
        raise refusal("key", f"A key of the type {kind[:80]!r}")
    return PublicKey(curve, _base58(text))


def _base58(text: str) -> bytes:
    if not text.startswith("z"):
        raise refusal("key", f"The key {text[:80]!r} is not in base 58")
    try:
        return bytes(libipld.decode_multibase(text)[1])
    except (ValueError, UnicodeError) as error:
        raise refusal("key", f"The key {text[:80]!r} is not in base 58") from error

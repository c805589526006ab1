"""CIDs. Inside they are 36 bytes, as in blocks; text (`bafy…`) is made only at the edges.

The protocol uses one kind ("blessed" in the data model specification): version 1, SHA-256, codec DAG-CBOR for commits,
tree nodes and records, or raw for blobs.
"""

from __future__ import annotations

import re
from hashlib import sha256

import libipld

from gapless.sources.atproto.refusals import refusal

DAG_CBOR = b"\x01\x71\x12\x20"
"""What a CID of a DAG-CBOR block begins with: version, codec, hash function, length."""
RAW = b"\x01\x55\x12\x20"
LENGTH = 36

_BASE32 = re.compile(r"b[a-z2-7]{58}").fullmatch
_TEXT = re.compile(r"[a-zA-Z0-9+=]{8,256}").fullmatch


def cid_of(block: bytes) -> bytes:
    """The CID of a DAG-CBOR block."""
    return DAG_CBOR + sha256(block).digest()


def is_block_cid(cid: object) -> bool:
    """Whether this is the CID of a commit, node or record."""
    return type(cid) is bytes and len(cid) == LENGTH and cid.startswith(DAG_CBOR)


def cid_text(cid: bytes) -> str:
    """Base32 text of a CID: `bafyrei…`."""
    text: str = libipld.encode_cid(cid)
    return text


def parse_cid(text: str) -> bytes:
    """The bytes of a CID of the protocol's kinds from its base32 text. Raises Contradiction `cid_form`."""
    if _BASE32(text) is None:
        raise refusal("cid_form", f"{text[:80]!r} is not a CID of the protocol's kinds")
    cid = bytes(libipld.decode_multibase(text)[1])
    if len(cid) != LENGTH or not cid.startswith((DAG_CBOR, RAW)) or cid_text(cid) != text:
        raise refusal("cid_form", f"{text!r} is not a CID of the protocol's kinds")
    return cid


def is_cid_text(text: str) -> bool:
    """The weak rule of the lexicon format `cid`: anything that may be a CID in some base, but not version 0."""
    return _TEXT(text) is not None and not text.startswith("Qmb")

"""The commit object: what an account signs. It names the account, the revision and the root of the tree.

Repository specification, version 3. The signature is over the object's DAG-CBOR without its field `sig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gapless.sources.atproto.cid import is_block_cid
from gapless.sources.atproto.dagcbor import decode, encode, is_link
from gapless.sources.atproto.keys import PublicKey
from gapless.sources.atproto.limits import COMMIT_OBJECT_BYTES_MAX
from gapless.sources.atproto.refusals import refusal
from gapless.sources.atproto.syntax import is_did, is_tid

VERSION: Final = 3
_FIELDS = frozenset({"did", "rev", "sig", "data", "version"})
_FIELDS_WITH_PREV = _FIELDS | {"prev"}


@dataclass(frozen=True, slots=True)
class SignedCommit:
    """A commit object as read; not yet held against a key."""

    did: str
    rev: str
    data: bytes
    """CID of the tree's root."""
    signature: bytes
    signed: bytes
    """What the signature is over."""

    def is_signed_by(self, key: PublicKey) -> bool:
        return key.verify(self.signature, self.signed)


def read_commit(block: bytes) -> SignedCommit:
    """Read a commit object. `prev` is null today, and was left out or a CID in the past; all of it is signed.

    Raises Contradiction: `commit_form`, `commit_version`, `did`, `rev`, and as `dagcbor.decode`."""
    value = decode(block) if len(block) <= COMMIT_OBJECT_BYTES_MAX else None
    if type(value) is not dict:
        raise refusal("commit_form", "A commit object is not an object, or too large")
    if value.get("version") != VERSION or type(value["version"]) is not int:
        raise refusal("commit_version", f"A commit object of the version {value.get('version')!r}"[:200])
    if value.keys() != _FIELDS_WITH_PREV and value.keys() != _FIELDS:
        raise refusal("commit_form", "A commit object has fields missing or unknown")
    did, rev, signature, data = value["did"], value["rev"], value.pop("sig"), value["data"]
    # One signature in a thousand reads as a CID; it must be a byte string all the same.
    if not is_block_cid(data) or not isinstance(signature, bytes) or is_link(signature):
        raise refusal("commit_form", "A commit object has fields of the wrong type")
    if type(did) is not str or not is_did(did):
        raise refusal("did", "A commit object names no DID")
    if type(rev) is not str or not is_tid(rev):
        raise refusal("rev", "The revision of a commit object is not a TID")
    return SignedCommit(did, rev, data, bytes(signature), encode(value))

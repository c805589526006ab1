"""The ways a frame, commit or repository can fail a check: one stable word each.

The words are metric labels and quarantine reasons: add to them, never rename. What is refused is raised as
`Contradiction` inside the core and becomes a value at its edge (`verification.Outcome`, `frames.Undecodable`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gapless.errors import Contradiction, check

REFUSALS: Mapping[str, str] = MappingProxyType(
    {
        "frame_size": "A frame is larger than the protocol allows.",
        "frame_cbor": "A frame is not two DAG-CBOR objects, one after the other.",
        "frame_shape": "A field of a frame is missing or of the wrong type.",
        "cbor": "A block is not DAG-CBOR.",
        "cbor_form": "A block is DAG-CBOR but not in its one canonical form.",
        "float": "A record holds a number with a fraction, which the data model has not.",
        "data_model": "A record breaks the data model: not an object, a number out of range, a reserved key.",
        "car": "A CAR cannot be read: cut short, a wrong length, a header of another kind.",
        "car_size": "A CAR, or the number of its blocks, is larger than allowed.",
        "cid_form": "A CID is not of the kind the protocol uses (version 1, SHA-256).",
        "block_hash": "A block does not hash to its CID.",
        "record_size": "A record is larger than the protocol allows.",
        "too_many_ops": "A commit has more operations than the protocol allows.",
        "did": "The account is named by something that is not a DID.",
        "rev": "A revision is not a TID.",
        "future_rev": "A revision lies in the future.",
        "commit_missing": "The commit object is not among the blocks.",
        "commit_form": "The commit object is not one: fields missing, unknown or of the wrong type.",
        "commit_version": "The commit object is of a version that is not known.",
        "wrong_did": "The signed commit is another account's.",
        "wrong_rev": "The signed commit is of another revision than the message says.",
        "wrong_commit": "The message names another commit than its blocks do.",
        "op_form": "An operation has an action, CID or previous CID that do not go together.",
        "op_path": "An operation's path is not a collection and a record key.",
        "op_twice": "Two operations of a commit change one record.",
        "record_missing": "The block of a created or updated record is not among the blocks.",
        "signature": "The signature is not the account's.",
        "key": "A public key cannot be read, or is of an unknown kind.",
        "did_document": "A DID document cannot be read, or is another account's.",
        "node_form": "A tree node breaks the rules: order, prefixes, layers, or an empty node.",
        "incomplete": "A tree node that is needed is not among the blocks.",
        "op_mismatch": "The tree does not hold what an operation says.",
        "inversion": "Undoing the operations does not lead back to the previous tree: some are missing or made up.",
        "no_prev_data": "The message does not name the previous tree, so nothing can be proved about it.",
        "too_big": "The sender left out operations or blocks because the commit was too big for it.",
        "rebase": "The sender says that the history was rewritten.",
        "stale_rev": "The revision is not newer than the one held: a replay.",
        "stale_status": "An account's status is older than the one held: a replay, or a host that lags behind.",
        "broken_since": "The commit does not follow the revision held: commits in between are missing.",
        "broken_prev_data": "The commit does not follow the tree held: something changed in between.",
        "ahead": "The sender's tree is another than the one held.",
        "wrong_host": "The sender is not the host that the account's DID document names.",
    }
)
"""Word → what it means."""


def refusal(kind: str, what: str) -> Contradiction:
    """The error to raise; `kind` is one of `REFUSALS`."""
    check(kind in REFUSALS, f"refusals are named in advance, {kind!r} is not")
    return Contradiction(what, kind=kind)

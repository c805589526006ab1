"""Whether a `#commit` or `#sync` may be believed, and what follows if not.

Two halves. `examine_…` looks at the message alone and does the work (hashes, signature, tree); it may run in any order
and in any process. `link_…` holds the result against what is known of the repository, in order, and costs nothing.
`verify_…` is both. All outcomes are values.

| level | what an `OK` says |
|---|---|
| `off` | the message can be read |
| `checked` | sizes, CIDs, the commit object and the operations agree, and it follows the revision and tree held |
| `proved` | as well, the account signed it, and its operations are exactly what happened since the tree before |

A message that is malformed is `REFUSED` and changes nothing: if the repository did move, the next commit will not
follow. A commit that cannot be proved although its account signed it is `BROKEN`: the repository must be fetched.
Nothing that was not signed can make it so at `proved`, or any relay could force fetches, but for what a sender admits
itself: that it left something out (`too_big`, `rebase`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct

from gapless.errors import Contradiction
from gapless.model import Evidence
from gapless.sources.atproto.car import read_car
from gapless.sources.atproto.cid import DAG_CBOR
from gapless.sources.atproto.commit import SignedCommit, read_commit
from gapless.sources.atproto.frames import Commit, Op, Sync
from gapless.sources.atproto.inversion import Change, invert
from gapless.sources.atproto.keys import PublicKey
from gapless.sources.atproto.limits import (
    COMMIT_BLOCKS_BYTES_MAX,
    FUTURE_REV_SECONDS_MAX,
    OPS_MAX,
    RECORD_BYTES_MAX,
    SYNC_BLOCKS_BYTES_MAX,
)
from gapless.sources.atproto.mst import EMPTY_ROOT
from gapless.sources.atproto.refusals import refusal
from gapless.sources.atproto.syntax import is_path, tid_time_us


class Level(StrEnum):
    """How far a message is verified; the configuration's `verify`."""

    OFF = "off"
    CHECKED = "checked"
    PROVED = "proved"


class Verdict(StrEnum):
    OK = "ok"
    """Apply it."""
    STALE = "stale"
    """A replay: pass it over."""
    BAD_SIGNATURE = "bad_signature"
    """Fetch the DID document once more, then verify again with `key_is_fresh`."""
    BROKEN = "broken"
    """The repository is desynchronized: fetch it."""
    REFUSED = "refused"
    """Quarantine it; nothing else changes."""


EVIDENCE = {Level.OFF: Evidence.TRUSTED, Level.CHECKED: Evidence.CHECKED, Level.PROVED: Evidence.PROVED}


@dataclass(frozen=True, slots=True)
class RepoState:
    """What is known of a repository: its revision, and the root of its tree."""

    rev: str
    data: bytes


class Examined(Struct, frozen=True, array_like=True, gc=False):
    """What a message alone shows."""

    verdict: Verdict
    kind: str = ""
    """One of `refusals.REFUSALS`; empty when OK."""
    detail: str = ""
    data: bytes = b""
    """Root of the tree after the message."""
    records: tuple[bytes | None, ...] = ()
    """Blocks of the records, one for each operation; None for a delete."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do with a message."""

    verdict: Verdict
    kind: str = ""
    detail: str = ""
    evidence: Evidence = Evidence.TRUSTED
    state: RepoState | None = None
    """The repository's state if this is applied, or at which to fetch it; None where the message does not show it."""
    linked: bool = False
    """Whether it follows a state that was known, or is the repository's beginning."""
    records: tuple[bytes | None, ...] = ()
    """As in `Examined`, when OK."""


_BROKEN_KINDS = frozenset({"too_big", "rebase", "no_prev_data", "incomplete", "node_form", "op_mismatch", "inversion"})


def examine_commit(message: Commit, key: PublicKey | None, level: Level) -> Examined:
    """What a `#commit` alone shows. `key` is the account's signing key, needed at `proved` only."""
    try:
        return _examine_commit(message, key, level)
    except Contradiction as error:
        return _failed(error)
    except RecursionError:
        return Examined(Verdict.BROKEN, "node_form", "Nodes of the tree lie too deep in each other")


def _failed(error: Contradiction) -> Examined:
    if error.kind in ("signature", "key"):
        return Examined(Verdict.BAD_SIGNATURE, error.kind, error.what)
    verdict = Verdict.BROKEN if error.kind in _BROKEN_KINDS else Verdict.REFUSED
    return Examined(verdict, error.kind, error.what)


def _examine_commit(message: Commit, key: PublicKey | None, level: Level) -> Examined:
    if message.too_big:
        raise refusal("too_big", "The sender left out what was too big")
    if message.rebase:
        raise refusal("rebase", "The sender says that the history was rewritten")
    if level is Level.OFF:
        commit, blocks = _commit_object(message.blocks, None)
        records = tuple([None if op.cid is None else _record(blocks, op.cid) for op in message.ops])
        return Examined(Verdict.OK, data=commit.data, records=records)
    if len(message.blocks) > COMMIT_BLOCKS_BYTES_MAX:
        raise refusal("car_size", f"A commit of {len(message.blocks)} bytes")
    if len(message.ops) > OPS_MAX:
        raise refusal("too_many_ops", f"A commit of {len(message.ops)} operations")
    commit, blocks = _commit_object(message.blocks, message.commit)
    _check_names(commit, message)
    records, changes = _operations(message.ops, blocks)
    if level is Level.PROVED:
        _check_signature(commit, key)
        _check_inversion(message, commit.data, blocks, changes)
    return Examined(Verdict.OK, data=commit.data, records=records)


def _commit_object(car: bytes, cid: bytes | None) -> tuple[SignedCommit, dict[bytes, bytes]]:
    """The commit object and all blocks of a message that names it, or does not."""
    read = read_car(car)
    if cid is not None and read.root != cid:
        raise refusal("wrong_commit", "The message names another commit than its blocks do")
    block = read.blocks.get(read.root)
    if block is None:
        raise refusal("commit_missing", "The commit object is not among the blocks")
    return read_commit(block), read.blocks


def _check_names(commit: SignedCommit, message: Commit | Sync) -> None:
    if commit.did != message.did:
        raise refusal("wrong_did", f"The commit is of {commit.did[:200]}, the message of {message.did[:200]}")
    if commit.rev != message.rev:
        raise refusal("wrong_rev", f"The commit is of the revision {commit.rev}, the message of {message.rev[:40]}")


def _record(blocks: dict[bytes, bytes], cid: bytes) -> bytes:
    record = blocks.get(cid)
    if record is None:
        raise refusal("record_missing", "A record is not among the blocks")
    if len(record) > RECORD_BYTES_MAX:
        raise refusal("record_size", f"A record of {len(record)} bytes")
    return record


def _operations(ops: tuple[Op, ...], blocks: dict[bytes, bytes]) -> tuple[tuple[bytes | None, ...], list[Change]]:
    """The records of the operations, and what they change in the tree."""
    records: list[bytes | None] = []
    changes: list[Change] = []
    paths = set()
    for op in ops:
        action, path, cid, prev = op.action, op.path, op.cid, op.prev
        if action == "create":
            formed = cid is not None and prev is None
        elif action == "update":
            formed = cid is not None
        else:
            formed = action == "delete" and cid is None
        if not formed or (cid is not None and not cid.startswith(DAG_CBOR)):
            raise refusal("op_form", f"The operation {action[:20]!r} with a CID or previous CID it must not have")
        if not is_path(path):
            raise refusal("op_path", f"{path[:200]!r} is not a collection and a record key")
        paths.add(path)
        records.append(None if cid is None else _record(blocks, cid))
        changes.append(Change(path.encode(), cid, prev))
    if len(paths) < len(ops):
        raise refusal("op_twice", "Two operations change one record")
    return tuple(records), changes


def _check_signature(commit: SignedCommit, key: PublicKey | None) -> None:
    if key is None:
        raise refusal("key", "The account's key is not known")
    if not commit.is_signed_by(key):
        raise refusal("signature", "The commit is not signed by the account's key")


def _check_inversion(message: Commit, data: bytes, blocks: dict[bytes, bytes], changes: list[Change]) -> None:
    before = message.prev_data
    if before is None:
        if message.since is not None:
            raise refusal("no_prev_data", "The message does not name the tree before")
        before = EMPTY_ROOT
    if any(op.prev is None and op.action != "create" for op in message.ops):
        raise refusal("no_prev_data", "An operation does not say what the record was before")
    if invert(blocks, data, changes) != before:
        raise refusal("inversion", "Undoing the operations does not lead to the tree before")


def examine_sync(message: Sync, key: PublicKey | None, level: Level) -> Examined:
    """What a `#sync` alone shows."""
    try:
        if len(message.blocks) > SYNC_BLOCKS_BYTES_MAX and level is not Level.OFF:
            raise refusal("car_size", f"A #sync of {len(message.blocks)} bytes")
        commit, _ = _commit_object(message.blocks, None)
        if level is not Level.OFF:
            _check_names(commit, message)
        if level is Level.PROVED:
            _check_signature(commit, key)
    except Contradiction as error:
        return _failed(error)
    return Examined(Verdict.OK, data=commit.data)


def link_commit(
    message: Commit,
    examined: Examined,
    state: RepoState | None,
    *,
    level: Level,
    now_us: int,
    key_is_fresh: bool = False,
) -> Outcome:
    """Hold an examined `#commit` against the repository's state: None where nothing is known of it."""
    early = _early(message, examined, level, now_us, key_is_fresh)
    if early is not None:
        return early
    after = RepoState(message.rev, examined.data)
    if level is not Level.OFF and state is not None:
        if message.rev <= state.rev:
            return Outcome(Verdict.STALE, "stale_rev", f"Revision {state.rev} is held already")
        # Some hosts (arroba, of Bridgy Fed) never write `since`. The tree before is what links, and must be there then.
        if message.since != state.rev and (message.since is not None or message.prev_data is None):
            what = f"It follows {message.since or 'nothing'}, held is {state.rev}"
            return Outcome(Verdict.BROKEN, "broken_since", what, EVIDENCE[level], after)
        if message.prev_data is not None and message.prev_data != state.data:
            what = "It follows another tree than the one held"
            return Outcome(Verdict.BROKEN, "broken_prev_data", what, EVIDENCE[level], after)
    linked = state is not None or (message.since is None and message.prev_data in (None, EMPTY_ROOT))
    return Outcome(Verdict.OK, "", "", EVIDENCE[level], after, linked, examined.records)


def link_sync(
    message: Sync, examined: Examined, state: RepoState | None, *, level: Level, now_us: int, key_is_fresh: bool = False
) -> Outcome:
    """Hold an examined `#sync` against the repository's state. OK: the tree held is the sender's."""
    early = _early(message, examined, level, now_us, key_is_fresh)
    if early is not None:
        return early
    after = RepoState(message.rev, examined.data)
    if state is not None and message.rev < state.rev:
        return Outcome(Verdict.STALE, "stale_rev", f"Revision {state.rev} is held already")
    if state is None or state.data != examined.data:
        return Outcome(
            Verdict.BROKEN, "ahead", "The sender's tree is another than the one held", EVIDENCE[level], after
        )
    return Outcome(Verdict.OK, "", "", EVIDENCE[level], after, linked=True)


def _early(message: Commit | Sync, examined: Examined, level: Level, now_us: int, key_is_fresh: bool) -> Outcome | None:
    """The outcome where the state does not matter."""
    if examined.verdict is not Verdict.OK:
        verdict = examined.verdict
        if verdict is Verdict.BAD_SIGNATURE and key_is_fresh:
            verdict = Verdict.REFUSED
        return Outcome(verdict, examined.kind, examined.detail)
    if level is Level.OFF:
        return None
    ahead_us = tid_time_us(message.rev) - now_us
    if ahead_us > FUTURE_REV_SECONDS_MAX * 1_000_000:
        return Outcome(Verdict.REFUSED, "future_rev", f"The revision is {ahead_us // 1_000_000} s ahead of our clock")
    return None


def verify_commit(
    message: Commit,
    key: PublicKey | None,
    state: RepoState | None,
    *,
    level: Level = Level.PROVED,
    now_us: int,
    key_is_fresh: bool = False,
) -> Outcome:
    """Both halves for one `#commit`."""
    examined = examine_commit(message, key, level)
    return link_commit(message, examined, state, level=level, now_us=now_us, key_is_fresh=key_is_fresh)


def verify_sync(
    message: Sync,
    key: PublicKey | None,
    state: RepoState | None,
    *,
    level: Level = Level.PROVED,
    now_us: int,
    key_is_fresh: bool = False,
) -> Outcome:
    """Both halves for one `#sync`."""
    examined = examine_sync(message, key, level)
    return link_sync(message, examined, state, level=level, now_us=now_us, key_is_fresh=key_is_fresh)

"""Frames of the event streams `com.atproto.sync.subscribeRepos` and `com.atproto.label.subscribeLabels`.

Event stream specification: a frame is two DAG-CBOR objects, a header (`op`, `t`) and a body. The body's `seq` is the
position; `op` is the kind of frame and was mistaken for it more than once. Unknown fields are ignored, and so are
frames of an unknown type or operation, which come out as `Unknown`. What cannot be read comes out as `Undecodable`
with its bytes: values, not exceptions, so that one bad frame costs nothing but itself.

Frames are neither hashed nor signed, so the canonical form is not demanded of them: `dagcbor` is for what is inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import libipld
import msgspec
from msgspec import Meta, Struct, field

from gapless.sources.atproto.limits import FRAME_BYTES_MAX, SEQ_MAX

Seq = Annotated[int, Meta(ge=1, le=SEQ_MAX)]
Link = Annotated[bytes, Meta(min_length=36, max_length=36)]
Did = Annotated[str, Meta(min_length=7, max_length=2048)]

MESSAGE = 1
ERROR = -1


class Op(Struct, frozen=True, gc=False):
    """A record that a commit creates, updates or deletes."""

    action: str
    path: str
    """Collection, slash, record key."""
    cid: Link | None = None
    """None when deleted."""
    prev: Link | None = None
    """What the record was before; frames older than 2025 leave it out."""

    @property
    def collection(self) -> str:
        return self.path.partition("/")[0]

    @property
    def rkey(self) -> str:
        return self.path.partition("/")[2]


class Commit(Struct, frozen=True):
    """`#commit`: a new revision of a repository, with the changed records and a part of the tree."""

    seq: Seq
    did: Did = field(name="repo")
    rev: str
    commit: Link
    blocks: bytes
    """A CAR."""
    ops: tuple[Op, ...]
    time: str
    since: str | None = None
    """The revision before; None for the first. Some relays write an empty text for it."""
    prev_data: Link | None = field(name="prevData", default=None)
    """Root of the tree before; None for the first revision and in frames older than 2025."""
    too_big: bool = field(name="tooBig", default=False)
    rebase: bool = False


class Sync(Struct, frozen=True, gc=False):
    """`#sync`: the repository is at this revision, whatever came before."""

    seq: Seq
    did: Did
    rev: str
    blocks: bytes
    """A CAR with nothing but the commit object."""
    time: str


class Identity(Struct, frozen=True, gc=False):
    """`#identity`: the DID document may have changed."""

    seq: Seq
    did: Did
    time: str
    handle: str | None = None


class Account(Struct, frozen=True, gc=False):
    """`#account`: whether a host serves the account. `active` decides, `status` says why not."""

    seq: Seq
    did: Did
    time: str
    active: bool
    status: str | None = None


class Label(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a labeler says about an account or record. `sig` signs the other fields."""

    src: str
    uri: str
    val: str
    cts: str
    cid: str | None = None
    neg: bool = False
    exp: str | None = None
    ver: int | None = None
    sig: bytes | None = None


class Labels(Struct, frozen=True):
    """`#labels`."""

    seq: int
    labels: tuple[Label, ...]
    raw: tuple[dict[str, Any], ...]
    """The labels as they came: a signature is over these."""


class _LabelsBody(Struct, frozen=True):
    seq: Seq
    labels: tuple[Label, ...]


class Info(Struct, frozen=True, gc=False):
    """`#info`: about the stream itself. `OutdatedCursor`: what was asked for is gone, a gap."""

    name: str
    message: str | None = None


class Failure(Struct, frozen=True, gc=False):
    """An error frame: the host closes the stream after it. `FutureCursor`, `ConsumerTooSlow`."""

    error: str
    message: str | None = None


class Unknown(Struct, frozen=True):
    """A frame of an operation or type that is not known: to be passed over."""

    op: int
    type: str
    seq: int | None
    frame: bytes


class Undecodable(Struct, frozen=True):
    """A frame that cannot be read: for quarantine. `seq` where at least that could be read."""

    frame: bytes
    reason: str
    """One of `refusals.REFUSALS`."""
    detail: str
    seq: int | None = None


RepoFrame = Commit | Sync | Identity | Account | Info | Failure | Unknown | Undecodable
LabelFrame = Labels | Info | Failure | Unknown | Undecodable
Frame = RepoFrame | LabelFrame

_REPO_TYPES: dict[str, Any] = {
    "#commit": Commit,
    "#sync": Sync,
    "#identity": Identity,
    "#account": Account,
    "#info": Info,
}
_LABEL_TYPES: dict[str, Any] = {"#labels": _LabelsBody, "#info": Info}
_BUILTIN = (bytes,)
_convert = msgspec.convert
_split: Callable[[bytes], list[Any]] = libipld.decode_dag_cbor_multi


def decode_frame(frame: bytes) -> RepoFrame:
    """A frame of `subscribeRepos`. Never raises."""
    decoded: RepoFrame = _decode(frame, _REPO_TYPES)
    return decoded


def decode_frames(frames: Iterable[bytes]) -> list[RepoFrame]:
    """Many of them, in order."""
    types = _REPO_TYPES
    return [_decode(frame, types) for frame in frames]


def decode_label_frame(frame: bytes) -> LabelFrame:
    """A frame of `subscribeLabels`. Never raises."""
    decoded: _LabelsBody | LabelFrame = _decode(frame, _LABEL_TYPES)
    if isinstance(decoded, _LabelsBody):
        return Labels(decoded.seq, decoded.labels, tuple(_split(frame)[1]["labels"]))
    return decoded


def _decode(frame: bytes, types: dict[str, Any]) -> Any:
    if len(frame) > FRAME_BYTES_MAX:
        return Undecodable(frame, "frame_size", f"{len(frame)} bytes, {FRAME_BYTES_MAX} are allowed")
    try:
        header, body = _split(frame)
    except (ValueError, RecursionError) as error:
        return Undecodable(frame, "frame_cbor", str(error)[:200])
    if type(header) is not dict or type(body) is not dict:
        return Undecodable(frame, "frame_cbor", "header or body is not an object")
    op, name = header.get("op"), header.get("t")
    if op == MESSAGE and type(op) is int:
        kind = types.get(name) if type(name) is str else None
    elif op == ERROR:
        kind = Failure
    elif type(op) is int:
        kind = None
    else:
        return Undecodable(frame, "frame_shape", "a header without its operation", _seq(body))
    if kind is None:
        return Unknown(op, name if type(name) is str else "", _seq(body), frame)
    if kind is Commit and body.get("since") == "":
        body["since"] = None
    try:
        return _convert(body, kind, builtin_types=_BUILTIN)
    except msgspec.ValidationError as error:
        return Undecodable(frame, "frame_shape", f"{name or 'error frame'}: {error}", _seq(body))


def _seq(body: dict[str, Any]) -> int | None:
    seq = body.get("seq")
    return seq if type(seq) is int and 1 <= seq <= SEQ_MAX else None

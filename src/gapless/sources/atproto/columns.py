"""Verified commits as columns: what the table `record` is written from.

One row for each operation, in the order of the messages. A delete is a row without CID and record: the tombstone that
keeps an older create from coming back. A record that is none of the data model keeps its row, because the tree holds
it, and comes out as unreadable with its bytes; its siblings are not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from gapless.errors import Contradiction
from gapless.sources.atproto.cid import cid_text
from gapless.sources.atproto.frames import Commit
from gapless.sources.atproto.record import record_json
from gapless.sources.atproto.repository import Record

COLLECTIONS_CACHED_MAX = 10_000
"""Names of collections whose selection is remembered; anyone may make up names."""


class CollectionFilter:
    """Which collections are wanted: names, or prefixes that end in `.*`; none at all means every one."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        names = frozenset(pattern for pattern in patterns if not pattern.endswith(".*"))
        prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith(".*"))

        @lru_cache(maxsize=COLLECTIONS_CACHED_MAX)
        def wants(collection: str) -> bool:
            return not patterns or collection in names or collection.startswith(prefixes)

        self.wants = wants


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record whose block is no record of the data model."""

    uri: str
    seq: int
    """The message's; 0 for one that came out of a repository."""
    kind: str
    """One of `refusals.REFUSALS`."""
    detail: str
    block: bytes


@dataclass(slots=True)
class RecordColumns:
    """Rows of `record`, column by column, all of one length."""

    seq: list[int] = field(default_factory=list)
    uri: list[str] = field(default_factory=list)
    did: list[str] = field(default_factory=list)
    collection: list[str] = field(default_factory=list)
    rkey: list[str] = field(default_factory=list)
    rev: list[str] = field(default_factory=list)
    action: list[str] = field(default_factory=list)
    cid: list[str | None] = field(default_factory=list)
    """None for a delete."""
    record: list[str | None] = field(default_factory=list)
    """JSON text; None for a delete and for what is unreadable."""
    unreadable: list[Unreadable] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.uri)

    def add(self, seq: int, did: str, rev: str, action: str, path: str, cid: bytes | None, block: bytes | None) -> None:
        """One row. `block` is the record's; None for a delete."""
        collection, _, rkey = path.partition("/")
        uri = f"at://{did}/{path}"
        text = None
        if block is not None:
            try:
                text = record_json(block)
            except Contradiction as error:
                self.unreadable.append(Unreadable(uri, seq, error.kind, error.what, block))
        self.seq.append(seq)
        self.uri.append(uri)
        self.did.append(did)
        self.collection.append(collection)
        self.rkey.append(rkey)
        self.rev.append(rev)
        self.action.append(action)
        self.cid.append(None if cid is None else cid_text(cid))
        self.record.append(text)


def commit_columns(
    messages: Iterable[tuple[Commit, Sequence[bytes | None]]], wanted: CollectionFilter | None = None
) -> RecordColumns:
    """Rows of verified commits, each with its records' blocks (`Outcome.records`)."""
    columns = RecordColumns()
    wants = (wanted or CollectionFilter()).wants
    for message, blocks in messages:
        for op, block in zip(message.ops, blocks, strict=True):
            if wants(op.path.partition("/")[0]):
                columns.add(message.seq, message.did, message.rev, op.action, op.path, op.cid, block)
    return columns


def repository_columns(
    did: str, rev: str, records: Iterable[Record], wanted: CollectionFilter | None = None
) -> RecordColumns:
    """Rows of records out of a repository (give it some at a time), as creates at its revision."""
    columns = RecordColumns()
    wants = (wanted or CollectionFilter()).wants
    for record in records:
        if wants(record.path.partition("/")[0]):
            columns.add(0, did, rev, "create", record.path, record.cid, record.block)
    return columns

"""An account that signs: makes commits as a host would, and ones that a host should not."""

from __future__ import annotations

import random
from typing import Any

from coincurve import PrivateKey

from gapless.sources.atproto.car import write_car
from gapless.sources.atproto.cid import cid_of
from gapless.sources.atproto.dagcbor import encode
from gapless.sources.atproto.frames import Commit, Op, Sync
from gapless.sources.atproto.keys import PublicKey
from gapless.sources.atproto.mst import build_root
from gapless.sources.atproto.syntax import tid
from gapless.sources.atproto.verification import RepoState

ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
START_US = 1_700_000_000_000_000


class Forge:
    """A repository with its key; `commit` applies changes and gives the message for them."""

    def __init__(self, seed: int = 0, did: str = "did:plc:forgeforgeforgeforgeforge") -> None:
        self.rng = random.Random(seed)
        self.did = did
        self.private = PrivateKey(self.rng.randbytes(32))
        self.key = PublicKey("k256", self.private.public_key.format())
        self.records: dict[str, bytes] = {}
        self.record_blocks: dict[bytes, bytes] = {}
        self.tree: dict[bytes, bytes] = {}
        self.root = build_root({}, self.tree.__setitem__)
        self.rev: str | None = None
        self.seq = 0

    @property
    def state(self) -> RepoState | None:
        return None if self.rev is None else RepoState(self.rev, self.root)

    def sign(self, message: bytes, *, high_s: bool = False) -> bytes:
        der = self.private.sign(message)
        length = der[3]
        r, s = int.from_bytes(der[4 : 4 + length], "big"), int.from_bytes(der[6 + length :], "big")
        if high_s:
            s = ORDER - s
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def commit_object(self, rev: str, data: bytes, *, high_s: bool = False, **fields: Any) -> bytes:
        value = {"did": self.did, "rev": rev, "data": data, "prev": None, "version": 3} | fields
        # Put in by hand: the encoder would write the one signature in a thousand that reads as a CID as a link.
        hole = encode(value | {"sig": bytes(64)})
        return hole.replace(b"csigX@" + bytes(64), b"csigX@" + self.sign(encode(value), high_s=high_s))

    def record(self, value: Any | None = None) -> bytes:
        """A new record's block; made up where no value is given."""
        if value is None:
            value = {"$type": "com.example.note", "n": self.rng.randrange(10**9)}
        block = encode(value)
        self.record_blocks[cid_of(block)] = block
        return block

    def path(self) -> str:
        return f"com.example.note/{self.rng.randrange(10**12):013d}"

    def commit(
        self,
        creates: int = 1,
        updates: int = 0,
        deletes: int = 0,
        *,
        high_s: bool = False,
        extra: int = 0,
        **fields: Any,
    ) -> Commit:
        """The next commit. `fields` replace fields of the commit object; `extra` records enter the tree unsaid."""
        before, since = self.root, self.rev
        held = self.rng.sample(sorted(self.records), min(len(self.records), updates + deletes))
        ops: list[Op] = []
        for path in held[:deletes]:
            ops.append(Op("delete", path, None, self.records.pop(path)))
        for path in held[deletes:]:
            cid = cid_of(self.record())
            ops.append(Op("update", path, cid, self.records[path]))
            self.records[path] = cid
        for index in range(creates + extra):
            path, cid = self.path(), cid_of(self.record())
            self.records[path] = cid
            if index < creates:
                ops.append(Op("create", path, cid))
        self.rng.shuffle(ops)
        self.tree.clear()
        self.root = build_root(self.records, self.tree.__setitem__)
        self.seq += 1
        self.rev = tid(START_US + self.seq * 1_000_000)
        return self.message(ops, since, before, self.commit_object(self.rev, self.root, high_s=high_s, **fields))

    def message(self, ops: list[Op], since: str | None, before: bytes, commit: bytes) -> Commit:
        blocks = {cid_of(commit): commit} | self.tree
        blocks |= {op.cid: self.record_blocks[op.cid] for op in ops if op.cid is not None}
        car = write_car(cid_of(commit), blocks)
        prev_data = None if since is None else before
        assert self.rev is not None
        return Commit(
            self.seq, self.did, self.rev, cid_of(commit), car, tuple(ops), "2026-01-01T00:00:00Z", since, prev_data
        )

    def sync(self) -> Sync:
        self.seq += 1
        assert self.rev is not None
        commit = self.commit_object(self.rev, self.root)
        return Sync(
            self.seq, self.did, self.rev, write_car(cid_of(commit), {cid_of(commit): commit}), "2026-01-01T00:00:00Z"
        )

    def car(self) -> bytes:
        """The whole repository, as `getRepo` gives it."""
        assert self.rev is not None
        commit = self.commit_object(self.rev, self.root)
        records = {cid: self.record_blocks[cid] for cid in self.records.values()}
        blocks = list(({cid_of(commit): commit} | self.tree | records).items())
        self.rng.shuffle(blocks)
        return write_car(cid_of(commit), dict(blocks))

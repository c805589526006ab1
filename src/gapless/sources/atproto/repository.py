"""A whole repository out of the CAR that `getRepo` serves: verified, in order, in bounded memory.

Blocks come in any order, the tree can only be walked in its own. So blocks are hashed as they arrive and kept in a
temporary file (in memory while they are few), with an index of 16 bytes for each; then the tree is walked from the
signed root. A CAR has no length: only when the walk ends is it certain that the repository is whole.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from types import TracebackType

from gapless.sources.atproto.car import CarReader
from gapless.sources.atproto.cid import LENGTH
from gapless.sources.atproto.commit import SignedCommit, read_commit
from gapless.sources.atproto.keys import PublicKey
from gapless.sources.atproto.limits import RECORD_BYTES_MAX
from gapless.sources.atproto.mst import RootBuilder, entries
from gapless.sources.atproto.refusals import refusal

CAR_BYTES_MAX = 16 * 2**30
BLOCKS_MAX = 100_000_000
MEMORY_BYTES_MAX = 16 * 2**20
"""A CAR up to this size is kept in memory, a larger one in a temporary file."""
_PREFIX = slice(4, 12)
"""The part of a CID that the index sorts by: the first eight bytes of its hash."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a repository: its path, CID and block."""

    path: str
    cid: bytes
    block: bytes


class BlockFile(Mapping[bytes, bytes]):
    """Blocks by CID, kept in a file. Append all, then `seal`, then read."""

    def __init__(self, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
        self._file = SpooledTemporaryFile(max_size=max(1, memory_bytes_max))  # noqa: SIM115 closed by `close`
        self._size = 0
        self._prefixes = array("Q")
        self._places = array("Q")
        self._sealed = False

    def append(self, cid: bytes, block: bytes) -> None:
        if len(self._prefixes) >= BLOCKS_MAX:
            raise refusal("car_size", f"A CAR of more than {BLOCKS_MAX} blocks")
        self._prefixes.append(int.from_bytes(cid[_PREFIX], "big"))
        self._places.append(self._size)
        self._file.write(len(block).to_bytes(4, "big") + cid + block)
        self._size += 4 + LENGTH + len(block)

    def seal(self) -> None:
        """No more blocks: sort the index."""
        prefixes, places = self._prefixes, self._places
        order = sorted(range(len(prefixes)), key=prefixes.__getitem__)
        self._prefixes = array("Q", [prefixes[index] for index in order])
        self._places = array("Q", [places[index] for index in order])
        self._sealed = True

    def __getitem__(self, cid: bytes) -> bytes:
        prefix = int.from_bytes(cid[_PREFIX], "big")
        index = bisect_left(self._prefixes, prefix)
        while index < len(self._prefixes) and self._prefixes[index] == prefix:
            self._file.seek(self._places[index])
            head = self._file.read(4 + LENGTH)
            if head[4:] == cid:
                return self._file.read(int.from_bytes(head[:4], "big"))
            index += 1
        raise KeyError(cid)

    def __len__(self) -> int:
        return len(self._prefixes)

    def __iter__(self) -> Iterator[bytes]:
        for place in self._places:
            self._file.seek(place)
            yield self._file.read(4 + LENGTH)[4:]

    def close(self) -> None:
        self._file.close()


class Repository:
    """A repository's blocks, with its signed commit. To be used with `with`: the blocks go with it."""

    def __init__(self, blocks: BlockFile, commit: SignedCommit, bytes_read: int) -> None:
        self._blocks = blocks
        self.did = commit.did
        self.rev = commit.rev
        self.data = commit.data
        """CID of the tree's root."""
        self.bytes_read = bytes_read

    def __enter__(self) -> Repository:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.close()

    def paths(self) -> Iterator[tuple[str, bytes]]:
        """Every path and CID, in order. Raises Contradiction `incomplete`, `node_form`, at any time before the end:
        nothing may be committed before all were seen."""
        return entries(self._blocks, self.data)

    def records(self) -> Iterator[Record]:
        """Every record, in order; raises as `paths`, and `record_missing`, `record_size`."""
        for path, cid in self.paths():
            yield Record(path, cid, self.block(cid))

    def block(self, cid: bytes) -> bytes:
        """A record's block. Raises Contradiction `record_missing`, `record_size`."""
        block = self._blocks.get(cid)
        if block is None:
            raise refusal("record_missing", "A record is not among the blocks")
        if len(block) > RECORD_BYTES_MAX:
            raise refusal("record_size", f"A record of {len(block)} bytes")
        return block

    def check_whole(self) -> int:
        """Walk the tree and find every record's block; how many records there are. Raises as `records`."""
        count = 0
        for _, cid in self.paths():
            self.block(cid)
            count += 1
        return count


def read_repository(
    pieces: Iterable[bytes],
    did: str,
    key: PublicKey | None,
    *,
    bytes_max: int = CAR_BYTES_MAX,
    memory_bytes_max: int = MEMORY_BYTES_MAX,
) -> Repository:
    """Read a CAR that arrives in pieces and verify its commit: of this account, signed by this key (None: not checked).

    Raises Contradiction: as `car.read_car`, `commit.read_commit`; `commit_missing`, `wrong_did`, `signature`."""
    reader, blocks = CarReader(bytes_max), BlockFile(memory_bytes_max)
    try:
        for piece in pieces:
            for section in reader.feed(piece):
                blocks.append(section.cid, section.block)
        root = reader.finish()
        blocks.seal()
        block = blocks.get(root)
        if block is None:
            raise refusal("commit_missing", "The commit object is not among the blocks")
        commit = read_commit(block)
        if commit.did != did:
            raise refusal("wrong_did", f"The repository is of {commit.did[:200]}, {did[:200]} was asked for")
        if key is not None and not commit.is_signed_by(key):
            raise refusal("signature", "The repository is not signed by the account's key")
    except BaseException:
        blocks.close()
        raise
    return Repository(blocks, commit, reader.bytes_read)


def root_of(records: Iterable[tuple[str, bytes]]) -> bytes:
    """The root that stored records have (path and CID, in the order of their paths): equal to a commit's signed `data`
    where the table holds exactly the repository. Holds one node for each layer."""
    builder = RootBuilder()
    for path, cid in records:
        builder.add(path.encode(), cid)
    return builder.root()

"""The Merkle search tree of a repository: its nodes, and the root that a set of records has.

Repository specification, section "MST structure". A key's layer is the number of leading zero bits of its SHA-256, by
two; keys of a layer stand in nodes of that layer, subtrees of lower layers lie between them, and each set of records
has exactly one tree. Values and subtrees are CIDs. A node's first key is whole, later ones share a prefix with the key
before, as long as possible. There is no empty node but the root of an empty tree, and no node above the highest key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import libipld

from gapless.errors import Contradiction
from gapless.sources.atproto.cid import DAG_CBOR, LENGTH, cid_of, is_block_cid
from gapless.sources.atproto.dagcbor import encode
from gapless.sources.atproto.limits import DEPTH_MAX, NODE_BYTES_MAX
from gapless.sources.atproto.refusals import refusal

Blocks = Mapping[bytes, bytes]
EMPTY_NODE = libipld.encode_dag_cbor({"e": [], "l": None})
EMPTY_ROOT = cid_of(EMPTY_NODE)
"""The tree of no records: bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm."""


def layer_of(key: bytes) -> int:
    """The layer at which a key stands."""
    digest = sha256(key).digest()
    zeros = 256 - int.from_bytes(digest, "big").bit_length()
    return zeros >> 1


def shared_prefix(left: bytes, right: bytes) -> int:
    """How many bytes two keys have in common at their beginning."""
    length = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        length += 1
    return length


class Node:
    """A node as read: `keys[i]` has `values[i]`; `subtrees[i]` is left of `keys[i]`, the last one right of all. A
    subtree is None, the CID of one that was not read, or a Node."""

    __slots__ = ("changed", "cid", "keys", "subtrees", "tree", "values")

    def __init__(self, keys: list[bytes], values: list[bytes], subtrees: list[Subtree]) -> None:
        self.keys = keys
        self.values = values
        self.subtrees = subtrees
        self.cid = b""
        self.changed = True
        self.tree: dict[str, Any] | None = None
        """The decoded block, kept while keys and values are those of it: makes writing the node again cheap."""


Subtree = Node | bytes | None


def read_node(cid: bytes, block: bytes) -> Node:
    """A node from its block, in canonical form and with keys in order; layers are not checked here.

    Raises Contradiction `node_form`, also for what is no node."""
    try:
        tree = libipld.decode_dag_cbor(block)
        if len(block) > NODE_BYTES_MAX or libipld.encode_dag_cbor(tree) != block or len(tree) != 2:
            raise _form("a node is not in canonical form")
        keys: list[bytes] = []
        values: list[bytes] = []
        left = tree["l"]
        subtrees: list[Subtree] = [left]
        if left is not None and not is_block_cid(left):
            raise _form("a subtree is not a CID")
        key, size = b"", 0
        for entry in tree["e"]:
            prefix, suffix, value, right = entry["p"], entry["k"], entry["v"], entry["t"]
            lead = suffix[0]
            # As long as possible and in order, in one comparison: the first byte that differs is larger. The first
            # key of a node has nothing to share. No key has control characters, so no suffix reads as a CID.
            if lead <= 0x20 or (prefix != size and not (0 <= prefix < size and key[prefix] < lead)):
                raise _form("a key is not in order, or shares less than it could")
            if type(prefix) is not int or len(entry) != 4:
                raise _form("an entry has fields of the wrong type")
            # What is not bytes is not equal, or raises TypeError here or where the key is put together.
            if value[:4] != DAG_CBOR or len(value) != LENGTH:
                raise _form("a value is not a CID")
            if right is not None and (right[:4] != DAG_CBOR or len(right) != LENGTH):
                raise _form("a subtree is not a CID")
            key = key[:prefix] + suffix
            size = len(key)
            keys.append(key)
            values.append(value)
            subtrees.append(right)
    except (ValueError, RecursionError, TypeError, LookupError, AttributeError) as error:
        raise _form(f"a block is no node: {error}") from error
    node = Node(keys, values, subtrees)
    node.cid, node.changed, node.tree = cid, False, tree
    return node


def _form(what: str) -> Contradiction:
    return refusal("node_form", f"In the tree {what}")


def write_node(node: Node, emit: Callable[[bytes, bytes], None] | None = None) -> bytes:
    """The CID of a node after its changes, and of every changed node below; `emit` gets each block that is new."""
    if not node.changed:
        return node.cid
    subtrees = node.subtrees
    for index, subtree in enumerate(subtrees):
        if type(subtree) is Node:
            cid = write_node(subtree, emit)
            if node.tree is not None:
                if index:
                    node.tree["e"][index - 1]["t"] = cid
                else:
                    node.tree["l"] = cid
    if node.tree is None:
        node.tree = _tree(node)
    block: bytes = encode(node.tree)
    node.cid = DAG_CBOR + sha256(block).digest()
    node.changed = False
    if emit is not None:
        emit(node.cid, block)
    return node.cid


def _tree(node: Node) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    before = b""
    for index, key in enumerate(node.keys):
        prefix = shared_prefix(before, key)
        right = _written(node.subtrees[index + 1])
        entries.append({"p": prefix, "k": key[prefix:], "v": node.values[index], "t": right})
        before = key
    return {"e": entries, "l": _written(node.subtrees[0])}


def _written(subtree: Subtree) -> bytes | None:
    return subtree.cid if isinstance(subtree, Node) else subtree


class RootBuilder:
    """The root of records that come in the order of their keys. Holds one open node for each layer."""

    def __init__(self, emit: Callable[[bytes, bytes], None] | None = None) -> None:
        self._emit = emit
        self._before = b""
        self._open: list[_Open] = []

    def add(self, key: bytes, value: bytes) -> None:
        """Raises ValueError for a key out of order."""
        if key <= self._before:
            raise ValueError(f"{key!r} comes after {self._before!r}")
        self._before = key
        layer = layer_of(key)
        while len(self._open) <= layer:
            self._open.append(_Open())
        node = self._open[layer]
        node.attach(self._close(layer))
        prefix = shared_prefix(node.key, key)
        node.entries.append({"p": prefix, "k": key[prefix:], "v": value, "t": None})
        node.key = key

    def root(self) -> bytes:
        """The root's CID. Nothing can be added after."""
        if not self._open:
            if self._emit is not None:
                self._emit(EMPTY_ROOT, EMPTY_NODE)
            return EMPTY_ROOT
        return self._close(len(self._open)) or EMPTY_ROOT

    def _close(self, layer: int) -> bytes | None:
        """Write the open nodes below a layer; the CID of the highest, or None where there is nothing."""
        below: bytes | None = None
        for index in range(layer):
            node = self._open[index]
            node.attach(below)
            below = node.write(self._emit)
            self._open[index] = _Open()
        return below


class _Open:
    """A node that may still get entries at its right end."""

    __slots__ = ("entries", "key", "left")

    def __init__(self) -> None:
        self.left: bytes | None = None
        self.entries: list[dict[str, Any]] = []
        self.key = b""

    def attach(self, subtree: bytes | None) -> None:
        if subtree is not None:
            if self.entries:
                self.entries[-1]["t"] = subtree
            else:
                self.left = subtree

    def write(self, emit: Callable[[bytes, bytes], None] | None) -> bytes | None:
        if not self.entries and self.left is None:
            return None
        block: bytes = encode({"e": self.entries, "l": self.left})
        cid = DAG_CBOR + sha256(block).digest()
        if emit is not None:
            emit(cid, block)
        return cid


def build_root(
    records: Mapping[str, bytes] | Iterable[tuple[str, bytes]], emit: Callable[[bytes, bytes], None] | None = None
) -> bytes:
    """The root of these records (path → CID; an iterable must be sorted by the bytes of its paths)."""
    builder = RootBuilder(emit)
    pairs: Iterable[tuple[str, bytes]] = sorted(records.items()) if isinstance(records, Mapping) else records
    for path, cid in pairs:
        builder.add(path.encode(), cid)
    return builder.root()


def load(blocks: Blocks, cid: bytes, low: bytes = b"", high: bytes | None = None, *, root: bool = False) -> Node:
    """Read a node out of blocks; its keys must lie between the two given.

    Raises Contradiction `incomplete` where the block is missing, `node_form`."""
    block = blocks.get(cid)
    if block is None:
        raise refusal("incomplete", "A node of the tree is not among the blocks")
    node = read_node(cid, block)
    keys = node.keys
    if keys:
        if keys[0] <= low or (high is not None and keys[-1] >= high):
            raise _form("a key stands in the wrong subtree")
    elif node.subtrees[0] is None and not root:
        raise _form("a node is empty")
    elif root and node.subtrees[0] is not None:
        raise _form("the root has no keys but a subtree")
    return node


def lookup(blocks: Blocks, root: bytes, path: str) -> bytes | None:
    """The CID a path has in a tree, or None. Raises Contradiction `incomplete`, `node_form`."""
    key = path.encode()
    node = load(blocks, root, root=True)
    low, high = b"", None
    for _ in range(DEPTH_MAX + 1):
        index = bisect_left(node.keys, key)
        if index < len(node.keys) and node.keys[index] == key:
            return node.values[index]
        subtree = node.subtrees[index]
        if subtree is None:
            return None
        low = node.keys[index - 1] if index else low
        high = node.keys[index] if index < len(node.keys) else high
        node = subtree if isinstance(subtree, Node) else load(blocks, subtree, low, high)
    raise _form("nodes lie deeper than any key may stand")


def entries(blocks: Blocks, root: bytes) -> Iterator[tuple[str, bytes]]:
    """Every path and CID of a tree, in order, each node checked in full: form, order, bounds, layers.

    Raises Contradiction `incomplete`, `node_form`; also late, so nothing is certain before the end."""
    node = load(blocks, root, root=True)
    if node.keys:
        yield from _entries(blocks, node, layer_of(node.keys[0]), b"", None)


def _entries(blocks: Blocks, node: Node, layer: int, low: bytes, high: bytes | None) -> Iterator[tuple[str, bytes]]:
    keys, last = node.keys, len(node.keys)
    for index, subtree in enumerate(node.subtrees):
        if subtree is not None:
            if not layer:
                raise _form("a subtree hangs below the lowest layer")
            left = keys[index - 1] if index else low
            right = keys[index] if index < last else high
            child = subtree if isinstance(subtree, Node) else load(blocks, subtree, left, right)
            yield from _entries(blocks, child, layer - 1, left, right)
        if index < last:
            key = keys[index]
            if layer_of(key) != layer:
                raise _form("a key stands in the wrong layer")
            try:
                path = key.decode("ascii")
            except UnicodeDecodeError as error:
                raise _form("a key has characters that no path may have") from error
            yield path, node.values[index]

"""Undoing a commit's operations on its part of the tree: what proves that none was left out.

Sync specification, "inductive validation": the blocks of a commit are the new tree around the changed keys. Each
operation is undone there (a create is removed, a delete put back, an update reverted), and the root must then be the
tree before. Starting from a tree known to be canonical that also shows that the new tree is: what differs between the
two was read and held against the rules (order, prefixes, layers), everything else is in both.

Raises Contradiction: `incomplete` (a node that is needed is missing), `node_form`, `op_mismatch`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from gapless.errors import Contradiction
from gapless.sources.atproto.limits import DEPTH_MAX
from gapless.sources.atproto.mst import EMPTY_ROOT, Blocks, Node, Subtree, layer_of, load, write_node
from gapless.sources.atproto.refusals import refusal


@dataclass(frozen=True, slots=True)
class Change:
    """One operation on the tree: `cid` is what the key has after it, `previous` what it had before; None: nothing."""

    key: bytes
    cid: bytes | None
    previous: bytes | None


def invert(blocks: Blocks, root: bytes, changes: Iterable[Change]) -> bytes:
    """The root of the tree before these changes (of keys that all differ), from the new tree's blocks."""
    tree = PartialTree(blocks, root)
    for change in changes:
        if change.previous is None:
            if change.cid is None:
                raise _mismatch("an operation changes nothing")
            tree.remove(change.key, change.cid)
        elif change.cid is None:
            tree.put(change.key, change.previous)
        else:
            tree.replace(change.key, change.cid, change.previous)
    return tree.root()


def _mismatch(what: str) -> Contradiction:
    return refusal("op_mismatch", f"The tree does not agree with the operations: {what}")


class PartialTree:
    """A tree of which only some blocks are at hand, and which can be changed where they are."""

    def __init__(self, blocks: Blocks, root: bytes) -> None:
        self._blocks = blocks
        self._cid = root
        self._node: Node | None = None
        self._layer = -1
        """Of the root; meaningless while there are no keys."""
        self._touched = False

    def _open(self) -> Node | None:
        """The root, read; None for the empty tree."""
        if not self._touched:
            self._touched = True
            if self._cid != EMPTY_ROOT:
                self._node = load(self._blocks, self._cid, root=True)
                self._layer = layer_of(self._node.keys[0]) if self._node.keys else -1
                if not self._node.keys:
                    raise _mismatch("the root is empty")
        return self._node

    def remove(self, key: bytes, cid: bytes) -> None:
        """Take a key away that must have this CID."""
        node = self._open()
        if node is None:
            raise _mismatch("a record that was created is missing")
        self._node = self._removed(node, key, cid, self._layer, b"", None)
        while (root := self._node) is not None and not root.keys:
            below = root.subtrees[0]
            self._node = load(self._blocks, below) if isinstance(below, bytes) else below
            self._layer -= 1

    def replace(self, key: bytes, cid: bytes, previous: bytes) -> None:
        """Give a key another CID; it must have the first."""
        node, low, high = self._open(), b"", None
        for _ in range(DEPTH_MAX + 1):
            if node is None:
                break
            node.changed = True
            keys = node.keys
            index = bisect_left(keys, key)
            if index < len(keys) and keys[index] == key:
                if node.values[index] != cid:
                    raise _mismatch("a record that was updated has another CID")
                node.values[index] = previous
                if node.tree is not None:
                    node.tree["e"][index]["v"] = previous
                return
            low = keys[index - 1] if index else low
            high = keys[index] if index < len(keys) else high
            node = self._child(node, index, low, high)
        raise _mismatch("a record that was updated is missing")

    def put(self, key: bytes, cid: bytes) -> None:
        """Add a key that must not be there."""
        layer = layer_of(key)
        node = self._open()
        if node is None:
            self._node, self._layer = Node([key], [cid], [None, None]), layer
            return
        if layer > self._layer:
            left, right = self._split(node, key, b"", None)
            for _ in range(layer - self._layer - 1):
                left = Node([], [], [left]) if left is not None else None
                right = Node([], [], [right]) if right is not None else None
            self._node, self._layer = Node([key], [cid], [left, right]), layer
            return
        low, high = b"", None
        for _ in range(self._layer - layer):
            node.changed = True
            index = bisect_left(node.keys, key)
            low = node.keys[index - 1] if index else low
            high = node.keys[index] if index < len(node.keys) else high
            if high == key:
                break
            child = self._child(node, index, low, high)
            if child is None:
                child = node.subtrees[index] = Node([], [], [None])
            node = child
        self._insert(node, key, cid, low, high)

    def _insert(self, node: Node, key: bytes, cid: bytes, low: bytes, high: bytes | None) -> None:
        index = bisect_left(node.keys, key)
        if index < len(node.keys) and node.keys[index] == key:
            raise _mismatch("a record that was deleted is there")
        low = node.keys[index - 1] if index else low
        high = node.keys[index] if index < len(node.keys) else high
        node.subtrees[index : index + 1] = self._split(node.subtrees[index], key, low, high)
        node.keys.insert(index, key)
        node.values.insert(index, cid)
        node.tree, node.changed = None, True

    def root(self) -> bytes:
        """The root as it is now."""
        if not self._touched:
            return self._cid
        node = self._node
        if node is None:
            return EMPTY_ROOT
        if layer_of(node.keys[0]) != self._layer:
            raise refusal("node_form", "In the tree a key stands in the wrong layer")
        return write_node(node)

    def _child(self, node: Node, index: int, low: bytes, high: bytes | None) -> Node | None:
        """A subtree, read if it was not."""
        subtree = node.subtrees[index]
        if isinstance(subtree, bytes):
            subtree = node.subtrees[index] = load(self._blocks, subtree, low, high)
        return subtree

    def _removed(self, node: Node, key: bytes, cid: bytes, layer: int, low: bytes, high: bytes | None) -> Node | None:
        """A node without the key; None where nothing is left of it."""
        keys = node.keys
        index = bisect_left(keys, key)
        node.changed = True
        if index == len(keys) or keys[index] != key:
            low = keys[index - 1] if index else low
            high = keys[index] if index < len(keys) else high
            child = self._child(node, index, low, high)
            if child is None or layer <= 0:
                raise _mismatch("a record that was created is missing")
            node.subtrees[index] = self._removed(child, key, cid, layer - 1, low, high)
            if node.subtrees[index] is None and node.tree is not None:
                _cut_subtree(node, index)
        else:
            if node.values[index] != cid:
                raise _mismatch("a record that was created has another CID")
            if layer_of(key) != layer:
                raise refusal("node_form", "In the tree a key stands in the wrong layer")
            low = keys[index - 1] if index else low
            high = keys[index + 1] if index + 1 < len(keys) else high
            self._check_neighbours(node, index, low, high)
            merged = self._merged(node.subtrees[index], node.subtrees[index + 1])
            _cut_entry(node, index, merged)
        return node if node.keys or node.subtrees[0] is not None else None

    def _check_neighbours(self, node: Node, index: int, low: bytes, high: bytes | None) -> None:
        """The keys left and right of a key, wherever they stand, must be smaller and larger. Of all order in the new
        tree only this is not in the old one too."""
        key = node.keys[index]
        left = self._child(node, index, low, key)
        while left is not None:
            bound = left.keys[-1] if left.keys else low
            left, low = self._child(left, len(left.keys), bound, key), bound
        right = self._child(node, index + 1, key, high)
        while right is not None:
            limit = right.keys[0] if right.keys else high
            right, high = self._child(right, 0, key, limit), limit

    def _merged(self, left: Subtree, right: Subtree) -> Subtree:
        """One subtree out of the two beside a key that goes; both were read along that seam."""
        if left is None or right is None:
            return right if left is None else left
        if not isinstance(left, Node) or not isinstance(right, Node):
            raise refusal("incomplete", "A node of the tree was not read")
        middle = self._merged(left.subtrees[-1], right.subtrees[0])
        subtrees = [*left.subtrees[:-1], middle, *right.subtrees[1:]]
        return Node(left.keys + right.keys, left.values + right.values, subtrees)

    def _split(self, subtree: Subtree, key: bytes, low: bytes, high: bytes | None) -> tuple[Subtree, Subtree]:
        """What of a subtree is left and what right of a key that comes in between."""
        if subtree is None:
            return None, None
        node = load(self._blocks, subtree, low, high) if isinstance(subtree, bytes) else subtree
        keys = node.keys
        index = bisect_left(keys, key)
        if index < len(keys) and keys[index] == key:
            raise _mismatch("a record that was deleted is there")
        low = keys[index - 1] if index else low
        high = keys[index] if index < len(keys) else high
        one, other = self._split(node.subtrees[index], key, low, high)
        left = Node(keys[:index], node.values[:index], [*node.subtrees[:index], one])
        right = Node(keys[index:], node.values[index:], [other, *node.subtrees[index + 1 :]])
        return (
            left if left.keys or one is not None else None,
            right if right.keys or other is not None else None,
        )


def _cut_subtree(node: Node, index: int) -> None:
    tree = node.tree
    if tree is not None:
        if index:
            tree["e"][index - 1]["t"] = None
        else:
            tree["l"] = None


def _cut_entry(node: Node, index: int, merged: Subtree) -> None:
    """Take an entry out of a node. The key after it shares with the one before it the shorter of two prefixes."""
    if node.tree is not None:
        items = node.tree["e"]
        if index + 1 < len(items):
            after = items[index + 1]
            prefix = min(items[index]["p"], after["p"])
            if prefix != after["p"]:
                after["p"], after["k"] = prefix, node.keys[index + 1][prefix:]
        del items[index]
        subtree = merged if isinstance(merged, bytes) else None
        if index:
            items[index - 1]["t"] = subtree
        else:
            node.tree["l"] = subtree
    del node.keys[index], node.values[index]
    node.subtrees[index : index + 2] = [merged]

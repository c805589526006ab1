"""What differs: between two trees, and between stored records and a repository.

A resync must say what is gone as well as what is new; a walk of the new tree alone, as others do it, cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gapless.sources.atproto.mst import Blocks, Node, layer_of, load
from gapless.sources.atproto.refusals import refusal


@dataclass(frozen=True, slots=True)
class Difference:
    """One record that differs; `before` is None for a create, `after` for a delete."""

    path: str
    before: bytes | None
    after: bytes | None

    @property
    def action(self) -> str:
        if self.before is None:
            return "create"
        return "delete" if self.after is None else "update"


def resync(stored: Iterable[tuple[str, bytes]], repository: Iterable[tuple[str, bytes]]) -> Iterator[Difference]:
    """What to change in the stored records (path, CID) so that they are the repository's. Both in the order of their
    paths; neither is held in memory. Raises ValueError where an order is broken."""
    ours, theirs = _ordered(stored), _ordered(repository)
    held, found = next(ours, None), next(theirs, None)
    while held is not None or found is not None:
        if found is None or (held is not None and held[0] < found[0]):
            if held is not None:
                yield Difference(held[0], held[1], None)
            held = next(ours, None)
        elif held is None or found[0] < held[0]:
            yield Difference(found[0], None, found[1])
            found = next(theirs, None)
        else:
            if held[1] != found[1]:
                yield Difference(held[0], held[1], found[1])
            held, found = next(ours, None), next(theirs, None)


def _ordered(records: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    before = ""
    for path, cid in records:
        if path <= before:
            raise ValueError(f"{path!r} comes after {before!r}")
        before = path
        yield path, cid


def between(old: Blocks, old_root: bytes, new: Blocks, new_root: bytes) -> Iterator[Difference]:
    """What differs between two trees, without reading what they share. Raises Contradiction as `mst.load`."""
    left, right = _Walk(old, old_root), _Walk(new, new_root)
    while left.here or right.here:
        one, other = left.here, right.here
        if one and other and one.subtree and one.subtree == other.subtree:
            left.skip()
            right.skip()
        elif one and one.subtree and not (other and other.subtree and other.layer > one.layer):
            left.enter()
        elif other and other.subtree:
            right.enter()
        elif not other or (one and one.key < other.key):
            if one:
                yield Difference(one.key.decode(), one.value, None)
            left.skip()
        elif not one or other.key < one.key:
            yield Difference(other.key.decode(), None, other.value)
            right.skip()
        else:
            if one.value != other.value:
                yield Difference(one.key.decode(), one.value, other.value)
            left.skip()
            right.skip()


@dataclass(frozen=True, slots=True)
class _Place:
    """An entry, or a subtree that was not entered."""

    layer: int
    subtree: bytes = b""
    low: bytes = b""
    high: bytes | None = None
    key: bytes = b""
    value: bytes = b""


class _Walk:
    """A place in a tree, from left to right."""

    def __init__(self, blocks: Blocks, root: bytes) -> None:
        self._blocks = blocks
        node = load(blocks, root, root=True)
        layer = layer_of(node.keys[0]) if node.keys else 0
        self._ahead = self._places(node, layer, b"", None)

    @property
    def here(self) -> _Place | None:
        return self._ahead[-1] if self._ahead else None

    def skip(self) -> None:
        self._ahead.pop()

    def enter(self) -> None:
        place = self._ahead.pop()
        if place.layer < 0:
            raise refusal("node_form", "In the tree a subtree hangs below the lowest layer")
        node = load(self._blocks, place.subtree, place.low, place.high)
        self._ahead += self._places(node, place.layer, place.low, place.high)

    @staticmethod
    def _places(node: Node, layer: int, low: bytes, high: bytes | None) -> list[_Place]:
        """What a node holds, last first."""
        places: list[_Place] = []
        for index, subtree in enumerate(node.subtrees):
            left = node.keys[index - 1] if index else low
            right = node.keys[index] if index < len(node.keys) else high
            if isinstance(subtree, bytes):
                places.append(_Place(layer - 1, subtree, left, right))
            if index < len(node.keys):
                places.append(_Place(layer, key=node.keys[index], value=node.values[index]))
        places.reverse()
        return places

"""The ordered trie, against a slow one written straight from the specification."""

from __future__ import annotations

import random

import pytest

from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.rlp import encode_bytes, encode_int, encode_list
from gapless.sources.evm.trie import EMPTY_ROOT, ordered_root

Pairs = dict[str, bytes]


def hex_prefix(nibbles: str, leaf: bool) -> bytes:
    """Yellow paper, appendix C."""
    flag = 2 * leaf + len(nibbles) % 2
    return bytes.fromhex((f"{flag:x}" if len(nibbles) % 2 else f"{flag:x}0") + nibbles)


def node(pairs: Pairs) -> bytes:
    """Yellow paper, appendix D: the structural composition c(J, i), keys already cut to what is left of them."""
    if len(pairs) == 1:
        ((key, value),) = pairs.items()
        return encode_list([encode_bytes(hex_prefix(key, True)), encode_bytes(value)])
    shared = 0
    keys = list(pairs)
    while all(len(key) > shared and key[shared] == keys[0][shared] for key in keys):
        shared += 1
    if shared:
        rest = {key[shared:]: value for key, value in pairs.items()}
        return encode_list([encode_bytes(hex_prefix(keys[0][:shared], False)), reference(rest)])
    children = [{k[1:]: v for k, v in pairs.items() if k[:1] == f"{nibble:x}"} for nibble in range(16)]
    return encode_list([*(reference(c) if c else b"\x80" for c in children), encode_bytes(pairs.get("", b""))])


def reference(pairs: Pairs) -> bytes:
    encoded = node(pairs)
    return encoded if len(encoded) < 32 else encode_bytes(keccak256(encoded))


def slow_root(items: list[bytes]) -> bytes:
    return keccak256(node({encode_int(index).hex(): item for index, item in enumerate(items)}))


def test_the_root_of_nothing_is_the_known_one() -> None:
    """The root in the header of every empty block."""
    assert ordered_root([]) == EMPTY_ROOT
    assert EMPTY_ROOT.hex() == "56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"


@pytest.mark.parametrize(
    "count", [*range(1, 20), 126, 127, 128, 129, 130, 181, 255, 256, 257, 258, 300, 700, 1023, 1025]
)
def test_roots_equal_the_slow_ones(count: int) -> None:
    """For every shape keys can take (one byte, 0x81.., 0x82..) and every size of item: one byte, in-line, hashed."""
    rng = random.Random(count)
    for sizes in ((1, 1), (1, 8), (20, 40), (100, 700)):
        items = [rng.randbytes(rng.randint(*sizes)) for _ in range(count)]
        assert ordered_root(items) == slow_root(items)


def test_keys_of_four_bytes() -> None:
    """More than 65,536 items make keys with the prefix 0x83."""
    items = [index.to_bytes(3, "big") * 12 for index in range(65_540)]
    assert ordered_root(items) == slow_root(items)


def test_any_change_of_items_changes_the_root() -> None:
    """One item changed, exchanged with another, left out or added: another root."""
    items = [bytes([index]) * 40 for index in range(200)]
    root = ordered_root(items)
    changed = [*items[:77], b"\xff" * 40, *items[78:]]
    swapped = [items[1], items[0], *items[2:]]
    assert len({root, *map(ordered_root, (changed, swapped, items[:-1], [*items, b"\x00"]))}) == 5

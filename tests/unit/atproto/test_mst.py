"""The tree: layers, roots, reading, undoing, and what differs."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.errors import Contradiction
from gapless.sources.atproto.cid import DAG_CBOR, cid_of, cid_text, parse_cid
from gapless.sources.atproto.dagcbor import encode
from gapless.sources.atproto.difference import Difference, between, resync
from gapless.sources.atproto.inversion import Change, invert
from gapless.sources.atproto.mst import (
    EMPTY_ROOT,
    RootBuilder,
    build_root,
    entries,
    layer_of,
    lookup,
    read_node,
    shared_prefix,
)
from gapless.sources.atproto.repository import root_of
from unit.atproto.material import INTEROP, vectors

Blocks = dict[bytes, bytes]
LEAF = parse_cid("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454")


def tree(records: dict[str, bytes]) -> tuple[bytes, Blocks]:
    blocks: Blocks = {}
    return build_root(records, blocks.__setitem__), blocks


def some_records(rng: random.Random, count: int) -> dict[str, bytes]:
    return {f"com.example.note/{rng.randrange(10**9):010d}": DAG_CBOR + rng.randbytes(32) for _ in range(count)}


@pytest.mark.parametrize("vector", vectors("mst/key_heights.json"), ids=lambda v: v["key"])
def test_keys_stand_at_their_layer(vector: dict[str, Any]) -> None:
    """The published heights."""
    assert layer_of(vector["key"].encode()) == vector["height"]


def test_the_published_example_keys_have_the_layer_they_are_named_for() -> None:
    """`A3/…` stands at layer 3."""
    keys = (INTEROP / "mst/example_keys.txt").read_text().split()
    assert [key for key in keys if layer_of(key.encode()) != int(key[1])] == []


@pytest.mark.parametrize("vector", vectors("mst/common_prefix.json"))
def test_prefixes_are_counted_in_bytes(vector: dict[str, Any]) -> None:
    """The published prefixes, multi-byte characters included."""
    assert shared_prefix(vector["left"].encode(), vector["right"].encode()) == vector["len"]


@pytest.mark.parametrize(
    ("keys", "root"),
    [
        ([], "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"),
        (["com.example.record/3jqfcqzm3fo2j"], "bafyreibj4lsc3aqnrvphp5xmrnfoorvru4wynt6lwidqbm2623a6tatzdu"),
        (["com.example.record/3jqfcqzm3fx2j"], "bafyreih7wfei65pxzhauoibu3ls7jgmkju4bspy4t2ha2qdjnzqvoy33ai"),
    ],
)
def test_known_roots(keys: list[str], root: str) -> None:
    """Roots that other implementations publish in their own tests."""
    value = parse_cid("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454")
    assert cid_text(build_root(dict.fromkeys(keys, value))) == root


@pytest.mark.parametrize("vector", vectors("firehose/commit-proof-fixtures.json"), ids=lambda v: v["comment"])
@pytest.mark.parametrize("turned", [False, True])
def test_the_published_proofs_invert(vector: dict[str, Any], turned: bool) -> None:
    """With nothing but the blocks of the published proof, undoing the operations in any order gives the root before."""
    keys = set(vector["keys"])
    before, blocks = tree(dict.fromkeys(keys, LEAF))
    after, more = tree(dict.fromkeys((keys | set(vector["adds"])) - set(vector["dels"]), LEAF))
    assert (cid_text(before), cid_text(after)) == (vector["rootBeforeCommit"], vector["rootAfterCommit"])
    proof = {cid: (blocks | more)[cid] for cid in map(parse_cid, vector["blocksInProof"])}
    changes = [Change(key.encode(), LEAF, None) for key in vector["adds"]]
    changes += [Change(key.encode(), None, LEAF) for key in vector["dels"]]
    if turned:
        changes.reverse()
    assert invert(proof, after, changes) == before


def moved(rng: random.Random, records: dict[str, bytes], most: int) -> tuple[dict[str, bytes], list[Change]]:
    """Records after some changes, and the changes."""
    after, changes = dict(records), []
    for path in rng.sample(sorted(records), min(len(records), rng.randrange(most + 1))):
        if rng.random() < 0.5:
            del after[path]
            changes.append(Change(path.encode(), None, records[path]))
        else:
            after[path] = DAG_CBOR + rng.randbytes(32)
            changes.append(Change(path.encode(), after[path], records[path]))
    for path, cid in some_records(rng, rng.randrange(most + 1)).items():
        if path not in records:
            after[path] = cid
            changes.append(Change(path.encode(), cid, None))
    rng.shuffle(changes)
    return after, changes


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 2, 3, 5, 20, 100, 400]), st.sampled_from([1, 3, 20]))
def test_undoing_leads_back(seed: int, count: int, most: int) -> None:
    """Whatever a commit did to whatever tree, undoing it gives the tree before; and the differences are the changes."""
    rng = random.Random(seed)
    records = some_records(rng, count)
    after, changes = moved(rng, records, most)
    (old_root, old), (new_root, new) = tree(records), tree(after)
    assert invert(new, new_root, changes) == old_root
    found = list(between(old, old_root, new, new_root))
    assert {(d.path.encode(), d.after, d.before) for d in found} == {(c.key, c.cid, c.previous) for c in changes}
    assert found == list(resync(sorted(records.items()), sorted(after.items())))
    assert dict(entries(new, new_root)) == after


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 3, 20, 100]))
def test_undoing_something_else_does_not_lead_back(seed: int, count: int) -> None:
    """With an operation left out, made up or changed, the root before is never reached."""
    rng = random.Random(seed)
    records = some_records(rng, count)
    after, changes = moved(rng, records, 4)
    (old_root, _), (new_root, new) = tree(records), tree(after)
    if changes and rng.random() < 0.7:
        victim = rng.randrange(len(changes))
        change = changes.pop(victim)
        if rng.random() < 0.5:
            other = DAG_CBOR + rng.randbytes(32)
            changes.insert(
                victim,
                Change(change.key, change.cid and other, change.previous)
                if rng.random() < 0.5 and change.cid
                else Change(change.key, change.cid, change.previous and other),
            )
            if changes[victim] == change:
                return
    else:
        changes.append(Change(b"com.example.note/made-up", DAG_CBOR + rng.randbytes(32), None))
    try:
        assert invert(new, new_root, changes) != old_root
    except Contradiction as error:
        assert error.kind in {"op_mismatch", "incomplete", "node_form"}  # noqa: PT017


def test_equal_parts_of_two_trees_are_not_read() -> None:
    """To find one changed record among thousands takes a few nodes."""
    records = some_records(random.Random(1), 3000)
    after = records | {"com.example.note/x": LEAF}
    (old_root, old), (new_root, new) = tree(records), tree(after)
    few = {cid: block for cid, block in new.items() if cid not in old}
    gone = {cid: block for cid, block in old.items() if cid not in new}
    assert 0 < len(gone) <= len(few) < 12
    assert list(between(gone, old_root, few, new_root)) == [Difference("com.example.note/x", None, LEAF)]


def test_a_resync_says_what_is_gone() -> None:
    """Records that the repository no longer has are deletes: a walk of the new tree alone would keep them for ever."""
    stored = [("a/1", LEAF), ("a/2", LEAF), ("a/4", LEAF)]
    found = [("a/2", EMPTY_ROOT), ("a/3", LEAF), ("a/4", LEAF)]
    assert [(d.action, d.path) for d in resync(stored, found)] == [
        ("delete", "a/1"),
        ("update", "a/2"),
        ("create", "a/3"),
    ]
    assert [d.action for d in resync(stored, [])] == ["delete"] * 3
    assert [d.action for d in resync([], found)] == ["create"] * 3
    with pytest.raises(ValueError, match="comes after"):
        list(resync(reversed(stored), found))


def test_lookups_find_what_is_there_and_nothing_else() -> None:
    """A path has its CID, and a path between two has none."""
    records = some_records(random.Random(2), 500)
    root, blocks = tree(records)
    for path, cid in list(records.items())[:50]:
        assert lookup(blocks, root, path) == cid
        assert lookup(blocks, root, path + "0") is None
    assert lookup(blocks, root, "a") is None
    assert lookup(tree({})[1], EMPTY_ROOT, "a") is None


def test_the_root_of_a_table_needs_order() -> None:
    """Rows that come out of order, or twice, have no root."""
    builder = RootBuilder()
    builder.add(b"b", LEAF)
    for key in (b"a", b"b"):
        with pytest.raises(ValueError, match="comes after"):
            builder.add(key, LEAF)
    records = some_records(random.Random(3), 50)
    assert root_of(sorted(records.items())) == build_root(records)


def rewritten(records: dict[str, bytes], how: Any) -> tuple[bytes, Blocks]:
    """A tree whose root node was changed by `how` and hashed anew."""
    from gapless.sources.atproto.dagcbor import decode

    root, blocks = tree(records)
    node = decode(blocks[root])
    how(node)
    block = encode(node)
    return cid_of(block), blocks | {cid_of(block): block}


def layered(layer: int, rng: random.Random) -> str:
    while True:
        path = f"com.example.note/{rng.randrange(10**12):013d}"
        if layer_of(path.encode()) == layer:
            return path


BREAKS = {
    "keys out of order": lambda n: n["e"].reverse(),
    "a prefix that could be longer": lambda n: n["e"][1].update(p=0, k=b"com.example.note/9"),
    "a prefix longer than the key before": lambda n: n["e"][1].update(p=999),
    "a prefix below zero": lambda n: n["e"][1].update(p=-1),
    "a first key with a prefix": lambda n: n["e"][0].update(p=1),
    "an empty suffix": lambda n: n["e"][1].update(k=b""),
    "a suffix that is a link": lambda n: n["e"][1].update(k=LEAF),
    "a value that is no link": lambda n: n["e"][0].update(v=b"abc"),
    "a value that is a blob": lambda n: n["e"][0].update(v=b"\x01\x55" + LEAF[2:]),
    "a subtree that is no link": lambda n: n["e"][0].update(t=b"abc"),
    "a left subtree that is no link": lambda n: n.update(l=7),
    "a field too many": lambda n: n["e"][0].update(x=1),
    "a prefix that is no number": lambda n: n["e"][0].update(p=False),
    "no entries": lambda n: n.update(e=None),
    "another object": lambda n: n.update(x=1),
    "a root with nothing but a subtree": lambda n: n.update(e=[], l=EMPTY_ROOT),
    "an empty subtree": lambda n: n.update(l=EMPTY_ROOT),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_tree_that_breaks_the_rules_is_refused(name: str) -> None:
    """Two trees of one set of records would have two roots: every rule of the form is held."""
    rng = random.Random(5)
    records = dict.fromkeys((layered(2, rng) for _ in range(4)), LEAF)
    root, blocks = rewritten(records, BREAKS[name])
    with pytest.raises(Contradiction) as error:
        list(entries(blocks | {EMPTY_ROOT: encode({"e": [], "l": None})}, root))
    assert error.value.kind == "node_form"


def encoded(*written: tuple[int, str], left: bytes | None = None) -> tuple[bytes, bytes]:
    """A node with entries as written (prefix, suffix), and its CID."""
    entries = [{"p": prefix, "k": suffix.encode(), "v": LEAF, "t": None} for prefix, suffix in written]
    block = encode({"e": entries, "l": left})
    return cid_of(block), block


@pytest.mark.parametrize(
    ("written", "good"),
    [
        ([(0, "a/abc"), (4, "d"), (4, "dx")], False),
        ([(0, "a/abc"), (4, "d"), (5, "x")], True),
        ([(0, "a/abc"), (3, "bd")], False),
        ([(0, "a/abc"), (4, "b")], False),
        ([(0, "a/abc"), (4, "c")], False),
        ([(0, "a/abc"), (5, "")], False),
        ([(0, "a/abc"), (4, "")], False),
        ([(0, "a/abc"), (6, "x")], False),
        ([(0, "a/abc"), (-1, "x")], False),
        ([(0, "")], False),
        ([(1, "a/abc")], False),
    ],
)
def test_a_node_has_one_way_to_write_its_keys(written: list[tuple[int, str]], good: bool) -> None:
    """In order, with the longest prefix, and never longer than the key before: whatever the layers."""
    cid, block = encoded(*written)
    if good:
        assert read_node(cid, block).keys == [b"a/abc", b"a/abd", b"a/abdx"]
        return
    with pytest.raises(Contradiction) as error:
        read_node(cid, block)
    assert error.value.kind == "node_form"


def test_a_node_has_one_way_to_write_its_numbers() -> None:
    """A prefix with a byte too many, or written as `false`, reads the same and hashes differently: refused."""
    cid, block = encoded((0, "a/abc"))
    assert read_node(cid, block).keys == [b"a/abc"]
    for other in (
        block.replace(b"ap\x00", b"ap\x18\x00"),
        block.replace(b"ap\x00", b"ap\xf4"),
        block + b"\0",
        block[:-1],
    ):
        assert other != block
        with pytest.raises(Contradiction) as error:
            read_node(cid_of(other), other)
        assert error.value.kind == "node_form"


def test_a_suffix_is_never_a_link() -> None:
    """The library encodes a suffix that reads as a CID as a link, so that the round trip alone would let it pass."""
    block = encode({"e": [{"p": 0, "k": LEAF, "v": LEAF, "t": None}], "l": None})
    with pytest.raises(Contradiction) as error:
        read_node(cid_of(block), block)
    assert error.value.kind == "node_form"


def test_empty_nodes_stand_nowhere_but_at_the_root_of_nothing() -> None:
    """An empty subtree, and a root that has only a subtree, are refused; the empty tree reads."""
    rng = random.Random(8)
    path, low = layered(1, rng), layered(0, rng)
    empty = encode({"e": [], "l": None})
    inner_cid, inner = encoded((0, low))
    hollow = encode({"e": [], "l": inner_cid})
    holder_cid, holder = encoded((0, path), left=EMPTY_ROOT)
    blocks = {EMPTY_ROOT: empty, inner_cid: inner, cid_of(hollow): hollow, holder_cid: holder}
    assert list(entries(blocks, EMPTY_ROOT)) == []
    for root in (holder_cid, cid_of(hollow)):
        with pytest.raises(Contradiction) as error:
            list(entries(blocks, root))
        assert error.value.kind == "node_form"


@pytest.mark.parametrize("case", ["too high", "too low", "below the lowest", "wrong side", "empty name"])
def test_each_key_stands_in_its_layer_and_between_its_neighbours(case: str) -> None:
    """One rule broken at a time."""
    rng = random.Random(9)
    lows = sorted(layered(0, rng) for _ in range(6))
    middle = next(path for path in iter(lambda: layered(1, rng), None) if lows[1] < path < lows[4])
    left_cid, left = encoded((0, lows[0]))
    blocks = {left_cid: left}
    good_cid, good = encoded((0, middle), left=left_cid)
    assert [path for path, _ in entries(blocks | {good_cid: good}, good_cid)] == [lows[0], middle]
    if case == "too high":
        shared = shared_prefix(lows[1].encode(), middle.encode())
        root, block = encoded((0, lows[1]), (shared, middle[shared:]))
        if layer_of(lows[1].encode()) == 0:  # the root's layer is that of its first key
            shared = shared_prefix(middle.encode(), lows[5].encode())
            root, block = encoded((0, middle), (shared, lows[5][shared:]))
    elif case == "too low":
        higher = next(path for path in iter(lambda: layered(2, rng), None) if path > lows[0])
        root, block = encoded((0, higher), left=left_cid)
    elif case == "below the lowest":
        other = next(path for path in lows if path > lows[0])
        root, block = encoded((0, other), left=left_cid)
    elif case == "wrong side":
        right_cid, right = encoded((0, lows[5]))
        blocks[right_cid] = right
        root, block = encoded((0, middle), left=right_cid)
    else:
        root, block = encoded((0, "\x7f\x80"))
    blocks[root] = block
    with pytest.raises(Contradiction) as error:
        list(entries(blocks, root))
    assert error.value.kind == "node_form"


def test_nodes_nested_below_the_lowest_layer_are_refused() -> None:
    """A chain of thousands of nodes in each other is refused at the layer where it must end, by name."""
    rng = random.Random(10)
    high, low = layered(2, rng), layered(0, rng)
    inner, block = encoded((0, low))
    blocks = {inner: block}
    for _ in range(5000):
        block = encode({"e": [], "l": inner})
        inner = cid_of(block)
        blocks[inner] = block
    root, block = encoded((0, high), left=inner)
    with pytest.raises(Contradiction) as error:
        list(entries(blocks | {root: block}, root))
    assert error.value.kind == "node_form"


def test_keys_in_the_wrong_layer_or_subtree_are_refused() -> None:
    """A key that stands too high, too low or left of where it belongs would hide from lookups."""
    rng = random.Random(6)
    high, low = layered(3, rng), layered(0, rng)
    blocks: Blocks = {}

    def node(keys: list[str], left: bytes | None) -> bytes:
        block = encode({"e": [{"p": 0, "k": keys[0].encode(), "v": LEAF, "t": None}], "l": left})
        blocks[cid_of(block)] = block
        return cid_of(block)

    inner = node([low], None)
    empty = encode({"e": [], "l": inner})
    blocks[cid_of(empty)] = empty
    for bad in (node([high], inner), node([low], node([high], None)), node([high], cid_of(empty))):
        with pytest.raises(Contradiction) as error:
            list(entries(blocks, bad))
        assert error.value.kind == "node_form"


def test_a_missing_node_is_said() -> None:
    """A CAR cut between two blocks reads well; the walk finds it."""
    root, blocks = tree(some_records(random.Random(4), 100))
    for cid in blocks:
        rest = {other: block for other, block in blocks.items() if other != cid}
        with pytest.raises(Contradiction) as error:
            list(entries(rest, root))
        assert error.value.kind == "incomplete"

"""Digests, recomputed by hand from what their module says."""

from __future__ import annotations

from hashlib import sha256

from gapless.digest import entry_digests, range_digest, state_digest
from gapless.model import Entry, Evidence
from gapless.schema import Column, Kind, Nature, Rows, Table

ENTRIES = [Entry(n, f"0x{n:02x}", f"0x{n - 1:02x}", 0, Evidence.CHECKED) for n in (7, 8)]
EMPTY = sha256(b"").hexdigest()


def table(name: str) -> Table:
    return Table(name, "s", Nature.FACT, (Column("at", Kind.INT), Column("note", Kind.TEXT)), ("at", "note"))


def rows(name: str, *notes: list[str]) -> Rows:
    """Of the two entries, in this order."""
    texts = [[str(e.position), note] for e, of_entry in zip(ENTRIES, notes, strict=True) for note in of_entry]
    columns = tuple(zip(*texts, strict=True)) if texts else ((), ())
    return Rows(table(name), columns, tuple(map(len, notes)))


def digest_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def digest_of_bytes(*digests: str) -> str:
    return sha256(bytes.fromhex("".join(digests))).hexdigest()


def test_a_digest_is_what_its_page_says() -> None:
    """Position, id, then the tables with rows by name, each with its count and canonical lines."""
    digests, counts = entry_digests(
        ENTRIES, [rows("b", ["x"], []), rows("empty", [], []), rows("a", ["t\tab", "y"], [])]
    )
    assert digests[0] == digest_of("gapless entry 1\n7\t0x07\na\t2\n7\tt\\tab\n7\ty\nb\t1\n7\tx\n")
    assert digests[1] == digest_of("gapless entry 1\n8\t0x08\n")
    assert counts == [3, 0]


def test_the_order_of_rows_counts() -> None:
    """The same rows in another order are other rows: the order is that of their keys, which includes where they
    stood."""
    one, other = (entry_digests(ENTRIES, [rows("a", notes, [])])[0][0] for notes in (["x", "y"], ["y", "x"]))
    assert one != other


def test_a_range_digest_is_the_tree_its_page_says() -> None:
    """Leaves and nodes are hashed apart, an odd node is promoted; of nothing it is the hash of nothing."""

    def leaf(digest: str) -> bytes:
        return sha256(b"\x00" + bytes.fromhex(digest)).digest()

    def node(left: bytes, right: bytes) -> bytes:
        return sha256(b"\x01" + left + right).digest()

    a, b, c, d, e = (digest_of(letter) for letter in "abcde")
    assert range_digest([]) == EMPTY
    assert range_digest([a]) == leaf(a).hex()
    assert range_digest([a, b, c]) == node(node(leaf(a), leaf(b)), leaf(c)).hex()
    four = node(node(leaf(a), leaf(b)), node(leaf(c), leaf(d)))
    assert range_digest([a, b, c, d, e]) == node(four, leaf(e)).hex()


def test_a_node_is_no_leaf() -> None:
    """Nobody can pass off two entries as one whose digest is theirs together."""
    a, b = digest_of("a"), digest_of("b")
    together = range_digest([a, b])
    assert range_digest([together]) != together
    assert range_digest([digest_of_bytes(a, b)]) != together


def test_a_state_digest_is_what_its_page_says() -> None:
    """Tables by name, each with its lines."""
    digest = state_digest([("b", ["x"]), ("a", ["1\t2", "3"]), ("c", [])])
    assert digest == digest_of("gapless state 1\na\n1\t2\n3\nb\nx\nc\n")
    assert digest != state_digest([("a", ["1\t2", "3"]), ("b", []), ("c", ["x"])])

"""Digests: what an entry produced, in 32 bytes.

    entry digest = SHA-256( "gapless entry 1\\n" position "\\t" id "\\n"
                            { table "\\t" rows "\\n" { line "\\n" } } )       tables sorted by name, empty ones left out
    range digest = Merkle tree over entry digests: leaf SHA-256(0x00 leaf), node SHA-256(0x01 left right), an odd
                   node is promoted.

Lines are the canonical rows of `gapless.schema`. Two deployments that agree on a digest agree on every row; where
they differ, the tree finds the first difference in O(log n) comparisons. State tables are not part of an entry's
digest: they depend on all entries before; they have a digest of their own (`state_digest`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from gapless.model import Entry
from gapless.schema import Rows


def entry_digests(entries: Sequence[Entry], rows: Sequence[Rows]) -> tuple[list[str], list[int]]:
    """Digest and row count of each entry. `rows` hold the entries' facts, one item a table, in any order."""
    ordered = sorted((r for r in rows if len(r)), key=lambda r: r.table.name)
    parts = [(r.table.name, r.counts, _texts(r)) for r in ordered]
    digests: list[str] = []
    totals: list[int] = []
    for i, entry in enumerate(entries):
        hasher = hashlib.sha256(f"gapless entry 1\n{entry.position}\t{entry.id}\n".encode())
        total = 0
        for name, counts, texts in parts:
            count = counts[i]
            if count:
                total += count
                hasher.update(f"{name}\t{count}\n".encode())
                hasher.update(next(texts))
        digests.append(hasher.hexdigest())
        totals.append(total)
    return digests, totals


def _texts(rows: Rows) -> Iterator[bytes | memoryview]:
    """The lines of each entry that has some, with a newline after each."""
    ends = accumulate(filter(None, rows.counts))
    if rows.packed is None:
        start = 0
        for end in ends:
            yield ("\n".join(rows.lines[start:end]) + "\n").encode()
            start = end
        return
    text, start = memoryview(rows.text), 0
    places = rows.packed.line_ends()
    for row_end in ends:
        end = int(places[row_end - 1])
        yield text[start:end]
        start = end


def range_digest(digests: Iterable[str]) -> str:
    """Merkle root over entry digests in position order; of nothing: the hash of nothing."""
    level = [hashlib.sha256(b"\0" + bytes.fromhex(d)).digest() for d in digests]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        pairs = [hashlib.sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0].hex()


def state_digest(tables: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Digest of state tables: (name, canonical lines in key order) sorted by name."""
    hasher = hashlib.sha256(b"gapless state 1\n")
    for name, lines in sorted(tables):
        hasher.update(f"{name}\n".encode())
        for line in lines:
            hasher.update(f"{line}\n".encode())
    return hasher.hexdigest()

"""Labels: signatures, and which of them hold.

Label specification. A label is about a `uri` (and, if named, one version of it, `cid`), says `val` and is said by
`src`. A later one of the same source, subject and value replaces it; a negation (`neg`) takes back all of them,
whatever version they name: rows that a negation missed for its `cid` were the largest leftover of an earlier indexer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gapless.errors import Contradiction
from gapless.sources.atproto.dagcbor import encode
from gapless.sources.atproto.frames import Label
from gapless.sources.atproto.keys import PublicKey
from gapless.sources.atproto.syntax import datetime_us, is_at_uri, is_did

VALUE_BYTES_MAX = 128
"""Lexicon com.atproto.label.defs, `val`."""


def is_label_signed(raw: dict[str, Any], key: PublicKey) -> bool:
    """Whether the labeler's key signed a label, given as it came (`Labels.raw`): the signature is over its DAG-CBOR
    without `sig`."""
    signature = raw.get("sig")
    if not isinstance(signature, bytes):
        return False
    try:
        signed = encode({name: value for name, value in raw.items() if name not in ("sig", "$type")})
    except Contradiction:
        return False
    return key.verify(bytes(signature), signed)


def is_label_formed(label: Label) -> bool:
    """Whether a label's fields are what they should be."""
    return (
        is_did(label.src)
        and (is_did(label.uri) or is_at_uri(label.uri))
        and 0 < len(label.val.encode()) <= VALUE_BYTES_MAX
        and datetime_us(label.cts) is not None
        and (label.exp is None or datetime_us(label.exp) is not None)
    )


def label_order(label: Label) -> int:
    """Labels of one source, subject and value are ordered by the time they were made, microseconds since 1970 UTC."""
    return datetime_us(label.cts) or 0


LabelKey = tuple[str, str, str]


@dataclass(slots=True)
class LabelBook:
    """Which labels hold, by (source, subject, value) and then by version: empty for none."""

    held: dict[LabelKey, dict[str, Label]] = field(default_factory=dict)
    negated: dict[LabelKey, int] = field(default_factory=dict)
    """When each was last taken back: an older label that arrives late stays away."""

    def apply(self, labels: Iterable[Label]) -> None:
        """In any order, with the same result."""
        for label in labels:
            key, time_us = (label.src, label.uri, label.val), label_order(label)
            versions = self.held.setdefault(key, {})
            if label.neg:
                self.negated[key] = max(time_us, self.negated.get(key, 0))
                for cid, held in list(versions.items()):
                    if label_order(held) <= time_us:
                        del versions[cid]
            elif time_us > self.negated.get(key, -1):
                held_before = versions.get(label.cid or "")
                if held_before is None or _rank(held_before) < _rank(label):
                    versions[label.cid or ""] = label
            if not versions:
                del self.held[key]

    def labels(self) -> list[Label]:
        return [label for _, versions in sorted(self.held.items()) for _, label in sorted(versions.items())]


def _rank(label: Label) -> tuple[int, str]:
    return label_order(label), label.exp or ""

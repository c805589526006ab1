"""Regular answers read as columns: what an endpoint says of many logs differs in a few characters only.

The JSON of a log is the same text but for its values, and those have few widths. So the first log of a length is taken
apart, key by key, into a template; all others of that length are compared with it, character by character and all at
once, outside the values; and each value is a slice of the whole. Nothing is guessed: a log that no template fits makes
the answer irregular, and then it is decoded log by log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gapless.sources.evm.logtable import (
    ADDRESS,
    HASH,
    Ints,
    LogShape,
    LogTable,
    Text,
    is_hex_text,
    joined_shapes,
)

LOGS_MIN = 48
"""Fewer are decoded sooner than looked at."""
TEMPLATES_MAX = 48
"""Kinds of log in one answer: by their length, their topics, the digits of their quantities."""
_ROWS_PER_TEMPLATE_MIN = 4
_TOPICS_MAX = 4
_QUANTITY_DIGITS_MAX = 15

_STRING = rb'"[^"\\]*"'
_FIELD = re.compile(
    rb'\s*"(\w+)"\s*:\s*(' + _STRING + rb"|true|false|null|-?[0-9]+|\[\s*(?:" + _STRING + rb"\s*,?\s*)*\])\s*([,}])"
)
_TEXT = re.compile(_STRING)
_WIDTHS = {"address": ADDRESS, "blockHash": HASH, "transactionHash": HASH}
_QUANTITIES = ("blockNumber", "transactionIndex", "logIndex")
_WANTED = frozenset({*_WIDTHS, *_QUANTITIES, "data"})
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Template:
    """Where a log's values lie in its JSON."""

    values: dict[str, Span]
    topics: tuple[Span, ...]
    ignored: tuple[Span, ...]
    """Texts of fields that are not wanted."""
    fixed: tuple[Span, ...]
    """Everything else: the same in every log of the kind."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """All logs of an answer that one template fits."""

    rows: Ints
    text: Text
    template: _Template

    def column(self, field: str) -> Text:
        start, end = self.template.values[field]
        return self.text[:, start:end]


def log_table(raws: Sequence[bytes]) -> LogTable | None:
    """The logs of an answer, each given as JSON; None where they are too few, or not regular."""
    if len(raws) < LOGS_MIN:
        return None
    kinds = _kinds(raws)
    if kinds is None:
        return None
    quantities = [[_integers(kind.column(field)) for field in _QUANTITIES] for kind in kinds]
    if any(column is None for columns in quantities for column in columns):
        return None
    if not all(_is_well_formed(kind) for kind in kinds):
        return None
    count = len(raws)
    number, transaction_index, log_index = (
        _gathered(kinds, [columns[at] for columns in quantities], count) for at in range(3)
    )
    address, block_hash, transaction_hash = (
        _gathered(kinds, [kind.column(field) for kind in kinds], count) for field in _WIDTHS
    )
    return LogTable(
        number,
        transaction_index,
        log_index,
        address,
        block_hash,
        transaction_hash,
        _shapes(kinds, count),
    )


def _shapes(kinds: Sequence[_Kind], count: int) -> tuple[LogShape, ...]:
    by_width: dict[tuple[int, int], list[LogShape]] = {}
    for kind in kinds:
        topics = tuple(kind.text[:, start:end] for start, end in kind.template.topics)
        data = kind.column("data")
        by_width.setdefault((len(topics), data.shape[1]), []).append(LogShape(kind.rows, topics, data))
    if len(by_width) > 1 or len(kinds) == 1:
        return tuple(map(joined_shapes, by_width.values()))
    [same] = by_width.values()
    topics = tuple(_gathered(kinds, list(parts), count) for parts in zip(*[s.topics for s in same], strict=True))
    return (LogShape(np.arange(count), topics, _gathered(kinds, [s.data for s in same], count)),)


def _gathered(kinds: Sequence[_Kind], columns: Sequence[np.ndarray | None], count: int) -> np.ndarray:
    """One column of the whole answer, in its order, from those of its kinds."""
    first = columns[0]
    assert first is not None
    if len(kinds) == 1:
        return first
    whole = np.empty((count, *first.shape[1:]), first.dtype)
    for kind, column in zip(kinds, columns, strict=True):
        whole[kind.rows] = column
    return whole


def _kinds(raws: Sequence[bytes]) -> list[_Kind] | None:
    """The logs by template; None where there are too many."""
    templates_max = min(TEMPLATES_MAX, max(1, len(raws) // _ROWS_PER_TEMPLATE_MIN))
    lengths = np.fromiter(map(len, raws), np.int64, len(raws))
    kinds: list[_Kind] = []
    distinct = np.unique(lengths).tolist()
    if len(distinct) > templates_max:
        return None
    for length in distinct:
        rows = np.flatnonzero(lengths == length)
        some = raws if len(rows) == len(raws) else [raws[row] for row in rows.tolist()]
        text = np.frombuffer(b"".join(some), np.uint8).reshape(len(rows), length)
        while len(rows):
            template = _template(text[0].tobytes())
            if template is None or len(kinds) == templates_max:
                return None
            fits = _fitting(text, template)
            if not fits[0]:
                return None
            if fits.all():
                kinds.append(_Kind(rows, text, template))
                break
            kinds.append(_Kind(rows[fits], text[fits], template))
            rows, text = rows[~fits], text[~fits]
    return kinds


def _template(raw: bytes) -> _Template | None:
    """Take one log apart. None for what is not a flat object with every wanted field once."""
    fields: dict[str, Span] = {}
    at = 1
    if raw[:1] != b"{":
        return None
    while True:
        match = _FIELD.match(raw, at)
        if match is None or (name := match[1].decode("ascii", "replace")) in fields:
            return None
        fields[name] = match.span(2)
        at = match.end()
        if match[3] == b"}":
            break
    if at != len(raw) or not (_WANTED | {"topics"}) <= fields.keys():
        return None
    if "removed" in fields and raw[slice(*fields["removed"])] != b"false":
        return None
    inner = {name: (start + 1, end - 1) for name, (start, end) in fields.items() if raw[start : start + 1] == b'"'}
    if not inner.keys() >= _WANTED or raw[fields["topics"][0] : fields["topics"][0] + 1] != b"[":
        return None
    values = {name: inner[name] for name in _WANTED}
    start, end = fields["topics"]
    topics = tuple((m.start() + 1, m.end() - 1) for m in _TEXT.finditer(raw, start, end))
    ignored = tuple(span for name, span in inner.items() if name not in values)
    return _Template(values, topics, ignored, _between(sorted([*values.values(), *topics, *ignored]), len(raw)))


def _between(spans: Sequence[Span], length: int) -> tuple[Span, ...]:
    starts = [0, *(end for _, end in spans)]
    ends = [*(start for start, _ in spans), length]
    return tuple((a, b) for a, b in zip(starts, ends, strict=True) if a < b)


def _fitting(text: Text, template: _Template) -> np.ndarray:
    """Which rows have the template's text outside its values, and values that end where its do."""
    first = text[0]
    fits = np.ones(len(text), bool)
    for start, end in template.fixed:
        same = text[:, start:end] == first[start:end]
        if not same.all():  # much sooner said for all than for each
            fits &= same.all(axis=1)
    for start, end in template.ignored:
        part = text[:, start:end]
        plain = (part >= 0x20) & (part < 0x7F) & (part != ord('"')) & (part != ord("\\"))
        if not plain.all():
            fits &= plain.all(axis=1)
    return fits


def _is_well_formed(kind: _Kind) -> bool:
    """Whether every value is lower-case `0x` text of the width it must have."""
    for field, width in _WIDTHS.items():
        column = kind.column(field)
        if column.shape[1] != width or not is_hex_text(column):
            return False
    if len(kind.template.topics) > _TOPICS_MAX:
        return False
    for start, end in kind.template.topics:
        if end - start != HASH or not is_hex_text(kind.text[:, start:end]):
            return False
    data = kind.column("data")
    return data.shape[1] >= 2 and data.shape[1] % 2 == 0 and is_hex_text(data)


def _integers(column: Text) -> Ints | None:
    """Quantities as the specification has them, without leading zeros; None for anything else."""
    digits = column.shape[1] - 2
    if not (0 < digits <= _QUANTITY_DIGITS_MAX and is_hex_text(column)):
        return None
    if digits > 1 and bool((column[:, 2] == 48).any()):
        return None
    found = np.zeros(len(column), np.int64)
    for at in range(2, digits + 2):
        character = column[:, at].astype(np.int64)
        found = found * 16 + np.where(character > 57, character - 87, character - 48)
    return found

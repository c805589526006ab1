"""Events of logs in columns, straight to packed rows: what `events.py` does, for logs that are regular.

Only events whose parameters are one word each come this way. Where a log is not exactly what its event makes it (bytes
where padding must be, other data, other topics), nothing is packed, and the logs are decoded one batch of objects at a
time, which finds the odd ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import iter_unpack

import numpy as np

from gapless.packed import Packed, Text, decimals, padded
from gapless.sources.evm.abi import AbiType, EventAbi
from gapless.sources.evm.logtable import Ints, LogShape, LogTable, all_equal, distinct
from gapless.sources.evm.rows import Blocks

_DIGEST = AbiType("bytes32")
_PREFIX = 2
_WORD = 64
_ZERO, _ONE = 48, 49
Lead = tuple[Text, Text, Text]


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a parameter lies: in which topic, or from which character of the data on."""

    type: AbiType
    topic: int | None
    start: int


Packing = tuple[Packed, list[int]]
"""Rows, and how many each block has."""


class Packer:
    """Packs the logs of a source's events."""

    def __init__(self, events: Sequence[tuple[EventAbi, frozenset[str] | None]]) -> None:
        """Each event comes with the addresses it is taken from; None is any."""
        self._events = [
            _Event(
                event,
                addresses,
                frozenset(e.topic_count for e, a in events if e.topic0 == event.topic0 and a is addresses),
            )
            for event, addresses in events
        ]

    def pack(self, blocks: Blocks, logs: LogTable) -> list[Packing | None] | None:
        """The rows of each event; None for one that has none. None as a whole where a log that is an event's by topic
        and address is not exactly of it."""
        leading = lead(blocks)
        place = logs.number - blocks.positions[0]
        found: list[Packing | None] = []
        for event in self._events:
            packing: Packing | None = None
            for shape in logs.shapes:
                chosen = event.choose(logs, shape)
                if chosen is None or not len(chosen):
                    continue
                if len(shape.topics) != event.topic_count:
                    if event.is_left_alone(shape):
                        continue
                    return None
                packed = event.pack(logs, shape, chosen, leading, place)
                if packed is None:
                    return None
                counts = np.bincount(place[shape.rows[chosen]], minlength=len(blocks.positions))
                packing = packed, counts.tolist()
            found.append(packing)
        return found


class _Event:
    """Packs logs of one event. `shapes` are the numbers of topics that events of its contract with its first topic
    have."""

    def __init__(self, event: EventAbi, addresses: frozenset[str] | None, shapes: frozenset[int]) -> None:
        self.topic_count = event.topic_count
        self._topic0 = np.frombuffer(event.topic0.encode(), np.uint8)
        self._addresses = addresses
        self._shapes = shapes
        self._slots: list[_Slot] = []
        topic, start = 1, _PREFIX
        for i in event.inputs:
            if i.indexed:
                self._slots.append(_Slot(_DIGEST if i.hashed else i.type, topic, _PREFIX))
                topic += 1
            else:
                self._slots.append(_Slot(i.type, None, start))
                start += _WORD
        self._data_width = start

    def choose(self, logs: LogTable, shape: LogShape) -> Ints | None:
        """Which rows of a shape have the event's first topic and address; None for no row."""
        if not shape.topics:
            return None
        first = shape.topics[0]
        if all_equal(first):
            if not bool((first[0] == self._topic0).all()):
                return None
            chosen = np.arange(len(first))
        else:
            chosen = np.flatnonzero((first == self._topic0).all(axis=1))
        if self._addresses is None or not len(chosen):
            return chosen
        values, which = distinct(logs.address[shape.rows[chosen]])
        ours = np.array([value.decode("ascii") in self._addresses for value in values])
        return chosen if bool(ours.all()) else chosen[ours[which]]

    def is_left_alone(self, shape: LogShape) -> bool:
        """Whether logs with another number of topics are another event's."""
        return self._addresses is None or len(shape.topics) in self._shapes

    def pack(self, logs: LogTable, shape: LogShape, chosen: Ints, leading: Lead, place: Ints) -> Packed | None:
        """The rows of these rows of a shape. None where a log is not exactly of the event."""
        if shape.data.shape[1] != self._data_width:
            return None
        all_chosen = len(chosen) == len(shape.rows)
        columns: list[Text] = []
        for slot in self._slots:
            source = shape.data if slot.topic is None else shape.topics[slot.topic]
            column = _read(source if all_chosen else source[chosen], slot)
            if column is None:
                return None
            columns.append(column)
        rows: Ints | slice = slice(None) if len(chosen) == len(logs) else shape.rows[chosen]
        at = place[rows]
        fields = [
            logs.transaction_hash[rows],
            decimals(logs.transaction_index[rows]),
            decimals(logs.log_index[rows]),
            logs.address[rows],
        ]
        return Packed.of([*(part[at] for part in leading), *fields, *columns])


def lead(blocks: Blocks) -> Lead:
    """block_number, block_timestamp and block_hash of each block."""
    return padded(blocks.numbers), padded(blocks.times), padded(blocks.hashes)


def _read(source: Text, slot: _Slot) -> Text | None:
    """The canonical text of a one-word parameter; None where its padding is not what an encoder writes."""
    start, end = slot.start, slot.start + _WORD
    word = source[:, start:end]
    kind = slot.type
    if kind.base == "address":
        return _prefixed(word[:, 24:]) if _is_zero(word[:, :24]) else None
    if kind.base == "bool":
        last = word[:, 63:]
        return last if _is_zero(word[:, :63]) and bool(((last == _ZERO) | (last == _ONE)).all()) else None
    if kind.integer:
        return _number(word, kind)
    size = 24 if kind.base == "function" else int(kind.base.removeprefix("bytes"))
    return _prefixed(word[:, : 2 * size]) if _is_zero(word[:, 2 * size :]) else None


def _number(word: Text, kind: AbiType) -> Text | None:
    unused = _WORD - kind.bits // 4
    signed = not kind.base.startswith("u")
    if not signed and not _is_zero(word[:, :unused]):
        return None
    raw = bytes.fromhex(np.ascontiguousarray(word).tobytes().decode("ascii"))
    numbers = [int.from_bytes(v, "big", signed=signed) for (v,) in iter_unpack("32s", raw)]
    if signed and kind.bits < 256:
        limit = 1 << (kind.bits - 1)
        if not all(-limit <= n < limit for n in numbers):
            return None
    return padded(list(map(str, numbers)))


def _is_zero(digits: Text) -> bool:
    return bool((digits == _ZERO).all())


def _prefixed(digits: Text) -> Text:
    column = np.empty((len(digits), digits.shape[1] + _PREFIX), np.uint8)
    column[:, 0], column[:, 1] = _ZERO, 120
    column[:, _PREFIX:] = digits
    return column

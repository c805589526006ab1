"""Batch decoding: many logs of one event to columns of canonical text.

What is strict (docs/decisions/0004-eth-abi-beside-column-slicing.md):

- padding must be what an encoder writes: zero bytes before an address or unsigned integer, the sign before a signed
  one, zero bytes after fixed bytes; a truth value is 0 or 1
- data of an event with only one-word parameters is exactly those words. Bytes beyond would be lost in the row
- data of other events may have gaps and a tail, as the ABI leaves the layout to the encoder; strings and bytes are
  padded with zeros to whole words
- a string is UTF-8 without NUL

A log that does not meet this is left out with a reason; its siblings are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gapless.sources.evm.abi import AbiType, EventAbi
from gapless.sources.evm.columns import (
    Columns,
    Irregular,
    Words,
    fixed_bytes,
    integers,
    joined,
    sift,
    word_column,
    words,
)
from gapless.sources.evm.types import Log

if TYPE_CHECKING:
    from gapless.sources.evm.dynamic import DataCodec

LOG_COLUMNS = 4
"""How many columns `log_columns` makes."""

_DIGEST = AbiType("bytes32")


def words_only(event: EventAbi) -> bool:
    """Whether each parameter in the data is exactly one word."""
    return all(i.indexed or i.type.word for i in event.inputs)


def log_columns(logs: Sequence[Log]) -> Columns:
    """transaction_hash, transaction_index, log_index, address: where each log comes from."""
    try:
        return [
            fixed_bytes([log.transaction_hash for log in logs], 32),
            integers([log.transaction_index for log in logs]),
            integers([log.log_index for log in logs]),
            fixed_bytes([log.address for log in logs], 20),
        ]
    except Irregular as fault:
        raise Irregular(f"transaction, index or address of the log: {fault}") from fault


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a one-word parameter lies, and how it is read."""

    parameter: int
    place: int
    """Index of the topic, or of the word in the data."""
    label: str
    read: Callable[[Words, int], list[str]]


@dataclass(frozen=True, slots=True)
class EventColumns:
    """What became of a batch of logs."""

    columns: Columns
    """The four of `log_columns`, then the parameters, of the logs that decode, in order."""
    odd: dict[int, str]
    """Index in the batch and reason of each log that does not."""


class EventCodec:
    """Decodes logs of one event."""

    def __init__(self, event: EventAbi) -> None:
        self.event = event
        self._topics: list[_Slot] = []
        self._words: list[_Slot] = []
        self._data_parameters = [n for n, i in enumerate(event.inputs) if not i.indexed]
        self._data: DataCodec | None = None
        topic = 0 if event.anonymous else 1
        for n, i in enumerate(event.inputs):
            if i.indexed:
                read = word_column(_DIGEST if i.hashed else i.type)
                self._topics.append(_Slot(n, topic, f"{i.name or n} (topic {topic})", read))
                topic += 1
        types = [event.inputs[n].type for n in self._data_parameters]
        if all(t.word for t in types):
            for place, (n, t) in enumerate(zip(self._data_parameters, types, strict=True)):
                self._words.append(_Slot(n, place, event.inputs[n].name or str(n), word_column(t)))
        else:
            from gapless.sources.evm.dynamic import DataCodec

            self._data = DataCodec(types)

    def decode(self, logs: Sequence[Log]) -> EventColumns:
        """Columns of the logs that decode, and reasons for those that do not."""
        width = LOG_COLUMNS + len(self.event.inputs)
        if self._data is None:
            parts, odd = sift(logs, self._columns)
            return EventColumns(joined(parts, width), odd)
        odd = {}
        decoded: list[tuple[Log, list[str]]] = []
        origin: list[int] = []
        for i, log in enumerate(logs):
            try:
                decoded.append((log, self._data.decode(log.data)))
                origin.append(i)
            except Irregular as fault:
                odd[i] = self._misshapen(log) or f"data: {fault}"
        parts, odd_places = sift(decoded, self._columns_with_data)
        odd.update((origin[i], reason) for i, reason in odd_places.items())
        return EventColumns(joined(parts, width), odd)

    def _columns(self, logs: Sequence[Log]) -> Columns:
        # What most often fails comes first: another number of topics, other data.
        topics = self._topics_of(logs)
        try:
            data = words([log.data for log in logs], 64 * len(self._words))
        except Irregular as fault:
            raise Irregular(f"data: {fault}") from fault
        columns = self._frame(logs, topics)
        for slot in self._words:
            columns[LOG_COLUMNS + slot.parameter] = _read(slot, data, 1 + 32 * slot.place)
        return columns

    def _columns_with_data(self, decoded: Sequence[tuple[Log, list[str]]]) -> Columns:
        logs = [log for log, _ in decoded]
        columns = self._frame(logs, self._topics_of(logs))
        for n, column in zip(self._data_parameters, zip(*[texts for _, texts in decoded], strict=True), strict=True):
            columns[LOG_COLUMNS + n] = column
        return columns

    def _topics_of(self, logs: Sequence[Log]) -> list[list[str]]:
        topics = [log.topics for log in logs]
        if set(map(len, topics)) != {self.event.topic_count}:
            raise Irregular(self._misshapen(logs[0]))
        return topics

    def _misshapen(self, log: Log) -> str:
        """What is to be said of the number of topics; empty when it is right."""
        found, expected = len(log.topics), self.event.topic_count
        return "" if found == expected else f"{found} topics where {expected} are expected"

    def _frame(self, logs: Sequence[Log], topics: list[list[str]]) -> Columns:
        """The columns from everything but the data; empty ones where the data's go."""
        columns = [*log_columns(logs), *([] for _ in self.event.inputs)]
        for slot in self._topics:
            place = slot.place
            try:
                column = words([t[place] for t in topics], 64)
            except Irregular as fault:
                raise Irregular(f"{slot.label}: {fault}") from fault
            columns[LOG_COLUMNS + slot.parameter] = _read(slot, column, 1)
        return columns


def _read(slot: _Slot, values: Words, at: int) -> list[str]:
    try:
        return slot.read(values, at)
    except Irregular as fault:
        raise Irregular(f"{slot.label}: {fault}") from fault

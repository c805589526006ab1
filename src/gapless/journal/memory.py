"""A journal in memory: a bounded buffer in the process. It is gone when the process is."""

from __future__ import annotations

from collections.abc import Sequence

from gapless.errors import JournalUnavailable
from gapless.journal import Damage, JournalState, Message, Record
from gapless.journal.consumers import Consumers
from gapless.journal.limits import Gauge, Limits, RecentIds
from gapless.journal.log import check_reach


class MemoryLog:
    """A list of records and where it begins."""

    url = "memory:"
    blocks = False

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._records: list[Record] = []
        self._floor = 0
        self._bytes = 0
        self._gauge = Gauge(limits)
        self._recent = RecentIds(limits.recent_ids)
        self._consumers = Consumers()
        self._open = False

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        self._open = False

    def append(self, messages: Sequence[Message]) -> list[int]:
        self._ready()
        self.limits.check_messages(messages)
        self._gauge.admit(len(self._records), self._bytes)
        places, fresh = self._recent.place(messages, self._last + 1)
        for position, message in enumerate(fresh, self._last + 1):
            self._records.append(Record(position, message.id, message.payload, message.received_us))
            self._recent.add(message.id, position)
            self._bytes += len(message.payload)
        return places

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]:
        self._ready()
        check_reach(after, self._floor, self._last)
        found = self._records[after - self._floor : after - self._floor + records_max]
        room = bytes_max
        for count, record in enumerate(found):
            room -= len(record.payload)
            if room < 0 and count:
                return found[:count]
        return found

    def subscribe(self, consumer: str) -> int:
        self._ready()
        if not self._consumers.known(consumer):
            self._consumers.add(consumer, self._floor)
        return self._consumers.acknowledged(consumer)

    def unsubscribe(self, consumer: str) -> None:
        self._ready()
        self._consumers.remove(consumer)

    def acknowledge(self, consumer: str, upto: int) -> None:
        self._ready()
        self._consumers.acknowledge(consumer, upto, self._last)

    def trim(self, upto: int | None) -> int:
        self._ready()
        target = self._consumers.trimmable(upto, self._floor)
        gone = self._records[: target - self._floor]
        del self._records[: len(gone)]
        self._bytes -= sum(len(r.payload) for r in gone)
        self._floor = target
        return target

    def state(self) -> JournalState:
        self._ready()
        full = self._gauge.full(len(self._records), self._bytes)
        return JournalState(self._floor + 1, self._last, self._bytes, full, self._consumers.positions())

    def verify(self) -> list[Damage]:
        self._ready()
        return []

    @property
    def _last(self) -> int:
        return self._floor + len(self._records)

    def _ready(self) -> None:
        if not self._open:
            raise JournalUnavailable("The journal is closed", todo="Open it again.")

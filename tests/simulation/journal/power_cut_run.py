"""One seeded run of a file journal on a disk that forgets, and the law it is held to.

The law: what was acknowledged is there, at its position, byte for byte; what was not acknowledged is there whole and
in order or not at all; nothing else is there. What a reader has been given once counts as acknowledged from then on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from gapless.errors import GaplessError, JournalFull, JournalUnavailable
from gapless.journal import Message, Record
from gapless.journal.disk import Disk
from gapless.journal.file import FileLog
from gapless.journal.limits import Limits
from gapless.testing.power_cut import DiskFault, PowerCutDisk, PowerLost

FOLDER = Path("/journal")
LIMITS = Limits(
    records_high=400, records_low=300, bytes_high=400_000, bytes_low=300_000, segment_bytes=3_000, recent_ids=40
)
Make = Callable[[Path, Limits, Disk], FileLog]


class Broken(AssertionError):
    """The law was broken."""


class Run:
    """A journal, its disk, and what it has promised."""

    def __init__(self, seed: int, make: Make = FileLog) -> None:
        self.random = Random(seed)
        self.disk = PowerCutDisk(seed)
        self.make = make
        self.promised: list[Message] = []
        """By position - 1: acknowledged, or found after a recovery."""
        self.floor = 0
        """At least this much may be trimmed."""
        self.acknowledged = 0
        self.unanswered: list[Message] = []
        self.sent = 0
        self.cuts = 0
        self.open()

    def play(self, operations: int) -> None:
        weights = {
            self.append: 50,
            self.append_again: 6,
            self.append_across_blocks: 1,
            self.read: 14,
            self.acknowledge: 8,
            self.trim: 4,
            self.cut: 3,
            self.cut_within: 5,
            self.crash: 3,
            self.close: 2,
            self.disk_fails: 5,
        }
        for step in self.random.choices(list(weights), list(weights.values()), k=operations):
            step()
        self.cut()
        self.compare()

    # --- what happens ---

    def append(self) -> None:
        self._append([self._message() for _ in range(self.random.choice((1, 1, 2, 3, 8)))])

    def append_across_blocks(self) -> None:
        """An append of which a later part can be whole where an earlier one is not."""
        self._append([self._message(), self._message(33_000), self._message(), self._message(20_000), self._message()])

    def append_again(self) -> None:
        """A retry of what was appended lately, with something new behind it."""
        recent = self.promised[max(len(self.promised) - 20, self.floor) :]
        self._append([*self.random.sample(recent, min(3, len(recent))), self._message()])

    def read(self) -> None:
        if self.floor < len(self.promised):
            after = self.random.randrange(self.floor, len(self.promised))
            found = self.log.read(after, self.random.randrange(1, 12), 4_000)
            expect(bool(found), f"reading after {after} gives nothing")
            self._compare(found, after)

    def acknowledge(self) -> None:
        self.acknowledged = self.random.randrange(self.acknowledged, len(self.promised) + 1)
        self.log.acknowledge("reader", self.acknowledged)

    def trim(self) -> None:
        self.floor = self._trimmed(self.log.trim)

    def crash(self) -> None:
        self.disk.crash()
        self.open()

    def cut(self) -> None:
        self.cuts += 1
        self.disk.cut()
        self.open()

    def cut_within(self) -> None:
        """The power goes in the middle of whatever comes next, recovery included."""
        self.disk.cut_in(self.random.choice((0, 1, 2, 3, 5)))
        with suppress(PowerLost):
            self.random.choice((self.append, self.append, self.append_across_blocks, self.trim, self.close))()
        for _ in range(self.random.choice((0, 0, 1, 2))):
            self.disk.cut()
            self.disk.cut_in(self.random.randrange(25))
            try:
                self.open()
            except PowerLost:
                self.cuts += 1
        self.disk.heal()
        self.cut()

    def disk_fails(self) -> None:
        """An operation fails; nothing is done before the journal is opened again, on the same page cache."""
        operation = self.random.choice(("write_at", "sync", "sync", "create", "rename", "sync_folder", "remove"))
        error = self.random.choice((errno.EIO, errno.ENOSPC))
        self.disk.fail(DiskFault(operation, error, skip=self.random.randrange(3), share=self.random.random()))
        try:
            self.random.choice((self.append, self.append, self.append, self.trim, self.close))()
        except JournalUnavailable:
            for refused in (lambda: self.log.read(self.floor, 1, 1), lambda: self.log.append([self._message()])):
                try:
                    refused()
                except JournalUnavailable:
                    continue
                raise Broken("after a failure of the disk the journal goes on") from None
        self.disk.heal()
        self.crash()

    def close(self) -> None:
        self.log.close()
        self.open()

    def open(self) -> None:
        self.log = self.make(FOLDER, LIMITS, self.disk)
        self.log.open()
        self.log.subscribe("reader")
        state = self.log.state()
        expect(state.last >= len(self.promised), f"{len(self.promised) - state.last} acknowledged records are lost")
        self.floor = max(self.floor, self._trimmed(lambda: state.first - 1))
        found = self._all(max(len(self.promised), self.floor))
        expect(found == self.unanswered[: len(found)], "there are records that nobody appended")
        self.promised += found
        self.unanswered = []
        at = state.consumers["reader"]
        expect(self.floor <= at <= self.acknowledged, f"the reader is at {at}, and acknowledged {self.acknowledged}")
        self.log.acknowledge("reader", self.acknowledged)

    # --- the law ---

    def compare(self) -> None:
        """Everything, as it was promised."""
        expect(self._all(self.floor) == self.promised[self.floor :], "the journal holds something else")
        expect(not self.log.verify(), f"damage is reported, and there is none: {self.log.verify()}")

    def _compare(self, found: list[Record], after: int) -> None:
        for position, record in enumerate(found, after + 1):
            expect(record.position == position, f"position {record.position} in the place of {position}")
            expect(_message(record) == self.promised[position - 1], f"position {position} holds another message")

    def _all(self, after: int) -> list[Message]:
        out: list[Message] = []
        while found := self.log.read(after, 1000, 10**9):
            expect([r.position for r in found] == list(range(after + 1, after + 1 + len(found))), "holes")
            out += map(_message, found)
            after += len(found)
        return out

    def _trimmed(self, trim: Callable[..., int]) -> int:
        """Where a trim of everything acknowledged arrives: never beyond what is acknowledged."""
        floor = trim(None) if trim == self.log.trim else trim()
        expect(floor <= self.acknowledged, f"trimmed to {floor}, and only {self.acknowledged} is acknowledged")
        return floor

    def _append(self, messages: list[Message]) -> None:
        known = {m.id for m in self.promised[-80:]}
        self.unanswered = [m for m in messages if m.id not in known]
        try:
            positions = self.log.append(messages)
        except JournalFull:
            self.unanswered = []
            self.acknowledged = len(self.promised)
            self.log.acknowledge("reader", self.acknowledged)
            self.trim()
            return
        self.promised += self.unanswered
        self.unanswered = []
        for message, position in zip(messages, positions, strict=True):
            expect(self.promised[position - 1] == message, f"{message.id} was acknowledged at a place of another")

    def _message(self, size: int | None = None) -> Message:
        self.sent += 1
        size = self.random.choice((0, 3, 90, 400, 400, 700)) if size is None else size
        return Message(f"m{self.sent}", self.sent.to_bytes(4, "big") * (size // 4), self.sent)


def _message(record: Record) -> Message:
    return Message(record.id, record.payload, record.received_us)


def expect(held: bool, law: str) -> None:
    if not held:
        raise Broken(law)


def runs(seeds: range, operations: int, make: Make = FileLog) -> int:
    """Play them all; the number of power cuts. Raises Broken, naming the seed."""
    cuts = 0
    for seed in seeds:
        try:
            run = Run(seed, make)
            run.play(operations)
        except (Broken, GaplessError) as error:
            raise Broken(f"seed {seed}: {type(error).__name__}: {error}") from error
        cuts += run.cuts
    return cuts

"""Any sequence of operations, on memory and on files, gives what a plain list would give."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gapless.errors import JournalError, JournalFull, JournalTrimmed
from gapless.journal import Message, Record
from gapless.journal.file import FileLog
from gapless.journal.limits import Limits
from gapless.journal.log import Log
from gapless.journal.memory import MemoryLog
from gapless.testing.power_cut import PowerCutDisk
from unit.journal.scene import FOLDER

LIMITS = Limits(records_high=30, records_low=18, bytes_high=2**20, bytes_low=2**19, segment_bytes=900, recent_ids=12)
NAMES = st.sampled_from(("first", "second", "third"))


class JournalMachine(RuleBasedStateMachine):
    """A journal beside a list, a number and a dictionary."""

    durable = False

    def make(self) -> Log:
        return MemoryLog(LIMITS)

    @initialize()
    def begin(self) -> None:
        self.log = self.make()
        self.log.open()
        self.sent: list[Message] = []
        self.floor = 0
        self.readers: dict[str, int] = {}
        self.full = False
        self.number = 0

    # --- writing ---

    @rule(sizes=st.lists(st.sampled_from((0, 5, 120, 400)), max_size=9), again=st.lists(st.integers(1, 12), max_size=3))
    def append(self, sizes: list[int], again: list[int]) -> None:
        """New messages, with some of the newest ones again among them."""
        batch = []
        for size in sizes:
            self.number += 1
            batch.append(Message(f"m{self.number}", bytes([self.number % 256]) * size, self.number))
        known = min(len(self.sent) - self.floor, LIMITS.recent_ids)
        old = [self.sent[-back] for back in again if back <= known]
        batch[1:1] = old
        if self.full:
            with pytest.raises(JournalFull):
                self.log.append(batch)
            return
        expected, fresh = [], []
        for message in batch:
            if message in old:
                expected.append(self.sent.index(message) + 1)
            else:
                fresh.append(message)
                expected.append(len(self.sent) + len(fresh))
        assert self.log.append(batch) == expected
        self.sent += fresh
        self._water()

    # --- reading ---

    @rule(data=st.data(), records_max=st.integers(1, 40), bytes_max=st.integers(1, 900))
    def read(self, data: st.DataObject, records_max: int, bytes_max: int) -> None:
        """From anywhere."""
        after = data.draw(st.integers(0, len(self.sent) + 2), label="after")
        if after < self.floor:
            with pytest.raises(JournalTrimmed):
                self.log.read(after, records_max, bytes_max)
        elif after > len(self.sent):
            with pytest.raises(JournalError):
                self.log.read(after, records_max, bytes_max)
        else:
            expected: list[Record] = []
            room = bytes_max
            for position, m in enumerate(self.sent[after : after + records_max], after + 1):
                room -= len(m.payload)
                if room < 0 and expected:
                    break
                expected.append(Record(position, m.id, m.payload, m.received_us))
            assert self.log.read(after, records_max, bytes_max) == expected

    # --- consumers ---

    @rule(name=NAMES)
    def subscribe(self, name: str) -> None:
        assert self.log.subscribe(name) == self.readers.setdefault(name, self.floor)

    @rule(name=NAMES)
    def unsubscribe(self, name: str) -> None:
        self.log.unsubscribe(name)
        self.readers.pop(name, None)

    @rule(name=NAMES, data=st.data())
    def acknowledge(self, name: str, data: st.DataObject) -> None:
        upto = data.draw(st.integers(0, len(self.sent) + 1), label="upto")
        if name not in self.readers or upto > len(self.sent):
            with pytest.raises(JournalError):
                self.log.acknowledge(name, upto)
        else:
            self.log.acknowledge(name, upto)
            self.readers[name] = max(self.readers[name], upto)

    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        upto = data.draw(st.none() | st.integers(0, len(self.sent) + 1), label="upto")
        slowest = min(self.readers.values(), default=self.floor)
        self.floor = max(self.floor, slowest if upto is None else min(upto, slowest))
        assert self.log.trim(upto) == self.floor
        self._water()

    # --- the end of a process ---

    @precondition(lambda self: self.durable)
    @rule(how=st.sampled_from(("close", "crash", "cut")))
    def restart(self, how: str) -> None:
        """Nothing changes but what a consumer had acknowledged: that may be lower, and then it says it again."""
        self.end(how)
        self.log = self.make()
        self.log.open()
        self.full = False
        self._water()
        assert self.log.verify() == []
        found = self.log.state().consumers
        assert found.keys() == self.readers.keys()
        for name, position in found.items():
            assert self.floor <= position <= self.readers[name]
            assert how != "close" or position == self.readers[name]
            self.log.acknowledge(name, self.readers[name])

    def end(self, how: str) -> None:
        raise AssertionError("a durable journal says how it ends")

    # --- always ---

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "log"):
            return
        state = self.log.state()
        assert (state.first, state.last) == (self.floor + 1, len(self.sent))
        assert state.consumers == self.readers
        assert state.full == self.full
        records = self.log.read(self.floor, 10_000, 10**9)
        assert [Message(r.id, r.payload, r.received_us) for r in records] == self.sent[self.floor :]
        assert [r.position for r in records] == list(range(self.floor + 1, len(self.sent) + 1))

    def _water(self) -> None:
        held = len(self.sent) - self.floor
        self.full = held >= LIMITS.records_high or (self.full and held > LIMITS.records_low)


class FileJournalMachine(JournalMachine):
    """On a disk that forgets."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.disk = PowerCutDisk(seed=1)

    def make(self) -> Log:
        return FileLog(FOLDER, LIMITS, self.disk)

    def end(self, how: str) -> None:
        if how == "close":
            self.log.close()
        elif how == "crash":
            self.disk.crash()
        else:
            self.disk.cut()


MACHINES: tuple[type[JournalMachine], ...] = (JournalMachine, FileJournalMachine)


def play(machine: type[JournalMachine], examples: int, steps: int, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=phases,
        ),
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", MACHINES)
def test_a_journal_does_what_a_list_would(machine: type[JournalMachine]) -> None:
    """200 runs of 50 steps each."""
    play(machine, 200, 50)


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_a_journal_does_what_a_list_would_for_long(machine: type[JournalMachine]) -> None:
    """5,000 runs of 100 steps each."""
    play(machine, 5000, 100)


class _Doubles(MemoryLog):
    def append(self, messages: Any) -> list[int]:
        self._recent = type(self._recent)(3)
        return super().append(messages)


class _TrimsOneMore(MemoryLog):
    def trim(self, upto: int | None) -> int:
        inner = self._consumers.trimmable
        self._consumers.trimmable = lambda u, f: min(self._last, inner(u, f) + 1)  # type: ignore[method-assign]
        floor = super().trim(upto)
        self._consumers.trimmable = inner  # type: ignore[method-assign]
        return floor


class _ForgetsBooks(FileLog):
    def _write_books(self, trimmed: int | None = None) -> None:
        if trimmed is not None:
            super()._write_books(trimmed)


@pytest.mark.parametrize("broken", [_Doubles, _TrimsOneMore, _ForgetsBooks])
def test_the_model_sees_a_fault(broken: Any) -> None:
    """A journal that doubles, trims too much, or forgets its consumers disagrees with the list."""
    parent: Any = FileJournalMachine if issubclass(broken, FileLog) else JournalMachine

    class Machine(parent):  # type: ignore[misc]
        def make(self) -> Log:
            return broken(FOLDER, LIMITS, self.disk) if issubclass(broken, FileLog) else broken(LIMITS)

    with pytest.raises((AssertionError, JournalError)):
        play(Machine, 200, 50, (Phase.generate,))

"""The contract suite of journals is itself tested: journals with one deliberate fault each must fail it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gapless.clock import Clock
from gapless.errors import JournalDamaged
from gapless.journal import Damage, Journal, Limits, Message, Record
from gapless.journal.file import FileLog
from gapless.journal.limits import Gauge, RecentIds
from gapless.journal.log import Log
from gapless.journal.memory import MemoryLog
from gapless.journal.shell import Shell
from gapless.testing.journal_contract import DamageContract, DurableJournalContract
from gapless.testing.power_cut import PowerCutDisk
from simulation.journal.broken_logs import (
    AcknowledgesEarly,
    CutsWhatIsNotProved,
    ForgetsIds,
    NeverKnowsIds,
    NeverSyncs,
    NeverSyncsNames,
    TrimsUnread,
)

FOLDER = Path("/journal")


def breaks(rule: str, make: Callable[[Limits, PowerCutDisk], Log], shell: type[Shell] = Shell) -> bool:
    """Whether a journal fails this test of the contract."""
    disk = PowerCutDisk(seed=3)

    class Contract(DurableJournalContract, DamageContract):
        async def make_journal(self, limits: Limits) -> Journal:
            journal = shell(make(limits, disk), self.clock)
            await journal.open()
            return journal

        async def kill(self, journal: Journal) -> None:
            disk.crash()

        async def lose_power(self, journal: Journal) -> None:
            disk.cut()

        def damage(self, position: int) -> None:
            key = f"host.example:{position}".encode()
            for path in disk.files():
                at = bytes(disk.content(path)).find(key)
                if at >= 0 and path.suffix == ".log":
                    disk.content(path)[at + 100] ^= 1
                    return

    case = Contract()
    case.begin()
    try:
        getattr(case, rule)()
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - any failure at all
        return True
    return False


def in_memory(limits: Limits, _disk: PowerCutDisk) -> Log:
    return MemoryLog(limits)


def on_disk(make: type[FileLog]) -> Callable[[Limits, PowerCutDisk], Log]:
    return lambda limits, disk: make(FOLDER, limits, disk)


# --- faults of what is kept ----------------------------------------------------------------------------------------


class Reverses(MemoryLog):
    """Keeps a batch in another order."""

    def append(self, messages: Sequence[Message]) -> list[int]:
        return super().append(list(reversed(messages)))[::-1]


class TakesTheNewest(MemoryLog):
    """Replaces a payload when its id comes again."""

    def append(self, messages: Sequence[Message]) -> list[int]:
        places = super().append(messages)
        for position, m in zip(places, messages, strict=True):
            self._records[position - 1 - self._floor] = Record(position, m.id, m.payload, m.received_us)
        return places


class ForgetsIdsSoon(MemoryLog):
    """Knows half as many ids as it says."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._recent = RecentIds(limits.recent_ids // 2)


class AppendsTheGoodOnes(Shell):
    """Appends what it can of a batch before it looks at the rest."""

    async def append(self, messages: Sequence[Message]) -> list[int]:
        return [position for m in messages for position in await Shell.append(self, [m])]


class CutsNulls(MemoryLog):
    """Treats payloads as text."""

    def append(self, messages: Sequence[Message]) -> list[int]:
        return super().append([Message(m.id, m.payload.rstrip(b"\0"), m.received_us) for m in messages])


# --- faults of reading ---------------------------------------------------------------------------------------------


class ReadsAll(MemoryLog):
    """Knows no limit of bytes."""

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]:
        return super().read(after, records_max, 10**12)


class StopsAtLarge(MemoryLog):
    """Gives nothing where the first record is larger than asked for."""

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]:
        found = super().read(after, records_max, bytes_max)
        return found if sum(len(r.payload) for r in found) <= bytes_max else []


class OffByOne(MemoryLog):
    """Begins at the position itself."""

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]:
        return super().read(max(after - 1, self._floor), records_max, bytes_max)


class ConsumesOnRead(MemoryLog):
    """Gives each record once."""

    _given = 0

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]:
        found = super().read(max(after, self._given), records_max, bytes_max)
        self._given = found[-1].position if found else self._given
        return found


class PassesOverTheTrimmed(MemoryLog):
    """Gives the oldest there is for what was trimmed."""

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]:
        return super().read(max(after, self._floor), records_max, bytes_max)


class WaitsForEver(MemoryLog):
    """Takes any position for one that will come."""

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]:
        return super().read(min(after, self._last), records_max, bytes_max)


class Swallows(FileLog):
    """Passes over what it cannot read."""

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]:
        try:
            return super().read(after, records_max, bytes_max)
        except JournalDamaged as damage:
            return self.read(damage.last, records_max, bytes_max)


class FindsNothing(FileLog):
    """Reads right, and does not say so beforehand."""

    def verify(self) -> list[Damage]:
        return []


# --- faults of consumers and trim ----------------------------------------------------------------------------------


class AcknowledgesAnything(MemoryLog):
    """Believes every number."""

    def acknowledge(self, consumer: str, upto: int) -> None:
        self._consumers._acknowledged[consumer] = upto


class BeginsAtTheEnd(MemoryLog):
    """Withholds from a new consumer what is there."""

    def subscribe(self, consumer: str) -> int:
        if not self._consumers.known(consumer):
            self._consumers.add(consumer, self._last)
        return self._consumers.acknowledged(consumer)


class TrimsForTheFastest(MemoryLog):
    """Waits for one consumer only."""

    def trim(self, upto: int | None) -> int:
        self._consumers.trimmable = lambda upto, floor: max(  # type: ignore[method-assign]
            floor, min(upto or 10**9, max(self._consumers._acknowledged.values(), default=floor))
        )
        return super().trim(upto)


class TrimsWithoutConsumers(MemoryLog):
    """Nobody there: nobody minds."""

    def trim(self, upto: int | None) -> int:
        if not self._consumers._acknowledged:
            self._consumers.trimmable = lambda _upto, _floor: self._last  # type: ignore[method-assign]
        return super().trim(upto)


class TrimsTooMuch(MemoryLog):
    """Takes no notice of how far it is to trim."""

    def trim(self, upto: int | None) -> int:
        return super().trim(None)


class KeepsTheGone(MemoryLog):
    """Waits for a consumer that has left."""

    def unsubscribe(self, consumer: str) -> None:
        pass


class CountsAgain(MemoryLog):
    """Begins with 1 when it is empty."""

    def trim(self, upto: int | None) -> int:
        floor = super().trim(upto)
        if not self._records:
            self._floor = 0
        return floor


class ForgetsItsConsumers(FileLog):
    """Keeps consumers in memory."""

    def _write_books(self, trimmed: int | None = None) -> None:
        self._consumers, kept = type(self._consumers)(), self._consumers
        super()._write_books(trimmed)
        self._consumers = kept


class InventsAcknowledgements(FileLog):
    """Takes for acknowledged after a restart what was delivered."""

    def open(self) -> None:
        super().open()
        for consumer in self._consumers.positions():
            self._consumers.acknowledge(consumer, self._last, self._last)


class ForgetsTrims(FileLog):
    """Does not write down what it trimmed."""

    def _write_books(self, trimmed: int | None = None) -> None:
        if trimmed is None:
            super()._write_books()


class LetsEverybodyIn(FileLog):
    """Takes no lock."""

    def __init__(self, folder: Path, limits: Limits, disk: Any) -> None:
        super().__init__(folder, limits, disk)
        disk.lock = lambda _path: disk.create(FOLDER / "lock")


# --- faults of the shell -------------------------------------------------------------------------------------------


class NeverFull(MemoryLog):
    """Knows no high water."""

    def append(self, messages: Sequence[Message]) -> list[int]:
        self._gauge.admit = lambda _records, _bytes: None  # type: ignore[method-assign]
        return super().append(messages)


class _NoLowWater(Gauge):
    def full(self, records: int, bytes_held: int) -> bool:
        self._full = False
        return super().full(records, bytes_held)


class GoesOnAtOnce(MemoryLog):
    """Goes on as soon as it is below high water."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._gauge = _NoLowWater(limits)


class CountsRecordsOnly(MemoryLog):
    """Knows no high water in bytes."""

    def append(self, messages: Sequence[Message]) -> list[int]:
        held, self._bytes = self._bytes, 0
        try:
            return super().append(messages)
        finally:
            self._bytes += held


class WaitsOnAndOn(Shell):
    """Waits for room without end."""

    async def _wait(self, event: Any, deadline: float) -> bool:
        return await super()._wait(event, deadline + 10**6)


class WakesNobody(Shell):
    """Lets waiting readers sleep until their time is over."""

    async def _append_queued(self) -> Any:
        grown, self._grown = self._grown, type(self._grown)()
        try:
            return await super()._append_queued()
        finally:
            self._grown = grown


class WakesNoWriter(Shell):
    """Does not tell waiting appends of a trim."""

    async def trim(self, upto: int | None = None) -> int:
        return await self._run(lambda: self._log.trim(upto))


class LastComeFirstServed(Shell):
    """Takes waiting appends from the wrong end."""

    async def _append_queued(self) -> Any:
        self._queue.reverse()
        return await super()._append_queued()


class KeepsTheCancelled(Shell):
    """Appends half of what a caller brought who has gone."""

    async def append(self, messages: Sequence[Message]) -> list[int]:
        half = len(messages) // 2 + 1
        first = await super().append(messages[:half])
        return first + await super().append(messages[half:])


class WorksOn(Shell):
    """Is not closed by closing."""

    def __init__(self, log: Log, clock: Clock) -> None:
        super().__init__(log, clock)

    async def close(self) -> None:
        pass


FAULTS: tuple[tuple[Any, str], ...] = (
    (Reverses, "test_positions_are_consecutive_from_one"),
    (NeverKnowsIds, "test_a_retry_adds_nothing"),
    (TakesTheNewest, "test_the_first_payload_stands"),
    (ForgetsIdsSoon, "test_an_id_is_known_for_as_long_as_promised"),
    (AppendsTheGoodOnes, "test_what_is_beyond_the_limits_is_refused"),
    (CutsNulls, "test_bytes_come_back_as_they_were"),
    (ReadsAll, "test_reading_stops_at_so_many_bytes"),
    (StopsAtLarge, "test_reading_stops_at_so_many_bytes"),
    (OffByOne, "test_reading_any_part_gives_that_part"),
    (OffByOne, "test_at_the_end_there_is_nothing"),
    (ConsumesOnRead, "test_reading_consumes_nothing"),
    (PassesOverTheTrimmed, "test_what_was_trimmed_is_not_passed_over"),
    (WaitsForEver, "test_a_position_beyond_the_end_is_refused"),
    (Swallows, "test_damage_in_the_middle_is_named"),
    (FindsNothing, "test_damage_in_the_middle_is_named"),
    (AcknowledgesAnything, "test_an_acknowledgement_only_grows"),
    (AcknowledgesAnything, "test_an_acknowledgement_of_nothing_is_refused"),
    (BeginsAtTheEnd, "test_a_new_consumer_begins_before_the_oldest_record"),
    (TrimsForTheFastest, "test_a_trim_waits_for_the_slowest"),
    (TrimsUnread, "test_a_trim_waits_for_the_slowest"),
    (TrimsTooMuch, "test_a_trim_waits_for_the_slowest"),
    (TrimsWithoutConsumers, "test_without_consumers_nothing_is_trimmed"),
    (KeepsTheGone, "test_a_consumer_that_left_holds_nothing_up"),
    (CountsAgain, "test_positions_go_on_after_everything_was_trimmed"),
    (NeverSyncs, "test_what_was_acknowledged_survives_a_power_cut"),
    (NeverSyncsNames, "test_what_was_acknowledged_survives_a_power_cut"),
    (AcknowledgesEarly, "test_what_was_acknowledged_survives_a_kill"),
    (CutsWhatIsNotProved, "test_what_was_acknowledged_survives_a_kill"),
    (ForgetsIds, "test_ids_are_known_after_a_restart"),
    (ForgetsItsConsumers, "test_a_consumer_is_not_forgotten"),
    (ForgetsItsConsumers, "test_a_journal_is_the_same_after_a_restart"),
    (InventsAcknowledgements, "test_an_acknowledgement_is_never_invented"),
    (ForgetsTrims, "test_a_trim_is_durable"),
    (LetsEverybodyIn, "test_there_is_one_writer"),
    (NeverFull, "test_an_append_waits_from_high_to_low_water"),
    (NeverFull, "test_a_full_journal_is_full_after_a_restart"),
    (GoesOnAtOnce, "test_an_append_waits_from_high_to_low_water"),
    (CountsRecordsOnly, "test_bytes_have_a_high_water_too"),
    (WaitsOnAndOn, "test_an_append_waits_no_longer_than_allowed"),
    (WaitsOnAndOn, "test_a_reader_waits_no_longer_than_it_said"),
    (WakesNobody, "test_a_waiting_reader_gets_what_comes"),
    (WakesNoWriter, "test_an_append_waits_from_high_to_low_water"),
    (LastComeFirstServed, "test_those_who_wait_go_on_in_turn"),
    (KeepsTheCancelled, "test_appends_at_the_same_time_do_not_mix"),
    (WorksOn, "test_nothing_works_after_the_end"),
)


@pytest.mark.parametrize(("fault", "rule"), FAULTS, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_a_fault_breaks_the_contract(fault: Any, rule: str) -> None:
    """Each fault fails the test of the contract that is there for it, and without the fault that test passes."""
    make: Callable[[Limits, PowerCutDisk], Log]
    sound: Callable[[Limits, PowerCutDisk], Log]
    if issubclass(fault, Shell):
        assert breaks(rule, in_memory, fault)
        assert not breaks(rule, in_memory)
        return
    if issubclass(fault, FileLog):
        make, sound = on_disk(fault), on_disk(FileLog)
    else:
        make, sound = (lambda limits, _: fault(limits)), in_memory
    assert breaks(rule, make)
    if rule.endswith("after_a_restart") and sound is in_memory:
        sound = on_disk(FileLog)
    assert not breaks(rule, sound)


def test_a_journal_in_memory_is_not_durable() -> None:
    """The suite tells: what is only in memory fails every test of durability but that of one writer's own."""
    durable = [r for r in dir(DurableJournalContract) if r.startswith("test_") and r not in dir(Shell)]
    failing = {rule for rule in durable if breaks(rule, in_memory)}
    assert "test_what_was_acknowledged_survives_a_kill" in failing
    assert "test_what_was_acknowledged_survives_a_power_cut" in failing
    assert "test_a_retry_adds_nothing" not in failing

"""A disk that refuses, at every place where the file journal asks it for something."""

from __future__ import annotations

import ast
import errno
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gapless.errors import JournalDiskFull, JournalError, JournalUnavailable
from gapless.journal import Message, blocks, books, disk, file, segment
from gapless.journal.file import FileLog
from gapless.testing.power_cut import OPERATIONS, DiskFault, PowerCutDisk
from simulation.journal.broken_logs import GoesOnAfterFailure, NeverSyncs, TrustsThePageCache
from unit.journal.scene import FOLDER, LIMITS, everything, messages, opened

ADAPTERS = {"SystemDisk", "SystemFile", "Disk", "File"}
CHANGES = {"create", "rename", "remove", "sync_folder", "write_at", "sync"}


def sites() -> set[tuple[str, str]]:
    """Every call of an operation of the disk in the source of the file journal: (operation, function)."""
    found = set()
    for module in (blocks, books, disk, file, segment):
        tree = ast.parse(inspect.getsource(module))
        bodies = [n for n in tree.body if not (isinstance(n, ast.ClassDef) and n.name in ADAPTERS)]
        for function in (f for body in bodies for f in ast.walk(body) if isinstance(f, ast.FunctionDef)):
            for call in (c.func for c in ast.walk(function) if isinstance(c, ast.Call)):
                if isinstance(call, ast.Attribute) and call.attr in OPERATIONS and not is_other(call):
                    found.add((call.attr, function.name))
    return {(operation, function) for operation, function in found if operation != "close"}


def is_other(call: ast.Attribute) -> bool:
    """A method of the same name that is no operation of a disk."""
    return ast.unparse(call.value) == "self._consumers"


def life(log: FileLog, acknowledged: list[Message]) -> None:
    """Everything a journal does, from the first opening over new segments and trims to the end."""
    log.open()
    log.subscribe("reader")
    for at in range(1, 200, 10):
        batch = messages(10, at + len(acknowledged) - (at - 1))
        log.append(batch)
        acknowledged += batch
    log.acknowledge("reader", log.state().last - 20)
    log.read(log.state().last - 5, 100, 10**6)
    log.trim(None)
    log.verify()
    log.close()


def torn(disk: PowerCutDisk) -> None:
    """Leave what only a recovery finds: an append that was not proved, torn bytes where a new segment has to take
    their file, and a file that was being replaced."""
    file = disk.create(FOLDER / "books.new")
    file.write_at(0, b"half")


def scenario(on: PowerCutDisk, make: Callable[..., FileLog], acknowledged: list[Message]) -> None:
    """A life, a kill after a lone append in a segment of its own, whose last record was torn, and another life."""
    life(make(FOLDER, LIMITS, on), acknowledged)
    log = make(FOLDER, LIMITS, on)
    log.open()
    batch = messages(2, len(acknowledged) + 1)
    log.append(batch)
    acknowledged += batch
    newest = max(p for p in on.files() if p.suffix == ".log")
    on.crash()
    on.content(newest).extend(b"\7" * 50)
    torn(on)
    life(make(FOLDER, LIMITS, on), acknowledged)


def holds(on: PowerCutDisk, make: Callable[..., FileLog], acknowledged: list[Message], upto: int) -> FileLog:
    """Open it: nothing acknowledged is missing, nothing strange is there, nothing is damaged."""
    log = make(FOLDER, LIMITS, on)
    log.open()
    records, damages = everything(log)
    assert not damages
    first = log.state().first
    assert first - 1 <= upto
    found = [Message(r.id, r.payload, r.received_us) for r in records]
    expected = acknowledged[first - 1 :]
    assert found[: len(expected)] == expected
    assert found[len(expected) :] == messages(len(found) - len(expected), len(acknowledged) + 1)
    acknowledged += found[len(expected) :]
    return log


def faults() -> Iterator[DiskFault]:
    for operation, function in sorted(sites()):
        for error in (errno.EIO, errno.ENOSPC):
            for share in (0.0, 0.5, 1.0) if operation == "write_at" else (0.0,):
                for skip in (0, 1, 5):
                    yield DiskFault(operation, error, skip=skip, share=share, called_from=function)


def trouble(call: Callable[[], Any]) -> JournalUnavailable | None:
    try:
        call()
    except JournalUnavailable as error:
        return error
    return None


def survives(fault: DiskFault, make: Callable[..., FileLog]) -> bool:
    """Whether the fault happened; raises AssertionError where the journal did not keep its promise."""
    on = PowerCutDisk(seed=fault.skip)
    acknowledged: list[Message] = []
    on.fail(fault)
    made: list[FileLog] = []

    def remembered(*arguments: Any) -> FileLog:
        made.append(make(*arguments))
        return made[-1]

    said = trouble(lambda: scenario(on, remembered, acknowledged))
    if said is None:
        return False
    assert isinstance(said, JournalDiskFull) == (fault.error == errno.ENOSPC), "the kind of trouble is said"
    assert isinstance(said.__cause__, OSError)
    refused(made[-1])
    on.heal()
    on.crash()
    holds(on, make, acknowledged, len(acknowledged))
    on.cut()
    log = holds(on, make, acknowledged, len(acknowledged))
    assert log.append(messages(1, 100_000)) == [len(acknowledged) + 1]
    on.cut()
    records, damages = everything(opened(on))
    assert not damages
    assert records
    assert records[-1].id == "id-100000"
    return True


def refused(log: FileLog) -> None:
    """Everything, until it is opened again."""
    attempts: list[Callable[[], Any]] = [
        lambda: log.append(messages(1, 200_000)),
        lambda: log.append(()),
        lambda: log.read(0, 1, 1),
        lambda: log.subscribe("reader"),
        lambda: log.unsubscribe("reader"),
        lambda: log.acknowledge("reader", 1),
        lambda: log.trim(None),
        lambda: log.verify(),
        lambda: log.state(),
    ]
    for number, attempt in enumerate(attempts):
        assert trouble(attempt) is not None, f"attempt {number} was not refused"


def test_every_place_that_asks_the_disk_is_reached() -> None:
    """The scenario goes through each call of the disk in the source, so the test below covers the whole list."""
    on = PowerCutDisk()
    on.watch()
    scenario(on, FileLog, [])
    assert set(on.calls) >= sites()
    assert {operation for operation, _ in sites()} >= CHANGES
    assert len(sites()) > 20


def test_a_disk_that_refuses_loses_nothing() -> None:
    """At each place an I/O error and a full disk, at its first and later calls, writes also half done: the journal
    refuses everything from then on, and the next opening finds exactly what was acknowledged, also after a power
    cut."""
    happened = {(f.operation, f.called_from) for f in list(faults()) if survives(f, FileLog)}
    assert happened == sites()


@pytest.mark.parametrize("broken", [GoesOnAfterFailure, TrustsThePageCache, NeverSyncs])
def test_journals_that_take_failure_lightly_are_caught(broken: type[FileLog]) -> None:
    """A journal that carries on after a failed sync, or believes its page cache, does not pass."""
    with pytest.raises((AssertionError, JournalError)):
        _ = [survives(fault, broken) for fault in faults()]

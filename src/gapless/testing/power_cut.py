"""A disk in memory that forgets: everything that was not synced may be lost when the power goes, in any mixture.

    disk = PowerCutDisk(seed=7)
    log = FileLog(Path("/journal"), limits, disk)      # or anything else that works on `gapless.journal.disk.Disk`
    ...
    disk.cut()                                         # and open it again: what was acknowledged must be there

What it does that real disks and file systems may do, and a program that survives it relies on nothing but `sync`:

- `cut`: of the bytes written to a file since its last sync, any 512-byte sectors survive: none, all, the first
  ones, or any of them; the file may be as long as it was, with zeros or old bytes where its data are missing. Of the
  names made, moved and removed since the last `sync_folder`, any survive, likewise. A file that was synced and whose
  name was not is gone.
- A `sync` that fails drops what it should have made durable, and leaves it readable until the power goes: a second
  `sync` succeeds and changes nothing (what Linux does, known as "fsyncgate").
- `fail` makes chosen operations fail with an error of the operating system, a write also after part of its bytes.
- `cut_in` takes the power away in the middle of a coming operation.
- `crash` is the death of the process alone: locks are free, and the page cache is as it was.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random  # noqa: TID251 - seeded, so that a run can be had again
from typing import TypeVar

from gapless.errors import JournalLocked

T = TypeVar("T")

SECTOR_BYTES = 512
OPERATIONS = (
    "make_folder", "names", "open", "create", "rename", "remove", "sync_folder", "lock",
    "size", "read_at", "write_at", "sync", "close",
)  # fmt: skip
"""Every operation of `Disk` and `File`, by the name that `fail` takes."""


class PowerLost(Exception):
    """The power went during an operation. Not an OSError: no program gets to see it."""


@dataclass(slots=True)
class DiskFault:
    """Which operation fails, and how."""

    operation: str
    error: int = errno.EIO
    skip: int = 0
    """Let so many of them pass first."""
    times: int = 1
    """Then fail so often."""
    share: float = 0.0
    """Of a write's bytes, written before it fails."""
    called_from: str | None = None
    """Only when called by this function."""


@dataclass(slots=True, eq=False)
class _Node:
    """A file's bytes, whatever it is called."""

    shown: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, int]] = field(default_factory=list)
    """Extents written since the last sync."""


class PowerCutDisk:
    """A `gapless.journal.disk.Disk`."""

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)
        self._names: dict[str, _Node] = {}
        self._durable_names: dict[str, _Node] = {}
        self._pending_names: list[tuple[str, Callable[[dict[str, _Node]], object]]] = []
        """By folder, since its last sync."""
        self._locked: set[str] = set()
        self._faults: list[DiskFault] = []
        self._cut_in: int | None = None
        self._life = 0
        self.calls: Counter[tuple[str, str]] = Counter()
        """How often which operation was called by which function, once `watch` was called."""
        self._watching = False

    # --- what goes wrong ---

    def cut(self) -> None:
        """The power goes, and comes back. Whoever had files open has nothing any more."""
        survivors = dict(self._durable_names)
        for _, change in self._surviving(self._pending_names):
            change(survivors)
        for node in {id(n): n for n in survivors.values()}.values():
            self._survive(node)
        self._names, self._durable_names, self._pending_names = dict(survivors), survivors, []
        self._cut_in = None
        self.crash()

    def crash(self) -> None:
        """The process ends without a word; what it wrote is in the page cache."""
        self._locked.clear()
        self._life += 1

    def cut_in(self, operations: int) -> None:
        """Raise PowerLost in the operation that comes after so many others; then call `cut`."""
        self._cut_in = operations

    def fail(self, fault: DiskFault) -> None:
        """Add a fault. Faults stay until they have happened, or `heal`."""
        self._faults.append(fault)

    def heal(self) -> None:
        """No fault is waiting any more, and no cut."""
        self._faults.clear()
        self._cut_in = None

    def watch(self) -> None:
        """Count calls from now on."""
        self._watching = True

    # --- looking from outside ---

    def content(self, path: Path) -> bytearray:
        """A file's bytes as programs see them; changing them is damage that the disk does not notice."""
        return self._names[str(path)].shown

    def files(self) -> list[Path]:
        return sorted(map(Path, self._names))

    # --- the Disk port ---

    def make_folder(self, _folder: Path, /) -> None:
        """Folders are there when they are named; their names are durable."""
        self.enter("make_folder")

    def names(self, folder: Path) -> list[str]:
        self.enter("names")
        prefix = f"{folder}{os.sep}"
        return sorted(p.removeprefix(prefix) for p in self._names if p.startswith(prefix))

    def open(self, path: Path) -> _OpenFile:
        self.enter("open")
        node = self._names.get(str(path))
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return _OpenFile(self, node, self._life)

    def create(self, path: Path) -> _OpenFile:
        self.enter("create")
        node = _Node()
        self._change_names(path, lambda names: names.__setitem__(str(path), node))
        return _OpenFile(self, node, self._life)

    def rename(self, old: Path, new: Path) -> None:
        self.enter("rename")
        before, after = str(old), str(new)
        node = self._names[before]

        def change(names: dict[str, _Node]) -> None:
            if names.get(before) is node:
                del names[before]
            names[after] = node

        self._change_names(new, change)

    def remove(self, path: Path) -> None:
        self.enter("remove")
        self._change_names(path, lambda names: names.pop(str(path), None))

    def sync_folder(self, folder: Path) -> None:
        self.enter("sync_folder")
        for place, change in self._pending_names:
            if place == str(folder):
                change(self._durable_names)
        self._pending_names = [p for p in self._pending_names if p[0] != str(folder)]

    def lock(self, path: Path) -> _OpenFile:
        self.enter("lock")
        name = str(path)
        if name in self._locked:
            raise JournalLocked(f"{name} is locked")
        self._locked.add(name)
        return _OpenFile(self, _Node(), self._life, unlock=lambda: self._locked.discard(name))

    # --- inside ---

    def enter(self, operation: str) -> DiskFault | None:
        """An operation begins: count it, take the power away if it is time, and fail if it is to. A fault that does
        something before it fails is returned for the operation to do it."""
        if self._cut_in is not None:
            self._cut_in -= 1
            if self._cut_in < 0:
                raise PowerLost(operation)
        if self._watching or self._faults:
            caller = _caller()
            self.calls[operation, caller] += 1
            for fault in self._faults:
                if fault.operation == operation and fault.called_from in (None, caller):
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                    if operation in ("write_at", "sync"):
                        return fault
                    raise broken(fault)
        return None

    def partly(self, size: int) -> int:
        """How much of a write had arrived when the power went."""
        return self._random.randrange(size + 1)

    @property
    def powered(self) -> int:
        """Changes with every crash: files opened before are dead."""
        return self._life

    def _change_names(self, path: Path, change: Callable[[dict[str, _Node]], object]) -> None:
        change(self._names)
        self._pending_names.append((os.path.dirname(path), change))  # noqa: PTH120 - on a hot path

    def _surviving(self, things: list[T]) -> list[T]:
        """None, all, the first ones, or any of them, in order."""
        mood = self._random.randrange(4) if things else 0
        if mood == 0:
            return []
        if mood == 1:
            return things
        if mood == 2:
            return things[: self._random.randrange(len(things) + 1)]
        return [t for t in things if self._random.random() < 0.5]

    def _survive(self, node: _Node) -> None:
        shown, durable = node.shown, node.durable
        sectors = [s for start, end in node.pending for s in range(start // SECTOR_BYTES, -(-end // SECTOR_BYTES))]
        length = len(shown) if self._random.random() < 0.5 else len(durable)
        kept = set(self._surviving(sectors))
        old_bytes = self._random.random() < 0.2
        for sector in sectors:
            start, end = sector * SECTOR_BYTES, min((sector + 1) * SECTOR_BYTES, len(shown))
            known = sector in kept
            if known:
                length = max(length, end)
            if len(durable) < end and (known or length > len(durable)):
                fill = self._random.randbytes(end - len(durable)) if old_bytes else bytes(end - len(durable))
                durable += fill
            if known:
                durable[start:end] = shown[start:end]
        node.durable = durable
        node.shown = bytearray(durable)
        node.pending = []


class _OpenFile:
    """A `gapless.journal.disk.File`."""

    def __init__(self, disk: PowerCutDisk, node: _Node, life: int, unlock: Callable[[], None] | None = None) -> None:
        self._disk = disk
        self._node = node
        self._life = life
        self._unlock = unlock

    def size(self) -> int:
        self._begin("size")
        return len(self._node.shown)

    def read_at(self, offset: int, size: int) -> bytes:
        self._begin("read_at")
        return bytes(self._node.shown[offset : offset + size])

    def write_at(self, offset: int, data: bytes) -> None:
        try:
            fault = self._begin("write_at")
        except PowerLost:
            self._write(offset, data[: self._disk.partly(len(data))])
            raise
        if fault is not None:
            self._write(offset, data[: int(len(data) * fault.share)])
            raise broken(fault)
        self._write(offset, data)

    def sync(self) -> None:
        node = self._node
        fault = self._begin("sync")
        if fault is not None:
            node.pending = []  # the pages are marked clean, and nobody will write them again
            raise broken(fault)
        shown, durable = node.shown, node.durable
        for start, end in node.pending:
            if len(durable) < end:
                durable += bytes(end - len(durable))
            durable[start:end] = shown[start:end]
        node.pending = []

    def close(self) -> None:
        if self._life == self._disk.powered and self._unlock is not None:
            self._unlock()

    def _write(self, offset: int, data: bytes) -> None:
        node = self._node
        end = offset + len(data)
        if len(node.shown) < end:
            node.shown += bytes(end - len(node.shown))
        node.shown[offset:end] = data
        node.pending.append((offset, end))

    def _begin(self, operation: str) -> DiskFault | None:
        if self._life != self._disk.powered:
            raise OSError(errno.EBADF, "the process that opened this file has ended")
        return self._disk.enter(operation)


def broken(fault: DiskFault) -> OSError:
    return OSError(fault.error, os.strerror(fault.error))


def _caller() -> str:
    """The function outside this module that called the disk."""
    frame = sys._getframe(1)  # noqa: SLF001 - the documented way to look at the stack
    while frame.f_globals.get("__name__") == __name__ and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_name

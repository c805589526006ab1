"""A disk that fails and forgets, below SQLite; and a small one that gets full, for anything.

    with FaultyDisk(seed=1) as disk:                # every SQLite file this process opens meanwhile lies on it
        store = SqliteStore(path)
        disk.fail(Operation.SYNC)                   # EIO, as fsync says it; what was not synced is then lost
        disk.fill(after_bytes=100_000)              # ENOSPC for what grows further, until `free()`
        ...                                         # what is committed now must survive
        disk.power_cut()                            # every write not followed by a sync may be gone, or torn
    store.close()
    SqliteStore(path)                               # after the power is back

    with small_disk(megabytes=4) as folder:         # a real file system of its own; needs the right to mount
        ...

Writes pass to the real files at once, so other processes see them as ever; what has been synced is kept beside, and
`power_cut` puts that back, with any part of the rest. Names of files count as durable at once: SQLite syncs folders by
itself, below this layer. For a journal's files see `gapless.testing.power_cut`.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import apsw

from gapless.clock import SystemClock
from gapless.errors import NotReady

if TYPE_CHECKING:
    from random import Random  # noqa: TID251 - the type; what draws comes from the clock

SECTOR_BYTES = 512
"""What a disk writes as a whole: a torn write ends at one of its borders."""
MOUNT_SECONDS_MAX = 30.0
_numbers = itertools.count(1)


class Operation(Enum):
    """Where a disk can fail."""

    READ = "read"
    WRITE = "write"
    SYNC = "sync"


@dataclass(slots=True)
class _Write:
    """One write or truncation since the last sync."""

    offset: int
    new: bytes
    old: bytes
    old_size: int
    """Of the file before it."""
    cut: bool = False
    """The file was cut off at `offset`."""
    doomed: bool = False
    """A sync of it failed: the system calls the page clean, and no later sync writes it."""
    durable: bool = False


@dataclass(slots=True)
class _Failure:
    skip: int
    times: int


@dataclass(slots=True)
class _File:
    path: Path
    writes: list[_Write] = field(default_factory=list)


class FaultyDisk:
    """The default place of SQLite files while the `with` block lasts."""

    def __init__(self, seed: int = 0) -> None:
        self._draw = SystemClock(seed).random()
        self.counts: Counter[Operation] = Counter()
        """Operations so far, those that failed included."""
        self.dead = False
        """The power is off: nothing that is still open reaches the disk any more."""
        self._files: dict[str, _File] = {}
        self._failures: dict[Operation, _Failure] = {}
        self._room_bytes: int | None = None
        self._fuse: int | None = None
        self._name = f"gapless-faulty-{next(_numbers)}"
        self._vfs: _Vfs | None = None

    def __enter__(self) -> Self:
        self._vfs = _Vfs(self._name, self)
        self._before = apsw.vfs_names()[0]
        apsw.set_default_vfs(self._name)
        return self

    def __exit__(self, *_: object) -> None:
        # SQLite may hold files of it still, so that it stays registered; nobody gets it unasked any more.
        apsw.set_default_vfs(self._before)

    # --- faults -----------------------------------------------------------------------------------------------------

    def fail(self, operation: Operation, *, skip: int = 0, times: int = 1) -> None:
        """Let the next operations of a kind fail with EIO, after sparing some. A failed write may be written in part; a
        failed sync loses what it was asked to keep, whatever later syncs say."""
        self._failures[operation] = _Failure(skip, times)

    def fill(self, after_bytes: int = 0) -> None:
        """No file grows any more, once all together have grown by so much."""
        self._room_bytes = after_bytes

    def free(self) -> None:
        """Room again."""
        self._room_bytes = None

    def die_after(self, operations: int) -> None:
        """The power goes when so many more writes and syncs were asked for: they fail from then on. What of the last
        ones remains is settled by `power_cut`."""
        self._fuse = operations

    def power_cut(self, *, keep: float = 0.5) -> int:
        """The power goes: each write not followed by a sync is kept with probability `keep`, torn at a sector as likely
        as whole; all else is as it was synced last. Open files are dead from here on: close them, and open them anew
        after the block. Returns how many writes were lost or torn."""
        self.dead = True
        lost = sum(_cut_power(file, self._draw, keep) for file in self._files.values())
        for file in self._files.values():  # shared memory, as far as a disk is concerned
            file.path.with_name(file.path.name + "-shm").unlink(missing_ok=True)
        self._files.clear()
        return lost

    # --- what the files ask -----------------------------------------------------------------------------------------

    def opened(self, path: str) -> None:
        """A file is opened."""
        self._files.setdefault(path, _File(Path(path)))

    def check(self, operation: Operation) -> None:
        """Raise what is to be raised at an operation: apsw.IOError, by its kind."""
        self.counts[operation] += 1
        if self._fuse is not None and operation is not Operation.READ:
            self._fuse -= 1
            self.dead = self.dead or self._fuse < 0
        failure = self._failures.get(operation)
        if self.dead:
            raise _io_error(operation)
        if failure is None:
            return
        if failure.skip > 0:
            failure.skip -= 1
            return
        failure.times -= 1
        if failure.times <= 0:
            del self._failures[operation]
        raise _io_error(operation)

    def grow(self, by: int) -> None:
        """Take room. Raises apsw.FullError."""
        if self._room_bytes is None or by <= 0:
            return
        if by > self._room_bytes:
            raise apsw.FullError("disk is full")
        self._room_bytes -= by

    def wrote(self, path: str, write: _Write) -> None:
        self._files[path].writes.append(write)

    def synced(self, path: str, *, failed: bool) -> None:
        """What is written so far is durable, or, where the sync failed, never will be."""
        writes = self._files[path].writes
        for write in writes:
            if failed and not write.durable:
                write.doomed = True
            elif not write.doomed:
                write.durable = True
        if not any(w.doomed for w in writes):
            writes.clear()

    def removed(self, path: str) -> None:
        self._files.pop(path, None)


def _cut_power(file: _File, draw: Random, keep: float) -> int:
    """Take back what was not synced, newest first, and put the durable and some of the rest on again, oldest first."""
    if not file.writes or not file.path.exists():
        return 0
    lost = 0
    with file.path.open("r+b") as stream:
        for write in reversed(file.writes):
            stream.seek(write.offset)
            stream.write(write.old)
            stream.truncate(write.old_size)
        for write in file.writes:
            kept = len(write.new)
            if not write.durable:
                kept = _kept(write, draw, keep)
                lost += write.doomed or write.cut or kept < len(write.new)
            if write.cut:
                if write.durable:
                    stream.truncate(write.offset)
            elif kept:
                stream.seek(write.offset)
                stream.write(write.new[:kept])
    return lost


def _kept(write: _Write, draw: Random, keep: float) -> int:
    """How many bytes of a write reach the disk."""
    if write.doomed or write.cut or draw.random() >= keep:
        return 0
    if draw.random() < 0.5:
        return len(write.new)
    return draw.randrange(len(write.new) // SECTOR_BYTES + 1) * SECTOR_BYTES


def _io_error(operation: Operation) -> apsw.IOError:
    codes = {
        Operation.READ: apsw.SQLITE_IOERR_READ,
        Operation.WRITE: apsw.SQLITE_IOERR_WRITE,
        Operation.SYNC: apsw.SQLITE_IOERR_FSYNC,
    }
    error = apsw.IOError(f"disk I/O error ({operation.value})")
    error.extendedresult = codes[operation]  # type: ignore[attr-defined, unused-ignore]
    return error


class _Vfs(apsw.VFS):  # type: ignore[misc, unused-ignore]
    """SQLite's own files, with the disk between."""

    def __init__(self, name: str, disk: FaultyDisk) -> None:
        self._disk = disk
        self._base = "unix"
        super().__init__(name, self._base)

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's name
        return _VfsFile(self._base, name, flags, self._disk)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - as above
        if self._disk.dead:
            raise _io_error(Operation.WRITE)
        self._disk.removed(filename)
        super().xDelete(filename, syncdir)


class _VfsFile(apsw.VFSFile):  # type: ignore[misc, unused-ignore]
    """One open file."""

    def __init__(self, base: str, name: Any, flags: list[int], disk: FaultyDisk) -> None:
        super().__init__(base, name, flags)
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._disk = disk
        disk.opened(self._path)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - as above
        self._disk.check(Operation.READ)
        return bytes(super().xRead(amount, offset))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - as above
        size = self.xFileSize()
        old = super().xRead(min(len(data), max(0, size - offset)), offset) if offset < size else b""
        try:
            self._disk.check(Operation.WRITE)
            self._disk.grow(offset + len(data) - size)
        except (apsw.IOError, apsw.FullError):
            if self._disk.dead:
                raise
            part = bytes(data[: len(data) // 2])  # a short write, as far as it came
            self._disk.wrote(self._path, _Write(offset, part, bytes(old), size))
            super().xWrite(part, offset)
            raise
        self._disk.wrote(self._path, _Write(offset, bytes(data), bytes(old), size))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - as above
        self._disk.check(Operation.WRITE)
        size = self.xFileSize()
        old = bytes(super().xRead(size - newsize, newsize)) if newsize < size else b""
        self._disk.wrote(self._path, _Write(newsize, b"", old, size, cut=True))
        super().xTruncate(newsize)

    def xSync(self, _flags: int) -> None:  # noqa: N802 - as above
        try:
            self._disk.check(Operation.SYNC)
        except apsw.IOError:
            if not self._disk.dead:
                self._disk.synced(self._path, failed=True)
            raise
        self._disk.synced(self._path, failed=False)


# --- a real one ----------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A folder that is a file system of its own, of that size, in memory; full means ENOSPC by the kernel.

    Raises NotReady, with the reason, where this process may not mount one."""
    with tempfile.TemporaryDirectory(prefix="gapless-small-disk-") as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "gapless-small-disk", folder]
        try:
            mounted = subprocess.run(  # noqa: S603 - no input of anybody's
                command, capture_output=True, text=True, timeout=MOUNT_SECONDS_MAX, check=False
            )
        except OSError as error:
            raise NotReady(f"A small disk cannot be mounted: {error}", todo="Mounting needs root.") from error
        if mounted.returncode:
            raise NotReady(
                f"A small disk cannot be mounted: {mounted.stderr.strip()}", todo="Mounting needs root (Linux)."
            )
        try:
            yield Path(folder)
        finally:
            subprocess.run(  # noqa: S603 - as above
                ["umount", "-l", folder],  # noqa: S607 - wherever the system has it
                capture_output=True,
                timeout=MOUNT_SECONDS_MAX,
                check=False,
            )


def fill_up(folder: Path, *, leaving_bytes: int = 0) -> Path:
    """Write a file that takes all the room of the folder's disk but so much. Remove it to have the room back."""
    filler = folder / "filler"
    with filler.open("wb") as stream:
        free = os.statvfs(folder)
        left = max(0, free.f_bavail * free.f_frsize - leaving_bytes)
        with suppress(OSError):
            while left > 0:
                left -= stream.write(b"\0" * min(left, 2**20))
            stream.flush()
    return filler

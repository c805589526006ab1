"""The file operations a journal needs, as one small object, so that tests can put a worse disk in its place.

`gapless.testing.power_cut` has one that forgets what was not synced and fails on demand. Every method may raise
OSError. Nothing is durable before the `sync` that belongs to it: a file's bytes by `File.sync`, a name by
`Disk.sync_folder`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from gapless.errors import JournalLocked


class File(Protocol):
    """An open file."""

    def size(self) -> int: ...

    def read_at(self, offset: int, size: int) -> bytes:
        """So many bytes, or fewer at the end of the file."""
        ...

    def write_at(self, offset: int, data: bytes) -> None:
        """All of the bytes, or OSError: then any part of them may have been written."""
        ...

    def sync(self) -> None:
        """Return once everything written so far is durable. After an error nothing is known about what was not."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """Folders and names."""

    def make_folder(self, folder: Path) -> None:
        """Make it and its parents, durably. No effect where it is."""
        ...

    def names(self, folder: Path) -> list[str]:
        """Of the files in it, sorted."""
        ...

    def open(self, path: Path) -> File:
        """For reading. Raises FileNotFoundError."""
        ...

    def create(self, path: Path) -> File:
        """An empty file for reading and writing; what was there is gone."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in one step; a file that had it is gone."""
        ...

    def remove(self, path: Path) -> None: ...

    def sync_folder(self, folder: Path) -> None:
        """Return once the names in the folder are durable."""
        ...

    def lock(self, path: Path) -> File:
        """Keep everybody else out until the returned file is closed or the process ends. Raises JournalLocked."""
        ...


class SystemFile:
    """A file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]  # a read may be shorter than asked for: in the middle, or at the end of the file
        while data and (size := size - len(data)):
            offset += len(data)
            data = os.pread(self._descriptor, size, offset)
            parts.append(data)
        return b"".join(parts)

    def write_at(self, offset: int, data: bytes) -> None:
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)

    def sync(self) -> None:
        _sync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SystemDisk:
    """The operating system's."""

    def make_folder(self, folder: Path) -> None:
        missing = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            self.sync_folder(made.parent)

    def names(self, folder: Path) -> list[str]:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are all that is needed

    def open(self, path: Path) -> SystemFile:
        return SystemFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def create(self, path: Path) -> SystemFile:
        return SystemFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640))

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path) -> SystemFile:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise JournalLocked(
                f"The journal in {path.parent} is open already, in this process or another",
                todo="A file journal has one process. End the other one, or give this one a folder of its own.",
            ) from error
        return SystemFile(descriptor)


def replace_file(disk: Disk, path: Path, parts: Iterable[bytes]) -> int:
    """Put a file with these bytes in the place of another, or where none is: whole and durable, or not at all.
    Returns its size."""
    new = path.with_suffix(".new")
    file = disk.create(new)
    try:
        size = 0
        for part in parts:
            file.write_at(size, part)
            size += len(part)
        file.sync()
    finally:
        file.close()
    disk.rename(new, path)
    disk.sync_folder(path.parent)
    return size


def _sync(descriptor: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync leaves the data in the drive's cache
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)

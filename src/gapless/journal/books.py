"""What a file journal knows besides its records: who reads it, what is trimmed, how far it had come.

One small file, replaced as a whole: JSON, a line feed, and the CRC-32C of the JSON in hex.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from google_crc32c import value

from gapless.errors import JournalError
from gapless.journal.disk import Disk, replace_file

FORMAT = 1
BYTES_MAX = 2**20


class Books(msgspec.Struct, frozen=True):
    """Written when a consumer comes or goes, before something is trimmed, and at the end. Between these an
    acknowledgement is only in memory: after a crash it may be lower than it was, never higher."""

    trimmed: int = 0
    """Everything up to here is forgotten."""
    last: int = 0
    """The newest durable position when this was written: if it is not there now, it is lost."""
    consumers: dict[str, int] = {}
    format: int = FORMAT

    @property
    def promised(self) -> int:
        """The highest position that was durable by all we know."""
        return max(self.trimmed, self.last, *self.consumers.values(), 0)


def read_books(disk: Disk, path: Path) -> Books:
    """Raises JournalError where they are damaged: without them nobody knows for whom records are kept."""
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return Books()
    try:
        data = file.read_at(0, BYTES_MAX)
    finally:
        file.close()
    text, _, checksum = data.rpartition(b"\n")
    try:
        if checksum != b"%08x" % value(text):
            raise ValueError("the checksum does not match")
        books = msgspec.json.decode(text, type=Books)
    except (msgspec.DecodeError, ValueError) as error:
        raise JournalError(
            f"The journal's books, {path}, are damaged: {error}",
            todo="Records are untouched. Move the file away: every consumer then starts from the oldest record, and "
            "must be subscribed before anything is trimmed.",
        ) from error
    if books.format != FORMAT:
        raise JournalError(f"{path} has format {books.format}, written by a newer Gapless", todo="Use that one.")
    return books


def write_books(disk: Disk, path: Path, books: Books) -> None:
    """Durably, or not at all."""
    text = msgspec.json.encode(books)
    replace_file(disk, path, (text, b"\n%08x" % value(text)))

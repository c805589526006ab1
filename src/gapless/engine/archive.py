"""Final entries straight from a source into Parquet files, without a database in between.

A folder holds one subfolder a table, `gapless_entries` among them, with a file for each part of the range, and
`archive.json`, which lists the parts. A part is there when `archive.json` says so: its files are written under other
names, synced and renamed, then the list is replaced. So a process killed at any moment leaves whole parts, and the
next one goes on behind them. Only final entries are taken: nothing in an archive is ever rewritten.

The same fetching, checking, decoding and digests as everywhere: a part's digest is that of `gapless digest` for its
range. Handlers run without state: one that needs it is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from gapless.digest import range_digest
from gapless.engine.archive_folder import ArchiveFolder, Part, PartWriter
from gapless.engine.derive import Deriver
from gapless.engine.offload import Offload
from gapless.errors import Contradiction, UsageError
from gapless.model import Head, Segment
from gapless.sources import AnySource
from gapless.store import Batch

PART_ROWS_MAX = 1_000_000
PART_POSITIONS_MAX = 100_000
"""A part ends at whichever comes first."""
SEGMENTS_AHEAD_MAX = 4

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Archived:
    """What one run added."""

    first: int
    last: int
    parts: tuple[Part, ...]


class _Filling:
    """The part on its way. A batch is written while the next one is derived."""

    def __init__(self, writer: PartWriter, offload: Offload) -> None:
        self._writer = writer
        self._offload = offload
        self._digests: list[str] = []
        self._rows = 0
        self._writing: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        return self._rows >= PART_ROWS_MAX or len(self._digests) >= PART_POSITIONS_MAX

    async def add(self, batch: Batch) -> None:
        await self._written()
        self._digests += batch.digests
        self._rows += sum(batch.counts)
        self._writing = asyncio.create_task(self._offload.write(partial(self._writer.add, batch)))

    async def finish(self) -> Part:
        await self._written()
        return await self._offload.write(partial(self._writer.finish, range_digest(self._digests)))

    async def give_up(self) -> None:
        with suppress(Exception):  # what went wrong is being raised, or this is what did
            await self._written()
        await self._offload.write(self._writer.give_up)

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing


class Archiver:
    """Writes one source's archive."""

    def __init__(
        self, source: AnySource, deriver: Deriver, folder: ArchiveFolder, offload: Offload, *, ahead_bytes_max: int
    ) -> None:
        self._source = source
        self._deriver = deriver
        self._folder = folder
        self._offload = offload
        self._ahead_bytes_max = ahead_bytes_max

    async def write(self, first: int, last: int, head: Head, progress: Progress) -> Archived:
        """Append `first..last`, all of it final. Raises Contradiction where entries do not link to what is there, and
        what fetching, deriving and writing raise; the parts finished before stay."""
        parts: list[Part] = []
        parent = self._folder.last_id
        filling: _Filling | None = None
        try:
            async with aclosing(self._segments(first, last, head)) as segments:
                async for segment in segments:
                    if parent is not None and segment.first.parent_id not in ("", parent):
                        raise self._unlinked(segment)
                    parent = segment.last.id
                    batch = await self._derive(segment, head)
                    if filling is None:
                        filling = _Filling(self._folder.begin(batch.entries[0]), self._offload)
                    await filling.add(batch)
                    if filling.is_full or batch.entries[-1].position == last:
                        parts.append(await filling.finish())
                        filling = None
                    progress(batch.entries[-1].position - first + 1, last - first + 1)
        finally:
            if filling is not None:
                await filling.give_up()
        return Archived(first, last, tuple(parts))

    async def _derive(self, segment: Segment[Any], head: Head) -> Batch:
        derivation = await self._offload.derive(lambda: self._deriver.derive(segment, finalized=head.finalized))
        if derivation.failure is not None:
            raise derivation.failure
        if derivation.skipped:
            raise UsageError(
                f"The rows of {', '.join(sorted(derivation.skipped))} depend on state, which an archive does not have",
                todo="Archive an app without these handlers, or index into a database and `gapless export`.",
            )
        assert derivation.batch is not None
        return derivation.batch

    async def _segments(self, first: int, last: int, head: Head) -> AsyncGenerator[Segment[Any], None]:
        """In order, a few on their way."""
        ahead: deque[asyncio.Task[Segment[Any]]] = deque()
        size_bytes = 0
        try:
            while first <= last or ahead:
                room = SEGMENTS_AHEAD_MAX if size_bytes * SEGMENTS_AHEAD_MAX <= self._ahead_bytes_max else 1
                while first <= last and len(ahead) < (room if size_bytes else 1):
                    upto = min(first + self._source.span() - 1, last)
                    ahead.append(asyncio.create_task(self._source.fetch(first, upto, head=head)))
                    first = upto + 1
                segment = await ahead[0]
                ahead.popleft()
                size_bytes = max(1, segment.size_bytes)
                yield segment
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    def _unlinked(self, segment: Segment[Any]) -> Contradiction:
        first = segment.first
        return Contradiction(
            f"Entry {first.position} has the parent {first.parent_id}, not the archive's last entry: what was final "
            "changed, or the endpoint serves another chain",
            kind="unlinked",
            source=self._source.name,
            position=first.position,
        )

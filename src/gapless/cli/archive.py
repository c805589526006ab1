"""`gapless archive`: final entries as Parquet files, straight from the source."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, JsonOption, Range, RangeOption, SourceOption, parse_range
from gapless.cli.project import Project, finish, load
from gapless.cli.steps import Steps

if TYPE_CHECKING:
    from gapless.engine.archive import Archived
    from gapless.engine.archive_folder import ArchiveFolder
    from gapless.engine.runner import Job
    from gapless.model import Head

_STOP_SECONDS_MAX = 10.0


def archive(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made where it is not there.")],
    config: ConfigOption = None,
    source: SourceOption = None,
    range_: RangeOption = None,
    check: Annotated[bool, typer.Option("--check", help="Read the archive back instead, and hash every row.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a source's final entries into Parquet files, without a database.

    One folder a table, one file a part of the range, and archive.json, which lists the parts. Called again it goes on
    where it ended, also after a crash. The rows are those of `gapless run`, checked in the same way."""
    wanted = parse_range(range_)
    project = load(config)
    name = project.source(source)
    if check:
        _check(project, name, folder, as_json)
        return
    found = finish(_archive(project, name, folder, wanted))
    if as_json:
        parts = [{"range": [p.first, p.last], "rows": p.rows, "digest": p.digest} for p in found.parts]
        output.document({"source": name, "range": [found.first, found.last], "parts": parts})
    elif found.parts:
        rows = sum(n for p in found.parts for table, n in p.rows.items() if table != "gapless_entries")
        output.say(f"{name} {found.first}..{found.last}: {output.counted(rows, 'row')} in {folder}.")
    else:
        output.say(f"{name}: everything final up to {found.last} is in {folder}.")


async def _archive(project: Project, name: str, path: Path, wanted: Range) -> Archived:
    from gapless.engine.archive import Archived, Archiver
    from gapless.engine.offload import Threads
    from gapless.engine.runner import stateless_deriver

    job, folder = await _opened(project, name, path)
    offload = Threads()
    try:
        with folder.opened():
            head = await job.source.head()
            first, last = _bounds(job, folder, head, wanted)
            if first > last:
                return Archived(first, last, ())
            limit = project.config.limits.memory_max_bytes
            archiver = Archiver(job.source, stateless_deriver(job), folder, offload, ahead_bytes_max=limit)
            with Steps("archive", project.clock) as steps:
                return await archiver.write(first, last, head, steps.tick)
    finally:
        await offload.close(_STOP_SECONDS_MAX)
        await job.source.close()


async def _opened(project: Project, name: str, path: Path) -> tuple[Job, ArchiveFolder]:
    from gapless.engine.archive_folder import ArchiveFolder, Owner
    from gapless.store.memory import MemoryStore
    from gapless.wiring import build_job

    store = MemoryStore()
    store.open(project.schema, create=True)
    job = await build_job(project.app, project.wired[name], store, project.clock)
    try:
        return job, ArchiveFolder(path, Owner(project.schema, name, await job.source.identity()))
    except BaseException:
        await job.source.close()
        raise


def _bounds(job: Job, folder: ArchiveFolder, head: Head, wanted: Range) -> tuple[int, int]:
    """What is to be added. Raises UsageError for a range that does not continue what is there."""
    from gapless.errors import UsageError

    begin = folder.next
    if begin is None:
        begin = job.options.start if wanted.first is None else wanted.first
    elif wanted.first is not None and wanted.first > begin:
        raise UsageError(
            f"The archive ends at {begin - 1}; from {wanted.first} on it would have a hole",
            todo=f"Write --range {begin}.., or name another folder.",
        )
    ends = [end for end in (head.finalized, job.options.end, wanted.last) if end is not None]
    return begin, min(ends)


def _check(project: Project, name: str, path: Path, as_json: bool) -> None:
    from gapless.engine.archive_check import Fault, check_archive

    async def look() -> tuple[list[Fault], int]:
        job, folder = await _opened(project, name, path)
        await job.source.close()
        with folder.opened(), Steps("check", project.clock) as steps:
            return check_archive(folder, steps.tick), len(folder.contents.parts)

    faults, parts = finish(look())
    if as_json:
        found: list[dict[str, Any]] = [asdict(fault) for fault in faults]
        output.document({"source": name, "parts": parts, "faults": found})
    else:
        for fault in faults:
            output.say(f"{fault.first}..{fault.last}: {fault.what}")
        output.say(f"{output.counted(parts, 'part')}, {output.counted(len(faults), 'fault')}.")
    if faults:
        raise typer.Exit(1)

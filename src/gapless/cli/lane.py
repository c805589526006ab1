"""What the commands share that ask the source again: one source, opened and known to be the right one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gapless.cli.project import Project
    from gapless.engine.operate import Operator
    from gapless.model import Identity
    from gapless.store import Store


@asynccontextmanager
async def operating(
    project: Project, store: Store, name: str, *, against: str | None = None
) -> AsyncIterator[Operator]:
    """Operations on a source that was indexed before. `against`: the URL of another endpoint to ask instead.

    Raises WrongChain where it is not what the tables were filled from, and what reaching it raises."""
    from gapless.engine.operate import Operator
    from gapless.wiring import build_job, build_source_at

    job = await build_job(project.app, project.wired[name], store, project.clock)
    if against is not None:
        await job.source.close()
        job = replace(job, source=build_source_at(project.wired[name], against, project.clock))
    try:
        _check_identity(store, name, await job.source.identity())
        yield Operator(job, project.schema, store, project.clock, project.config.lease.ttl_seconds)
    finally:
        await job.source.close()


def _check_identity(store: Store, name: str, found: Identity) -> None:
    from gapless.errors import WrongChain

    bound = store.source(name)
    if bound is None or bound.identity == found:
        return
    stored = bound.identity
    raise WrongChain(
        f"This is chain {found.chain} with genesis {found.genesis}, but the tables were filled from chain "
        f"{stored.chain} with genesis {stored.genesis}",
        source=name,
        todo="Nothing was changed. Correct the address.",
    )

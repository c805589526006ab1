"""EVM sources over fake nodes, and what they must find there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gapless.clock import SystemClock
from gapless.model import Head, Segment
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.source import EvmSource
from gapless.sources.evm.transport import HttpTransport
from gapless.sources.evm.types import EvmPayload, Log, LogClause, Wants
from gapless.testing.block import TOKEN, TRANSFER_TOPIC
from gapless.testing.chain import ScriptedChain
from gapless.testing.node import FakeNode

CLAUSE = LogClause(frozenset({TOKEN}), frozenset({TRANSFER_TOPIC}))
TRANSFERS = Wants((CLAUSE,))
ALL_LOGS = Wants((), all_logs=True)
WHOLE = Wants((), whole_blocks=True)
HEADERS = Wants(())


@asynccontextmanager
async def evm_source(
    nodes: Sequence[FakeNode], wants: Wants = TRANSFERS, hints: Sequence[Any] = (), **options: Any
) -> AsyncIterator[EvmSource]:
    """A source over running nodes, with pauses short enough for tests."""
    settings: dict[str, Any] = {
        "backoff_base_seconds": 0.002,
        "backoff_max_seconds": 0.05,
        "rest_seconds": 0.02,
        "request_timeout_seconds": 5.0,
        "audit_share": 0.0,
        **options,
    }
    transports = [HttpTransport(node.url) for node in nodes]
    source = EvmSource("chain", EvmOptions(**settings), wants, SystemClock(seed=1), transports, hints)
    try:
        yield source
    finally:
        await source.close()


async def settled(source: EvmSource) -> Head:
    """The head; and from now on the first endpoint is asked first, whatever the machine's load makes of latencies."""
    head = await source.head()
    for order, endpoint in enumerate(source._pool.endpoints):
        endpoint.standing.quick.mean = 1000.0 if order else 0.0
        endpoint.standing.quick.known = True
    return head


def labels(*nodes: FakeNode) -> list[str]:
    """The nodes' labels in statistics and entries."""
    return [node.url.removeprefix("http://") for node in nodes]


def found(segment: Segment[EvmPayload]) -> list[tuple[int, str, list[Log]]]:
    """What a segment says: position, hash and logs of every block."""
    pairs = zip(segment.entries, segment.payload.logs, strict=True)
    return [(entry.position, entry.id, [plain(log) for log in logs]) for entry, logs in pairs]


def truth(chain: ScriptedChain, first: int, last: int) -> list[tuple[int, str, list[Log]]]:
    """What the chain says about the same range."""
    return [(b.number, b.hash, [plain(log) for log in b.logs]) for b in chain.blocks(first, last)]


def plain(log: Log) -> Log:
    """A log without what only a served one has."""
    return Log(**{name: getattr(log, name) for name in Log.__struct_fields__})

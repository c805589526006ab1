"""Read blocks, logs and receipts of a range from one endpoint, in requests of the sizes it takes. Nothing is checked
here beyond the shape of an answer: that is `verify`'s part.

A request that is refused, late or too large is asked again as smaller ones, and the endpoint's learned sizes follow.
Only what does not get better by asking for less reaches the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gapless.errors import (
    AnswerTooLarge,
    BadAnswer,
    HistoryPruned,
    MethodMissing,
    RateLimited,
    RequestRefused,
    SourceError,
    TimedOut,
)
from gapless.model import Cursor
from gapless.sources.evm.endpoints import Endpoint
from gapless.sources.evm.lies import lie
from gapless.sources.evm.rpc import (
    BLOCK,
    HEADER,
    LINK,
    LISTED,
    LOG_COLUMNS,
    LOGS,
    RECEIPT,
    RECEIPTS,
    TEXT,
    Call,
    ListedBlock,
    Shape,
)
from gapless.sources.evm.span import Span
from gapless.sources.evm.types import FullBlock, Header, Log, LogClause, Receipt

if TYPE_CHECKING:
    from gapless.sources.evm.logtable import LogTable

T = TypeVar("T")
S = TypeVar("S", bound=Sized)
R = TypeVar("R", bound=Receipt)

_PRUNED = 4444
"""EIP-4444: the node no longer has that history."""
_INVALID_PARAMS = -32602
_NOT_ABOUT_SIZE = frozenset({401, 402, 403, 404})
"""HTTP statuses that no smaller request will change."""
_LANES_MAX = 4
"""Batches of one range on their way at the same time; the endpoint's own limit may be lower."""


@dataclass(frozen=True, slots=True)
class LogRequest:
    """One `eth_getLogs` filter: what it asks for, and how that is written."""

    clause: LogClause
    fields: dict[str, Any]


EVERY_LOG = LogRequest(LogClause(None, None), {})


def plan_requests(clauses: Iterable[LogClause], addresses_max: int) -> tuple[LogRequest, ...]:
    """The fewest filters that together ask for exactly these clauses: equal topics share a request, then equal
    addresses do; address lists longer than `addresses_max` are cut. Always the same for the same clauses."""
    by_topics: dict[frozenset[str] | None, frozenset[str] | None] = {}
    for clause in clauses:
        known = by_topics.get(clause.topics, frozenset())
        both_named = known is not None and clause.addresses is not None
        by_topics[clause.topics] = known | clause.addresses if both_named else None  # type: ignore[operator]
    by_addresses: dict[frozenset[str] | None, frozenset[str] | None] = {}
    for topics, addresses in by_topics.items():
        shared = by_addresses.get(addresses, frozenset())
        by_addresses[addresses] = shared | topics if shared is not None and topics is not None else None
    requests: list[LogRequest] = []
    for addresses, topics in by_addresses.items():
        names = None if topics is None else sorted(topics)
        if names == [] or addresses == frozenset():
            continue
        for chunk in [None] if addresses is None else _chunks(sorted(addresses), addresses_max):
            fields: dict[str, Any] = {} if chunk is None else {"address": chunk}
            clause = LogClause(None if chunk is None else frozenset(chunk), topics)
            requests.append(LogRequest(clause, fields if names is None else {**fields, "topics": [names]}))
    return tuple(requests)


class Reader:
    """Reads from one endpoint, until `deadline` (the clock's monotonic seconds)."""

    def __init__(self, endpoint: Endpoint, deadline: float) -> None:
        self.endpoint = endpoint
        self.deadline = deadline
        self.size_bytes = 0
        """Received so far."""

    async def headers(self, first: int, last: int) -> list[Header | None]:
        """The headers of a range, by number; None for a block the endpoint does not have."""
        return await self._batched("headers", _by_number(first, last, full=False), HEADER)

    async def listed(self, first: int, last: int) -> list[ListedBlock | None]:
        """The same with the hashes of their transactions."""
        return await self._batched("headers", _by_number(first, last, full=False), LISTED)

    async def blocks(self, first: int, last: int) -> list[FullBlock | None]:
        """The same with their transactions whole."""
        return await self._batched("blocks", _by_number(first, last, full=True), BLOCK)

    async def logs(self, first: int, last: int, request: LogRequest) -> list[Log]:
        """The logs of a range that a filter asks for, as the endpoint says, in as many calls as it takes."""
        answers = await self._answers(first, last, request, LOGS)
        return answers[0] if len(answers) == 1 else [log for logs in answers for log in logs]

    async def log_columns(self, first: int, last: int, request: LogRequest) -> list[LogTable | list[Log]]:
        """The same, each answer as columns where it is regular."""
        return await self._answers(first, last, request, LOG_COLUMNS)

    async def _answers(self, first: int, last: int, request: LogRequest, shape: Shape[S]) -> list[S]:
        found: list[S] = []
        ranges = self.endpoint.ranges
        while first <= last:
            upto = min(last, first + ranges.size - 1)
            asked = upto - first + 1
            call = Call("eth_getLogs", ({"fromBlock": hex(first), "toBlock": hex(upto), **request.fields},))
            try:
                reply = await self.endpoint.call(call, shape, deadline=self.deadline, divisible=asked > 1)
            except SourceError as error:
                if not self._shrink(ranges, asked, error, first):
                    raise
                continue
            self.size_bytes += reply.size_bytes
            ranges.succeeded(asked, size_bytes=reply.size_bytes, items=len(reply.value))
            found.append(reply.value)
            first = upto + 1
        return found

    async def logs_of(self, header: Header) -> list[Log]:
        """Every log of one block, by its hash."""
        call = Call("eth_getLogs", ({"blockHash": header.hash},))
        reply = await self.endpoint.call(call, LOGS, deadline=self.deadline)
        self.size_bytes += reply.size_bytes
        return reply.value

    async def receipts(self, headers: Sequence[Header], shape: Shape[list[R] | None]) -> list[list[R]]:
        """All receipts of each block. Raises MethodMissing where the endpoint has no `eth_getBlockReceipts`,
        Contradiction `null_receipt` for a block it announced itself."""
        found = await self._block_receipts(headers, shape)
        for header, receipts in zip(headers, found, strict=True):
            if receipts is None:
                position = int(header.number, 16)
                raise lie("null_receipt", f"{self.endpoint.label} has no receipts for block {position}", position)
        return [receipts for receipts in found if receipts is not None]

    async def receipts_one_by_one(self, transactions: Sequence[Sequence[str]]) -> list[list[Receipt | None]]:
        """The receipts of each block's transactions, given by hash: for endpoints that have no method for a block."""
        calls = [Call("eth_getTransactionReceipt", (known,)) for hashes in transactions for known in hashes]
        flat = iter(await self._batched("transaction receipts", calls, RECEIPT))
        return [[next(flat) for _ in hashes] for hashes in transactions]

    async def cursors(self, positions: Sequence[int]) -> list[Cursor | None]:
        """The ids at these positions; None where the endpoint has no block.

        Raises Contradiction `unlinked` where one block is not the parent of the next: whoever makes ids up, or was on
        its way from one branch to another, cannot say where branches part."""
        calls = [Call("eth_getBlockByNumber", (hex(position), False)) for position in positions]
        found = await self._batched("headers", calls, LINK)
        cursors: list[Cursor | None] = []
        ids: dict[int, str] = {}
        for position, block in zip(positions, found, strict=True):
            if block is not None and block.number != hex(position):
                raise BadAnswer(f"{self.endpoint.label} gave block {block.number} for {position}")
            cursors.append(None if block is None else Cursor(position, block.hash.lower()))
            if block is not None:
                ids[position] = block.hash.lower()
        for position, block in zip(positions, found, strict=True):
            parent = ids.get(position - 1)
            if block is not None and parent is not None and block.parent_hash.lower() != parent:
                raise lie("unlinked", f"Block {position} has the parent {block.parent_hash}, not {parent}", position)
        return cursors

    async def height(self) -> int:
        """The endpoint's newest block, now."""
        reply = await self.endpoint.call(Call("eth_blockNumber"), TEXT, deadline=self.deadline, quick=True)
        try:
            return int(reply.value, 16)
        except ValueError as error:
            raise BadAnswer(f"{self.endpoint.label} names no height but {reply.value[:40]!r}") from error

    async def _block_receipts(self, headers: Sequence[Header], shape: Shape[list[R] | None]) -> list[list[R] | None]:
        """By hash, so that they are of that block whatever the chain does meanwhile; by number where the endpoint
        takes no hash, which the first question ever tells."""
        if not headers:
            return []
        names = [header.hash for header in headers]
        if self.endpoint.receipts_by_hash is None:
            try:
                await self.endpoint.call(_receipts_call(names[0]), RECEIPTS, deadline=self.deadline)
                self.endpoint.receipts_by_hash = True
            except RequestRefused as error:
                if error.code != _INVALID_PARAMS:
                    raise
                self.endpoint.receipts_by_hash = False
        if not self.endpoint.receipts_by_hash:
            names = [header.number for header in headers]
        return await self._batched("receipts", [_receipts_call(name) for name in names], shape)

    async def _batched(self, kind: str, calls: Sequence[Call], shape: Shape[T]) -> list[T]:
        """The results of calls of one kind, in order."""
        span = self.endpoint.batches(kind)
        lanes = min(_LANES_MAX, -(-len(calls) // span.size)) if calls else 0
        length = -(-len(calls) // lanes) if lanes else 1
        runs = [self._lane(calls[at : at + length], shape, span) for at in range(0, len(calls), length)]
        return [result for run in await together(runs) for result in run]

    async def _lane(self, calls: Sequence[Call], shape: Shape[T], span: Span) -> list[T]:
        results: list[T] = []
        while len(results) < len(calls):
            asked = calls[len(results) : len(results) + span.size]
            try:
                reply = await self.endpoint.batch(asked, shape, deadline=self.deadline)
            except SourceError as error:
                if not self._shrink(span, len(asked), error, None):
                    raise
                continue
            self.size_bytes += reply.size_bytes
            span.succeeded(len(asked), size_bytes=reply.size_bytes)
            results += reply.value
        return results

    def _shrink(self, span: Span, asked: int, error: SourceError, position: int | None) -> bool:
        """Learn from a failure; whether to ask for less here and now. Raises HistoryPruned where that is the reason.

        A late answer is rather asked for elsewhere, where there is an elsewhere. So is a broken one, since what
        breaks answers is seldom their size; but the next attempt is smaller."""
        if isinstance(error, MethodMissing):
            return False
        if isinstance(error, RequestRefused):
            if error.code == _PRUNED:
                raise HistoryPruned(error.what, position=position) from error
            about_size = error.code not in _NOT_ABOUT_SIZE
        else:
            by_code = isinstance(error, RateLimited) and error.code is not None
            late = isinstance(error, TimedOut) and self.endpoint.alone
            about_size = by_code or late or isinstance(error, AnswerTooLarge)
        if about_size or isinstance(error, BadAnswer | TimedOut):
            span.failed(asked)
        return about_size and asked > 1


def _by_number(first: int, last: int, *, full: bool) -> list[Call]:
    return [Call("eth_getBlockByNumber", (hex(n), full)) for n in range(first, last + 1)]


def _receipts_call(name: str) -> Call:
    return Call("eth_getBlockReceipts", (name,))


def _chunks(items: list[str], size: int) -> list[list[str]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order. The first failure cancels the others and is raised."""
    if len(works) == 1:
        return [await works[0]]
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

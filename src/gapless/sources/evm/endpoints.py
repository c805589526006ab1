"""The pool of endpoints: who is asked, how often, how hard, and what happens when one fails or lies.

Decisions are `standing.rank` and the numbers of `Standing`; this file only carries them out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random  # noqa: TID251 - the type; the draws are the clock's
from typing import TypeVar

import structlog

from gapless.clock import Clock
from gapless.errors import (
    Contradiction,
    HistoryPruned,
    MethodMissing,
    NotYetAvailable,
    RateLimited,
    SourceError,
    SourceUnavailable,
    TimedOut,
)
from gapless.sources import EndpointReport
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.rpc import Call, Reply, Rpc, Shape
from gapless.sources.evm.span import Span
from gapless.sources.evm.standing import Need, Standing, Tally, rank
from gapless.sources.evm.transport import Transport

T = TypeVar("T")

_PATIENCE_SECONDS = 0.5
"""How long a request waits for an endpoint that asked to slow down, while another endpoint is there."""
_LIMIT_PAUSE_SECONDS = 0.25
"""Before a request that exceeded some limit is repeated, to see whether it was the rate or the size."""
_RECONNECT_WEIGHT = 0.1
"""Of the newest answer in the share of those that came over a new connection."""
_HEDGED_MAX = 2
"""Endpoints asked the same small question at once."""

log = structlog.get_logger("gapless.evm")


class Endpoint:
    """One endpoint: its standing, what sizes it takes, which methods it lacks, and the way to it.

    Requests pass a gate: at most `Standing.window` are in flight, spaced as the endpoint's own complaints ask for."""

    def __init__(
        self, transport: Transport, label: str, order: int, options: EvmOptions, clock: Clock, tally: Tally
    ) -> None:
        self.label = label
        self.standing = Standing(label, order, options)
        self.missing: set[str] = set()
        """Methods it said it does not know."""
        self.alone = False
        """True while there is no other endpoint to turn to."""
        self.identity_checked_at: float | None = None
        """When it was last seen to serve the right chain; None when it must be asked (again)."""
        self.ranges = Span(
            start=options.span_start,
            maximum=options.span_max,
            bytes_target=options.answer_bytes_target,
            items_target=options.answer_logs_target,
        )
        """Blocks per `eth_getLogs`."""
        self.pieces = Span(
            start=options.span_start,
            maximum=options.span_max,
            bytes_target=options.answer_bytes_target,
            items_target=options.answer_logs_target,
        )
        """Blocks fetched and checked together, by all that comes for them."""
        self.receipts_by_hash: bool | None = None
        """Whether it takes a block hash in `eth_getBlockReceipts`; None before it was asked."""
        self._limit_is_size = False
        """Its `limit exceeded` turned out to mean the size of the answer."""
        self._batches: dict[str, Span] = {}
        self._transport = transport
        self._connections = 0
        self._reconnect_share = 0.0
        self._rpc = Rpc(transport, label, clock.now_us)
        self._options = options
        self._clock = clock
        self._tally = tally
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"Endpoint({self.label}, {self.standing.in_flight} in flight, {self.ranges})"

    def batches(self, kind: str) -> Span:
        """How many calls of a kind it takes in one request: answers differ a hundredfold in size."""
        span = self._batches.get(kind)
        if span is None:
            start, maximum = self._options.batch_calls_start, self._options.batch_calls_max
            span = Span(start=start, maximum=maximum, bytes_target=self._options.batch_bytes_target)
            self._batches[kind] = span
        return span

    async def call(
        self, call: Call, shape: Shape[T], *, deadline: float, quick: bool = False, divisible: bool = False
    ) -> Reply[T]:
        """One call, with patience for rate limits and one more try after a broken connection. Raises what `Rpc.call`
        raises, with MethodMissing at once for a method known to be missing.

        `quick` calls are small and at the head. `divisible`: the caller can ask for less, so that a limit exceeded
        may be one of size; RateLimited with a code then means that it seems to be."""
        if call.method in self.missing:
            raise MethodMissing(f"{self.label} does not know {call.method}")
        try:
            return await self._send(lambda s: self._rpc.call(call, shape, s), deadline, quick, divisible)
        except MethodMissing:
            self.missing.add(call.method)
            raise

    async def batch(self, calls: Sequence[Call], shape: Shape[T], *, deadline: float) -> Reply[list[T]]:
        """Calls of one method in one request; a single call is sent without the batch's brackets."""
        if len(calls) == 1:
            reply = await self.call(calls[0], shape, deadline=deadline)
            return Reply([reply.value], reply.size_bytes)
        if calls[0].method in self.missing:
            raise MethodMissing(f"{self.label} does not know {calls[0].method}")
        try:
            return await self._send(lambda s: self._rpc.batch(calls, shape, s), deadline, False, True)
        except MethodMissing:
            self.missing.add(calls[0].method)
            raise

    async def close(self) -> None:
        await self._transport.close()

    async def _send(
        self, post: Callable[[float], Awaitable[Reply[T]]], deadline: float, quick: bool, divisible: bool
    ) -> Reply[T]:
        attempt = 0
        limited_at: float | None = None
        while True:
            try:
                reply = await self._send_once(post, deadline, quick, divisible)
            except SourceError as error:
                attempt += 1
                if divisible and isinstance(error, RateLimited) and error.code is not None:
                    if limited_at is not None or self._limit_is_size:
                        self._limit_is_size = True
                        raise
                    limited_at = self._clock.monotonic()
                    await self._clock.sleep(_LIMIT_PAUSE_SECONDS)
                elif not self._again(error, attempt, deadline):
                    raise
                else:
                    await self._clock.sleep(backoff_seconds(self._clock.random(), 0, self._options))
                self._tally.retries += 1
                continue
            if limited_at is not None:
                self.standing.slow_down(self._clock.monotonic(), limited_at, None)
            return reply

    async def _send_once(
        self, post: Callable[[float], Awaitable[Reply[T]]], deadline: float, quick: bool, divisible: bool
    ) -> Reply[T]:
        await self._enter(deadline)
        started = self._clock.monotonic()
        limit = self._options.head_timeout_seconds if quick else self._options.request_timeout_seconds
        self.standing.started(started)
        self._tally.requests += 1
        try:
            reply = await post(min(limit, deadline - started))
        except SourceError as error:
            ambiguous = divisible and isinstance(error, RateLimited) and error.code is not None
            self.standing.failed(self._clock.monotonic(), started, error, ambiguous=ambiguous)
            self._tally.failed(error)
            if isinstance(error, SourceUnavailable) and not isinstance(error, RateLimited):
                self.identity_checked_at = None
            raise
        except BaseException:
            self.standing.abandoned(self._clock.monotonic(), started, quick=quick)
            raise
        finally:
            self._wake()
        self._tally.bytes_received += reply.size_bytes
        usual = self._usual_connection()
        now = self._clock.monotonic()
        self.standing.succeeded(now, started, quick=quick, size_bytes=reply.size_bytes, usual=usual)
        return reply

    def _usual_connection(self) -> bool:
        """Whether the answer came over a connection that was there, or whose making is usual here.

        A new one takes longer and says little about the endpoint's speed; and it may lead to another node, so that
        the identity is due. Where every answer ends its connection the checks from time to time must do."""
        new = self._rpc.connections > self._connections
        self._connections = self._rpc.connections
        self._reconnect_share += _RECONNECT_WEIGHT * (new - self._reconnect_share)
        if new and self._reconnect_share < 0.5:
            self.identity_checked_at = None
            return False
        return True

    def _again(self, error: SourceError, attempt: int, deadline: float) -> bool:
        """Whether to ask the same endpoint again at once. Longer troubles are for the caller, who knows the others."""
        now = self._clock.monotonic()
        if isinstance(error, RateLimited):
            if error.code is not None:
                self._limit_is_size = False
            within = self.standing.delay(now) < min(self._patience_seconds(), deadline - now)
            return within and attempt <= (self._options.request_attempts_max if self.alone else 1)
        if isinstance(error, TimedOut) or not isinstance(error, SourceUnavailable):
            return False
        return attempt <= 1 and now < deadline

    async def _enter(self, deadline: float) -> None:
        """Wait until a request may be sent."""
        self.standing.queued += 1
        try:
            await self._wait_for_place(deadline)
        except BaseException:
            self._wake()  # who gives up may have been woken: the next one in the queue must not wait for nothing
            raise
        finally:
            self.standing.queued -= 1

    async def _wait_for_place(self, deadline: float) -> None:
        patient_until = self._clock.monotonic() + self._patience_seconds()
        while True:
            now = self._clock.monotonic()
            if now >= deadline:
                raise TimedOut(f"{self.label} was not asked: no time was left")
            delay = self.standing.delay(now)
            if delay > 0 and now + delay >= min(patient_until, deadline):
                raise RateLimited(f"{self.label} wants no request for another {delay:.1f} s", retry_after_seconds=delay)
            if delay > 0:
                await self._clock.sleep(delay)
            elif self.standing.full:
                slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(slot)
                await slot
            else:
                return

    def _patience_seconds(self) -> float:
        return float("inf") if self.alone else _PATIENCE_SECONDS

    def _wake(self) -> None:
        """Let those that wait for a place look again; who does not get it queues up anew."""
        room = max(1, int(self.standing.window) - self.standing.in_flight)
        while self._waiting and room > 0:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                room -= 1


class Pool:
    """All endpoints of a source."""

    def __init__(self, transports: Sequence[Transport], options: EvmOptions, clock: Clock) -> None:
        self.tally = Tally()
        self._options = options
        self._clock = clock
        labels = distinct([t.label for t in transports])
        self.endpoints = [
            Endpoint(transport, label, order, options, clock, self.tally)
            for order, (transport, label) in enumerate(zip(transports, labels, strict=True))
        ]
        for endpoint in self.endpoints:
            endpoint.alone = len(self.endpoints) == 1
        self._by_label = {e.label: e for e in self.endpoints}
        self._new_liars: set[str] = set()

    def ranked(self, need: Need) -> list[Endpoint]:
        """Those that may be asked, best first."""
        standings = rank((e.standing for e in self.endpoints), self._clock.monotonic(), need)
        return [self._by_label[s.label] for s in standings]

    def contradicted(self, endpoint: Endpoint, error: Contradiction, *, lie: bool) -> None:
        """Count a refused answer; with `lie` the endpoint is distrusted for a while as well."""
        self.tally.contradicted(error.kind)
        endpoint.standing.last_error = error.what
        log.warning(
            "answer refused",
            endpoint=endpoint.label,
            kind=error.kind,
            position=error.position,
            reason=error.what,
            distrusted=lie,
        )
        if lie:
            endpoint.standing.lied(self._clock.monotonic(), error.what)
            self._new_liars.add(endpoint.label)

    def take_liars(self) -> frozenset[str]:
        liars, self._new_liars = frozenset(self._new_liars), set()
        return liars

    def best_head(self) -> int | None:
        return max((e.standing.head for e in self.endpoints if e.standing.head is not None), default=None)

    def reports(self) -> tuple[EndpointReport, ...]:
        now, best = self._clock.monotonic(), self.best_head()
        return tuple(e.standing.report(now, best) for e in self.endpoints)

    async def first(
        self, work: Callable[[Endpoint], Awaitable[T]], need: Need, *, deadline: float, rounds: int
    ) -> tuple[T, Endpoint]:
        """The first good answer to a small question, asked of the endpoints in order.

        The next one is asked when the one before fails, or is slower than it usually is (hedging); the slower
        answer is not waited for. All having failed, they are asked again after a pause, `rounds` times at most.
        Raises the verdict over all of them, or at once what no other endpoint can mend (not a SourceError that is
        retryable)."""
        errors: dict[str, SourceError] = {}
        for attempt in range(rounds):
            if attempt:
                pause = backoff_seconds(self._clock.random(), attempt, self._options)
                if self._clock.monotonic() + pause >= deadline:
                    break
                self.tally.retries += 1
                await self._clock.sleep(pause)
            found = await self._race(work, self.ranked(need), errors)
            if found is not None:
                return found
        raise verdict("No endpoint answers", errors)

    async def _race(
        self, work: Callable[[Endpoint], Awaitable[T]], candidates: list[Endpoint], errors: dict[str, SourceError]
    ) -> tuple[T, Endpoint] | None:
        running: dict[asyncio.Task[T], Endpoint] = {}
        hedge: asyncio.Task[None] | None = None
        queue = deque(candidates)
        try:
            while queue or running:
                if queue and (not running or self._may_hedge(hedge, len(running), queue[0])):
                    endpoint = queue.popleft()
                    running[asyncio.ensure_future(_started(work(endpoint)))] = endpoint
                    hedge = self._alarm(hedge, endpoint.standing.hedge_seconds())
                waiting: set[asyncio.Task[T] | asyncio.Task[None]] = set(running)
                if queue and hedge is not None and not hedge.done():
                    waiting.add(hedge)
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in [t for t in running if t.done()]:
                    endpoint = running.pop(task)
                    try:
                        return task.result(), endpoint
                    except SourceError as error:
                        if not error.retryable and not isinstance(error, MethodMissing):
                            raise
                        errors[endpoint.label] = error
            return None
        finally:
            await _cancel([*running, *([hedge] if hedge is not None else [])])

    def _may_hedge(self, hedge: asyncio.Task[None] | None, running: int, other: Endpoint) -> bool:
        """A slow answer is better than a liar's."""
        late = hedge is not None and hedge.done() and running < _HEDGED_MAX
        return late and not other.standing.distrusted(self._clock.monotonic())

    def _alarm(self, old: asyncio.Task[None] | None, seconds: float) -> asyncio.Task[None]:
        if old is not None:
            old.cancel()
        return asyncio.ensure_future(_started(self._clock.sleep(seconds)))

    async def close(self) -> None:
        for endpoint in self.endpoints:
            await endpoint.close()


async def _started(work: Awaitable[T]) -> T:
    return await work


async def _cancel(tasks: Sequence[asyncio.Task[T] | asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def backoff_seconds(random: Random, attempt: int, options: EvmOptions) -> float:
    """Exponential backoff with full jitter: anything between nothing and the doubled base."""
    return random.uniform(0.0, min(options.backoff_max_seconds, options.backoff_base_seconds * 2.0 ** min(attempt, 30)))


def distinct(labels: Sequence[str]) -> list[str]:
    """Labels made unique: what an endpoint served and whether it lied is known by its label."""
    seen: dict[str, int] = {}
    out = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        out.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return out


def verdict(what: str, errors: Mapping[str, SourceError], position: int | None = None) -> SourceError:
    """One error for all endpoints' last ones. Where they agree that answers contradict, that the position is not
    there yet or no longer, it is that; else the source is unavailable."""
    found = list(errors.values())
    told = "; ".join(e.what if label in e.what else f"{label}: {e.what}" for label, e in errors.items())
    told = told or "no endpoint may be asked"
    cause = found[-1] if found else None
    error: SourceError
    if found and all(isinstance(e, Contradiction) for e in found):
        kind = next(e.kind for e in found if isinstance(e, Contradiction))
        error = Contradiction(f"{what}: every endpoint contradicts itself: {told}", kind=kind, position=position)
    elif found and all(isinstance(e, NotYetAvailable) for e in found):
        error = NotYetAvailable(f"{what}: {told}", position=position)
    elif found and all(isinstance(e, HistoryPruned) for e in found):
        todo = "Use an endpoint that keeps the whole history (an archive node), or a later start."
        error = HistoryPruned(f"{what}: {told}", position=position, todo=todo)
    else:
        todo = "Check the addresses in `rpc`; `gapless doctor` asks each of them."
        error = SourceUnavailable(f"{what}: {told}", position=position, todo=todo)
    error.__cause__ = cause
    return error

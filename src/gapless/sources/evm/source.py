"""The EVM source: the `Source` port over a pool of JSON-RPC endpoints.

A fetch is a row of attempts. Each takes one endpoint, the best that has not failed at this range yet, reads everything
from it and checks it; the first that passes is the answer. What an endpoint is caught at decides what happens to it:

- It does not answer, or not in time, or refuses: the next one is asked.
- It contradicts itself at or below the finalized position: it lied. It is distrusted for a while and handed out by
  `take_liars`, so that what it served un-audited is fetched again elsewhere.
- It contradicts itself above that: the chain may have moved between two of our requests. It is asked once more at
  once; if it contradicts itself again, it lied.
- It says null where something must be: that is refused and counted, but puts nothing else it said in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from gapless.clock import Clock
from gapless.errors import (
    BadAnswer,
    ConfigError,
    Contradiction,
    HistoryPruned,
    MethodMissing,
    SourceError,
    SourceUnavailable,
    check,
)
from gapless.model import Cursor, Entry, Head, Identity, Segment
from gapless.sources import SourceStatistics
from gapless.sources.evm.attempts import Attempts
from gapless.sources.evm.audit import MISMATCH, Auditor, Finding
from gapless.sources.evm.endpoints import Endpoint, Pool
from gapless.sources.evm.fetch import Fetcher, Part
from gapless.sources.evm.heads import Heads
from gapless.sources.evm.hints import Hints
from gapless.sources.evm.identity import Guard, time_of
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.reader import Reader, together
from gapless.sources.evm.standing import Need
from gapless.sources.evm.transport import Transport
from gapless.sources.evm.types import EvmPayload, Verify, Wants

_SPAN_START_WHOLE = 8
"""Whole blocks are a hundred times as large as what a filter finds in them."""
_NOT_LIES = frozenset({"null_block", "null_receipt", "unknown_transaction_type", MISMATCH})
"""Refused and counted, but no reason to doubt what else the endpoint served. A difference between two endpoints is
among them while nothing decides it."""
_CURSOR_ROUNDS = 3


class _Caught(Contradiction):
    """An audit decided against the endpoint; counted already."""


class EvmSource:
    """An EVM chain. See `gapless.sources.Source` for the promises.

    `transports` are its endpoints, in order of preference; `hints` are push channels."""

    kind = "evm"

    def __init__(
        self,
        name: str,
        options: EvmOptions,
        wants: Wants,
        clock: Clock,
        transports: Sequence[Transport],
        hints: Sequence[Hints] = (),
    ) -> None:
        if not transports:
            raise ConfigError(f"Source {name!r} has no endpoint to fetch from", todo="Add an http:// address to `rpc`.")
        if wants.whole_blocks or options.verify is Verify.PROVED:
            options = replace(options, span_start=min(options.span_start, _SPAN_START_WHOLE))
        self.name = name
        self._options = options
        self._clock = clock
        self._pool = Pool(transports, options, clock)
        self._guard = Guard(name, options, clock)
        self._heads = Heads(self._pool, self._guard, options, clock, tuple(hints))
        self._fetcher = Fetcher(options, wants, clock)
        self._auditor = Auditor(self._fetcher.requests, options)

    def __repr__(self) -> str:
        return f"EvmSource({self.name}, {len(self._pool.endpoints)} endpoints, span {self.span()})"

    # --- where it stands --------------------------------------------------------------------------------------------

    async def identity(self) -> Identity:
        """Ask every endpoint who it is. Raises WrongChain where two differ, SourceUnavailable where none answers."""
        with self._naming():
            return await self._guard.identity(self._pool, self._deadline())

    async def head(self) -> Head:
        """The head now. Raises SourceUnavailable, WrongChain."""
        with self._naming():
            return await self._heads.head()

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        """The head as soon as it differs from `known`, or as it is when the time is over. Raises as `head`."""
        with self._naming():
            return await self._heads.wait_head(known, timeout_seconds)

    async def cursors(self, positions: Sequence[int]) -> list[Cursor | None]:
        """The ids of the present chain at these positions, all from one endpoint; None beyond its head."""

        async def ask(endpoint: Endpoint) -> list[Cursor | None]:
            await self._guard.admit(endpoint, deadline)
            cursors = await Reader(endpoint, deadline).cursors(positions)
            await self._guard.admit(endpoint, deadline)
            return cursors

        deadline = self._deadline()
        need = Need(last=max(positions, default=None))
        with self._naming():
            return (await self._pool.first(ask, need, deadline=deadline, rounds=_CURSOR_ROUNDS))[0]

    async def opinions(self, position: int) -> dict[str, Cursor | None]:
        """What each endpoint that answers in time has at a position: by label; None beyond its head. Those caught lying
        lately are asked only where there is no other. Raises WrongChain."""

        async def ask(endpoint: Endpoint) -> tuple[str, Cursor | None] | None:
            try:
                await self._guard.admit(endpoint, deadline)
                [found] = await Reader(endpoint, deadline).cursors([position])
                await self._guard.admit(endpoint, deadline)
            except SourceError as error:
                if not (error.retryable or isinstance(error, MethodMissing | HistoryPruned)):
                    raise
                return None
            return endpoint.label, found

        now = self._clock.monotonic()
        deadline = now + self._options.head_timeout_seconds
        endpoints = self._pool.endpoints
        trusted = [e for e in endpoints if not e.standing.distrusted(now) and not e.standing.resting(now)]
        asked = trusted or list(endpoints)
        with self._naming():
            answers = await together([ask(endpoint) for endpoint in asked])
        return dict(answer for answer in answers if answer is not None)

    def doubt(self, labels: frozenset[str]) -> None:
        """These endpoints are on a chain of their own: for a while their heads do not count, and they are asked for
        blocks only where no other can give them."""
        now = self._clock.monotonic()
        for endpoint in self._pool.endpoints:
            if endpoint.label in labels:
                endpoint.standing.doubted(now)
                self._heads.tracker.discredit(endpoint.label, now)

    def span(self) -> int:
        """Positions one `fetch` should ask for, as learned from the endpoint that would be asked."""
        return self._pool.ranked(Need())[0].pieces.size

    # --- fetching ---------------------------------------------------------------------------------------------------

    async def fetch(
        self, first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()
    ) -> Segment[EvmPayload]:
        """Blocks `first..last`, all of them, linked and verified. See the port for the errors."""
        check(0 <= first <= last, f"a range goes upwards from 0, not {first} to {last}")
        attempts = Attempts(self._pool, self._options, self._clock, Need(first=first, last=last, avoid=avoid))
        with self._naming():
            while True:
                try:
                    endpoint = await attempts.next_endpoint()
                except SourceError as error:
                    for label in attempts.boasters():
                        self._heads.tracker.discredit(label, self._clock.monotonic())
                    if attempts.out_of_time:
                        self._ask_for_less(last - first + 1)
                    await self._diagnose(error, attempts, last, head)
                    raise
                try:
                    return await self._attempt(endpoint, first, last, head, avoid, attempts)
                except SourceError as error:
                    self._judge(endpoint, error, head, attempts)

    async def _attempt(
        self, endpoint: Endpoint, first: int, last: int, head: Head, avoid: frozenset[str], attempts: Attempts
    ) -> Segment[EvmPayload]:
        await self._guard.admit(endpoint, attempts.deadline)
        reader = Reader(endpoint, attempts.deadline)
        part = await self._fetcher.fetch(reader, first, last, head)
        await self._guard.admit(endpoint, attempts.deadline)  # it may have been connected anew in the middle
        if self._fetcher.filtered:
            await self._audit(part, reader, head, avoid, attempts)
        others = self._trusted_others(endpoint, last, avoid)
        if others and endpoint.standing.distrusted(self._clock.monotonic()) and not all(part.audited):
            raise SourceUnavailable(f"{endpoint.label} was caught lying while it was asked")
        return self._segment(part, endpoint.label, reader.size_bytes)

    def _judge(self, endpoint: Endpoint, error: SourceError, head: Head, attempts: Attempts) -> None:
        """What a failed attempt means for the endpoint. Raises the error again where no other endpoint can help."""
        if isinstance(error, _Caught):
            attempts.failed(endpoint, error)
        elif isinstance(error, Contradiction):
            if error.kind in _NOT_LIES:
                attempts.failed(endpoint, error)
                lie = False
            else:
                settled = error.position is not None and error.position <= head.finalized
                lie = settled or not attempts.doubted(endpoint, error)
                if settled:
                    attempts.failed(endpoint, error)
            attempts.must_audit |= error.kind == MISMATCH
            self._pool.contradicted(endpoint, error, lie=lie)
        else:
            if isinstance(error.__cause__, Contradiction):
                self._pool.contradicted(endpoint, error.__cause__, lie=False)
            if not (error.retryable or isinstance(error, MethodMissing | HistoryPruned)):
                raise error
            attempts.failed(endpoint, error)

    def _ask_for_less(self, positions: int) -> None:
        """So many took longer than one fetch may take, though each request was in time: the next one, which may be made
        of any endpoint, is smaller."""
        for endpoint in self._pool.endpoints:
            endpoint.pieces.failed(min(positions, endpoint.pieces.size))

    async def _diagnose(self, error: SourceError, attempts: Attempts, last: int, head: Head) -> None:
        """Every endpoint refused an old range: raise HistoryPruned when they give the newest block without ado."""
        refused = attempts.refused_by()
        if not refused or last > self._fetcher.last_calm(head) or last >= head.latest.position:
            return
        position = head.latest.position
        for endpoint in refused:
            reader = Reader(endpoint, self._clock.monotonic() + self._options.request_timeout_seconds)
            try:
                await self._fetcher.fetch(reader, position, position, head)
            except SourceError:
                return
        todo = "Use an endpoint that keeps the whole history (an archive node), or a later start."
        raise HistoryPruned(error.what, position=error.position, todo=todo) from error

    # --- audits -----------------------------------------------------------------------------------------------------

    async def _audit(self, part: Part, reader: Reader, head: Head, avoid: frozenset[str], attempts: Attempts) -> None:
        """Compare a drawn share of the filtered blocks with another endpoint's answer, and mark them as audited.

        Raises Contradiction when the endpoint is caught, or nothing decides between the two."""
        calm = part.filtered_until(self._fetcher.last_calm(head))
        others = self._trusted_others(reader.endpoint, int(part.headers[-1].number, 16), avoid) if calm else []
        drawn = bool(others) and self._clock.random().random() < self._options.audit_share
        if not (drawn or (others and attempts.must_audit)):
            return
        for endpoint in others:
            finding = await self._compare(part.head(calm), reader, Reader(endpoint, attempts.deadline))
            if finding is None:
                continue
            self._pool.tally.audits += 1
            if finding.other is not None:
                self._pool.contradicted(endpoint, finding.other, lie=True)
            if finding.audited is not None:
                self._pool.contradicted(reader.endpoint, finding.audited, lie=True)
                raise _Caught(finding.audited.what, kind=MISMATCH, position=finding.audited.position)
            if finding.complete:
                part.audited[:calm] = [True] * calm
                return

    async def _compare(self, part: Part, reader: Reader, other: Reader) -> Finding | None:
        """The finding; None where the other endpoint does not have the blocks or does not answer. Its failures stand
        in its own record."""
        try:
            await self._guard.admit(other.endpoint, other.deadline)
            if await other.height() < int(part.headers[-1].number, 16):
                return None
            return await self._auditor.compare(part, reader, other)
        except Contradiction:
            raise
        except SourceError as error:
            if not error.retryable and not isinstance(error, MethodMissing | HistoryPruned):
                raise
            return None

    def _trusted_others(self, endpoint: Endpoint, last: int, avoid: frozenset[str]) -> list[Endpoint]:
        now = self._clock.monotonic()
        return [
            other
            for other in self._pool.ranked(Need(last=last, avoid=avoid))
            if other is not endpoint and not other.standing.distrusted(now) and not other.standing.resting(now)
        ]

    # --- the rest ---------------------------------------------------------------------------------------------------

    def take_liars(self) -> frozenset[str]:
        """Labels of endpoints newly caught in a lie since the last call."""
        return self._pool.take_liars()

    def statistics(self) -> SourceStatistics:
        """Counters since the start, and every endpoint's score sheet."""
        tally = self._pool.tally
        return SourceStatistics(
            requests=tally.requests,
            bytes_received=tally.bytes_received,
            retries=tally.retries,
            errors=dict(tally.errors),
            contradictions=dict(tally.contradictions),
            audits=tally.audits,
            endpoints=self._pool.reports(),
        )

    async def close(self) -> None:
        """End push channels and connections."""
        await self._heads.close()
        await self._pool.close()

    def _segment(self, part: Part, label: str, size_bytes: int) -> Segment[EvmPayload]:
        try:
            entries = tuple(
                Entry(
                    position=int(header.number, 16),
                    id=header.hash,
                    parent_id=header.parent_hash,
                    time_us=time_of(header.timestamp, label),
                    evidence=evidence,
                    served_by=label,
                    audited=audited,
                )
                for header, evidence, audited in zip(part.headers, part.evidence, part.audited, strict=True)
            )
        except ValueError as error:
            raise BadAnswer(f"{label} gave a block whose number is none ({error})") from error
        payload = EvmPayload(part.headers, part.logs, part.transactions, part.receipts)
        if part.columns is not None:
            payload = replace(payload, table=part.columns.table, counts=tuple(part.columns.counts))
        return Segment(self.name, entries, payload, size_bytes)

    def _deadline(self) -> float:
        return self._clock.monotonic() + self._options.deadline_seconds

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Errors that leave the source carry its name."""
        try:
            yield
        except SourceError as error:
            error.source = error.source or self.name
            raise

"""Where the chain stands: its newest block, and what is final.

One endpoint's word is not the chain's. A replica behind a load balancer answers 100, 98, 100; an endpoint may be
syncing, or lie. What is reported is the highest head among the endpoints that can be believed, and it goes back only
when the lower one was seen several times in a row with nobody claiming more. A different hash at the same height is
reported as soon as the endpoint that reported the first one says so; other endpoints' opinions on that height do not
count, else two endpoints that see a tie would look like a fork with every poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from gapless.clock import Clock
from gapless.errors import BadAnswer, MethodMissing, RequestRefused, SourceError
from gapless.model import Cursor, FinalityRule, Head
from gapless.sources.evm.endpoints import Endpoint, Pool
from gapless.sources.evm.hints import Hints
from gapless.sources.evm.identity import Guard, number_of, time_of
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.rpc import HEAD, Call
from gapless.sources.evm.rpc import Head as HeadBlock
from gapless.sources.evm.standing import Need

_FRESH_REFRESHES = 3.0
"""A head not confirmed for this many refreshes is not counted any more."""
_DISCREDIT_SECONDS = 30.0
"""How long the head of an endpoint that could not serve its own head is not counted."""
_POLL_SECONDS_MIN = 0.05
"""Between two looks, however often the bell rings."""
_EAGER_POLLS = 3
_EAGER_SECONDS = 0.1
"""After a ring that was not confirmed at once: the endpoint asked may be a moment behind the one that rang."""
_LATEST = Call("eth_getBlockByNumber", ("latest", False))


@dataclass(frozen=True, slots=True)
class Sight:
    """What one endpoint said, and when."""

    latest: Cursor
    time_us: int
    finalized: int | None
    at: float


class HeadTracker:
    """Makes one head out of what the endpoints say. Pure: no I/O, the time is given."""

    def __init__(self, fresh_seconds: float, regression_polls: int) -> None:
        self._fresh_seconds = fresh_seconds
        self._regression_polls = regression_polls
        self._sights: dict[str, Sight] = {}
        self._discredited: dict[str, float] = {}
        self._reported: tuple[str, Sight] | None = None
        self._lower_seen = 0

    def observe(self, label: str, sight: Sight, distrusted: frozenset[str] = frozenset()) -> None:
        """Take in what an endpoint said. A finalized position it said before stands while it says none."""
        before = self._sights.get(label)
        if sight.finalized is None and before is not None:
            sight = replace(sight, finalized=before.finalized)
        self._sights[label] = sight
        self._settle(sight.at, distrusted)

    def discredit(self, label: str, now: float) -> None:
        """It could not serve a block below its own head: another endpoint's head counts for a while."""
        self._discredited[label] = now + _DISCREDIT_SECONDS
        others_are_there = label not in self._usable(now, frozenset())
        if others_are_there and self._reported is not None and self._reported[0] == label:
            self._reported = None

    def finalized_of(self, label: str) -> int | None:
        sight = self._sights.get(label)
        return None if sight is None else sight.finalized

    def head(self, now: float, distrusted: frozenset[str] = frozenset()) -> Head | None:
        """The chain's head; None before anything was seen. Final is what every believable endpoint calls final."""
        if self._reported is None:
            self._settle(now, distrusted)
        if self._reported is None:
            return None
        reported = self._reported[1]
        said = [s.finalized for s in self._usable(now, distrusted).values() if s.finalized is not None]
        finalized = min(said) if said else (-1 if reported.finalized is None else reported.finalized)
        return Head(reported.latest, min(finalized, reported.latest.position), reported.time_us)

    def _settle(self, now: float, distrusted: frozenset[str]) -> None:
        usable = self._usable(now, distrusted)
        if not usable:
            return
        top = max(s.latest.position for s in usable.values())
        best = next(label for label, s in usable.items() if s.latest.position == top)
        if self._reported is not None:
            label, reported = self._reported
            if top < reported.latest.position:
                self._lower_seen += 1
                if self._lower_seen < self._regression_polls:
                    return
            elif label in usable and usable[label].latest.position == top:
                best = label
            elif top == reported.latest.position and label not in distrusted:
                return
        self._lower_seen = 0
        self._reported = (best, usable[best])

    def _usable(self, now: float, distrusted: frozenset[str]) -> dict[str, Sight]:
        """The sights that count: fresh, of endpoints to be believed; if there are none, whatever there is."""
        fresh = {k: s for k, s in self._sights.items() if now - s.at <= self._fresh_seconds} or self._sights
        credited = {k: s for k, s in fresh.items() if self._discredited.get(k, now) <= now}
        return {k: s for k, s in credited.items() if k not in distrusted} or credited or fresh


async def newest_at_or_before(
    limit_us: int, head: int, known: int | None, time_us_of: Callable[[int], Awaitable[int]]
) -> int:
    """The highest position whose time is not after the limit; -1 when there is none.

    Searches down from the head in growing steps, or up from a position known to qualify, then halves: some twenty
    questions the first time, one or two later."""
    step = 1
    if known is not None and known <= head:
        good, bad = known, head + 1
        while good + step < bad:
            probe = good + step
            if await time_us_of(probe) > limit_us:
                bad = probe
            else:
                good = probe
            step *= 2
    else:
        good, bad = -1, head + 1
        while bad - step > good:
            probe = bad - step
            if await time_us_of(probe) > limit_us:
                bad = probe
            else:
                good = probe
            step *= 2
    while bad - good > 1:
        middle = (good + bad) // 2
        if await time_us_of(middle) > limit_us:
            bad = middle
        else:
            good = middle
    return good


class Heads:
    """Looks at the heads of the endpoints, by itself and when a bell rings."""

    def __init__(self, pool: Pool, guard: Guard, options: EvmOptions, clock: Clock, hints: tuple[Hints, ...]) -> None:
        self._pool = pool
        self._guard = guard
        self._options = options
        self._clock = clock
        self._hints = hints
        self.tracker = HeadTracker(options.head_refresh_seconds * _FRESH_REFRESHES, options.regression_polls)
        self._without_tag: set[str] = set()
        self._finalized_at: dict[str, float] = {}
        self._others_at = float("-inf")
        self._others: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")
        self._wrong: SourceError | None = None

    async def head(self) -> Head:
        """Look now. Raises the pool's verdict when no endpoint answers."""
        return await self._look(rounds=self._options.request_attempts_max)

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        """The head as soon as it differs from `known`, or as it is when the time is over.

        Raises SourceError only when the last look before that failed."""
        deadline = self._clock.monotonic() + timeout_seconds
        for hints in self._hints:
            hints.start()
        eager = 0
        while True:
            seen = await self._glance()
            left = deadline - self._clock.monotonic()
            if isinstance(seen, Head) and (left <= 0 or seen.latest != known):
                return seen
            if isinstance(seen, SourceError) and (left <= 0 or not seen.retryable):
                raise seen
            pause = _EAGER_SECONDS if eager > 0 else self._options.poll_seconds
            eager = _EAGER_POLLS if await self._rung(min(pause, left)) else eager - 1

    async def close(self) -> None:
        for hints in self._hints:
            await hints.close()
        others, self._others = self._others, None
        if others is not None:
            others.cancel()
            with suppress(asyncio.CancelledError):
                await others

    # --- looking ----------------------------------------------------------------------------------------------------

    async def _glance(self) -> Head | SourceError:
        try:
            return await self._look(rounds=1)
        except SourceError as error:
            return error

    async def _look(self, rounds: int) -> Head:
        if self._wrong is not None:
            raise self._wrong
        now = self._looked_at = self._clock.monotonic()
        deadline = now + rounds * self._options.head_timeout_seconds
        await self._pool.first(lambda e: self._observe(e, deadline), Need(quick=True), deadline=deadline, rounds=rounds)
        self._refresh_others()
        head = self.tracker.head(self._clock.monotonic(), self._distrusted())
        if head is None:
            raise BadAnswer("No endpoint named a head")
        return head

    async def _observe(self, endpoint: Endpoint, deadline: float) -> None:
        """Take one endpoint's head in, and what it calls final where that is due."""
        await self._guard.admit(endpoint, deadline)
        label = endpoint.label
        due = self._clock.monotonic() - self._finalized_at.get(label, float("-inf"))
        if self._options.finality.rule is FinalityRule.TAG and due >= self._options.head_refresh_seconds:
            latest, tagged = await asyncio.gather(self._latest(endpoint, deadline), self._tagged(endpoint, deadline))
            self._finalized_at[label] = self._clock.monotonic()
        else:
            latest, tagged = await self._latest(endpoint, deadline), None
        await self._guard.admit(endpoint, deadline)  # it may have been connected anew for this answer
        cursor = Cursor(number_of(latest.number, label), latest.hash.lower())
        time_us = time_of(latest.timestamp, label)
        endpoint.standing.head = cursor.position
        finalized = await self._finalized(endpoint, cursor, time_us, tagged, deadline)
        self.tracker.observe(label, Sight(cursor, time_us, finalized, self._clock.monotonic()), self._distrusted())

    async def _latest(self, endpoint: Endpoint, deadline: float) -> HeadBlock:
        block = (await endpoint.call(_LATEST, HEAD, deadline=deadline, quick=True)).value
        if block is None:
            raise BadAnswer(f"{endpoint.label} has no latest block")
        return block

    async def _tagged(self, endpoint: Endpoint, deadline: float) -> int | None:
        """What the endpoint's tag names. None when it names nothing: the tag is unknown, or nothing is final yet."""
        call = Call("eth_getBlockByNumber", (str(self._options.finality.value), False))
        try:
            block = (await endpoint.call(call, HEAD, deadline=deadline, quick=True)).value
        except RequestRefused:
            block = None
        except SourceError:
            return None
        if block is None:
            self._without_tag.add(endpoint.label)
            return None
        self._without_tag.discard(endpoint.label)
        return number_of(block.number, endpoint.label)

    async def _finalized(
        self, endpoint: Endpoint, latest: Cursor, time_us: int, tagged: int | None, deadline: float
    ) -> int | None:
        rule, value = self._options.finality.rule, self._options.finality.value
        if rule is FinalityRule.DEPTH:
            return max(-1, latest.position - int(value))
        if rule is FinalityRule.AGE:
            return await self._aged(endpoint, latest.position, time_us - round(float(value) * 1e6), deadline)
        known = self.tracker.finalized_of(endpoint.label)
        if tagged is None and endpoint.label in self._without_tag:
            fallback = max(-1, latest.position - self._options.finality_fallback_depth)
            return fallback if known is None else max(known, fallback)
        return tagged

    async def _aged(self, endpoint: Endpoint, head: int, limit_us: int, deadline: float) -> int | None:
        async def time_us_of(position: int) -> int:
            call = Call("eth_getBlockByNumber", (hex(position), False))
            block = (await endpoint.call(call, HEAD, deadline=deadline, quick=True)).value
            if block is None:
                raise BadAnswer(f"{endpoint.label} has no block {position} though its head is {head}")
            return time_of(block.timestamp, endpoint.label)

        known = self.tracker.finalized_of(endpoint.label)
        if known is not None and known < 0:
            known = None
        due = self._clock.monotonic() - self._finalized_at.get(endpoint.label, float("-inf"))
        if known is not None and due < self._options.head_refresh_seconds:
            return known
        self._finalized_at[endpoint.label] = self._clock.monotonic()
        return await newest_at_or_before(limit_us, head, known, time_us_of)

    def _refresh_others(self) -> None:
        """Look at all endpoints beside the ordinary polls: their lag decides who is asked for what."""
        now = self._clock.monotonic()
        due = now - self._others_at >= self._options.head_refresh_seconds
        if len(self._pool.endpoints) > 1 and due and (self._others is None or self._others.done()):
            self._others_at = now
            self._others = asyncio.create_task(self._look_at_others(now + self._options.head_timeout_seconds))

    async def _look_at_others(self, deadline: float) -> None:
        """Failures stand in the endpoints' own records, where the order of asking and `statistics` find them; one
        that no retry can mend, such as a wrong chain, stops the next look."""
        now = self._clock.monotonic()
        idle = [e for e in self._pool.endpoints if not e.standing.resting(now)]
        for found in await asyncio.gather(*(self._observe(e, deadline) for e in idle), return_exceptions=True):
            if isinstance(found, SourceError) and not (found.retryable or isinstance(found, MethodMissing)):
                self._wrong = found

    def _distrusted(self) -> frozenset[str]:
        now = self._clock.monotonic()
        return frozenset(e.label for e in self._pool.endpoints if e.standing.distrusted(now))

    # --- waiting ----------------------------------------------------------------------------------------------------

    async def _rung(self, seconds: float) -> bool:
        """Wait, less when a bell rings. True when one did."""
        if not self._hints:
            await self._clock.sleep(seconds)
            return False
        tasks = [asyncio.create_task(self._clock.sleep(seconds))]
        tasks += [asyncio.create_task(_wait(hints.ring)) for hints in self._hints]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        rung = any(hints.ring.is_set() for hints in self._hints)
        for hints in self._hints:
            hints.ring.clear()
        early = _POLL_SECONDS_MIN - (self._clock.monotonic() - self._looked_at)
        if rung and early > 0:
            await self._clock.sleep(early)
        return rung


async def _wait(event: asyncio.Event) -> None:
    await event.wait()

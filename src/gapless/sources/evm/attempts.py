"""Attempts at one range: who is asked next, after which pause, and what it comes to when nobody is left to ask."""

from __future__ import annotations

from collections import Counter

from gapless.clock import Clock
from gapless.errors import MethodMissing, NotYetAvailable, RequestRefused, SourceError
from gapless.sources.evm.endpoints import Endpoint, Pool, backoff_seconds, verdict
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.standing import Need

_TRUSTED_FAILURES_MAX = 3
"""Failures of those we trust before one that lied is asked."""
_ATTEMPTS_EACH_MIN = 2
_PASSING = frozenset({-32603})
"""An internal error may pass."""


class Attempts:
    """The record of one `fetch`. Endpoints are asked in order of standing, those that failed least often first."""

    def __init__(self, pool: Pool, options: EvmOptions, clock: Clock, need: Need) -> None:
        self._pool = pool
        self._options = options
        self._clock = clock
        self._need = need
        self.deadline = clock.monotonic() + options.deadline_seconds
        self.must_audit = False
        """Two endpoints differed and nothing decided between them: no answer passes without a comparison."""
        self._asked = 0
        self._late = False
        self._failures: Counter[str] = Counter()
        self._useless: set[str] = set()
        self._errors: dict[str, SourceError] = {}
        self._doubted: set[str] = set()
        self._confirm: Endpoint | None = None

    @property
    def out_of_time(self) -> bool:
        """Whether it was the time that was spent, not the attempts."""
        return self._late or self._clock.monotonic() >= self.deadline

    async def next_endpoint(self) -> Endpoint:
        """Whom to ask now, after a pause where all were asked before. Raises the verdict when attempts or time are
        spent."""
        self._asked += 1
        if self._confirm is not None:
            endpoint, self._confirm = self._confirm, None
            return endpoint
        now = self._clock.monotonic()
        candidates = [e for e in self._pool.ranked(self._need) if e.label not in self._useless]
        attempts_max = max(self._options.request_attempts_max, _ATTEMPTS_EACH_MIN * len(candidates))
        if not candidates or self._asked > attempts_max or now >= self.deadline:
            raise self._verdict()
        endpoint = min(self._eligible(candidates, now), key=lambda e: self._failures[e.label])
        failures = self._failures[endpoint.label]
        if failures:
            rest = endpoint.standing.rest_left(now)
            pause = max(backoff_seconds(self._clock.random(), failures, self._options), rest)
            pause = min(pause, self._options.backoff_max_seconds)
            if now + pause >= self.deadline:
                self._late = True
                raise self._verdict()
            await self._clock.sleep(pause)
        if self._asked > 1:
            self._pool.tally.retries += 1
        return endpoint

    def failed(self, endpoint: Endpoint, error: SourceError) -> None:
        """An attempt failed. An endpoint without the method it takes is not asked again."""
        self._failures[endpoint.label] += 1
        self._errors[endpoint.label] = error
        if isinstance(error, MethodMissing):
            self._useless.add(endpoint.label)

    def doubted(self, endpoint: Endpoint, error: SourceError) -> bool:
        """A contradiction that may not be the endpoint's fault. The first one is asked about again at once: True;
        the second is not."""
        self.failed(endpoint, error)
        if endpoint.label in self._doubted:
            return False
        self._doubted.add(endpoint.label)
        self._confirm = endpoint
        return True

    def boasters(self) -> list[str]:
        """Endpoints that claim a head above the range but did not have it, while another is not that far: when the
        head was theirs alone, it may not exist."""
        if not any(isinstance(e, NotYetAvailable) for e in self._errors.values()):
            return []
        return [label for label, e in self._errors.items() if not isinstance(e, NotYetAvailable)]

    def _eligible(self, candidates: list[Endpoint], now: float) -> list[Endpoint]:
        trusted = [e for e in candidates if not e.standing.distrusted(now)]
        patient = trusted and min(self._failures[e.label] for e in trusted) < _TRUSTED_FAILURES_MAX
        return trusted if patient else candidates

    def refused_by(self) -> list[Endpoint]:
        """The endpoints, when all of them refused the range down to single blocks by a JSON-RPC error that gives no
        better reason: it may be that they no longer have it."""
        refusals = {
            label
            for label, error in self._errors.items()
            if type(error) is RequestRefused
            and error.code is not None
            and error.code < 0
            and error.code not in _PASSING
        }
        if not refusals or refusals != self._errors.keys():
            return []
        return [endpoint for endpoint in self._pool.endpoints if endpoint.label in refusals]

    def _verdict(self) -> SourceError:
        first, last = self._need.first, self._need.last
        what = f"Block {first} cannot be had" if first == last else f"Blocks {first} to {last} cannot be had"
        return verdict(what, self._errors, first)

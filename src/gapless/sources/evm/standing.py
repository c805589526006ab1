"""What we know about one endpoint, and the order in which endpoints are asked: state and decisions, no I/O.

Every method takes the time, so that a test can walk an endpoint through an hour in a few lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gapless.errors import AnswerTooLarge, BadAnswer, RateLimited, RequestRefused, SourceError, TimedOut
from gapless.sources import EndpointReport
from gapless.sources.evm.options import EvmOptions

MEBIBYTE = 1 << 20

_WEIGHT = 0.2
"""Of the newest observation in the moving averages."""
_DEVIATIONS = 3.0
"""How far above the mean a call counts as slow; about the 95th percentile of skewed latencies."""
_HEDGE_SECONDS_MIN = 0.05
_HEDGE_SECONDS_UNKNOWN = 0.5
_SECONDS_MIN = 0.001
"""Added to every latency, so that load and errors count with the quickest endpoints too."""
_BULK_MEMORY_SECONDS = 60.0
"""Older measurements of large answers are forgotten, so that an endpoint that was slow once is tried again."""
_PRUNED_MEMORY_SECONDS = 600.0
"""How long an endpoint without old blocks is passed over for them; then it may have got them."""
_DOUBT_SECONDS = 60.0
"""How long an endpoint that was seen on a chain of its own is asked last, and its head not counted."""
_DECREASE = 0.5
_RATE_MIN = 0.2
"""Requests per second below which pacing does not go."""
_RATE_GAIN = 0.5
_RATE_GAIN_DOUBLES_SECONDS = 5.0
"""Requests per second gained per second of success: slowly near the complaint, faster the longer none came."""
_PAUSE_SECONDS = 0.25
_PAUSE_SECONDS_MAX = 10.0
"""After a refusal for rate without a Retry-After; doubles with each in a row."""


@dataclass
class Tally:
    """Counters of the whole source."""

    requests: int = 0
    bytes_received: int = 0
    retries: int = 0
    audits: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    contradictions: dict[str, int] = field(default_factory=dict)

    def failed(self, error: SourceError) -> None:
        kind = kind_of(error)
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def contradicted(self, kind: str) -> None:
        self.contradictions[kind] = self.contradictions.get(kind, 0) + 1


def kind_of(error: SourceError) -> str:
    """The kind an error is counted under."""
    if isinstance(error, RateLimited):
        return "rate_limited"
    if isinstance(error, TimedOut):
        return "timeout"
    if isinstance(error, RequestRefused):
        return "refused"
    return "bad_answer" if isinstance(error, BadAnswer) else "http"


class Latency:
    """Moving mean and deviation of a duration, in seconds."""

    def __init__(self) -> None:
        self.mean = 0.0
        self.deviation = 0.0
        self.known = False

    def note(self, seconds: float) -> None:
        if not self.known:
            self.mean, self.deviation, self.known = seconds, seconds / 2, True
            return
        self.deviation += _WEIGHT * (abs(seconds - self.mean) - self.deviation)
        self.mean += _WEIGHT * (seconds - self.mean)

    @property
    def slow(self) -> float:
        """A call that takes longer than this is unusually slow."""
        return self.mean + _DEVIATIONS * self.deviation


class Standing:
    """Score, limits and history of one endpoint."""

    def __init__(self, label: str, order: int, options: EvmOptions) -> None:
        self.label = label
        self.order = order
        self._options = options
        self.quick = Latency()
        self.bulk_seconds_per_mebibyte = 0.0
        self._bulk_at = float("-inf")
        self.error_rate = 0.0
        self.in_flight = 0
        self.queued = 0
        """Requests that wait to be sent."""
        self.window = float(options.concurrency_max)
        self.rate: float | None = None
        """Requests per second the endpoint puts up with; None while it never complained."""
        self._next_slot = 0.0
        self._decreased_at = float("-inf")
        self._limited_in_a_row = 0
        self._second = 0.0
        self._this_second = 0
        self._last_second = 0
        self._failures_in_a_row = 0
        self._rest_until = float("-inf")
        self._distrust_until = float("-inf")
        self.head: int | None = None
        self._oldest = 0
        self._oldest_at = float("-inf")
        self.requests = 0
        self.errors = 0
        self.lies = 0
        self.last_error: str | None = None

    # --- what happens to it ---

    def started(self, now: float) -> None:
        self.requests += 1
        self.in_flight += 1
        if now - self._second >= 1.0:
            self._last_second = self._this_second if now - self._second < 2.0 else 0
            self._second, self._this_second = now, 0
        self._this_second += 1
        if self.rate is not None:
            self._next_slot = max(now, self._next_slot) + 1.0 / self.rate

    def succeeded(self, now: float, started: float, *, quick: bool, size_bytes: int, usual: bool = True) -> None:
        """A request was answered. What was not `usual` about it keeps it out of the latencies."""
        self.in_flight -= 1
        self._failures_in_a_row = 0
        self._limited_in_a_row = 0
        self._rest_until = float("-inf")
        self.error_rate *= 1 - _WEIGHT
        self.window = min(self._options.concurrency_max, self.window + 1.0 / self.window)
        if self.rate is not None:
            quiet = min(now - self._decreased_at, 60.0)
            self.rate += _RATE_GAIN * 2.0 ** (quiet / _RATE_GAIN_DOUBLES_SECONDS) / max(1.0, self.rate)
        if usual:
            self._note(now, now - started, quick, size_bytes)

    def failed(self, now: float, started: float, error: SourceError, *, ambiguous: bool = False) -> None:
        """A request ended in an error. Refusals are part of normal work; they do not make an endpoint unhealthy.

        `ambiguous`: it says that some limit was exceeded, which may be that of an answer's size."""
        self.in_flight -= 1
        self.errors += 1
        self.last_error = error.what
        if isinstance(error, RateLimited):
            if not ambiguous:
                self.error_rate += _WEIGHT * (1 - self.error_rate)
                self.slow_down(now, started, error.retry_after_seconds)
        elif not isinstance(error, RequestRefused | AnswerTooLarge):
            self.error_rate += _WEIGHT * (1 - self.error_rate)
            self._failures_in_a_row += 1
            self._rest(now, self._failures_in_a_row)

    def abandoned(self, now: float, started: float, *, quick: bool) -> None:
        """A request was given up because another endpoint was quicker, or nobody waits for it any more."""
        self.in_flight -= 1
        if quick and now - started > self.quick.mean:
            self.quick.note(now - started)

    def lied(self, now: float, what: str) -> None:
        self.lies += 1
        self.last_error = what
        self._distrust_until = now + self._options.distrust_seconds

    def doubted(self, now: float) -> None:
        """It is on a chain that others are not on. No lie that could be shown: it may be cut off from them."""
        self._distrust_until = max(self._distrust_until, now + _DOUBT_SECONDS)

    def lacks(self, now: float, position: int) -> None:
        """It no longer has what is at or below this position."""
        self._oldest, self._oldest_at = max(position + 1, self.oldest(now)), now

    # --- what follows from it ---

    def oldest(self, now: float) -> int:
        """The first position it is believed to have."""
        return self._oldest if now - self._oldest_at < _PRUNED_MEMORY_SECONDS else 0

    def delay(self, now: float) -> float:
        """Seconds until it may be sent a request, by its own wish."""
        return max(0.0, self._next_slot - now)

    @property
    def full(self) -> bool:
        return self.in_flight >= max(1, int(self.window))

    @property
    def failing(self) -> bool:
        return self._failures_in_a_row > 0

    def resting(self, now: float) -> bool:
        return now < self._rest_until

    def distrusted(self, now: float) -> bool:
        return now < self._distrust_until

    def rest_left(self, now: float) -> float:
        return max(0.0, self._rest_until - now)

    def cost(self, now: float, *, quick: bool) -> float:
        """What asking it is expected to cost, in seconds. Endpoints never asked cost nothing: they are tried. Those
        that were and never answered are the last."""
        seconds = self.quick.mean if self.quick.known or not self.errors else self._options.head_timeout_seconds
        if not quick and now - self._bulk_at < _BULK_MEMORY_SECONDS:
            seconds += self.bulk_seconds_per_mebibyte
        load = (self.in_flight + self.queued) / max(1.0, self.window)
        pause = self.delay(now) + (self.queued / self.rate if self.rate is not None else 0.0)
        return (seconds + _SECONDS_MIN) * (1 + 4 * self.error_rate) * (1 + load) + pause

    def hedge_seconds(self) -> float:
        """How long to wait for a small call before asking another endpoint as well."""
        if not self.quick.known:
            return _HEDGE_SECONDS_UNKNOWN
        return min(max(self.quick.slow, _HEDGE_SECONDS_MIN), self._options.head_timeout_seconds / 2)

    def report(self, now: float, best_head: int | None) -> EndpointReport:
        lag = max(0, best_head - self.head) if best_head is not None and self.head is not None else 0
        return EndpointReport(
            label=self.label,
            healthy=not self.resting(now) and not self.distrusted(now),
            latency_seconds=self.quick.mean,
            lag_positions=lag,
            requests=self.requests,
            errors=self.errors,
            lies=self.lies,
            last_error=self.last_error,
        )

    def slow_down(self, now: float, started: float, retry_after_seconds: float | None) -> None:
        """Multiplicative decrease, once for all requests that were in flight together; then wait as told."""
        if started >= self._decreased_at:
            self._decreased_at = now
            self._limited_in_a_row += 1
            self.window = max(1.0, self.window * _DECREASE)
            observed = max(self._this_second, self._last_second, 1)
            rate = min(self.rate, observed) if self.rate is not None else observed
            self.rate = max(_RATE_MIN, rate * _DECREASE)
            self._rest(now, self._limited_in_a_row)
        pause = min(_PAUSE_SECONDS * 2.0 ** min(self._limited_in_a_row - 1, 10), _PAUSE_SECONDS_MAX)
        self._next_slot = max(self._next_slot, now + (pause if retry_after_seconds is None else retry_after_seconds))

    # --- inside ---

    def _rest(self, now: float, in_a_row: int) -> None:
        over = in_a_row - self._options.rest_after_failures
        if over >= 0:
            rest = self._options.rest_seconds * 2.0 ** min(over, 30)
            self._rest_until = now + min(rest, self._options.rest_max_seconds)

    def _note(self, now: float, seconds: float, quick: bool, size_bytes: int) -> None:
        if quick:
            self.quick.note(seconds)
            return
        if not self.quick.known:
            self.quick.note(seconds)
        per_mebibyte = seconds * MEBIBYTE / max(size_bytes, MEBIBYTE // 16)
        if now - self._bulk_at >= _BULK_MEMORY_SECONDS:
            self.bulk_seconds_per_mebibyte = per_mebibyte
        self.bulk_seconds_per_mebibyte += _WEIGHT * (per_mebibyte - self.bulk_seconds_per_mebibyte)
        self._bulk_at = now


@dataclass(frozen=True, slots=True)
class Need:
    """What a request needs from an endpoint."""

    first: int | None = None
    """The lowest position it asks for."""
    last: int | None = None
    """The highest one."""
    quick: bool = False
    avoid: frozenset[str] = frozenset()


def rank(standings: Iterable[Standing], now: float, need: Need) -> list[Standing]:
    """The endpoints that may be asked, best first.

    Those to avoid are left out. Liars and resting ones come last, not never: where nothing better answers, a later
    try may. The one that is rested soonest comes first among those."""

    def key(standing: Standing) -> tuple[bool, bool, float, bool, float, int]:
        behind = need.last is not None and standing.head is not None and standing.head < need.last
        pruned = need.first is not None and need.first < standing.oldest(now)
        return (
            standing.distrusted(now),
            standing.resting(now),
            standing.rest_left(now),
            behind or pruned,
            standing.cost(now, quick=need.quick),
            standing.order,
        )

    return sorted((s for s in standings if s.label not in need.avoid), key=key)

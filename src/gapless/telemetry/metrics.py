"""Prometheus metrics: one registry an instance, every series there from the first scrape.

Rules, which a test enforces: prefix `gapless_`, base units (seconds, bytes), counters end in `_total`, durations and
depths are histograms, label values come from sets known beforehand (sources, modes, stages, kinds), never from data.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import Metric

from gapless.errors import GaplessError, StoreError
from gapless.model import Mode
from gapless.telemetry.watch import STAGES, SourceState, Statistics, Watch

ERROR_KINDS = ("bad_answer", "http", "rate_limited", "refused", "timeout")
"""As counted by sources (`SourceStatistics.errors`)."""
QUEUES = ("segments",)
OTHER = "other"
"""Label value for a kind that was not known beforehand: nothing is lost, and labels stay bounded."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def failure_kinds() -> tuple[str, ...]:
    """Names of the errors after which the engine tries again."""

    def below(kind: type[GaplessError]) -> Iterator[type[GaplessError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    return tuple(sorted({kind.__name__ for kind in below(GaplessError) if kind.retryable}))


class Registry(CollectorRegistry):
    """Without the `_created` series, which double the scrape and are read by nobody."""

    def collect(self) -> Iterable[Metric]:
        for family in super().collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


class Metrics:
    """Hears what the engine says (see `gapless.engine.observer.Observer`) and counts it.

    `contradictions` are the kinds of lie the sources can name; `watch` gives ages and lags at the time of a scrape."""

    def __init__(
        self, app: str, version: str, sources: Mapping[str, str], watch: Watch, contradictions: Iterable[str] = ()
    ) -> None:
        self.registry = Registry()
        self._sources = tuple(sources)
        self._contradictions = (*sorted(contradictions), OTHER)
        self._failures = (*failure_kinds(), OTHER)
        self._stores = {k for k in self._failures if _is_store_error(k)}
        self._seen: dict[tuple[str, str, str], int] = {}
        ProcessCollector(registry=self.registry)
        self._tables(app, version, sources)
        self._progress()
        self._work()
        self._trouble()
        self._computed(watch)

    # --- definitions ------------------------------------------------------------------------------------------------

    def _gauge(self, name: str, help_: str, **labels: Iterable[str]) -> Gauge:
        made = Gauge(f"gapless_{name}", help_, ("source", *labels), registry=self.registry)
        self._fill(made, labels)
        return made

    def _counter(self, name: str, help_: str, **labels: Iterable[str]) -> Counter:
        made = Counter(f"gapless_{name}", help_, ("source", *labels), registry=self.registry)
        self._fill(made, labels)
        return made

    def _histogram(self, name: str, help_: str, buckets: Iterable[float]) -> Histogram:
        made = Histogram(f"gapless_{name}", help_, ("source",), buckets=tuple(buckets), registry=self.registry)
        self._fill(made, {})
        return made

    def _fill(self, metric: Gauge | Counter | Histogram, labels: Mapping[str, Iterable[str]]) -> None:
        """Make every series there, so that the first scrape shows zeros and not nothing."""
        rows: list[tuple[str, ...]] = [(source,) for source in self._sources]
        for values in labels.values():
            rows = [(*row, value) for row in rows for value in values]
        for row in rows:
            metric.labels(*row)

    def _tables(self, app: str, version: str, sources: Mapping[str, str]) -> None:
        build = Gauge(
            "gapless_build_info", "What runs; always 1.", ("app", "version", "python"), registry=self.registry
        )
        build.labels(app, version, platform.python_version()).set(1)
        kinds = Gauge("gapless_source_info", "The sources; always 1.", ("source", "kind"), registry=self.registry)
        for source, kind in sources.items():
            kinds.labels(source, kind).set(1)

    def _progress(self) -> None:
        self._head = self._gauge("source_head_position", "Newest position the source has.")
        self._finalized = self._gauge("source_finalized_position", "Position at or below which nothing changes.")
        self._target = self._gauge("target_position", "Position the indexer works towards now.")
        self._position = self._gauge("store_position", "Last committed position.")
        self._mode = self._gauge("mode", "1 for the mode the source is in, else 0.", mode=[m.value for m in Mode])
        self._held = self._gauge("lease_held", "1 while this process leads the source.")
        self._token = self._gauge("lease_token", "Fencing token this process was granted last.")
        self._lease_changes = self._counter("lease_transitions_total", "Times this process began or ceased to lead.")

    def _work(self) -> None:
        self._entries = self._counter("entries_total", "Entries committed, those of replaced branches included.")
        self._rows = self._counter("rows_total", "Fact rows committed.")
        self._commits = self._counter("commits_total", "Transactions by outcome.", outcome=("committed", "failed"))
        self._commit_seconds = self._histogram("commit_duration_seconds", "Duration of a commit.", _SECONDS)
        self._derive_seconds = self._histogram("derive_duration_seconds", "Duration of deriving a segment.", _SECONDS)
        self._fetch_seconds = self._histogram("fetch_duration_seconds", "Duration of fetching a segment.", _SECONDS)
        self._fetched_bytes = self._counter("fetched_bytes_total", "Bytes of the segments fetched.")
        self._queue_depth = self._gauge("queue_depth", "Items in a queue.", queue=QUEUES)
        self._queue_limit = self._gauge("queue_limit", "Items a queue may hold.", queue=QUEUES)
        self._requests = self._counter("source_requests_total", "Requests sent to endpoints.")
        self._received = self._counter("source_received_bytes_total", "Bytes received from endpoints.")
        self._retries = self._counter("source_retries_total", "Requests repeated.")
        self._audits = self._counter("source_audits_total", "Ranges compared with a second endpoint.")

    def _trouble(self) -> None:
        self._errors = self._counter("source_errors_total", "Failed requests by kind.", kind=(*ERROR_KINDS, OTHER))
        self._lies = self._counter(
            "contradictions_total", "Answers refused because they contradict themselves.", kind=self._contradictions
        )
        self._failed = self._counter("failures_total", "Failures after which it tried again.", kind=self._failures)
        self._reorgs = self._counter("reorgs_total", "Forks undone.")
        self._reorg_depth = self._histogram("reorg_depth_positions", "Entries a fork replaced.", _DEPTHS)
        self._gaps = self._gauge("gaps", "Ranges known to be missing or damaged.")
        self._quarantined = self._counter("quarantined_total", "Items put into quarantine.")

    def _computed(self, watch: Watch) -> None:
        age = self._gauge("progress_age_seconds", "Time since a stage last got on.", stage=STAGES)
        head_age = self._gauge("source_head_age_seconds", "Time since the head was last asked for with success.")
        lag_positions = self._gauge("lag_positions", "Positions between the last commit and the head.")
        lag_seconds = self._gauge("lag_seconds", "The same in the chain's own time.")
        for source, state in watch.states.items():
            for stage in STAGES:
                age.labels(source, stage).set_function(_age(watch, source, stage))
            head_age.labels(source).set_function(_age(watch, source, "head"))
            lag_positions.labels(source).set_function(_lag_positions(state))
            lag_seconds.labels(source).set_function(_lag_seconds(state))

    def loop_lag(self, lag_seconds: Callable[[], float]) -> None:
        """Show how late the event loop is, as read by this function."""
        made = Gauge("gapless_loop_lag_seconds", "How late the event loop's last tick was.", registry=self.registry)
        made.set_function(lag_seconds)

    # --- what the engine says ---------------------------------------------------------------------------------------

    def mode(self, source: str, mode: Mode, reason: str | None) -> None:  # noqa: ARG002 - reasons are not labels
        for each in Mode:
            self._mode.labels(source, each.value).set(1 if each is mode else 0)

    def head(self, source: str, latest: int, finalized: int, time_us: int) -> None:  # noqa: ARG002 - kept by the watch
        self._head.labels(source).set(latest)
        self._finalized.labels(source).set(finalized)

    def target(self, source: str, start: int, target: int) -> None:  # noqa: ARG002 - kept by the watch
        self._target.labels(source).set(target)

    def position(self, source: str, position: int, time_us: int) -> None:  # noqa: ARG002 - kept by the watch
        self._position.labels(source).set(position)

    def committed(self, source: str, entries: int, rows: int, seconds: float) -> None:
        self._commits.labels(source, "committed").inc()
        self._commit_seconds.labels(source).observe(seconds)
        self._entries.labels(source).inc(entries)
        self._rows.labels(source).inc(rows)

    def derived(self, source: str, seconds: float) -> None:
        self._derive_seconds.labels(source).observe(seconds)

    def fetched(self, source: str, entries: int, size_bytes: int, seconds: float) -> None:  # noqa: ARG002 - see committed
        self._fetch_seconds.labels(source).observe(seconds)
        self._fetched_bytes.labels(source).inc(size_bytes)

    def reorg(self, source: str, depth: int) -> None:
        self._reorgs.labels(source).inc()
        self._reorg_depth.labels(source).observe(depth)

    def lease(self, source: str, held: bool, token: int) -> None:
        gauge = self._held.labels(source)
        if self._seen.get((source, "lease", ""), 0) != int(held):
            self._lease_changes.labels(source).inc()
        self._seen[source, "lease", ""] = int(held)
        gauge.set(1 if held else 0)
        if held:
            self._token.labels(source).set(token)

    def queue(self, source: str, queue: str, depth: int, limit: int) -> None:
        name = queue if queue in QUEUES else OTHER
        self._queue_depth.labels(source, name).set(depth)
        self._queue_limit.labels(source, name).set(limit)

    def quarantined(self, source: str, items: int) -> None:
        self._quarantined.labels(source).inc(items)

    def gaps(self, source: str, gaps: int) -> None:
        self._gaps.labels(source).set(gaps)

    def failed(self, source: str, stage: str, kind: str) -> None:  # noqa: ARG002 - there is one stage that retries
        self._failed.labels(source, kind if kind in self._failures else OTHER).inc()
        if kind in self._stores:
            self._commits.labels(source, "failed").inc()

    def source_statistics(self, source: str, statistics: Statistics) -> None:
        """Counters since the source was opened; only what was added since the last call is counted."""
        self._grow(self._requests.labels(source), (source, "requests", ""), statistics.requests)
        self._grow(self._received.labels(source), (source, "received", ""), statistics.bytes_received)
        self._grow(self._retries.labels(source), (source, "retries", ""), statistics.retries)
        self._grow(self._audits.labels(source), (source, "audits", ""), statistics.audits)
        for kind, count in statistics.errors.items():
            name = kind if kind in ERROR_KINDS else OTHER
            self._grow(self._errors.labels(source, name), (source, "errors", kind), count)
        for kind, count in statistics.contradictions.items():
            name = kind if kind in self._contradictions else OTHER
            self._grow(self._lies.labels(source, name), (source, "lies", kind), count)

    def _grow(self, counter: Counter, key: tuple[str, str, str], count: int) -> None:
        counter.inc(max(0, count - self._seen.get(key, 0)))
        self._seen[key] = count


def _age(watch: Watch, source: str, stage: str) -> Callable[[], float]:
    return lambda: watch.age_seconds(source, stage)


def _lag_positions(state: SourceState) -> Callable[[], float]:
    return lambda: float(state.lag_positions or 0)


def _lag_seconds(state: SourceState) -> Callable[[], float]:
    return lambda: state.lag_seconds or 0.0


def _is_store_error(name: str) -> bool:
    import gapless.errors

    kind = getattr(gapless.errors, name, None)
    return isinstance(kind, type) and issubclass(kind, StoreError)

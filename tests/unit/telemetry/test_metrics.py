"""Metrics: names, units, bounded labels, and every series there from the first scrape."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest
from prometheus_client import Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gapless.engine.observer import Observer
from gapless.model import Mode
from gapless.sources import SourceStatistics
from gapless.sources.evm.lies import LIES
from gapless.telemetry.metrics import ERROR_KINDS, OTHER, Metrics, Registry
from gapless.telemetry.watch import Watch
from gapless.testing.fake_clock import FakeClock

FORBIDDEN_UNITS = ("_ms", "_milliseconds", "_minutes", "_kb", "_mb", "_megabytes", "_percent")
LABELS = {"source", "kind", "mode", "stage", "queue", "outcome", "app", "version", "python", "le"}


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.watch = Watch(["mainnet"], self.clock)
        self.metrics = Metrics("erc20", "0.1.0", {"mainnet": "evm"}, self.watch, LIES)
        self.metrics.loop_lag(lambda: 0.25)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"source": "mainnet", **labels})

    def series(self) -> set[str]:
        return set(re.findall(r"^(gapless_[^ ]+) ", generate_latest(self.metrics.registry).decode(), re.MULTILINE))


def violations(registry: Registry) -> Iterator[str]:
    """The naming rules, applied to a scrape."""
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        name = family.name
        if name.startswith("process_"):
            continue
        if not name.startswith("gapless_"):
            yield f"{name}: prefix"
        if not family.documentation.endswith("."):
            yield f"{name}: HELP"
        if any(name.endswith(unit) or f"{unit}_" in name for unit in FORBIDDEN_UNITS):
            yield f"{name}: base units"
        for sample in family.samples:
            if (family.type == "counter") != sample.name.endswith("_total"):
                yield f"{sample.name}: _total is for counters"
            if sample.name.endswith("_created"):
                yield f"{sample.name}: noise"
            if not set(sample.labels) <= LABELS:
                yield f"{sample.name}: labels {set(sample.labels) - LABELS}"
        if family.type == "histogram" and not name.endswith(("_seconds", "_bytes", "_positions")):
            yield f"{name}: a histogram has a unit"


def test_naming_rules() -> None:
    """Every metric keeps the rules."""
    assert list(violations(Bench().metrics.registry)) == []


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda r: Gauge("other_x", "Help.", registry=r), "prefix"),
        (lambda r: Gauge("gapless_wait_ms", "Help.", registry=r), "base units"),
        (lambda r: Gauge("gapless_x", "", registry=r), "HELP"),
        (lambda r: Gauge("gapless_x", "Help.", ["block"], registry=r).labels("7"), "labels"),
        (lambda r: Counter("gapless_x", "Help.", ["position"], registry=r).labels("7"), "labels"),
    ],
)
def test_the_rules_bite(make: object, rule: str) -> None:
    """A metric that breaks a rule is found."""
    registry = Registry()
    make(registry)  # type: ignore[operator]
    assert any(rule in violation for violation in violations(registry))


def test_series_are_there_from_the_first_scrape() -> None:
    """Whatever happens later adds to series that were there before: alerts never meet an absent one."""
    bench = Bench()
    before = bench.series()
    assert 'gapless_contradictions_total{kind="empty_for_bloom",source="mainnet"}' in before
    metrics = bench.metrics
    for mode in Mode:
        metrics.mode("mainnet", mode, "a reason that is not a label")
    metrics.head("mainnet", 10, 5, 1)
    metrics.target("mainnet", 0, 10)
    metrics.position("mainnet", 3, 1)
    metrics.committed("mainnet", 5, 50, 0.01)
    metrics.derived("mainnet", 0.01)
    metrics.fetched("mainnet", 5, 1000, 0.01)
    metrics.reorg("mainnet", 3)
    metrics.lease("mainnet", True, 7)
    metrics.queue("mainnet", "segments", 1, 4)
    metrics.quarantined("mainnet", 2)
    metrics.gaps("mainnet", 1)
    metrics.failed("mainnet", "follow", "StoreUnavailable")
    metrics.failed("mainnet", "follow", "SomethingNew")
    metrics.source_statistics(
        "mainnet",
        SourceStatistics(
            errors=dict.fromkeys([*ERROR_KINDS, "new"], 1), contradictions=dict.fromkeys([*LIES, "new_lie"], 1)
        ),
    )
    assert bench.series() == before


def test_values() -> None:
    """What the engine says is what a scrape shows."""
    bench = Bench()
    bench.metrics.committed("mainnet", 5, 50, 0.01)
    bench.metrics.committed("mainnet", 5, 50, 0.01)
    bench.metrics.failed("mainnet", "follow", "StoreUnavailable")
    bench.metrics.failed("mainnet", "follow", "TimedOut")
    bench.metrics.mode("mainnet", Mode.LIVE, None)
    bench.metrics.lease("mainnet", True, 7)
    bench.metrics.lease("mainnet", True, 7)
    bench.metrics.lease("mainnet", False, 0)
    assert bench.value("gapless_entries_total") == 10
    assert bench.value("gapless_rows_total") == 100
    assert bench.value("gapless_commits_total", outcome="committed") == 2
    assert bench.value("gapless_commits_total", outcome="failed") == 1
    assert bench.value("gapless_commit_duration_seconds_count") == 2
    assert bench.value("gapless_failures_total", kind="TimedOut") == 1
    assert bench.value("gapless_mode", mode="live") == 1
    assert bench.value("gapless_mode", mode="starting") == 0
    assert bench.value("gapless_lease_held") == 0
    assert bench.value("gapless_lease_token") == 7
    assert bench.value("gapless_lease_transitions_total") == 2


def test_statistics_are_counted_once() -> None:
    """Sources report totals; only the growth is added, and unknown kinds are kept as other."""
    bench = Bench()
    statistics = SourceStatistics(requests=10, bytes_received=100, errors={"timeout": 2}, contradictions={"x": 1})
    bench.metrics.source_statistics("mainnet", statistics)
    bench.metrics.source_statistics("mainnet", statistics)
    bench.metrics.source_statistics("mainnet", SourceStatistics(requests=15, errors={"timeout": 3}))
    assert bench.value("gapless_source_requests_total") == 15
    assert bench.value("gapless_source_received_bytes_total") == 100
    assert bench.value("gapless_source_errors_total", kind="timeout") == 3
    assert bench.value("gapless_contradictions_total", kind=OTHER) == 1


def test_ages_and_lags_move_by_themselves() -> None:
    """Ages are computed at the scrape, so a stuck process shows; the lag is in the chain's own time."""
    bench = Bench()
    bench.watch.head("mainnet", 110, 50, 60_000_000)
    bench.watch.position("mainnet", 100, 30_000_000)
    bench.clock.advance(7)
    assert bench.value("gapless_progress_age_seconds", stage="commit") == 7
    assert bench.value("gapless_source_head_age_seconds") == 7
    assert bench.value("gapless_lag_positions") == 10
    assert bench.value("gapless_lag_seconds") == 30
    bench.watch.position("mainnet", 110, 60_000_000)
    bench.clock.advance(1000)
    assert bench.value("gapless_lag_seconds") == 0, "a chain that stands still is not a lag of ours"
    assert bench.metrics.registry.get_sample_value("gapless_loop_lag_seconds") == 0.25


@pytest.mark.parametrize("hearer", [Metrics, Watch])
def test_hears_everything(hearer: type) -> None:
    """Metrics and watch understand everything the engine says, parameter by parameter."""
    for name, method in inspect.getmembers(Observer, inspect.isfunction):
        heard = inspect.signature(getattr(hearer, name))
        assert list(heard.parameters) == list(inspect.signature(method).parameters), name

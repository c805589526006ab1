"""Which part is named as the limit follows from the figures alone."""

from __future__ import annotations

import pytest

from gapless.bench.figures import RangeRate, RoundTrip, Stage, Writing
from gapless.bench.limit import limit_of

NEAR = RoundTrip(10, 0.001, 0.002)
FAR = RoundTrip(10, 0.050, 0.060)


def rate(
    blocks_per_second: float, node_seconds: float = 0.001, network_seconds: float = 0.001, **more: int
) -> RangeRate:
    ranges = round(blocks_per_second / 10)
    return RangeRate(
        10,
        ranges,
        ranges,
        1.0,
        0,
        0,
        node_seconds,
        network_seconds,
        more.get("limited", 0),
        more.get("limited", 0),
        None,
    )


def stage(blocks_per_second: float) -> Stage:
    return Stage(round(blocks_per_second), 0, 1.0)


def writing(blocks_per_second: float, commit_seconds: float = 0.1, single_seconds: float = 0.01) -> Writing:
    return Writing(stage(blocks_per_second), commit_seconds, single_seconds)


@pytest.mark.parametrize(
    ("ranges", "trip", "decode", "database", "name", "advice"),
    [
        ([rate(100, node_seconds=0.5)], NEAR, 1000, writing(900), "node", "faster node"),
        ([rate(100, network_seconds=0.055)], FAR, 1000, writing(900), "network", "nearer to it"),
        ([rate(100, network_seconds=0.9)], NEAR, 1000, writing(900), "network", "arrive slowly"),
        ([rate(100, limited=100)], FAR, 1000, writing(900), "node", "refuses requests for their number"),
        ([rate(50), rate(5000)], NEAR, 1000, writing(2000), "decode", "One core"),
        ([rate(5000)], NEAR, 1000, writing(200), "database", "Writing rows"),
        ([rate(5000)], NEAR, 1000, writing(200, 0.1, 0.09), "database", "local disk"),
    ],
)
def test_the_slowest_part_is_named(
    ranges: list[RangeRate], trip: RoundTrip, decode: float, database: Writing, name: str, advice: str
) -> None:
    """The stage with the fewest blocks a second is the limit; of an endpoint, what its requests wait for; and the
    suggestion is about that."""
    found = limit_of(ranges, trip, stage(decode), database)
    assert found.name == name
    assert advice in found.suggestion
    assert found.reason


def test_an_endpoint_that_answers_nothing_is_the_limit() -> None:
    """No range within the time: the rate is nothing, and nothing is divided by it."""
    silent = RangeRate(1, 0, 0, 10.0, 0, 0, 0.0, 0.0, 8, 0, "no answer within 10.0 s")
    assert limit_of([silent], NEAR, stage(1000), writing(900)).name == "node"

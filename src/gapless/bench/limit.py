"""Which part limits, decided from the figures alone."""

from __future__ import annotations

from collections.abc import Sequence

from gapless.bench.figures import Limit, RangeRate, RoundTrip, Stage, Writing

_LIMITED_SHARE = 0.05
"""Of requests refused for their number, above which that is what limits."""
_COMMIT_SHARE = 0.5
"""Of a large commit's time that one of a single block takes too, above which it is not the rows that are slow."""

_TODO = {
    "rate": (
        "The endpoint refuses requests for their number: raise the plan's limit, add a second endpoint to `rpc`, or "
        "run a node of your own."
    ),
    "node": (
        "Most of the time goes by before the node begins to answer: use a faster node, name fewer contracts or events, "
        "or add a second endpoint to `rpc`."
    ),
    "far": "The way to the endpoint takes most of the time: run Gapless nearer to it, or raise `concurrency`.",
    "thin": "The answers arrive slowly: a faster line, or a node in the same network, would help.",
    "decode": (
        "One core decodes and checks: a faster core helps, and so do fewer events or datasets. `verify` below "
        "`checked` costs less and sees less."
    ),
    "commits": (
        "A commit takes long whatever is in it: use a local disk with a fast sync, or a database server nearer to this "
        "machine. While catching up commits are large, so this shows most at the head."
    ),
    "rows": "Writing rows takes most of the time: a faster disk, more memory for the database, or fewer tables help.",
}


def limit_of(ranges: Sequence[RangeRate], round_trip: RoundTrip, decode: Stage, database: Writing) -> Limit:
    """The slowest of endpoint, decoding and database by blocks a second; of the endpoint, whether node or network."""
    best = max(ranges, key=lambda rate: rate.blocks_per_second)
    rates = {
        "endpoint": best.blocks_per_second,
        "decode": decode.blocks_per_second,
        "database": database.rate.blocks_per_second,
    }
    slowest = min(rates, key=lambda name: rates[name])
    others = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items() if name != slowest)
    compared = f"{rates[slowest]:,.0f} blocks/s, against {others}"
    if slowest == "decode":
        return Limit("decode", f"decoding and checking: {compared}", _TODO["decode"])
    if slowest == "database":
        slow_commits = database.single_seconds > _COMMIT_SHARE * database.commit_seconds
        reason = f"writing: {compared}; a commit of one block takes {database.single_seconds * 1000:.1f} ms"
        return Limit("database", reason, _TODO["commits" if slow_commits else "rows"])
    return _of_endpoint(best, ranges, round_trip, compared)


def _of_endpoint(best: RangeRate, ranges: Sequence[RangeRate], round_trip: RoundTrip, compared: str) -> Limit:
    asked = sum(rate.requests + rate.refused for rate in ranges)
    limited = sum(rate.limited for rate in ranges)
    if asked and limited / asked > _LIMITED_SHARE:
        return Limit("node", f"{limited} of {asked} requests were refused for their number; {compared}", _TODO["rate"])
    node, network = best.node_seconds * 1000, best.network_seconds * 1000
    split = f"a request waits {node:.1f} ms for the node and {network:.1f} ms for the network; {compared}"
    if best.node_seconds >= best.network_seconds:
        return Limit("node", split, _TODO["node"])
    far = round_trip.median_seconds >= best.network_seconds / 2
    return Limit("network", split, _TODO["far" if far else "thin"])

"""The pool: order, failover, hedging, pace, rest and distrust."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from gapless.errors import (
    BadAnswer,
    Contradiction,
    HistoryPruned,
    MethodMissing,
    NotYetAvailable,
    RateLimited,
    RequestRefused,
    SourceError,
    SourceUnavailable,
    TimedOut,
    WrongChain,
)
from gapless.sources.evm.endpoints import Endpoint, Pool, backoff_seconds, distinct, verdict
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.rpc import TEXT, Call
from gapless.sources.evm.standing import Need, Standing, rank
from gapless.sources.evm.transport import Answer
from gapless.testing.fake_clock import FakeClock

ASK = Call("eth_chainId")


class Node:
    """A transport in virtual time: a delay, then an answer or an error, by script or for ever."""

    def __init__(self, clock: FakeClock, label: str = "a", delay_seconds: float = 0.01, value: str = "0x1") -> None:
        self.clock = clock
        self.label = label
        self.delay_seconds = delay_seconds
        self.value = value
        self.script: list[SourceError | Answer] = []
        self.always: SourceError | None = None
        self.sent_at: list[float] = []
        self.in_flight = 0
        self.in_flight_most = 0
        self.cancelled = 0
        self.limit_per_second: float | None = None

    async def post(self, body: bytes, timeout_seconds: float) -> Answer:
        now = self.clock.monotonic()
        self.sent_at.append(now)
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight_most, self.in_flight)
        try:
            if self.delay_seconds >= timeout_seconds:
                await self.clock.sleep(timeout_seconds)
                raise TimedOut(f"{self.label} did not answer within {timeout_seconds:g} s")
            await self.clock.sleep(self.delay_seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        return self._answer(body, now)

    def _answer(self, body: bytes, now: float) -> Answer:
        lately = sum(now - 1.0 < t <= now for t in self.sent_at)
        if self.limit_per_second is not None and lately > self.limit_per_second:
            return Answer(429, {}, b"")
        event = self.script.pop(0) if self.script else self.always
        if isinstance(event, Answer):
            return event
        if event is not None:
            raise event
        request = msgspec.json.decode(body)
        return Answer(200, {}, msgspec.json.encode({"jsonrpc": "2.0", "id": request["id"], "result": self.value}))

    async def close(self) -> None:
        pass


def pool(clock: FakeClock, *nodes: Node, **options: Any) -> Pool:
    return Pool(nodes, EvmOptions(**options), clock)


def work(clock: FakeClock, seconds: float = 60.0) -> Callable[[Endpoint], Awaitable[str]]:
    deadline = clock.monotonic() + seconds

    async def ask(endpoint: Endpoint) -> str:
        return (await endpoint.call(ASK, TEXT, deadline=deadline, quick=True)).value

    return ask


def first(clock: FakeClock, of: Pool, rounds: int = 3, avoid: frozenset[str] = frozenset()) -> tuple[str, str]:
    async def main() -> tuple[str, str]:
        need = Need(quick=True, avoid=avoid)
        value, endpoint = await of.first(work(clock), need, deadline=clock.monotonic() + 60, rounds=rounds)
        return value, endpoint.label

    return clock.run(main())


# --- the order ------------------------------------------------------------------------------------------------------


def standing(label: str, order: int = 0, latency: float = 0.1) -> Standing:
    made = Standing(label, order, EvmOptions())
    made.started(0.0)
    made.succeeded(latency, 0.0, quick=True, size_bytes=100)
    return made


def order(*standings: Standing, now: float = 1.0, **need: Any) -> list[str]:
    return [s.label for s in rank(standings, now, Need(**need))]


def test_the_quicker_endpoint_comes_first() -> None:
    """By latency, and by their place in the configuration while nothing is known."""
    assert order(standing("slow", 0, 0.5), standing("quick", 1, 0.05)) == ["quick", "slow"]
    assert order(Standing("x", 0, EvmOptions()), Standing("y", 1, EvmOptions())) == ["x", "y"]


def test_an_endpoint_behind_the_position_comes_later() -> None:
    """A lagging replica is not asked for what it does not have while another has it."""
    lagging, current = standing("lagging", 0, 0.01), standing("current", 1, 0.5)
    lagging.head, current.head = 90, 100
    assert order(lagging, current, last=95) == ["current", "lagging"]
    assert order(lagging, current, last=85) == ["lagging", "current"]


def test_an_endpoint_without_old_blocks_is_passed_over_for_them() -> None:
    """A pruned node serves the recent ones, and is tried for the old ones again much later."""
    pruned, archive = standing("pruned", 0, 0.01), standing("archive", 1, 0.5)
    pruned.lacks(1.0, 500)
    assert order(pruned, archive, first=400, last=600) == ["archive", "pruned"]
    assert order(pruned, archive, first=501, last=600) == ["pruned", "archive"]
    assert order(pruned, archive, now=1000.0, first=400, last=600) == ["pruned", "archive"]


def test_a_liar_comes_last_and_one_to_avoid_not_at_all() -> None:
    """Distrust is an order, avoidance a rule."""
    liar, honest = standing("liar", 0, 0.01), standing("honest", 1, 0.5)
    liar.lied(0.0, "what it said")
    assert order(liar, honest) == ["honest", "liar"]
    assert order(liar, honest, avoid=frozenset({"honest"})) == ["liar"]
    assert order(liar, honest, now=1000.0) == ["liar", "honest"]


def test_a_failing_endpoint_rests_longer_each_time_and_is_probed_again() -> None:
    """Three failures in a row, then 1, 2, 4 … seconds; one success ends it."""
    made = standing("a")
    rests = []
    now = 1.0
    for _ in range(12):
        made.started(now)
        made.failed(now, now, SourceUnavailable("down"))
        rests.append(round(made.rest_left(now), 6))
        now += rests[-1] + 0.1
    assert rests == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    made.started(now)
    made.succeeded(now, now, quick=True, size_bytes=1)
    assert not made.resting(now)


def test_refusals_do_not_make_an_endpoint_unhealthy() -> None:
    """To refuse a range is normal work."""
    made = standing("a")
    for _ in range(10):
        made.started(1.0)
        made.failed(1.0, 1.0, RequestRefused("range"))
    assert not made.resting(1.0)
    assert made.errors == 10


def test_a_busy_endpoint_leaves_room_for_the_other() -> None:
    """Requests in flight count, so that parallel ranges spread."""
    busy, idle = standing("busy", 0, 0.10), standing("idle", 1, 0.12)
    for _ in range(6):
        busy.started(1.0)
    assert order(busy, idle) == ["idle", "busy"]


def test_eight_complaints_about_one_burst_halve_the_window_once() -> None:
    """All of it was sent before the first complaint came."""
    made = standing("a")
    for _ in range(8):
        made.started(1.0)
    for _ in range(8):
        made.failed(1.1, 1.0, RateLimited("slow down"))
    assert made.window == 4.0
    assert made.rate == 4.0


# --- asking ---------------------------------------------------------------------------------------------------------


def test_the_next_endpoint_answers_when_the_first_fails() -> None:
    """Failover is immediate, and the failure is on the first one's sheet."""
    clock = FakeClock()
    down, up = Node(clock, "down"), Node(clock, "up", value="0x2")
    down.always = SourceUnavailable("down is down")
    of = pool(clock, down, up)
    assert first(clock, of) == ("0x2", "up")
    report = of.reports()[0]
    assert (report.errors, report.last_error) == (2, "down is down")
    assert of.tally.errors == {"http": 2}


def test_a_slow_answer_is_hedged_and_the_loser_cancelled() -> None:
    """The second endpoint is asked once the first is unusually slow; the good answer wins, the other is dropped."""
    clock = FakeClock()
    stalled, quick = Node(clock, "stalled", 0.02), Node(clock, "quick", 0.03, "0x2")
    of = pool(clock, stalled, quick)
    assert [first(clock, of)[1] for _ in range(10)] == ["stalled", "quick", *["stalled"] * 8]
    stalled.delay_seconds = 1000.0
    began = clock.monotonic()
    assert first(clock, of) == ("0x2", "quick")
    assert clock.monotonic() - began < 0.2
    assert stalled.cancelled == 1
    assert first(clock, of)[1] == "quick", "the stalled one is not preferred any more"


def test_a_quick_answer_is_not_hedged() -> None:
    """Asking two endpoints costs twice: only slowness is worth it."""
    clock = FakeClock()
    one, two = Node(clock, "one"), Node(clock, "two")
    of = pool(clock, one, two)
    for _ in range(10):
        first(clock, of)
    assert len(two.sent_at) <= 1, "an endpoint never asked is tried, once"


def test_a_liar_is_not_asked_as_a_hedge() -> None:
    """A slow answer is better than a liar's."""
    clock = FakeClock()
    slow, liar = Node(clock, "slow", 3.0), Node(clock, "liar", 0.01)
    of = pool(clock, slow, liar)
    of.contradicted(of.endpoints[1], Contradiction("lied", kind="unlinked"), lie=True)
    assert first(clock, of)[1] == "slow"
    assert liar.sent_at == []


def test_a_single_endpoint_is_asked_again_after_a_pause() -> None:
    """Bounded retries with backoff, then the verdict with its cause and what to do."""
    clock = FakeClock()
    node = Node(clock)
    node.script = [TimedOut("late"), TimedOut("late")]
    assert first(clock, pool(clock, node))[1] == "a"
    node.always = TimedOut("a did not answer")
    asked = len(node.sent_at)
    with pytest.raises(SourceUnavailable, match="a did not answer") as caught:
        first(clock, pool(clock, node), rounds=3)
    assert len(node.sent_at) == asked + 3
    assert isinstance(caught.value.__cause__, TimedOut)
    assert caught.value.todo


def test_what_another_endpoint_cannot_mend_is_raised_at_once() -> None:
    """A wrong chain stops everything; it is not a matter of asking elsewhere."""
    clock = FakeClock()
    wrong, right = Node(clock, "wrong"), Node(clock, "right")
    wrong.always = WrongChain("another chain")
    with pytest.raises(WrongChain):
        first(clock, pool(clock, wrong, right))
    assert right.sent_at == []


def test_avoided_endpoints_are_never_asked() -> None:
    """Not even when nobody else is there."""
    clock = FakeClock()
    node = Node(clock)
    with pytest.raises(SourceUnavailable, match="no endpoint may be asked"):
        first(clock, pool(clock, node), avoid=frozenset({"a"}))
    assert node.sent_at == []


def test_a_broken_connection_is_tried_once_more_at_once() -> None:
    """A kept-alive connection that the server closed is not a failure of the endpoint."""
    clock = FakeClock()
    node = Node(clock)
    node.script = [SourceUnavailable("connection reset")]
    of = pool(clock, node)
    assert first(clock, of, rounds=1)[1] == "a"
    assert of.tally.retries == 1


def test_retry_after_is_honoured() -> None:
    """No request is sent before the time the endpoint asked for."""
    clock = FakeClock()
    node = Node(clock)
    node.script = [Answer(429, {"retry-after": "7"}, b"")]
    assert first(clock, pool(clock, node))[1] == "a"
    assert node.sent_at[1] - node.sent_at[0] >= 7.0


def test_another_endpoint_is_asked_rather_than_waiting_long() -> None:
    """Patience with one endpoint depends on whether there is another."""
    clock = FakeClock()
    limited, free = Node(clock, "limited"), Node(clock, "free")
    limited.script = [Answer(429, {"retry-after": "30"}, b"")]
    of = pool(clock, limited, free)
    assert first(clock, of)[1] == "free"
    assert clock.monotonic() < 1.0
    assert first(clock, of)[1] == "free", "it is left alone for as long as it asked"


def test_a_retry_after_beyond_the_deadline_is_an_error_now() -> None:
    """Nobody sleeps for an hour because a header says so."""
    clock = FakeClock()
    node = Node(clock)
    node.always = None
    node.script = [Answer(429, {"retry-after": "3600"}, b"")] * 9
    with pytest.raises(SourceUnavailable):
        first(clock, pool(clock, node))
    assert clock.monotonic() < 60.0
    assert len(node.sent_at) == 1


def test_the_pace_settles_under_a_limit_of_requests_per_second() -> None:
    """Complaints lower the rate, success raises it: most of the allowance is used, few requests are wasted."""
    clock = FakeClock()
    node = Node(clock, delay_seconds=0.005)
    node.limit_per_second = 25
    of = pool(clock, node)

    async def worker(until: float) -> None:
        while clock.monotonic() < until:
            await of.endpoints[0].call(ASK, TEXT, deadline=clock.monotonic() + 60)

    async def main() -> None:
        await asyncio.gather(*(worker(120.0) for _ in range(8)))

    clock.run(main())
    settled = [t for t in node.sent_at if t > 20.0]
    refused = of.tally.errors["rate_limited"]
    assert len(settled) / 100 >= 12
    assert refused <= 0.1 * len(node.sent_at)


def test_requests_in_flight_are_bounded_per_endpoint() -> None:
    """A hundred callers, eight requests at a time, all answered."""
    clock = FakeClock()
    node = Node(clock)
    of = pool(clock, node, concurrency_max=8)

    async def main() -> list[Any]:
        calls = [of.endpoints[0].call(ASK, TEXT, deadline=60.0) for _ in range(100)]
        return await asyncio.gather(*calls)

    assert len(clock.run(main())) == 100
    assert node.in_flight_most == 8
    assert of.endpoints[0].standing.in_flight == 0


def test_waiting_for_a_place_survives_cancellation() -> None:
    """A caller that gives up while waiting takes nobody's place."""
    clock = FakeClock()
    node = Node(clock, delay_seconds=1.0)
    of = pool(clock, node, concurrency_max=1)

    async def main() -> Any:
        tasks = [asyncio.create_task(of.endpoints[0].call(ASK, TEXT, deadline=60.0)) for _ in range(5)]
        await clock.sleep(0.5)
        for task in (tasks[0], tasks[2]):
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = clock.run(main())
    assert [isinstance(f, asyncio.CancelledError) for f in found] == [True, False, True, False, False]
    assert of.endpoints[0].standing.in_flight == 0


def test_a_caller_that_gives_up_in_the_queue_passes_its_turn_on() -> None:
    """One request at a time and a pause: those whose patience ends leave, the others still get their place."""
    clock = FakeClock()
    node, other = Node(clock, "node", delay_seconds=0.1), Node(clock, "other")
    of = pool(clock, node, other, concurrency_max=1)
    node.script = [Answer(429, {"retry-after": "3"}, b"")]

    async def main() -> list[Any]:
        calls = [of.endpoints[0].call(ASK, TEXT, deadline=60.0) for _ in range(6)]
        return await asyncio.gather(*calls, return_exceptions=True)

    assert {type(found) for found in clock.run(main())} == {RateLimited}
    assert clock.monotonic() < 1.0, "nobody waited for a turn that never came"
    assert (of.endpoints[0].standing.in_flight, of.endpoints[0].standing.queued) == (0, 0)


def test_a_missing_method_is_asked_for_once() -> None:
    """What a node does not know it will not know in a second."""
    clock = FakeClock()
    node = Node(clock)
    body = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"unknown"}}'
    node.script = [Answer(200, {}, body)]
    of = pool(clock, node)

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(MethodMissing):
                await of.endpoints[0].call(ASK, TEXT, deadline=60.0)

    clock.run(main())
    assert len(node.sent_at) == 1


# --- verdicts and small things --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([Contradiction("x", kind="unlinked"), Contradiction("y", kind="foreign_log")], Contradiction),
        ([Contradiction("x", kind="unlinked"), TimedOut("late")], SourceUnavailable),
        ([NotYetAvailable("x")], NotYetAvailable),
        ([HistoryPruned("x"), HistoryPruned("y")], HistoryPruned),
        ([HistoryPruned("x"), BadAnswer("html")], SourceUnavailable),
        ([], SourceUnavailable),
    ],
)
def test_the_verdict_over_all_endpoints(errors: list[SourceError], kind: type[SourceError]) -> None:
    """One error says what all of them said; where they differ, the source is unavailable."""
    found = verdict("Blocks 5-9", {str(i): e for i, e in enumerate(errors)}, 5)
    assert type(found) is kind
    assert found.position == 5
    for error in errors:
        assert error.what in found.what


def test_backoff_is_bounded_and_spread() -> None:
    """Full jitter: anything between nothing and the doubled base, up to the maximum."""
    random = FakeClock(seed=3).random()
    options = EvmOptions(backoff_base_seconds=0.1, backoff_max_seconds=5.0)
    for attempt in range(40):
        assert 0 <= backoff_seconds(random, attempt, options) <= min(5.0, 0.1 * 2**attempt)


def test_equal_labels_are_told_apart() -> None:
    """Two keys at one provider are two endpoints."""
    assert distinct(["a", "b", "a", "a"]) == ["a", "b", "a#2", "a#3"]


def test_liars_are_handed_over_once() -> None:
    """`take_liars` returns each newly caught endpoint a single time; the count of lies stays."""
    clock = FakeClock()
    of = pool(clock, Node(clock, "a"), Node(clock, "b"))
    lie = Contradiction("what it said", kind="empty_for_bloom")
    of.contradicted(of.endpoints[1], lie, lie=True)
    of.contradicted(of.endpoints[0], lie, lie=False)
    assert of.take_liars() == {"b"}
    assert of.take_liars() == frozenset()
    assert [r.lies for r in of.reports()] == [0, 1]
    assert [r.healthy for r in of.reports()] == [True, False]
    assert of.tally.contradictions == {"empty_for_bloom": 2}

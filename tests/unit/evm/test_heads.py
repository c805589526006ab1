"""The head: whose word counts, when it may go back, what is final, and that nothing delays it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gapless.errors import SourceUnavailable, TimedOut, WrongChain
from gapless.model import Cursor, Finality, FinalityRule, Head
from gapless.sources.evm.endpoints import Pool
from gapless.sources.evm.heads import Heads, HeadTracker, Sight, newest_at_or_before
from gapless.sources.evm.identity import Guard
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.transport import Answer
from gapless.testing.fake_clock import FakeClock

# --- whose word counts ----------------------------------------------------------------------------------------------


def tracker() -> HeadTracker:
    return HeadTracker(fresh_seconds=15.0, regression_polls=4)


def sight(position: int, at: float = 0.0, branch: str = "a", finalized: int | None = None) -> Sight:
    return Sight(Cursor(position, f"{branch}{position}"), position * 12_000_000, finalized, at)


def latest(of: HeadTracker, now: float = 0.0, distrusted: frozenset[str] = frozenset()) -> Cursor:
    head = of.head(now, distrusted)
    assert head is not None
    return head.latest


def test_the_highest_head_is_reported() -> None:
    """A lagging endpoint does not hold the others back."""
    of = tracker()
    of.observe("one", sight(100))
    of.observe("two", sight(103))
    of.observe("one", sight(101))
    assert latest(of) == Cursor(103, "a103")


def test_a_replica_that_lags_for_a_moment_does_not_move_the_head_back() -> None:
    """Behind a load balancer an address answers 100, 98, 99, 100."""
    of = tracker()
    seen = []
    for position in (100, 98, 100, 99, 98, 100, 101):
        of.observe("one", sight(position))
        seen.append(latest(of).position)
    assert seen == [100, 100, 100, 100, 100, 100, 101]


def test_a_lower_head_is_believed_when_it_stays() -> None:
    """A node that was rolled back says so until it is heard."""
    of = tracker()
    of.observe("one", sight(100))
    seen = []
    for _ in range(5):
        of.observe("one", sight(90))
        seen.append(latest(of).position)
    assert seen == [100, 100, 100, 90, 90]


def test_one_endpoint_going_back_does_not_matter_while_another_stays() -> None:
    """Never lower unless all agree."""
    of = tracker()
    of.observe("one", sight(100))
    of.observe("two", sight(100))
    for _ in range(20):
        of.observe("one", sight(90))
    assert latest(of).position == 100


def test_an_old_word_does_not_count_for_ever() -> None:
    """An endpoint that died at 100 does not keep the head there."""
    of = tracker()
    of.observe("dead", sight(100))
    for second in range(30):
        of.observe("alive", sight(90, at=float(second)))
    assert latest(of, 30.0).position == 90


def test_another_hash_at_the_same_height_counts_from_the_endpoint_that_reported_it() -> None:
    """Its own change of mind is a fork; another endpoint's other opinion is a tie."""
    of = tracker()
    of.observe("one", sight(100))
    of.observe("two", sight(100, branch="b"))
    assert latest(of).id == "a100"
    of.observe("one", sight(100, branch="c"))
    assert latest(of).id == "c100"
    of.observe("two", sight(101, branch="b"))
    assert latest(of).id == "b101"


def test_a_liars_head_does_not_count_while_another_is_there() -> None:
    """An endpoint caught in a lie cannot push the head into the future."""
    of = tracker()
    liar = frozenset({"liar"})
    of.observe("honest", sight(100), liar)
    of.observe("liar", sight(10**9), liar)
    assert latest(of, distrusted=liar).position == 100


def test_a_head_that_a_liar_reported_gives_way_to_another_of_the_same_height() -> None:
    """Caught after its head was reported: its hash does not stand while another endpoint names one."""
    of = tracker()
    of.observe("liar", sight(100, branch="x"))
    of.observe("honest", sight(100))
    assert latest(of).id == "x100"
    of.observe("honest", sight(100), frozenset({"liar"}))
    assert latest(of, distrusted=frozenset({"liar"})).id == "a100"


def test_an_endpoint_that_cannot_serve_its_own_head_is_discredited() -> None:
    """A head nobody can fetch from must not stop the others' chain."""
    of = tracker()
    of.observe("boaster", sight(10**9))
    of.observe("honest", sight(100))
    assert latest(of).position == 10**9
    of.discredit("boaster", 0.0)
    assert latest(of).position == 100
    alone = tracker()
    alone.observe("boaster", sight(10**9))
    alone.discredit("boaster", 0.0)
    assert latest(alone).position == 10**9, "there is nobody else to believe"


def test_final_is_what_every_endpoint_calls_final() -> None:
    """The lowest word counts, and final is never above the newest."""
    of = tracker()
    of.observe("one", sight(100, finalized=99))
    of.observe("two", sight(100, finalized=64))
    head = of.head(0.0)
    assert head is not None
    assert head.finalized == 64
    of = tracker()
    of.observe("one", sight(100, finalized=400))
    assert of.head(0.0) == Head(Cursor(100, "a100"), 100, 100 * 12_000_000)


@pytest.mark.parametrize("limit", [-1, 0, 1, 2, 50, 98, 99, 100, 500])
@pytest.mark.parametrize("known", [None, 0, 1, 40])
def test_the_search_by_age_finds_the_boundary(limit: int, known: int | None) -> None:
    """Whatever the start of the search, the newest block not after the limit is found, in a few questions."""
    if known is not None and known > limit:
        known = None
    asked: list[int] = []

    async def time_of(position: int) -> int:
        assert 0 <= position <= 100
        asked.append(position)
        return position

    assert asyncio.run(newest_at_or_before(limit, 100, known, time_of)) == min(limit, 100)
    assert len(asked) <= 15


def test_the_search_by_age_costs_little_on_a_long_chain() -> None:
    """Twenty million blocks: some twenty questions the first time, a few the next."""
    asked: list[int] = []

    async def time_of(position: int) -> int:
        asked.append(position)
        return position * 12

    head = 20_000_000
    found = asyncio.run(newest_at_or_before(head * 12 - 900, head, None, time_of))
    assert found == head - 75
    assert len(asked) <= 20
    asked.clear()
    assert asyncio.run(newest_at_or_before((head + 1) * 12 - 900, head + 1, found, time_of)) == found + 1
    assert len(asked) <= 3


# --- looking and waiting --------------------------------------------------------------------------------------------


class Node:
    """A transport in virtual time that knows a chain's heads and nothing else."""

    def __init__(self, clock: FakeClock, label: str = "a", height: int = 100) -> None:
        self.clock = clock
        self.label = label
        self.height = height
        self.branch = 0
        self.chain_id = 1
        self.finalized: int | None = 36
        self.tag_error = False
        self.down = False
        self.delay_seconds = 0.01
        self.asked: list[str] = []

    async def post(self, body: bytes, timeout_seconds: float) -> Answer:
        await self.clock.sleep(min(self.delay_seconds, timeout_seconds))
        if self.down or self.delay_seconds >= timeout_seconds:
            raise TimedOut(f"{self.label} did not answer")
        request = msgspec.json.decode(body)
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        if request["method"] == "eth_chainId":
            answer["result"] = hex(self.chain_id)
        else:
            answer.update(self._block(request["params"][0]))
        return Answer(200, {}, msgspec.json.encode(answer))

    def _block(self, name: str) -> dict[str, Any]:
        self.asked.append(name)
        if name == "finalized" and self.tag_error:
            return {"error": {"code": -32602, "message": "invalid argument 0: hex string without 0x prefix"}}
        position = {"latest": self.height, "finalized": self.finalized}.get(
            name, int(name, 16) if name[:2] == "0x" else 0
        )
        if position is None or position > self.height:
            return {"result": None}
        branch = self.branch if position else 0
        return {
            "result": {
                "number": hex(position),
                "hash": f"0x{branch:08x}{position:056x}",
                "timestamp": hex(1_700_000_000 + 12 * position),
            }
        }

    async def close(self) -> None:
        pass


def heads(clock: FakeClock, *nodes: Node, hints: tuple[Any, ...] = (), **options: Any) -> Heads:
    settings = EvmOptions(**options)
    return Heads(Pool(nodes, settings, clock), Guard("chain", settings, clock), settings, clock, hints)


def later(clock: FakeClock, seconds: float, act: Callable[[], None]) -> asyncio.Task[None]:
    async def do() -> None:
        await clock.sleep(seconds)
        act()

    return asyncio.create_task(do())


def test_a_new_block_is_noticed_within_a_poll() -> None:
    """Without any push channel."""
    clock = FakeClock()
    node = Node(clock)

    async def main() -> None:
        of = heads(clock, node, poll_seconds=0.5)
        known = (await of.head()).latest
        task = later(clock, 7.3, lambda: setattr(node, "height", 101))
        began = clock.monotonic()
        head = await of.wait_head(known, 60.0)
        assert head.latest.position == 101
        assert clock.monotonic() - began < 7.3 + 0.6
        await task
        await of.close()

    clock.run(main())


def test_a_wait_ends_with_its_time() -> None:
    """A stalled chain returns the same head, not an error."""
    clock = FakeClock()

    async def main() -> None:
        of = heads(clock, Node(clock))
        known = (await of.head()).latest
        began = clock.monotonic()
        assert (await of.wait_head(known, 5.0)).latest == known
        assert 5.0 <= clock.monotonic() - began < 6.0

    clock.run(main())


def test_a_reorganised_head_of_the_same_height_is_noticed() -> None:
    """By its hash."""
    clock = FakeClock()
    node = Node(clock)

    async def main() -> None:
        of = heads(clock, node)
        known = (await of.head()).latest
        node.branch = 7
        head = await of.wait_head(known, 5.0)
        assert head.latest.position == known.position
        assert head.latest.id != known.id

    clock.run(main())


class Bell:
    """A push channel rung by hand."""

    def __init__(self) -> None:
        self.ring = asyncio.Event()
        self.started = 0

    def start(self) -> None:
        self.started += 1

    async def close(self) -> None:
        pass


def test_a_bell_shortens_the_wait() -> None:
    """A push makes the source look at once, and again soon where the endpoint asked was a moment behind."""
    clock = FakeClock()
    node, bell = Node(clock), Bell()

    async def main() -> None:
        of = heads(clock, node, hints=(bell,), poll_seconds=10.0)
        known = (await of.head()).latest
        tasks = [later(clock, 1.0, bell.ring.set), later(clock, 1.12, lambda: setattr(node, "height", 101))]
        began = clock.monotonic()
        assert (await of.wait_head(known, 60.0)).latest.position == 101
        assert clock.monotonic() - began < 1.4
        await asyncio.gather(*tasks)

    clock.run(main())


def test_a_silent_bell_does_not_lengthen_the_wait() -> None:
    """Polling goes on beside a channel that never says anything."""
    clock = FakeClock()
    node = Node(clock)

    async def main() -> None:
        of = heads(clock, node, hints=(Bell(),), poll_seconds=0.5)
        known = (await of.head()).latest
        task = later(clock, 3.0, lambda: setattr(node, "height", 101))
        began = clock.monotonic()
        assert (await of.wait_head(known, 60.0)).latest.position == 101
        assert clock.monotonic() - began < 3.6
        await task

    clock.run(main())


def test_a_bell_that_never_stops_does_not_flood_the_endpoint() -> None:
    """A lying channel costs at most twenty looks a second."""
    clock = FakeClock()
    node, bell = Node(clock, height=100), Bell()
    node.delay_seconds = 0.0

    async def flood() -> None:
        while True:
            bell.ring.set()
            await clock.sleep(0.001)

    async def main() -> None:
        of = heads(clock, node, hints=(bell,))
        known = (await of.head()).latest
        flooding = asyncio.create_task(flood())
        node.asked.clear()
        await of.wait_head(known, 10.0)
        flooding.cancel()
        assert node.asked.count("latest") <= 10 * 20 + 2

    clock.run(main())


def test_one_endpoint_down_is_not_noticed() -> None:
    """The other one answers, and the head moves on."""
    clock = FakeClock()
    down, up = Node(clock, "down"), Node(clock, "up", height=105)

    async def main() -> None:
        of = heads(clock, down, up)
        await of.head()
        down.down = True
        up.height = 106
        head = await of.wait_head(Cursor(105, ""), 5.0)
        assert head.latest.position == 106
        await of.close()

    clock.run(main())


def test_all_endpoints_down_is_an_error_when_the_time_is_over() -> None:
    """Not before: a short outage within the wait does not matter."""
    clock = FakeClock()
    node = Node(clock)

    async def main() -> None:
        of = heads(clock, node)
        known = (await of.head()).latest
        node.down = True
        task = later(clock, 5.0, lambda: setattr(node, "down", False))
        assert (await of.wait_head(known, 20.0)).latest == known
        await task
        node.down = True
        with pytest.raises(SourceUnavailable):
            await of.wait_head(known, 5.0)

    clock.run(main())


def test_the_other_endpoints_are_looked_at_too() -> None:
    """So that their lag is known before they are needed."""
    clock = FakeClock()
    one, two = Node(clock, "one"), Node(clock, "two", height=90)

    async def main() -> None:
        of = heads(clock, one, two)
        known = (await of.head()).latest
        await of.wait_head(known, 12.0)
        await of.close()

    clock.run(main())
    assert two.asked.count("latest") >= 2


# --- finality -------------------------------------------------------------------------------------------------------


def finalized(node: Node, clock: FakeClock, **options: Any) -> int:
    async def main() -> int:
        return (await heads(clock, node, **options).head()).finalized

    return clock.run(main())


def test_final_by_tag() -> None:
    """What the chain's tag names."""
    clock = FakeClock()
    assert finalized(Node(clock), clock) == 36


@pytest.mark.parametrize("error", [False, True])
def test_without_the_tag_a_deep_depth_is_final(error: bool) -> None:
    """A node that answers null or an error to the tag gets the fallback rule, which is deeper."""
    clock = FakeClock()
    node = Node(clock, height=1000)
    node.finalized, node.tag_error = None, error
    assert finalized(node, clock, finality_fallback_depth=128) == 872
    node.height = 100
    assert finalized(node, clock, finality_fallback_depth=128) == -1


def test_final_by_depth_and_by_age() -> None:
    """So many blocks below the head; so many seconds before it, by block time."""
    clock = FakeClock()
    node = Node(clock)
    assert finalized(node, clock, finality=Finality(FinalityRule.DEPTH, 12)) == 88
    assert finalized(node, clock, finality=Finality(FinalityRule.AGE, 900.0)) == 25
    assert finalized(node, clock, finality=Finality(FinalityRule.AGE, 9000.0)) == -1


def test_what_is_final_moves_with_the_head() -> None:
    """By every rule, though the tag and the age are not asked for with every poll."""
    clock = FakeClock()
    for rule, value in ((FinalityRule.TAG, "finalized"), (FinalityRule.DEPTH, 64), (FinalityRule.AGE, 768.0)):
        node = Node(clock)

        async def main(node: Node = node, rule: FinalityRule = rule, value: Any = value) -> None:
            of = heads(clock, node, finality=Finality(rule, value))
            assert (await of.head()).finalized == 36
            node.height, node.finalized = 150, 86
            await clock.sleep(6.0)
            assert (await of.head()).finalized == 86

        clock.run(main())


# --- identity -------------------------------------------------------------------------------------------------------


def test_endpoints_of_different_chains_are_refused_at_the_start() -> None:
    """Two addresses, two chains: nothing is fetched from either."""
    clock = FakeClock()
    one, two = Node(clock, "one"), Node(clock, "two")
    two.chain_id = 5
    settings = EvmOptions()
    of = Pool([one, two], settings, clock)
    with pytest.raises(WrongChain, match=r"two serves chain 5 .* chain is 1 "):
        clock.run(Guard("chain", settings, clock).identity(of, 60.0))


def test_identity_is_known_while_one_endpoint_is_down() -> None:
    """It is checked when it comes back."""
    clock = FakeClock()
    one, two = Node(clock, "one"), Node(clock, "two")
    one.down = True
    settings = EvmOptions()
    of = Pool([one, two], settings, clock)
    guard = Guard("chain", settings, clock)

    async def main() -> None:
        identity = await guard.identity(of, 60.0)
        assert (identity.kind, identity.chain) == ("evm", "1")
        one.down, one.chain_id = False, 5
        with pytest.raises(WrongChain):
            await guard.admit(of.endpoints[0], 60.0)

    clock.run(main())


def test_a_chain_that_changes_while_running_is_refused() -> None:
    """At the next check, or at once where the connection broke in between."""
    clock = FakeClock()
    node = Node(clock)

    async def main() -> None:
        of = heads(clock, node, identity_check_seconds=60.0)
        known = (await of.head()).latest
        node.chain_id = 5
        began = clock.monotonic()
        with pytest.raises(WrongChain):
            await of.wait_head(known, 600.0)
        assert clock.monotonic() - began <= 61.0
        node.chain_id = 1
        of = heads(clock, node, identity_check_seconds=60.0)
        await of.head()
        node.down = True
        task = later(clock, 3.0, lambda: vars(node).update(down=False, chain_id=5))
        with pytest.raises(WrongChain):
            await of.wait_head(known, 20.0)
        await task

    clock.run(main())


def test_a_second_endpoint_of_another_chain_is_noticed_though_it_is_not_needed() -> None:
    """Looking at the others checks them as well."""
    clock = FakeClock()
    one, two = Node(clock, "one"), Node(clock, "two")

    async def main() -> None:
        of = heads(clock, one, two, identity_check_seconds=10.0)
        known = (await of.head()).latest
        two.chain_id = 5
        with pytest.raises(WrongChain, match="two"):
            await of.wait_head(known, 60.0)
        await of.close()

    clock.run(main())

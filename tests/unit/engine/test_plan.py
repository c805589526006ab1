"""Decisions, enumerated."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.engine import plan
from gapless.errors import ForkBeyondFinality, ForkTooDeep, WrongChain
from gapless.model import Cursor, Entry, Evidence, Head, Identity, StoredEntry


def head(position: int, finalized: int = -1) -> Head:
    return Head(Cursor(position, f"id{position}"), finalized, 0)


def entry(position: int, parent: str) -> Entry:
    return Entry(position, f"id{position}", parent, 0, Evidence.CHECKED)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (plan.FollowOptions(start=0), 100),
        (plan.FollowOptions(start=0, confirmations=12), 88),
        (plan.FollowOptions(start=0, end=50), 50),
        (plan.FollowOptions(start=0, end=200), 100),
        (plan.FollowOptions(start=0, until=plan.Until.FINALIZED), 60),
        (plan.FollowOptions(start=0, until=70), 70),
        (plan.FollowOptions(start=0, until=plan.Until.HEAD, confirmations=3), 97),
    ],
)
def test_target(options: plan.FollowOptions, expected: int) -> None:
    """The target is the lowest of head less confirmations, end, and what the run was told to reach."""
    assert plan.target(head(100, 60), options) == expected


def test_a_run_without_an_end_is_never_reached() -> None:
    """Following for ever has no end, however far it is."""
    assert not plan.reached(Cursor(5, "id5"), head(5), plan.FollowOptions(start=0))


@pytest.mark.parametrize(("position", "done"), [(99, False), (100, True)])
def test_until_head_is_reached_at_the_head(position: int, done: bool) -> None:
    """`--until head` ends when the head is committed, not before."""
    options = plan.FollowOptions(start=0, until=plan.Until.HEAD)
    assert plan.reached(Cursor(position, f"id{position}"), head(100), options) is done


def test_a_head_on_another_branch_is_not_reached() -> None:
    """The right height with the wrong id is a fork to be followed, not the end of the run."""
    options = plan.FollowOptions(start=0, until=plan.Until.HEAD)
    assert not plan.reached(Cursor(100, "other"), head(100), options)
    assert not plan.reached(Cursor(100, "other"), head(100), plan.FollowOptions(start=0, end=90))
    assert not plan.reached(Cursor(100, "other"), head(100), plan.FollowOptions(start=0, until=90))


def test_links_compares_ids_not_numbers() -> None:
    """The next number with another parent is a fork, not a continuation."""
    assert plan.links(Cursor(7, "id7"), entry(8, "id7"), 0)
    assert not plan.links(Cursor(7, "id7"), entry(8, "other"), 0)
    assert not plan.links(Cursor(7, "id7"), entry(9, "id7"), 0)


def test_the_very_first_entry_links_to_anything() -> None:
    """Nothing is known about the parent of the first position, and only of that one."""
    assert plan.links(plan.before_first(5), entry(5, "unknown"), 5)
    assert not plan.links(Cursor(4, "id4"), entry(5, "unknown"), 5)


@given(st.integers(1, 5000))
def test_probes_end_at_the_cap(cap: int) -> None:
    """Galloping looks at the cursor first, grows, and ends exactly at the cap."""
    depths = plan.probe_depths(cap)
    assert depths[0] == 0
    assert depths[-1] == cap
    assert all(a < b for a, b in itertools.pairwise(depths))
    assert len(depths) <= 2 + cap.bit_length()


def test_comparing_ignores_unknown_positions() -> None:
    """Only a position with the same id on both sides is common; one that a side does not know says nothing."""
    ours = {1: "a", 2: "b", 3: "c", 4: "d"}
    seen = [Cursor(1, "a"), Cursor(2, "b"), None, Cursor(4, "x"), Cursor(5, "y")]
    assert plan.compare(ours, seen) == plan.View(Cursor(2, "b"), Cursor(4, "d"), (3,))
    assert plan.compare(ours, [Cursor(3, "x")]) == plan.View(None, Cursor(3, "c"), (1, 2, 4))
    assert plan.compare(ours, [None, Cursor(9, "c")]) == plan.View(None, None, (1, 2, 3, 4))


def test_silence_between_the_branches_leaves_the_ancestor_open() -> None:
    """Where the other side does not know an entry above the common one, the branches may part above that one."""
    view = plan.View(Cursor(2, "b"), Cursor(5, "e"), (4, 9))
    assert view.silent_above(view.common, Cursor(5, "e"))
    assert not view.silent_above(Cursor(4, "d"), Cursor(5, "e"))
    assert not view.silent_above(view.common, Cursor(4, "d"))


def test_a_removed_row_hides_no_id() -> None:
    """The entry above knows its parent, and the cursor knows itself."""
    stored = [StoredEntry(entry(p, f"id{p - 1}"), 0, "") for p in (4, 6)]
    assert plan.committed_ids(Cursor(7, "id7"), stored) == {p: f"id{p}" for p in (3, 4, 5, 6, 7)}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (["theirs"], plan.Votes.FOLLOW),
        (["ours"], plan.Votes.STAY),
        (["ours", "theirs"], plan.Votes.DISPUTED),
        (["ours", "theirs", "theirs"], plan.Votes.FOLLOW),
        (["ours", "theirs", "other"], plan.Votes.FOLLOW),
        (["ours", "ours", "theirs"], plan.Votes.STAY),
        (["ours", None, None], plan.Votes.STAY),
        ([None, None], plan.Votes.SILENT),
        ([], plan.Votes.SILENT),
    ],
)
def test_opinions_are_counted(seen: list[str | None], expected: plan.Votes) -> None:
    """More for another entry: follow; more for ours: stay; as many: disputed; who knows nothing does not count."""
    opinions = [None if s is None else Cursor(7, s) for s in seen]
    assert plan.votes(*plan.count(Cursor(7, "ours"), opinions)) is expected


def test_a_fork_within_bounds_is_allowed() -> None:
    """A fork that ends at the last final entry, or above, may be undone."""
    assert plan.refusal("s", Cursor(100, "a"), plan.Fork(Cursor(36, "b")), 36, 64) is None
    assert plan.refusal("s", Cursor(100, "a"), plan.Fork(Cursor(36, "b")), None, 64) is None


def test_a_fork_below_what_was_final_halts() -> None:
    """What was final is never undone automatically."""
    refusal = plan.refusal("s", Cursor(100, "a"), plan.Fork(Cursor(35, "b")), 36, 1000)
    assert isinstance(refusal, ForkBeyondFinality)
    assert "36 was final" in str(refusal)


def test_a_fork_beyond_the_cap_halts() -> None:
    """A fork deeper than the cap waits for an operator."""
    refusal = plan.refusal("s", Cursor(100, "a"), plan.Fork(Cursor(35, "b")), None, 64)
    assert isinstance(refusal, ForkTooDeep)
    assert "65 entries" in str(refusal)


def test_a_fork_without_a_common_entry_halts() -> None:
    """When nothing within the cap is common, nothing is undone."""
    assert isinstance(plan.refusal("s", Cursor(100, "a"), plan.Fork(None), None, 64), ForkTooDeep)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (plan.FollowOptions(start=0), 105),
        (plan.FollowOptions(start=0, confirmations=12), 93),
        (plan.FollowOptions(start=0, until=30), 100),
        (plan.FollowOptions(start=0, until=plan.Until.FINALIZED), 100),
        (plan.FollowOptions(start=0, end=100), 100),
        (plan.FollowOptions(start=0, confirmations=90), 15),
    ],
)
def test_a_branch_is_replaced_as_far_as_it_went(options: plan.FollowOptions, expected: int) -> None:
    """Also above where this run is to end: rows of a branch that is gone must not stay because of that."""
    assert plan.replacement(Cursor(100, "a"), head(105, 40), options) == expected


def test_another_chain_than_configured_is_refused() -> None:
    """The configuration's word counts where it has one; else the store's does."""
    identity = Identity("evm", "1", "0xgenesis")
    for chain in ("1", None):
        plan.check_chain("s", identity, plan.FollowOptions(start=0, chain=chain))
    with pytest.raises(WrongChain, match="serve chain 1, but the configuration says 10"):
        plan.check_chain("s", identity, plan.FollowOptions(start=0, chain="10"))


@given(st.integers(0, 100), st.integers(0, 300), st.integers(1, 50))
def test_ranges_cover_everything_once(first: int, length: int, span: int) -> None:
    """Cut ranges are consecutive, in order, and lose nothing."""
    last = first + length
    cut = plan.ranges(first, last, span)
    assert [p for a, b in cut for p in range(a, b + 1)] == list(range(first, last + 1))
    assert all(b - a + 1 <= span for a, b in cut)

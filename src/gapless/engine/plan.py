"""Decisions about a source, without I/O: what to fetch next, what a mismatch means, how deep to look for an ancestor.

Everything here is synchronous and pure, so that tests can enumerate it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gapless.errors import ForkBeyondFinality, ForkTooDeep, WrongChain
from gapless.model import Cursor, Entry, Head, Identity, StoredEntry

LIVE_WITHIN_POSITIONS = 8
"""So close to its target a source counts as live, not as catching up."""


class Until(StrEnum):
    """Where a run ends by itself."""

    FOREVER = "forever"
    HEAD = "head"
    FINALIZED = "finalized"


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """How one source is followed. Positions are inclusive."""

    start: int
    end: int | None = None
    chain: str | None = None
    """The chain id the source must have; None where any is taken that the store agrees with."""
    confirmations: int = 0
    until: Until | int = Until.FOREVER
    reorg_positions_max: int = 1000
    stall_after_seconds: float = 300.0
    poll_timeout_seconds: float = 5.0
    """How long one wait for a new head lasts before the loop looks around."""
    inflight_segments_max: int = 4
    """Segments fetched ahead of the one being decoded."""
    inflight_bytes_max: int = 64 * 1024 * 1024
    """Received bytes waiting to be decoded before fetching pauses."""
    retry_seconds_max: float = 30.0
    """Longest pause between attempts while a source or store is unavailable."""
    fork_looks_max: int = 4
    """How often a fork that is disputed, or that must halt the run, is looked at again first."""
    fork_pause_seconds: float = 0.5
    """Before the first of these looks; doubles with each."""
    state_cache_rows_max: int = 200_000


@dataclass(frozen=True, slots=True)
class Fork:
    """How the committed branch and the source's chain differ."""

    ancestor: Cursor | None
    """The highest common entry; None where there is none within what may be undone."""
    parted: Cursor | None = None
    """A committed entry that the source's chain does not have: the lowest known one above the ancestor."""


def before_first(start: int) -> Cursor:
    """The cursor of an empty store: just below the first position, with no id."""
    return Cursor(start - 1, "")


def target(head: Head, options: FollowOptions) -> int:
    """The highest position that may be committed now."""
    limit = head.latest.position - options.confirmations
    if options.until is Until.FINALIZED:
        limit = min(limit, head.finalized)
    if isinstance(options.until, int):
        limit = min(limit, options.until)
    if options.end is not None:
        limit = min(limit, options.end)
    return limit


def replacement(cursor: Cursor, head: Head, options: FollowOptions) -> int:
    """How far a forked branch is replaced: to the target, and where that is lower (`--until` a position passed
    before), to where the tables were."""
    return max(target(head, options), min(cursor.position, head.latest.position - options.confirmations))


def reached(cursor: Cursor, head: Head, options: FollowOptions) -> bool:
    """True when a run with an end has nothing left to do at this head, provided that the cursor is on its chain."""
    if options.until is Until.FOREVER and options.end is None:
        return False
    if head.latest.position == cursor.position and head_contradicts(cursor, head):
        return False
    if options.end is not None and cursor.position >= options.end:
        return True
    if isinstance(options.until, int):
        return cursor.position >= options.until
    return options.until is not Until.FOREVER and cursor.position >= target(head, options)


def ranges(first: int, last: int, span: int) -> list[tuple[int, int]]:
    """`first..last` cut into runs of at most `span`."""
    return [(a, min(a + span - 1, last)) for a in range(first, last + 1, span)]


def links(cursor: Cursor, first: Entry, start: int) -> bool:
    """Whether an entry continues what is committed. Nothing is known about the parent of the very first position."""
    if first.position != cursor.position + 1:
        return False
    return (cursor.position == start - 1 and cursor.id == "") or first.parent_id == cursor.id


def head_contradicts(cursor: Cursor, head: Head) -> bool:
    """Whether the head alone hints at a fork that linkage has not shown yet: another id at the very position committed
    last, or a chain that ends below it (which may also be a node that merely went back)."""
    if cursor.id == "":
        return False
    at_cursor = head.latest.position == cursor.position and head.latest.id != cursor.id
    return at_cursor or head.latest.position < cursor.position


def probe_depths(depth_max: int) -> list[int]:
    """How far below the cursor to look for the common ancestor: galloping, ending exactly at the cap."""
    depths = [0]
    step = 1
    while depths[-1] < depth_max:
        depths.append(min(depths[-1] + step, depth_max))
        step *= 2
    return depths


def committed_ids(cursor: Cursor, stored: Sequence[StoredEntry]) -> dict[int, str]:
    """Ids of the committed branch, by position: of the stored entries, and of their parents, so that a row somebody
    removed hides nothing."""
    ids = {s.entry.position - 1: s.entry.parent_id for s in stored if s.entry.parent_id}
    return {**ids, **{s.entry.position: s.entry.id for s in stored}, cursor.position: cursor.id}


@dataclass(frozen=True, slots=True)
class View:
    """What came of comparing ids at some positions. Where we know none, nothing is said."""

    common: Cursor | None
    """The highest with the same id on both sides."""
    parted: Cursor | None
    """Our lowest entry above it for which the other side has another."""
    silent: tuple[int, ...]
    """Those that the other side does not have."""

    def silent_above(self, common: Cursor | None, parted: Cursor) -> bool:
        """Whether the branches may part higher up than it seems, in what the other side was silent about."""
        return any((common is None or p > common.position) and p < parted.position for p in self.silent)


def compare(ours: Mapping[int, str], seen: Sequence[Cursor | None]) -> View:
    theirs = {c.position: c.id for c in seen if c is not None and c.position in ours}
    common = max((p for p, id_ in theirs.items() if ours[p] == id_), default=None)
    parted = min((p for p in theirs if ours[p] != theirs[p] and (common is None or p > common)), default=None)
    return View(
        None if common is None else Cursor(common, ours[common]),
        None if parted is None else Cursor(parted, ours[parted]),
        tuple(sorted(ours.keys() - theirs.keys())),
    )


class Votes(StrEnum):
    """What the endpoints' opinions on a fork come to."""

    FOLLOW = "follow"
    """Most have another entry, or all that know."""
    DISPUTED = "disputed"
    """As many still have ours."""
    STAY = "stay"
    """Most still have ours."""
    SILENT = "silent"
    """Nobody knows."""


def count(parted: Cursor, opinions: Iterable[Cursor | None]) -> tuple[int, int]:
    """How many endpoints still have our entry, and how many another one in its place."""
    known = [c for c in opinions if c is not None]
    ours = sum(c == parted for c in known)
    return ours, len(known) - ours


def votes(ours: int, theirs: int) -> Votes:
    if ours == theirs:
        return Votes.DISPUTED if ours else Votes.SILENT
    return Votes.STAY if ours > theirs else Votes.FOLLOW


def check_chain(source: str, identity: Identity, options: FollowOptions) -> None:
    """Refuse endpoints of another chain than the configured one."""
    if options.chain is not None and identity.chain != options.chain:
        raise WrongChain(
            f"The endpoints serve chain {identity.chain}, but the configuration says {options.chain}",
            source=source,
            todo="Correct `rpc` or `chain_id`. Nothing was written.",
        )


def refusal(
    source: str, cursor: Cursor, fork: Fork, finalized: int | None, depth_max: int
) -> ForkBeyondFinality | ForkTooDeep | None:
    """Why a fork must not be undone automatically; None where it may be."""
    ancestor = fork.ancestor
    if ancestor is None:
        return ForkTooDeep(
            f"None of the last {depth_max + 1} committed entries is on the chain the source follows now; "
            f"at most {depth_max} are undone automatically",
            source=source,
            position=cursor.position,
            todo="Nothing was undone. Check that the endpoints serve the right chain; then rewind by hand.",
        )
    depth = cursor.position - ancestor.position
    if finalized is not None and ancestor.position < finalized:
        return ForkBeyondFinality(
            f"The chain replaced {depth} entries, down to {ancestor.position}, though {finalized} was final",
            source=source,
            position=ancestor.position,
            todo="Nothing was undone. Check the endpoints; if the chain really went back, stop and run "
            f"`gapless rewind --to {ancestor.position} --source {source}`.",
        )
    if depth > depth_max:
        return ForkTooDeep(
            f"The chain replaced {depth} entries; at most {depth_max} are undone automatically",
            source=source,
            position=ancestor.position,
            todo="Nothing was undone. Check the endpoints; then raise `reorg_max`, or run "
            f"`gapless rewind --to {ancestor.position} --source {source}`.",
        )
    return None


def is_live(position: int, goal: int) -> bool:
    return goal - position <= LIVE_WITHIN_POSITIONS

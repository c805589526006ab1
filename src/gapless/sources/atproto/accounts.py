"""An account's status, as hosts tell it: what is to be shown, hidden or removed.

Account specification: `active` alone decides whether an account is shown, `status` says why not. `deleted` means that
the content goes, and even that can be taken back, with a repository that must be fetched again; every other status
hides and keeps. Statuses are hearsay, neither signed nor part of the repository, so they are ordered like records are:
by the host's `seq`, and across hosts by who has the say and by the time they give.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from gapless.sources.atproto.frames import Account
from gapless.sources.atproto.syntax import datetime_us

KNOWN_STATUSES = frozenset({"takendown", "suspended", "deactivated", "deleted", "throttled", "desynchronized"})
"""An open set: unknown ones hide like the others."""
DELETED = "deleted"


class Effect(StrEnum):
    """What a message does to the account's records."""

    NOTHING = "nothing"
    SHOW = "show"
    """They count again."""
    HIDE = "hide"
    """They are kept, and not shown."""
    PURGE = "purge"
    """They are removed for good."""
    FETCH = "fetch"
    """They count again but are gone: the repository must be fetched."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What was last believed about an account."""

    active: bool = True
    status: str = ""
    """Empty while active and nothing else was said."""
    host: str = ""
    """Who said so: the host of the stream; empty while nobody did."""
    seq: int = 0
    """Where in that host's stream."""
    time_us: int = 0
    """When, by that host: microseconds since 1970 UTC; 0 where it gave no time."""
    purged: bool = False
    """Deleted, and not fetched again since."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message and what follows from it."""

    standing: Standing
    effect: Effect
    kind: str = ""
    """Why it changed nothing: `stale_status` for a replay, `wrong_host` for one that has no say."""


def has_say(host: str, account_host: str, is_relay: bool) -> bool:
    """Whether a host's messages about an account count: commits and syncs as well as its status.

    A relay passes on what hosts say, and counts. A PDS counts only for the accounts whose DID document names it
    (`account_host`; empty while unknown)."""
    return is_relay or not account_host or account_host == host


def hear(standing: Standing, message: Account, host: str, *, account_host: str = "", is_relay: bool = True) -> Heard:
    """Take an `#account` message from a host.

    After a move the old host reports `deactivated`, which must not hide the account (`has_say`). Neither a replay nor
    another relay that lags behind may bring an older status back: it would, at worst, purge what was fetched since."""
    if not has_say(host, account_host, is_relay):
        return Heard(standing, Effect.NOTHING, "wrong_host")
    time_us = datetime_us(message.time) or 0
    if message.seq <= standing.seq if host == standing.host else time_us < standing.time_us:
        return Heard(standing, Effect.NOTHING, "stale_status")
    # A host that throttles or lost track of an account still says `active`; the status then is a remark.
    status = message.status or ""
    after = Standing(message.active, status, host, message.seq, time_us, standing.purged)
    if message.active:
        if standing.purged:
            return Heard(replace(after, purged=False), Effect.FETCH)
        return Heard(after, Effect.NOTHING if standing.active else Effect.SHOW)
    if status.lower() == DELETED:
        return Heard(replace(after, purged=True), Effect.NOTHING if standing.purged else Effect.PURGE)
    return Heard(after, Effect.HIDE if standing.active else Effect.NOTHING)


def takes_commits(standing: Standing) -> bool:
    """Whether commits of the account are to be applied (sync specification: not while it is inactive)."""
    return standing.active


class RepoPhase(StrEnum):
    """Where a repository stands; the column `repo.state`."""

    PENDING = "pending"
    """Known, and not fetched yet."""
    SYNCING = "syncing"
    """Being fetched: commits that arrive wait."""
    SYNCHRONIZED = "synchronized"
    """The tables equal the repository at `rev`."""
    DESYNCHRONIZED = "desynchronized"
    """Something is missing: it must be fetched; commits are passed over."""
    FAILED = "failed"
    """Fetching was given up for now: it is in the gap ledger."""


class Step(StrEnum):
    """What happens to a repository."""

    FETCH_BEGAN = "fetch_began"
    FETCHED = "fetched"
    FETCH_FAILED = "fetch_failed"
    GAVE_UP = "gave_up"
    CHAIN_BROKE = "chain_broke"
    BEGAN_EMPTY = "began_empty"
    """Its first commit was seen and proved: it needs no fetching."""
    RETRIED = "retried"
    """By an operator, or because its time came."""


_FROM: dict[Step, tuple[frozenset[RepoPhase], RepoPhase]] = {
    Step.FETCH_BEGAN: (
        frozenset({RepoPhase.PENDING, RepoPhase.DESYNCHRONIZED, RepoPhase.SYNCING}),
        RepoPhase.SYNCING,
    ),
    Step.FETCHED: (frozenset({RepoPhase.SYNCING}), RepoPhase.SYNCHRONIZED),
    Step.FETCH_FAILED: (frozenset({RepoPhase.SYNCING}), RepoPhase.DESYNCHRONIZED),
    Step.GAVE_UP: (
        frozenset({RepoPhase.SYNCING, RepoPhase.DESYNCHRONIZED, RepoPhase.PENDING}),
        RepoPhase.FAILED,
    ),
    # What breaks while it is fetched is settled by the commits that waited: they follow what was fetched, or not.
    Step.CHAIN_BROKE: (frozenset({RepoPhase.SYNCHRONIZED}), RepoPhase.DESYNCHRONIZED),
    Step.BEGAN_EMPTY: (frozenset({RepoPhase.PENDING}), RepoPhase.SYNCHRONIZED),
    Step.RETRIED: (frozenset({RepoPhase.FAILED, RepoPhase.SYNCHRONIZED}), RepoPhase.DESYNCHRONIZED),
}
"""The phases in which a step means something, and the one it leads to."""


def advance(phase: RepoPhase, step: Step) -> RepoPhase:
    """The phase after a step; the same where the step means nothing there."""
    phases, after = _FROM[step]
    return after if phase in phases else phase


class CommitFate(StrEnum):
    """What becomes of a commit that arrives while its repository is in some phase."""

    VERIFY = "verify"
    WAIT = "wait"
    DROP = "drop"


def fate(phase: RepoPhase, standing: Standing) -> CommitFate:
    """Sync specification: commits wait while the repository is being fetched and are dropped where it will be fetched
    anyway, or where the account is inactive."""
    if not takes_commits(standing) or phase in (RepoPhase.DESYNCHRONIZED, RepoPhase.FAILED):
        return CommitFate.DROP
    return CommitFate.WAIT if phase is RepoPhase.SYNCING else CommitFate.VERIFY

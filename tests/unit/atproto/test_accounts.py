"""What hosts say about accounts, and where a repository stands."""

from __future__ import annotations

import itertools

import pytest

from gapless.sources.atproto.accounts import (
    CommitFate,
    Effect,
    Heard,
    RepoPhase,
    Standing,
    Step,
    advance,
    fate,
    has_say,
    hear,
    takes_commits,
)
from gapless.sources.atproto.frames import Account

RELAY, OTHER = "wss://relay.example", "wss://other.example"
PDS, OLD_PDS = "https://pds.example", "https://old.example"


def said(seq: int, active: bool, status: str | None = None, minute: int = 0) -> Account:
    return Account(seq, "did:plc:abc", f"2026-01-01T00:{minute:02d}:00Z", active, status)


def told(*messages: Account, host: str = RELAY) -> list[Heard]:
    heard: list[Heard] = []
    standing = Standing()
    for message in messages:
        heard.append(hear(standing, message, host))
        standing = heard[-1].standing
    return heard


@pytest.mark.parametrize(
    "status", ["takendown", "suspended", "deactivated", "throttled", "desynchronized", "unheard-of", None]
)
def test_inactive_accounts_are_hidden_and_kept(status: str | None) -> None:
    """Whatever the reason, known or not: hidden while inactive, back as it was when active."""
    heard = told(said(1, False, status), said(2, True))
    assert [one.effect for one in heard] == [Effect.HIDE, Effect.SHOW]
    assert [takes_commits(one.standing) for one in heard] == [False, True]


def test_deleted_accounts_are_removed_and_can_come_back() -> None:
    """Deletion removes once; reactivation means that the repository must be fetched."""
    heard = told(said(1, False, "deleted"), said(2, False, "deleted"), said(3, True), said(4, True))
    assert [one.effect for one in heard] == [Effect.PURGE, Effect.NOTHING, Effect.FETCH, Effect.NOTHING]


def test_hidden_then_deleted_is_removed() -> None:
    """An account that was taken down first is still removed when it is deleted, and coming back means fetching."""
    heard = told(said(1, False, "takendown"), said(2, False, "Deleted"), said(3, False, "takendown"), said(4, True))
    assert [one.effect for one in heard] == [Effect.HIDE, Effect.PURGE, Effect.NOTHING, Effect.FETCH]


def test_active_decides_and_status_is_a_remark() -> None:
    """An active account is shown, whatever its status says."""
    assert [one.effect for one in told(said(1, True, "throttled"), said(2, True, "desynchronized"))] == [
        Effect.NOTHING
    ] * 2


def test_a_replayed_status_changes_nothing() -> None:
    """An old `deleted` that comes again must not remove what was fetched since: the worst bug of the best peer."""
    standing = told(said(1, False, "deleted"), said(2, True))[-1].standing
    for replay in (said(1, False, "deleted"), said(2, True)):
        heard = hear(standing, replay, RELAY)
        assert (heard.effect, heard.kind, heard.standing) == (Effect.NOTHING, "stale_status", standing)


def test_a_relay_that_lags_behind_changes_nothing() -> None:
    """Another relay's seqs mean nothing here; its older word does not undo a newer one, its newer word counts."""
    standing = told(said(900, False, "deleted", 1), said(901, True, None, 2))[-1].standing
    assert hear(standing, said(7, False, "deleted", 1), OTHER).kind == "stale_status"
    assert hear(standing, said(8, False, "deactivated", 3), OTHER).effect is Effect.HIDE


def test_a_former_host_has_no_say() -> None:
    """After a move the old PDS reports the account as deactivated: only the host of the DID document is believed."""
    standing = Standing()
    heard = hear(standing, said(1, False, "deactivated"), OLD_PDS, account_host=PDS, is_relay=False)
    assert (heard.effect, heard.kind) == (Effect.NOTHING, "wrong_host")
    assert hear(standing, said(1, False, "deactivated"), PDS, account_host=PDS, is_relay=False).effect is Effect.HIDE
    assert hear(standing, said(1, False, "deactivated"), PDS, is_relay=False).effect is Effect.HIDE
    assert hear(standing, said(1, False, "deactivated"), RELAY, account_host=PDS).effect is Effect.HIDE


def test_who_has_a_say() -> None:
    """A relay always, a PDS for its own accounts and for those whose host is not known yet."""
    assert has_say(RELAY, PDS, is_relay=True)
    assert has_say(PDS, PDS, is_relay=False)
    assert has_say(PDS, "", is_relay=False)
    assert not has_say(OLD_PDS, PDS, is_relay=False)


def test_every_order_of_replays_ends_where_the_stream_ends() -> None:
    """However often and in whatever order parts of a host's stream come again, the last word stays."""
    stream = [said(1, False, "takendown"), said(2, True), said(3, False, "deleted"), said(4, True)]
    for order in itertools.permutations(stream):
        heard = told(*stream, *order)
        assert heard[-1].standing == heard[3].standing
        assert {one.effect for one in heard[4:]} == {Effect.NOTHING}


def test_the_way_of_a_repository() -> None:
    """Fetched, broken, fetched again, given up and retried."""
    state = RepoPhase.PENDING
    way = []
    for step in (
        Step.FETCH_BEGAN,
        Step.CHAIN_BROKE,
        Step.FETCHED,
        Step.CHAIN_BROKE,
        Step.FETCH_BEGAN,
        Step.FETCH_FAILED,
        Step.GAVE_UP,
        Step.FETCH_BEGAN,
        Step.RETRIED,
        Step.FETCH_BEGAN,
        Step.FETCHED,
    ):
        state = advance(state, step)
        way.append(state.value)
    assert way == [
        "syncing",
        "syncing",
        "synchronized",
        "desynchronized",
        "syncing",
        "desynchronized",
        "failed",
        "failed",
        "desynchronized",
        "syncing",
        "synchronized",
    ]


def test_every_step_is_defined_everywhere() -> None:
    """No step raises in any state, and only a fetch or a first commit makes a repository synchronized."""
    for state, step in itertools.product(RepoPhase, Step):
        after = advance(state, step)
        if after is RepoPhase.SYNCHRONIZED and state is not RepoPhase.SYNCHRONIZED:
            assert (state, step) in {(RepoPhase.SYNCING, Step.FETCHED), (RepoPhase.PENDING, Step.BEGAN_EMPTY)}


def test_commits_wait_while_fetching_and_are_dropped_when_useless() -> None:
    """Sync specification: queued while in progress, dropped while desynchronized or inactive."""
    active, hidden = Standing(), Standing(active=False)
    assert fate(RepoPhase.SYNCHRONIZED, active) is CommitFate.VERIFY
    assert fate(RepoPhase.PENDING, active) is CommitFate.VERIFY
    assert fate(RepoPhase.SYNCING, active) is CommitFate.WAIT
    assert fate(RepoPhase.DESYNCHRONIZED, active) is fate(RepoPhase.FAILED, active) is CommitFate.DROP
    assert {fate(state, hidden) for state in RepoPhase} == {CommitFate.DROP}

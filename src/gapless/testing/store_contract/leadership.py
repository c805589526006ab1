"""Leases: one holder at a time, and a token that only grows."""

from __future__ import annotations

from gapless.testing.store_contract.case import StoreCase

SHORT_SECONDS = 0.3
LONG_SECONDS = 60.0


class LeaseContract(StoreCase):
    """What the lease methods promise."""

    def test_a_held_lease_is_not_granted_to_another(self) -> None:
        """Others get nothing while it lives; leases of other names are others."""
        with self.opened() as first, self.opened() as second:
            mine = first.acquire("one", "a", LONG_SECONDS)
            assert mine is not None
            assert (mine.name, mine.holder, mine.token) == ("one", "a", 1)
            assert second.acquire("one", "b", LONG_SECONDS) is None
            assert second.acquire("two", "b", LONG_SECONDS) is not None
            shown = {lease.name: lease for lease in second.leases()}
            assert (shown["one"].holder, shown["one"].token, shown["one"].live) == ("a", 1, True)
            assert LONG_SECONDS - 20 < shown["one"].expires_in_seconds <= LONG_SECONDS

    def test_an_expired_lease_is_granted_with_a_greater_token(self) -> None:
        """And whoever held it before can neither renew nor release it."""
        with self.opened() as store:
            old = store.acquire("one", "a", SHORT_SECONDS)
            assert old is not None
            assert store.acquire("one", "b", SHORT_SECONDS) is None
            self.let_pass(SHORT_SECONDS + 0.1)
            assert not store.leases()[0].live
            new = store.acquire("one", "b", LONG_SECONDS)
            assert new is not None
            assert new.token > old.token
            assert not store.renew(old, LONG_SECONDS)
            store.release(old)
            [lease] = store.leases()
            assert (lease.holder, lease.token, lease.live) == ("b", new.token, True)

    def test_a_renewed_lease_lives_on(self) -> None:
        """Renewal prolongs it from now on and keeps the token; a shorter time shortens it."""
        with self.opened() as store:
            fence = store.acquire("one", "a", SHORT_SECONDS)
            assert fence is not None
            assert store.renew(fence, LONG_SECONDS)
            self.let_pass(SHORT_SECONDS + 0.1)
            assert store.acquire("one", "b", SHORT_SECONDS) is None
            assert store.renew(fence, SHORT_SECONDS)
            self.let_pass(SHORT_SECONDS + 0.1)
            assert store.acquire("one", "b", SHORT_SECONDS) is not None

    def test_an_expired_lease_that_nobody_took_can_be_renewed(self) -> None:
        """It is still ours: same holder, same token."""
        with self.opened() as store:
            fence = store.acquire("one", "a", SHORT_SECONDS)
            assert fence is not None
            self.let_pass(SHORT_SECONDS + 0.1)
            assert store.renew(fence, LONG_SECONDS)
            assert store.acquire("one", "b", LONG_SECONDS) is None

    def test_a_released_lease_is_free_at_once(self) -> None:
        """The token is not set back by it."""
        with self.opened() as store:
            tokens = []
            for holder in ("a", "b", "a", "a"):
                fence = store.acquire("one", holder, LONG_SECONDS)
                assert fence is not None
                tokens.append(fence.token)
                store.release(fence)
                store.release(fence)
                assert not store.leases()[0].live
                assert not store.renew(fence, LONG_SECONDS)
            assert tokens == sorted(set(tokens))

    def test_a_holder_of_the_same_name_waits_too(self) -> None:
        """Two processes may have one name (containers): a live lease is held, whoever asks."""
        with self.opened() as store:
            first = store.acquire("one", "host:1", LONG_SECONDS)
            assert first is not None
            assert store.acquire("one", "host:1", LONG_SECONDS) is None
            assert store.renew(first, LONG_SECONDS)

    def test_leases_outlive_their_process(self) -> None:
        """Reopening neither frees a lease nor forgets its token."""
        with self.opened() as store:
            fence = store.acquire("one", "a", LONG_SECONDS)
            assert fence is not None
        with self.opened() as store:
            assert store.acquire("one", "b", LONG_SECONDS) is None
            assert store.renew(fence, LONG_SECONDS)

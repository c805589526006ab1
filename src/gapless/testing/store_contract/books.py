"""The operator's books."""

from __future__ import annotations

from gapless.model import Gap, Mode, SourceReport
from gapless.testing.store_contract.case import StoreCase
from gapless.testing.store_contract.sample import OTHER_SOURCE, SOURCE, Chain

A_TIME_US = 1_700_000_000_123_456


class LedgerContract(StoreCase):
    """What gaps, quarantine, flags and reports promise."""

    def test_a_gap_keeps_the_time_it_was_first_seen(self) -> None:
        """Recording it again updates reason and attempts."""
        with self.opened() as store:
            store.record_gap(Gap(SOURCE, 5, 9, "pruned", A_TIME_US))
            store.record_gap(Gap(SOURCE, 5, 9, "still pruned ☃", A_TIME_US + 1, 4))
            store.record_gap(Gap(SOURCE, 1, 2, "rows differ", A_TIME_US))
            store.record_gap(Gap(OTHER_SOURCE, 5, 9, "other", A_TIME_US))
            assert store.gaps(SOURCE) == [
                Gap(SOURCE, 1, 2, "rows differ", A_TIME_US, 0),
                Gap(SOURCE, 5, 9, "still pruned ☃", A_TIME_US, 4),
            ]
            assert len(store.gaps(OTHER_SOURCE)) == 1

    def test_gaps_are_cut_to_what_remains(self) -> None:
        """Clearing a range forgets what lies inside and leaves both ends of what reaches beyond."""
        with self.opened() as store:
            for first, last in ((0, 3), (2, 20), (8, 12), (18, 30), (40, 50)):
                store.record_gap(Gap(SOURCE, first, last, f"{first}", A_TIME_US, first))
            store.clear_gaps(SOURCE, 3, 18)
            found = [(g.first, g.last, g.reason, g.attempts) for g in store.gaps(SOURCE)]
            assert found == [(0, 2, "0", 0), (2, 2, "2", 2), (19, 20, "2", 2), (19, 30, "18", 18), (40, 50, "40", 40)]
            store.clear_gaps(SOURCE, -(10**6), 10**6)
            assert store.gaps(SOURCE) == []

    def test_quarantine_is_listed_and_discarded_by_id(self) -> None:
        """Ids are given once; discarding says how many there were."""
        chain = Chain(seed=100).extend(14)
        with self.filled(chain) as (store, _):
            rows = store.quarantine()
            assert [r.item.position for r in rows] == [3, 8, 13]
            assert rows == store.quarantine(SOURCE)
            assert store.quarantine(OTHER_SOURCE) == []
            assert all(r.attempts == 0 and r.created_us > 0 for r in rows)
            assert len({r.id for r in rows}) == 3
            assert store.discard_quarantine([]) == 0
            assert store.discard_quarantine([rows[0].id, rows[2].id, 10**12]) == 2
            assert store.quarantine() == [rows[1]]

    def test_flags_are_set_and_removed(self) -> None:
        """A flag without value is not there."""
        with self.opened() as store:
            store.set_flag("writes_enabled", "false")
            store.set_flag("inflight_max", "10")
            store.set_flag("inflight_max", "20")
            store.set_flag("unknown", None)
            assert store.flags() == {"inflight_max": "20", "writes_enabled": "false"}
            store.set_flag("writes_enabled", None)
        with self.opened() as store:
            assert store.flags() == {"inflight_max": "20"}

    def test_a_report_comes_back(self) -> None:
        """Also of a source that is not bound yet, and with anything left out; counters of forks are not touched."""
        with self.opened() as store:
            assert store.reported(SOURCE) == SourceReport()
            said = SourceReport(Mode.DEGRADED, "the endpoint is down ☃", 120, A_TIME_US, 56, A_TIME_US + 1)
            store.report(SOURCE, said)
            assert store.reported(SOURCE) == said
            assert store.source(SOURCE) is None
            assert store.cursor(SOURCE) is None
            less = SourceReport(Mode.HALTED, updated_us=A_TIME_US + 2, reorgs=9, reorg_deepest=9)
            store.report(SOURCE, less)
            assert store.reported(SOURCE) == SourceReport(Mode.HALTED, updated_us=A_TIME_US + 2)
        chain = Chain(seed=101).extend(3)
        with self.filled(chain) as (store, fence):
            expected = chain.cursor()
            ancestor = chain.fork(2)
            store.commit(chain.extend(2).batch(1, rewind_to=ancestor), expected, fence)
            store.report(SOURCE, less)
            assert (store.reported(SOURCE).reorgs, store.reported(SOURCE).reorg_deepest) == (1, 2)
            assert store.cursor(SOURCE) == chain.cursor()

"""Engines, stores and sources broken on purpose, one fault each. The simulation must notice every one.

A fault is put in for the length of a `with`, by replacing one function of the product."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from unittest.mock import patch

from gapless.engine import plan
from gapless.engine.derive import Deriver
from gapless.engine.follow import Follower
from gapless.engine.lease import LeaseKeeper
from gapless.engine.pipeline import Pipeline
from gapless.engine.state import StateCache
from gapless.errors import CommitUnknown, StoreUnavailable
from gapless.model import Cursor, Fence
from gapless.sources.evm import verify
from gapless.sources.evm.reader import Reader
from gapless.sources.evm.rpc import HEAD, Call
from gapless.sources.evm.source import EvmSource
from gapless.store.memory import MemoryStore
from gapless.store.memory_books import MemoryBooks
from gapless.testing import DuplicateLog, ForeignBlock, ForeignReceipts, Html, ReceiptsMiscounted, Unlinked


@dataclass(frozen=True)
class Broken:
    """One fault: what it replaces, by (owner, name, replacement)."""

    name: str
    what: str
    replacements: tuple[tuple[Any, str, Any], ...]
    seeds_max: int
    """So many seeds at most until it is noticed."""
    first: int = 1
    """The first seed tried: where it takes many, a later one spares time."""
    setting: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the plan in the place of those that each seed draws, for what shows in one kind of setting only."""

    @contextmanager
    def put_in(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, replacement in self.replacements:
                stack.enter_context(patch.object(owner, name, replacement))
            yield


def _torn_commit() -> Callable[..., None]:
    """The cursor moves in a transaction of its own, and now and then the other one does not follow."""
    whole, calls = MemoryStore.commit, count(1)

    def commit(self: MemoryStore, batch: Any, expected: Any, fence: Any) -> None:
        if next(calls) % 7 == 0:
            self._check_fence(fence)
            data = self._source(batch.source)
            self._check_cursor(batch.source, data.cursor, expected)
            data.cursor = batch.entries[-1].cursor
            raise StoreUnavailable("between the two")
        whole(self, batch, expected, fence)

    return commit


def _blind_retry() -> Callable[..., Any]:
    """A commit that nobody knows the outcome of is done again, as if it had failed."""

    async def commit(self: Pipeline, derivation: Any, batch: Any, expected: Any, stretch: Any) -> None:
        lane = self._lane
        for _ in range(3):
            try:
                await lane.offload.write(lambda: lane.store.commit(batch, expected, stretch.fence))
            except CommitUnknown:
                continue
            break
        lane.deriver.committed(derivation.number)
        self._committed(stretch.head)

    return commit


def _granted_twice(self: MemoryBooks, name: str, holder: str, ttl_seconds: float) -> Fence:
    """Whoever asks gets the lease, under the token that is out already."""
    _, token, _ = self.database.leases.get(name, ("", 1, 0))
    until = self._clock.now_us() + round(ttl_seconds * 1e6)
    self.database.leases[name] = (holder, token, until)
    return Fence(name, holder, token)


def _token_only(self: MemoryStore, fence: Fence) -> None:
    if self.database.leases.get(fence.name, ("", 0, 0))[1] != fence.token:
        raise StoreUnavailable("another token")


def _doubling_replace(self: MemoryStore, batch: Any, fence: Any) -> None:
    self._check_fence(fence)
    self._write(self._source(batch.source), batch)


def _all_final() -> Callable[..., None]:
    whole = StateCache.begin_entry
    return lambda self, position, final: whole(self, position, final=True)


def _evicting() -> Callable[..., None]:
    whole = StateCache._evict

    def evict(self: StateCache) -> None:
        self._dirty.clear()
        whole(self)

    return evict


def _never_rewinding() -> Callable[..., Any]:
    whole = Deriver.derive
    return lambda self, segment, **given: whole(self, segment, **{**given, "rewind_to": None})


def _keeping_facts() -> Callable[..., None]:
    """Entries go, their rows stay."""

    def remove(self: MemoryStore, source: str, data: Any, first: int, last: int) -> None:
        for position in [p for p in data.entries if first <= p <= last]:
            del data.entries[position]
        self.clear_gaps(source, first, last)

    return remove


def _first_of_two(group: list[Any], header: Any) -> list[Any]:
    """Logs are put in order, and nobody minds two with one index."""
    return sorted(group, key=lambda log: int(log.log_index, 16))


def _loose_headers() -> Callable[..., Any]:
    whole = verify.check_headers

    def check_headers(found: Any, first: int, last: int, parent_id: Any, *rest: Any, **named: Any) -> Any:
        return [
            header
            for position in range(first, last + 1)
            for header in whole(
                found[position - first : position - first + 1], position, position, None, *rest, **named
            )
        ]

    return check_headers


async def _any_ids(self: Reader, positions: Sequence[int]) -> list[Cursor | None]:
    calls = [Call("eth_getBlockByNumber", (hex(position), False)) for position in positions]
    found = await self._batched("headers", calls, HEAD)
    return [None if block is None else Cursor(at, block.hash) for at, block in zip(positions, found, strict=True)]


def _any_receipts(header: Any, transactions: Any, receipts: Any, *_: Any) -> list[Any]:
    return [log for receipt in receipts if receipt is not None for log in receipt.logs]


async def _deaf(self: Follower, start: int, fence: Any) -> Any:
    """A fork is seen, and nothing is done about it."""
    return await self._stand(start)


BROKEN: tuple[Broken, ...] = (
    Broken(
        "commits_without_fence",
        "the database does not look at the token",
        ((MemoryStore, "_check_fence", lambda self, fence: None),),
        60,
    ),
    Broken(
        "cursor_before_rows",
        "the cursor moves before the rows are there",
        ((MemoryStore, "commit", _torn_commit()),),
        5,
    ),
    Broken(
        "facts_not_undone",
        "a fork leaves the rows of the old branch",
        ((MemoryStore, "_remove", _keeping_facts()),),
        20,
    ),
    Broken(
        "state_not_undone",
        "a fork leaves state as the old branch made it",
        ((MemoryStore, "_restored", lambda self, data, ancestor: []),),
        40,
    ),
    Broken(
        "overlay_forgotten",
        "on a fork, handlers read state as the old branch left it",
        ((MemoryStore, "state_before", lambda self, source, ancestor: []),),
        60,
    ),
    Broken(
        "numbers_only",
        "whatever has the next number continues the chain",
        (
            (plan, "links", lambda cursor, first, start: first.position == cursor.position + 1),
            (plan, "head_contradicts", lambda cursor, head: False),
            (MemoryStore, "_check_cursor", lambda self, source, stored, expected: None),
        ),
        20,
    ),
    Broken(
        "dedup_off",
        "a log that comes twice is taken twice",
        ((verify, "_in_order", _first_of_two),),
        60,
        setting={"lies": (DuplicateLog(),)},
    ),
    Broken(
        "blind_retry",
        "a commit of unknown outcome is tried again, and nothing compares the cursor",
        (
            (Pipeline, "_commit", _blind_retry()),
            (MemoryStore, "_check_cursor", lambda self, source, stored, expected: None),
        ),
        40,
    ),
    Broken(
        "lease_granted_twice",
        "two processes are given one lease",
        ((MemoryBooks, "acquire", _granted_twice), (MemoryStore, "_check_fence", _token_only)),
        20,
    ),
    Broken(
        "bloom_unread",
        "an empty answer is believed whatever the bloom says",
        ((verify, "_admits", lambda value, clauses: False),),
        100,
    ),
    Broken(
        "everything_final",
        "finality is ignored: no entry can be undone",
        ((StateCache, "begin_entry", _all_final()),),
        40,
    ),
    Broken(
        "mending_doubles",
        "what is fetched again is put beside what was there",
        ((MemoryStore, "replace", _doubling_replace),),
        60,
        first=30,
    ),
    Broken(
        "uncommitted_kept",
        "after a failed commit, state in memory stays as if it had not failed",
        ((Deriver, "reset", lambda self, before=(): None),),
        20,
    ),
    Broken(
        "memory_trusted",
        "back in the lead, state in memory is taken for the database's",
        ((Pipeline, "forget", lambda self: None),),
        60,
        first=31,
    ),
    Broken(
        "evicts_uncommitted",
        "the cache drops what the database does not have",
        ((StateCache, "_evict", _evicting()),),
        60,
    ),
    Broken(
        "never_rewinds", "a new branch is written on top of the old one", ((Deriver, "derive", _never_rewinding()),), 20
    ),
    Broken("deaf_to_forks", "a fork is seen and not followed", ((Follower, "_switch", _deaf),), 20),
    Broken(
        "trusts_for_ever",
        "a lease is trusted although it could not be renewed, and nothing checks it",
        (
            (LeaseKeeper, "fence", property(lambda self: self._fence)),
            (MemoryStore, "_check_fence", lambda self, fence: None),
        ),
        60,
    ),
    Broken(
        "never_asks_for_less",
        "a range that takes longer than one fetch may is asked for again as it was (what seed 26 found)",
        ((EvmSource, "_ask_for_less", lambda self, positions: None),),
        60,
        setting={"request_seconds": 3.0, "latency_seconds": 0.6},
    ),
    Broken(
        "made_up_ids_believed",
        "ids that do not link tell where branches part (what seed 209 found)",
        ((Reader, "cursors", _any_ids),),
        60,
        first=20,
        setting={
            "nodes": 2,
            "verify": "checked",
            "lies": (Unlinked(),),
            "faults": (Html(200),),
            "events": {"mine": 3.0, "fork": 1.0, "ease": 0.5},
            "steps": 50,
        },
    ),
    Broken(
        "links_unchecked",
        "headers of one range need not link",
        ((verify, "check_headers", _loose_headers()),),
        60,
        setting={"lies": (ForeignBlock(), Unlinked())},
    ),
    Broken(
        "receipts_unchecked",
        "receipts are taken as they come",
        ((verify, "check_receipts", _any_receipts),),
        60,
        setting={"lies": (ForeignReceipts(), ReceiptsMiscounted())},
    ),
)

"""The EVM decoder: a segment's logs and transactions to the rows of contract tables and datasets.

One pass over the logs hands each to the events it belongs to, found by its first topic, its address and its number of
topics; then each event's logs are decoded together (`events.py`).

What happens to a log whose first topic is an event's, but which has another number of topics:

- a contract with given addresses: it is broken, and quarantined. The contract is known to be of this ABI
- a contract at any address: it is another event. ERC-20's and ERC-721's `Transfer` have one signature and differ in
  what is indexed, so most such logs are simply of the other standard; they are left alone

A log of the right number of topics that does not decode is quarantined for both. An anonymous event takes the logs of
its address that have its number of topics and no first topic of a named event of the ABI.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from gapless.errors import ConfigError
from gapless.model import Quarantined, Segment
from gapless.schema import Rows, Table
from gapless.sources import Decoded, Events
from gapless.sources.evm.contracts import ContractSpec, log_clauses
from gapless.sources.evm.datasets import DATASETS, dataset_table, decode_dataset, log_item
from gapless.sources.evm.events import EventCodec, words_only
from gapless.sources.evm.rows import Blocks
from gapless.sources.evm.types import EvmPayload, Log, Wants

if TYPE_CHECKING:
    from gapless.sources.evm.logtable import LogTable
    from gapless.sources.evm.packing import Packer

_LOG_INDEX = 5
"""Place of log_index among the columns of an event table."""


@dataclass(frozen=True, slots=True)
class _Target:
    """An event of a contract, and the table its logs go to."""

    codec: EventCodec
    table: Table
    name: str
    """`<contract>.<Event>`."""


@dataclass(frozen=True, slots=True)
class _Route:
    """Where one contract's logs of one first topic go: targets by number of topics, as places in the decoder's list."""

    addresses: frozenset[str] | None
    by_count: dict[int, int]
    misshapen: int | None
    """Target that quarantines logs of any other number of topics; None where these are another event."""


@dataclass(frozen=True, slots=True)
class _AnonymousRoute:
    by_count: dict[int, int]
    named_topics: frozenset[str]


@dataclass(slots=True)
class _Bucket:
    """Logs of one target in a segment."""

    logs: list[Log] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """How many there are after each block."""

    def counts(self) -> list[int]:
        return [b - a for a, b in pairwise([0, *self.ends])]


class EvmDecoder:
    """Decodes segments of one source. Implements `gapless.sources.Decoder`."""

    def __init__(
        self,
        source: str,
        contracts: Sequence[ContractSpec],
        datasets: frozenset[str] = frozenset(),
        subscribed: frozenset[str] = frozenset(),
        prefix: str = "",
    ) -> None:
        """`subscribed`: names `<contract>.<Event>` whose columns handlers want. `prefix`: for the datasets' tables,
        where another source of the app has the same ones. Raises ConfigError for names that do not exist."""
        self.source = source
        self._contracts = tuple(contracts)
        _check_names(datasets, DATASETS, "dataset")
        self._datasets = {d: dataset_table(d, source, prefix) for d in DATASETS if d in datasets}
        self._targets = [
            _Target(EventCodec(e), c.table(e, source), c.event_name(e)) for c in contracts for e in c.events
        ]
        _check_names(subscribed, [t.name for t in self._targets], "event")
        self._subscribed = subscribed
        self._addresses = [c.addresses for c in contracts for _ in c.events]
        self._packer: Packer | None = None
        self._routes: dict[str, list[_Route]] = {}
        self._anonymous: dict[str, list[_AnonymousRoute]] = {}
        place = 0
        for contract in contracts:
            self._add_routes(contract, place)
            place += len(contract.events)

    def _add_routes(self, contract: ContractSpec, first: int) -> None:
        named: dict[str, dict[int, int]] = {}
        anonymous: dict[int, int] = {}
        for place, event in enumerate(contract.events, first):
            counts = anonymous if event.anonymous else named.setdefault(event.topic0, {})
            counts[event.topic_count] = place
        for topic, counts in named.items():
            misshapen = None if contract.addresses is None else min(counts.values())
            self._routes.setdefault(topic, []).append(_Route(contract.addresses, counts, misshapen))
        if anonymous:
            route = _AnonymousRoute(anonymous, contract.named_topics | named.keys())
            for address in contract.addresses or ():
                self._anonymous.setdefault(address, []).append(route)

    def tables(self) -> tuple[Table, ...]:
        """Every table this decoder fills."""
        return (*(t.table for t in self._targets), *self._datasets.values())

    def event_names(self) -> tuple[str, ...]:
        """Everything a handler can subscribe to, in the order of `tables`."""
        return tuple(t.name for t in self._targets)

    def wants(self) -> Wants:
        """What has to be fetched for these tables."""
        return Wants(
            logs=log_clauses(self._contracts),
            all_logs="logs" in self._datasets,
            whole_blocks="transactions" in self._datasets,
            as_columns=not self._anonymous and all(words_only(t.codec.event) for t in self._targets),
        )

    def decode(self, segment: Segment[EvmPayload]) -> Decoded:
        """Rows of every table, columns of every subscribed event, and what did not decode.

        Raises DecodeError for a block time that no database holds."""
        blocks, payload = Blocks.of(segment), segment.payload
        quarantined: list[Quarantined] = []
        found = None if payload.table is None else self._packed(blocks, payload.table)
        if found is None:
            table = payload.table
            logs = payload.logs if table is None else table.logs(payload.counts)
            found = self._decoded(blocks, logs, quarantined)
        events = [Events(target.name, rows, _order(rows)) for target, rows in found if target.name in self._subscribed]
        all_rows = [rows for _, rows in found]
        for dataset, table_ in self._datasets.items():
            rows, odd = decode_dataset(dataset, table_, payload, blocks)
            all_rows.append(rows)
            quarantined += odd
        return Decoded(tuple(all_rows), tuple(events), tuple(quarantined))

    def _decoded(
        self, blocks: Blocks, logs: Sequence[Sequence[Log]], quarantined: list[Quarantined]
    ) -> list[tuple[_Target, Rows]]:
        """The rows of each event that has some, from logs as objects; those that do not decode are added to
        `quarantined`."""
        found: list[tuple[_Target, Rows]] = []
        for target, bucket in zip(self._targets, self._sorted_out(logs), strict=True):
            if not bucket.logs:
                continue
            decoded = target.codec.decode(bucket.logs)
            counts = bucket.counts()
            rows = blocks.rows(target.table, decoded.columns, counts, decoded.odd)
            if decoded.odd:
                quarantined += blocks.quarantined(target.table.name, bucket.logs, counts, decoded.odd, log_item)
            if len(rows):
                found.append((target, rows))
        return found

    def _packed(self, blocks: Blocks, logs: LogTable) -> list[tuple[_Target, Rows]] | None:
        """The same from logs as columns. None where one of them is not exactly of its event."""
        if self._packer is None:
            from gapless.sources.evm.packing import Packer

            self._packer = Packer([(t.codec.event, r) for t, r in zip(self._targets, self._addresses, strict=True)])
        packed = self._packer.pack(blocks, logs)
        if packed is None:
            return None
        return [
            (target, Rows.of_packed(target.table, *rows))
            for target, rows in zip(self._targets, packed, strict=True)
            if rows is not None
        ]

    def _sorted_out(self, logs_by_block: Sequence[Sequence[Log]]) -> list[_Bucket]:
        """Hand each log to the targets it belongs to. The hot loop: everything it needs is a local name."""
        buckets = [_Bucket() for _ in self._targets]
        if not buckets:
            return []
        appends = [b.logs.append for b in buckets]
        ends = [(b.logs, b.ends.append) for b in buckets]
        routes, anonymous = self._routes.get, self._anonymous
        for logs in logs_by_block:
            for log in logs:
                topics = log.topics
                if topics:
                    # Answers are in lower case nearly always, so other cases are looked at only where nothing is found.
                    found = routes(topics[0]) or routes(topics[0].lower())
                    if found:
                        for route in found:
                            addresses = route.addresses
                            if addresses is None or log.address in addresses or log.address.lower() in addresses:
                                place = route.by_count.get(len(topics), route.misshapen)
                                if place is not None:
                                    appends[place](log)
                if anonymous:
                    for place in self._anonymous_places(log):
                        appends[place](log)
            for bucket, end in ends:
                end(len(bucket))
        return buckets

    def _anonymous_places(self, log: Log) -> list[int]:
        first = log.topics[0].lower() if log.topics else ""
        return [
            route.by_count[len(log.topics)]
            for route in self._anonymous.get(log.address.lower(), ())
            if first not in route.named_topics and len(log.topics) in route.by_count
        ]


def _order(rows: Rows) -> list[tuple[int, int]]:
    return list(zip(map(int, rows.columns[0]), map(int, rows.columns[_LOG_INDEX]), strict=True))  # type: ignore[arg-type]


def _check_names(names: frozenset[str], known: Sequence[str], what: str) -> None:
    for name in sorted(names.difference(known)):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(sorted(known)) or 'none'}."
        raise ConfigError(f"There is no {what} {name!r}", todo=hint)

"""From a segment to a batch: decode, run handlers, digest. Synchronous; runs on the deriving thread.

The one path for live, backfill, repair and replay. Entries before a failing one are kept: the batch then ends just
below it and `Derivation.failure` says why it goes no further.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

from gapless.arrow import rows_batch
from gapless.digest import entry_digests
from gapless.engine.handlers import Handler, TableBinding
from gapless.engine.state import Key, Reader, StateCache
from gapless.engine.tables import Tables, build_tables
from gapless.errors import GaplessError, HandlerFailed
from gapless.model import Cursor, Entry, Quarantined, Segment, Undo
from gapless.schema import Rows, Table, canonical_json, python_column
from gapless.sources import AnyDecoder, Decoded, Events
from gapless.store import Batch, StateRow


@dataclass(frozen=True, slots=True)
class Derivation:
    """A batch, its number for the state cache, and why it ends early (if it does)."""

    batch: Batch | None
    number: int
    failure: GaplessError | None = None
    skipped: frozenset[str] = frozenset()
    """User fact tables whose handlers needed state in a stateless derivation: their rows are not in the batch."""
    skipped_handlers: frozenset[str] = frozenset()
    """These handlers: nothing is known of what they would have done, nor of what they could not take."""


@dataclass(frozen=True, slots=True)
class _Event:
    position: int
    index: int
    record: Any
    handlers: Sequence[Handler]


class Deriver:
    """Turns segments of one source into batches. Not thread-safe: one thread at a time.

    Without `read_state` it is stateless: a handler that touches state is skipped for that event. For replacing and
    verifying facts in the middle, where state as it was is not known."""

    def __init__(
        self,
        source: str,
        decoder: AnyDecoder,
        handlers: Sequence[Handler],
        bindings: Sequence[TableBinding],
        read_state: Reader | None,
        state_cache_rows_max: int,
    ) -> None:
        self._source = source
        self._decoder = decoder
        self._bindings = tuple(bindings)
        self._single: dict[str, list[Handler]] = {}
        self._batched: dict[str, list[Handler]] = {}
        for handler in handlers:
            (self._batched if handler.batch else self._single).setdefault(handler.event, []).append(handler)
        self._stateless = read_state is None
        self._cache = StateCache(read_state or _no_state, state_cache_rows_max)
        self._tables, self._facts = build_tables(self._bindings, self._cache)
        self._record_types: dict[str, Any] = {}
        self._skipped: set[str] = set()
        self._skipped_handlers: set[str] = set()

    @property
    def has_state(self) -> bool:
        return any(b.is_state for b in self._bindings)

    def reset(self, as_of_ancestor: Sequence[Undo] = ()) -> None:
        """Forget what was derived but not committed."""
        self._cache.reset(as_of_ancestor)

    def committed(self, number: int) -> None:
        self._cache.committed(number)

    def derive(
        self,
        segment: Segment[Any],
        *,
        finalized: int,
        head: int | None = None,
        rewind_to: Cursor | None = None,
    ) -> Derivation:
        """The batch of a segment. Entries above `finalized` get undo records."""
        self._skipped.clear()
        self._skipped_handlers.clear()
        decoded = self._decoder.decode(segment)
        entries = segment.entries
        self._cache.begin_batch()
        for facts in self._facts:
            facts.begin_batch()
        quarantined = list(decoded.quarantined)
        done, failure = len(entries), None
        if self._batched:
            done, failure = self._run_batched(decoded, entries, quarantined)
        if self._single:
            single_done, single_failure = self._run_single(decoded, entries[:done], finalized, quarantined)
            if single_failure is not None:
                done, failure = single_done, single_failure
        number, changes, undo = self._cache.take_batch()
        rows = [*decoded.rows, *(facts.take(entries) for facts in self._facts)]
        if done < len(entries):
            entries = entries[:done]
            rows = [r.part(0, done) for r in rows]
            quarantined = [q for q in quarantined if entries and q.position <= entries[-1].position]
        if not entries:
            return Derivation(None, number, failure)
        rows = [r for r in rows if len(r)]
        digests, counts = entry_digests(entries, rows)
        batch = Batch(
            source=segment.source,
            entries=entries,
            digests=tuple(digests),
            counts=tuple(counts),
            rows=tuple(rows),
            changes=() if self._stateless else changes,
            undo=() if self._stateless else undo,
            quarantined=tuple(quarantined),
            rewind_to=rewind_to,
            head=head,
            finalized=finalized,
        )
        return Derivation(batch, number, failure, frozenset(self._skipped), frozenset(self._skipped_handlers))

    def state_rows(self, table: Table) -> list[StateRow]:
        """The state rows in memory; everything, where the cache was made to keep everything."""
        return self._cache.rows(table)

    # --- per-event handlers -----------------------------------------------------------------------------------------

    def _run_single(
        self, decoded: Decoded, entries: Sequence[Entry], finalized: int, quarantined: list[Quarantined]
    ) -> tuple[int, GaplessError | None]:
        """Run the per-event handlers in chain order. Returns how many entries were done, and the failure."""
        queue = self._in_order(decoded.events)
        upcoming = next(queue, None)
        for done, entry in enumerate(entries):
            self._cache.begin_entry(entry.position, final=entry.position <= finalized)
            self._cache.savepoint()
            while upcoming is not None and upcoming.position == entry.position:
                failure = self._call(upcoming, quarantined)
                if failure is not None:
                    self._cache.rollback()
                    return done, failure
                upcoming = next(queue, None)
            self._cache.release()
        return len(entries), None

    def _in_order(self, all_events: Sequence[Events]) -> Iterator[_Event]:
        merged: list[_Event] = []
        for events in all_events:
            handlers = self._single.get(events.name)
            if not handlers:
                continue
            record_type = self._record_type(events)
            columns = [python_column(c, v) for c, v in zip(events.rows.table.columns, events.rows.columns, strict=True)]
            for (position, index), values in zip(events.order, zip(*columns, strict=True), strict=True):
                merged.append(_Event(position, index, record_type._make(values), handlers))
        merged.sort(key=lambda e: (e.position, e.index))
        return iter(merged)

    def _record_type(self, events: Events) -> Any:
        if events.name not in self._record_types:
            name = events.name.rsplit(".", 1)[-1]
            typename = name if name.isidentifier() and not iskeyword(name) else "Event"
            names = [c.name for c in events.rows.table.columns]
            self._record_types[events.name] = namedtuple(typename, names)
        return self._record_types[events.name]

    def _call(self, event: _Event, quarantined: list[Quarantined]) -> GaplessError | None:
        """Raises what reading state raised: a database that is away is not the handler's failure."""
        for handler in event.handlers:
            for facts in self._facts:
                facts.begin_event(event.position, event.index)
            marks = [facts.mark() for facts in self._facts]
            self._cache.savepoint()
            error = _raised(handler, event.record, self._tables)
            trouble = self._cache.take_trouble()
            if error is None and trouble is None:
                self._cache.release()
                continue
            self._take_back(marks)
            if isinstance(trouble, StateUnavailable):
                self._skipped.update(b.table.name for b in self._bindings if not b.is_state)
                self._skipped_handlers.add(handler.name)
            elif trouble is not None:
                raise trouble
            elif error is not None and not handler.independent:
                return _failed(self._source, handler, event, error)
            elif error is not None:
                quarantined.append(_quarantined(self._source, handler, event, error))
        return None

    def _take_back(self, marks: Sequence[int]) -> None:
        self._cache.rollback()
        for facts, mark in zip(self._facts, marks, strict=True):
            facts.cut(mark)

    # --- batch handlers ---------------------------------------------------------------------------------------------

    def _run_batched(
        self, decoded: Decoded, entries: Sequence[Entry], quarantined: list[Quarantined]
    ) -> tuple[int, GaplessError | None]:
        done, failure = len(entries), None
        for facts in self._facts:
            facts.end_events()
        for events in decoded.events:
            for handler in self._batched.get(events.name, ()):
                done_here, failed = self._call_batched(handler, events, entries, quarantined)
                if failed is not None and done_here < done:
                    done, failure = done_here, failed
        return done, failure

    def _call_batched(
        self, handler: Handler, events: Events, entries: Sequence[Entry], quarantined: list[Quarantined]
    ) -> tuple[int, GaplessError | None]:
        """One call for the whole run; if it raises, entry by entry, to find and keep what is before the fault."""
        if self._try_batch(handler, events.rows) is None:
            return len(entries), None
        for done, entry in enumerate(entries):
            rows = events.rows.part(done, done + 1)
            error = self._try_batch(handler, rows)
            if error is None:
                continue
            if not handler.independent:
                return done, _failed(self._source, handler, _Event(entry.position, -1, None, ()), error)
            quarantined.append(_quarantined_rows(self._source, handler, entry.position, rows, error))
        return len(entries), None

    def _try_batch(self, handler: Handler, rows: Rows) -> BaseException | None:
        if not len(rows):
            return None
        marks = [facts.mark() for facts in self._facts]
        try:
            handler.function(rows_batch(rows), self._tables)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - user code may raise anything; it is kept as the cause
            for facts, mark in zip(self._facts, marks, strict=True):
                facts.cut(mark)
            return error
        return None


class StateUnavailable(GaplessError):
    """A stateless derivation met a handler that needs state."""


def _raised(handler: Handler, record: Any, tables: Tables) -> BaseException | None:
    try:
        handler.function(record, tables)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code may raise anything; it is kept as the cause
        return error
    return None


def _no_state(table: Table, _keys: Sequence[Key]) -> dict[Key, StateRow]:
    raise StateUnavailable(f"State table {table.name!r} cannot be read here")


def _failed(source: str, handler: Handler, event: _Event, error: BaseException) -> HandlerFailed:
    where = f"block {event.position}"
    if event.index >= 0:
        where += f", transaction {event.record.transaction_hash}, log {event.index}"
    failure = HandlerFailed(
        f"Handler {handler.name!r} raised {type(error).__name__}: {error} at {where}",
        source=source,
        position=event.position,
        todo="The blocks before it are committed. Mend the handler and run again, or declare it independent, so that "
        "such events go to quarantine.",
    )
    failure.__cause__ = error
    return failure


def _quarantined(source: str, handler: Handler, event: _Event, error: BaseException) -> Quarantined:
    return Quarantined(
        source=source,
        position=event.position,
        item=f"log:{event.index}",
        consumer=handler.name,
        reason=f"{type(error).__name__}: {error}",
        payload=canonical_json({k: None if v is None else str(v) for k, v in event.record._asdict().items()}),
    )


def _quarantined_rows(source: str, handler: Handler, position: int, rows: Rows, error: BaseException) -> Quarantined:
    """An entry that a batch handler could not take, with all its events."""
    names = [c.name for c in rows.table.columns]
    return Quarantined(
        source=source,
        position=position,
        item="block",
        consumer=handler.name,
        reason=f"{type(error).__name__}: {error}",
        payload=canonical_json([dict(zip(names, row, strict=True)) for row in zip(*rows.columns, strict=True)]),
    )

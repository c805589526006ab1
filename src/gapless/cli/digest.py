"""`gapless digest`: one hash over everything a range of entries produced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, JsonOption, RangeOption, SourceOption, parse_range
from gapless.cli.project import load
from gapless.cli.steps import Steps

if TYPE_CHECKING:
    from gapless.schema import Schema
    from gapless.store import Store

_POSITIONS_AT_ONCE = 500


def digest(
    config: ConfigOption = None,
    range_: RangeOption = None,
    source: SourceOption = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Combine the digests written at commit instead of reading the rows.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print one hash for a range of entries.

    Equal tables have equal hashes on any machine and any database. It is computed from the rows as they are stored
    now. State tables have a hash of their own, of all they hold."""
    from gapless.digest import range_digest
    from gapless.engine.operate import bounds

    wanted = parse_range(range_)
    project = load(config)
    name = project.source(source)
    with project.store() as store:
        committed = bounds(store, name)
        first, last = committed.clip(wanted.first, wanted.last)
        reading = _recorded if stored else _computed
        digests: list[str] = []
        with Steps("digest", project.clock) as steps:
            for low in range(first, last + 1, _POSITIONS_AT_ONCE):
                high = min(low + _POSITIONS_AT_ONCE - 1, last)
                digests += reading(store, project.schema, name, low, high)
                steps.tick(high - first + 1, last - first + 1)
        state = _state(store, project.schema, name) if last == committed.cursor.position else None
    found = {"source": name, "range": [first, last], "entries": len(digests), "digest": range_digest(digests)}
    if len(digests) < last - first + 1:
        output.talk(f"{last - first + 1 - len(digests)} entries of the range are missing; see `gapless gaps`.")
    if as_json:
        output.document({**found, "state": state})
        return
    output.say(f"{found['digest']}  {name} {first}..{last}, {output.counted(len(digests), 'entry', 'entries')}")
    if state is not None:
        output.say(f"{state}  {name} state at {last}")


def _recorded(store: Store, _schema: Schema, source: str, first: int, last: int) -> list[str]:
    return [entry.digest for entry in store.entries(source, first, last)]


def _computed(store: Store, schema: Schema, source: str, first: int, last: int) -> list[str]:
    from gapless.digest import entry_digests
    from gapless.schema import Nature, Rows

    entries = [stored.entry for stored in store.entries(source, first, last)]
    places = {entry.position: place for place, entry in enumerate(entries)}
    rows = []
    for table in schema.of(source, Nature.FACT):
        columns, positions = store.facts(table, first, last)
        counts = [0] * len(entries)
        kept = [i for i, position in enumerate(positions) if position in places]
        for i in kept:
            counts[places[positions[i]]] += 1
        if len(kept) < len(positions):  # rows without an entry are not part of anything that was committed
            columns = [[column[i] for i in kept] for column in columns]
        rows.append(Rows(table, tuple(columns), tuple(counts)))
    return entry_digests(entries, rows)[0]


def _state(store: Store, schema: Schema, source: str) -> str | None:
    """Digest of the source's state tables; None where it has none."""
    from gapless.digest import state_digest
    from gapless.schema import Nature, escape

    def lines(table_rows: Iterator[tuple[str | None, ...]]) -> Iterator[str]:
        for values in table_rows:
            yield "\t".join("\\N" if value is None else escape(value) for value in values)

    tables = schema.of(source, Nature.STATE)
    if not tables:
        return None
    return state_digest((table.name, lines(row.values for row in store.state_rows(table))) for table in tables)

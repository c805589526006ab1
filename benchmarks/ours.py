"""Gapless as a user starts it, from an empty folder to the head; and the stripped loop beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contest import Command, Contender, Found, Place, Transfer, read_postgres, read_sqlite
from benchmarks.node import ROOT

TRANSFERS = "select block_number, log_index, from_, to_, value from {}token_transfer"
WHOLE_TABLES = ("blocks", "transactions", "logs")
GAPLESS = str(Path(sys.executable).with_name("gapless"))


def configuration(rpc: str, store: str, *, datasets: bool = False, options: str = "") -> str:
    """The gapless.toml of a run: every Transfer of any contract, and the raw tables where asked for."""
    raw = f"datasets = {json.dumps(WHOLE_TABLES)}\n" if datasets else ""
    return (
        f'[app]\nname = "bench"\n[store]\nurl = "{store}"\n'
        f'[sources.chain]\nkind = "evm"\nrpc = ["{rpc}"]\n{raw}{options}\n'
        f'[contracts.token]\nabi = "erc20"\nevents = ["Transfer"]\n'
    )


def gapless(store: str, *, whole: bool = False, options: str = "", note: str = "checked") -> Contender:
    """`gapless run --until head`. `store`: sqlite or postgres."""

    def command(place: Place) -> Command:
        url = place.database if store == "postgres" else f"sqlite:///{place.file}"
        text = configuration(place.rpc, url, datasets=whole, options=options)
        (place.folder / "gapless.toml").write_text(text)
        return Command((GAPLESS, "run", "--until", "head"))

    def found(place: Place) -> Found:
        prefix = "bench." if store == "postgres" else ""
        rows = _read(store, place, TRANSFERS.format(prefix))
        if not whole:
            return Found(rows)
        counts = [_read(store, place, f"select count(*) from {prefix}{table}")[0][0] for table in WHOLE_TABLES]
        return Found(rows, (counts[0], counts[1], counts[2]))

    sink = {"postgres": "Postgres", "sqlite": "SQLite"}[store]
    job = "whole" if whole else store
    return Contender(f"gapless, {note}", job, sink, command, found, wants_database=store == "postgres")


def gapless_archive() -> Contender:
    """`gapless archive`: Parquet files straight from the source. It takes final blocks only; here every block is."""

    def command(place: Place) -> Command:
        text = configuration(place.rpc, f"sqlite:///{place.file}", options='finality = "0 blocks"')
        (place.folder / "gapless.toml").write_text(text)
        return Command((GAPLESS, "archive", "out"))

    def found(place: Place) -> Found:
        from pyarrow import parquet

        files = sorted((place.folder / "out" / "token_transfer").glob("*.parquet"))
        return Found(row for file in files for row in _transfers_in(parquet.read_table(file)))

    return Contender("gapless, checked", "parquet", "Parquet", command, found)


def _transfers_in(table: Any) -> Iterator[Transfer]:
    columns = (table[name].to_pylist() for name in ("block_number", "log_index", "from_", "to_", "value"))
    return zip(*columns, strict=True)


def stripped(store: str) -> Contender:
    """The same bytes and rows with nothing in between."""

    def command(place: Place) -> Command:
        target = place.database if store == "postgres" else str(place.file)
        words = (sys.executable, "-m", "benchmarks.stripped", place.rpc, store, target)
        return Command(words, {"PYTHONPATH": str(ROOT)})

    def found(place: Place) -> Found:
        return Found(_read(store, place, TRANSFERS.format("bench." if store == "postgres" else "")))

    sink = {"postgres": "Postgres", "sqlite": "SQLite"}[store]
    return Contender("stripped loop", store, sink, command, found, wants_database=store == "postgres")


def _read(store: str, place: Place, sql: str) -> list[Any]:
    return read_postgres(place.database, sql) if store == "postgres" else read_sqlite(place.file, sql)


LEVELS = tuple(gapless("sqlite", options=f'verify = "{level}"', note=level) for level in ("off", "linked", "proved"))
"""Beside `checked`, which is what everybody gets."""
FAST = (
    gapless("postgres"),
    stripped("postgres"),
    gapless("sqlite"),
    stripped("sqlite"),
    *LEVELS,
    gapless("sqlite", whole=True),
    gapless("postgres", whole=True),
    gapless_archive(),
)
"""Everything of ours."""

"""Each peer as a contender: how it is installed, started and read. Pins and workarounds with their reasons."""

from __future__ import annotations

import csv
import itertools
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.chain import TRANSFER
from benchmarks.contest import (
    Command,
    Contender,
    Found,
    Place,
    Transfer,
    read_postgres,
    read_sqlite,
    run_postgres,
)
from benchmarks.peers import installing

TOKENS = ("0x5fbdb2315678afecb367f032d93f642f64180aa3", "0x8464135c8f25da09e49bc8782676a84730c318bc")
"""The two contracts of the measured chain: some peers cannot follow events of any address."""
_PORTS = itertools.count(42_100)
COLUMNS = "block, log_index, sender, receiver, value"


def _lowered(rows: list[Any]) -> Iterator[Transfer]:
    return ((block, index, sender.lower(), receiver.lower(), value) for block, index, sender, receiver, value in rows)


# --- into Postgres -------------------------------------------------------------------------------------------------


def _ponder() -> Contender:
    """Never ends by itself: its rows are counted every quarter of a second."""

    def command(place: Place) -> Command:
        def finished() -> bool:
            with suppress(Exception):  # the table is not there yet
                [(rows,)] = read_postgres(place.database, "select count(*) from bench.transfer")
                [(ready,)] = read_postgres(place.database, f"select count(*) from bench.transfer where block = {last}")
                return bool(rows and ready)
            return False

        last = place.head
        words = ("node", "node_modules/ponder/dist/esm/bin/ponder.js", "start", "--schema", "bench", "-p")
        shell = f"cd {shlex.quote(str(place.home))} && exec {shlex.join(words)} {next(_PORTS)}"
        environment = {
            "PATH": installing.node_path(),
            "BENCH_RPC": place.rpc,
            "BENCH_DATABASE": place.database,
            "BENCH_TOKENS": ",".join(TOKENS),
            "PONDER_TELEMETRY_DISABLED": "true",
        }
        return Command(("sh", "-c", shell), environment, finished)

    def found(place: Place) -> Found:
        rows = read_postgres(place.database, f"select {COLUMNS} from bench.transfer")
        return Found(_lowered(rows))

    return Contender(
        "ponder 0.17.7",
        "postgres",
        "Postgres",
        command,
        found,
        wants_database=True,
        install=lambda: installing.npm("ponder"),
    )


def _database(place: Place) -> tuple[str, str, str, str]:
    """Host, port, user and name."""
    parts = urlsplit(place.database)
    return str(parts.hostname), str(parts.port), str(parts.username), parts.path.lstrip("/")


def _sqd() -> Contender:
    table = (
        "create table transfer (id text primary key, block int, log_index int, transaction text, token text,"
        " sender text, receiver text, value text)"
    )

    def command(place: Place) -> Command:
        host, port, user, name = _database(place)
        environment = {
            "PATH": installing.node_path(),
            "BENCH_RPC": place.rpc,
            "BENCH_HEAD": str(place.head),
            "DB_HOST": host,
            "DB_PORT": port,
            "DB_USER": user,
            "DB_PASS": "none",
            "DB_NAME": name,
        }
        return Command(("sh", "-c", f"cd {shlex.quote(str(place.home))} && exec node main.js"), environment)

    def found(place: Place) -> Found:
        return Found(_lowered(read_postgres(place.database, f"select {COLUMNS} from transfer")))

    return Contender(
        "squid-sdk (evm-processor 1.27.3)",
        "postgres",
        "Postgres",
        command,
        found,
        wants_database=True,
        before_run=lambda place: run_postgres(place.database, table),
        install=lambda: installing.npm("sqd"),
    )


_ANY_BUILD = {
    f"{tool}_config_{name}": value
    for tool in ("npm", "pnpm")
    for name, value in (("strict_dep_builds", "false"), ("dangerously_allow_all_builds", "true"))
}
"""envio's code generation runs pnpm, which otherwise stops at packages with build scripts."""


def _envio() -> Contender:
    """HyperIndex without Hasura, over RPC: its own fast path is a remote service. The address is baked in."""

    def environment(rpc: str, head: int, database: tuple[str, str, str, str] = ("", "", "", "")) -> dict[str, str]:
        host, port, user, name = database
        home = installing.HOMES / "envio"
        return {
            **_ANY_BUILD,
            "PATH": f"{home}/node_modules/.bin:{installing.node_path()}",
            "BENCH_RPC": rpc,
            "BENCH_HEAD": str(head),
            "ENVIO_HASURA": "false",
            "ENVIO_PG_HOST": host,
            "ENVIO_PG_PORT": port,
            "ENVIO_PG_USER": user,
            "ENVIO_PG_PASSWORD": "none",
            "ENVIO_PG_DATABASE": name,
            "ENVIO_PG_SSL_MODE": "false",
            "ENVIO_INDEXER_PORT": "42090",
            "TUI_OFF": "true",
            "LOG_LEVEL": "info",
        }

    def prepare(home: Path, rpc: str) -> None:
        project = home / "project"
        installing.run(["envio", "codegen"], project, environment(rpc, 2001))
        link = project / "node_modules" / "generated"
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to("../generated")

    def before_run(place: Place) -> None:
        variables = environment(place.rpc, place.head, _database(place))
        installing.run(["envio", "local", "db-migrate", "setup"], place.home / "project", variables)

    def command(place: Place) -> Command:
        shell = f"cd {shlex.quote(str(place.home / 'project'))} && exec envio start"
        return Command(("sh", "-c", shell), environment(place.rpc, place.head, _database(place)))

    def found(place: Place) -> Found:
        columns = 'block, "logIndex", sender, receiver, value'
        return Found(_lowered(read_postgres(place.database, f'select {columns} from public."Transfer"')))

    return Contender(
        "envio 2.32.12",
        "postgres",
        "Postgres",
        command,
        found,
        wants_database=True,
        before_run=before_run,
        install=lambda: installing.npm("envio", below="project"),
        prepare=prepare,
    )


# --- into SQLite ---------------------------------------------------------------------------------------------------


def _dipdup() -> Contender:
    """8.6.2 needs Python 3.12: on 3.11 pip quietly takes 7.5.10."""

    def environment(place: Place | None = None) -> dict[str, str]:
        quiet = {"DIPDUP_NO_VERSION_CHECK": "1", "DIPDUP_REPORT_CRASHES": "0"}
        if place is None:
            return quiet
        return {**quiet, "BENCH_RPC": place.rpc, "BENCH_HEAD": str(place.head), "BENCH_FILE": str(place.file)}

    def install() -> Path:
        home = installing.pip("dipdup", "3.12", "dipdup==8.6.2")
        if not (home / "benchdip" / "types").is_dir():
            installing.run(["venv/bin/dipdup", "-c", "dipdup.yaml", "init"], home, environment())
        return home

    def command(place: Place) -> Command:
        shell = f"cd {shlex.quote(str(place.home))} && exec venv/bin/dipdup -c dipdup.yaml run"
        return Command(("sh", "-c", shell), environment(place))

    def found(place: Place) -> Found:
        return Found(_lowered(read_sqlite(place.file, f"select {COLUMNS} from transfer")))

    return Contender("dipdup 8.6.2", "sqlite", "SQLite", command, found, install=install)


def _web3() -> Contender:
    def command(place: Place) -> Command:
        python, script = place.home / "venv" / "bin" / "python", place.home / "index.py"
        return Command((str(python), str(script), place.rpc, str(place.file)))

    def found(place: Place) -> Found:
        return Found(_lowered(read_sqlite(place.file, f"select {COLUMNS} from transfer")))

    install = lambda: installing.pip("web3", "3.11", "web3==8.0.0")  # noqa: E731 - one of a kind
    return Contender("web3.py 8.0.0", "sqlite", "SQLite", command, found, install=install)


# --- into files ----------------------------------------------------------------------------------------------------


def _ethereum_etl() -> Contender:
    """2.4.2 needs Python 3.10: a pinned dependency imports what 3.11 removed."""

    def command(place: Place) -> Command:
        tool = place.home / "venv" / "bin" / "ethereumetl"
        outputs = "--blocks-output blocks.csv --transactions-output transactions.csv"
        steps = (
            f"export_blocks_and_transactions -s 0 -e {place.head} -p {place.rpc} {outputs}",
            "extract_csv_column --input transactions.csv --column hash --output hashes.txt",
            f"export_receipts_and_logs -t hashes.txt -p {place.rpc} --receipts-output r.csv --logs-output logs.csv",
        )
        return Command(("sh", "-ec", "\n".join(f"{tool} {step}" for step in steps)))

    def found(place: Place) -> Found:
        def rows(name: str) -> Iterator[dict[str, str]]:
            with (place.folder / name).open(newline="") as file:
                yield from csv.DictReader(file)

        def transfers() -> Iterator[Transfer]:
            for log in rows("logs.csv"):
                topics = log["topics"].split(",")
                if topics[0] == TRANSFER:
                    sender, receiver = ("0x" + topic[-40:] for topic in topics[1:3])
                    yield log["block_number"], log["log_index"], sender, receiver, int(log["data"], 16)

        counts = [sum(1 for _ in rows(name)) for name in ("blocks.csv", "transactions.csv", "logs.csv")]
        return Found(transfers(), (counts[0], counts[1], counts[2]))

    install: Callable[[], Path] = lambda: installing.pip(  # noqa: E731
        "ethereum-etl", "3.10", "setuptools<80", "ethereum-etl==2.4.2"
    )
    return Contender("ethereum-etl 2.4.2", "whole", "CSV", command, found, install=install)


def _cryo(dataset: str, note: str) -> Contender:
    """The wheel declares none of what it needs, and panics without: these are the versions it works with."""

    def command(place: Place) -> Command:
        python, script = place.home / "venv" / "bin" / "python", place.home / "freeze.py"
        return Command((str(python), str(script), place.rpc, "out", str(place.head), dataset))

    def found(place: Place) -> Found:
        from pyarrow import parquet

        files = sorted((place.folder / "out").glob("*.parquet"))
        return Found(itertools.chain.from_iterable(_cryo_rows(parquet.read_table(f), dataset) for f in files))

    return Contender(f"cryo 0.3.2 ({note})", "parquet", "Parquet", command, found, install=_cryo_home)


def _cryo_home() -> Path:
    return installing.pip("cryo", "3.11", "cryo==0.3.2", "pyarrow<18", "polars==0.20.31", "pandas", "numpy<2")


def _cryo_rows(table: Any, dataset: str) -> Iterator[Transfer]:
    columns = {name: table[name].to_pylist() for name in table.column_names}
    if dataset == "logs":
        parties = [["0x" + word[-20:].hex() for word in columns[name]] for name in ("topic1", "topic2")]
        values = [int.from_bytes(data, "big") for data in columns["data"]]
    else:
        parties = [["0x" + word.hex() for word in columns[name]] for name in ("from_address", "to_address")]
        values = columns["value_string"]
    return zip(columns["block_number"], columns["log_index"], *parties, values, strict=True)


PEERS = (
    _ponder(),
    _envio(),
    _sqd(),
    _dipdup(),
    _web3(),
    _ethereum_etl(),
    _cryo("erc20_transfers", "decoded transfers"),
    _cryo("logs", "raw logs"),
)

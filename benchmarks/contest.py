"""Who runs what: a job, a program that does it, and how to see that it did it right.

Every run begins with an empty folder and, where it needs one, a new database; it is measured as a whole process, and
counts only when its rows are the chain's.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chain import Truth, digest_transfers
from benchmarks.measure import Cost, measured
from benchmarks.node import Node

Transfer = tuple[Any, ...]
"""Block, log index, sender, receiver, value."""


class WrongRows(Exception):
    """A run ended well and its tables are not what the chain has."""


class Absent(Exception):
    """A program cannot be run here; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where one run happens."""

    folder: Path
    """Empty."""
    rpc: str
    head: int
    home: Path
    """Where the program is installed and was prepared."""
    database: str = ""
    """URL of a new, empty Postgres database, where the contender wants one."""

    @property
    def file(self) -> Path:
        """A database file of the run's own."""
        return self.folder / "bench.db"


@dataclass(frozen=True)
class Command:
    """What to start, in the place's folder. `finished` is for a program that never ends by itself."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    finished: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Found:
    """What a run left behind. `counts` are blocks, transactions and logs, where the job is about whole blocks."""

    transfers: Iterable[Transfer]
    counts: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Contender:
    """One program at one job."""

    program: str
    job: str
    """`postgres`, `sqlite`, `parquet`: the transfers, into that. `whole`: blocks, transactions, logs into anything."""
    sink: str
    """What it writes, for people."""
    command: Callable[[Place], Command]
    found: Callable[[Place], Found]
    wants_database: bool = False
    before_run: Callable[[Place], None] | None = None
    """Not measured: creates what the program expects to be there."""
    install: Callable[[], Path] = Path
    """Returns its home. Raises Absent."""
    prepare: Callable[[Path, str], None] | None = None
    """Once for a node's URL, not measured: code generation."""
    seconds_max: float = 600.0

    @property
    def name(self) -> str:
        return f"{self.program} → {self.sink}"


@dataclass(frozen=True)
class Result:
    contender: Contender
    round: int
    cost: Cost
    served: dict[str, Any]


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    create_database: Callable[[], str]
    drop_database: Callable[[str], None]
    pid: int


def perform(contender: Contender, home: Path, node: Node, truth: Truth, postgres: Postgres | None, at: int) -> Result:
    """Run it once and check every row. Raises RunFailed, WrongRows, and Absent where it wants a missing database."""
    servers = {"node": node.pid}
    database = ""
    if contender.wants_database:
        if postgres is None:
            raise Absent("there is no Postgres here")
        database, servers["database"] = postgres.create_database(), postgres.pid
    folder = Path(tempfile.mkdtemp(prefix="gapless-bench-"))
    place = Place(folder, node.url, truth.head, home, database)
    try:
        if contender.before_run is not None:
            contender.before_run(place)
        node.served()
        command = contender.command(place)
        cost = measured(
            command.words,
            folder,
            servers,
            environment=command.environment,
            finished=command.finished,
            seconds_max=contender.seconds_max,
        )
        served = node.served()
        check(contender, contender.found(place), truth)
        return Result(contender, at, cost, served)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if postgres is not None and database:
            postgres.drop_database(database)


def check(contender: Contender, found: Found, truth: Truth) -> None:
    """Compare what a run left behind with the truth. Raises WrongRows."""
    rows = list(found.transfers)
    digest = digest_transfers(rows)
    if (len(rows), digest) != (truth.transfers, truth.digest):
        raise WrongRows(
            f"{contender.name}: {len(rows)} transfers with digest {digest[:16]}, "
            f"the chain has {truth.transfers} with {truth.digest[:16]}"
        )
    whole = (truth.head + 1, truth.transactions, truth.logs)
    if contender.job == "whole" and found.counts != whole:
        raise WrongRows(f"{contender.name}: {found.counts} blocks, transactions and logs, not {whole}")


# --- reading what was written --------------------------------------------------------------------------------------


def read_sqlite(file: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(sql).fetchall()


def read_postgres(url: str, sql: str) -> list[Any]:
    import psycopg

    with psycopg.connect(url) as connection:
        return connection.execute(sql.encode()).fetchall()


def run_postgres(url: str, sql: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())

"""A small indexed SQLite file, the truth about it, and what the commands say of a damaged copy.

The commands run in this process through the very function the command line calls: thousands of them, quickly.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapless.cli.endings import run_to_exit
from servers.recorded import RecordedProject

LAST = 24
FIRST_IN_LOG = 15
DATABASE = "erc20.db"
TABLES = ("token_transfer", "gapless_entries")
KINDS = ("file", "log", "copied")
COMMANDS = ("status", "query", "lookup", "gaps", "digest", "verify")
DERIVABLE = "position, id, parent_id, time, evidence, rows, digest"
"""Of an entry: all but which endpoint served it and whether another was asked, which no second look can tell."""
LOOKUP = "select t.*, e.id from token_transfer as t join gapless_entries as e on e.position = t.block_number"


@dataclass(frozen=True)
class Said:
    """How one command ended."""

    code: int
    document: dict[str, Any] | None
    error: str

    @property
    def typed(self) -> bool:
        """Whether a refusal names what is wrong and what to do, and is not an accident."""
        return self.error.startswith("error: ") and "Something unexpected" not in self.error and ". " in self.error


def command(*arguments: str) -> Said:
    """Run a command in the working directory."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_to_exit([*arguments, "--json"], None)
    try:
        document = json.loads(out.getvalue()) if out.getvalue() else None
    except ValueError:
        document = {"not json": out.getvalue()}
    said = [line for line in err.getvalue().splitlines() if not line.startswith("{")]
    return Said(code, document, "\n".join(said))


def ask(name: str) -> list[Said]:
    """What one of COMMANDS says of everything it can say."""
    if name == "query":
        columns = ("*", DERIVABLE)
        asked = [f"select {c} from {t} order by 1, 2, 3, 4" for c, t in zip(columns, TABLES, strict=True)]
        return [command("query", sql, "--limit", "100000") for sql in asked]
    if name == "lookup":
        return [command("query", f"{LOOKUP} where t.block_number in (7, 13, 16, 23)", "--limit", "100000")]
    return [command(name)]


def comparable(name: str, said: Said) -> Any:
    """A document without what differs from call to call."""
    document = said.document
    if name != "status" or document is None:
        return document
    # The report of a run's end is the last thing written: a log cut short takes it back first.
    moving = {"lag", "updated", "lease", "leader", "mode", "reason", "head", "finalized"}
    sources = {
        source: {k: v for k, v in found.items() if k not in moving} for source, found in document["sources"].items()
    }
    return {**document, "sources": sources}


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class Specimen:
    """The undamaged database, as files, with the right answers.

    `file`: all in the file. `log`: the newer half of the commits only in the write-ahead log. `copied`: in both, as
    a killed process leaves them."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        project = RecordedProject.create(folder)
        project.change('verify = "proved"', 'verify = "linked"')  # the rows compared are the same, at less cost
        project.change('abi = "erc20"', 'abi = "erc20"\nevents = ["Transfer"]')
        if kind == "file":
            project.ok("run", "--until", str(LAST))
        else:
            project.ok("run", "--until", str(FIRST_IN_LOG - 1))
            project.change('poll = "50 ms"', 'poll = "50 ms"\nspan_max = 5')
            # While somebody else has it open, the second run does not move the log into the file at its end.
            with contextlib.closing(sqlite3.connect(folder / DATABASE)) as reader:
                reader.execute("select count(*) from gapless_meta").fetchall()
                project.ok("run", "--until", str(LAST))
                if kind == "copied":
                    reader.execute("pragma wal_checkpoint(passive)").fetchall()
                self.files = self._read()
        if kind == "file":
            self.files = self._read()
        self.restore({})
        with inside(folder):
            self.truth = {name: [comparable(name, s) for s in ask(name)] for name in COMMANDS}
            self.digests = {n: digest_to(n) for n in range(FIRST_IN_LOG - 1, LAST + 1)}

    def _read(self) -> dict[str, bytes]:
        names = (DATABASE, DATABASE + "-wal")
        return {n: (self.folder / n).read_bytes() for n in names if (self.folder / n).exists()}

    def restore(self, damaged: dict[str, bytes]) -> None:
        """Put the files back, with some of them damaged."""
        for path in self.folder.glob(DATABASE + "*"):
            path.unlink()
        for name, content in {**self.files, **damaged}.items():
            (self.folder / name).write_bytes(content)

    def is_true(self, name: str, documents: list[Any], position: int) -> bool:
        """Whether an answer is the truth as of a position: a log cut short takes back whole commits."""
        if position == LAST:
            return bool(documents == self.truth[name])
        if name == "digest":
            return bool(documents[0]["digest"] == self.digests.get(position))
        if name == "status":
            tables = {t: sum(r[0] <= position for r in self._rows(t)) for t in TABLES[:1]}
            return {t: n["rows"] for t, n in documents[0]["tables"].items()} == tables
        tables = TABLES if name == "query" else ("lookup",)
        truth = self.truth[name]
        kept = [[r for p, r in self._positioned(t, d) if p <= position] for t, d in zip(tables, truth, strict=True)]
        return [d["rows"] for d in documents] == kept

    def _rows(self, table: str) -> list[tuple[int, Any]]:
        return self._positioned(table, self.truth["query"][TABLES.index(table)])

    def _positioned(self, table: str, document: dict[str, Any]) -> list[tuple[int, Any]]:
        at = document["columns"].index("position" if table == "gapless_entries" else "block_number")
        return [(int(row[at]), row) for row in document["rows"]]


def digest_to(position: int) -> str:
    document = command("digest", "--range", f"0..{position}").document
    assert document is not None
    return str(document["digest"])


@dataclass
class Tally:
    """Of so many damages, what each command did about it."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COMMANDS})
    silent: list[str] = field(default_factory=list)
    """Damages that some command served as fact, and that `verify` did not name."""
    untyped: list[str] = field(default_factory=list)
    """Refusals that do not say what is wrong and what to do."""

    def count(self, specimen: Specimen, where: str) -> None:
        """Ask everything of the damaged files as they lie there."""
        said = {name: ask(name) for name in COMMANDS}
        position = _indexed(said["status"][0])
        told = {name: self._outcome(specimen, name, answers, where, position) for name, answers in said.items()}
        if "false" in told.values() and told["verify"] == "clean":
            self.silent.append(f"{where}: {told}")
        for name, outcome in told.items():
            self.outcomes[name][outcome] += 1

    def _outcome(self, specimen: Specimen, name: str, answers: list[Said], where: str, position: int) -> str:
        for answer in answers:
            if answer.code and answer.document is None and not answer.typed:
                self.untyped.append(f"{where}: {name}: {answer.code} {answer.error}")
        if any(a.code and a.document is None for a in answers):
            return "refused"
        documents = [comparable(name, a) for a in answers]
        if name in {"gaps", "verify"}:
            found = documents[0].get("gaps") or documents[0].get("mismatches")
            return "named" if found else "clean"
        if not specimen.is_true(name, documents, position):
            return "false"
        return "true" if position == LAST else "earlier"

    def table(self) -> dict[str, dict[str, int]]:
        return {name: dict(sorted(counted.items())) for name, counted in self.outcomes.items()}


def _indexed(status: Said) -> int:
    if status.document is None:
        return LAST
    indexed = status.document["sources"]["mainnet"]["indexed"]
    return -1 if indexed is None else int(indexed)

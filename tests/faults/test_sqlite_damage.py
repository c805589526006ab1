"""T2: bits that flip, and pages that are cut off, in a SQLite file and its log. Nothing false passes in silence.

What that means: whatever a plain read of a damaged file shows, `verify` names it, or the answer is the truth (of an
earlier position, where a log was cut short: those commits are then indexed again); and whoever refuses says what is
wrong and what to do.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator

import pytest

from faults.damage import DATABASE, KINDS, LAST, Specimen, Tally, command, inside
from faults.scale import draws, figures, tiers
from gapless.engine.verify import Verifier

PAGE_BYTES = 8192
TRUNCATED_PAGES = 4


@pytest.fixture(scope="module")
def specimens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Specimen]:
    return {kind: Specimen(tmp_path_factory.mktemp(kind) / "project", kind) for kind in KINDS}


def flipped(specimen: Specimen, kind: str, offset: int, bit: int) -> dict[str, bytes]:
    name = DATABASE if kind == "file" else DATABASE + "-wal"
    content = bytearray(specimen.files[name])
    content[offset % len(content)] ^= 1 << bit
    return {name: bytes(content)}


@pytest.mark.parametrize("flips", tiers("FLIPS", 150, 5_000))
def test_flipped_bits_are_harmless_or_named(specimens: dict[str, Specimen], flips: int) -> None:
    """Of bits flipped anywhere, in file or log, none makes `verify` and a plain read agree on a falsehood."""
    draw = draws("flipped_bits", flips)
    for kind, share in (("file", 0.6), ("log", 0.2), ("copied", 0.2)):
        specimen, tally, began = specimens[kind], Tally(), time.monotonic()
        with inside(specimen.folder):
            for _ in range(int(flips * share)):
                offset, bit = draw.randrange(2**31), draw.randrange(8)
                specimen.restore(flipped(specimen, kind, offset, bit))
                tally.count(specimen, f"{kind} {offset}.{bit}")
        seconds = round(time.monotonic() - began, 1)
        figures("T2 flips", kind=kind, flips=int(flips * share), seconds=seconds, **tally.table())
        assert tally.silent == []
        assert tally.untyped == []


def cuts(specimen: Specimen, kind: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The file or its log without its last pages, and without half of one."""
    name = DATABASE if kind == "file" else DATABASE + "-wal"
    content = specimen.files[name]
    for pages in range(1, TRUNCATED_PAGES + 1):
        for extra in (0, PAGE_BYTES // 2):
            size = len(content) - pages * PAGE_BYTES + extra
            yield f"{kind} cut to {size}", {name: content[:size]}
    yield f"{kind} emptied", {name: b""}


def test_files_cut_short_are_harmless_or_named(specimens: dict[str, Specimen]) -> None:
    """A file that lost its last pages is refused or named; a log that did gives the truth of an earlier position."""
    for kind, specimen in specimens.items():
        tally = Tally()
        with inside(specimen.folder):
            for where, damaged in cuts(specimen, kind):
                if where != "file emptied":  # that is no database: asked for below
                    specimen.restore(damaged)
                    tally.count(specimen, where)
        figures("T2 truncation", kind=kind, **tally.table())
        assert tally.silent == []
        assert tally.untyped == []


def test_a_run_goes_on_from_a_log_cut_short(specimens: dict[str, Specimen]) -> None:
    """What a damaged log took back is indexed again by the next run, to the same digest."""
    specimen = specimens["log"]
    with inside(specimen.folder):
        specimen.restore(flipped(specimen, "log", len(specimen.files[DATABASE + "-wal"]) // 2, 3))
        before = command("status").document
        assert before is not None
        assert before["sources"]["mainnet"]["indexed"] < LAST
        assert command("run", "--until", str(LAST)).code == 0
        assert [command("digest").document] == specimen.truth["digest"]
        assert command("verify").code == 0
        assert command("doctor").document["ok"] is True  # type: ignore[index]


def test_damage_between_pages_is_found_by_the_doctor(specimens: dict[str, Specimen]) -> None:
    """A damaged log that was copied already leaves pages of different times behind: verify and doctor see it."""
    specimen = specimens["copied"]
    with inside(specimen.folder):
        specimen.restore(flipped(specimen, "copied", len(specimen.files[DATABASE + "-wal"]) // 2, 3))
        assert command("verify").code == 1
        doctor = command("doctor").document
        assert doctor is not None
        assert [c["state"] for c in doctor["checks"] if "is damaged" in c["detail"]] == ["fail"]


def test_an_emptied_file_is_refused(specimens: dict[str, Specimen]) -> None:
    """A file of no bytes is no database yet: reading commands say so."""
    specimen = specimens["file"]
    with inside(specimen.folder):
        specimen.restore({DATABASE: b""})
        for name in ("status", "gaps", "digest", "verify"):
            said = command(name)
            assert said.code != 0
            assert said.typed


def test_a_verify_that_looks_only_at_the_books_is_noticed(
    specimens: dict[str, Specimen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `verify` that trusts the recorded digests and reads no rows lets flips through: the count above says so."""
    monkeypatch.setattr(Verifier, "_compare_table", lambda *_: [])
    specimen, tally, draw = specimens["file"], Tally(), draws("only_at_the_books", 40)
    with inside(specimen.folder):
        for _ in range(40):
            specimen.restore(flipped(specimen, "file", draw.randrange(2**31), draw.randrange(8)))
            tally.count(specimen, "flip")
    assert tally.silent


ALTERATIONS = {
    "update v1_gapless_cursors set id = '0x00' || substr(id, 5)": "gapless_cursors",
    "update v1_gapless_entries set time = '2001-01-01T00:00:00Z' where position = 9": "gapless_entries",
    "update v1_gapless_entries set parent_id = '0x00' || substr(parent_id, 5) where position = 9": "gapless_entries",
    "update v1_gapless_entries set rows = rows + 1 where position = 9": "gapless_entries",
    f"update v1_gapless_entries set position = {LAST + 9} where position = {LAST - 1}": "gapless_entries",
}


@pytest.mark.parametrize("sql", ALTERATIONS)
def test_books_that_were_altered_are_named(specimens: dict[str, Specimen], sql: str) -> None:
    """Every column of the books that can be derived is compared: each of these passed `verify` once."""
    specimen = specimens["file"]
    with inside(specimen.folder):
        specimen.restore({})
        with contextlib.closing(sqlite3.connect(DATABASE)) as connection, connection:
            connection.execute(sql)
        said = command("verify")
        assert said.code == 1
        assert said.document is not None
        assert ALTERATIONS[sql] in {m["table"] for m in said.document["mismatches"]}


def test_what_is_no_evidence_is_refused(specimens: dict[str, Specimen]) -> None:
    """`status` does not count away blocks whose evidence is a word that does not exist."""
    specimen = specimens["file"]
    with inside(specimen.folder):
        specimen.restore({})
        with contextlib.closing(sqlite3.connect(DATABASE)) as connection, connection:
            connection.execute("update v1_gapless_entries set evidence = 'trustee' where position = 9")
        for name in ("status", "verify"):
            said = command(name)
            assert said.code == 1
            assert said.typed

"""T12: real file systems without room. It waits, says what to do, goes on by itself, and nothing is lost."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.live import broken, settle
from faults.scale import figures
from gapless.errors import NotReady
from gapless.testing.faulty_disk import fill_up, small_disk
from servers.anvil import Anvil, build_transfers
from servers.postgres import USER, PostgresServer
from servers.project import Project, stop, wait_until

SAYS = "Free some space"


@pytest.fixture
def small() -> Iterator[Path]:
    try:
        with small_disk(megabytes=4) as folder:
            yield folder
    except NotReady as reason:
        pytest.skip(str(reason))


def mode(project: Project) -> tuple[str, str]:
    status = project.json("status")["sources"]["chain"]
    return status["mode"], status.get("reason") or ""


@pytest.mark.anvil
def test_a_full_disk_below_sqlite(anvil: Anvil, tmp_path: Path, small: Path) -> None:
    """The file system is full in the middle of a run: it says so and waits, tables can be read, and with room again it
    goes on by itself to the same rows. A run that begins on a full disk ends with code 3, and one command goes on."""
    built = build_transfers(anvil, 20, 20, real=False)
    project = Project(tmp_path, f"sqlite:///{small}/chain.db", [anvil.url], built.token, poll="100 ms")
    process = project.start("run")
    try:
        project.wait_position(anvil.head())
        filler = fill_up(small, leaving_bytes=4096)
        build_transfers(anvil, 20, 100, token=built.token, real=False, seed=5)
        wait_until(lambda: "There is no space left" in project.log(), 60, project.log)
        assert SAYS in project.log()
        assert project.position() >= 0
        assert process.poll() is None
        filler.unlink()
        found = settle(project, anvil, built.token)
    finally:
        stop(process)
    assert found == (0, 0)
    filler = fill_up(small)
    build_transfers(anvil, 5, 200, token=built.token, real=False, seed=6)
    said = project.run("run", "--until", "head", code=3)
    filler.unlink()
    project.run("run", "--until", "head")
    assert settle(project, anvil, built.token) == (0, 0)
    figures("T12 disk full, SQLite", full_disks=2, went_on_by_itself=1, went_on_by_one_command=1, lost=0, doubled=0)
    assert said is not None


@pytest.mark.anvil
@pytest.mark.slow
def test_a_build_that_takes_no_room_for_success_is_caught(anvil: Anvil, tmp_path: Path, small: Path) -> None:
    """Batches that found no room are then missing, and the comparison says so."""
    built = build_transfers(anvil, 10, 20, real=False)
    project = Project(tmp_path, f"sqlite:///{small}/chain.db", [anvil.url], built.token, poll="50 ms", span_max=5)
    with broken(project, "full-disk-is-fine"):
        process = project.start("run")
        try:
            project.wait_position(anvil.head())
            filler = fill_up(small)
            build_transfers(anvil, 15, 100, token=built.token, real=False, seed=5)
            with pytest.raises(AssertionError):
                settle(project, anvil, built.token, seconds=3)
            filler.unlink()
            try:
                found = settle(project, anvil, built.token, seconds=6)
            except AssertionError:
                found = (-1, -1)  # it never got there
        finally:
            stop(process)
    assert found != (0, 0)


@pytest.mark.anvil
@pytest.mark.postgres
def test_a_full_tablespace(anvil: Anvil, tmp_path: Path, postgres_server: PostgresServer, small: Path) -> None:
    """The database's tablespace has no room: 53100 from the server, the run waits, and goes on by itself."""
    with small_disk(megabytes=24) as folder:
        space = folder / "space"
        space.mkdir()
        if os.geteuid() == 0:
            account = pwd.getpwnam(USER)
            os.chown(space, account.pw_uid, account.pw_gid)
            folder.chmod(0o755)
        postgres_server.run(f"CREATE TABLESPACE small LOCATION '{space}'")
        postgres_server.run("CREATE DATABASE small TABLESPACE small")
        try:
            built = build_transfers(anvil, 20, 20, real=False)
            url = postgres_server.url("small")
            project = Project(tmp_path, url, [anvil.url], built.token, poll="100 ms")
            process = project.start("run")
            try:
                project.wait_position(anvil.head())
                filler = fill_up(folder)
                build_transfers(anvil, 40, 200, token=built.token, real=False, seed=5)
                wait_until(lambda: "The disk of" in project.log(), 60, project.log)
                assert SAYS in project.log()
                filler.unlink()
                found = settle(project, anvil, built.token)
            finally:
                stop(process)
            assert found == (0, 0)
            figures("T12 disk full, Postgres tablespace", went_on_by_itself=1, lost=0, doubled=0)
        finally:
            postgres_server.run("DROP DATABASE IF EXISTS small WITH (FORCE)")
            postgres_server.run("DROP TABLESPACE IF EXISTS small")


@pytest.mark.anvil
@pytest.mark.postgres
@pytest.mark.slow
def test_a_full_server(anvil: Anvil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own data folder, its log included, has no room: the server stops and comes back; so does the run."""
    try:
        with small_disk(megabytes=160) as folder:
            folder.chmod(0o755)
            monkeypatch.setattr(tempfile, "tempdir", str(folder))
            settings = {"fsync": "on", "max_wal_size": "32MB", "min_wal_size": "32MB", "wal_recycle": "off"}
            with PostgresServer(settings) as server:
                monkeypatch.setattr(tempfile, "tempdir", None)
                built = build_transfers(anvil, 20, 20, real=False)
                project = Project(tmp_path, server.create_database(), [anvil.url], built.token, poll="100 ms")
                process = project.start("run")
                try:
                    project.wait_position(anvil.head())
                    filler = fill_up(folder)
                    build_transfers(anvil, 150, 400, token=built.token, real=False, seed=5)
                    wait_until(lambda: "will try again" in project.log(), 90, project.log)
                    assert process.poll() is None, project.log()
                    filler.unlink()
                    if server._process is None or server._process.poll() is not None:
                        server.start()
                    found = settle(project, anvil, built.token, seconds=120)
                finally:
                    stop(process)
                figures("T12 disk full, Postgres server", lost=found[0], doubled=found[1])
                assert found == (0, 0)
    except NotReady as reason:
        pytest.skip(str(reason))

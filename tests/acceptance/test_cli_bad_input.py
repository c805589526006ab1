"""Whatever is wrong with what a user gives: one paragraph that says what, where and what to do, and the right code."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from gapless.cli.endings import run_to_exit
from gapless.testing import FakeNode, ScriptedChain
from servers.recorded import LAST_BLOCK, RecordedProject


@pytest.fixture
def project(tmp_path: Path) -> RecordedProject:
    return RecordedProject.create(tmp_path / "project")


# --- configuration -------------------------------------------------------------------------------------------------


def test_no_configuration(tmp_path: Path) -> None:
    """An empty folder: what to run first."""
    said = RecordedProject(tmp_path).refused("status", code=2)
    assert str(tmp_path / "gapless.toml") in said
    assert "gapless init" in said


def test_unknown_key(project: RecordedProject) -> None:
    """A misspelt key: file, line, key, and the one that was meant."""
    project.change('poll = "50 ms"', 'pol = "50 ms"')
    said = project.refused("run", code=2)
    assert "gapless.toml, line 9: sources.mainnet.pol" in said
    assert "perhaps you mean 'poll'" in said


def test_syntax_error(project: RecordedProject) -> None:
    """Broken TOML: the line."""
    project.add("[broken")
    assert "line" in project.refused("run", code=2)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{ not json", "abi.json"),
        ('{"abi": 7}', "abi.json"),
        ('[{"type": "event", "name": "E", "inputs": [{"name": "x", "type": "uint257"}]}]', "uint257"),
    ],
)
def test_invalid_abi(project: RecordedProject, content: str, part: str) -> None:
    """An ABI that cannot be read: which file, and what in it."""
    (project.folder / "abi.json").write_text(content)
    project.change('abi = "erc20"', 'abi = "abi.json"')
    said = project.refused("config", "check", code=2)
    assert part in said


def test_unknown_event(project: RecordedProject) -> None:
    """An event the ABI does not have: the ones it has."""
    project.add('events = ["Tranfer"]')
    said = project.refused("run", code=2)
    assert "Tranfer" in said
    assert "Transfer" in said


@pytest.mark.parametrize("address", ["0x5FbDB2315678", "0x5FbDB2315678afecb367f032d93F642f64180aa4", "token"])
def test_invalid_address(project: RecordedProject, address: str) -> None:
    """Not an address, or one with a mistyped digit: the line and the value."""
    project.change("0x5FbDB2315678afecb367f032d93F642f64180aa3", address)
    said = project.refused("run", code=2)
    assert "contracts.token.address" in said
    assert address in said


def test_wrong_app(project: RecordedProject) -> None:
    """`-c` that names no app."""
    (project.folder / "app.py").write_text("import gapless\nother = gapless.App('a')\n")
    assert "no gapless.App named 'app'" in project.refused("status", "-c", "app.py:app", code=2)
    assert "There is no app at" in project.refused("status", "-c", "nowhere.py:app", code=2)


def test_unknown_source(project: RecordedProject) -> None:
    """A source that is not configured."""
    assert "perhaps you mean 'mainnet'" in project.refused("digest", "--source", "mainet", code=2)


# --- the database --------------------------------------------------------------------------------------------------


def test_not_indexed_yet(project: RecordedProject) -> None:
    """Reading before the first run: not ready, and what makes it ready."""
    for command in (["status"], ["gaps"], ["digest"], ["query", "select 1"], ["repair"], ["verify"]):
        said = project.refused(*command, code=3)
        assert "gapless run" in said
    assert not (project.folder / "erc20.db").exists(), "looking creates nothing"


def test_database_of_another_app(project: RecordedProject) -> None:
    """The tables of another app are never touched."""
    project.ok("run", "--until", "10")
    project.change('name = "erc20"', 'name = "other"')
    project.add('[store]\nurl = "sqlite:///erc20.db"')
    said = project.refused("run", "--until", "20", code=4)
    assert "'erc20'" in said
    assert "[store] url" in said


def test_foreign_database(project: RecordedProject) -> None:
    """Somebody else's database is never touched."""
    with closing(sqlite3.connect(project.folder / "erc20.db")) as connection:
        connection.execute("create table theirs (x)")
        connection.commit()
    assert "theirs" in project.refused("run", code=4)


def test_newer_database(project: RecordedProject) -> None:
    """A database of a newer Gapless is refused."""
    project.ok("run", "--until", "10")
    project.sql("update gapless_meta set value = '99' where name = 'format'")
    assert "newer" in project.refused("run", code=4)


def test_changed_tables(project: RecordedProject) -> None:
    """Other tables than the stored ones: which differ."""
    project.ok("run", "--until", "10")
    project.add('events = ["Transfer"]')
    assert "token_approval" in project.refused("run", code=4)


def test_not_a_database(project: RecordedProject) -> None:
    """A file that is no database is left as it is."""
    (project.folder / "erc20.db").write_bytes(b"my only thesis" * 100)
    said = project.refused("run", code=1)
    assert "erc20.db" in said
    assert (project.folder / "erc20.db").read_bytes().startswith(b"my only thesis")


def test_missing_folder(project: RecordedProject) -> None:
    """A database in a folder that is not there: how to make it."""
    project.add('[store]\nurl = "sqlite:///no/where.db"')
    assert "mkdir" in project.refused("run", code=1)


@contextmanager
def nobody() -> Iterator[None]:
    """Not root for a while, so that permissions count."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_read_only_database(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that may not be written: who must let whom; reading still works."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        project = RecordedProject.create(Path(folder))
        project.ok("run", "--until", "10")
        project.sql("pragma wal_checkpoint(truncate)")
        for file in project.folder.iterdir():
            file.chmod(0o444)
        project.folder.chmod(0o555)
        monkeypatch.chdir(folder)
        assert run_to_exit(["status"], None) == 0  # everything is imported before we are nobody
        assert run_to_exit(["run", "--until", "10"], None) in {0, 3}
        capsys.readouterr()
        with nobody():
            assert run_to_exit(["run", "--until", "20"], None) == 3
        said = capsys.readouterr().err
        project.folder.chmod(0o755)
    assert "error: " in said
    assert "cannot be written" in said
    assert "chmod" in said


def test_unreachable_postgres(project: RecordedProject) -> None:
    """No server at the address: not ready, where it was looked for, and never the password."""
    said = project.refused("run", code=3, GAPLESS_STORE__URL="postgresql://me:hunter2@127.0.0.1:1/x")
    assert "127.0.0.1:1" in said or "port 1" in said
    assert "hunter2" not in said


# --- the source ----------------------------------------------------------------------------------------------------


def live(project: RecordedProject, url: str, **options: str) -> None:
    """Follow an endpoint instead of the recording."""
    lines = "".join(f"{name} = {value}\n" for name, value in options.items())
    project.config.write_text(
        f'[app]\nname = "erc20"\n[sources.mainnet]\nkind = "evm"\nrpc = ["{url}"]\ntimeout = "2 seconds"\n'
        f'deadline = "2 seconds"\nattempts_max = 2\n{lines}[contracts.token]\nabi = "erc20"\n'
    )


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """A server that says the same to everybody."""
    script = (
        "import http.server, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        self.rfile.read(int(self.headers['content-length']))\n"
        "        self.send_response(200); self.end_headers()\n"
        f"        self.wfile.write({body!r})\n"
        "    def log_message(self, *_): pass\n"
        "s = http.server.HTTPServer(('127.0.0.1', 0), H); print(s.server_port, flush=True); s.serve_forever()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_unreachable_endpoint(project: RecordedProject) -> None:
    """Nobody listens there: which address, and who can tell more."""
    live(project, "http://127.0.0.1:1")
    said = project.refused("run", "--until", "10", code=3)
    assert "127.0.0.1:1" in said
    assert "gapless doctor" in said


def test_html_instead_of_json(project: RecordedProject) -> None:
    """A web page where an endpoint should be: what it said."""
    with answering(b"<html><body>Welcome to nginx!</body></html>") as url:
        live(project, url)
        said = project.refused("run", "--until", "10", code=3)
    assert "<html>" in said
    assert "JSON" in said


def test_wrong_chain(project: RecordedProject) -> None:
    """Another chain than the tables were filled from: refused before anything is written."""
    project.ok("run", "--until", "10")
    before = project.json("digest")["digest"]
    chain = ScriptedChain(seed=7)
    chain.mine(20)
    with FakeNode(chain) as node:
        live(project, node.url)
        said = project.refused("run", "--until", "15", code=4)
        assert "chain" in said
        assert project.run("doctor").returncode == 1
        live(project, node.url, chain_id="1")
        assert "1" in project.refused("run", "--until", "15", code=4)
    assert project.json("digest")["digest"] == before


def test_start_beyond_head(project: RecordedProject) -> None:
    """A first block the chain does not have yet: where it ends."""
    project.change('kind = "replay"', 'kind = "replay"\nstart = 100000')
    said = project.refused("run", "--until", "head", code=3)
    assert "100000" in said
    assert "401" in said


# --- the machine ---------------------------------------------------------------------------------------------------


def test_port_taken(project: RecordedProject) -> None:
    """The address to serve metrics on is in use: which, and how to go on. Nothing is indexed."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        project.add(f'[telemetry]\nlisten = "127.0.0.1:{port}"')
        said = project.refused("run", "--until", str(LAST_BLOCK), code=3)
    assert f"127.0.0.1:{port}" in said
    assert "[telemetry] listen" in said


def test_missing_extra(project: RecordedProject) -> None:
    """A format whose library is not installed: the command that installs it."""
    project.ok("run", "--until", "10")
    (project.folder / "hide").mkdir()
    (project.folder / "hide" / "pyarrow.py").write_text("raise ImportError('hidden')")
    said = project.refused(
        "export", "token_transfer", "-o", "x.parquet", code=2, PYTHONPATH=str(project.folder / "hide")
    )
    assert "gapless[arrow]" in said

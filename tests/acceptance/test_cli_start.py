"""The first minutes: help, version, a project from nothing, the doctor."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gapless
from servers.recorded import RecordedProject

HEAVY = (
    "pydantic",
    "aiohttp",
    "rich",
    "structlog",
    "apsw",
    "msgspec",
    "prometheus_client",
    "psycopg",
    "asyncio",
    "eth_abi",
)


def loaded_by(code: str, folder: Path | None = None) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    return set(done.stderr.split())


def loaded_by_command(folder: Path, *arguments: str) -> set[str]:
    code = f"from gapless.cli.endings import run_to_exit\nassert run_to_exit({list(arguments)!r}, None) == 0"
    return loaded_by(code, folder)


OTHER_COMMANDS = {f"gapless.cli.{name}" for name in ("doctor", "export", "init", "repair", "verify")}
UNUSED = OTHER_COMMANDS | {"aiohttp", "psycopg", "prometheus_client", "eth_abi", "pyarrow"}
"""By a command on a recorded chain, in SQLite, without `[telemetry] listen`."""


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import gapless", set()),
        ("from gapless.cli.endings import run_to_exit\nrun_to_exit(['--help'], None)", set()),
        # Typer reads options by pydantic.
        ("from gapless.cli.endings import run_to_exit\nrun_to_exit(['run', '--help'], None)", {"pydantic"}),
    ],
)
def test_light_start(code: str, allowed: set[str]) -> None:
    """Importing Gapless, and showing help, load none of the heavy libraries: that is what makes them quick."""
    assert loaded_by(code) & set(HEAVY) <= allowed


def test_a_command_loads_what_it_uses(tmp_path: Path) -> None:
    """A run loads no driver it does not need; a command that only reads the database loads neither engine nor source;
    neither loads another command. What is asked for is there."""
    project = RecordedProject.create(tmp_path)
    run = loaded_by_command(tmp_path, "run", "--until", "20")
    status = loaded_by_command(tmp_path, "status", "--json")
    assert not (run | status) & UNUSED
    assert {"apsw", "gapless.engine.runner", "gapless.sources.evm.source"} <= run
    assert not status & {"structlog", "rich", "gapless.engine.runner", "gapless.sources.evm.source"}
    project.add('[telemetry]\nlisten = "127.0.0.1:0"')
    assert {"aiohttp", "prometheus_client"} <= loaded_by_command(tmp_path, "run", "--until", "20")


def test_a_start_looks_for_no_garbage(tmp_path: Path) -> None:
    """What a start makes stays to the end, so looking for garbage in it finds none, and takes a tenth of the time."""
    RecordedProject.create(tmp_path)
    code = """
import gc
from gapless.cli import main
found = []
gc.callbacks.append(lambda phase, _: found.append(phase))
try:
    main(["config", "check"])
except SystemExit as end:
    assert (end.code, found) == (0, [])
"""
    loaded_by(code, tmp_path)


def test_version(tmp_path: Path) -> None:
    """The version is one line."""
    assert RecordedProject(tmp_path).ok("--version") == f"gapless {gapless.__version__}\n"


def test_init_runs(tmp_path: Path) -> None:
    """The scaffolded project runs at once, without a network."""
    empty = RecordedProject(tmp_path)
    assert empty.json("init", "new", "--dry-run")["files"] == [".gitignore", "chain.jsonl.gz", "gapless.toml"]
    assert list(tmp_path.iterdir()) == []
    assert "gapless run" in empty.run("init", "new").stderr
    project = RecordedProject(tmp_path / "new")
    project.ok("run", "--until", "100")
    assert project.json("status")["tables"]["token_transfer"]["rows"] > 1000
    assert "already exists" in empty.refused("init", "new", code=4)
    assert "--preset" in empty.refused("init", "other", "--preset", "erc2O", code=2)


@pytest.mark.parametrize(("preset", "spec"), [("erc20", "gapless.toml"), ("python", "app.py:app")])
def test_init_presets(tmp_path: Path, preset: str, spec: str) -> None:
    """The other presets are valid, and wait for an endpoint."""
    empty = RecordedProject(tmp_path)
    empty.ok("init", "--preset", preset)
    assert empty.json("config", "check", "-c", spec)["ok"] is True
    done = empty.run("run", "-c", spec, "--until", "1", RPC_URL="http://127.0.0.1:1", GAPLESS_LEASE__TTL="1 second")
    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr


def test_doctor(tmp_path: Path) -> None:
    """The doctor looks at configuration, database, disk, source and telemetry, and everything bad has its remedy."""
    project = RecordedProject.create(tmp_path)
    found = project.json("doctor")
    assert found["ok"] is True
    checks = {check["check"] for check in found["checks"]}
    assert {"versions", "config", "disk", "store", "source mainnet", "telemetry"} <= checks
    assert all(check["fix"] for check in found["checks"] if check["state"] != "ok")
    project.ok("run", "--until", "100")
    said = project.ok("doctor")
    assert "journal_mode wal" in said
    assert "synchronous full" in said
    assert "chain 31337" in said


def test_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    """What keeps a run from working fails, with the way out, and the exit code says so."""
    project = RecordedProject.create(tmp_path)
    project.change('kind = "replay"', 'kind = "evm"\nrpc = ["http://127.0.0.1:1"]\n#')
    project.change('file = "chain.jsonl.gz"', "")
    found = project.json("doctor", code=1)
    failed = [check for check in found["checks"] if check["state"] == "fail"]
    assert any("127.0.0.1:1" in check["detail"] for check in failed)
    assert all(check["fix"] for check in failed)
    project.add("nonsense = 1")
    found = project.json("doctor", code=1)
    assert [check["check"] for check in found["checks"] if check["state"] == "fail"] == ["config"]


def test_where_the_configuration_is_named(tmp_path: Path) -> None:
    """`-c` before or after the command, or GAPLESS_CONFIG; relative paths start at the file."""
    project = RecordedProject.create(tmp_path / "project")
    project.ok("run", "--until", "20")
    elsewhere = RecordedProject(tmp_path)
    for arguments in (["-c", "project/gapless.toml", "digest"], ["digest", "-c", "project/gapless.toml"]):
        assert elsewhere.ok(*arguments) == project.ok("digest")
    done = elsewhere.run("digest", GAPLESS_CONFIG="project/gapless.toml")
    assert done.stdout == project.ok("digest")
    assert tomllib.loads(elsewhere.run("config", "show", GAPLESS_CONFIG="project/gapless.toml").stdout)

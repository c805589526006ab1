"""The examples run as their READMEs say, and find what the recording says is there."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gapless import examples
from gapless.sources.evm.recording import read_recording

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAST_BLOCK = 408
RUN_SECONDS_MAX = 60.0


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The examples in a folder of their own."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("*.db*")))


@pytest.fixture
def balances(copied: Path) -> Path:
    return copied / "balances"


def test_balances_are_the_contracts_own(balances: Path) -> None:
    """After a backfill and a reorg of depth six, every balance equals the recorded `balanceOf`; and again when the
    example is run a second time, which has nothing left to do."""
    for _ in range(2):
        done = run(balances, "app.py", "run", "--until", str(LAST_BLOCK))
        assert done.returncode == 0, done.stderr
        checked = run(balances, "check.py")
        assert (checked.returncode, "All 310 balances" in checked.stdout) == (0, True), checked.stdout
    status = json.loads(run(balances, "app.py", "status", "--json").stdout)
    assert status["sources"]["mainnet"]["reorgs"] == {"count": 1, "deepest": 6}
    assert status["sources"]["mainnet"]["evidence"] == {"proved": 409, "checked": 0, "trusted": 0}


def test_the_check_sees_a_wrong_balance(balances: Path) -> None:
    """The example's own check fails, and names the holder, when one balance is not."""
    assert run(balances, "app.py", "run", "--until", str(LAST_BLOCK)).returncode == 0
    with closing(sqlite3.connect(balances / "balances.db")) as connection:
        (holder,) = connection.execute("select holder from v1_holding where balance <> '1' limit 1").fetchone()
        connection.execute("update v1_holding set balance = '1' where holder = ?", [holder])
        connection.commit()
    checked = run(balances, "check.py")
    assert checked.returncode == 1
    assert holder in checked.stdout


@pytest.mark.parametrize("config", [EXAMPLES / "erc20" / "gapless.toml", examples.path("erc20/gapless.toml")])
def test_the_token_example_has_every_transfer(config: Path, tmp_path: Path) -> None:
    """The TOML example, in the checkout and in the package, finds the recorded number of transfers."""
    store = {"GAPLESS_STORE__URL": f"sqlite:///{tmp_path / 'erc20.db'}", "NO_COLOR": "1"}
    gapless = Path(sys.executable).with_name("gapless")
    for arguments in (["run", "--until", str(LAST_BLOCK)], ["status", "--json"]):
        done = subprocess.run(
            [gapless, *arguments, "-c", config],
            env={**os.environ, **store},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    truth = read_recording(examples.path()).truth
    assert truth is not None
    assert json.loads(done.stdout)["tables"]["token_transfer"]["rows"] == truth.transfers


def test_both_token_examples_are_one() -> None:
    """The copy in the package differs from the one in the checkout in where the recording lies, and nowhere else."""
    here = (EXAMPLES / "erc20" / "gapless.toml").read_text()
    packaged = examples.path("erc20/gapless.toml").read_text()
    assert here.replace("../../src/gapless/examples/erc20/", "") == packaged


def test_the_demo_shows_what_it_found(copied: Path) -> None:
    """`make demo` ends well and prints blocks, transfers, the reorg, a digest and the largest holders."""
    done = run(copied, "demo.py")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("409 proved", "4,709", "6 blocks deep", "digest", "310, each with", "999,999,989,994"):
        assert word in done.stdout

"""The packaged recording can be built again, to the byte."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from gapless import examples

ROOT = Path(__file__).resolve().parents[2]
BUILD_SECONDS_MAX = 100.0


@pytest.mark.anvil
def test_recording_again_gives_the_same_chain(anvil_path: Path, tmp_path: Path) -> None:
    """tools/record_example.py makes the file that is packaged: same blocks, hashes, receipts and truth."""
    out = tmp_path / "chain.jsonl.gz"
    command = [sys.executable, ROOT / "tools" / "record_example.py", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stderr
    assert gzip.decompress(out.read_bytes()) == gzip.decompress(examples.path().read_bytes())

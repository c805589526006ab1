"""What the documents say is so: every block of theirs is done, in order, in one folder, against real servers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.anvil import Anvil, build_transfers
from servers.documents import ROOT, Reader, blocks

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(300)]

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DONE = [d for d in DOCUMENTS if d.parent.name != "runbooks" and any(b.kind != "text" for b in blocks(d))]
BLOCKS = 120
TRANSFERS_PER_BLOCK = 10


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def reader(request: pytest.FixtureRequest, anvil: Anvil, tmp_path: Path) -> Iterator[Reader]:
    """A reader beside a node with a token where the first contract of Anvil's first account always is."""
    built = build_transfers(anvil, BLOCKS, TRANSFERS_PER_BLOCK)
    text = request.getfixturevalue("document").read_text()
    postgres = str(request.getfixturevalue("postgres_url")) if "postgresql://localhost/chain" in text else ""
    metrics = f"127.0.0.1:{free_port()}"
    replaced = {
        "postgresql://localhost/chain": postgres,
        "https://your-node.example": anvil.url,
        "https://another.example": f"http://localhost:{anvil.port}",  # the same node by another name
        "wss://your-node.example": anvil.ws_url,
        "http://127.0.0.1:8545": anvil.url,
        "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48": built.token,
        "0x5FbDB2315678afecb367f032d93F642f64180aa3": built.token,
        "17_000_000": "0",
        "17000000..17001000": "0..100",
        "127.0.0.1:9464": metrics,
    }
    with Reader(tmp_path / "reader", replaced, targets=[metrics]) as it:
        yield it


@pytest.mark.parametrize("document", DONE, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_block_does_what_it_says(document: Path, reader: Reader) -> None:
    """Configuration is valid, programs load, commands end as they should, and what is shown as output was printed."""
    for block in blocks(document):
        reader.do(block)

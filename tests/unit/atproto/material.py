"""Recorded and published AT Protocol data: what is carried with the tests, and what may lie beside the checkout."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import struct
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gapless.sources.atproto.did_document import read_did_document
from gapless.sources.atproto.frames import Commit, RepoFrame, decode_frames

CARRIED = Path(__file__).resolve().parents[2] / "data" / "atproto"
INTEROP = CARRIED / "interop"
SHARED = Path(os.environ.get("GAPLESS_SHARED", Path(__file__).resolve().parents[4] / "shared")) / "data" / "atproto"

NOW_US = 1_800_000_000_000_000
"""January 2027: after everything that was recorded."""


def shared(name: str) -> Path:
    """A file of the shared data; skips the test where there is none."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared data ({name}) is not beside this checkout")
    return path


def vectors(name: str) -> Any:
    return json.loads((INTEROP / name).read_text())


def lines(name: str) -> list[str]:
    """The lines of a syntax list, without comments; white space at the ends counts."""
    found = (INTEROP / "syntax" / name).read_text().split("\n")
    return [line for line in found if line and not line.startswith("#")]


def recorded_frames(path: Path) -> list[bytes]:
    """A file of recorded WebSocket messages (`ATPFRAMES1`)."""
    data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return _split(data, len(b"ATPFRAMES1\n"), ">I")


def _split(data: bytes, at: int, length: str) -> list[bytes]:
    frames = []
    while at < len(data):
        (size,) = struct.unpack_from(length, data, at)
        frames.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return frames


@cache
def carried_frames() -> list[bytes]:
    """The first 900 messages of the recorded PDS."""
    return recorded_frames(CARRIED / "local-pds" / "firehose-first-900.frames.xz")


@cache
def carried_messages() -> list[RepoFrame]:
    return decode_frames(carried_frames())


@cache
def plc_keys() -> dict[str, str]:
    """DID → signing key of the recorded PDS's accounts. None of them was rotated."""
    keys = {}
    for line in (CARRIED / "local-pds" / "plc.jsonl").read_text().splitlines():
        entry = json.loads(line)
        keys[entry["did"]] = entry["operation"]["verificationMethods"]["atproto"]
    return keys


def network_frames() -> list[bytes]:
    """The 100 contiguous frames of the real network."""
    import pyarrow as pa

    with pa.input_stream(str(shared("firehose-corpus/frames.bin.zst")), compression="zstd") as stream:
        return _split(stream.read(), 0, "<I")


def network_documents() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress(shared("firehose-corpus/did_docs.json.gz").read_bytes()))
    return found


def network_keys() -> dict[str, str]:
    return {did: read_did_document(did, document).signing_key for did, document in network_documents().items()}


def a_commit(number: int = 0, *, ops: int = 1) -> Commit:
    """Some commit of the recorded PDS with at least so many operations."""
    found = [m for m in carried_messages() if isinstance(m, Commit) and len(m.ops) >= ops and m.prev_data]
    return found[number]

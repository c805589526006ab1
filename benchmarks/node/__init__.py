"""The node of the benchmarks: a recorded or a made-up chain, served so fast that it never is the limit.

The program beside this file is Go without dependencies, built once into .tools/bench where a Go compiler is. Without
one a recorded chain is served from Python (`benchmarks.node.fallback`), which costs several times the CPU time and says
so in the report; made-up chains and simulated limits then are not to be had.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".tools" / "bench"
_BUILD_SECONDS_MAX = 300.0
_STOP_SECONDS_MAX = 10.0


class NodeMissing(Exception):
    """What was asked for needs the Go program, and there is no compiler; the message says so."""


@dataclass(frozen=True)
class Node:
    """Something that serves a chain."""

    url: str
    pid: int
    kind: str
    """`go`, `python` or `anvil`."""
    served: Callable[[], dict[str, Any]]
    """What was asked for since last asked, where the node counts it."""
    truth: Callable[[], dict[str, Any]] = dict
    """What must be found on a made-up chain."""


@dataclass(frozen=True)
class Limits:
    """Those of a remote endpoint; 0 is none."""

    latency_ms: float = 0
    requests_per_second: float = 0
    range_max: int = 0
    results_max: int = 0
    batch_max: int = 0


@dataclass(frozen=True)
class Invented:
    """A made-up chain: `blocks` with block 0, `logs` Transfer events in every other one."""

    blocks: int
    logs: int
    tokens: int = 1
    holders: int = 5_000


@functools.cache
def program() -> Path | None:
    """The built program; None where it cannot be built."""
    sources = sorted(Path(__file__).parent.glob("*.go"))
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    built = KEPT / "bin" / f"node-{key}"
    if built.is_file():
        return built
    go = shutil.which("go")
    if go is None:
        return None
    built.parent.mkdir(parents=True, exist_ok=True)
    partial = built.with_name(f"{built.name}.{os.getpid()}")
    command = [go, "build", "-o", str(partial), *(source.name for source in sources)]
    environment = {**os.environ, "GO111MODULE": "off", "CGO_ENABLED": "0"}
    done = subprocess.run(
        command, cwd=sources[0].parent, env=environment, capture_output=True, timeout=_BUILD_SECONDS_MAX, check=False
    )
    if done.returncode != 0:
        print(f"the node was not built: {done.stderr.decode(errors='replace')[-500:]}", file=sys.stderr)
        return None
    partial.replace(built)
    return built


@contextmanager
def serve_recording(recording: Path, limits: Limits | None = None) -> Iterator[Node]:
    """A recorded chain. Raises NodeMissing for limits without the program."""
    built = program()
    if built is None:
        if limits is not None:
            raise NodeMissing("simulated limits need a Go compiler: put `go` on the PATH")
        with _running("python", [sys.executable, "-m", "benchmarks.node.fallback", str(recording)]) as node:
            yield node
        return
    with _running("go", [str(built), "-recording", str(recording), *_flags(limits)]) as node:
        yield node


@contextmanager
def serve_invented(chain: Invented, limits: Limits | None = None) -> Iterator[Node]:
    """A made-up chain, all of it final. Raises NodeMissing."""
    built = program()
    if built is None:
        raise NodeMissing("made-up chains need a Go compiler: put `go` on the PATH")
    with _running("go", [str(built), *_flags(chain), *_flags(limits)]) as node:
        yield node


def _flags(options: Limits | Invented | None) -> list[str]:
    if options is None:
        return []
    named = ((field.name.replace("_", "-"), getattr(options, field.name)) for field in fields(options))
    return [part for name, value in named for part in (f"-{name}", str(value))]


@contextmanager
def _running(kind: str, command: Sequence[str]) -> Iterator[Node]:
    """The node in a process of its own, which prints its port when it is ready."""
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise NodeMissing(f"{' '.join(command)} did not start")
        url = f"http://127.0.0.1:{int(line)}"
        yield Node(url, process.pid, kind, lambda: _get(url), lambda: _get(f"{url}/truth"))
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS_MAX)
        process.stdout.close()


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found

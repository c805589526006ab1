"""The gate: every mutant must be killed by its own test.

Each worker has a copy of the checkout's `src` and `tests`. A killer is first run on the copy as it is and must pass;
then each of its mutants is put in by itself, the killer is run again and must fail, and the file is put back. A killer
that is skipped, cannot be collected or fails in its set-up proves nothing and is no kill.

Byte code is written by the runs without a fault only, and a mutated file gets a time of its own, so that no run sees
the byte code of another one's text.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.mutation.mutant import Mutant, Stale

COPIED = ("src", "tests", "pyproject.toml")
TEST_SECONDS_MAX = 60
"""Of one test: one that hangs because of the fault has failed."""
RUN_SECONDS_MAX = 150.0
"""Of one run of pytest, with all that starts before the test and ends after it."""
_PLUGINS = ("pytest_timeout", "_hypothesis_pytestplugin")
"""The only ones that are loaded: others cost a second in every run, or draw an order."""
_OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0")
_ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONHASHSEED": "0"}
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed|deselected)\b")
_AHEAD_NS = 3_600_000_000_000
_FAILED = 1


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    STALE = "STALE"
    UNPROVEN = "UNPROVEN"
    """Its killer does not pass without it, or could not be run with it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    mutant: Mutant
    fate: Fate
    seconds: float
    detail: str = ""
    """For all but the killed: what to look at."""


@dataclass(frozen=True, slots=True)
class Run:
    """How one run of pytest ended. `code` is None where it did not end by itself."""

    code: int | None
    counts: dict[str, int]
    tail: str

    @property
    def passed(self) -> bool:
        return self.code == 0 and set(self.counts) == {"passed"}

    @property
    def failed(self) -> bool:
        """A test failed: not its collection, nor its fixtures."""
        return self.code == _FAILED and "failed" in self.counts


class Workshop:
    """One copy of the checkout, in which faults are put in and taken out."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.root = folder
        for name in COPIED:
            source = checkout / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, folder / name)

    def run(self, node: str, *, pristine: bool) -> Run:
        """Run one test. `pristine`: the copy is as it was made, so byte code may be kept."""
        environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": str(self.root / "src")}
        environment.pop("GAPLESS_SHARED", None)
        if not pristine:
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        folder = f"--basetemp={self.root.parent / 'tmp'}"  # pytest's own is swept by every run on the machine
        limit = f"--timeout={TEST_SECONDS_MAX}"
        plugins = [part for name in _PLUGINS for part in ("-p", name)]
        command = [sys.executable, "-m", "pytest", *plugins, *_OPTIONS, limit, folder, node]
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=RUN_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                said, _ = process.communicate()
                return Run(None, {}, f"did not end within {RUN_SECONDS_MAX:g} s\n{said[-2000:]}")
        last = said.rstrip().rsplit("\n", 1)[-1]
        counts = {kind: int(number) for number, kind in _COUNT.findall(last)}
        return Run(process.returncode, counts, f"pytest ended with {process.returncode}\n{said[-3000:]}")

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """The fault is in while the block runs. Raises Stale."""
        path = self.root / mutant.path
        text, known = path.read_text(), path.stat()
        path.write_text(mutant.applied(text))
        os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns + _AHEAD_NS))
        try:
            yield
        finally:
            path.write_text(text)
            os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))

    def judge(self, mutant: Mutant) -> Verdict:
        """Run the killer on the mutant."""
        started = time.monotonic()
        try:
            with self.mutated(mutant):
                run = self.run(mutant.node, pristine=False)
        except Stale as error:
            return Verdict(mutant, Fate.STALE, 0.0, str(error))
        seconds = time.monotonic() - started
        if run.failed:
            return Verdict(mutant, Fate.KILLED, seconds)
        if run.passed:
            what = f"{mutant.node} passes although: {mutant.why}"
            return Verdict(mutant, Fate.SURVIVED, seconds, what)
        return Verdict(mutant, Fate.UNPROVEN, seconds, f"the killer could not be run with the fault\n{run.tail}")


def gate(checkout: Path, mutants: Sequence[Mutant], *, workers: int) -> int:
    """Judge the mutants and say what became of each. Returns the exit code: 0 when every one was killed."""
    started = time.monotonic()
    verdicts = judge_all(checkout, mutants, workers=workers, report=_say)
    alive = [v for v in verdicts if v.fate is not Fate.KILLED]
    for verdict in alive:
        print(f"\n{verdict.fate} {verdict.mutant.id}: {verdict.detail}")
    print(f"\n{len(verdicts) - len(alive)} of {len(mutants)} mutants killed in {time.monotonic() - started:.0f} s")
    return 0 if len(verdicts) == len(mutants) and not alive else 1


def _say(verdict: Verdict) -> None:
    print(f"{verdict.fate:8} {verdict.seconds:5.1f} s  {verdict.mutant.id}  <-  {verdict.mutant.killer}", flush=True)


def judge_all(
    checkout: Path, mutants: Iterable[Mutant], *, workers: int, report: Callable[[Verdict], None]
) -> list[Verdict]:
    """Judge the mutants, those of one killer after each other; `report` is called with each verdict as it comes."""
    by_killer: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        by_killer.setdefault(mutant.node, []).append(mutant)
    verdicts: list[Verdict] = []
    ended = threading.Event()
    with tempfile.TemporaryDirectory(prefix="gapless-mutation-") as folder:
        shops: queue.SimpleQueue[Workshop] = queue.SimpleQueue()
        for number in range(workers):
            copy = Path(folder, str(number), "checkout")
            copy.mkdir(parents=True)
            shops.put(Workshop(checkout, copy))

        def work(group: Sequence[Mutant]) -> None:
            shop = shops.get()
            try:
                for verdict in _judge_group(shop, group):
                    verdicts.append(verdict)
                    report(verdict)
                    if ended.is_set():
                        return
            finally:
                shops.put(shop)

        pool = ThreadPoolExecutor(workers)
        try:
            for future in [pool.submit(work, group) for group in by_killer.values()]:
                future.result()
        finally:
            ended.set()  # Ctrl-C: what runs is finished, no more is begun
            pool.shutdown(cancel_futures=True)
    return verdicts


def _judge_group(shop: Workshop, group: Sequence[Mutant]) -> Iterator[Verdict]:
    """The mutants of one killer, which must first pass without any."""
    run = shop.run(group[0].node, pristine=True)
    for mutant in group:
        if run.passed:
            yield shop.judge(mutant)
        else:
            what = f"{mutant.node} does not pass on the code as it is\n{run.tail}"
            yield Verdict(mutant, Fate.UNPROVEN, 0.0, what)

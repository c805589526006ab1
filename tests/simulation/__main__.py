"""`python -m tests.simulation`: run many seeds, or one again.

python -m tests.simulation --seed 123 --trace     one seed, with all that happened
python -m tests.simulation --seeds 20000 --jobs 2 so many, in so many processes
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.seeds import again, kept, play

from gapless.clock import SystemClock
from gapless.testing.simulation import Outcome

SEEDS_AT_ONCE = 10
FAILURES_MAX = 20
"""After so many failed seeds there is something to mend first."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Whole runs, from seeds.")
    parser.add_argument("--seed", type=int, help="only this one; what it raises is shown whole")
    parser.add_argument("--trace", action="store_true", help="print all that happens, with its simulated time")
    parser.add_argument("--seeds", type=int, default=300, help="how many, besides the kept ones")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        print(_line(play(chosen.seed, tell=print if chosen.trace else None)))
        return 0
    return _many([*kept(), *range(chosen.first, chosen.first + chosen.seeds)], chosen.jobs)


def _many(seeds: list[int], jobs: int) -> int:
    clock = SystemClock()
    began = clock.monotonic()
    outcomes: list[Outcome] = []
    failed: list[int] = []
    try:
        for seed, result in _results(seeds, jobs):
            if isinstance(result, Outcome):
                outcomes.append(result)
            else:
                failed.append(seed)
                print(f"FAILED {seed}: {result[:800]}\n  Again: {again(seed)}", flush=True)
                if len(failed) >= FAILURES_MAX:
                    print("Too many failures; the rest is not run.")
                    break
    except KeyboardInterrupt:
        print("Interrupted; the rest is not run.")
    seconds = clock.monotonic() - began
    steps = sum(o.steps for o in outcomes)
    print(
        f"{len(outcomes)} seeds passed, {len(failed)} failed {failed or ''} in {seconds:.0f} s: "
        f"{len(outcomes) / seconds:.1f} seeds/s, {steps / seconds:,.0f} steps/s, "
        f"{sum(o.commits for o in outcomes):,} commits checked, {sum(o.forks for o in outcomes):,} forks undone "
        f"(deepest {max((o.fork_deepest for o in outcomes), default=0)}), "
        f"{sum(o.simulated_seconds for o in outcomes) / 3600:.1f} simulated hours"
    )
    return 1 if failed else 0


def _results(seeds: list[int], jobs: int) -> Iterator[tuple[int, Outcome | str]]:
    chunks = [seeds[at : at + SEEDS_AT_ONCE] for at in range(0, len(seeds), SEEDS_AT_ONCE)]
    if jobs == 1:
        for chunk in chunks:
            yield from _chunk(chunk)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            for results in pool.map(_chunk, chunks):
                yield from results
        finally:
            pool.shutdown(cancel_futures=True)


def _chunk(seeds: list[int]) -> list[tuple[int, Outcome | str]]:
    return [(seed, _tried(seed)) for seed in seeds]


def _tried(seed: int) -> Outcome | str:
    try:
        return play(seed)
    except Exception as error:  # noqa: BLE001 - every failure is told, and the others go on
        return f"{type(error).__name__}: {error}"


def _line(outcome: Outcome) -> str:
    return (
        f"seed {outcome.seed} passed: trace {outcome.trace}, {outcome.steps:,} steps, {outcome.commits} commits, "
        f"{outcome.forks} forks (deepest {outcome.fork_deepest}), {outcome.simulated_seconds:.1f} simulated seconds "
        f"in {outcome.real_seconds:.2f} s"
    )


if __name__ == "__main__":
    sys.exit(main())

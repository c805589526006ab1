"""A scripted node that mines on time: python -m benchmarks.mining BLOCKS INTERVAL LOGS

It prints its two addresses and the number of the first block to come, waits for a line on its input, then mines one
block an interval and prints each one's number with the moment from which it could be asked for.
"""

from __future__ import annotations

import sys
import time

from gapless.testing import FakeNode, ScriptedChain

BEFORE = 100


def main() -> None:
    blocks, interval, logs = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    chain = ScriptedChain(seed=7)
    chain.mine(BEFORE, logs=logs)
    with FakeNode(chain) as node:
        print(node.url, node.ws_url, BEFORE + 1, flush=True)
        sys.stdin.readline()
        due = time.monotonic()
        for number in range(BEFORE + 1, BEFORE + 1 + blocks):
            due += interval
            time.sleep(max(0.0, due - time.monotonic()))
            chain.mine(logs=logs)
            print(number, time.monotonic(), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

"""How fast AT Protocol frames are read and verified: `python -m benchmarks.atproto`.

Frames of the real network (100 contiguous ones) and of a recorded PDS (3,288) come from the shared data beside the
checkout (or `GAPLESS_SHARED`). `--processes` spreads the verification. Where the PyPI package `atproto` is installed,
its own pipeline runs between ours, on the same frames in the same process: it decodes, and checks neither hashes nor
signatures. CPU time is of this process and of those it started, so that it counts on a busy machine, too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import os
import statistics
import struct
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path
from typing import Any

from gapless.sources.atproto.batch import ExaminerPool, examine, link, verify_commits
from gapless.sources.atproto.did_document import read_did_document
from gapless.sources.atproto.frames import Commit, Sync, decode_frames
from gapless.sources.atproto.record import record_json
from gapless.sources.atproto.verification import Level, Verdict

SHARED = Path(os.environ.get("GAPLESS_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data" / "atproto"
NOW_US = 1_800_000_000_000_000
NETWORK_ROUNDS = 30
"""The network's 100 frames are repeated so often in a run."""

Material = tuple[list[bytes], dict[str, str]]


def split(data: bytes, at: int, length: str) -> list[bytes]:
    frames = []
    while at < len(data):
        (size,) = struct.unpack_from(length, data, at)
        frames.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return frames


def network() -> Material:
    import pyarrow as pa

    with pa.input_stream(str(SHARED / "firehose-corpus/frames.bin.zst"), compression="zstd") as stream:
        frames = split(stream.read(), 0, "<I") * NETWORK_ROUNDS
    documents = json.loads(gzip.decompress((SHARED / "firehose-corpus/did_docs.json.gz").read_bytes()))
    return frames, {did: read_did_document(did, document).signing_key for did, document in documents.items()}


def local_pds() -> Material:
    frames = split(lzma.decompress((SHARED / "local-pds/firehose-live.frames.xz").read_bytes()), 11, ">I")
    keys = {}
    for line in (SHARED / "local-pds/plc.jsonl").read_text().splitlines():
        entry = json.loads(line)
        keys[entry["did"]] = entry["operation"]["verificationMethods"]["atproto"]
    return frames, keys


def ours(frames: list[bytes], keys: dict[str, str]) -> dict[str, Callable[[], object]]:
    def decoded() -> list[Commit | Sync]:
        return [message for message in decode_frames(frames) if isinstance(message, Commit | Sync)]

    def verified(level: Level) -> None:
        outcomes = verify_commits(decoded(), keys, {}, level=level, now_us=NOW_US).outcomes
        assert all(one.verdict in (Verdict.OK, Verdict.STALE) for one in outcomes)

    def with_records() -> None:
        for one in examine(decoded(), keys, Level.PROVED):
            for record in one.records:
                if record is not None:
                    record_json(record)

    return {
        "gapless: decoded": lambda: decode_frames(frames),
        "gapless: decoded, off (records at hand, CIDs hashed)": lambda: verified(Level.OFF),
        "gapless: decoded, checked": lambda: verified(Level.CHECKED),
        "gapless: decoded, proved (signature, tree)": lambda: verified(Level.PROVED),
        "gapless: decoded, proved, records as JSON": with_records,
    }


def theirs(frames: list[bytes]) -> dict[str, Callable[[], object]]:
    try:
        from atproto import CAR, firehose_models, models, parse_subscribe_repos_message
    except ImportError:
        return {}

    def read(car: bool, records: bool) -> None:
        for frame in frames:
            message = parse_subscribe_repos_message(firehose_models.Frame.from_bytes(frame))
            if car and isinstance(message, models.ComAtprotoSyncSubscribeRepos.Commit) and message.blocks:
                blocks = CAR.from_bytes(message.blocks).blocks
                for op in message.ops if records else ():
                    if op.cid and op.cid in blocks:
                        models.get_or_create(blocks[op.cid], strict=False)

    return {
        "atproto SDK: decoded": lambda: read(car=False, records=False),
        "atproto SDK: decoded, CAR (nothing verified)": lambda: read(car=True, records=False),
        "atproto SDK: decoded, CAR, record models (nothing verified)": lambda: read(car=True, records=True),
    }


def spread(pool: ExaminerPool, frames: list[bytes], keys: dict[str, str]) -> Callable[[], object]:
    """The way of an adapter: decode here, examine there, hold against the states here."""

    def run() -> None:
        pairs = [
            (frame, message)
            for frame, message in zip(frames, decode_frames(frames), strict=True)
            if isinstance(message, Commit | Sync)
        ]
        futures = pool.submit(
            [frame for frame, _ in pairs], [keys.get(message.did) for _, message in pairs], Level.PROVED
        )
        messages = [message for _, message in pairs]
        outcomes = link(messages, pool.collect(futures), {}, level=Level.PROVED, now_us=NOW_US).outcomes
        assert all(one.verdict in (Verdict.OK, Verdict.STALE) for one in outcomes)

    return run


def cpu_seconds() -> float:
    """CPU time of this process and of the pool's, so far."""
    pages = [Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split() for child in active_children()]
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in pages)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def rounds(cases: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each case, its runs between those of the others so that noise strikes all alike."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for case in cases.values():
        case()
    for _ in range(runs):
        for name, case in cases.items():
            wall, cpu = time.perf_counter(), cpu_seconds()
            case()
            found[name].append((time.perf_counter() - wall, cpu_seconds() - cpu))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with ExaminerPool(options.processes) as pool:
        for title, (frames, keys) in {"real network": network(), "recorded PDS": local_pds()}.items():
            cases = ours(frames, keys)
            cases[f"gapless: decoded, proved, {options.processes} processes"] = spread(pool, frames, keys)
            cases |= theirs(frames)
            size = statistics.mean(map(len, frames))
            print(f"\n{title}: {len(frames)} frames of {size:,.0f} bytes on average, {options.runs} runs")
            print(f"  {'':60s} {'median':>11s}  {'best':>11s}  {'CPU, best':>12s}")
            for name, seconds in rounds(cases, options.runs).items():
                walls = [wall for wall, _ in seconds]
                middle, best = len(frames) / statistics.median(walls), len(frames) / min(walls)
                each = 1e6 * min(cpu for _, cpu in seconds) / len(frames)
                print(f"  {name:60s} {middle:9,.0f} /s  {best:9,.0f} /s  {each:6.1f} us each")


if __name__ == "__main__":
    main()

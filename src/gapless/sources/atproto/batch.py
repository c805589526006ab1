"""Many messages at once: in this process, or spread over several.

What a message shows alone (`verification.examine_…`) needs neither order nor state, so it goes to processes; holding
it against the repository's state is done here, in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import msgspec

from gapless.errors import Contradiction
from gapless.sources.atproto.frames import Commit, Sync, decode_frame
from gapless.sources.atproto.keys import PublicKey, parse_did_key
from gapless.sources.atproto.verification import (
    Examined,
    Level,
    Outcome,
    RepoState,
    Verdict,
    examine_commit,
    examine_sync,
    link_commit,
    link_sync,
)

CHUNK_FRAMES = 250
"""Frames that go to a process at a time: large enough that the way there and back costs little."""

Message = Commit | Sync


@dataclass(frozen=True, slots=True)
class Verified:
    """Outcomes of a batch, in its order, and the states after it of the repositories that it moved."""

    outcomes: list[Outcome]
    states: dict[str, RepoState]


def examine(messages: Sequence[Message], keys: Mapping[str, str], level: Level) -> list[Examined]:
    """The first half for a batch. `keys`: DID → `did:key:…`; parsed ones are kept."""
    return [_examine(message, keys.get(message.did), level) for message in messages]


def _examine(message: Message, key_text: str | None, level: Level) -> Examined:
    key: PublicKey | None = None
    if key_text:
        try:
            key = parse_did_key(key_text)
        except Contradiction as error:
            return Examined(Verdict.BAD_SIGNATURE, error.kind, error.what)
    if type(message) is Commit:
        return examine_commit(message, key, level)
    return examine_sync(message, key, level) if isinstance(message, Sync) else Examined(Verdict.REFUSED, "frame_shape")


def link(
    messages: Sequence[Message],
    examined: Sequence[Examined],
    states: Mapping[str, RepoState],
    *,
    level: Level,
    now_us: int,
) -> Verified:
    """The second half for a batch, in order: each message is held against the state that those before it left."""
    moved: dict[str, RepoState] = {}
    outcomes: list[Outcome] = []
    for message, one in zip(messages, examined, strict=True):
        did = message.did
        state = moved.get(did) or states.get(did)
        if isinstance(message, Commit):
            outcome = link_commit(message, one, state, level=level, now_us=now_us)
        else:
            outcome = link_sync(message, one, state, level=level, now_us=now_us)
        if outcome.verdict is Verdict.OK and outcome.state is not None:
            moved[did] = outcome.state
        outcomes.append(outcome)
    return Verified(outcomes, moved)


def verify_commits(
    messages: Sequence[Message],
    keys: Mapping[str, str],
    states: Mapping[str, RepoState],
    *,
    level: Level = Level.PROVED,
    now_us: int,
) -> Verified:
    """Both halves for a batch, in this process."""
    return link(messages, examine(messages, keys, level), states, level=level, now_us=now_us)


def _work(frames: list[bytes], keys: list[str | None], level: str) -> bytes:
    """What a process does: decode, examine, answer in a form that is cheap to pass on."""
    found: list[Examined] = []
    for frame, key in zip(frames, keys, strict=True):
        message = decode_frame(frame)
        if isinstance(message, Commit | Sync):
            found.append(_examine(message, key, Level(level)))
        else:
            found.append(Examined(Verdict.REFUSED, "frame_shape", "Neither #commit nor #sync"))
    return msgspec.msgpack.encode(found)


class ExaminerPool:
    """Processes that do the first half. They hold no state and no connection; `with` ends them."""

    def __init__(self, processes: int, *, chunk_frames: int = CHUNK_FRAMES) -> None:
        self._chunk_frames = chunk_frames
        self._decoder = msgspec.msgpack.Decoder(list[Examined])
        # Started anew, not forked: a fork of a process with threads and connections inherits both.
        self._pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def __enter__(self) -> ExaminerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, frames: Sequence[bytes], keys: Sequence[str | None], level: Level) -> list[Future[bytes]]:
        """Begin to examine these frames (each a `#commit` or `#sync`), each with its account's key. How many may be
        under way at a time is for the caller to bound."""
        size = self._chunk_frames
        return [
            self._pool.submit(_work, list(frames[at : at + size]), list(keys[at : at + size]), level.value)
            for at in range(0, len(frames), size)
        ]

    def collect(self, futures: Sequence[Future[bytes]]) -> list[Examined]:
        """What came of it, in order. Blocks. Raises what the process raised: BrokenProcessPool where it died."""
        return [one for future in futures for one in self._decoder.decode(future.result())]

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

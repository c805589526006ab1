"""The Journal port: an ordered, durable, bounded buffer of raw messages between a source and its indexers.

A message gets a position (1, 2, 3 …, without holes) when it is appended, and it is there for every consumer until
all of them have acknowledged it and it is trimmed. Payloads are opaque bytes: frames are kept as they came, so that
decoders can be run again without the network.

What an adapter promises, and `gapless.testing.journal_contract` tries to break:

- `append` returns when the records are durable, never before. Appending the same id again, within the adapter's
  window of recent ids and while it is not trimmed, adds nothing and returns the position it already has. Ids are
  compared, payloads are not: the first one stands. A journal's de-duplication saves work; exactly-once is the store's.
- `read` returns consecutive positions, or raises: JournalTrimmed, or JournalDamaged with the positions lost. It
  never passes over a record in silence.
- An acknowledgement may be forgotten by a crash (the store's cursor is the truth, and the consumer says again what
  it has), but it is never invented, and neither is a consumer forgotten.
- `trim` removes a prefix, and never what a consumer has not acknowledged. Without consumers nothing is trimmed.
- At high water `append` waits until the journal has fallen to low water, or raises JournalFull; one append may pass
  the high water by its own size.
- After a failure of its disk or connection a journal raises JournalUnavailable for everything until it is opened
  again. What got no answer may or may not be there, whole: append it again.

Methods are asynchronous: brokers are reached over asynchronous clients, and an append waits for the disk and for
low water. The local journals are a synchronous `log.Log` (memory, file) in one asynchronous shell (`shell.py`), so
that everything that matters for correctness is tested without a loop.

How the same port lies on brokers (adapters to come):

- NATS JetStream: one stream with `discard=new`, one subject; position = stream sequence; `append` = publish with
  `Nats-Msg-Id`, awaiting every PubAck (its `seq`, also when `duplicate`), refused unless the server says that it
  syncs always or the operator accepts less; the window of ids is a duration there (`duplicate_window`), so an
  adapter sets it from its message rate and keeps `RecentIds` beside it. `read` = direct get or an ordered consumer
  by start sequence; a jump of the sequence is JournalDamaged. Consumers are positions in a key-value bucket, `trim`
  = purge up to a sequence, high water = the stream's message and byte counts, asked for before an append.
- Redis Streams: position n is the entry id `n-0`, given explicitly: XADD refuses an id that is not above the last,
  which makes a lost race visible. Ids that repeat, the next position and the XADDs are one Lua script with a hash of
  recent ids. `read` = XRANGE; XREADGROUP and its pending list are not used, since one reader is behind each
  consumer and acknowledgement is a position, not a set: XACK becomes a hash field, raised by a script, never
  lowered. `trim` = XTRIM MINID, never MAXLEN. Durable only with `appendfsync always`, WAITAOF otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

import msgspec

from gapless.clock import Clock
from gapless.errors import ConfigError
from gapless.journal.limits import Limits

if TYPE_CHECKING:
    from gapless.journal.disk import Disk

__all__ = [
    "Damage",
    "Journal",
    "JournalKeeper",
    "JournalReader",
    "JournalState",
    "JournalWriter",
    "Limits",
    "Message",
    "Record",
    "open_journal",
]


class Message(msgspec.Struct, frozen=True, gc=False):
    """What is appended."""

    id: str
    """Unique in its source, the same whenever it is received again: `host:seq`, `number:hash`. 1 to 1024 bytes."""
    payload: bytes
    received_us: int
    """Wall-clock microseconds since 1970 UTC."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A message with its place."""

    position: int
    """From 1, without holes."""
    id: str
    payload: bytes
    received_us: int


class Damage(msgspec.Struct, frozen=True, gc=False):
    """Records that were durable and cannot be read any more."""

    segment: str
    """The file, or what the adapter has in its place."""
    offset: int
    """Bytes into the segment where the readable part ends."""
    first: int
    last: int
    """Positions lost, both included."""
    why: str


class JournalState(msgspec.Struct, frozen=True):
    """What a journal holds now."""

    first: int
    """The oldest position that is not trimmed: `last + 1` where nothing is retained."""
    last: int
    """The newest; 0 before the first."""
    bytes_held: int
    """On disk or in memory."""
    full: bool
    """Stands at high water and has not been at low water since."""
    consumers: dict[str, int]
    """The position each has acknowledged."""
    notes: tuple[str, ...] = ()
    """What opening found and did: a torn tail cut, records rewritten."""

    @property
    def length(self) -> int:
        """Records retained."""
        return self.last - self.first + 1


class JournalWriter(Protocol):
    """Keeps what it acknowledged."""

    async def append(self, messages: Sequence[Message]) -> list[int]:
        """Make the messages durable, in this order, and return their positions: new ones are consecutive, repeated
        ids get the position they have. Calls under way at the same time share one sync.

        Raises JournalFull, JournalUnavailable, JournalDiskFull, and InvariantViolation for a message beyond the
        limits. When cancelled, the messages may be appended all the same."""
        ...


class JournalReader(Protocol):
    """Gives back what was kept, in order, to several consumers."""

    async def subscribe(self, consumer: str) -> int:
        """Make a consumer known, durably, so that trim waits for it, and return what it has acknowledged: for a new
        one, the position before the oldest record. Idempotent."""
        ...

    async def read(
        self, after: int, *, records_max: int = 1000, bytes_max: int = 8 * 2**20, wait_seconds: float = 0.0
    ) -> list[Record]:
        """The records that follow the position `after`, consecutive, at least one if there is one, and no more than
        the limits (a single record may be larger). Waits up to `wait_seconds` for the first.

        Raises JournalTrimmed when the next one was trimmed, JournalDamaged when it is lost (read on after `last`
        once that is written down as a gap), JournalError for a position beyond the journal's last."""
        ...

    async def acknowledge(self, consumer: str, upto: int) -> None:
        """The consumer has committed everything up to here. Lower than before: no effect. Raises JournalError for an
        unknown consumer or a position beyond the last."""
        ...


class JournalKeeper(Protocol):
    """The operator's side."""

    async def length(self) -> int:
        """Records retained."""
        ...

    async def trim(self, upto: int | None = None) -> int:
        """Forget records up to this position, but none that a consumer has not acknowledged; None: as many as that.
        Returns the position up to which everything is forgotten now. Space is freed by whole segments."""
        ...

    async def unsubscribe(self, consumer: str) -> None:
        """Forget a consumer that will not come back: trim no longer waits for it."""
        ...

    async def state(self) -> JournalState: ...

    async def verify(self) -> list[Damage]:
        """Read everything retained and name what is lost."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of the journal. Everything else raises JournalUnavailable from then
        on. Idempotent."""
        ...


class Journal(JournalWriter, JournalReader, JournalKeeper, Protocol):
    """A journal, open."""

    url: str
    """Without password."""


async def open_journal(
    url: str, *, clock: Clock, limits: Limits | None = None, base: Path | None = None, disk: Disk | None = None
) -> Journal:
    """Open what the URL names: `memory:`, or the folder of `file:///absolute/path` or `file:path` (below `base`,
    the configuration's folder), which is made if it is not there.

    Raises ConfigError, JournalLocked, JournalUnavailable, and JournalError where the journal's own books are
    damaged. Damaged records do not keep a journal from opening: reading names them."""
    from gapless.journal.log import Log
    from gapless.journal.shell import Shell

    scheme, _, rest = url.partition(":")
    log: Log
    if url == "memory:":
        from gapless.journal.memory import MemoryLog

        log = MemoryLog(limits or Limits.in_memory())
    elif scheme == "file" and rest and (rest.startswith("///") or not rest.startswith("//")) and "?" not in rest:
        from gapless.journal.file import FileLog

        folder = (base or Path()) / unquote(rest.removeprefix("//"))
        log = FileLog(folder, limits or Limits(), disk)
    else:
        raise ConfigError(
            f"{url!r} is not a journal URL", todo="Write memory:, file:///absolute/folder or file:folder."
        )
    shell = Shell(log, clock)
    await shell.open()
    return shell

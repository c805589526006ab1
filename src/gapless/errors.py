"""The whole error tree.

Every error says what happened, where, and what to do next. `retryable` tells the engine whether doing
the same thing again, later or elsewhere, can help; `exit_code` is what the command line ends with
(0 done, 1 failed, 2 usage, 3 not ready, 4 refused for safety, 130 interrupted).
"""

from __future__ import annotations

from typing import ClassVar


class GaplessError(Exception):
    """Something went wrong in Gapless."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        source: str | None = None,
        position: int | None = None,
        todo: str | None = None,
    ) -> None:
        self.what = what
        self.source = source
        self.position = position
        self.todo = todo
        super().__init__(what)

    def __str__(self) -> str:
        where = ""
        if self.source is not None:
            where = f" (source {self.source!r}" + (f", position {self.position})" if self.position is not None else ")")
        elif self.position is not None:
            where = f" (position {self.position})"
        return f"{self.what}{where}." + (f" {self.todo}" if self.todo else "")


class InvariantViolation(GaplessError):
    """A rule that must always hold does not: stop, change nothing."""

    exit_code = 4


def check(condition: object, message: str) -> None:
    """Raise `InvariantViolation` unless the condition holds. Unlike `assert` it survives `python -O`."""
    if not condition:
        raise InvariantViolation(
            f"Internal rule broken: {message}", todo="Nothing was written. Please report this with the log."
        )


# --- usage and configuration ---------------------------------------------------------------------------------------


class UsageError(GaplessError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration cannot be used as written."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""


# --- sources -------------------------------------------------------------------------------------------------------


class SourceError(GaplessError):
    """A source could not answer."""


class SourceUnavailable(SourceError):
    """The endpoint did not answer, or not in time."""

    retryable = True
    exit_code = 3


class TimedOut(SourceUnavailable):
    """The endpoint did not answer in time: it may be busy, or the request too large for it."""


class RateLimited(SourceUnavailable):
    """The endpoint asked us to slow down. `code` is set when it did so by a JSON-RPC error inside an ordinary answer:
    some nodes use the same code for an answer that would be too large."""

    def __init__(
        self,
        what: str,
        *,
        retry_after_seconds: float | None = None,
        code: int | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__(what, source=source)
        self.retry_after_seconds = retry_after_seconds
        self.code = code


class BadAnswer(SourceError):
    """The endpoint answered with something that is not what was asked for (HTML, truncated body, wrong shape)."""

    retryable = True
    exit_code = 3


class AnswerTooLarge(BadAnswer):
    """The answer is larger than we take at once: ask for less."""


class RequestRefused(SourceError):
    """The endpoint refused the request itself (a JSON-RPC error): often the range or the answer is too large."""

    retryable = True

    def __init__(self, what: str, *, code: int | None = None, source: str | None = None) -> None:
        super().__init__(what, source=source)
        self.code = code


class MethodMissing(RequestRefused):
    """The endpoint does not know the method."""

    retryable = False


class NotYetAvailable(SourceError):
    """The endpoint does not have this position (yet): it lags behind the one that announced it."""

    retryable = True


class Contradiction(SourceError):
    """An answer contradicts itself, the chain, or another answer. It is refused, counted, and asked for elsewhere."""

    retryable = True

    def __init__(self, what: str, *, kind: str, position: int | None = None, source: str | None = None) -> None:
        super().__init__(what, position=position, source=source)
        self.kind = kind


class HistoryPruned(SourceError):
    """The source no longer has the positions asked for."""

    exit_code = 4


class StartBeyondHead(SourceError):
    """The configured start lies beyond the source's head."""

    exit_code = 3


class WrongChain(SourceError):
    """The endpoint serves another chain than the one the tables were filled from."""

    exit_code = 4


class ForkTooDeep(SourceError):
    """The source replaced more entries than may be undone automatically."""

    exit_code = 4


class ForkBeyondFinality(SourceError):
    """The source replaced entries it had declared final."""

    exit_code = 4


# --- decoding and handlers -----------------------------------------------------------------------------------------


class AbiError(ConfigError):
    """An ABI cannot be read."""


class DecodeError(GaplessError):
    """Bytes do not decode as the ABI says. The item goes to quarantine; its siblings are kept."""


class HandlerFailed(GaplessError):
    """A handler raised. The message names block, transaction and log."""


# --- store ---------------------------------------------------------------------------------------------------------


class StoreError(GaplessError):
    """The database could not do what was asked."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, or is shutting down."""

    retryable = True
    exit_code = 3


class CommitUnknown(StoreUnavailable):
    """The connection was lost at COMMIT and the cursor could not be read since: the outcome is not known yet."""


class MissingDatabase(StoreError):
    """There is no database of the app yet, and none may be created."""

    exit_code = 3


class ReadOnlyStore(StoreError):
    """The database refuses writes."""

    exit_code = 3


class DiskFull(StoreError):
    """The database has no space left. Nothing of the batch was kept."""

    retryable = True
    exit_code = 3


class WrongDatabase(StoreError):
    """The database belongs to another app, or is not a Gapless database."""

    exit_code = 4


class NewerDatabase(StoreError):
    """The database was written by a newer Gapless."""

    exit_code = 4


class SchemaChanged(StoreError):
    """The app's tables differ from those in the database."""

    exit_code = 4


class CursorMoved(StoreError):
    """The stored cursor is not the one this batch was built on: another process wrote, or the batch is stale."""

    retryable = True
    exit_code = 4


class LeaseLost(StoreError):
    """Another process leads this source now; nothing was written."""

    exit_code = 4


class LeaseHeld(StoreError):
    """Another process leads this source."""

    exit_code = 4


class NothingToUndo(StoreError):
    """The undo records needed to go back that far are gone, because the positions became final."""

    exit_code = 4


# --- journal -------------------------------------------------------------------------------------------------------


class JournalError(GaplessError):
    """The journal could not do what was asked."""


class JournalUnavailable(JournalError):
    """The journal cannot be reached, its disk failed, or it was closed. Nothing that was not acknowledged is promised:
    open it again, and append again what got no answer."""

    retryable = True
    exit_code = 3


class JournalDiskFull(JournalUnavailable):
    """The journal's disk has no space left."""


class JournalFull(JournalError):
    """The journal stands at its high water, and did not fall to its low water in time. Nothing was appended."""

    retryable = True
    exit_code = 3


class JournalLocked(JournalError):
    """Another process or another handle has this journal open."""

    exit_code = 4


class JournalTrimmed(JournalError):
    """The records asked for were trimmed: every consumer of that time had acknowledged them."""

    exit_code = 4


class JournalDamaged(JournalError):
    """Records that were durable cannot be read any more: `first` to `last` are lost, and why is said. Records before
    and after them are intact; reading on after `last` is the consumer's decision, never the journal's."""

    exit_code = 4

    def __init__(self, what: str, *, first: int, last: int, todo: str | None = None) -> None:
        super().__init__(what, todo=todo)
        self.first = first
        self.last = last


# --- running -------------------------------------------------------------------------------------------------------


class PortTaken(GaplessError):
    """The address to listen on is in use."""

    exit_code = 3


class NotReady(GaplessError):
    """What was asked for needs something that is not there yet."""

    exit_code = 3


class Refused(GaplessError):
    """Refused for safety."""

    exit_code = 4


class Halted(GaplessError):
    """The engine stopped by rule and waits for an operator."""

    exit_code = 4

"""From the answers to a range's filters to the checked logs of each block.

Answers that came as columns are checked as columns (`accept.py`); whatever is not in order there, and all that came as
objects, is checked log by log (`verify.py`), which tells what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gapless.sources.evm import verify
from gapless.sources.evm.lies import lie
from gapless.sources.evm.types import Header, Log, LogClause, Verify

if TYPE_CHECKING:
    from gapless.sources.evm.accept import Accepted
    from gapless.sources.evm.logtable import LogTable

    Answers = Sequence[LogTable | list[Log]]
    """What one filter was answered with, in as many calls as it took."""


class Filtered:
    """The answers to all filters of a range whose headers are checked."""

    def __init__(self, headers: Sequence[Header], level: Verify, hashing: verify.ChainHashing) -> None:
        self._headers = headers
        self._level = level
        self._hashing = hashing
        self._accepted: list[Accepted] = []
        self._grouped: list[list[list[Log]]] = []

    def add(self, answers: Answers, clause: LogClause) -> list[int]:
        """Check what a filter was answered with. Returns the positions of suspects: see `check_filtered_logs`, whose
        errors are raised."""
        if not any(map(len, answers)):
            none = [0] * len(self._headers)
            return verify.suspects(self._headers, none, [clause], self._level, self._hashing)
        accepted = self._accept(answers, clause)
        if accepted is not None:
            self._accepted.append(accepted)
            return verify.suspects(self._headers, accepted.counts, [clause], self._level, self._hashing)
        logs = [log for answer in answers for log in _objects(answer)]
        groups, suspects = verify.check_filtered_logs(self._headers, logs, [clause], self._level, self._hashing)
        self._grouped.append(groups)
        return suspects

    def _accept(self, answers: Answers, clause: LogClause) -> Accepted | None:
        tables = [answer for answer in answers if not isinstance(answer, list)]
        if sum(map(len, tables)) != sum(map(len, answers)):
            return None
        from gapless.sources.evm.accept import accept
        from gapless.sources.evm.logtable import joined

        return accept(self._headers, joined(tables), [clause], blooms=self._hashing.bloom)

    def columns(self) -> Accepted | None:
        """All logs as columns; None where some did not come so, or there are none."""
        if self._grouped or not self._accepted:
            return None
        if len(self._accepted) == 1:
            return self._accepted[0]
        from gapless.sources.evm.accept import merged_columns

        return merged_columns(self._accepted)

    def logs(self) -> list[list[Log]]:
        """All logs of each block as objects."""
        groups = [*self._grouped, *(accepted.logs() for accepted in self._accepted)]
        return merged(groups) if groups else [[] for _ in self._headers]


def _objects(answer: LogTable | list[Log]) -> list[Log]:
    return answer if isinstance(answer, list) else answer.logs([len(answer)])[0]


def merged(grouped: Sequence[list[list[Log]]]) -> list[list[Log]]:
    """The logs of each block from the answers to several filters: each log once, in index order.

    Raises Contradiction `duplicate_log` where two answers differ on a log."""
    if len(grouped) == 1:
        return grouped[0]
    return [_merged_block(groups) for groups in zip(*grouped, strict=True)]


def _merged_block(groups: Sequence[list[Log]]) -> list[Log]:
    filled = [group for group in groups if group]
    if len(filled) <= 1:
        return filled[0] if filled else []
    by_index: dict[int, Log] = {}
    for group in filled:
        for log in group:
            known = by_index.setdefault(int(log.log_index, 16), log)
            if known != log:
                position = int(log.block_number, 16)
                raise lie("duplicate_log", f"Two answers differ on log {log.log_index} of block {position}", position)
    return [by_index[index] for index in sorted(by_index)]

"""Compare a filtered answer with a second endpoint's: the only way, short of fetching everything, to see that some of
several matching logs of a block were left out.

Where the two differ, the block's receipts decide, whose root the header commits to. The one whose logs are not those
of the receipts is the liar; it may also be that both are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gapless.errors import Contradiction, SourceError
from gapless.sources.evm import verify
from gapless.sources.evm.fetch import Part
from gapless.sources.evm.filtered import merged
from gapless.sources.evm.lies import lie
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.reader import LogRequest, Reader
from gapless.sources.evm.rpc import RECEIPTS
from gapless.sources.evm.types import Header, Log, Verify

MISMATCH = "audit_mismatch"
"""The kind under which a lie found by comparing is counted."""
_DECIDED_MAX = 16
"""Differing blocks that are decided one by one. Where more differ somebody is caught, and the rest stays undecided."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a comparison found: the lie the audited endpoint was caught at, that of the other one, and whether every
    difference was decided."""

    audited: Contradiction | None = None
    other: Contradiction | None = None
    complete: bool = True


class Auditor:
    """Compares; holds no state."""

    def __init__(self, requests: Sequence[LogRequest], options: EvmOptions) -> None:
        self._requests = requests
        self._clauses = [request.clause for request in requests]
        self._hashing = options.hashing

    async def compare(self, part: Part, audited: Reader, other: Reader) -> Finding:
        """Fetch the logs of a part's blocks from another endpoint and judge the differences.

        Raises Contradiction `audit_mismatch` where the two follow different chains, or nothing can decide; and what
        the readers raise."""
        first, last = int(part.headers[0].number, 16), int(part.headers[-1].number, 16)
        try:
            theirs = await self._logs(other, part.headers, first, last)
        except Contradiction as error:
            return Finding(other=await self._self_contradiction(other, part, first, last, error), complete=False)
        differing = [
            (header, mine, their)
            for header, mine, their in zip(part.headers, part.logs, theirs, strict=True)
            if mine != their
        ]
        try:
            return await self._decide(differing, audited, other)
        except Contradiction:
            raise
        except SourceError as error:
            what = f"{audited.endpoint.label} and {other.endpoint.label} differ, and nothing decides: {error.what}"
            raise lie(MISMATCH, what, int(differing[0][0].number, 16)) from error

    async def _decide(
        self, differing: Sequence[tuple[Header, list[Log], list[Log]]], audited: Reader, other: Reader
    ) -> Finding:
        caught: list[Contradiction | None] = [None, None]
        for header, mine, their in differing[:_DECIDED_MAX]:
            forged = await self._forged(header, other)
            if forged is not None:
                return Finding(*forged, complete=False)
            truth = await self._truth(header, audited, other)
            for side, (reader, logs) in enumerate(((audited, mine), (other, their))):
                if logs != truth and caught[side] is None:
                    caught[side] = _caught(reader, header, logs, truth)
        return Finding(caught[0], caught[1], complete=len(differing) <= _DECIDED_MAX)

    async def _logs(self, reader: Reader, headers: Sequence[Header], first: int, last: int) -> list[list[Log]]:
        grouped = []
        for request in self._requests:
            logs = await reader.logs(first, last, request)
            groups, _ = verify.check_filtered_logs(headers, logs, [request.clause], Verify.CHECKED, self._hashing)
            grouped.append(groups)
        return merged(grouped)

    async def _self_contradiction(
        self, reader: Reader, part: Part, first: int, last: int, error: Contradiction
    ) -> Contradiction:
        """The lie of the second endpoint, when its logs do not even fit the headers we have: against its own headers
        they must fit. If they do, the two endpoints are on different chains."""
        headers = await reader.headers(first, last)
        if [None if h is None else h.hash for h in headers] == [h.hash for h in part.headers]:
            return error
        what = f"{reader.endpoint.label} has other blocks in {first}-{last}: {error.what}"
        raise lie(MISMATCH, what, error.position) from error

    async def _forged(self, header: Header, other: Reader) -> tuple[Contradiction | None, Contradiction | None] | None:
        """None where both endpoints have the header that is to decide; else which of them forged it."""
        position = int(header.number, 16)
        (theirs,) = await other.headers(position, position)
        if theirs is not None and (theirs.hash, theirs.receipts_root) == (header.hash, header.receipts_root):
            return None
        try:
            verify.check_header_hash(header, self._hashing)
        except Contradiction as error:
            return error, None
        what = f"{other.endpoint.label} has another header of block {position}"
        return None, lie(MISMATCH, what, position)

    async def _truth(self, header: Header, one: Reader, two: Reader) -> list[Log]:
        """The wanted logs of a block by its receipts: proved ones of either endpoint, or, on a chain whose receipts
        cannot be proved, those on which both agree."""
        level = Verify.PROVED if self._hashing.receipts else Verify.CHECKED
        failures: list[SourceError] = []
        found: list[list[Log]] = []
        for reader in (one, two):
            try:
                (receipts,) = await reader.receipts([header], RECEIPTS)
                logs = verify.check_receipts(header, None, receipts, level, self._hashing)
            except SourceError as error:
                failures.append(error)
                continue
            found.append(verify.matching(logs, self._clauses))
            if level is Verify.PROVED or found == [found[0], found[0]]:
                return found[0]
        position = int(header.number, 16)
        told = "; ".join(f.what for f in failures) or "their receipts differ as well"
        labels = f"{one.endpoint.label} and {two.endpoint.label}"
        raise lie(
            MISMATCH, f"{labels} differ on the logs of block {position}, and no receipts decide: {told}", position
        )


def _caught(reader: Reader, header: Header, logs: Sequence[Log], truth: Sequence[Log]) -> Contradiction:
    position = int(header.number, 16)
    what = (
        f"{reader.endpoint.label} gave {len(logs)} logs of block {position}; by its receipts it has {len(truth)} others"
    )
    return lie(MISMATCH, what, position)

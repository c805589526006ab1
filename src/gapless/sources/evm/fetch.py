"""From a range to checked blocks: which requests are made, in which order, and which checks their answers pass.

    filtered   headers beside `eth_getLogs` per filter; blocks whose bloom tells of logs that did not come are settled
               by their receipts
    unfiltered headers beside `eth_getLogs` of everything: exact blooms, indices without gaps
    strict     near the head: receipts by block hash, their root recomputed, so that no left-out log goes unseen
    whole      blocks with transactions, and receipts; `proved` always fetches this way

Headers and logs of one range come from one endpoint: where they disagree, it disagrees with itself. Ranges are read in
pieces of a size learned from the bytes that came, each checked before the next is read, so memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from gapless.clock import Clock
from gapless.errors import Contradiction, HistoryPruned, MethodMissing, NotYetAvailable
from gapless.model import Evidence, Head
from gapless.sources.evm import verify, whole
from gapless.sources.evm.filtered import Filtered
from gapless.sources.evm.lies import lie
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.reader import EVERY_LOG, LogRequest, Reader, plan_requests, together
from gapless.sources.evm.rpc import RAW_RECEIPTS, RECEIPTS, ListedBlock, Shape
from gapless.sources.evm.types import FullBlock, Header, Log, LogClause, RawReceipt, Receipt, Verify, Wants

if TYPE_CHECKING:
    from gapless.sources.evm.accept import Accepted
    from gapless.sources.evm.filtered import Answers

H = TypeVar("H", bound=Header)
R = TypeVar("R", bound=Receipt)

_KNOWN_TYPES = frozenset({None, *map(hex, (0, 1, 2, 3, 4, 0x7E))})
"""Receipts of other types may be encoded in ways we do not know: their root is not recomputed unasked."""
_SETTLED_TOGETHER = 64
"""Blocks whose receipts are held at once to settle what their blooms tell."""
_NULL_KINDS = frozenset({"null_block", "null_receipt"})


@dataclass(slots=True)
class Part:
    """Checked blocks, consecutive and linked; the lists run in step."""

    headers: list[Header] = field(default_factory=list)
    logs: list[list[Log]] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    audited: list[bool] = field(default_factory=list)
    """Where no log could have been left out unseen."""
    transactions: list[list[dict[str, Any]]] = field(default_factory=list)
    receipts: list[list[Receipt]] = field(default_factory=list)
    columns: Accepted | None = None
    """The logs of all blocks as columns, where they came so: then `logs` is empty."""

    @property
    def items(self) -> int:
        """How many logs there are."""
        return sum(map(len, self.logs)) if self.columns is None else len(self.columns.table)

    def listed(self) -> list[list[Log]]:
        """The logs of each block, as objects."""
        return self.logs if self.columns is None else self.columns.logs()

    def filtered_until(self, last_calm: int) -> int:
        """How many blocks from the first on were fetched by filter, up to the last position not fetched strictly."""
        return max(0, min(len(self.headers), last_calm - int(self.headers[0].number, 16) + 1))

    def head(self, count: int) -> Part:
        """Headers and logs of the first `count` blocks."""
        return Part(self.headers[:count], self.listed()[:count], self.evidence[:count], self.audited[:count])

    def extend(self, other: Part) -> None:
        if not self.headers:
            self.columns = other.columns
        elif self.columns is not None and other.columns is not None:
            self.columns = self.columns.followed_by(other.columns)
        elif self.columns is not None or other.columns is not None:
            self.logs, other.logs = self.listed(), other.listed()
            self.columns = None
        self.headers += other.headers
        self.logs += other.logs
        self.evidence += other.evidence
        self.audited += other.audited
        self.transactions += other.transactions
        self.receipts += other.receipts


class Fetcher:
    """Fetches ranges as an app's wants and the level of verification ask for. Holds no state of its own."""

    def __init__(self, options: EvmOptions, wants: Wants, clock: Clock) -> None:
        self._level = options.verify
        self._hashing = options.hashing
        self._strict_positions_max = options.strict_positions_max
        self._wants = wants
        self._clock = clock
        self.requests = plan_requests(wants.logs, options.addresses_per_call_max)
        """The filters that a range is asked with."""
        self.strict_level = self._level in (Verify.CHECKED, Verify.PROVED)
        self.filtered = not (wants.whole_blocks or wants.all_logs or self._level is Verify.PROVED) and bool(
            self.requests
        )
        """Whether ranges are read by filter: then, and only then, a log can be left out unseen."""

    async def fetch(self, reader: Reader, first: int, last: int, head: Head) -> Part:
        """Blocks `first..last`, checked.

        Raises Contradiction; NotYetAvailable and HistoryPruned for blocks the endpoint does not have yet, or no
        longer; what the reader raises."""
        fetched = Part()
        parent: str | None = None
        calm = self.last_calm(head)
        while first <= last:
            received = reader.size_bytes
            upto = min(last, first + reader.endpoint.pieces.size - 1)
            if first <= calm < upto:
                upto = calm
            part = await self._choose(first > calm)(reader, first, upto, parent, head)
            reader.endpoint.pieces.succeeded(
                upto - first + 1, size_bytes=reader.size_bytes - received, items=part.items
            )
            fetched.extend(part)
            parent = part.headers[-1].hash
            first = upto + 1
        return fetched

    def last_calm(self, head: Head) -> int:
        """The last position that is not fetched in the stricter way."""
        if not self.strict_level:
            return head.latest.position
        return max(head.finalized, head.latest.position - self._strict_positions_max)

    def _choose(self, strict: bool) -> Callable[..., Any]:
        if not (self._wants.whole_blocks or self._wants.all_logs or self.requests):
            return self._only_headers
        if self._wants.whole_blocks or self._level is Verify.PROVED:
            return self._whole
        if strict and self.strict_level:
            return self._strict
        return self._unfiltered if self._wants.all_logs else self._filtered

    # --- ways to fetch ----------------------------------------------------------------------------------------------

    async def _only_headers(self, reader: Reader, first: int, last: int, parent: str | None, head: Head) -> Part:
        found = await reader.headers(self._lowest(first, parent), last)
        headers = await self._linked(reader, found, first, last, parent, head)
        proved = self._level is Verify.PROVED  # a header is all there is, and its hash was recomputed
        verdict = verify.evidence(self._level, self._hashing, whole=proved)
        audited = verdict is Evidence.PROVED
        return Part(headers, [[] for _ in headers], [verdict] * len(headers), [audited] * len(headers))

    async def _filtered(self, reader: Reader, first: int, last: int, parent: str | None, head: Head) -> Part:
        lanes = [self.requests[0::2], self.requests[1::2]]
        works: list[Any] = [reader.headers(self._lowest(first, parent), last)]
        works += [_logs_of_each(reader, first, last, lane, self._wants.as_columns) for lane in lanes if lane]
        found, *answers = await together(works)
        headers = await self._linked(reader, found, first, last, parent, head)
        suspects: dict[int, list[LogClause]] = {}
        checked = Filtered(headers, self._level, self._hashing)
        for request, logs in (answer for lane in answers for answer in lane):
            for position in checked.add(logs, request.clause):
                suspects.setdefault(position, []).append(request.clause)
        await self._settle(reader, {p: headers[p - first] for p in suspects}, suspects, head)
        part = self._part(headers, [])
        part.columns = checked.columns()
        if part.columns is None:
            part.logs = checked.logs()
        return part

    async def _unfiltered(self, reader: Reader, first: int, last: int, parent: str | None, head: Head) -> Part:
        lowest = self._lowest(first, parent)
        works: list[Any] = [reader.headers(lowest, last), reader.logs(first, last, EVERY_LOG)]
        found, logs = await together(works)
        headers = await self._linked(reader, found, first, last, parent, head)
        if not self.strict_level:
            groups, _ = verify.check_filtered_logs(headers, logs, [EVERY_LOG.clause], self._level, self._hashing)
            return self._part(headers, groups)
        groups = verify.group_logs(headers, logs)
        try:
            checked = [verify.check_all_logs(h, g, self._hashing) for h, g in zip(headers, groups, strict=True)]
        except Contradiction as error:
            if error.kind == "empty_for_bloom" and error.position is not None:
                blamed = [headers[error.position - first]]
                await self._receipts(reader, blamed, head, RECEIPTS)  # or is it that they have gone?
            raise
        return self._part(headers, checked)

    async def _strict(self, reader: Reader, first: int, last: int, parent: str | None, head: Head) -> Part:
        listed = await reader.listed(self._lowest(first, parent), last)
        found = await self._linked(reader, listed, first, last, parent, head)
        asked = [block for block in found if block.transactions or not self._hashing.bloom]
        try:
            answers = await self._receipts(reader, asked, head, RECEIPTS)
        except MethodMissing:
            logs = [await self._logs_of(reader, block) for block in found]
            return self._part(found, [self._wanted(group) for group in logs])
        receipts = dict(zip([block.hash for block in asked], answers, strict=True))
        part = Part()
        for block in found:
            of_block = receipts.get(block.hash, [])
            level = self._proof_level(of_block)
            group = verify.check_receipts(block, block.transactions, of_block, level, self._hashing)
            part.extend(self._part([block], [self._wanted(group)], audited=level is Verify.PROVED))
        return part

    async def _whole(self, reader: Reader, first: int, last: int, parent: str | None, head: Head) -> Part:
        """Blocks and receipts. Only the payload differs where an app wants no more than logs."""
        before = reader.headers(self._lowest(first, parent), first - 1)
        works: list[Any] = [before, reader.blocks(first, last)]
        above, found = await together(works)
        if parent is None and above and above[0] is not None:
            parent = above[0].hash
        blocks: list[FullBlock] = await self._present(reader, found, first, head)
        links = Verify.CHECKED if self._level is Verify.PROVED else self._level  # `check_block` proves the hashes
        verify.check_headers(blocks, first, last, parent, links, self._hashing)
        calm = self.last_calm(head)
        answers: list[list[Receipt]] | None = None
        if self._wants.as_columns and self._wants.whole_blocks and self._level is not Verify.PROVED and last <= calm:
            raw = await self._raw_receipts(reader, blocks, head)
            accepted = None if raw is None else whole.accepted(blocks, raw, blooms=self._hashing.bloom)
            if raw is not None and accepted is not None:
                return self._whole_columns(blocks, raw, accepted)
            answers = None if raw is None else whole.taken_apart(raw, reader.endpoint.label)
        if answers is None:
            answers = await self._receipts_any_way(reader, blocks, head)
        part = Part()
        for block, receipts in zip(blocks, answers, strict=True):
            verify.check_block(block, self._level, self._hashing)
            position = int(block.number, 16)
            level = self._proof_level(receipts) if position > calm else self._level
            logs = verify.check_receipts(block, block.transactions, receipts, level, self._hashing)
            verdict = verify.evidence(self._level, self._hashing, whole=True)
            part.headers.append(block)
            part.evidence.append(verdict)
            part.audited.append(verdict is Evidence.PROVED or (level is Verify.PROVED and self._hashing.receipts))
            if self._wants.whole_blocks:
                part.logs.append(logs)
                part.transactions.append(block.transactions)
                part.receipts.append(receipts)
            else:
                part.logs.append(self._wanted(logs))
            await self._clock.sleep(0)  # recomputing hashes takes its time; others run in between
        return part

    async def _raw_receipts(
        self, reader: Reader, blocks: Sequence[FullBlock], head: Head
    ) -> list[list[RawReceipt]] | None:
        """None where the endpoint has no receipts by block."""
        asked = [block for block in blocks if block.transactions]
        try:
            answers = await self._receipts(reader, asked, head, RAW_RECEIPTS)
        except MethodMissing:
            return None
        found = dict(zip([block.hash for block in asked], answers, strict=True))
        return [found.get(block.hash, []) for block in blocks]

    def _whole_columns(self, blocks: Sequence[FullBlock], receipts: Sequence[list[RawReceipt]], logs: Accepted) -> Part:
        verdict = verify.evidence(self._level, self._hashing, whole=True)
        for block, of_block in zip(blocks, receipts, strict=True):
            verify.check_block(block, self._level, self._hashing)
            verify.check_receipt_frames(block, block.transactions, of_block, self._level, self._hashing)
        part = Part(list(blocks), [], [verdict] * len(blocks), [verdict is Evidence.PROVED] * len(blocks))
        part.transactions = [block.transactions for block in blocks]
        part.receipts = [list(of_block) for of_block in receipts]
        part.columns = logs
        return part

    # --- steps ------------------------------------------------------------------------------------------------------

    def _part(self, headers: Sequence[Header], logs: list[list[Log]], *, audited: bool = False) -> Part:
        verdict = verify.evidence(self._level, self._hashing, whole=False)
        return Part(list(headers), logs, [verdict] * len(headers), [audited] * len(headers))

    def _wanted(self, logs: list[Log]) -> list[Log]:
        return logs if self._wants.all_logs else verify.matching(logs, self._wants.logs)

    def _proof_level(self, receipts: Sequence[Receipt | None]) -> Verify:
        """`proved` where the root over these receipts can be recomputed, else `checked`; never less than asked for."""
        if self._level is Verify.PROVED or not self.strict_level:
            return self._level
        known = all(r is not None and r.type in _KNOWN_TYPES for r in receipts)
        return Verify.PROVED if known and self._hashing.receipts else Verify.CHECKED

    def _lowest(self, first: int, parent: str | None) -> int:
        """The first header to read: the parent's too, where it is not known. A header that does not link to what the
        same endpoint gives below it is its own contradiction; seen by the engine only, nobody could be blamed."""
        return first - 1 if parent is None and first > 0 and self._level is not Verify.OFF else first

    async def _linked(
        self, reader: Reader, found: Sequence[H | None], first: int, last: int, parent: str | None, head: Head
    ) -> list[H]:
        """The headers `first..last`, checked; `found` begins at `_lowest`. A chain may begin at `first`."""
        lowest = self._lowest(first, parent)
        if lowest < first and found[0] is None:
            found, lowest = found[1:], first
        present = await self._present(reader, found, lowest, head)
        verify.check_headers(present, lowest, last, parent, self._level, self._hashing)
        return present[first - lowest :]

    async def _present(self, reader: Reader, found: Sequence[H | None], first: int, head: Head) -> list[H]:
        """The same blocks, none of them missing."""
        present = [block for block in found if block is not None]
        if len(present) != len(found):
            position = first + next(i for i, block in enumerate(found) if block is None)
            missing = lie("null_block", f"{reader.endpoint.label} gave null for block {position}", position)
            raise await self._absent(reader, missing, position, head)
        return present

    async def _absent(
        self, reader: Reader, missing: Contradiction, position: int, head: Head
    ) -> Contradiction | NotYetAvailable | HistoryPruned:
        """What it means that an endpoint does not have a block or its receipts: it is not there yet, it has gone, or
        it should be there."""
        label, height = reader.endpoint.label, await reader.height()
        reader.endpoint.standing.head = height
        if height < position:
            return NotYetAvailable(f"{label} is at block {height}, below {position}", position=position)
        if position > max(head.finalized, head.latest.position - self._strict_positions_max):
            return missing
        reader.endpoint.standing.lacks(self._clock.monotonic(), position)
        pruned = HistoryPruned(f"{label} no longer has block {position}", position=position)
        pruned.__cause__ = missing
        return pruned

    async def _receipts(
        self, reader: Reader, headers: Sequence[Header], head: Head, shape: Shape[list[R] | None]
    ) -> list[list[R]]:
        try:
            return await reader.receipts(headers, shape)
        except Contradiction as error:
            if error.kind not in _NULL_KINDS or error.position is None:
                raise
            raise await self._absent(reader, error, error.position, head) from error

    async def _receipts_any_way(self, reader: Reader, blocks: Sequence[FullBlock], head: Head) -> list[list[Receipt]]:
        """By block where the endpoint can, else one by one."""
        try:
            asked = [block for block in blocks if block.transactions]
            found = dict(zip([b.hash for b in asked], await self._receipts(reader, asked, head, RECEIPTS), strict=True))
            return [found.get(block.hash, []) for block in blocks]
        except MethodMissing:
            hashes = [[str(t.get("hash")) for t in block.transactions] for block in blocks]
            answers = await reader.receipts_one_by_one(hashes)
        for block, answer in zip(blocks, answers, strict=True):
            if None in answer:
                position = int(block.number, 16)
                missing = lie("null_receipt", f"{reader.endpoint.label} lacks a receipt of block {position}", position)
                raise await self._absent(reader, missing, position, head)
        return [[r for r in answer if r is not None] for answer in answers]

    async def _logs_of(self, reader: Reader, block: ListedBlock) -> list[Log]:
        """Every log of a block near the head, of an endpoint without receipts by block."""
        logs = await reader.logs_of(block) if block.transactions else []
        return verify.check_all_logs(block, logs, self._hashing)

    async def _settle(
        self, reader: Reader, headers: dict[int, Header], suspects: dict[int, list[LogClause]], head: Head
    ) -> None:
        """Whether blocks for which no log came have none, though their blooms admit one. Raises Contradiction
        `empty_for_bloom` where one does."""
        positions = sorted(suspects)
        for at in range(0, len(positions), _SETTLED_TOGETHER):
            some = positions[at : at + _SETTLED_TOGETHER]
            try:
                answers = await self._receipts(reader, [headers[p] for p in some], head, RECEIPTS)
            except MethodMissing:
                for position in some:
                    await self._settle_by_logs(reader, headers[position], suspects[position])
                continue
            for position, receipts in zip(some, answers, strict=True):
                level = self._proof_level(receipts)
                verify.check_emptiness(headers[position], receipts, suspects[position], level, self._hashing)

    async def _settle_by_logs(self, reader: Reader, header: Header, clauses: Sequence[LogClause]) -> None:
        logs = verify.check_all_logs(header, await reader.logs_of(header), self._hashing)
        if verify.matching(logs, clauses):
            position = int(header.number, 16)
            raise lie("empty_for_bloom", f"No log came for block {position}, which has some", position)


async def _logs_of_each(
    reader: Reader, first: int, last: int, requests: Sequence[LogRequest], as_columns: bool
) -> list[tuple[LogRequest, Answers]]:
    if as_columns:
        return [(request, await reader.log_columns(first, last, request)) for request in requests]
    return [(request, [await reader.logs(first, last, request)]) for request in requests]

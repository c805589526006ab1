"""From answers to verdicts: pure functions that raise Contradiction with a kind of `lies.LIES`, or return.

What each level refuses

- `off`: null blocks and receipts, wrong numbers, more or fewer receipts than transactions, logs of blocks not asked
  for, two logs of a block with one index.
- `linked`: also parent links that do not hold inside a run, and filtered logs of another block hash.
- `checked`: also whatever an answer says twice and differently: shapes, filters, the bloom both ways, indices, places
  of transactions, receipts against their block, transactions, gas, logs and blooms; no transactions under a root that
  tells of some.
- `proved`: also a block hash, transaction hash, transactions root, receipts root or withdrawals root that is not what
  the content gives.

What no function here can see

- Filtered logs, at `checked`: that some, but not all, matching logs of a block were left out. That all were left out is
  seen (the header's bloom hits, the block becomes a suspect), unless the receipts that settle the suspect leave out
  the same logs and every bit those set is set by others too; settled at `proved` it is seen. Not seen either: other
  `data`; an address or topic exchanged for one that filter and bloom admit; a log given twice under a new index, or
  under a changed one; another transaction hash or index, where it agrees within the block.
- All logs of a block, at `checked`: that the last logs were left out, or others with those behind renumbered, where
  every bit they set is set by others too; and the same changes as above, so long as the union of bits stays.
- A block's body, at `checked`: changed contents of transactions or withdrawals; transactions left out from the end or
  exchanged, where receipts and logs agree with that. Receipts, at `checked`: other `status`, `type`, `root`, `data`;
  gas that still adds up.
- Headers, at `checked`: any field but number, parent hash and bloom, and these where all blocks of the run agree.
- Filtered logs proved by receipts alone: the transaction hash. The receipts trie holds no hashes, the body does.
- At `proved`: what no hash commits to (`prove` lists it); an absent `withdrawals` list; a whole invented branch whose
  hashes are right, since consensus (work, attestations) is not verified. The parent link to what is committed, the
  identity guard and a second endpoint stand against that.
- Chains with a switch off: anything only that part would show.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any

from gapless.errors import Contradiction
from gapless.model import Evidence
from gapless.sources.evm import bloom, prove
from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.lies import lie
from gapless.sources.evm.trie import EMPTY_ROOT
from gapless.sources.evm.types import FullBlock, Header, Log, LogClause, Receipt, Verify


@dataclass(frozen=True, slots=True)
class ChainHashing:
    """What a chain hashes as Ethereum does. A switch that is off skips that check, and no block of the chain counts
    as more than `checked`."""

    headers: bool = True
    """The block hash is that of the header's fields. Not so on Ethermint chains, Tempo, Stable."""
    transactions: bool = True
    """`transactionsRoot` and the transaction hashes are of the transactions listed, all of types known here."""
    receipts: bool = True
    """`receiptsRoot` is of the receipts listed, and their gas adds up. Not so for Bor's state-sync receipts."""
    withdrawals: bool = True
    """`withdrawalsRoot` is of the withdrawals listed. Not so on the OP Stack since Isthmus."""
    bloom: bool = True
    """`logsBloom` covers every log of the block. Not so on chains that leave it zero."""


ETHEREUM = ChainHashing()

_EMPTY_ROOT = "0x" + EMPTY_ROOT.hex()
_ZERO_ROOT = "0x" + "0" * 64
_NO_UNCLES = "0x" + keccak256(b"\xc0").hex()

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_HASH = re.compile(r"0x[0-9a-f]{64}")
_BLOOM = re.compile(r"0x[0-9a-f]{512}")
_ADDRESS_LENGTH = 42
_HASH_LENGTH = 66
_TOPICS_MAX = 4
_SMALL = {hex(number): number for number in range(4096)}
"""Log and transaction indices as text: looked up, not parsed."""

_block_number = attrgetter("block_number")
_Pair = tuple[str, str | None]
"""Address and first topic of a log: all that a clause looks at."""


def evidence(level: Verify, hashing: ChainHashing = ETHEREUM, *, whole: bool) -> Evidence:
    """The verdict to store for a block that passed the checks of `level`.

    `whole`: its body went through `check_block` and its receipts through `check_receipts`. Filtered logs of a chain
    without blooms are `trusted`: nothing would show that some are missing."""
    if level is Verify.OFF or level is Verify.LINKED:
        return Evidence.TRUSTED
    if not whole:
        return Evidence.CHECKED if hashing.bloom else Evidence.TRUSTED
    return Evidence.PROVED if level is Verify.PROVED and hashing == ETHEREUM else Evidence.CHECKED


# --- headers and blocks --------------------------------------------------------------------------------------------


def check_headers(
    headers: Sequence[Header | None],
    first: int,
    last: int,
    parent_id: str | None = None,
    level: Verify = Verify.CHECKED,
    hashing: ChainHashing = ETHEREUM,
) -> list[Header]:
    """The same headers, none of them None: blocks `first..last`, each linked to the one before and, where it is given,
    the first to `parent_id`.

    Raises null_block, wrong_number; from `linked` on unlinked, malformed; at `proved` block_hash."""
    found: list[Header] = []
    for position, header in enumerate(headers, first):
        if header is None:
            raise lie("null_block", f"Block {position} came as null", position)
        if _quantity(header.number, position) != position:
            raise lie("wrong_number", f"Block {header.number} came for {position}", position)
        found.append(header)
    if len(found) != last - first + 1:
        raise lie("null_block", f"{len(found)} blocks came for {first} to {last}", min(first + len(found), last))
    if level is Verify.OFF:
        return found
    for position, header in enumerate(found, first):
        _check_header_shape(header, position, level, hashing)
        if parent_id is not None and header.parent_hash != parent_id:
            raise lie("unlinked", f"Block {position} has the parent {header.parent_hash}, not {parent_id}", position)
        parent_id = header.hash
        if level is Verify.PROVED:
            check_header_hash(header, hashing)
    return found


def _check_header_shape(header: Header, position: int, level: Verify, hashing: ChainHashing) -> None:
    if not (_HASH.fullmatch(header.hash) and _HASH.fullmatch(header.parent_hash)):
        raise lie("malformed", f"The hashes of block {position} are {header.hash}, {header.parent_hash}", position)
    _quantity(header.timestamp, position)
    if level is not Verify.LINKED and hashing.bloom:
        _header_bloom(header, position)


def _header_bloom(header: Header, position: int) -> int:
    if not _BLOOM.fullmatch(header.logs_bloom):
        raise lie("malformed", f"The bloom of block {position} is not 256 bytes of lower-case 0x text", position)
    return int(header.logs_bloom, 16)


def check_header_hash(header: Header, hashing: ChainHashing = ETHEREUM) -> None:
    """Recompute the block hash. Raises block_hash, malformed."""
    if not hashing.headers:
        return
    position = _quantity(header.number, None)
    with _at(position):
        found = prove.header_hash(header)
    if found != header.hash:
        raise lie("block_hash", f"Block {position} claims the hash {header.hash}, its header gives {found}", position)


def _is_hashed(header: Header) -> bool:
    """Whether the block hash is that of the fields, so that each of them is as good as the hash."""
    try:
        return prove.header_hash(header) == header.hash
    except Contradiction:
        return False


def check_block(block: FullBlock, level: Verify, hashing: ChainHashing = ETHEREUM) -> None:
    """A block with its body; links and number are `check_headers`' part.

    Raises from `checked` on transaction_mismatch, transactions_root (an empty body only), malformed; at `proved`
    block_hash, transaction_hash, transactions_root, unknown_transaction_type, withdrawals_root, uncles_hash."""
    if level is Verify.OFF or level is Verify.LINKED:
        return
    position = _quantity(block.number, None)
    _check_places(block, position)
    root = block.transactions_root
    if hashing.transactions and not block.transactions and root not in (None, _EMPTY_ROOT, _ZERO_ROOT):
        raise lie("transactions_root", f"Block {position} came without the transactions its header tells of", position)
    if level is Verify.PROVED:
        check_header_hash(block, hashing)
        with _at(position):
            _prove_body(block, position, hashing)


def _check_places(block: FullBlock, position: int) -> None:
    """Each transaction names this block and its place in it, and none comes twice."""
    hashes: set[str] = set()
    for index, transaction in enumerate(block.transactions):
        try:
            known, number = transaction["hash"], transaction["blockNumber"]
            right = (
                transaction["blockHash"] == block.hash
                and (number == block.number or _quantity(number, position) == position)
                and _quantity(transaction["transactionIndex"], position) == index
                and known not in hashes
            )
            if not _HASH.fullmatch(known):
                raise ValueError(f"the hash {known}")
        except (KeyError, TypeError, ValueError) as error:
            raise lie("malformed", f"Transaction {index} of block {position} has no {error}", position) from error
        if not right:
            raise lie(
                "transaction_mismatch",
                f"Transaction {known} does not belong at index {index} of block {position} ({block.hash})",
                position,
            )
        hashes.add(known)


def _prove_body(block: FullBlock, position: int, hashing: ChainHashing) -> None:
    if hashing.transactions:
        hashes, root = prove.hashed_transactions_root(block.transactions)
        for transaction, found in zip(block.transactions, hashes, strict=True):
            if transaction["hash"] != found:
                raise lie("transaction_hash", f"Transaction {transaction['hash']} hashes to {found}", position)
        if root != block.transactions_root:
            raise lie("transactions_root", f"The transactions of block {position} have the root {root}", position)
    if hashing.withdrawals and block.withdrawals is not None:
        root = prove.withdrawals_root(block.withdrawals)
        if root != block.withdrawals_root:
            raise lie("withdrawals_root", f"The withdrawals of block {position} have the root {root}", position)
    if hashing.headers and bool(block.uncles) is (block.sha3_uncles == _NO_UNCLES):
        raise lie("uncles_hash", f"Block {position} lists {len(block.uncles)} uncles, its header differs", position)


# --- receipts ------------------------------------------------------------------------------------------------------


def check_receipts(
    header: Header,
    transactions: Sequence[Mapping[str, Any] | str] | None,
    receipts: Sequence[Receipt | None],
    level: Verify,
    hashing: ChainHashing = ETHEREUM,
) -> list[Log]:
    """All logs of the block, in order, from its receipts.

    `transactions` are the block's, as received or only their hashes; None where they were not fetched, and then
    nothing but the root, at `proved`, can tell that receipts are missing at the end. At `proved` the root is
    recomputed from types known and unknown (all encode alike). Give `proved` to settle a suspect for good.

    Raises null_receipt, receipt_count; from `checked` on receipt_mismatch, index_gap, bloom_mismatch, malformed and
    all that logs can be refused for; at `proved` receipts_root."""
    position = _quantity(header.number, None)
    found = check_receipt_frames(header, transactions, receipts, level, hashing)
    logs = [log for receipt in found for log in receipt.logs]
    if level is Verify.OFF or level is Verify.LINKED:
        return logs
    _check_log_places(found, position)
    if level is Verify.PROVED and hashing.receipts:
        with _at(position):
            root = prove.receipts_root(found)
        if root != header.receipts_root:
            raise lie("receipts_root", f"The receipts of block {position} have the root {root}", position)
        if hashing.bloom and _is_hashed(header):
            hashing = replace(hashing, bloom=False)  # The hash commits to every bloom: recomputing them shows no more.
    exact = _check_receipt_blooms(found, position) if hashing.bloom else None
    if check_all_logs(header, logs, hashing, exact) != logs:
        raise lie("receipt_mismatch", f"The logs in the receipts of block {position} are out of order", position)
    return logs


def check_receipt_frames(
    header: Header,
    transactions: Sequence[Mapping[str, Any] | str] | None,
    receipts: Sequence[Receipt | None],
    level: Verify,
    hashing: ChainHashing = ETHEREUM,
) -> list[Receipt]:
    """The same receipts, none of them None: everything `check_receipts` checks but for logs, blooms and root."""
    position = _quantity(header.number, None)
    found = [receipt for receipt in receipts if receipt is not None]
    if len(found) != len(receipts):
        raise lie("null_receipt", f"A receipt of block {position} came as null", position)
    if transactions is not None and len(transactions) != len(found):
        raise lie("receipt_count", f"{len(found)} receipts for {len(transactions)} transactions", position)
    if level is not Verify.OFF and level is not Verify.LINKED:
        _check_receipt_places(header, transactions, found, position)
        if hashing.receipts:
            _check_gas(found, position)
    return found


def _check_receipt_places(
    header: Header, transactions: Sequence[Mapping[str, Any] | str] | None, receipts: list[Receipt], position: int
) -> None:
    """Block, index and transaction."""
    hashes = [item if isinstance(item, str) else item.get("hash") for item in transactions or ()]
    for index, receipt in enumerate(receipts):
        known, place = receipt.transaction_hash, receipt.transaction_index
        if (
            receipt.block_hash != header.hash
            or (receipt.block_number != header.number and _quantity(receipt.block_number, position) != position)
            or _index(place, position) != index
            or (hashes and hashes[index] != known)
        ):
            raise lie("receipt_mismatch", f"Receipt {index} of block {position} is of {known} at {place}", position)


def _check_log_places(receipts: list[Receipt], position: int) -> None:
    """Each receipt's logs name its transaction."""
    for index, receipt in enumerate(receipts):
        known, place = receipt.transaction_hash, receipt.transaction_index
        for log in receipt.logs:
            if log.transaction_hash != known or (
                log.transaction_index != place and _index(log.transaction_index, position) != index
            ):
                raise lie(
                    "receipt_mismatch",
                    f"Log {log.log_index} in the receipt of {known} names {log.transaction_hash}",
                    position,
                )


def _check_gas(receipts: list[Receipt], position: int) -> None:
    gas = 0
    for index, receipt in enumerate(receipts):
        before, gas = gas, _quantity(receipt.cumulative_gas_used, position)
        if before + _quantity(receipt.gas_used, position) != gas:
            raise lie(
                "receipt_mismatch",
                f"Receipt {index} of block {position} used {receipt.gas_used} gas, from {before:#x} to {gas:#x}",
                position,
            )


def _check_receipt_blooms(receipts: list[Receipt], position: int) -> int:
    """Returns the exact bloom of all logs: what those of the receipts make together."""
    for receipt in receipts:
        if not _BLOOM.fullmatch(receipt.logs_bloom):
            raise lie("malformed", f"The bloom of receipt {receipt.transaction_hash} is not 256 bytes", position)
    with _at(position):
        together = 0
        for receipt in receipts:
            exact = bloom.of_logs(receipt.logs) if receipt.logs else 0
            if int(receipt.logs_bloom, 16) != exact:
                raise lie("receipt_mismatch", f"The bloom of {receipt.transaction_hash} is not of its logs", position)
            together |= exact
        return together


def check_emptiness(
    header: Header,
    receipts: Sequence[Receipt | None],
    clauses: Sequence[LogClause],
    level: Verify,
    hashing: ChainHashing = ETHEREUM,
) -> None:
    """Settle a suspect of `check_filtered_logs` with the receipts of its block: no log of it matches, the bloom only
    admitted one. Raises empty_for_bloom where one does, and all that `check_receipts` raises."""
    missed = matching(check_receipts(header, None, receipts, level, hashing), clauses)
    if missed:
        position = _quantity(header.number, None)
        raise lie("empty_for_bloom", f"No log came for block {position}, which has {len(missed)}", position)


# --- logs ----------------------------------------------------------------------------------------------------------


def matching(logs: Iterable[Log], clauses: Sequence[LogClause]) -> list[Log]:
    """The logs that at least one clause wants, in the same order."""
    wanted: dict[_Pair, bool] = {}
    kept: list[Log] = []
    for log in logs:
        topics = log.topics
        pair = (log.address, topics[0] if topics else None)
        want = wanted.get(pair)
        if want is None:
            want = wanted[pair] = _wants(clauses, pair)
        if want:
            kept.append(log)
    return kept


def _wants(clauses: Sequence[LogClause], pair: _Pair) -> bool:
    address, topic = pair
    return any(
        (clause.addresses is None or address in clause.addresses) and (clause.topics is None or topic in clause.topics)
        for clause in clauses
    )


def group_logs(headers: Sequence[Header], logs: Sequence[Log]) -> list[list[Log]]:
    """The logs of each header in index order, whatever order they came in.

    Raises out_of_range_log, duplicate_log, malformed."""
    places = {hex(int(header.number, 16)): place for place, header in enumerate(headers)}
    grouped: list[list[Log]] = [[] for _ in headers]
    for number, run in groupby(logs, _block_number):
        place = places.get(number)
        if place is None:
            place = places.get(hex(_quantity(number, None)))  # The same number with leading zeros.
        if place is None:
            raise lie("out_of_range_log", f"A log of block {number} came, which was not asked for", int(number, 16))
        grouped[place].extend(run)
    for place, group in enumerate(grouped):
        if group:
            grouped[place] = _in_order(group, headers[place])
    return grouped


def _in_order(group: list[Log], header: Header) -> list[Log]:
    try:
        indices = [_SMALL[log.log_index] for log in group]
    except KeyError:
        indices = [_index(log.log_index, int(header.number, 16)) for log in group]
    ordered = sorted(set(indices))
    if ordered == indices:
        return group
    if len(ordered) != len(indices):
        position = int(header.number, 16)
        raise lie("duplicate_log", f"Two logs of block {position} have one index", position)
    by_index = dict(zip(indices, group, strict=True))
    return [by_index[index] for index in ordered]


def check_filtered_logs(
    headers: Sequence[Header],
    logs: Sequence[Log],
    clauses: Sequence[LogClause],
    level: Verify = Verify.CHECKED,
    hashing: ChainHashing = ETHEREUM,
) -> tuple[list[list[Log]], list[int]]:
    """The logs of each header in index order, and the positions of suspects: blocks for which no log came although
    their bloom admits one. Settle each with `check_emptiness`; most are the bloom's own false alarms.

    `headers` are consecutive and checked; `clauses` are what the request asked for. Raises out_of_range_log,
    duplicate_log; from `linked` on foreign_log; from `checked` on removed_log, transaction_mixed, not_asked_for,
    not_in_bloom, malformed."""
    grouped = group_logs(headers, logs)
    doubtful: list[int] = []
    if level is Verify.OFF:
        return grouped, doubtful
    asked: set[_Pair] = set()
    for header, group in zip(headers, grouped, strict=True):
        position = int(header.number, 16)
        if group:
            _check_block_hash(header, group, position)
        if level is Verify.LINKED:
            continue
        if group:
            pairs = {(log.address, log.topics[0] if log.topics else None) for log in group}
            for pair in sorted(pairs - asked, key=str):
                if not _wants(clauses, pair):
                    raise lie("not_asked_for", f"A log of {pair[0]} with topic {pair[1]} was not asked for", position)
                asked.add(pair)
            _check_group(header, group, {address for address, _ in pairs}, position, hashing)
        elif _is_suspect(header, position, clauses, hashing):
            doubtful.append(position)
    return grouped, doubtful


def suspects(
    headers: Sequence[Header], counts: Sequence[int], clauses: Sequence[LogClause], level: Verify, hashing: ChainHashing
) -> list[int]:
    """The positions of blocks for which no log came although their bloom admits one. `counts`: the logs of each."""
    if level is Verify.OFF or level is Verify.LINKED:
        return []
    empty = [(h, int(h.number, 16)) for h, count in zip(headers, counts, strict=True) if not count]
    return [position for header, position in empty if _is_suspect(header, position, clauses, hashing)]


def _is_suspect(header: Header, position: int, clauses: Sequence[LogClause], hashing: ChainHashing) -> bool:
    return hashing.bloom and _admits(_header_bloom(header, position), clauses)


def _admits(value: int, clauses: Sequence[LogClause]) -> bool:
    return any(bloom.admits(value, clause) for clause in clauses)


def check_all_logs(
    header: Header, logs: Sequence[Log], hashing: ChainHashing = ETHEREUM, known: int | None = None
) -> list[Log]:
    """All logs of one block, unfiltered, in index order. `known` is their exact bloom, where it was computed before.

    Raises what `check_filtered_logs` raises at `checked` but for the filter, and empty_for_bloom, bloom_mismatch,
    index_gap."""
    (group,) = group_logs([header], logs)
    position = int(header.number, 16)
    exact = 0
    if group:
        _check_block_hash(header, group, position)
        exact = _check_group(header, group, {log.address for log in group}, position, hashing, known)
        if _index(group[-1].log_index, position) != len(group) - 1:
            raise lie("index_gap", f"The indices of the {len(group)} logs of block {position} have gaps", position)
    if hashing.bloom and exact != _header_bloom(header, position):
        if not group:
            raise lie("empty_for_bloom", f"No log came for block {position}, whose bloom tells of some", position)
        raise lie("bloom_mismatch", f"{len(group)} logs of block {position} do not make its bloom", position)
    return group


def _check_block_hash(header: Header, group: list[Log], position: int) -> None:
    hashes = {log.block_hash for log in group}
    if hashes != {header.hash}:
        other = min(hashes - {header.hash})
        raise lie("foreign_log", f"A log of block {position} is of {other}, not of {header.hash}", position)


def _check_group(
    header: Header,
    group: list[Log],
    addresses: set[str],
    position: int,
    hashing: ChainHashing,
    known: int | None = None,
) -> int:
    """What holds for logs of one block, filtered or not. Returns their exact bloom (0 where blooms are off)."""
    if True in [log.removed for log in group]:
        raise lie("removed_log", f"A log of block {position} is marked as removed", position)
    topics = set().union(*[log.topics for log in group])
    places = set(zip([log.transaction_index for log in group], [log.transaction_hash for log in group], strict=True))
    hashes = {known for _, known in places}
    exact = 0
    try:
        if max([len(log.topics) for log in group]) > _TOPICS_MAX:
            raise ValueError("more than four topics")
        _check_texts([log.data for log in group])
        _check_texts(hashes, _HASH_LENGTH)
        if hashing.bloom:
            _check_lengths(addresses, _ADDRESS_LENGTH)
            _check_lengths(topics, _HASH_LENGTH)
            exact = bloom.of_values(addresses) | bloom.of_values(topics) if known is None else known
        else:
            _check_texts(addresses, _ADDRESS_LENGTH)
            _check_texts(topics, _HASH_LENGTH)
    except ValueError as error:
        raise lie("malformed", f"A log of block {position} is malformed: {error}", position) from error
    if not len(places) == len(hashes) == len({place for place, _ in places}):
        raise lie("transaction_mixed", f"Logs of block {position} disagree on their transactions", position)
    if exact:
        admitted = _header_bloom(header, position)
        if exact & admitted != exact:
            value = min(v for v in addresses | topics if not bloom.contains(admitted, bloom.bits(v)))
            raise lie("not_in_bloom", f"The bloom of block {position} denies {value}, which is in a log", position)
    return exact


def _check_lengths(texts: Collection[str], length: int) -> None:
    if texts and set(map(len, texts)) != {length}:
        raise ValueError(f"a value is not {length // 2 - 1} bytes long")


def _check_texts(texts: Collection[str], length: int | None = None) -> None:
    """Each is lower-case `0x` text of whole bytes, of this length if it is given. Raises ValueError.

    All at once: `0x` after each comma of the joined text, and no other comma among the digits, since that is no hex."""
    if not texts:
        return
    if length is not None:
        _check_lengths(texts, length)
    elif 1 in {size & 1 for size in set(map(len, texts))}:
        raise ValueError("half a byte")
    joined = ",".join(texts)
    if joined[:2] != "0x" or joined.count(",0x") != len(texts) - 1:
        raise ValueError("a value does not start with 0x")
    digits = "".join([text[2:] for text in texts])
    if digits.lower() != digits:
        raise ValueError("capitals in hex text")
    unhexlify(digits)


# --- values --------------------------------------------------------------------------------------------------------


def _quantity(text: Any, position: int | None) -> int:
    """A JSON-RPC quantity. Raises malformed."""
    if isinstance(text, str) and _QUANTITY.fullmatch(text):
        return int(text, 16)
    raise lie("malformed", f"{text!r} is not a 0x quantity", position)


def _index(text: str, position: int) -> int:
    small = _SMALL.get(text)
    return _quantity(text, position) if small is None else small


@contextmanager
def _at(position: int) -> Iterator[None]:
    """Tells a lie found by recomputing where it was found; values that cannot be read are the lie `malformed`."""
    try:
        yield
    except Contradiction as error:
        error.position = position
        raise
    except ValueError as error:
        raise lie("malformed", f"Block {position} holds a value that cannot be read: {error}", position) from error

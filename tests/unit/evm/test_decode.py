"""The EVM decoder: which logs an app asks for, where each goes, and what becomes of the odd ones."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.digest import entry_digests
from gapless.errors import ConfigError
from gapless.model import Entry, Evidence, Segment
from gapless.schema import Nature, Schema, from_text, to_text
from gapless.sources import Decoded
from gapless.sources.evm.abi import load_abi
from gapless.sources.evm.contracts import ContractSpec, checksum_address, parse_address
from gapless.sources.evm.decode import EvmDecoder
from gapless.sources.evm.types import EvmPayload, Header, Log, LogClause, Wants

DATA = Path(__file__).resolve().parents[2] / "data" / "abi"
TRANSFER, APPROVAL = (e.topic0 for e in load_abi("erc20").events)
TOKEN, OTHER, THIRD = ("0x" + digit * 40 for digit in "123")
ALICE, BOB = "a1" * 20, "b0" * 20
ZERO = "0x" + "00" * 32


def topic(address: str) -> str:
    return "0x" + address.rjust(64, "0")


def log(index: int, address: str, topics: list[str], data: str = "0x") -> Log:
    return Log(
        address=address,
        topics=topics,
        data=data,
        block_number="0x1",
        block_hash=ZERO,
        transaction_hash="0x" + f"{index:064x}",
        transaction_index="0x0",
        log_index=hex(index),
    )


def transfer(index: int, address: str = TOKEN, value: int = 1, **changes: Any) -> Log:
    sent = log(index, address, [TRANSFER, topic(ALICE), topic(BOB)], f"0x{value:064x}")
    return msgspec.structs.replace(sent, **changes)


def nft(index: int, address: str = TOKEN, token: int = 5) -> Log:
    return log(index, address, [TRANSFER, topic(ALICE), topic(BOB), f"0x{token:064x}"])


def segment(*blocks: list[Log], first: int = 100) -> Segment[EvmPayload]:
    """Consecutive blocks with these logs, and nothing else."""
    entries, headers = [], []
    for number in range(first, first + len(blocks)):
        block_hash, parent, seconds = (f"0x{n:064x}" for n in (number, number - 1, 1_700_000_000 + number))
        time_us = (1_700_000_000 + number) * 1_000_000
        entries.append(Entry(number, block_hash, parent, time_us, Evidence.CHECKED))
        headers.append(Header(hex(number), block_hash, parent, seconds, "0x"))
    return Segment("mainnet", tuple(entries), EvmPayload(headers, list(blocks)), 1)


def decoder(*contracts: ContractSpec, subscribed: tuple[str, ...] = (), datasets: tuple[str, ...] = ()) -> EvmDecoder:
    return EvmDecoder("mainnet", contracts, frozenset(datasets), frozenset(subscribed))


def tables(decoded: Decoded) -> dict[str, list[dict[str, str | None]]]:
    """Rows by table, as dictionaries."""
    return {
        r.table.name: [
            dict(zip([c.name for c in r.table.columns], row, strict=True)) for row in zip(*r.columns, strict=True)
        ]
        for r in decoded.rows
    }


ERC20 = ContractSpec.load("token", "erc20", TOKEN)


# --- rows ----------------------------------------------------------------------------------------------------------


def test_a_contract_event_is_a_table() -> None:
    """Named and keyed as INTERFACE.md says; rows are in block and log order, with the block's own columns."""
    found = decoder(ERC20)
    assert [(t.name, t.nature, t.key) for t in found.tables()] == [
        ("token_transfer", Nature.FACT, ("block_number", "log_index")),
        ("token_approval", Nature.FACT, ("block_number", "log_index")),
    ]
    decoded = found.decode(segment([transfer(0, value=10**30), transfer(7)], [], [transfer(3)]))
    assert not decoded.quarantined
    assert not decoded.events
    rows = tables(decoded)["token_transfer"]
    assert rows[0] == {
        "block_number": "100",
        "block_timestamp": "2023-11-14T22:15:00Z",
        "block_hash": f"0x{100:064x}",
        "transaction_hash": "0x" + "00" * 32,
        "transaction_index": "0",
        "log_index": "0",
        "address": TOKEN,
        "from_": "0x" + ALICE,
        "to_": "0x" + BOB,
        "value": str(10**30),
    }
    assert [(r["block_number"], r["log_index"]) for r in rows] == [("100", "0"), ("100", "7"), ("102", "3")]
    assert [r.counts for r in decoded.rows] == [(2, 0, 1)]


def test_seed_001_and_the_standard_transfer_are_two_events() -> None:
    """The four-argument Transfer has a topic of its own; both can be followed at one address."""
    timed = ContractSpec.load("timed", DATA / "timed-transfer.json", TOKEN)
    sent = transfer(
        1, topics=[timed.events[0].topic0, topic(ALICE), topic(BOB)], data=f"0x{9:064x}{1_700_000_000:064x}"
    )
    found = tables(decoder(ERC20, timed).decode(segment([transfer(0), sent])))
    assert [r["value"] for r in found["token_transfer"]] == ["1"]
    assert [(r["amount"], r["timestamp"]) for r in found["timed_transfer"]] == [("9", "1700000000")]


def test_logs_of_other_contracts_and_events_are_left_alone() -> None:
    """A filtered answer may hold more than was asked for, and whole blocks do."""
    others = [transfer(0, OTHER), log(1, TOKEN, [ZERO]), log(2, TOKEN, []), log(3, TOKEN, [], "0x12")]
    decoded = decoder(ERC20).decode(segment(others))
    assert decoded == Decoded((), (), ())


def test_a_log_of_several_contracts_lands_in_each() -> None:
    """One contract at its address, another at any: the log is both."""
    anywhere = ContractSpec.load("any", "erc20", events=["Transfer"])
    found = tables(decoder(ERC20, anywhere).decode(segment([transfer(0), transfer(1, OTHER)])))
    assert {name: [r["log_index"] for r in rows] for name, rows in found.items()} == {
        "token_transfer": ["0"],
        "any_transfer": ["0", "1"],
    }


def test_an_answer_in_upper_case_is_not_missed() -> None:
    """Some nodes answer with checksummed addresses; a topic may come in upper case as well."""
    address = "0x" + "aB" * 20
    contract = ContractSpec.load("token", "erc20", address.lower())
    upper = transfer(0, address, topics=["0x" + TRANSFER[2:].upper(), topic(ALICE.upper()), topic(BOB)])
    rows = tables(decoder(contract).decode(segment([upper])))["token_transfer"]
    assert [(r["address"], r["from_"]) for r in rows] == [(address.lower(), "0x" + ALICE)]


def test_the_layout_of_an_overloaded_signature_is_chosen_by_its_topics() -> None:
    """ERC-20's and ERC-721's Transfer in one ABI: each log goes to the table of its number of topics."""
    both = ContractSpec.load("token", DATA / "overloads.json", TOKEN, ["Transfer(address,address,uint256)"])
    decoded = decoder(both).decode(segment([transfer(0), nft(1), log(2, TOKEN, [TRANSFER])]))
    found = {
        name.removeprefix("token_transfer_address_address_uint256_"): rows for name, rows in tables(decoded).items()
    }
    assert {name: [r["log_index"] for r in rows] for name, rows in found.items()} == {
        "indexed_2": ["0"],
        "indexed_3": ["1"],
    }
    assert [q.item for q in decoded.quarantined] == ["log:2"]


# --- quarantine ----------------------------------------------------------------------------------------------------


def test_a_log_that_does_not_decode_is_kept_beside_its_siblings() -> None:
    """It is quarantined with its bytes, its place and a reason; the rows of its block are all there."""
    bad = transfer(5, data="0x12")
    dirty = transfer(6, topics=[TRANSFER, "0x" + "ff" * 32, topic(BOB)])
    decoded = decoder(ERC20).decode(segment([transfer(4)], [bad, transfer(7), dirty], [transfer(1)]))
    assert [r["log_index"] for r in tables(decoded)["token_transfer"]] == ["4", "7", "1"]
    assert decoded.rows[0].counts == (1, 1, 1)
    first, second = decoded.quarantined
    assert (first.source, first.position, first.item, first.consumer) == ("mainnet", 101, "log:5", "token_transfer")
    assert first.reason == "data: 1 bytes where 32 are expected"
    assert msgspec.json.decode(first.payload, type=Log) == bad
    assert json.loads(first.payload)["transactionHash"] == bad.transaction_hash
    assert (second.item, second.reason) == ("log:6", "from (topic 1): an address with bytes before it")


def test_another_number_of_topics_is_broken_at_a_known_address_only() -> None:
    """A contract with an address is known to be of its ABI; anywhere else it is simply another standard's event."""
    anywhere = ContractSpec.load("any", "erc20")
    decoded = decoder(ERC20, anywhere).decode(segment([nft(0), nft(1, OTHER), transfer(2, OTHER, data="0x")]))
    assert [(q.item, q.consumer) for q in decoded.quarantined] == [
        ("log:0", "token_transfer"),
        ("log:2", "any_transfer"),
    ]
    assert "4 topics where 3 are expected" in decoded.quarantined[0].reason
    assert not decoded.rows


def test_tokens_and_collectibles_anywhere_do_not_disturb_each_other() -> None:
    """Every transfer of both standards is in one table, and nothing is quarantined."""
    contracts = ContractSpec.load("token", "erc20"), ContractSpec.load("nft", "erc721")
    decoded = decoder(*contracts).decode(segment([transfer(0), nft(1), nft(2, OTHER), transfer(3, THIRD)]))
    assert not decoded.quarantined
    assert {n: [r["log_index"] for r in rows] for n, rows in tables(decoded).items()} == {
        "token_transfer": ["0", "3"],
        "nft_transfer": ["1", "2"],
    }


# --- anonymous events ----------------------------------------------------------------------------------------------


def anonymous(name: str, indexed: int) -> dict[str, Any]:
    inputs = [{"name": f"p{n}", "type": "bytes32", "indexed": n < indexed} for n in range(indexed + 1)]
    return {"type": "event", "name": name, "anonymous": True, "inputs": inputs}


def test_an_anonymous_event_takes_what_no_named_event_has() -> None:
    """Logs of its address with its number of topics, none of which is a named event's, selected or not."""
    named = {"type": "event", "name": "Named", "inputs": [{"name": "x", "type": "bytes32", "indexed": True}] * 1}
    abi = load_abi([anonymous("Note", 2), named])
    topic0 = next(e.topic0 for e in abi.events if e.name == "Named")
    note = ContractSpec.load("c", [anonymous("Note", 2), named], TOKEN, ["Note"])
    data = "0x" + "33" * 32
    logs = [
        log(0, TOKEN, [topic0, ZERO]),
        log(1, TOKEN, ["0x" + "11" * 32, "0x" + "22" * 32], data),
        log(2, OTHER, ["0x" + "11" * 32, "0x" + "22" * 32], data),
        log(3, TOKEN, ["0x" + "11" * 32], data),
        log(4, TOKEN, ["0x" + "11" * 32, ZERO], "0x"),
        log(5, TOKEN, []),
    ]
    decoded = decoder(note).decode(segment(logs))
    assert [(r["log_index"], r["p0"], r["p2"]) for r in tables(decoded)["c_note"]] == [("1", "0x" + "11" * 32, data)]
    assert [q.item for q in decoded.quarantined] == ["log:4"]
    assert decoder(note).wants().logs == (LogClause(frozenset([TOKEN]), None),)


def test_an_anonymous_event_without_topics_is_found() -> None:
    """All its parameters are in the data."""
    bare = ContractSpec.load("c", [anonymous("Bare", 0)], TOKEN)
    decoded = decoder(bare).decode(segment([log(0, TOKEN, [], ZERO)]))
    assert [r["p0"] for r in tables(decoded)["c_bare"]] == [ZERO]


def test_anonymous_events_that_nothing_tells_apart_are_refused() -> None:
    """At any address, or two with as many topics: every guess would be a lie."""
    with pytest.raises(ConfigError, match="no address, and its event Note is anonymous"):
        ContractSpec.load("c", [anonymous("Note", 2)])
    with pytest.raises(ConfigError, match="Note and Memo with equally many"):
        ContractSpec.load("c", [anonymous("Note", 2), anonymous("Memo", 2)], TOKEN)


# --- what is asked for ---------------------------------------------------------------------------------------------


def test_clauses_ask_for_exactly_what_is_needed() -> None:
    """Addresses that need the same events share a clause, others do not; what is asked for anywhere is not asked for
    twice."""
    rare = ContractSpec.load("rare", "erc20", THIRD, ["Approval"])
    wants = decoder(ContractSpec.load("tokens", "erc20", [TOKEN, OTHER]), rare).wants()
    assert wants == Wants(
        logs=(
            LogClause(frozenset([TOKEN, OTHER]), frozenset([TRANSFER, APPROVAL])),
            LogClause(frozenset([THIRD]), frozenset([APPROVAL])),
        )
    )
    anywhere = ContractSpec.load("any", "erc20", events=["Approval"])
    assert decoder(ERC20, rare, anywhere).wants().logs == (
        LogClause(None, frozenset([APPROVAL])),
        LogClause(frozenset([TOKEN]), frozenset([TRANSFER])),
    )
    nfts = ContractSpec.load("nft", "erc721", TOKEN, ["ApprovalForAll"])
    assert [len(c.topics or ()) for c in decoder(ERC20, nfts).wants().logs] == [3]


def test_datasets_decide_what_is_fetched() -> None:
    """`blocks` needs headers only, `logs` every log, `transactions` whole blocks."""
    assert decoder(datasets=("blocks",)).wants() == Wants(())
    assert decoder(datasets=("logs",)).wants() == Wants((), all_logs=True)
    assert decoder(datasets=("transactions",)).wants() == Wants((), whole_blocks=True)


def test_datasets_are_decoded_beside_contracts() -> None:
    """All tables of a source come from one pass; a prefix tells the raw tables of two sources apart."""
    found = EvmDecoder("base", [ERC20], frozenset(["blocks", "logs"]), prefix="base_")
    Schema("app", found.tables(), ("base",))
    rows = tables(found.decode(segment([transfer(0), log(1, OTHER, [])], [])))
    assert {n: len(r) for n, r in rows.items()} == {"token_transfer": 1, "base_blocks": 2, "base_logs": 2}


# --- events for handlers -------------------------------------------------------------------------------------------


def test_subscribed_events_share_the_table_s_rows() -> None:
    """Handlers get the same columns as the table, and each event's place in the segment."""
    found = decoder(ERC20, subscribed=("token.Transfer",))
    assert found.event_names() == ("token.Transfer", "token.Approval")
    approval = log(2, TOKEN, [APPROVAL, topic(ALICE), topic(BOB)], ZERO)
    decoded = found.decode(segment([transfer(0), approval], [transfer(1, data="0x"), transfer(9)]))
    (event,) = decoded.events
    assert event.name == "token.Transfer"
    assert event.rows is next(r for r in decoded.rows if r.table.name == "token_transfer")
    assert event.order == [(100, 0), (101, 9)]


def test_unknown_names_get_a_suggestion() -> None:
    """A handler for an event that does not exist, a dataset that is none."""
    with pytest.raises(ConfigError, match=r"no event 'token.Transfers'.*'token.Transfer'"):
        decoder(ERC20, subscribed=("token.Transfers",))
    with pytest.raises(ConfigError, match=r"no dataset 'block'.*'blocks'"):
        decoder(datasets=("block",))


# --- the same everywhere -------------------------------------------------------------------------------------------


def test_how_blocks_are_cut_into_segments_does_not_matter() -> None:
    """Digests of entries are the same whether they come in one segment or alone, in another order, or beside blocks
    with broken logs."""
    contracts = ERC20, ContractSpec.load("any", "erc20")
    blocks = [[transfer(0, value=n), nft(1, OTHER), transfer(2, OTHER, data="0x"), transfer(3)] for n in range(9)]
    whole = segment(*blocks)
    together = entry_digests(whole.entries, decoder(*contracts).decode(whole).rows)[0]
    same = decoder(*contracts)
    alone = {}
    for n in (5, 3, 0, 1, 2, 4, 8, 7, 6):
        one = segment(blocks[n], first=100 + n)
        alone[n] = entry_digests(one.entries, same.decode(one).rows)[0][0]
    assert [alone[n] for n in range(9)] == together
    assert len(set(together)) == 9


JUNK = st.one_of(
    st.text(max_size=8),
    st.text(alphabet="0123456789abcdefABCDEFxX_ ", max_size=70),
    st.integers(0, 2**300).map(hex),
    st.binary(max_size=140).map(lambda b: "0x" + b.hex()),
)
VALUES = st.recursive(
    JUNK | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["hash", "blockHash", "transactionIndex", "to", "value", "type", "input", "accessList", "odd"])


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "address": JUNK,
                "topics": st.lists(JUNK, max_size=6).map(lambda t: [TRANSFER, *t]),
                "data": JUNK,
                "transaction_hash": JUNK,
                "transaction_index": JUNK,
                "log_index": JUNK,
            },
        ),
        max_size=6,
    ),
    st.lists(st.dictionaries(KEYS, VALUES), max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_answered_is_a_row_or_in_quarantine(
    changes: list[dict[str, Any]], bodies: list[dict[str, Any]]
) -> None:
    """Random junk in any field of logs and transactions: every one is a row of canonical text or is quarantined, in
    every table it belongs to; nothing raises, and the good log among them is kept."""
    multi = ContractSpec.load("multi", "erc20")
    found = decoder(multi, datasets=("logs", "transactions"))
    logs = [transfer(0), *(transfer(n, **c) for n, c in enumerate(changes, 1))]
    of = segment(logs)
    of.payload.transactions.append([{"hash": ZERO, **body} for body in bodies])
    decoded = found.decode(of)
    rows, odd = tables(decoded), Counter(q.consumer for q in decoded.quarantined)
    assert len(rows["logs"]) + odd["logs"] == len(logs)
    assert len(rows["transactions"]) + odd["transactions"] == len(bodies)
    assert rows["multi_transfer"][0]["value"] == "1"
    shaped = sum(len(one.topics) == 3 for one in logs)
    assert len(rows["multi_transfer"]) + odd["multi_transfer"] == shaped
    for table_rows in decoded.rows:
        for column, values in zip(table_rows.table.columns, table_rows.columns, strict=True):
            for value in values:
                assert to_text(column, from_text(column, value)) == value
                assert value is None or "\0" not in value.encode().decode()


# --- contracts -----------------------------------------------------------------------------------------------------

USDC = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"


def test_addresses_in_mixed_case_must_pass_their_checksum() -> None:
    """EIP-55: a wrong digit or case is shown with the right form; one case all through is taken as it is."""
    assert parse_address(USDC) == parse_address(USDC.lower()) == parse_address("0x" + USDC[2:].upper()) == USDC.lower()
    assert checksum_address(USDC.lower()) == USDC
    with pytest.raises(ConfigError, match="fails its checksum") as caught:
        ContractSpec.load("usdc", "erc20", USDC.replace("A0b8", "a0b8"))
    assert USDC in str(caught.value)
    assert "'usdc'" in str(caught.value)


@pytest.mark.parametrize(
    "address", ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"]
)
def test_the_checksums_of_eip_55(address: str) -> None:
    """Examples of the standard itself."""
    assert checksum_address(address.lower()) == address
    assert parse_address(address) == address.lower()


@pytest.mark.parametrize("address", ["", "0x", "0x12", "A0" * 20, "0x" + "g" * 40, "0x" + "a" * 41, "0X" + "a" * 40])
def test_what_is_no_address_is_refused(address: str) -> None:
    """The error names the contract and shows what was written."""
    with pytest.raises(ConfigError, match=r"Contract 'c'.*is not an address"):
        ContractSpec.load("c", "erc20", address)


def test_a_contract_must_have_something_to_follow() -> None:
    """No events, or an empty list of addresses, would index nothing for ever."""
    with pytest.raises(ConfigError, match="has no events"):
        ContractSpec.load("c", "erc20", TOKEN, [])
    with pytest.raises(ConfigError, match="empty list of addresses"):
        ContractSpec.load("c", "erc20", [])

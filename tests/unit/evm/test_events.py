"""Decoding batches of logs: exact values, strict encodings, siblings kept."""

from __future__ import annotations

import gzip
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_abi.grammar import BasicType, TupleType, parse
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.errors import AbiError
from gapless.schema import canonical_json
from gapless.sources.evm.abi import AbiType, EventAbi, load_abi
from gapless.sources.evm.events import LOG_COLUMNS, EventCodec
from gapless.sources.evm.types import Log

SHARED = Path(os.environ.get("GAPLESS_SHARED", Path(__file__).resolve().parents[4] / "shared"))
DATA = Path(__file__).resolve().parents[2] / "data" / "abi"
ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20


def word(value: int | str) -> str:
    """One ABI word, without 0x, of a number or of an address."""
    return f"{int(value, 16) if isinstance(value, str) else value % 2**256:064x}"


def log(event: EventAbi, topics: list[str], data: str, index: int = 0) -> Log:
    first = [] if event.anonymous else [event.topic0]
    return Log(
        address=BOB,
        topics=[*first, *("0x" + t for t in topics)],
        data="0x" + data,
        block_number="0x1",
        block_hash="0x" + "11" * 32,
        transaction_hash="0x" + "22" * 32,
        transaction_index="0x3",
        log_index=hex(index),
    )


def json_type(text: str, indexed: bool = False) -> dict[str, Any]:
    """An ABI parameter of a type written as in a signature."""

    def entry(node: Any) -> dict[str, Any]:
        suffix = "".join(f"[{n[0] if n else ''}]" for n in node.arrlist or ())
        if isinstance(node, TupleType):
            return {"type": "tuple" + suffix, "components": [entry(c) for c in node.components]}
        assert isinstance(node, BasicType)
        return {"type": str(node.to_type_str())}  # type: ignore[no-untyped-call]

    return {"name": "x", "indexed": indexed, **entry(parse(text))}


def event_of(*types: str, indexed: bool = False) -> EventAbi:
    inputs = [json_type(t, indexed) for t in types]
    return load_abi([{"type": "event", "name": "E", "inputs": inputs}]).select()[0]


def decoded(event: EventAbi, *logs: Log) -> tuple[list[tuple[Any, ...]], dict[int, str]]:
    """Parameters of each log that decodes, and the reasons of the others."""
    found = EventCodec(event).decode(logs)
    assert {len(c) for c in found.columns} == {len(logs) - len(found.odd)}
    return list(zip(*found.columns[LOG_COLUMNS:], strict=True)), found.odd


# --- values --------------------------------------------------------------------------------------------------------


def test_a_transfer_is_its_columns() -> None:
    """Where the log comes from, then the parameters in the order of the ABI, as canonical text."""
    transfer = load_abi("erc20").select(["Transfer"])[0]
    logs = [log(transfer, [word(ALICE), word(BOB)], word(10**30 + i), i) for i in range(3)]
    found = EventCodec(transfer).decode(logs)
    assert not found.odd
    assert found.columns == [
        ["0x" + "22" * 32] * 3,
        ["3"] * 3,
        ["0", "1", "2"],
        [BOB] * 3,
        [ALICE] * 3,
        [BOB] * 3,
        [str(10**30 + i) for i in range(3)],
    ]


@pytest.mark.parametrize(
    ("solidity", "encoded", "text"),
    [
        ("uint256", word(2**256 - 1), str(2**256 - 1)),
        ("uint256", word(0), "0"),
        ("uint8", word(255), "255"),
        ("uint64", word(2**64 - 1), str(2**64 - 1)),
        ("uint72", word(2**72 - 1), str(2**72 - 1)),
        ("int256", word(-(2**255)), str(-(2**255))),
        ("int256", word(2**255 - 1), str(2**255 - 1)),
        ("int64", word(-(2**63)), str(-(2**63))),
        ("int24", word(-1), "-1"),
        ("int24", word(2**23 - 1), "8388607"),
        ("int72", word(-(2**71)), str(-(2**71))),
        ("bool", word(1), "1"),
        ("bool", word(0), "0"),
        ("address", word(ALICE), ALICE),
        ("bytes32", "0c" * 32, "0x" + "0c" * 32),
        ("bytes4", "01020304" + "00" * 28, "0x01020304"),
        ("function", "ab" * 24 + "00" * 8, "0x" + "ab" * 24),
    ],
)
def test_one_word_types_at_their_bounds(solidity: str, encoded: str, text: str) -> None:
    """Each type in data, between other words, and as a topic."""
    plain = event_of("uint256", solidity, "bytes32")
    assert decoded(plain, log(plain, [], word(7) + encoded + "ff" * 32)) == ([("7", text, "0x" + "ff" * 32)], {})
    topic = event_of(solidity, indexed=True)
    assert decoded(topic, log(topic, [encoded], "")) == ([(text,)], {})


@pytest.mark.parametrize(
    ("solidity", "encoded", "reason"),
    [
        ("address", "00" * 11 + "01" + "a1" * 20, "an address with bytes before it"),
        ("bool", word(2), "neither 0 nor 1"),
        ("bool", "01" + "00" * 30 + "01", "neither 0 nor 1"),
        ("uint8", word(256), "more than 8 bits"),
        ("uint64", word(2**64), "more than 64 bits"),
        ("uint248", word(2**248), "more than 248 bits"),
        ("int8", word(128), "more than 8 bits"),
        ("int8", word(-129), "more than 8 bits"),
        ("int64", word(2**63), "more than 64 bits"),
        ("int72", "ff" * 22 + "7f" + "00" * 9, "more than 72 bits"),
        ("bytes4", "01020304" + "00" * 27 + "01", "more than 4 bytes"),
        ("function", "ab" * 24 + "01" + "00" * 7, "more than 24 bytes"),
    ],
)
def test_dirty_padding_does_not_decode(solidity: str, encoded: str, reason: str) -> None:
    """Bytes that the value would lose are not dropped: the log is left out with a reason, its siblings are kept; and
    eth-abi refuses the same word."""
    with pytest.raises(DecodingError):
        decode([solidity], bytes.fromhex(encoded))
    good = "00" * 32
    plain = event_of(solidity)
    rows, odd = decoded(plain, *(log(plain, [], d) for d in (good, good, encoded, good, encoded)))
    assert len(rows) == 3
    assert set(odd) == {2, 4}
    assert all(reason in r and r.startswith("x") for r in odd.values())
    topic = event_of(solidity, indexed=True)
    rows, odd = decoded(topic, *(log(topic, [t], "") for t in (encoded, good)))
    assert len(rows) == 1
    assert "x (topic 1): " in odd[0]


def test_the_shape_of_a_static_event_is_exact() -> None:
    """Too few or too many topics or data, bytes beyond the last word and broken hex are all left out, each with its
    reason; the siblings of a batch of a thousand are kept, in order."""
    transfer = load_abi("erc20").select(["Transfer"])[0]
    a, b = word(ALICE), word(BOB)
    bad = {
        3: (log(transfer, [a], word(1)), "2 topics where 3 are expected"),
        4: (log(transfer, [a, b, a], ""), "4 topics where 3"),
        99: (log(transfer, [a, b], ""), "data: 0 bytes where 32"),
        400: (log(transfer, [a, b], word(1) + "00"), "data: 33 bytes where 32"),
        401: (log(transfer, [a, b], word(1) * 2), "data: 64 bytes where 32"),
        500: (log(transfer, [a, b], "0_" + word(1)[2:]), "data: not hexadecimal"),
        501: (log(transfer, [a, b], "é" * 64), "data: not hexadecimal"),
        502: (log(transfer, [a, b[:-1] + " "], word(1)), "to (topic 2): not hexadecimal"),
        503: (log(transfer, [a, "0x" + b[2:]], word(1)), "to (topic 2): not hexadecimal"),
        998: (log(transfer, [a, b[:-2]], word(1)), "to (topic 2): 31 bytes where 32"),
        999: (log(transfer, [a, b], word(1)), "of the log: 'x' is not a quantity"),
    }
    bad[999][0].log_index = "x"
    logs = [bad[i][0] if i in bad else log(transfer, [a, b], word(i)) for i in range(1000)]
    rows, odd = decoded(transfer, *logs)
    assert [r[2] for r in rows] == [str(i) for i in range(1000) if i not in bad]
    assert odd.keys() == bad.keys()
    for i, (_, reason) in bad.items():
        assert reason in odd[i]


def test_hex_in_upper_case_is_the_same_value() -> None:
    """Case is not information: canonical text is lower case."""
    e = load_abi([{"type": "event", "name": "E", "inputs": [json_type("bytes32", True), json_type("address")]}])
    upper = log(e.events[0], ["AB" * 32], word(ALICE).upper())
    upper.transaction_hash = upper.transaction_hash.replace("2", "A")
    upper.address = BOB.upper()
    found = EventCodec(e.events[0]).decode([upper])
    assert found.columns == [["0x" + "aa" * 32], ["3"], ["0"], [BOB], ["0x" + "ab" * 32], [ALICE]]


def test_indices_are_exact_and_bounded() -> None:
    """Indices beyond the table of small ones are converted; one that does not fit 64 bits is refused."""
    e = event_of("bool")
    logs = [log(e, [], word(1), i) for i in (0, 4095, 4096, 2**63 - 1, 2**63)]
    found = EventCodec(e).decode(logs)
    assert found.columns[2] == ["0", "4095", "4096", str(2**63 - 1)]
    assert "more than 63 bits" in found.odd[4]


def test_an_anonymous_event_has_four_parameters_in_topics() -> None:
    """The first topic of an anonymous event is its first indexed parameter."""
    note = load_abi(DATA / "overloads.json").select(["LogNote"])[0]
    data = encode(["uint256", "bytes"], [5, b"\xfa"]).hex()
    rows, odd = decoded(note, log(note, ["01020304" + "00" * 28, word(ALICE), "0f" * 32, "0e" * 32], data))
    assert not odd
    assert rows == [("0x01020304", ALICE, "0x" + "0f" * 32, "0x" + "0e" * 32, "5", "0xfa")]


def test_nothing_decodes_to_nothing() -> None:
    """No logs, or no log that decodes: columns without rows."""
    e = event_of("bool")
    assert EventCodec(e).decode([]).columns == [[]] * (LOG_COLUMNS + 1)
    assert EventCodec(e).decode([log(e, [], "")]).columns == [[]] * (LOG_COLUMNS + 1)


# --- dynamic data --------------------------------------------------------------------------------------------------


def test_json_of_tuples_and_arrays() -> None:
    """Named tuples are objects, others and arrays lists; integers wider than 48 bits are text, so that no JSON reader
    rounds them; indexed ones are hashes."""
    filled = load_abi(DATA / "overloads.json").select(["Filled"])[0]
    value = (ALICE, [(2**128 - 1, 2), (3, 4)], "mémo", 2**32 - 1)
    data = encode(["(address,uint128[2][],string,uint32)"], [value]).hex()
    rows, odd = decoded(filled, log(filled, ["aa" * 32, "bb" * 32], data))
    assert not odd
    assert rows[0][1:] == ("0x" + "aa" * 32, "0x" + "bb" * 32)
    assert rows[0][0] == (
        f'{{"amounts":[["{2**128 - 1}","2"],["3","4"]],"maker":"{ALICE}","memo":"mémo","small":4294967295}}'
    )
    unnamed = event_of("(bool,uint48,uint56,bytes,bytes4)[]")
    data = encode(["(bool,uint48,uint56,bytes,bytes4)[]"], [[(True, 1, 2, b"\xab", b"abcd")]]).hex()
    assert decoded(unnamed, log(unnamed, [], data))[0] == [('[[true,1,"2","0xab","0x61626364"]]',)]


def test_text_that_no_database_holds_is_left_out() -> None:
    """A string with NUL, which Postgres cannot store, or that is not UTF-8: at once and with a reason, not at the
    commit. Its siblings, one with a literal backslash-u0000 among them, are kept."""
    e = event_of("string")
    bodies = [b"a\0b", b"\xff\xfe", rb"\u0000", b"tab\tand\nline", b""]
    rows, odd = decoded(e, *(log(e, [], encode(["bytes"], [b]).hex()) for b in bodies))
    assert [r[0] for r in rows] == [r"\u0000", "tab\tand\nline", ""]
    assert "NUL character" in odd[0]
    assert "not UTF-8" in odd[1]
    inner = event_of("(string)[]")
    rows, odd = decoded(inner, *(log(inner, [], encode(["(bytes)[]"], [[(b,)]]).hex()) for b in bodies))
    assert len(rows) == 3
    assert json.loads(rows[0][0]) == [[r"\u0000"]]


def test_bad_offsets_and_lengths_do_not_decode() -> None:
    """Offsets outside the data, lengths beyond it and beyond what a machine counts, missing and dirty padding."""
    e = event_of("bytes", "uint8")
    good = encode(["bytes", "uint8"], [b"abc", 7]).hex()
    bad = [
        "",
        good[:64],
        word(2**255) + good[64:],
        word(0) + good[64:],
        good[:128] + word(2**256 - 1) + good[192:],
        good[:128] + word(33) + good[192:],
        good[:-2] + "01",
        good[:-2],
        good[:64] + word(256) + good[128:],
        good[:-1] + "x",
    ]
    rows, odd = decoded(e, log(e, [], good), *(log(e, [], b) for b in bad), log(e, [], good))
    assert rows == [("0x616263", "7")] * 2
    assert sorted(odd) == list(range(1, len(bad) + 1))
    assert all(r.startswith("data: ") for r in odd.values())


def test_a_tail_beyond_the_last_value_is_left_to_the_encoder() -> None:
    """The layout of dynamic data is the encoder's choice, so bytes nothing points to are allowed."""
    e = event_of("bytes")
    assert decoded(e, log(e, [], encode(["bytes"], [b"abc"]).hex() + "11" * 32))[0] == [("0x616263",)]


def test_data_that_stands_for_far_more_is_refused() -> None:
    """A few kilobytes whose offsets all point at the same string would unfold to hundreds of megabytes: refused
    early, and quickly."""
    e = event_of("string[][]")
    many = 1000
    row = word(many) + word(32 * many) * many + word(64) + "61" * 64
    data = word(32) + word(many) + word(32 * many) * many + row
    rows, odd = decoded(e, log(e, [], data))
    assert not rows
    assert "offsets overlap" in odd[0]


def test_deep_tuples_are_not_taken_for_overlap() -> None:
    """Checking offsets, eth-abi reads static tuples once more a level: honest data stays within the bound."""
    kind = "uint8"
    value: Any = 1
    for _ in range(8):
        kind, value = f"({kind},uint8)", (value, 2)
    kind, value = f"({kind},string)", (value, "x")
    e = event_of(kind)
    rows, odd = decoded(e, log(e, [], encode([kind], [value]).hex()))
    assert not odd
    assert rows[0][0].endswith(',"x"]')


# --- against eth-abi -----------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from(["address", "bool", "bytes32", "uint256", "int256", "function"]),
    st.integers(1, 32).map(lambda n: f"uint{8 * n}"),
    st.integers(1, 32).map(lambda n: f"int{8 * n}"),
    st.integers(1, 32).map(lambda n: f"bytes{n}"),
)
TYPES = st.recursive(
    WORDS | st.sampled_from(["string", "bytes"]),
    lambda inner: st.one_of(
        inner.map(lambda t: f"{t}[]"),
        st.tuples(inner, st.integers(1, 3)).map(lambda p: f"{p[0]}[{p[1]}]"),
        st.lists(inner, min_size=1, max_size=3).map(lambda p: f"({','.join(p)})"),
    ),
    max_leaves=4,
)


def values(kind: AbiType) -> st.SearchStrategy[Any]:
    """Python values of a type, as eth-abi takes them."""
    if kind.dimensions:
        inner = values(AbiType(kind.base, kind.dimensions[:-1], kind.components))
        size = kind.dimensions[-1]
        return st.lists(inner, min_size=size or 0, max_size=3 if size is None else size)
    if kind.base == "tuple":
        return st.tuples(*(values(t) for _, t in kind.components))
    if kind.integer:
        low, high = (
            (0, 2**kind.bits - 1) if kind.base[0] == "u" else (-(2 ** (kind.bits - 1)), 2 ** (kind.bits - 1) - 1)
        )
        return st.integers(low, high) | st.sampled_from([low, high])
    match kind.base:
        case "bool":
            return st.booleans()
        case "string":
            return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
        case "address":
            return st.binary(min_size=20, max_size=20).map(lambda b: "0x" + b.hex())
        case "bytes":
            return st.binary(max_size=70)
        case _:
            size = 24 if kind.base == "function" else int(kind.base.removeprefix("bytes"))
            return st.binary(min_size=size, max_size=size)


def plain(kind: AbiType, value: Any) -> Any:
    """What JSON should show of a value: written for the test, from the rules, not from the decoder."""
    if kind.dimensions:
        item = AbiType(kind.base, kind.dimensions[:-1], kind.components)
        return [plain(item, v) for v in value]
    if kind.base == "tuple":
        return [plain(t, v) for (_, t), v in zip(kind.components, value, strict=True)]
    if kind.integer:
        return value if kind.bits <= 48 else str(value)
    return "0x" + value.hex() if isinstance(value, bytes) else value


def text(kind: AbiType, value: Any) -> str:
    """Canonical text of a column's value, likewise."""
    if kind.dimensions or kind.base == "tuple":
        return canonical_json(plain(kind, value))
    if kind.base == "bool":
        return "1" if value else "0"
    return str(value) if kind.integer else str(plain(kind, value))


@given(st.lists(TYPES, min_size=1, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_any_types_decode_as_encoded(types: list[str], draw: st.DataObject) -> None:
    """Random events: what eth-abi encodes decodes to canonical text of the same values, a batch at a time."""
    e = event_of(*types)
    batch = [[draw.draw(values(i.type)) for i in e.inputs] for _ in range(draw.draw(st.integers(1, 3)))]
    rows, odd = decoded(e, *(log(e, [], encode(types, row).hex()) for row in batch))
    assert not odd
    assert rows == [tuple(text(i.type, v) for i, v in zip(e.inputs, row, strict=True)) for row in batch]


@given(st.lists(WORDS, min_size=1, max_size=4), st.data())
@settings(max_examples=200, deadline=None)
def test_column_slicing_agrees_with_eth_abi_on_any_words(types: list[str], draw: st.DataObject) -> None:
    """Random words, mostly not canonical: accepted and refused by both, with the same values."""
    e = event_of(*types)
    raw = draw.draw(
        st.lists(
            st.one_of(
                st.binary(min_size=32, max_size=32),
                st.binary(max_size=32).map(lambda b: b.rjust(32, b"\0")),
                st.binary(max_size=32).map(lambda b: b.ljust(32, b"\0")),
                st.binary(max_size=32).map(lambda b: b.rjust(32, b"\xff")),
                st.sampled_from([bytes(32), bytes(31) + b"\1"]),
            ),
            min_size=len(types),
            max_size=len(types),
        )
    )
    rows, odd = decoded(e, log(e, [], b"".join(raw).hex()))
    try:
        expected = decode(types, b"".join(raw))
    except DecodingError:
        assert odd
        return
    assert rows == [tuple(text(i.type, v) for i, v in zip(e.inputs, expected, strict=True))]


# --- vectors and real logs -----------------------------------------------------------------------------------------


def verbose(node: dict[str, Any]) -> Any:
    """A value of the ethers vectors as eth-abi would give it."""
    value = node["value"]
    match node["type"]:
        case "object" | "array":
            return [verbose(v) for v in value]
        case "number":
            return int(value)
        case "hexstring":
            return bytes.fromhex(value[2:])
        case "address":
            return value.lower()
        case _:
            return value


def test_published_vectors_decode() -> None:
    """Every ethers vector of a type that an event can have gives its value."""
    path = SHARED / "data/abi/ethers-abi.json.gz"
    if not path.exists():
        pytest.skip("no shared test data beside the checkout")
    checked = 0
    for vector in json.loads(gzip.decompress(path.read_bytes())):
        if "[0]" in vector["type"]:
            with pytest.raises(AbiError, match="the empty"):
                event_of(vector["type"])
            continue
        e = event_of(vector["type"])
        rows, odd = decoded(e, log(e, [], vector["encoded"][2:]))
        value = verbose(vector["verbose"])
        if isinstance(value, str) and "\0" in value:
            assert odd
            continue
        assert rows == [(text(e.inputs[0].type, value),)], vector["name"]
        checked += 1
    assert checked > 600


def test_real_taiko_logs_decode() -> None:
    """Logs of two mainnet contracts, three protocol versions: each decodes with its ABI; the ids of proposals follow
    one another, and proofs cover ranges that join."""
    if not (SHARED / "data/taiko").exists():
        pytest.skip("no shared test data beside the checkout")
    ids = [json_type("uint48") | {"name": name} for name in ("first", "firstNew", "last")]
    deployed = {"type": "event", "name": "Proved", "inputs": [*ids, json_type("address", True)]}
    abis = [load_abi(p) for p in sorted((SHARED / "data/taiko/abi").glob("*.abi.json"))] + [load_abi([deployed])]
    events = {e.topic0: e for abi in abis for e in abi.events}
    files = sorted((SHARED / "data/taiko/l1-mainnet-logs").glob("*.json"))
    files.append(SHARED / "data/taiko/shasta-mainnet-logs/inbox_logs_sample.json")
    found: dict[str, list[tuple[Any, ...]]] = {}
    for raw in (r for f in files for r in json.loads(f.read_text())):
        e = events[raw["topics"][0]]
        rows, odd = decoded(e, log(e, [t[2:] for t in raw["topics"][1:]], raw["data"][2:]))
        assert not odd, (e.signature, odd)
        found.setdefault(e.name, []).append(rows[0])
    assert sum(map(len, found.values())) == 23
    proposed = [int(row[0]) for row in found["Proposed"]]
    assert proposed == list(range(38893, 38893 + len(proposed)))
    proved = [(int(row[0]), int(row[2])) for row in found["Proved"]]
    assert all(last + 1 >= first for (_, last), (first, _) in pairwise(proved))

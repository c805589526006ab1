"""Reading ABIs: what they declare, what it is called, and what is said about bad ones."""

from __future__ import annotations

import json
import keyword
import os
import random
from pathlib import Path
from typing import Any

import apsw
import pytest

from gapless.errors import AbiError
from gapless.schema import Kind
from gapless.sources.evm.abi import BUILT_IN, FIXED_COLUMNS, NESTING_MAX, EventAbi, load_abi
from gapless.sources.evm.names import IDENTIFIER_BYTES_MAX, RESERVED, column_names, snake_case, table_name

SHARED = Path(os.environ.get("GAPLESS_SHARED", Path(__file__).resolve().parents[4] / "shared"))
DATA = Path(__file__).resolve().parents[2] / "data" / "abi"
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
TIMED_TRANSFER = "0x9ed053bb818ff08b8353cd46f78db1f0799f31c9e4458fdb425c10eccd2efc44"


def event(*inputs: dict[str, Any] | str, name: str = "E", anonymous: bool = False) -> dict[str, Any]:
    """An ABI entry; a plain string is the type of an unnamed parameter."""
    parameters = [{"name": "", "type": i} if isinstance(i, str) else i for i in inputs]
    return {"type": "event", "name": name, "anonymous": anonymous, "inputs": parameters}


def columns(found: EventAbi) -> list[tuple[str, Kind]]:
    return [(c.name, c.kind) for c in found.columns]


# --- what an ABI declares ------------------------------------------------------------------------------------------


def test_the_standard_tokens_are_built_in() -> None:
    """`erc20`, `erc721` and `erc1155` need no file, and have the events of their EIPs."""
    signatures = {name: [e.signature for e in load_abi(name).select()] for name in BUILT_IN}
    assert signatures == {
        "erc20": ["Transfer(address,address,uint256)", "Approval(address,address,uint256)"],
        "erc721": [
            "Transfer(address,address,uint256)",
            "Approval(address,address,uint256)",
            "ApprovalForAll(address,address,bool)",
        ],
        "erc1155": [
            "TransferSingle(address,address,address,uint256,uint256)",
            "TransferBatch(address,address,address,uint256[],uint256[])",
            "ApprovalForAll(address,address,bool)",
            "URI(string,uint256)",
        ],
    }
    transfer = load_abi("erc20").select(["Transfer"])[0]
    assert transfer.topic0 == TRANSFER
    assert columns(transfer) == [("from_", Kind.ADDRESS), ("to_", Kind.ADDRESS), ("value", Kind.UINT256)]
    assert [e.topic_count for e in load_abi("erc721").select(["Transfer"])] == [4]


def test_a_compiler_artifact_is_an_abi() -> None:
    """An object with the list as `abi` is read, from a path relative to the config; seed 001's Transfer has four
    arguments and a topic of its own."""
    found = load_abi("timed-transfer.json", base_dir=DATA).select()
    assert [e.topic0 for e in found] == [TIMED_TRANSFER]
    assert [c.name for c in found[0].columns] == ["from_", "to_", "amount", "timestamp"]
    assert load_abi(json.loads((DATA / "timed-transfer.json").read_text())["abi"]).events == found


def test_aliases_are_written_out_in_the_signature() -> None:
    """`uint`, `int` and `byte` are aliases; the topic is the hash of the canonical signature."""
    assert load_abi([event("uint", "int[2]", "byte")]).events[0].signature == "E(uint256,int256[2],bytes1)"
    assert len(load_abi([event("uint")]).select(["E( uint )"])) == 1


def test_a_tuple_is_its_components_in_the_signature() -> None:
    """The signature of a tuple is the list of its components' types, arrays after it."""
    filled = load_abi(DATA / "overloads.json").select(["Filled"])[0]
    assert filled.signature == "Filled((address,uint128[2][],string,uint32),string,address[])"


def test_repeated_events_are_one() -> None:
    """An ABI merged from several files declares the same event many times."""
    assert len(load_abi([event("bool"), event("bool")]).events) == 1


@pytest.mark.parametrize(
    ("solidity", "kind"),
    [
        ("address", Kind.ADDRESS),
        ("bool", Kind.BOOL),
        ("uint8", Kind.INT),
        ("uint56", Kind.INT),
        ("uint64", Kind.UINT256),
        ("int64", Kind.INT),
        ("int72", Kind.UINT256),
        ("uint256", Kind.UINT256),
        ("string", Kind.TEXT),
        ("bytes", Kind.BYTES),
        ("bytes4", Kind.BYTES),
        ("bytes32", Kind.HASH),
        ("function", Kind.BYTES),
        ("uint8[]", Kind.JSON),
        ("bytes32[3]", Kind.JSON),
    ],
)
def test_a_type_has_one_kind_of_column(solidity: str, kind: Kind) -> None:
    """Integers are INT where all their values fit 64 signed bits; 32 bytes are a HASH; what has parts is JSON."""
    assert columns(load_abi([event(solidity)]).events[0]) == [("arg0", kind)]


def test_an_indexed_parameter_of_many_words_is_its_hash() -> None:
    """Of indexed strings, bytes, arrays and tuples the log holds the Keccak-256 only, and the column says so."""
    filled = load_abi(DATA / "overloads.json").select(["Filled"])[0]
    assert columns(filled) == [("order_", Kind.JSON), ("note_hash", Kind.HASH), ("path_hash", Kind.HASH)]
    unnamed = load_abi([event({"type": "bytes", "indexed": True})]).events[0]
    assert columns(unnamed) == [("arg0_hash", Kind.HASH)]


# --- selection and labels ------------------------------------------------------------------------------------------


def test_an_event_alone_of_its_name_keeps_it() -> None:
    """An overload selected by its full signature has the plain name."""
    abi = load_abi(DATA / "overloads.json")
    assert [e.label for e in abi.select(["Transfer(address,uint256)", "LogNote"])] == ["Transfer", "LogNote"]


def test_overloads_are_told_apart_by_their_types() -> None:
    """Events of one name are called by their types, those of one signature by their indexed parameters as well."""
    abi = load_abi(DATA / "overloads.json")
    assert [e.label for e in abi.select(["Transfer"])] == [
        "Transfer_address_address_uint256_indexed_2",
        "Transfer_address_address_uint256_indexed_3",
        "Transfer_address_uint256",
    ]


def test_labels_do_not_depend_on_the_order_of_the_file() -> None:
    """Shuffled entries give each event the label it had."""
    entries = json.loads((DATA / "overloads.json").read_text())
    entries += [event("bool", name="fooBar"), event("bool", name="foo_bar")]
    entries += [event({"type": "tuple", "components": [{"type": "bool"}, {"type": "bool"}]}, name="F")]
    entries += [event({"type": "tuple", "components": [{"type": "bool"}]}, "bool", name="F")]
    expected = {e.topic0 + str(e.indexed_count): e.label for e in load_abi(entries).select()}
    assert len(set(map(snake_case, expected.values()))) == len(expected)
    for seed in range(5):
        random.Random(seed).shuffle(entries)
        assert {e.topic0 + str(e.indexed_count): e.label for e in load_abi(entries).select()} == expected


def test_events_that_nothing_tells_apart_are_refused() -> None:
    """Same signature and same number of topics: no log says which of the two it is."""
    first = event({"name": "a", "type": "bool", "indexed": True}, "bool")
    second = event("bool", {"name": "b", "type": "bool", "indexed": True})
    with pytest.raises(AbiError, match=r"E\(bool,bool\) twice"):
        load_abi([first, second]).select()


def test_an_unknown_event_gets_a_suggestion() -> None:
    """The error names the ABI, the event asked for and the closest one there is."""
    with pytest.raises(AbiError, match=r"built-in ABI 'erc20' has no event 'Transfers'.*Did you mean 'Transfer'\?"):
        load_abi("erc20").select(["Transfers"])
    with pytest.raises(AbiError, match="It has: Approval, Transfer"):
        load_abi("erc20").select(["zzz"])


def test_an_event_of_unknown_type_is_an_error_only_where_it_is_wanted() -> None:
    """One odd event does not make the rest of an ABI unusable."""
    abi = load_abi([event("bool", name="Good"), event("fixed128x18", name="Odd")])
    assert [e.name for e in abi.select(["Good"])] == ["Good"]
    for names in (["Odd"], None):
        with pytest.raises(AbiError, match=r"event Odd.*unknown type 'fixed128x18'"):
            abi.select(names)


# --- bad input -----------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named() -> None:
    """A path that does not exist, or a built-in name with a typo."""
    with pytest.raises(AbiError, match=r"There is no ABI file .*erc21.*Did you mean the built-in 'erc"):
        load_abi("erc21")


def test_what_is_not_json_is_named(tmp_path: Path) -> None:
    """HTML saved instead of JSON, an unreadable file, a folder."""
    page = tmp_path / "abi.json"
    page.write_text("<html>")
    with pytest.raises(AbiError, match=r"ABI file .*abi\.json is not JSON"):
        load_abi(page)
    page.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AbiError, match="cannot be read"):
        load_abi(page)
    with pytest.raises(AbiError, match="cannot be read"):
        load_abi(tmp_path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"bytecode": "0x"}, "is not an ABI"),
        ("[]", "There is no ABI file"),
        ([], "has no events"),
        ([{"type": "function", "name": "f"}], "has no events"),
        (["event Transfer()"], "where an entry is expected"),
        ([{"type": "event", "inputs": []}], "without a name"),
        ([event("uint7")], "unknown type 'uint7'"),
        ([event("bytes33")], "unknown type"),
        ([event("uint8[x]")], "unknown type"),
        ([event("uint8[0]")], "empty uint8"),
        ([event("tuple")], "tuple without components"),
        ([event(*[{"type": "bool", "indexed": True}] * 4)], "4 indexed parameters"),
        ([{"type": "event", "name": "E", "inputs": [{"name": "x"}]}], "without a type"),
    ],
)
def test_bad_abis_are_refused(entries: Any, message: str) -> None:
    """Each is an AbiError that says what is wrong and what to do."""
    with pytest.raises(AbiError, match=message) as caught:
        load_abi(entries).select()
    assert caught.value.todo


def test_tuples_nest_within_a_bound() -> None:
    """A type nested without end would cost the decoder time without end."""
    deep: dict[str, Any] = {"type": "bool"}
    for _ in range(NESTING_MAX + 2):
        deep = {"type": "tuple", "components": [deep]}
    with pytest.raises(AbiError, match="nested more than"):
        load_abi([event(deep)]).select()


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("tokenId", "token_id"),
        ("_from", "from"),
        ("amount0In", "amount0_in"),
        ("tokenURIs", "token_uris"),
        ("ERC20Token", "erc20_token"),
        ("sqrtPriceX96", "sqrt_price_x96"),
        ("URI", "uri"),
        ("L1Block", "l1_block"),
        ("a__b$c", "a_b_c"),
        ("_", ""),
    ],
)
def test_snake_case(name: str, snake: str) -> None:
    """Words are split where the case changes, acronyms and numbers stay whole."""
    assert snake_case(name) == snake


def test_columns_have_names_of_their_own() -> None:
    """Reserved and fixed names take an underscore, unnamed parameters their index, doubles a number."""
    fixed = {c.name for c in FIXED_COLUMNS}
    names = ["from", "address", "", "_from", "log_index", "a", "A", "a2", "_1", "class", "order", "values"]
    assert column_names(names, fixed) == (
        *("from_", "address_", "arg2", "from_2", "log_index_", "a", "a_2", "a2", "arg_1", "class_", "order_"),
        "values_",
    )


def test_every_word_a_database_keeps_is_reserved() -> None:
    """SQLite takes every column name that is not reserved bare; Python's keywords are reserved too."""
    connection = apsw.Connection(":memory:")
    for word in sorted(w.lower() for w in apsw.keywords):
        name = column_names([word], ())[0]
        connection.execute(f"CREATE TABLE t_{word} ({name} INT, other INT)")
        connection.execute(f"SELECT {name} FROM t_{word} WHERE {name} > 1 ORDER BY {name}")
    assert {w.lower() for w in keyword.kwlist} <= RESERVED


def test_long_names_fit_an_identifier_and_stay_different() -> None:
    """Postgres cuts an identifier at 63 bytes: longer names end in a digest of the whole."""
    names = [table_name("contract", "Event" + "x" * 80 + end) for end in ("a", "b")]
    assert len(set(names)) == 2
    assert {len(n) for n in names} == {IDENTIFIER_BYTES_MAX}
    assert len(column_names(["p" * 70] * 3, ())[2]) <= IDENTIFIER_BYTES_MAX


# --- real contracts ------------------------------------------------------------------------------------------------


def real_abis() -> list[Path]:
    found = sorted((SHARED / "data/abi/real-contract-abis").glob("*.json"))
    return found + sorted((SHARED / "data/taiko/abi").glob("*.abi.json"))


def test_every_event_of_real_contracts_gets_a_table() -> None:
    """Labels and columns of all events of 28 deployed contracts are unique."""
    if not real_abis():
        pytest.skip("no shared test data beside the checkout")
    events = 0
    for path in real_abis():
        entries = json.loads(path.read_text())
        entries = entries["abi"] if isinstance(entries, dict) else entries
        declared = [e for e in entries if e["type"] == "event"]
        if not declared:
            with pytest.raises(AbiError, match="has no events"):
                load_abi(path)
            continue
        found = load_abi(path).select()
        assert len(found) == len(declared)
        tables = {table_name(path.stem.split(".")[0], e.label) for e in found}
        assert len(tables) == len(found)
        for e in found:
            names = [c.name for c in (*FIXED_COLUMNS, *e.columns)]
            assert len(set(names)) == len(names)
            assert not RESERVED & set(names)
        events += len(found)
    assert events > 100


def test_topics_of_real_contracts_are_the_known_ones() -> None:
    """Signature and first topic of every Taiko event equal those its own tools computed."""
    table = SHARED / "data/taiko/abi/event-topics.json"
    if not table.exists():
        pytest.skip("no shared test data beside the checkout")
    checked = 0
    for key, expected in json.loads(table.read_text()).items():
        contract, name = key.split(".")[0], key.split(".")[1].split("(")[0].split("#")[0]
        path = next((SHARED / "data/taiko/abi").glob(f"{contract}*.abi.json"), None)
        if path is None:
            continue
        match = [e for e in load_abi(path).events if e.signature == expected["signature"]]
        assert [e.topic0 for e in match] == [expected["topic0"]], name
        assert [i.name for i in match[0].inputs if i.indexed] == expected["indexed"]
        checked += 1
    assert checked >= 30

"""The replay transport answers as a node with the recorded chain would, and moves its head by the script alone."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gapless import examples
from gapless.errors import ConfigError
from gapless.model import Cursor
from gapless.sources.evm.recording import Recording, read_recording
from gapless.sources.evm.types import FullBlock, Receipt, Verify
from gapless.sources.evm.verify import check_block, check_header_hash, check_receipts
from gapless.sources.replay import IDLE_HEADS_MAX, ReplayTransport, open_recording

EXAMPLE = examples.path()
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
ZERO = "0x" + "00" * 20


@pytest.fixture(scope="module")
def recording() -> Recording:
    return read_recording(EXAMPLE)


@pytest.fixture
def node(recording: Recording) -> ReplayTransport:
    return ReplayTransport(recording)


def post(node: ReplayTransport, document: Any) -> Any:
    answer = asyncio.run(node.post(json.dumps(document).encode(), 1.0))
    assert answer.status == 200
    return json.loads(answer.body)


def request(method: str, *params: Any, id: int | str = 1) -> dict[str, Any]:  # noqa: A002 the field's own name
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": list(params)}


def ask(node: ReplayTransport, method: str, *params: Any) -> Any:
    answer = post(node, request(method, *params))
    assert "error" not in answer, answer
    return answer["result"]


def refusal(node: ReplayTransport, method: str, *params: Any) -> int:
    return int(post(node, request(method, *params))["error"]["code"])


def fetch_tip(node: ReplayTransport) -> None:
    head = ask(node, "eth_getBlockByNumber", hex(len(node.recording.chains[node.step]) - 1), False)
    ask(node, "eth_getBlockReceipts", head["number"])


def play_to_the_end(node: ReplayTransport) -> None:
    for _ in range(len(node.recording.chains)):
        fetch_tip(node)
        ask(node, "eth_blockNumber")


# --- the recording that comes with Gapless -------------------------------------------------------------------------


def test_the_fold_of_the_recorded_transfers_is_what_the_contract_said(recording: Recording) -> None:
    """Balances folded from the final chain's Transfer logs equal the recorded `balanceOf` of every holder."""
    assert recording.truth is not None
    token = recording.title.contracts["token"]
    balances: Counter[str] = Counter()
    transfers = 0
    for block in recording.chains[-1]:
        for log in block.logs:
            if log.address == token and log.topics[0] == TRANSFER:
                value = int(json.loads(log.json)["data"], 16)
                balances["0x" + log.topics[1][-40:]] -= value
                balances["0x" + log.topics[2][-40:]] += value
                transfers += 1
    supply = -balances.pop(ZERO)
    assert balances == {holder: int(balance) for holder, balance in recording.truth.balances.items()}
    assert (transfers, supply) == (recording.truth.transfers, int(recording.truth.total_supply))


def test_the_recorded_chain_forks_above_what_was_final(recording: Recording) -> None:
    """The example shows a reorg of depth six that no final block takes part in."""
    first, second = recording.chains[0], recording.chains[1]
    shared = sum(a is b for a, b in zip(first, second, strict=False))
    assert len(first) - shared == 6
    assert len(second) > len(first)
    assert recording.title.steps[0].finalized < shared - 1


def test_every_recorded_block_proves(recording: Recording) -> None:
    """Both branches hold at the highest level of verification, so an example may ask for it."""
    for block in recording.blocks.values():
        whole = msgspec.json.decode(block.full, type=FullBlock)
        receipts = msgspec.json.decode(block.receipts, type=list[Receipt])
        check_header_hash(whole)
        check_block(whole, Verify.PROVED)
        check_receipts(whole, whole.transactions, receipts, Verify.PROVED)


def test_the_recording_is_small(recording: Recording) -> None:
    """The packaged file stays below two megabytes, and has thousands of transfers."""
    assert EXAMPLE.stat().st_size < 2_000_000
    assert recording.truth is not None
    assert recording.truth.transfers > 4_000


# --- the script ----------------------------------------------------------------------------------------------------


def test_the_head_stays_while_its_blocks_are_fetched(node: ReplayTransport) -> None:
    """However often the head is asked for during the backfill, it does not move before its tip was served."""
    for number in range(401):
        assert ask(node, "eth_blockNumber") == hex(401)
        ask(node, "eth_getBlockReceipts", hex(number))
    assert node.step == 0


def test_the_head_moves_once_its_tip_was_served(node: ReplayTransport) -> None:
    """The next look at the head after the tip's logs or receipts were served shows the other branch."""
    fetch_tip(node)
    old = ask(node, "eth_getBlockByHash", node.recording.chains[0][-1].hash, False)
    assert old["number"] == hex(401)
    assert ask(node, "eth_getBlockByNumber", "latest", False)["number"] == hex(404)
    assert ask(node, "eth_getBlockByNumber", hex(401), False)["hash"] != old["hash"]
    assert ask(node, "eth_getBlockByHash", old["hash"], False) is None, "a node forgets an orphan at once"
    assert ask(node, "eth_getBlockReceipts", old["hash"]) is None


def test_the_head_moves_when_nobody_wants_more(node: ReplayTransport) -> None:
    """An indexer that stays behind the head never fetches the tip; its idle looks at the head move the script."""
    looks = [ask(node, "eth_getBlockByNumber", "latest", False)["number"] for _ in range(IDLE_HEADS_MAX)]
    assert looks == [hex(401)] * (IDLE_HEADS_MAX - 1) + [hex(404)]


def test_a_batch_sees_one_chain(node: ReplayTransport) -> None:
    """The head does not move in the middle of a batch, and looks at other tags do not count as looks at the head."""
    fetch_tip(node)
    assert ask(node, "eth_getBlockByNumber", "finalized", False)["number"] == hex(393)
    finalized, latest = post(
        node,
        [
            request("eth_getBlockByNumber", "finalized", False, id=1),
            request("eth_getBlockByNumber", "latest", False, id=2),
        ],
    )
    assert (finalized["result"]["number"], latest["result"]["number"]) == (hex(396), hex(404))


def test_the_script_ends_at_its_last_step(node: ReplayTransport) -> None:
    """After the last step the head stands still."""
    play_to_the_end(node)
    assert {ask(node, "eth_blockNumber") for _ in range(20)} == {hex(408)}


def test_every_step_is_linked_to_block_zero(node: ReplayTransport) -> None:
    """On the final chain each block names the one before as its parent, by number and by hash alike."""
    play_to_the_end(node)
    parent = "0x" + "00" * 32
    for number in range(409):
        block = ask(node, "eth_getBlockByNumber", hex(number), False)
        assert block["parentHash"] == parent
        assert ask(node, "eth_getBlockByHash", block["hash"], False) == block
        parent = block["hash"]


def test_who_was_here_before_starts_where_it_left_off(node: ReplayTransport) -> None:
    """After `seek` the head never stands below what the indexer has; an unknown block changes nothing."""
    final = node.recording.chains[-1]
    node.seek(Cursor(408, "0x" + "ab" * 32))
    assert node.step == 0
    node.seek(Cursor(406, final[406].hash))
    assert ask(node, "eth_blockNumber") == hex(406)
    node.seek(Cursor(401, node.recording.chains[0][401].hash))
    assert ask(node, "eth_blockNumber") == hex(401)


# --- answers -------------------------------------------------------------------------------------------------------


def test_identity(node: ReplayTransport) -> None:
    """Chain id, client and an answer's id are what they were asked as."""
    assert ask(node, "eth_chainId") == "0x7a69"
    assert ask(node, "net_version") == "31337"
    assert ask(node, "eth_syncing") is False
    assert "anvil" in ask(node, "web3_clientVersion")
    assert post(node, request("eth_chainId", id="seven")) == {"jsonrpc": "2.0", "id": "seven", "result": "0x7a69"}


def test_blocks_come_with_or_without_their_transactions(node: ReplayTransport) -> None:
    """The second parameter decides between transactions and their hashes; nothing else differs."""
    full, plain = (ask(node, "eth_getBlockByNumber", "0x2", flag) for flag in (True, False))
    assert plain.pop("transactions") == [t["hash"] for t in full.pop("transactions")]
    assert full == plain


def test_receipts_by_number_hash_and_object(node: ReplayTransport) -> None:
    """eth_getBlockReceipts takes a number, a hash or an EIP-1898 object, and answers null for an unknown block."""
    block_hash = ask(node, "eth_getBlockByNumber", "0x2", False)["hash"]
    receipts = ask(node, "eth_getBlockReceipts", "0x2")
    assert len(receipts) == 9
    for name in (block_hash, {"blockHash": block_hash}, {"blockNumber": "0x2"}):
        assert ask(node, "eth_getBlockReceipts", name) == receipts
    assert ask(node, "eth_getBlockReceipts", hex(10_000)) is None
    assert ask(node, "eth_getBlockReceipts", "0x" + "12" * 32) is None


def test_single_transactions_and_receipts(node: ReplayTransport) -> None:
    """A transaction and its receipt are found by hash; unknown ones are null."""
    receipt = ask(node, "eth_getBlockReceipts", "0x2")[3]
    transaction = ask(node, "eth_getBlockByNumber", "0x2", True)["transactions"][3]
    assert ask(node, "eth_getTransactionReceipt", receipt["transactionHash"]) == receipt
    assert ask(node, "eth_getTransactionByHash", receipt["transactionHash"]) == transaction
    assert ask(node, "eth_getTransactionReceipt", "0x" + "12" * 32) is None


def brute_force(node: ReplayTransport, first: int, last: int, keep: Any) -> list[dict[str, Any]]:
    logs = []
    for number in range(first, last + 1):
        logs += [log for r in ask(node, "eth_getBlockReceipts", hex(number)) for log in r["logs"]]
    return [log for log in logs if keep(log)]


def test_logs_by_range_address_and_topics(node: ReplayTransport) -> None:
    """Each kind of filter answers exactly the logs that a look at every receipt finds, in order."""
    contracts = node.recording.title.contracts
    token, decoy = contracts["token"], contracts["decoy"]
    holder = "0x" + ask(node, "eth_getBlockReceipts", "0x5")[0]["logs"][0]["topics"][2][2:]
    cases: list[tuple[dict[str, Any], Any]] = [
        ({}, lambda log: True),
        ({"address": token.upper().replace("0X", "0x")}, lambda log: log["address"].lower() == token),
        ({"address": [token, decoy]}, lambda log: log["address"].lower() in (token, decoy)),
        ({"topics": [TRANSFER]}, lambda log: log["topics"][:1] == [TRANSFER]),
        ({"topics": [None, None, holder]}, lambda log: log["topics"][2:3] == [holder]),
        (
            {"address": token, "topics": [[TRANSFER, holder], None, [holder, TRANSFER]]},
            lambda log: log["address"].lower() == token and log["topics"][::2] == [TRANSFER, holder],
        ),
        ({"topics": [[TRANSFER]] * 4}, lambda log: False),
        ({"address": []}, lambda log: False),
    ]
    for extra, keep in cases:
        found = ask(node, "eth_getLogs", {"fromBlock": "0x3", "toBlock": "0x50", **extra})
        assert found == brute_force(node, 3, 0x50, keep), extra
    assert len(ask(node, "eth_getLogs", {"fromBlock": "earliest", "toBlock": "latest"})) > 4_000


def test_logs_of_one_block_by_hash(node: ReplayTransport) -> None:
    """A block hash names one block; an unknown or orphaned one is refused, not answered as empty."""
    block_hash = ask(node, "eth_getBlockByNumber", "0x5", False)["hash"]
    assert ask(node, "eth_getLogs", {"blockHash": block_hash}) == brute_force(node, 5, 5, lambda log: True)
    assert refusal(node, "eth_getLogs", {"blockHash": "0x" + "12" * 32}) == -32000


def test_ranges_beyond_the_head(node: ReplayTransport) -> None:
    """A range that starts beyond the head is refused, one that reaches there is cut, a backward one is empty."""
    assert refusal(node, "eth_getLogs", {"fromBlock": hex(900), "toBlock": hex(999)}) == -32602
    cut, whole = (ask(node, "eth_getLogs", {"fromBlock": "0x180", "toBlock": last}) for last in (hex(999), hex(401)))
    assert cut == whole != []
    assert ask(node, "eth_getLogs", {"fromBlock": "0x9", "toBlock": "0x5"}) == []
    assert ask(node, "eth_getBlockByNumber", hex(900), False) is None


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (b"<html>", -32700),
        (b'{"id":1,"method":7}', -32700),
        (b"[]", -32600),
        (b'{"id":1,"method":"eth_call","params":[]}', -32601),
        (b'{"id":1,"method":"eth_getBlockByNumber","params":[]}', -32602),
        (b'{"id":1,"method":"eth_getBlockByNumber","params":["five",false]}', -32602),
        (b'{"id":1,"method":"eth_getLogs","params":[7]}', -32602),
        (b'{"id":1,"method":"eth_getBlockReceipts","params":[{}]}', -32602),
    ],
)
def test_what_a_node_would_refuse_is_refused(node: ReplayTransport, document: bytes, code: int) -> None:
    """Nonsense gets a JSON-RPC error and never an exception."""
    answer = json.loads(asyncio.run(node.post(document, 1.0)).body)
    assert answer["error"]["code"] == code


def test_one_refused_call_leaves_the_rest_of_its_batch(node: ReplayTransport) -> None:
    """A batch answers every call, in order, refused or not."""
    answers = post(node, [request("eth_chainId", id=1), request("eth_nothing", id=2), request("eth_chainId", id=3)])
    assert [answer["id"] for answer in answers] == [1, 2, 3]
    assert [("error" in answer) for answer in answers] == [False, True, False]


# --- files that are not recordings ---------------------------------------------------------------------------------


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


TITLE: dict[str, Any] = {
    "recording": 1,
    "kind": "evm",
    "chain_id": 5,
    "steps": [{"head": "0x1", "safe": 0, "finalized": 0}],
}
GENESIS: dict[str, Any] = {
    "block": {"number": "0x0", "hash": "0x1", "parentHash": "0x0", "transactions": []},
    "receipts": [],
}


def test_a_recording_may_be_plain_text(tmp_path: Path) -> None:
    """A recording written by hand needs no compression."""
    node = open_recording(write(tmp_path / "small.jsonl", TITLE, GENESIS))
    assert ask(node, "eth_chainId") == "0x5"
    assert ask(node, "eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"}) == []
    assert node.label == "replay:small.jsonl"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "not a recording"),
        (["hello"], "not a recording"),
        ([{**TITLE, "recording": 2}, GENESIS], "form 2"),
        ([{**TITLE, "kind": "atproto"}, GENESIS], "atproto"),
        ([{**TITLE, "steps": []}, GENESIS], "no steps"),
        ([TITLE], "lacks block 0x1 at the head"),
        ([TITLE, {**GENESIS, "receipts": None}], "Line 2"),
        ([TITLE, {"block": {"number": "zero", "hash": "0x1", "parentHash": "0x0"}, "receipts": []}], "Line 2"),
        (
            [TITLE, {"block": {"number": "0x7", "hash": "0x1", "parentHash": "0x0"}, "receipts": []}],
            "lacks block 0x0 below block 7",
        ),
    ],
)
def test_a_damaged_recording_is_refused(tmp_path: Path, lines: list[Any], reason: str) -> None:
    """Every way a recording can be wrong is a ConfigError that says what is wrong and what to do."""
    with pytest.raises(ConfigError, match=reason) as caught:
        open_recording(write(tmp_path / "bad.jsonl", *lines))
    assert caught.value.todo


def test_a_missing_or_truncated_file_is_refused(tmp_path: Path) -> None:
    """No file, a folder, a compressed file cut short, and bytes flipped within it."""
    whole = EXAMPLE.read_bytes()
    (tmp_path / "cut.gz").write_bytes(whole[:-1000])
    (tmp_path / "flipped.gz").write_bytes(whole[:5000] + bytes(100) + whole[5100:])
    (tmp_path / "noise.gz").write_bytes(gzip.compress(b"\xff\xfe\n"))
    for name in ("missing.gz", "", "cut.gz", "flipped.gz", "noise.gz"):
        with pytest.raises(ConfigError):
            open_recording(tmp_path / name)

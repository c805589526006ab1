"""RLP, from bytes and from hex text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.sources.evm import rlp


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (b"", "80"),
        (b"\x00", "00"),
        (b"\x7f", "7f"),
        (b"\x80", "8180"),
        (b"dog", "83646f67"),
        (b"a" * 55, "b7" + "61" * 55),
        (b"a" * 56, "b838" + "61" * 56),
        (b"a" * 255, "b8ff" + "61" * 255),
        (b"a" * 256, "b90100" + "61" * 256),
        (b"a" * 1023, "b903ff" + "61" * 1023),
        (b"a" * 1024, "b90400" + "61" * 1024),
        (b"a" * 65536, "ba010000" + "61" * 65536),
    ],
)
def test_strings_encode_as_in_the_yellow_paper(value: bytes, encoded: str) -> None:
    """Bytes, and the same as hex text, encode by length: itself, short, long."""
    assert rlp.encode_bytes(value).hex() == encoded
    assert rlp.data_text("0x" + value.hex()) == encoded


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "80"), (1, "01"), (15, "0f"), (127, "7f"), (128, "8180"), (1024, "820400"), (2**256 - 1, "a0" + "ff" * 32)],
)
def test_integers_have_no_leading_zeros(value: int, encoded: str) -> None:
    """An integer is its shortest big-endian bytes; zero is the empty string; padded text means the same number."""
    assert rlp.encode_int(value).hex() == encoded
    assert rlp.quantity_text(hex(value)) == encoded
    assert rlp.quantity_text(f"0x000{value:x}") == encoded


def test_lists_encode_as_in_the_yellow_paper() -> None:
    """A list is its encoded items behind their length."""
    cat, dog = rlp.encode_bytes(b"cat"), rlp.encode_bytes(b"dog")
    assert rlp.encode_list([]).hex() == rlp.list_text("") == rlp.EMPTY_LIST_TEXT == "c0"
    assert rlp.encode_list([cat, dog]).hex() == rlp.list_text((cat + dog).hex()) == "c88363617483646f67"
    assert rlp.encode_list([cat] * 14).hex() == "f838" + "83636174" * 14
    assert rlp.encode_list([dog] * 300).hex() == rlp.list_text(dog.hex() * 300) == "f904b0" + "83646f67" * 300


@given(st.integers(0, 2**256), st.binary(max_size=1200))
def test_text_and_bytes_agree(number: int, data: bytes) -> None:
    """Both forms of the encoding are one encoding."""
    assert rlp.quantity_text(hex(number)) == rlp.encode_int(number).hex()
    assert rlp.data_text("0x" + data.hex()) == rlp.encode_bytes(data).hex()
    assert rlp.list_text(data.hex()) == (rlp.list_prefix(len(data)) + data).hex()


@pytest.mark.parametrize("text", ["", "12", "1x12", " 0x12", "x0"])
def test_text_starts_with_0x(text: str) -> None:
    """Text without its `0x` is refused, whatever it is to be."""
    for encode in (rlp.quantity_text, rlp.data_text, rlp.address_text, rlp.hash_text):
        with pytest.raises(ValueError, match="0x"):
            encode(text)


def test_lengths_are_exact() -> None:
    """Half bytes, and addresses and hashes of any other length, are refused: they could shift into their neighbours."""
    assert rlp.address_text("0x" + "ab" * 20) == "94" + "ab" * 20
    assert rlp.hash_text("0x" + "ab" * 32) == "a0" + "ab" * 32
    for size in (0, 19, 21, 32):
        with pytest.raises(ValueError, match="address"):
            rlp.address_text("0x" + "ab" * size)
    for size in (0, 20, 31, 33):
        with pytest.raises(ValueError, match="hash"):
            rlp.hash_text("0x" + "ab" * size)
    with pytest.raises(ValueError, match="whole bytes"):
        rlp.data_text("0xabc")

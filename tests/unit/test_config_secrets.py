"""What must never be shown."""

from __future__ import annotations

import pytest

from gapless.config.secrets import redact, redact_text, redact_url

KEY = "9aa3d95b3bc440fa88ea12eaa4456161"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hunter2@db:5432/erc20?sslmode=require", "postgresql://me:***@db:5432/erc20?sslmode=require"),
        ("postgresql://me@db/erc20", "postgresql://***@db/erc20"),
        (f"https://mainnet.infura.io/v3/{KEY}", "https://mainnet.infura.io/v3/***"),
        (f"wss://eth.example/ws?apikey={KEY}&x=1", "wss://eth.example/ws?apikey=***&x=1"),
        ("https://eth.example/rpc?token=short", "https://eth.example/rpc?token=***"),
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("https://eth.example/ethereum/mainnet", "https://eth.example/ethereum/mainnet"),
        ("http://a:p@ss@host/x", "http://a:***@host/x"),
    ],
)
def test_url(url: str, shown: str) -> None:
    """Passwords, token-like path segments and secret query values go; what names the endpoint stays."""
    assert redact_url(url) == shown


def test_text() -> None:
    """URLs inside the error texts of libraries are redacted too."""
    text = redact_text(f"cannot connect to https://node/v3/{KEY}: refused; then postgresql://me:pw@db/x failed")
    assert text == "cannot connect to https://node/v3/***: refused; then postgresql://me:***@db/x failed"
    assert redact_text("0x" + "ab" * 32) == "0x" + "ab" * 32


def test_data() -> None:
    """In nested data, fields named for a secret are hidden whatever they hold; hashes and numbers stay."""
    data = {"api_key": "abc", "nested": [{"password": "x", "hash": "0xab"}], "rpc": [f"http://n/{KEY}"], "n": 7}
    assert redact(data) == {
        "api_key": "***",
        "nested": [{"password": "***", "hash": "0xab"}],
        "rpc": ["http://n/***"],
        "n": 7,
    }

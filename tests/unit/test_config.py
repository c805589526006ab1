"""From TOML and environment to one frozen tree."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydantic
import pytest

from gapless import config
from gapless.errors import ConfigError
from gapless.model import Finality, FinalityRule

MINIMAL = """
[app]
name = "erc20"

[sources.mainnet]
kind = "evm"
rpc = ["http://127.0.0.1:8545"]

[contracts.token]
abi = "erc20"
"""


def load(folder: Path, text: str, **environment: str) -> config.Config:
    file = folder / "gapless.toml"
    file.write_text(text)
    return config.load(file, environment)


def refused(folder: Path, text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environment)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_minimal(tmp_path: Path) -> None:
    """Nine lines are a whole configuration: the rest has defaults, and the database lies beside the file."""
    found = load(tmp_path, MINIMAL)
    source = found.sources["mainnet"]
    assert isinstance(source, config.EvmSource)
    assert source.rpc == ("http://127.0.0.1:8545",)
    assert (source.start, source.end, source.verify, source.audit) == (0, None, "checked", 0.01)
    assert source.finality == Finality(FinalityRule.TAG, "finalized")
    assert found.store.url == f"sqlite:///{tmp_path}/erc20.db"
    assert (found.store.pool_max, found.store.idle_timeout_seconds) == (20, 30)
    assert (found.store.connect_timeout_seconds, found.store.statement_timeout_seconds) == (5, 30)
    assert found.journal.url == "memory:"
    assert found.contracts["token"].source == "mainnet"
    assert found.contracts["token"].address is None
    assert found.path == tmp_path / "gapless.toml"


def test_everything(tmp_path: Path) -> None:
    """The example of the interface page is accepted word for word, with every quantity parsed."""
    (tmp_path / "abi.json").write_text("[]")
    found = load(
        tmp_path,
        """
        [app]
        name = "erc20"
        [store]
        url = "postgresql://me:pw@db/erc20?sslmode=require"
        [journal]
        url = "memory:"
        [sources.mainnet]
        kind = "evm"
        rpc = ["http://127.0.0.1:8545", "ws://127.0.0.1:8546"]
        start = 2026-11-22
        end = 1_000_000
        finality = "15 minutes"
        confirmations = 3
        verify = "proved"
        audit = "100%"
        datasets = ["blocks", "transactions", "logs"]
        timeout = "5 seconds"
        answer_max = "64 MB"
        chain_id = 1
        [sources.mainnet.hashing]
        bloom = false
        [contracts.token]
        source = "mainnet"
        abi = "abi.json"
        address = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"
        events = ["Transfer"]
        [contracts.both]
        abi = "erc721"
        address = ["0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", "0x0000000000000000000000000000000000000001"]
        events = "Transfer"
        """,
    )
    source = found.sources["mainnet"]
    assert isinstance(source, config.EvmSource)
    assert source.start == datetime(2026, 11, 22, tzinfo=UTC)
    assert source.finality == Finality(FinalityRule.AGE, 900.0)
    assert (source.end, source.audit, source.timeout_seconds, source.answer_max_bytes) == (10**6, 1.0, 5.0, 64_000_000)
    assert source.hashing.headers
    assert not source.hashing.bloom
    assert found.contracts["token"].address == ("0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",)
    assert found.contracts["token"].abi == str(tmp_path / "abi.json")
    assert found.contracts["both"].events == ("Transfer",)
    assert len(found.contracts["both"].address or ()) == 2


def test_frozen(tmp_path: Path) -> None:
    """Nothing can change a configuration after it was read."""
    found = load(tmp_path, MINIMAL)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        found.lease.ttl_seconds = 1  # type: ignore[misc]


def test_replay(tmp_path: Path) -> None:
    """A recording is found beside the configuration file, from any working directory."""
    (tmp_path / "chain.jsonl.gz").write_bytes(b"")
    found = load(
        tmp_path, '[app]\nname = "a"\n[sources.demo]\nkind = "replay"\nfile = "chain.jsonl.gz"\nfinality = "12 blocks"'
    )
    source = found.sources["demo"]
    assert isinstance(source, config.ReplaySource)
    assert source.file == str(tmp_path / "chain.jsonl.gz")
    assert source.finality == Finality(FinalityRule.DEPTH, 12)


def test_python(tmp_path: Path) -> None:
    """An app declared in Python builds the same tree from plain data, and its data is left as it was."""
    values: dict[str, Any] = {"app": {"name": "a"}, "sources": {"m": {"kind": "evm", "rpc": "http://a"}}}
    found = config.parse(values, base=tmp_path)
    assert found.store.url == f"sqlite:///{tmp_path}/a.db"
    assert found.origins["app.name"] == "python"
    by_value = config.parse({**values, "contracts": {"c": {"abi": "python"}}}, base=tmp_path)
    assert by_value.contracts["c"].abi == "python"
    assert values == {"app": {"name": "a"}, "sources": {"m": {"kind": "evm", "rpc": "http://a"}}}


# --- environment ---------------------------------------------------------------------------------------------------


def test_override(tmp_path: Path) -> None:
    """`GAPLESS_SECTION__KEY` wins over the file; lists are JSON or separated by commas; types are the key's own."""
    found = load(
        tmp_path,
        MINIMAL,
        GAPLESS_STORE__URL="postgres://db/x",
        GAPLESS_SOURCES__MAINNET__RPC="http://a:1, http://b:2",
        GAPLESS_SOURCES__MAINNET__END="1_000",
        GAPLESS_SOURCES__MAINNET__HASHING__BLOOM="false",
        GAPLESS_SOURCES__MAINNET__DATASETS='["blocks"]',
        GAPLESS_SOURCES__MAINNET__START="2026-11-22",
        GAPLESS_CONTRACTS__TOKEN__ADDRESS="0x" + "ab" * 20,
        GAPLESS_TELEMETRY__LISTEN=":0",
        GAPLESS_DEBUG="1",
        HOME="/home/me",
    )
    source = found.sources["mainnet"]
    assert isinstance(source, config.EvmSource)
    assert source.rpc == ("http://a:1", "http://b:2")
    assert (source.end, source.hashing.bloom, source.datasets) == (1000, False, ("blocks",))
    assert source.start == datetime(2026, 11, 22, tzinfo=UTC)
    assert found.store.url == "postgresql://db/x"
    assert found.contracts["token"].address == ("0x" + "ab" * 20,)


def test_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container needs no file: every key can come from the environment."""
    monkeypatch.chdir(tmp_path)
    found = config.load(
        None,
        {
            "GAPLESS_APP__NAME": "erc20",
            "GAPLESS_SOURCES__MAINNET__KIND": "evm",
            "GAPLESS_SOURCES__MAINNET__RPC": "http://a",
            "GAPLESS_CONTRACTS__TOKEN__ABI": "erc20",
        },
    )
    assert found.contracts["token"].source == "mainnet"
    assert found.origins["app.name"] == "environment GAPLESS_APP__NAME"


def test_interpolation(tmp_path: Path) -> None:
    """`${VAR}` takes the environment's value, `${VAR:-x}` falls back, `$${` is literal."""
    text = MINIMAL.replace("http://127.0.0.1:8545", "http://${NODE}:${PORT:-8545}/$${x}")
    source = load(tmp_path, text, NODE="node").sources["mainnet"]
    assert isinstance(source, config.EvmSource)
    assert source.rpc == ("http://node:8545/${x}",)


def test_interpolation_unset(tmp_path: Path) -> None:
    """An unset variable is named once, with its key and line, and not reported again as a bad value."""
    said = refused(tmp_path, MINIMAL.replace("http://127.0.0.1:8545", "${NODE_URL}"))
    assert "line 7: sources.mainnet.rpc: needs the environment variable NODE_URL, which is not set" in said
    assert "endpoint URL" not in said


def test_secret_files(tmp_path: Path) -> None:
    """`url_file` and `rpc_file` are read from the file, and the environment's key wins over both."""
    (tmp_path / "url").write_text("postgresql://me:secret@db/x\n")
    (tmp_path / "rpc").write_text("http://a:1\nhttp://b:2\n")
    text = MINIMAL.replace('rpc = ["http://127.0.0.1:8545"]', 'rpc_file = "rpc"') + '[store]\nurl_file = "url"'
    found = load(tmp_path, text)
    source = found.sources["mainnet"]
    assert isinstance(source, config.EvmSource)
    assert source.rpc == ("http://a:1", "http://b:2")
    assert found.store.url == "postgresql://me:secret@db/x"
    assert found.origins["store.url"] == "file url"
    assert load(tmp_path, text, GAPLESS_STORE__URL="postgresql://other/y").store.url == "postgresql://other/y"
    by_environment = MINIMAL + '[store]\nurl = "sqlite:///x.db"'
    assert load(tmp_path, by_environment, GAPLESS_STORE__URL_FILE="url").store.url == "postgresql://me:secret@db/x"


def test_secret_files_refused(tmp_path: Path) -> None:
    """A missing, empty or doubled secret file is named by its key."""
    (tmp_path / "empty").write_text("\n")
    assert "store.url_file" in refused(tmp_path, MINIMAL + '[store]\nurl_file = "nowhere"')
    assert "is empty" in refused(tmp_path, MINIMAL + '[store]\nurl_file = "empty"')
    assert "both set" in refused(tmp_path, MINIMAL + '[store]\nurl = "sqlite:///a.db"\nurl_file = "empty"')


def test_origins(tmp_path: Path) -> None:
    """Every key that was set knows where its value comes from; the others have defaults."""
    origins = load(tmp_path, MINIMAL, GAPLESS_LEASE__TTL="5 seconds").origins
    assert origins["app.name"] == "file"
    assert origins["lease.ttl"] == "environment GAPLESS_LEASE__TTL"
    assert "limits.inflight_segments_max" not in origins


def test_dump_round_trip(tmp_path: Path) -> None:
    """The tree prints itself in the file's own words, and reads back the same."""
    found = load(tmp_path, MINIMAL)
    values = found.model_dump(mode="json", exclude_none=True)
    assert values["lease"] == {"ttl": "15 seconds"}
    assert config.parse(values, base=tmp_path).model_dump() == found.model_dump()

"""Bad configurations: each is refused with file, line, key and what to write instead, all problems at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gapless import config
from gapless.errors import ConfigError

SOURCE = '[sources.mainnet]\nkind = "evm"\nrpc = "http://a"\n'
APP = '[app]\nname = "erc20"\n'
TOKEN = '[contracts.token]\nabi = "erc20"\n'
GOOD = APP + SOURCE + TOKEN


def refused(folder: Path, text: str | bytes, **environment: str) -> str:
    file = folder / "gapless.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(file, environment)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD + '[store]\nurll = "x"', ["line 9", "store.urll", "perhaps you mean 'url'"]),
        (GOOD + '[stroe]\nurl = "x"', ["line 8", "stroe", "perhaps you mean 'store'"]),
        (GOOD + 'eventz = ["Transfer"]', ["line 8", "contracts.token.eventz", "'events'"]),
        (GOOD.replace("rpc =", "rcp ="), ["line 5", "sources.mainnet.rcp", "'rpc'", "sources.mainnet.rpc: is missing"]),
        (APP + SOURCE + "[sources.mainnet.hashing]\nblom = true", ["sources.mainnet.hashing.blom", "'bloom'"]),
        (SOURCE, ["app: is missing"]),
        (APP, ["sources: is missing", "[sources.NAME]"]),
        (GOOD.replace('"evm"', '"emv"'), ["line 4", "'emv' is not a kind of source", "'evm'"]),
        (GOOD.replace('kind = "evm"\n', ""), ["sources.mainnet.kind: is missing", "evm, replay"]),
        (GOOD.replace('"evm"', '"cometbft"'), ["'cometbft' comes in a later release"]),
        (GOOD + 'source = "mainet"', ["contracts.token.source", "'mainet' is not a source", "'mainnet'"]),
        (GOOD + SOURCE.replace("mainnet", "other"), ["contracts.token.source: is missing", "mainnet, other"]),
        (GOOD.replace('"erc20"\n[s', '"ERC20"\n[s'), ["line 2", "app.name", "'ERC20' cannot be a name", "lower-case"]),
        (GOOD.replace('"erc20"\n[s', '"a__b"\n[s'), ["'a__b' cannot be a name"]),
        (GOOD.replace('"erc20"\n[s', f'"{"a" * 41}"\n[s'), ["41 characters; at most 40"]),
        (GOOD.replace('"erc20"\n[s', '"pg_x"\n[s'), ["'pg_x' is reserved"]),
        (GOOD.replace("mainnet", "Main-net"), ["line 3", "'Main-net' cannot be a name"]),
        (GOOD + 'address = "0xA0b8"', ["line 8", "'0xA0b8' is not an address", "40 hex digits"]),
        (GOOD + 'address = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB47"', ["wrong checksum (EIP-55)"]),
        (GOOD + "address = []", ["contracts.token.address", "is empty"]),
        (GOOD.replace('abi = "erc20"', 'abi = "erc02"'), ["neither a built-in ABI", "'erc20'"]),
        (GOOD.replace('abi = "erc20"', 'abi = "my/abi.json"'), ["line 7", "there is no file", "my/abi.json"]),
        (
            GOOD.replace('"http://a"', '"localhost:8545"'),
            ["'localhost:8545' is not an endpoint URL", "http://host:port"],
        ),
        (GOOD.replace('"http://a"', "7"), ["sources.mainnet.rpc", "7 is not a list"]),
        (GOOD.replace('"http://a"', "[]"), ["sources.mainnet.rpc", "is empty"]),
        (GOOD.replace('"http://a"', '"ws://a"'), ["sources.mainnet.rpc", "WebSocket endpoints only", "http://"]),
        (GOOD.replace('"http://a"', '["http://a", "http://a"]'), ["names http://a twice"]),
        (APP + SOURCE + "start = -1", ["-1 is neither a position"]),
        (APP + SOURCE + 'end = "7"', ["'7' is not a whole number"]),
        (APP + SOURCE + "end = 1.5", ["1.5 is not a whole number"]),
        (APP + SOURCE + "start = 10\nend = 9", ["sources.mainnet.end", "9 lies before start, 10"]),
        (APP + SOURCE + 'verify = "full"', ["'full' is not one of", "'proved'"]),
        (APP + SOURCE + 'finality = "12"', ["is not a finality rule", "12 blocks"]),
        (APP + SOURCE + "timeout = 30", ["line 6", "30 is not a duration", "30 seconds"]),
        (APP + SOURCE + 'poll = "0 seconds"', ["is too small"]),
        (APP + SOURCE + 'audit = "200%"', ["'200%' is not a share"]),
        (APP + SOURCE + 'datasets = ["trace"]', ["'trace' is not one of", "'logs'"]),
        (APP + SOURCE + 'hashing = "yes"', ["sources.mainnet.hashing", "'yes' is not a table of keys"]),
        (GOOD + '[store]\nurl = "mysql://x/y"', ["line 9", "is not a database URL", "postgresql://"]),
        (GOOD + '[store]\nurl = "clickhouse://x/y"', ["later release"]),
        (GOOD + '[store]\nurl = "sqlite:///"', ["names no file"]),
        (GOOD + '[journal]\nurl = "nats://x"', ["nats journals come in a later release"]),
        (GOOD + '[telemetry]\nlisten = "9464"', ["is not an address to listen on", "127.0.0.1:9464"]),
        (GOOD + '[telemetry]\nlisten = "a:70000"', ["is not an address to listen on"]),
        (GOOD + "[limits]\ninflight_segments_max = 0", ["0 is too small", "at least 1"]),
        (GOOD + "[limits]\ninflight_segments_max = true", ["True is not a whole number"]),
        ("app = 3\n" + SOURCE, ["line 1", "app", "3 is not a table of keys"]),
        ("sources = 3\n" + APP, ["sources", "3 is not a table of tables"]),
    ],
)
def test_refused(tmp_path: Path, text: str, parts: list[str]) -> None:
    """The message says where, what, and what to write."""
    said = refused(tmp_path, text)
    for part in ["gapless.toml", "gapless config check", *parts]:
        assert part in said
    assert "Traceback" not in said
    assert "pydantic" not in said


def test_all_at_once(tmp_path: Path) -> None:
    """Every problem is named in one go, in the order of the file."""
    said = refused(tmp_path, GOOD + 'x = 1\n[store]\nurll = "x"\n[lease]\nttl = 5', GAPLESS_LIMITS__MEMORY_MAX="12")
    assert "has 4 problems" in said
    places = [said.index(part) for part in ("line 8", "line 10", "line 12", "environment GAPLESS_LIMITS__MEMORY_MAX")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[app\nname = 1", "line 1"),
        ("[app]\nname = \n", "line 2, column 8"),
        ('[app]\nname = "a"\nname = "b"\n', "line 3"),
        ("[app]\nname = 'a", "not valid TOML"),
    ],
)
def test_syntax(tmp_path: Path, text: str, place: str) -> None:
    """A syntax error is named by its line."""
    said = refused(tmp_path, text)
    assert "gapless.toml" in said
    assert place in said
    assert "not valid TOML" in said


def test_unreadable(tmp_path: Path) -> None:
    """A missing file, a folder and a binary file each have their own words."""
    with pytest.raises(ConfigError, match=r"There is no configuration at .*`gapless init`"):
        config.load(tmp_path / "nowhere.toml", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path, {})
    assert "not UTF-8" in refused(tmp_path, b"\xff\xfe")


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"GAPLESS_STROE__URL": "x"}, ["environment GAPLESS_STROE__URL", "stroe", "'store'"]),
        ({"GAPLESS_LEASE__TTL": "5"}, ["environment GAPLESS_LEASE__TTL", "lease.ttl", "is not a duration"]),
        ({"GAPLESS_SOURCES__MAINNET__SPAN_MAX": "many"}, ["'many' is not a whole number"]),
        ({"GAPLESS_SOURCES__MAINNET__RPC": '["http://a"'}, ["is not a JSON list"]),
        ({"GAPLESS_APP__NAME__X": "1"}, ["lies inside a key that is not a table"]),
    ],
)
def test_environment(tmp_path: Path, environment: dict[str, str], parts: list[str]) -> None:
    """A bad variable is named itself, not the file."""
    said = refused(tmp_path, GOOD, **environment)
    for part in parts:
        assert part in said


def test_secrets_stay_secret(tmp_path: Path) -> None:
    """A refused URL is shown without its password or key."""
    key = "9aa3d95b3bc440fa88ea12eaa4456161"
    said = refused(tmp_path, GOOD.replace('"http://a"', f'"https://me:hunter2@node/v3/{key} x"'))
    assert "is not an endpoint URL" in said
    assert key not in said
    assert "hunter2" not in said

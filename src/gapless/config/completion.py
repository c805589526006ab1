"""What follows from the rest: secrets read from files, absolute paths, defaults that depend on other keys, references.

Relative paths are relative to the configuration file, so that a command means the same from any directory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gapless.config.fields import BUILTIN_ABIS, LATER_SOURCE_KINDS, PYTHON_ABI, SOURCE_KINDS
from gapless.config.keys import FILE_KEYS, Path_
from gapless.config.problems import suggestion
from gapless.config.reading import FILE, PYTHON, Reading
from gapless.config.secrets import redact_url

_SECRET_BYTES_MAX = 65_536


def read_secrets(reading: Reading) -> None:
    """Replace `url_file` and `rpc_file` by what the file holds; a key from the environment wins over one from TOML."""
    for pattern, name in FILE_KEYS.items():
        for table, prefix in reading.tables(pattern[:-1]):
            key, target = (*prefix, pattern[-1]), (*prefix, name)
            if pattern[-1] not in table:
                continue
            file = table.pop(pattern[-1])
            if name in table and _from_file(reading, key) == _from_file(reading, target):
                reading.refuse(key, f"and {name} are both set; keep one")
            elif name not in table or _from_file(reading, target):
                _read_secret(reading, table, target, key, file)


def _from_file(reading: Reading, key: Path_) -> bool:
    return reading.origins.get(key, FILE) == FILE


def _read_secret(reading: Reading, table: dict[str, Any], target: Path_, key: Path_, file: Any) -> None:
    if not isinstance(file, str):
        reading.refuse(key, f"{file!r} is not the path of a file")
        return
    path = reading.base / file
    try:
        with path.open("rb") as stream:
            text = stream.read(_SECRET_BYTES_MAX).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        reading.refuse(key, f"{path} cannot be read: {said}")
        return
    if not text:
        reading.refuse(key, f"{path} is empty")
        return
    reading.origins[target] = f"file {file}"
    table[target[-1]] = text.split() if target[-1] == "rpc" else text


def complete(reading: Reading) -> None:
    """Fill in what is left out and follows from the rest; refuse what refers to nothing."""
    _complete_store(reading)
    sources = reading.raw.get("sources", {})
    if sources == {}:
        reading.raw.pop("sources", None)
        reading.refuse(("sources",), "is missing; add a table [sources.NAME] with kind and rpc")
    for table, key in reading.tables(("sources", "*")):
        _complete_source(reading, table, key)
    for table, key in reading.tables(("contracts", "*")):
        _complete_contract(reading, table, key, sources if isinstance(sources, Mapping) else {})


def _complete_store(reading: Reading) -> None:
    app = reading.raw.get("app")
    name = app.get("name") if isinstance(app, dict) else None
    store = reading.raw.setdefault("store", {})
    if not isinstance(store, dict):
        return
    store.setdefault("url", f"sqlite:///{name if isinstance(name, str) else 'gapless'}.db")
    url = store["url"]
    if isinstance(url, str) and re.match(r"sqlite:///[^/]", url):
        store["url"] = f"sqlite:///{reading.base / url.removeprefix('sqlite:///')}"


def _complete_source(reading: Reading, table: dict[str, Any], key: Path_) -> None:
    kind = table.get("kind")
    known = ", ".join(SOURCE_KINDS)
    if kind in LATER_SOURCE_KINDS:
        reading.refuse((*key, "kind"), f"{kind!r} comes in a later release; this one follows: {known}")
    elif kind is None:
        reading.refuse((*key, "kind"), f"is missing; write one of: {known}")
    elif kind not in SOURCE_KINDS:
        reading.refuse((*key, "kind"), f"{kind!r} is not a kind of source{suggestion(str(kind), SOURCE_KINDS)}")
    _check_endpoints(reading, table.get("rpc"), (*key, "rpc"))
    start, end = table.get("start"), table.get("end")
    if isinstance(start, int) and isinstance(end, int) and end < start:
        reading.refuse((*key, "end"), f"{end} lies before start, {start}")
    file = table.get("file")
    if isinstance(file, str) and file:
        table["file"] = _existing(reading, (*key, "file"), file)


def _check_endpoints(reading: Reading, rpc: Any, key: Path_) -> None:
    urls = [url for url in rpc if isinstance(url, str)] if isinstance(rpc, list) else [rpc]
    doubled = sorted({url for url in urls if isinstance(url, str) and urls.count(url) > 1})
    if doubled:
        reading.refuse(key, f"names {redact_url(doubled[0])} twice; keep one")
    if urls and all(isinstance(url, str) and url.startswith(("ws://", "wss://")) for url in urls):
        reading.refuse(key, "has WebSocket endpoints only, which give hints; add one with http:// or https://")


def _complete_contract(reading: Reading, table: dict[str, Any], key: Path_, sources: Mapping[str, Any]) -> None:
    source = table.get("source")
    if source is None and len(sources) == 1:
        table["source"] = next(iter(sources))
    elif source is None:
        reading.refuse((*key, "source"), f"is missing; write one of: {', '.join(sorted(sources))}")
    elif isinstance(source, str) and source not in sources:
        reading.refuse((*key, "source"), f"{source!r} is not a source{suggestion(source, sources)}")
    abi = table.get("abi")
    if not isinstance(abi, str) or not abi or abi in BUILTIN_ABIS:
        return
    if abi == PYTHON_ABI and reading.origins.get((*key, "abi")) == PYTHON:
        return
    if "/" in abi or abi.endswith(".json"):
        table["abi"] = _existing(reading, (*key, "abi"), abi)
    else:
        near = suggestion(abi, BUILTIN_ABIS)
        reading.refuse((*key, "abi"), f"{abi!r} is neither a built-in ABI nor the path of a .json file{near}")


def _existing(reading: Reading, key: Path_, file: str) -> str:
    path = reading.base / file
    if not path.is_file():
        reading.refuse(key, f"there is no file {path}")
    return str(path)

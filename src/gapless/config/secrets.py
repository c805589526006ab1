"""What must never be shown: passwords, tokens and keys inside URLs, and fields named for a secret.

RPC providers put the API key into the path (`/v3/9aa3d95b…`) or the query, databases put the password before the
host. Redaction is by shape, so it also works on URLs inside error texts of libraries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"

_URL = re.compile(
    r"\b(?:https?|wss?|postgres(?:ql)?|rediss?|nats|tls|clickhouses?)://[^\s'\"<>\\]*[^\s'\"<>\\.,:;)\]}]",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"^([a-z+]+://)([^/?#]*)@", re.IGNORECASE)
_TOKEN = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9_\-]{16,}")
_SECRET_NAME = re.compile(
    r"(?:^|[_\-.])(?:key|apikey|token|secret|password|passwd|pwd|auth|authorization|signature)$", re.IGNORECASE
)


def redact_url(url: str) -> str:
    """The URL without password, without token-like path segments and without secret-looking query values."""
    hidden = _USERINFO.sub(lambda m: m[1] + (m[2].split(":")[0] + f":{HIDDEN}" if ":" in m[2] else HIDDEN) + "@", url)
    head, mark, query = hidden.partition("?")
    scheme, slashes, rest = head.partition("://")
    host, *segments = rest.split("/")
    path = "/".join([host, *(HIDDEN if _TOKEN.fullmatch(s) else s for s in segments)])
    pairs = [_redact_pair(pair) for pair in query.split("&")] if mark else []
    return scheme + slashes + path + mark + "&".join(pairs)


def _redact_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    secret = _SECRET_NAME.search(name) is not None or _TOKEN.fullmatch(value) is not None
    return f"{name}={HIDDEN}" if equals and secret else pair


def redact_text(text: str) -> str:
    """Any text with the URLs in it redacted."""
    return _URL.sub(lambda m: redact_url(m[0]), text) if "://" in text else text


def redact(value: Any, name: str = "") -> Any:
    """A copy of plain data (dicts, lists, text, numbers) without secrets."""
    if isinstance(value, str):
        return HIDDEN if value and _SECRET_NAME.search(name) else redact_text(value)
    if isinstance(value, Mapping):
        return {k: redact(v, str(k)) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [redact(v, name) for v in value]
    return value

"""What an account's DID document says: its signing key, its host, its handle.

DID specification of atproto: the verification method `#atproto`, the service `#atproto_pds`, and the first valid
`at://` name of `alsoKnownAs`. Labelers have `#atproto_label` and `#atproto_labeler` as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gapless.errors import Contradiction
from gapless.sources.atproto.keys import parse_multikey
from gapless.sources.atproto.refusals import refusal
from gapless.sources.atproto.syntax import is_did, is_handle


@dataclass(frozen=True, slots=True)
class DidDocument:
    """Empty text stands for what a document does not say, or says in a way that cannot be used."""

    did: str
    signing_key: str
    """`did:key:…`."""
    pds: str
    """Origin of the account's host: `https://host[:port]`."""
    handle: str
    """As claimed, lower case: whether it leads back to the DID is for whoever resolves it."""
    label_key: str = ""
    labeler: str = ""


def read_did_document(did: str, document: Any) -> DidDocument:
    """Read a document as parsed from JSON. Raises Contradiction `did_document` for what is none, or another's."""
    if not is_did(did) or not isinstance(document, Mapping) or document.get("id") != did:
        raise refusal("did_document", f"What came is not the DID document of {did[:200]}")
    return DidDocument(
        did,
        signing_key=_key(did, document, "#atproto"),
        pds=_service(did, document, "#atproto_pds", "AtprotoPersonalDataServer"),
        handle=_handle(document),
        label_key=_key(did, document, "#atproto_label"),
        labeler=_service(did, document, "#atproto_labeler", "AtprotoLabeler"),
    )


def _items(document: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    items = document.get(field)
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _is_named(did: str, item: Mapping[str, Any], fragment: str) -> bool:
    return item.get("id") in (fragment, did + fragment)


def _key(did: str, document: Mapping[str, Any], fragment: str) -> str:
    """The first key of that name; the later ones do not count, even where the first cannot be read."""
    for item in _items(document, "verificationMethod"):
        if _is_named(did, item, fragment) and item.get("controller") == did:
            try:
                return parse_multikey(str(item.get("type")), str(item.get("publicKeyMultibase"))).did_key
            except Contradiction:
                return ""
    return ""


def _service(did: str, document: Mapping[str, Any], fragment: str, kind: str) -> str:
    for item in _items(document, "service"):
        if _is_named(did, item, fragment) and item.get("type") == kind:
            endpoint = item.get("serviceEndpoint")
            return origin(endpoint) if isinstance(endpoint, str) else ""
    return ""


def origin(url: str) -> str:
    """`scheme://host[:port]` of an http(s) URL that has nothing else; empty for any other."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        return ""
    if parts.query or parts.fragment or parts.username is not None or parts.password is not None:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def _handle(document: Mapping[str, Any]) -> str:
    names = document.get("alsoKnownAs")
    for name in names if isinstance(names, list) else []:
        if isinstance(name, str) and name.startswith("at://") and is_handle(name[5:]):
            return name[5:].lower()
    return ""

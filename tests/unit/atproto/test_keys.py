"""Keys, signatures and DID documents."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from coincurve import PrivateKey
from cryptography.hazmat.primitives.asymmetric import ec

from gapless.errors import Contradiction
from gapless.sources.atproto.did_document import DidDocument, origin, read_did_document
from gapless.sources.atproto.keys import PublicKey, parse_did_key, parse_multikey
from unit.atproto.forge import ORDER, Forge
from unit.atproto.material import network_documents, shared, vectors

SIGNATURES = vectors("crypto/signature-fixtures.json")
K256 = "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"


def bare(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.parametrize("vector", SIGNATURES, ids=lambda v: v["comment"])
def test_the_published_signatures(vector: dict[str, Any]) -> None:
    """Valid ones are taken; a high s and the DER form are refused."""
    message, signature = bare(vector["messageBase64"]), bare(vector["signatureBase64"])
    key = parse_did_key(vector["publicKeyDid"])
    assert key.verify(signature, message) is vector["validSignature"]
    assert not key.verify(signature, message + b"x")
    assert parse_multikey(vector["didDocSuite"], vector["publicKeyMultibase"]).did_key == vector["publicKeyDid"]


@pytest.mark.parametrize("vector", vectors("crypto/w3c_didkey_K256.json"))
def test_the_published_k256_keys(vector: dict[str, str]) -> None:
    """A key has its did:key, and that gives the key again."""
    point = PrivateKey(bytes.fromhex(vector["privateKeyBytesHex"])).public_key.format()
    assert PublicKey("k256", point).did_key == vector["publicDidKey"]
    assert parse_did_key(vector["publicDidKey"]).compressed == point


@pytest.mark.parametrize("vector", vectors("crypto/w3c_didkey_P256.json"))
def test_the_published_p256_keys(vector: dict[str, str]) -> None:
    """The same on the other curve."""
    import libipld

    secret = int.from_bytes(libipld.decode_multibase("z" + vector["privateKeyBytesBase58"])[1], "big")
    numbers = ec.derive_private_key(secret, ec.SECP256R1()).public_key().public_numbers()
    point = bytes((2 + numbers.y % 2,)) + numbers.x.to_bytes(32, "big")
    assert PublicKey("p256", point).did_key == vector["publicDidKey"]
    assert parse_did_key(vector["publicDidKey"]).compressed == point


def test_degenerate_signatures_are_refused() -> None:
    """Zeros, the order of the curve, a wrong length: none of them verifies, none raises."""
    forge = Forge()
    good = forge.sign(b"message")
    assert forge.key.verify(good, b"message")
    high = good[:32] + (ORDER - int.from_bytes(good[32:], "big")).to_bytes(32, "big")
    order = ORDER.to_bytes(32, "big")
    for bad in (
        b"",
        good[:-1],
        good + b"\0",
        bytes(64),
        good[:32] + bytes(32),
        bytes(32) + good[32:],
        high,
        order + good[32:],
        good[:32] + b"\0" + good[32:],
    ):
        assert not forge.key.verify(bad, b"message")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did:key:",
        "did:key:zz0OIl",
        "did:key:" + K256[8:-1],
        "did:key:f" + K256[9:],
        "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
        "did:key:z" + "1" * 30,
    ],
)
def test_other_keys_are_refused(text: str) -> None:
    """What is no key, or a key of another kind (here ed25519), is refused by name."""
    with pytest.raises(Contradiction) as error:
        parse_did_key(text)
    assert error.value.kind == "key"


def test_a_point_off_the_curve_is_no_key() -> None:
    """A key whose point is not on its curve is refused, and so is a hybrid encoding."""
    for curve in ("k256", "p256"):
        for point in (b"\x02" + b"\xff" * 32, b"\x05" + bytes(32), b"", b"\x02" + bytes(31)):
            with pytest.raises(Contradiction) as error:
                PublicKey(curve, point)  # type: ignore[arg-type]
            assert error.value.kind == "key"


def test_a_key_has_one_way_to_write_it() -> None:
    """The long form of a point in a did:key, and the hybrid form anywhere, are refused: a key would have many names."""
    import libipld

    point = Forge(3).private.public_key.format(compressed=False)
    assert PublicKey("k256", point).did_key == Forge(3).key.did_key
    with pytest.raises(Contradiction) as error:
        parse_did_key("did:key:" + libipld.encode_multibase("z", b"\xe7\x01" + point))
    assert error.value.kind == "key"
    with pytest.raises(Contradiction) as error:
        PublicKey("k256", bytes((6 + point[-1] % 2,)) + point[1:])
    assert error.value.kind == "key"


def test_keys_are_parsed_once() -> None:
    """The same text gives the same object: parsing a point costs as much as a third of a signature."""
    assert parse_did_key(K256) is parse_did_key(K256)
    assert repr(parse_did_key(K256)) == f"PublicKey({K256})"


# --- DID documents -------------------------------------------------------------------------------------------------

DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


def document(**changes: Any) -> dict[str, Any]:
    return {
        "id": DID,
        "alsoKnownAs": ["https://x", "at://not a handle", "at://Alice.Example"],
        "verificationMethod": [
            {"id": "#other", "type": "Multikey", "controller": DID, "publicKeyMultibase": "z1"},
            {"id": f"{DID}#atproto", "type": "Multikey", "controller": DID, "publicKeyMultibase": K256[8:]},
        ],
        "service": [
            {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://pds.example/"}
        ],
    } | changes


def test_a_document_says_key_host_and_handle() -> None:
    """What the rest needs comes out in its one form."""
    assert read_did_document(DID, document()) == DidDocument(DID, K256, "https://pds.example", "alice.example")


@pytest.mark.parametrize(
    "bad", [None, [], "text", {}, document(id="did:plc:other"), document(id=None)], ids=lambda v: type(v).__name__
)
def test_anothers_document_is_refused(bad: Any) -> None:
    """What is no document, or names another DID, is refused: its key would be another's."""
    with pytest.raises(Contradiction) as error:
        read_did_document(DID, bad)
    assert error.value.kind == "did_document"


@pytest.mark.parametrize(
    "method",
    [
        {"id": "#atproto", "type": "Multikey", "controller": "did:plc:other", "publicKeyMultibase": K256[8:]},
        {"id": "#atproto", "type": "Ed25519VerificationKey2020", "controller": DID, "publicKeyMultibase": K256[8:]},
        {"id": "#atproto", "type": "Multikey", "controller": DID},
        {"id": "#atproto2", "type": "Multikey", "controller": DID, "publicKeyMultibase": K256[8:]},
        "text",
    ],
)
def test_a_key_that_cannot_be_used_is_none(method: Any) -> None:
    """Another controller, kind or name: the account has no signing key then."""
    assert read_did_document(DID, document(verificationMethod=[method])).signing_key == ""
    assert read_did_document(DID, document(verificationMethod=None)).signing_key == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://pds.example", "https://pds.example"),
        ("http://localhost:2583/", "http://localhost:2583"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("https://pds.example/path", ""),
        ("https://user@pds.example", ""),
        ("https://pds.example?x", ""),
        ("ftp://pds.example", ""),
        ("https://", ""),
        ("https://pds.example:99999", ""),
        ("nothing", ""),
    ],
)
def test_a_host_is_an_origin(url: str, expected: str) -> None:
    """A host's address has no path, query or credentials; anything else is no address."""
    assert origin(url) == expected


def test_documents_of_the_real_network_read() -> None:
    """Every document of the network's corpus, and those of each older form, gives what it holds."""
    for did, found in network_documents().items():
        read = read_did_document(did, found)
        assert read.signing_key.startswith("did:key:zQ3s")
        assert read.pds.startswith("https://")
        assert read.handle
    for name, key in (("did_plc_doc", True), ("did_plc_doc_legacy", True), ("did_web_doc", False)):
        found = json.loads(shared(f"indigo/atproto/identity/{name}.json").read_text())
        read = read_did_document(found["id"], found)
        assert bool(read.signing_key) is key
        assert bool(read.pds) is key

"""Makes `arroba.frames.xz` and `crosscheck.json`: `pip install arroba==3.1 && python crosscheck.py`, in an environment
of its own (it brings forty packages).

arroba is a PDS in Python of its own origin, with another tree, other encoders and another signature library than ours.
Here it keeps three repositories through 120 commits and says, in its own code, what `subscribeRepos` would send.
"""

import json
import lzma
import random
import struct
import sys
from pathlib import Path

import dag_cbor
from arroba import firehose, server
from arroba.did import encode_did_key
from arroba.mst import MST
from arroba.repo import Repo
from arroba.storage import Action, MemoryStorage, Write
from arroba.util import new_key
from multiformats import CID

HERE = Path(__file__).parent
COLLECTIONS = ("com.example.post", "com.example.note")


def plain(value):
    return bytes(value) if isinstance(value, bytearray) else value


def main():
    rng = random.Random(7)
    storage = server.storage = MemoryStorage()
    frames, keys, contents = [], {}, {}
    repos = []
    for name in ("one", "two", "three"):
        did = f"did:web:{name}.example"
        key = new_key(seed=rng.randrange(10**9))
        keys[did] = encode_did_key(key.public_key())
        repos.append(Repo.create(storage, did, signing_key=key, handle=f"{name}.example"))
        contents[did] = {}
    for number in range(120):
        repo = rng.choice(repos)
        held = contents[repo.did]
        writes, touched = [], set()
        for _ in range(rng.choice([1, 1, 1, 1, 2, 5, 12])):
            action = rng.choice([Action.CREATE, Action.CREATE, Action.CREATE, Action.UPDATE, Action.DELETE])
            if action == Action.CREATE or not set(held) - touched:
                path = f"{rng.choice(COLLECTIONS)}/{number:04d}{rng.randrange(10**9):09d}"
                action = Action.CREATE
            else:
                path = rng.choice(sorted(set(held) - touched))
            touched.add(path)
            collection, rkey = path.split("/")
            record = None
            if action == Action.DELETE:
                del held[path]
            else:
                record = {"$type": collection, "text": f"{rng.random()}", "bytes": rng.randbytes(5), "n": number}
                held[path] = True
            writes.append(Write(action, collection, rkey, record))
        storage.commit(repo, writes)
    for event in storage.read_events_by_seq():
        header, body = firehose.process_event(event)
        body = {field: plain(value) for field, value in body.items()}
        frames.append(dag_cbor.encode(header) + dag_cbor.encode(body))
    out = b"ATPFRAMES1\n" + b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)
    (HERE / "arroba.frames.xz").write_bytes(lzma.compress(out, preset=9 | lzma.PRESET_EXTREME))

    roots = []
    leaf = CID.decode("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454")
    for seed in range(12):
        keys_rng = random.Random(seed)
        paths = sorted({f"com.example.note/{keys_rng.randrange(10**9):010d}" for _ in range(seed * seed * 4)})
        tree = MST.create(storage=MemoryStorage())
        for path in keys_rng.sample(paths, len(paths)):
            tree = tree.add(path, leaf)
        roots.append({"seed": seed, "count": len(paths), "root": tree.get_pointer().encode("base32")})
    found = {
        repo.did: {
            f"{collection}/{rkey}": dag_cbor_cid(record)
            for collection, records in repo.get_contents().items()
            for rkey, record in records.items()
        }
        for repo in repos
    }
    about = f"arroba 3.1, dag-cbor 0.3.3, Python {sys.version.split()[0]}"
    (HERE / "crosscheck.json").write_text(
        json.dumps({"about": about, "keys": keys, "roots": roots, "records": found}, indent=1, sort_keys=True) + "\n"
    )
    assert {did: set(held) for did, held in contents.items()} == {did: set(held) for did, held in found.items()}


def dag_cbor_cid(record):
    from multiformats import multihash

    digest = multihash.digest(dag_cbor.encode(record), "sha2-256")
    return CID("base32", 1, "dag-cbor", digest).encode("base32")


if __name__ == "__main__":
    main()

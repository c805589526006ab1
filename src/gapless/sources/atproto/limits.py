"""Sizes the protocol allows (event stream and sync specifications, repository specification, lexicons)."""

from __future__ import annotations

FRAME_BYTES_MAX = 5_000_000
"""A WebSocket message of an event stream."""
COMMIT_BLOCKS_BYTES_MAX = 2_000_000
"""`blocks` of a `#commit`."""
SYNC_BLOCKS_BYTES_MAX = 10_000
"""`blocks` of a `#sync`: the commit object and nothing else."""
RECORD_BYTES_MAX = 1_000_000
OPS_MAX = 200
"""Operations of one commit."""
PATH_BYTES_MAX = 1024
"""A key of the tree: collection, slash, record key."""
COMMIT_OBJECT_BYTES_MAX = 4096
"""Not in the specification: a commit object has six short fields and is about 230 bytes."""
NODE_BYTES_MAX = 1_000_000
"""Not in the specification: a node has four entries on average, and the limit of a record serves for it too."""
DEPTH_MAX = 128
"""A key's SHA-256 has at most 256 leading zero bits, two of them for each layer."""
FUTURE_REV_SECONDS_MAX = 300
"""How far a revision's time may be ahead of ours."""
SEQ_MAX = 2**53 - 1
"""Event stream specification: sequence numbers fit a double."""

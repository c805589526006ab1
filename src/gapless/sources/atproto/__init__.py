"""The AT Protocol: firehose frames, repositories and their proofs. The core here is pure: bytes in, values out."""

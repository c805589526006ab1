"""Identifiers: DIDs, handles, NSIDs, record keys, TIDs, AT URIs, datetimes.

Rules: the atproto specifications of the same names; all of the published interoperability vectors pass.
Functions named `is_…` never raise and take any text.
"""

from __future__ import annotations

import re
from datetime import date

from gapless.sources.atproto.limits import PATH_BYTES_MAX

_DID = re.compile(r"did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]").fullmatch
_HANDLE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
).fullmatch
_NSID = re.compile(
    r"[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)+"
    r"\.[a-zA-Z][a-zA-Z0-9]{0,62}"
).fullmatch
_RECORD_KEY = re.compile(r"[a-zA-Z0-9_~.:-]{1,512}").fullmatch
_TID = re.compile(r"[234567a-j][234567a-z]{12}").fullmatch
_PATH = re.compile(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9_~.:-]+").fullmatch
_DATETIME = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,20}))?(Z|[+-]\d{2}:\d{2})", re.ASCII
).fullmatch

DID_LENGTH_MAX = 2048
HANDLE_LENGTH_MAX = 253
NSID_LENGTH_MAX = 317
DATETIME_LENGTH_MAX = 64
_EPOCH_DAY = 719163
"""1970-01-01 as `date.toordinal` counts."""
_ERA_YEARS, _ERA_DAYS = 400, 146097
"""After so long the calendar repeats."""
_YEAR_ZERO_SECONDS = -62_167_219_200
INVALID_HANDLE = "handle.invalid"
"""What stands for a handle that does not lead back to its DID."""

_TID_DIGITS = "234567abcdefghijklmnopqrstuvwxyz"
_TID_TO_BASE_32 = str.maketrans(_TID_DIGITS, "0123456789abcdefghijklmnopqrstuv")
_CLOCK_BITS = 10
"""A TID is 53 bits of microseconds and these of clock id."""


def is_did(text: str) -> bool:
    return len(text) <= DID_LENGTH_MAX and _DID(text) is not None


def is_handle(text: str) -> bool:
    return len(text) <= HANDLE_LENGTH_MAX and _HANDLE(text) is not None


def is_nsid(text: str) -> bool:
    return len(text) <= NSID_LENGTH_MAX and _NSID(text) is not None


def is_record_key(text: str) -> bool:
    return _RECORD_KEY(text) is not None and text not in {".", ".."}


def is_tid(text: str) -> bool:
    return _TID(text) is not None


def is_identifier(text: str) -> bool:
    """An account: DID or handle."""
    return is_did(text) if text.startswith("did:") else is_handle(text)


def is_path(path: str) -> bool:
    """What may be a key of a repository: a collection (NSID), a slash, a record key."""
    collection, slash, key = path.partition("/")
    return slash == "/" and len(path) <= PATH_BYTES_MAX and is_nsid(collection) and is_record_key(key)


def is_tree_key(key: str) -> bool:
    """The weaker rule of the repository specification for keys of the tree: two parts of its characters. Old
    repositories hold keys that are no NSID and record key."""
    return len(key) <= PATH_BYTES_MAX and _PATH(key) is not None


def is_at_uri(text: str) -> bool:
    """`at://authority[/collection[/rkey]]`, without query or fragment, as records refer to records."""
    if not text.startswith("at://"):
        return False
    authority, *path = text[5:].split("/")
    if len(path) > 2 or not is_identifier(authority):
        return False
    return (not path or is_nsid(path[0])) and (len(path) < 2 or is_record_key(path[1]))


def at_uri(did: str, path: str) -> str:
    return f"at://{did}/{path}"


def split_at_uri(uri: str) -> tuple[str, str, str]:
    """Authority, collection and record key of a URI; what it does not name is empty. Raises ValueError."""
    if not is_at_uri(uri):
        raise ValueError(f"{uri[:200]!r} is not an AT URI")
    authority, collection, key = (*uri[5:].split("/"), "", "")[:3]
    return authority, collection, key


def tid_time_us(tid: str) -> int:
    """The time in a TID, microseconds since 1970 UTC. Raises ValueError for what is no TID."""
    if not is_tid(tid):
        raise ValueError(f"{tid[:40]!r} is not a TID")
    return int(tid.translate(_TID_TO_BASE_32), 32) >> _CLOCK_BITS


def tid(time_us: int, clock_id: int = 0) -> str:
    """The TID of a time; order of text is order of time. Raises ValueError for a time before 1970 or after 2255."""
    if not 0 <= time_us < 1 << 53 or not 0 <= clock_id < 1 << _CLOCK_BITS:
        raise ValueError(f"no TID has the time {time_us} and the clock {clock_id}")
    value = time_us << _CLOCK_BITS | clock_id
    return "".join(_TID_DIGITS[value >> shift & 31] for shift in range(60, -1, -5))


def datetime_us(text: str) -> int | None:
    """Microseconds since 1970 UTC of a datetime, or None for what is none.

    Lexicon specification, `datetime`: the common part of RFC 3339, ISO 8601 and WHATWG HTML, with a time zone (not
    `-00:00`); a fraction finer than a microsecond is cut. A leap second is the second after."""
    match = _DATETIME(text) if len(text) <= DATETIME_LENGTH_MAX else None
    if match is None or match[8] == "-00:00":
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    zone = 0
    if match[8] != "Z":
        hours, minutes = int(match[8][1:3]), int(match[8][4:])
        if hours > 23 or minutes > 59:
            return None
        zone = (hours * 60 + minutes) * (-60 if match[8][0] == "-" else 60)
    if second > 60 or hour > 23 or minute > 59:
        return None
    try:  # the year 0, which Python has not, is like the year 400
        days = date(year or _ERA_YEARS, month, day).toordinal() - _EPOCH_DAY - (0 if year else _ERA_DAYS)
    except ValueError:
        return None
    seconds = days * 86400 + hour * 3600 + minute * 60 + second - zone
    if seconds < _YEAR_ZERO_SECONDS:
        return None
    return seconds * 1_000_000 + int((match[7] or "0").ljust(6, "0")[:6])

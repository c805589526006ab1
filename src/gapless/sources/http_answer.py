"""Reading one HTTP/1.1 answer (RFC 9112) from bytes as they come. No I/O: what is fed decides everything.

Every length has a limit. What follows the head is framed by `Transfer-Encoding: chunked`, by `Content-Length`, or by
the end of the connection; gzip, which is all that is asked for, is unpacked on the way.
"""

from __future__ import annotations

import re
import zlib
from enum import Enum, auto

HEAD_BYTES_MAX = 1 << 16
"""Of status line and headers, and of all trailers."""
_LINE_BYTES_MAX = 1 << 13
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?")
_GZIP = zlib.MAX_WBITS | 16
_WITHOUT_BODY = frozenset({204, 304})
_SWITCHING_PROTOCOLS = 101


class NotHttp(Exception):
    """What came is no head of an answer."""


class Cut(Exception):
    """A head came, and then not the body it announced."""


class Outgrown(Exception):
    """The body is larger than allowed: announced so, or seen."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        super().__init__(f"{size_bytes:,} bytes")


class _At(Enum):
    HEAD = auto()
    COUNTED = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    UNTIL_CLOSED = auto()
    END = auto()


class HttpAnswer:
    """`feed` it until `done`; `end` it where the connection ends first. Both raise NotHttp, Cut, Outgrown.

    `tunnel`: the answer to CONNECT, which has no body when it agrees."""

    def __init__(self, body_bytes_max: int, *, tunnel: bool = False) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Names are lower-case; of one that comes twice the last counts."""
        self.cookies: list[str] = []
        """The values of every `Set-Cookie`."""
        self.keeps = False
        """Whether the connection can take another request afterwards."""
        self._body_bytes_max = body_bytes_max
        self._tunnel = tunnel
        self._at = _At.HEAD
        self._left = 0
        self._pending = b""
        """Of a line or head that is not whole yet."""
        self._parts: list[bytes] = []
        self._whole = bytearray()
        """The body, where its length is known and it comes as it is: received into its place, not put together."""
        self._room: memoryview | None = None
        """What is still empty of that."""
        self._size = 0
        self._gzip: zlib._Decompress | None = None

    @property
    def done(self) -> bool:
        return self._at is _At.END

    @property
    def body(self) -> bytes:
        return bytes(self._whole) or b"".join(self._parts)

    @property
    def room(self) -> memoryview | None:
        """Where the next bytes may be received to directly, to be told to `filled`; None: they are to be fed."""
        return None if self.done else self._room

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        place = 0
        while place < len(data) and not self.done:
            match self._at:
                case _At.HEAD:
                    place = self._head(data, place)
                case _At.COUNTED | _At.CHUNK:
                    place = self._counted(data, place)
                case _At.UNTIL_CLOSED:
                    self._take(data[place:])
                    place = len(data)
                case _:
                    place = self._line(data, place)
        if place < len(data):
            self.keeps = False  # It sent more than it announced: what comes next cannot be told from that.

    def filled(self, size_bytes: int) -> None:
        """So many bytes were put into the `room`."""
        self._left -= size_bytes
        self._room = None if self._room is None else self._room[size_bytes:]
        if self._left == 0:
            self._room = None
            self._finish()

    def end(self) -> None:
        """The connection has ended."""
        if self._at is _At.HEAD:
            raise NotHttp("the connection was closed without an answer")
        if self._at is _At.UNTIL_CLOSED:
            self._finish()
        if not self.done:
            raise Cut("the connection ended before the body did")

    # --- the head ---------------------------------------------------------------------------------------------------

    def _head(self, data: bytes, place: int) -> int:
        before = len(self._pending)
        head = self._pending + data[place:]
        found = _HEAD_END.search(head, 0, HEAD_BYTES_MAX)
        if found is None:
            if len(head) >= HEAD_BYTES_MAX:
                raise NotHttp(f"headers of more than {HEAD_BYTES_MAX:,} bytes")
            self._pending = head
            return len(data)
        self._pending = b""
        first, *fields = re.split(rb"\r?\n", head[: found.start()])
        status = _STATUS_LINE.fullmatch(first)
        if status is None:
            raise NotHttp(f"{first[:40]!r} is no status line of HTTP/1.1")
        self.status = int(status[2])
        self.headers, self.cookies = {}, []
        for field in fields:
            self._field(field)
        if not 100 <= self.status < 200:
            self._frame(newer=status[1] == b"1")
        elif self.status == _SWITCHING_PROTOCOLS:
            raise NotHttp("it wants to speak another protocol")
        return place + found.end() - before  # An interim answer is followed by another head.

    def _field(self, field: bytes) -> None:
        match = _FIELD.fullmatch(field)
        if match is None:
            raise NotHttp(f"{field[:40]!r} is no header")
        name, value = match[1].decode("ascii").lower(), match[2].decode("latin-1")
        if name == "set-cookie":
            self.cookies.append(value)
        if name in ("content-length", "transfer-encoding") and self.headers.get(name, value) != value:
            raise NotHttp(f"two headers {name} that differ")
        self.headers[name] = value

    def _frame(self, *, newer: bool) -> None:
        """How long the body is (RFC 9112, 6.3), and whether the connection is kept (9.3)."""
        options = {option.strip() for option in self.headers.get("connection", "").lower().split(",")}
        self.keeps = "close" not in options and (newer or "keep-alive" in options)
        coding = self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        if self.status in _WITHOUT_BODY or (self._tunnel and 200 <= self.status < 300):
            self._at = _At.END
            return
        self._unpack()
        if coding:
            if coding != "chunked":
                raise NotHttp(f"a transfer coding that was not asked for: {coding[:40]!r}")
            self._at = _At.CHUNK_LINE
            self.keeps = self.keeps and length is None
        elif length is not None:
            if not (length.isascii() and length.isdigit() and len(length) < 19):
                raise NotHttp(f"a content-length that is no number: {length[:40]!r}")
            self._left = int(length)
            if self._left > self._body_bytes_max:
                raise Outgrown(self._left)
            self._at = _At.COUNTED
            if self._left == 0:
                self._finish()
            elif self._gzip is None:
                self._whole = bytearray(self._left)
                self._room = memoryview(self._whole)
        else:
            self._at = _At.UNTIL_CLOSED
            self.keeps = False

    def _unpack(self) -> None:
        coding = self.headers.get("content-encoding", "").lower()
        if coding in ("gzip", "x-gzip"):
            self._gzip = zlib.decompressobj(_GZIP)
        elif coding not in ("", "identity"):
            raise Cut(f"in an encoding that was not asked for: {coding[:40]!r}")

    # --- the body ---------------------------------------------------------------------------------------------------

    def _counted(self, data: bytes, place: int) -> int:
        end = min(len(data), place + self._left)
        if self._room is not None:
            self._room[: end - place] = data[place:end]
            self.filled(end - place)
            return end
        self._left -= end - place
        self._take(data[place:end])
        if self._left == 0:
            if self._at is _At.COUNTED:
                self._finish()
            else:
                self._at = _At.CHUNK_END
        return end

    def _line(self, data: bytes, place: int) -> int:
        """A line between chunks, or behind the last."""
        newline = data.find(b"\n", place)
        end = len(data) if newline < 0 else newline
        line = self._pending + data[place:end]
        if len(line) > _LINE_BYTES_MAX:
            raise Cut("a line between its parts that does not end")
        if newline < 0:
            self._pending = line
            return end
        self._pending = b""
        self._act_on(line.removesuffix(b"\r"))
        return end + 1

    def _act_on(self, line: bytes) -> None:
        if self._at is _At.CHUNK_END:
            if line:
                raise Cut("a part of it is longer than announced")
            self._at = _At.CHUNK_LINE
        elif self._at is _At.TRAILERS:
            self._left += len(line) + 2
            if self._left > HEAD_BYTES_MAX:
                raise Cut("trailers without end")
            if not line:
                self._finish()
        else:
            size = _CHUNK_LINE.fullmatch(line)
            if size is None:
                raise Cut(f"{line[:40]!r} is not the length of a part")
            self._left = int(size[1], 16)
            self._at = _At.CHUNK if self._left else _At.TRAILERS

    def _take(self, part: bytes) -> None:
        while part:
            rest = b""
            if self._gzip is not None:
                part, rest = self._unpacked(self._gzip, part)
            self._size += len(part)
            if self._size > self._body_bytes_max:
                raise Outgrown(self._size)
            self._parts.append(part)
            part = rest

    def _unpacked(self, gzip: zlib._Decompress, part: bytes) -> tuple[bytes, bytes]:
        """What it unpacks to, as far as the limit needs it, and what stands behind the end of the compressed stream:
        another one (RFC 1952, 2.2)."""
        try:
            unpacked = gzip.decompress(part, self._body_bytes_max - self._size + 1)
        except zlib.error as error:
            raise Cut(f"compressed wrongly: {error}") from error
        if gzip.unused_data:
            self._gzip = zlib.decompressobj(_GZIP)
        return unpacked, gzip.unused_data

    def _finish(self) -> None:
        if self._gzip is not None and not self._gzip.eof and self._parts:
            raise Cut("its compressed stream does not end")
        self._at = _At.END

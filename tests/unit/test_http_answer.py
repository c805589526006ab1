"""Reading HTTP/1.1 answers: the same whatever pieces they come in, and never more than is allowed."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.sources.http_answer import HEAD_BYTES_MAX, Cut, HttpAnswer, NotHttp, Outgrown

BODY = b'{"result":"' + b"0123456789abcdef" * 20 + b'"}'
LIMIT = 1000


def chunked(body: bytes, *, trailers: bytes = b"") -> bytes:
    parts = [part for part in (body[:7], body[7:40], body[40:]) if part]
    return b"".join(b"%x;why=not\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n" + trailers + b"\r\n"


def head(*fields: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *fields]) + b"\r\n\r\n"


PACKED = gzip.compress(BODY)
TWICE = gzip.compress(BODY[:50]) + gzip.compress(BODY[50:])
WHOLE = {
    "counted": head(b"Content-Length: %d" % len(BODY)) + BODY,
    "chunked": head(b"Transfer-Encoding: chunked") + chunked(BODY),
    "trailers": head(b"Transfer-Encoding: chunked") + chunked(BODY, trailers=b"Digest: x\r\nOther: y\r\n"),
    "gzip": head(b"Content-Encoding: gzip", b"Content-Length: %d" % len(PACKED)) + PACKED,
    "gzip in parts": head(b"content-encoding: GZIP", b"transfer-encoding: Chunked") + chunked(PACKED),
    "two streams": head(b"Content-Encoding: gzip", b"Content-Length: %d" % len(TWICE)) + TWICE,
    "after interim": head(status=b"100 Continue") + head(b"Content-Length: %d" % len(BODY)) + BODY,
    "bare newlines": (b"HTTP/1.1 200\nContent-Length: %d\n\n" % len(BODY)) + BODY,
}


def read(data: bytes, cuts: list[int], limit: int = LIMIT) -> HttpAnswer:
    """Fed in pieces as a socket would give them: into the room there is, where there is some."""
    answer = HttpAnswer(limit)
    places = sorted({min(len(data), cut) for cut in cuts} | {len(data)})
    at = 0
    for place in places:
        while at < place:
            room = answer.room
            if room is None:
                answer.feed(data[at:place])
                at = place
            else:
                taken = min(len(room), place - at)
                room[:taken] = data[at : at + taken]
                answer.filled(taken)
                at += taken
    return answer


@pytest.mark.parametrize("name", WHOLE)
@given(cuts=st.lists(st.integers(1, 700), max_size=30))
def test_pieces_make_no_difference(name: str, cuts: list[int]) -> None:
    """Any way of cutting the same bytes gives the same answer, and the connection is kept."""
    answer = read(WHOLE[name], cuts)
    assert (answer.done, answer.status, answer.body, answer.keeps) == (True, 200, BODY, True)


@pytest.mark.parametrize("name", WHOLE)
@given(data=st.data())
def test_every_shorter_answer_is_noticed(name: str, data: st.DataObject) -> None:
    """However early the connection ends, nothing that is not whole passes for an answer."""
    whole = WHOLE[name]
    answer = read(whole[: data.draw(st.integers(0, len(whole) - 1))], [])
    assert not answer.done
    with pytest.raises((Cut, NotHttp)):
        answer.end()


@pytest.mark.parametrize("name", WHOLE)
def test_a_larger_body_than_allowed_ends_it(name: str) -> None:
    """Announced, in parts, or when unpacked: one byte too much is refused, the limit itself is not."""
    assert read(WHOLE[name], [], len(BODY)).body == BODY
    with pytest.raises(Outgrown):
        read(WHOLE[name], [], len(BODY) - 1)


def test_without_a_length_the_end_of_the_connection_ends_it() -> None:
    """Such a connection cannot be kept."""
    answer = read(head() + BODY, [30, 60])
    assert not answer.done
    answer.end()
    assert (answer.body, answer.keeps) == (BODY, False)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([b"Connection: close", b"Content-Length: 0"], b"200 OK"),
        ([b"Connection: foo, Close", b"Content-Length: 0"], b"200 OK"),
        ([b"Connection: close"], b"204 No Content"),
    ],
)
def test_who_says_close_is_not_asked_again(fields: list[bytes], status: bytes) -> None:
    """The server knows best."""
    answer = read(head(*fields, status=status), [])
    assert (answer.done, answer.keeps) == (True, False)


def test_an_older_server_must_say_that_it_keeps() -> None:
    """HTTP/1.0 ends a connection unless it says otherwise."""
    assert not read(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", []).keeps
    assert read(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", []).keeps


@pytest.mark.parametrize(
    "surplus", [head(b"Content-Length: 0") + b"x", head(b"Transfer-Encoding: chunked") + b"0\r\n\r\nHTTP"]
)
def test_what_comes_beyond_the_end_spoils_the_connection(surplus: bytes) -> None:
    """It might be taken for the next answer."""
    answer = read(surplus, [])
    assert (answer.done, answer.keeps) == (True, False)


def test_an_agreed_tunnel_has_no_body() -> None:
    """What follows the head belongs to the origin behind the proxy, whatever length is named."""
    answer = HttpAnswer(LIMIT, tunnel=True)
    answer.feed(head(b"Content-Length: 5"))
    assert (answer.done, answer.body) == (True, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        head(status=b"101 Switching Protocols"),
        head(b"no colon"),
        head(b"Folded: a\r\n b"),
        head(b"Space : a"),
        head(b"Content-Length: 5", b"Content-Length: 6") + b"12345",
        head(b"Content-Length: +5") + b"12345",
        head(b"Content-Length: -1"),
        head("Content-Length: ٣".encode()),
        head(b"Transfer-Encoding: gzip, chunked"),
        head(b"X: " + b"x" * HEAD_BYTES_MAX),
    ],
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    """Lengths that could be read in two ways are no lengths: the next answer would be another's."""
    with pytest.raises(NotHttp):
        read(data, [])


@pytest.mark.parametrize(
    "data",
    [
        head(b"Transfer-Encoding: chunked") + b"5 bytes\r\n",
        head(b"Transfer-Encoding: chunked") + b"-1\r\n",
        head(b"Transfer-Encoding: chunked") + b"2\r\nabc\r\n",
        head(b"Transfer-Encoding: chunked") + b"0" * 20_000,
        head(b"Transfer-Encoding: chunked") + b"0\r\n" + b"a: b\r\n" * 20_000,
        head(b"Content-Encoding: br", b"Content-Length: 3") + b"abc",
        head(b"Content-Encoding: gzip", b"Content-Length: 3") + b"abc",
        head(b"Content-Encoding: gzip", b"Content-Length: 30") + PACKED[:30],
    ],
)
def test_a_body_that_is_none_is_refused(data: bytes) -> None:
    """Broken parts, endless lines, broken compression."""
    with pytest.raises(Cut):
        read(data, [])


def test_a_bomb_is_not_unpacked() -> None:
    """A megabyte of zeros in a thousand bytes: unpacking stops at the limit."""
    bomb = gzip.compress(b"\0" * 20_000_000)
    with pytest.raises(Outgrown) as caught:
        read(head(b"Content-Encoding: gzip", b"Content-Length: %d" % len(bomb)) + bomb, [], 200_000)
    assert caught.value.size_bytes == 200_001


def test_of_a_header_that_comes_twice_the_last_counts_and_every_cookie() -> None:
    """Names are lower-case."""
    answer = read(head(b"A: 1", b"a: 2", b"Set-Cookie: x=1", b"Set-Cookie: y=2", b"Content-Length: 0"), [])
    assert (answer.headers["a"], answer.cookies) == ("2", ["x=1", "y=2"])

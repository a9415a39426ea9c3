"""The status of an answer is the one that its server sent, whatever else is in the head or follows it. Real sockets."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest

from receiver.errors import TransportError
from receiver.exchange import Request
from receiver.transport.client import Transport
from receiver.transport.head import MAX_HEAD
from tests.kit.webserver import Says, serving
from tests.transport.test_client import NO_TLS, OK, then_close

PLAIN = ""
LENGTH = b"Content-Length: 2\r\n\r\nok"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CUT = "the connection ended before the answer did"
BROKEN_HEAD = "its head violates HTTP"
BROKEN_BODY = "the body of the answer violates HTTP"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport(tls=NO_TLS, allow_networks=[ip_network("127.0.0.0/8")])
    yield transport
    await transport.close()


def in_pieces(said: bytes, size: int, then_reset: bool = False) -> Says:
    """Each piece its own segment, as far as that can be had; then an orderly end, or a reset."""

    async def says(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(said), size):
            writer.write(said[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        if then_reset:
            # What was sent before has to have been read: a reset throws away what the other side's kernel holds.
            await asyncio.sleep(0.2)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()

    return says


def head(*fields: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + b"".join(field + b"\r\n" for field in fields)


ODD = {
    "a field of 9 KB": (head(b"Content-Security-Policy: " + b"a" * 9_000) + LENGTH, PLAIN),
    "a field of 30 KB": (head(b"Content-Security-Policy: " + b"a" * 30_000) + LENGTH, PLAIN),
    "a field of 64 KB": (head(b"Content-Security-Policy: " + b"a" * 65_536) + LENGTH, PLAIN),
    "a head of 120 KB": (head(*[b"X-%d: " % n + b"a" * 8_000 for n in range(15)]) + LENGTH, PLAIN),
    "a head of 200 KB": (head(b"A: " + b"a" * 200_000) + LENGTH, f"its head is longer than {MAX_HEAD} bytes"),
    "an endless head": (head(b"A: " + b"a" * 200_000), f"its head is longer than {MAX_HEAD} bytes"),
    "a long reason": (head(status=b"200 " + b"O" * 60_000) + LENGTH, PLAIN),
    "150 fields": (head(*[b"X-%d: 1" % n for n in range(150)]) + LENGTH, PLAIN),
    "5000 fields": (head(*[b"X-%d: 1" % n for n in range(5_000)]) + LENGTH, BROKEN_HEAD),
    "150 cookies": (head(*[b'Set-Cookie: %d=\x01"; Max-Age=x' % n for n in range(150)]) + LENGTH, None),
    "a field without colon": (head(b"no colon") + LENGTH, BROKEN_HEAD),
    "an empty name": (head(b": x") + LENGTH, BROKEN_HEAD),
    "a blank before the colon": (head(b"X : 1") + LENGTH, None),
    "a folded field": (head(b"X: 1", b" 2") + LENGTH, None),
    "bytes of Latin-1": (head(b"X: \xe4\xff") + LENGTH, PLAIN),
    "a zero byte": (head(b"X: \x00") + LENGTH, BROKEN_HEAD),
    "lines without CR": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", None),
    "no reason": (b"HTTP/1.1 200\r\n" + LENGTH, PLAIN),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nok", PLAIN),
    "HTTP/2.0": (b"HTTP/2.0 200 OK\r\n" + LENGTH, None),
    "lower case": (b"http/1.1 200 ok\r\n" + LENGTH, BROKEN_HEAD),
    "two lengths": (head(b"Content-Length: 1", b"Content-Length: 2") + b"\r\nok", BROKEN_HEAD),
    "a length of words": (head(b"Content-Length: two") + b"\r\nok", BROKEN_HEAD),
    "a negative length": (head(b"Content-Length: -2") + b"\r\nok", BROKEN_HEAD),
    "a length of 30 digits": (head(b"Content-Length: " + b"9" * 30) + b"\r\nok", BROKEN_HEAD),
    "a length and chunks": (head(b"Content-Length: 5") + CHUNKED + b"2\r\nok\r\n0\r\n\r\n", None),
    "an unknown coding": (head(b"Transfer-Encoding: rot13") + b"\r\nok", None),
    "chunks inside of another coding": (head(b"Transfer-Encoding: chunked, gzip") + b"\r\nok", PLAIN),
    "half a body": (head(b"Content-Length: 10") + b"\r\nhalf", CUT),
    "no body": (head(b"Content-Length: 10") + b"\r\n", CUT),
    "half a chunk": (head() + CHUNKED + b"5\r\nhal", CUT),
    "no last chunk": (head() + CHUNKED + b"2\r\nok\r\n", CUT),
    "a chunk size of no digits": (head() + CHUNKED + b"zz\r\nok\r\n0\r\n\r\n", BROKEN_BODY),
    "a chunk size of 40 digits": (head() + CHUNKED + b"f" * 40 + b"\r\n", BROKEN_BODY),
    "a chunk longer than it says": (head() + CHUNKED + b"1\r\nok\r\n0\r\n\r\n", BROKEN_BODY),
    "a bad chunk extension": (head() + CHUNKED + b'2;="\x01\r\nok\r\n0\r\n\r\n', BROKEN_BODY),
    "a long chunk extension": (head() + CHUNKED + b"2;a=" + b"x" * 20_000 + b"\r\nok\r\n0\r\n\r\n", None),
    "an endless chunk extension": (head() + CHUNKED + b"2;a=" + b"x" * 400_000 + b"\r\nok\r\n", BROKEN_BODY),
    "an endless trailer": (head() + CHUNKED + b"2\r\nok\r\n0\r\nX: " + b"x" * 400_000, BROKEN_BODY),
    "a trailer": (head() + CHUNKED + b"2\r\nok\r\n0\r\nX: 1\r\n\r\n", PLAIN),
    "a bad trailer": (head() + CHUNKED + b"2\r\nok\r\n0\r\nno colon\r\n\r\n", BROKEN_BODY),
    "no gzip": (head(b"Content-Encoding: gzip") + LENGTH, PLAIN),
    "half a gzip": (
        head(b"Content-Encoding: gzip", b"Content-Length: 9") + b"\r\n" + gzip.compress(b"x", mtime=0)[:9],
        PLAIN,
    ),
    "an unknown encoding": (head(b"Content-Encoding: \xff, x") + LENGTH, PLAIN),
    "a charset of none": (head(b"Content-Type: text/plain; charset=\xfe\xff") + LENGTH, PLAIN),
    "bytes after it": (OK + b"garbage\x00\xff" * 1_000, PLAIN),
    "a websocket key": (head(b"Sec-WebSocket-Key1: 1") + LENGTH, PLAIN),
    "an upgrade": (head(b"Connection: upgrade", b"Upgrade: h2c") + LENGTH, None),
    "a 204 with the last chunk": (head(status=b"204 No Content") + CHUNKED + b"0\r\n\r\n", PLAIN),
    "a 204 with a length": (head(status=b"204 No Content") + b"Content-Length: 2\r\n\r\n", PLAIN),
    "a 204 with a length of 0": (head(status=b"204 No Content") + b"Content-Length: 0\r\n\r\n", PLAIN),
    "a 204 with a body": (head(status=b"204 No Content") + LENGTH, PLAIN),
    "a 204 with chunks": (head(status=b"204 No Content") + CHUNKED + b"2\r\nok\r\n0\r\n\r\n", PLAIN),
    "a 204 with garbage": (head(status=b"204 No Content") + b"\r\n\x00\xff", PLAIN),
    "a 205 with a body": (head(status=b"205 Reset Content") + LENGTH, PLAIN),
    "a 202": (head(status=b"202 Accepted") + LENGTH, PLAIN),
    "a 299": (head(status=b"299 Whatever") + b"Content-Length: 9\r\n\r\n", CUT),
    "empty lines first": (b"\r\n\r\n" + OK, PLAIN),
    "interim answers first": (b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 3 + OK, PLAIN),
}
"""Answer → its note; None: it does not matter whether there is one."""


@pytest.mark.parametrize("piece", [1 << 20, 7], ids=["whole", "pieces"])
@pytest.mark.parametrize("answer", ODD)
async def test_an_answer_of_200_is_one_whatever_comes_with_it(transport: Transport, answer: str, piece: int) -> None:
    """In one segment or in many; and the next request is answered for itself, over another connection if need be."""
    said, note = ODD[answer]
    if piece == 7 and len(said) > 20_000:
        piece = 1_000
    async with serving(in_pieces(said, piece)) as server:
        response = await transport.send(Request("POST", server.url, {}, b"x"), timeout=30, guarded=True)
        assert 200 <= response.status < 300
        if note is not None:
            assert response.note == note
        assert response.truncated == bool(response.note)
        if response.body:
            assert b"ok".startswith(response.body) or response.body in (
                b"hi",
                gzip.compress(b"x", mtime=0)[:9],
                b"half",
                b"hal",
            )


@pytest.mark.parametrize("status", [200, 204, 301, 410, 429, 503])
@pytest.mark.parametrize(
    "rest", [b"Content-Length: 10\r\n\r\n", b"Content-Length: 10\r\n\r\nhalf", CHUNKED + b"5\r\nha"]
)
async def test_a_reset_after_the_head_leaves_the_answer(transport: Transport, status: int, rest: bytes) -> None:
    """With its fields: they say when to come again."""
    said = head(b"Retry-After: 7", b"webhook-delivery: abort-message", status=b"%d X" % status) + rest
    async with serving(in_pieces(said, 1 << 20, then_reset=True)) as server:
        response = await transport.send(Request("POST", server.url, {}, b"x"), timeout=30, guarded=True)
    assert (response.status, response.headers["retry-after"]) == (status, "7")
    assert response.headers["webhook-delivery"] == "abort-message"


@pytest.mark.parametrize("status", [410, 429, 503])
async def test_a_head_that_the_library_refuses_keeps_its_fields(transport: Transport, status: int) -> None:
    """Those that can be read."""
    said = head(b"no colon", b"Retry-After: 7", b"X: \x00", status=b"%d X" % status) + LENGTH
    async with serving(then_close(said)) as server:
        response = await transport.send(Request("POST", server.url), timeout=30, guarded=True)
    assert (response.status, response.headers["retry-after"], response.note) == (status, "7", BROKEN_HEAD)


async def test_a_body_that_drips_is_a_note_when_the_time_is_up(transport: Transport) -> None:
    """What came of it is kept."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(b"Content-Length: 100") + b"\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as server:
        response = await transport.send(Request("POST", server.url), timeout=0.3, guarded=True)
    assert (response.status, response.truncated, response.note) == (200, True, "no complete answer in time")
    assert response.body
    assert not response.body.strip(b"x")


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\nX: 1", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 20"])
async def test_half_a_head_is_no_answer(transport: Transport, said: bytes) -> None:
    """A connection that ends in the head: the server has not said all that it had to say."""
    async with serving(then_close(said)) as server:
        with pytest.raises(TransportError) as caught:
            await transport.send(Request("POST", server.url), timeout=30, guarded=True)
    assert caught.value.reason == "cut"


@pytest.mark.parametrize("answer", ["half a body", "half a chunk", "two lengths", "a zero byte", "an endless head"])
async def test_who_needs_the_body_gets_no_half_answer(transport: Transport, answer: str) -> None:
    """An unguarded 200 must be complete; for a 429 and a 503, the head is enough."""
    said = ODD[answer][0]
    async with serving(in_pieces(said, 1 << 20)) as server:
        with pytest.raises(TransportError) as caught:
            await transport.send(Request("POST", server.url), timeout=30)
    assert caught.value.reason in {"cut", "bad_answer"}
    for status in (b"429", b"503"):
        async with serving(in_pieces(said.replace(b"200", status, 1), 1 << 20)) as server:
            assert (await transport.send(Request("POST", server.url), timeout=30)).status == int(status)


@pytest.mark.parametrize("rest", [b"0\r\n\r\n", b"ok", OK, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"\x00"])
async def test_what_comes_after_an_answer_answers_nothing(transport: Transport, rest: bytes) -> None:
    """The connection is closed: each request gets the first answer on its own connection."""
    async with serving(head(status=b"204 No Content") + b"\r\n" + rest) as server:
        for _ in range(3):
            assert (await transport.send(Request("POST", server.url), timeout=30, guarded=True)).status == 204
    assert server.connections == 3


async def test_a_whole_204_keeps_its_connection(transport: Transport) -> None:
    """A length of zero is no trouble."""
    async with serving(head(status=b"204 No Content") + b"Content-Length: 0\r\n\r\n") as server:
        for _ in range(3):
            assert (await transport.send(Request("POST", server.url), timeout=30, guarded=True)).note == ""
    assert server.connections == 1


async def test_an_answer_to_head_has_no_body(transport: Transport) -> None:
    """Whatever length its head gives."""
    async with serving(head(b"Content-Length: 10") + b"\r\n") as server:
        for _ in range(2):
            response = await transport.send(Request("HEAD", server.url), timeout=5, guarded=True)
            assert (response.status, response.body, response.note) == (200, b"", "")
        assert len(server.requests) == 2

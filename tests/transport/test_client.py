"""The transport over real sockets: what it sends, what it reads, and that every failure has its reason, in time."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from ipaddress import ip_network

import pytest

from receiver.errors import TransportError
from receiver.exchange import Request
from receiver.transport.client import Transport
from receiver.transport.connection import Connection
from receiver.transport.pool import CONNECTIONS_PER_HOST
from tests.kit.processes import until
from tests.kit.webserver import Names, serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Spares reading the trust store, which no test here needs."""
CHUNK = 256 * 1024
LONG = 10 * 1024 * 1024
CUT = "the connection ended before the answer did"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport(tls=NO_TLS)
    yield transport
    await transport.close()


async def why(sending: Awaitable[object]) -> str:
    with pytest.raises(TransportError) as caught:
        await sending
    assert "secret" not in str(caught.value)
    return caught.value.reason


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def then_close(said: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    return says


async def test_a_request_goes_out_as_it_stands(transport: Transport) -> None:
    """The path is neither decoded nor encoded, the body is unchanged, and only these headers are added."""
    async with serving(OK) as server:
        request = Request("POST", f"{server.url}/a%2Fb/../c//d%20e?x=%C3%BC&y=1+2&&#f", {"x-one": "1"}, b"\x00body")
        response = await transport.send(request)
    assert (response.status, response.body, response.truncated) == (200, b"hi", False)
    head, body = server.requests[0].split(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert line == b"POST /a%2Fb/../c//d%20e?x=%C3%BC&y=1+2&& HTTP/1.1"
    assert body == b"\x00body"
    assert sorted(header.lower() for header in headers) == [
        b"accept-encoding: identity",
        b"content-length: 5",
        f"host: 127.0.0.1:{server.port}".encode(),
        b"user-agent: amazon-pay-refund-receiver",
        b"x-one: 1",
    ]


async def test_headers_of_the_caller_win(transport: Transport) -> None:
    """Also over those that would be sent anyway."""
    async with serving(OK) as server:
        await transport.send(Request("GET", server.url, {"user-agent": "me", "accept": "application/json"}))
    assert b"user-agent: me\r\n" in server.requests[0].lower()
    assert b"accept: application/json\r\n" in server.requests[0].lower()


@pytest.mark.parametrize("status", [200, 201, 204, 301, 404, 410, 429, 500, 503])
async def test_an_answer_of_any_status_is_an_answer(transport: Transport, status: int) -> None:
    """Redirects are not followed; header names are lower case, repeated ones are joined."""
    said = f"HTTP/1.1 {status} X\r\nX-A: 1\r\nX-A: 2\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with serving(said.encode()) as server:
        response = await transport.send(Request("GET", server.url))
    assert response.status == status
    assert response.headers["x-a"] == "1, 2"
    assert len(server.requests) == 1


@pytest.mark.parametrize(("status", "more"), [(200, 0), (200, 1), (403, 0)])
async def test_a_body_is_written_into_a_file(transport: Transport, status: int, more: int) -> None:
    """Only the body of a 200, up to the limit, and piece by piece. The answer itself has no body."""
    body, into = b"x" * (2 * CHUNK + 10), io.BytesIO()
    said = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body) + more}\r\n\r\n".encode() + body + b"y" * more
    async with serving(said) as server:
        response = await transport.send(Request("GET", server.url), max_body=len(body), into=into)
    assert response.truncated == bool(more)
    assert (into.getvalue(), response.body) == ((body, b"") if status == 200 else (b"", body))


async def test_nothing_is_remembered_but_the_connection(transport: Transport) -> None:
    """Two requests share a connection; a cookie is not sent back."""
    async with serving(OK.replace(b"\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n", 1)) as server:
        for _ in range(2):
            await transport.send(Request("GET", server.url))
    assert (server.connections, len(server.requests)) == (1, 2)
    assert b"cookie" not in server.requests[1].lower()


async def test_proxies_of_the_environment_are_not_used(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy could not see the address that it connects to; and it would see what we sign."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(OK) as server:
        assert (await transport.send(Request("GET", server.url))).status == 200


async def test_encoded_bodies_stay_as_they_are(transport: Transport) -> None:
    """A small answer cannot swell."""
    packed = gzip.compress(b"x" * 1_000_000)
    said = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with serving(said + packed) as server:
        response = await transport.send(Request("GET", server.url))
    assert response.body == packed


@pytest.mark.parametrize(("length", "truncated"), [(99, False), (100, False), (101, True), (LONG, True)])
@pytest.mark.parametrize("head", ["Content-Length: {}", "Connection: close"], ids=["length", "close"])
async def test_a_body_is_read_up_to_the_limit(transport: Transport, head: str, length: int, truncated: bool) -> None:
    """Then the connection is closed, and memory has not grown by the size of the body."""
    said = f"HTTP/1.1 200 OK\r\n{head.format(length)}\r\n\r\n".encode() + b"x" * length
    async with serving(then_close(said)) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        response = await transport.send(Request("GET", server.url), max_body=100)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (len(response.body), response.truncated) == (min(length, 100), truncated)
    assert grown < 12 * 1024 + LONG // 1024


TROUBLE = {
    "closed": (b"", "cut"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", "cut"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "cut"),
    "half a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal", "cut"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "bad_answer"),
    "no status": (b"HTTP/1.1 banana\r\n\r\n", "bad_answer"),
    "garbage headers": (b"HTTP/1.1 200 OK\r\n\x00\x01: \xff\r\nno colon\r\n\r\n", "bad_answer"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "bad_answer"),
    "garbage chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "bad_answer"),
    "endless header": (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000, "bad_answer"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_every_broken_answer_has_its_word(transport: Transport, trouble: str) -> None:
    """And the query does not show in the text."""
    said, reason = TROUBLE[trouble]
    async with serving(then_close(said)) as server:
        assert await why(transport.send(Request("POST", f"{server.url}/?secret=1"), timeout=30)) == reason


@pytest.mark.parametrize("head", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\nLink: <a>\r\n\r\n"])
async def test_endless_interim_answers_hold_up_nobody(transport: Transport, head: bytes) -> None:
    """A few are what HTTP allows; a flood ends with its first read, where it would keep the whole process busy."""

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(head * 4000)
            await writer.drain()

    async with serving(head * 5 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as server:
        assert (await transport.send(Request("POST", server.url), timeout=30)).body == b"ok"
    async with serving(flood) as server:
        assert await why(transport.send(Request("POST", server.url), timeout=30)) == "bad_answer"


async def test_unasked_answers_after_the_first_cost_nothing(transport: Transport) -> None:
    """They are not taken for the answers to later requests."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    async with serving(answer + b"ok" + (answer + b"no") * 4000) as server:
        for _ in range(3):
            assert (await transport.send(Request("POST", server.url), timeout=30)).body == b"ok"


async def test_a_reset_is_a_cut(transport: Transport) -> None:
    """In the middle of the answer."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with serving(reset) as server:
        assert await why(transport.send(Request("POST", server.url), timeout=30)) == "cut"


async def test_the_timeout_covers_all_of_the_answer(transport: Transport) -> None:
    """With a server that sends nothing, and with one that sends single bytes without end."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    loop = asyncio.get_running_loop()
    for says in (hang, drip):
        async with serving(says) as server:
            began = loop.time()
            assert await why(transport.send(Request("GET", server.url), timeout=0.2)) == "timeout"
            assert 0.15 < loop.time() - began < 1.0


async def test_a_name_that_takes_too_long_is_a_timeout() -> None:
    """`connect_timeout` covers the look-up."""

    class Slow(Names):
        async def resolve(self, host: str, port: int) -> list[tuple[str, int]]:
            await asyncio.Event().wait()
            return []

    transport = Transport(tls=NO_TLS, resolver=Slow({}))
    assert await why(transport.send(Request("GET", "http://slow.example/"), connect_timeout=0.1)) == "timeout"
    await transport.close()


async def test_where_nobody_listens_the_connection_fails(transport: Transport) -> None:
    """The port was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert await why(transport.send(Request("GET", f"http://127.0.0.1:{port}/?secret"))) == "connect_failed"


@pytest.mark.parametrize("host", ["unknown.example", "a" * 64 + ".example"])
async def test_a_name_without_an_address_is_a_dns_failure(host: str) -> None:
    """An unknown name by a table; a name that breaks the rules by the system's resolver."""
    transport = Transport(tls=NO_TLS, resolver=Names({})) if host == "unknown.example" else Transport(tls=NO_TLS)
    assert await why(transport.send(Request("GET", f"http://{host}/"))) == "dns_failed"
    await transport.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://h/",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://secret@h/",
        "http://user:secret@h/",
        "http://h:0/",
        "http://h:99999/",
        "http://h:x/",
        "http://[::1/",
        "http://h/a b",
        "http://h/ü",
        "http://h/\r\nx: y",
        "http://2130706433/",
        "http://127.1/",
    ],
)
async def test_an_address_that_cannot_be_sent_as_it_stands_is_refused(transport: Transport, url: str) -> None:
    """Before anything is looked up or connected."""
    assert await why(transport.send(Request("GET", url))) == "bad_url"


@pytest.mark.parametrize("headers", [{"x": "a\r\nb: c"}, {"x": "\x00"}, {"x": "a\udcff"}, {"x y": "1"}, {"": "1"}])
async def test_a_header_that_would_break_the_request_is_refused(transport: Transport, headers: dict[str, str]) -> None:
    """No value can add a header."""
    assert await why(transport.send(Request("GET", "http://127.0.0.1:1/", headers))) == "bad_header"


async def test_a_host_that_hangs_does_not_keep_others_waiting(transport: Transport) -> None:
    """All its connections are taken and more wait; another host answers at once."""
    taken = asyncio.Semaphore(0)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.release()
        await asyncio.Event().wait()

    async with serving(take) as slow, serving(OK) as fast:
        waiting = [
            asyncio.create_task(transport.send(Request("GET", slow.url))) for _ in range(CONNECTIONS_PER_HOST + 20)
        ]
        for _ in range(CONNECTIONS_PER_HOST):
            await asyncio.wait_for(taken.acquire(), 30)
        assert (await transport.send(Request("GET", fast.url), timeout=30)).status == 200
        assert slow.connections == CONNECTIONS_PER_HOST
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_subscribers_that_hang_do_not_keep_others_at_the_same_host_waiting() -> None:
    """Who delivers decides how much is under way; another bound here would be taken for a subscriber's fault."""
    hanging, count = asyncio.Semaphore(0), 300
    transport = Transport(tls=NO_TLS, allow_networks=[ip_network("127.0.0.0/8")])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if hanging_server.connections <= count:
            hanging.release()
            await asyncio.Event().wait()
        writer.write(OK)
        await writer.drain()

    async with serving(answer) as hanging_server:
        send = partial(transport.send, Request("POST", hanging_server.url), guarded=True)
        waiting = [asyncio.create_task(send()) for _ in range(count)]
        for _ in range(count):
            await asyncio.wait_for(hanging.acquire(), 30)
        assert (await send(timeout=5)).status == 200
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await transport.close()


async def test_memory_does_not_follow_what_is_sent() -> None:
    """50 answers of 10 MB at once are read to their limits; the process grows by little."""
    body = b"x" * LONG
    said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=65_536)
        writer.write(said)
        for start in range(0, LONG, 65_536):
            writer.write(body[start : start + 65_536])
            await writer.drain()

    transport = Transport(tls=NO_TLS)
    async with serving(flood) as server:
        before = resident()
        found = await asyncio.gather(*(transport.send(Request("GET", server.url), max_body=4096) for _ in range(50)))
        grown = resident() - before
    assert all(response.truncated and len(response.body) == 4096 for response in found)
    assert grown < 40 * 1024 * 1024
    await transport.close()


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("guarded", "recovers", "ends", "requests"),
    [(True, True, "200", 3), (True, False, "cut", 3), (False, True, "cut", 2)],
)
async def test_a_pooled_connection_that_died_is_replaced_once_and_for_subscribers_alone(
    guarded: bool, recovers: bool, ends: str, requests: int
) -> None:
    """A server that drops connections between two posts costs a delivery nothing; if the new one dies as well, that is
    the answer. Amazon's calls are never repeated here: they are not safe to."""
    carried: dict[asyncio.StreamWriter, int] = {}

    async def says(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carried[writer] = carried.get(writer, 0) + 1
        if carried[writer] > 1 or (len(carried) > 1 and not recovers):
            raise ConnectionResetError
        writer.write(OK)
        await writer.drain()

    transport = Transport(tls=NO_TLS, allow_networks=[ip_network("127.0.0.0/8")])
    async with serving(says) as server:
        post = Request("POST", server.url, {}, b"x")
        assert (await transport.send(post, guarded=guarded)).status == 200
        try:
            ended = str((await transport.send(post, guarded=guarded)).status)
        except TransportError as error:
            ended = error.reason
        await transport.close()
        assert (ended, len(server.requests)) == (ends, requests)


async def test_an_answer_that_ends_too_soon_is_not_asked_for_again() -> None:
    """The subscriber has seen the post: only a connection that was dead before is replaced. And it has said 200."""
    carried: list[int] = []

    async def says(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carried.append(1)
        writer.write(OK if len(carried) == 1 else b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
        await writer.drain()
        if len(carried) > 1:
            raise ConnectionResetError

    transport = Transport(tls=NO_TLS, allow_networks=[ip_network("127.0.0.0/8")])
    async with serving(says) as server:
        post = Request("POST", server.url, {}, b"x")
        await transport.send(post, guarded=True)
        answer = await transport.send(post, guarded=True)
        await transport.close()
        assert (answer.status, answer.truncated, answer.note) == (200, True, CUT)
        assert len(server.requests) == 2


@pytest.mark.parametrize(("method", "guarded"), [("POST", True), ("GET", False)])
async def test_the_second_connection_has_the_whole_time_for_connecting(method: str, guarded: bool) -> None:
    """The first connection broke only after that time, without an answer."""
    patience = 0.5

    async def says(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 2:
            await asyncio.sleep(patience + 0.1)
            raise ConnectionResetError
        writer.write(OK)
        await writer.drain()

    transport = Transport(tls=NO_TLS, allow_networks=[ip_network("127.0.0.0/8")])
    async with serving(says) as server:
        request = Request(method, server.url)
        await transport.send(request, guarded=guarded)
        answer = await transport.send(request, guarded=guarded, connect_timeout=patience, timeout=30)
        await transport.close()
        assert (answer.status, len(server.requests), server.connections) == (200, 3, 2)


@pytest.mark.parametrize(("method", "guarded"), [("POST", True), ("GET", False), ("POST", False)])
async def test_closing_ends_requests_and_sends_none_again(method: str, guarded: bool) -> None:
    """Their connections were closed on this side, so nothing shows that they were dead before."""
    asked = asyncio.Event()

    async def says(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1:
            writer.write(OK)
            await writer.drain()
        else:
            asked.set()

    transport = Transport(tls=NO_TLS, allow_networks=[ip_network("127.0.0.0/8")])
    async with serving(says) as server:
        request = Request(method, server.url)
        await transport.send(request, guarded=guarded)
        sending = asyncio.create_task(transport.send(request, guarded=guarded, timeout=30))
        await asyncio.wait_for(asked.wait(), 30)
        await transport.close()
        assert await why(sending) == "cut"
        assert (len(server.requests), server.connections) == (2, 1)


async def test_closing_lets_no_request_connect_that_waited(transport: Transport) -> None:
    """A request that waited for its turn does not connect; requests in progress end."""
    taken = asyncio.Semaphore(0)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.release()
        await asyncio.Event().wait()

    async with serving(take) as server:
        send = partial(transport.send, Request("POST", server.url), timeout=30, connect_timeout=30)
        sending = [asyncio.create_task(why(send())) for _ in range(CONNECTIONS_PER_HOST + 20)]
        for _ in range(CONNECTIONS_PER_HOST):
            await asyncio.wait_for(taken.acquire(), 30)
        await transport.close()
        assert set(await asyncio.gather(*sending)) == {"cut"}
        assert server.connections == CONNECTIONS_PER_HOST


@pytest.mark.parametrize("guarded", [True, False])
async def test_of_many_hosts_nothing_is_left_over(monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    """Nothing of a host remains: no name, no connection, no count of its requests."""
    monkeypatch.setattr("receiver.transport.pool.IDLE", 0.1)
    hosts = [f"h{number}.example" for number in range(100)]
    async with serving(then_close(OK)) as server:
        names = Names({host: [[("127.0.0.1", server.port)]] for host in [*hosts, "last.example"]})
        allow = [ip_network("127.0.0.0/8")]
        transport = Transport(tls=NO_TLS, allow_networks=allow, resolver=names, dns_ttl=0)
        for host in [*hosts, "last.example"]:
            assert (await transport.send(Request("GET", f"http://{host}/"), guarded=guarded, timeout=30)).status == 200
        (pool,) = transport._pools.values()
        await until(lambda: not pool._open and not pool._idle, "all connections have ended")
        assert len(pool._names) == 1
        assert not pool._places_of
        await transport.close()


async def test_an_answer_that_comes_before_the_request_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An overloaded server answers without reading the request, as ours does. The request is then not sent."""

    class Early(Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.data_received(b"HTTP/1.1 503 Full\r\nRetry-After: 7\r\n")
            self.data_received(b"Content-Length: 0\r\n\r\n")

    monkeypatch.setattr("receiver.transport.pool.Connection", Early)
    transport = Transport(tls=NO_TLS)
    async with serving(OK) as server:
        for _ in range(2):
            answer = await transport.send(Request("POST", server.url, {}, b"x"), timeout=30)
            assert (answer.status, answer.headers["retry-after"]) == (503, "7")
        await transport.close()
        assert (server.connections, server.requests) == (2, [])


async def test_a_cancellation_when_the_answer_is_whole_leaks_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is kept for the next request."""

    class Cancels(Connection):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            sending.cancel()

    monkeypatch.setattr("receiver.transport.pool.Connection", Cancels)
    transport = Transport(tls=NO_TLS)
    async with serving(OK) as server:
        for _ in range(2):
            sending = asyncio.create_task(transport.send(Request("GET", server.url), timeout=30))
            with pytest.raises(asyncio.CancelledError):
                await sending
        await transport.close()
        assert (server.connections, len(server.requests)) == (1, 2)

"""Odd things that come over the wire: offered upgrades, transfer codings, traces; too many, and too often wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from structlog.contextvars import get_contextvars

from receiver.http.headers import Headers, is_plain, tidy_path, trace_of, traceparent_of
from receiver.http.limits import SignInLimit, TooManyAttempts, address_of
from receiver.http.protocol import Protocol
from receiver.http.server import server
from receiver.settings import Settings
from receiver.store import Store
from tests.http import kit
from tests.http.kit import READER, Service, everything, running, settings, until
from tests.http.test_ipn_limits import HEAD, Judge, status_of, talk

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def with_http(**http: Any) -> Settings:
    chosen = settings()
    return chosen.model_copy(update={"http": chosen.http.model_copy(update=http)})


@pytest.fixture
async def judged(store: Store) -> AsyncIterator[tuple[Service, Judge]]:
    judge = Judge()
    async with running(settings(), store, judge) as service:
        yield service, judge


@pytest.mark.parametrize("cut", [0, 1, 40, 120, -1])
async def test_an_offered_upgrade_is_passed_over(judged: tuple[Service, Judge], cut: int) -> None:
    """With a body in one piece or two, and a pipelined request after it. Java's client offers h2c with each POST."""
    service, judge = judged
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    first = HEAD + offer + b"Content-Length: 5\r\n\r\nfirst"
    second = HEAD + b"Connection: close\r\nContent-Length: 6\r\n\r\nsecond"
    whole = first + second
    answer = await talk(service, whole[:cut], whole[cut:]) if cut else await talk(service, whole)
    assert answer.count(b"HTTP/1.1 200 OK") == 2, answer
    assert judge.bodies == [b"first", b"second"]


async def test_an_offer_keeps_what_else_connection_says(judged: tuple[Service, Judge]) -> None:
    """`close` is obeyed, chunks are read, and many offers in a row are all passed over."""
    service, judge = judged
    chunked = b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    many = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" * 20
    last = HEAD + b"Connection: close, upgrade\r\nUpgrade: h2c\r\n" + chunked
    answer = await talk(service, many + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 21, answer[-300:]
    assert judge.bodies == [b"body"]


async def test_an_address_with_doubled_slashes_takes_notifications(judged: tuple[Service, Judge]) -> None:
    """A 404 would be final to SNS. Other paths stay as they are."""
    service, judge = judged
    for path in ("/ipn//us", "//ipn", "/ipn///us//", "//ipn//"):
        assert (await service.call("POST", path, body=b"{}")).status == 200, path
    assert len(judge.bodies) == 4
    assert (await service.get("//v1/refunds")).status == 404
    assert tidy_path("/ipnx//") == "/ipnx//"


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip,chunked", b"identity, chunked"])
async def test_another_transfer_coding_is_501(judged: tuple[Service, Judge], coding: bytes) -> None:
    """And never read as if it were the body; SNS takes a 5xx as `later`."""
    service, judge = judged
    answer = await talk(service, HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
    assert status_of(answer) == 501
    assert b"connection: close" in answer.lower()
    assert judge.bodies == []
    assert is_plain([(b"transfer-encoding", b"Chunked")])


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nab"),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nX: y"),
    ],
)
async def test_what_begins_no_request_holds_no_connection(
    store: Store, monkeypatch: pytest.MonkeyPatch, first: bytes, then: bytes
) -> None:
    """After an answer: empty lines, or a body that no handler reads. The idle time between two requests continues."""
    monkeypatch.setattr(kit, "server", partial(server, timeout_keep_alive=0.5))
    async with running(with_http(), store, Judge()) as service:
        reader, writer = await service.connect()
        writer.write(first)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(then)
        await everything(reader)
        writer.close()


async def test_a_request_outlives_the_rest_in_which_it_began(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head began before the answer to the one before it, and ended after it."""
    monkeypatch.setattr(kit, "server", partial(server, timeout_keep_alive=0.5))
    go_on = [asyncio.Event(), asyncio.Event()]
    waits = iter(go_on)
    judge = Judge(lambda: next(waits).wait())
    async with running(with_http(), store, judge) as service:
        reader, writer = await service.connect()
        one = HEAD + b"Content-Length: 4\r\n\r\nbody"
        writer.write(one + one[:20])
        await until(lambda: len(judge.bodies) == 1)
        go_on[0].set()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(one[20:])
        await until(lambda: len(judge.bodies) == 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.8)
        go_on[1].set()
        assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_who_takes_nothing_of_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand of them would be all connections that there may be."""
    monkeypatch.setattr(Protocol, "stall_timeout", 0.3)
    ended = asyncio.Event()

    async def much(scope: Scope, _: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _piece in range(1000):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        ended.set()

    async with kit.serving(much, settings(), None) as service:
        _, writer = await service.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(ended.wait(), 30)
        writer.transport.abort()


async def test_a_request_hears_that_the_client_is_gone_also_with_others_behind_it() -> None:
    """What waits for something to happen would go on waiting."""
    begun, heard = asyncio.Event(), asyncio.Event()

    async def waits(scope: Scope, receive: Receive, _: Send) -> None:
        assert scope["type"] == "http"
        await receive()
        begun.set()
        assert (await receive())["type"] == "http.disconnect"
        heard.set()

    async with kit.serving(waits, settings(), None) as service:
        _, writer = await service.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        await asyncio.wait_for(begun.wait(), 30)
        writer.transport.abort()
        await asyncio.wait_for(heard.wait(), 30)


async def until_true(ask: Any) -> None:
    async with asyncio.timeout(30):
        while not await ask():  # noqa: ASYNC110 - the other side of a socket has no event
            await asyncio.sleep(0.01)


async def test_a_valid_traceparent_is_in_the_log(store: Store) -> None:
    """With every line of the request, and with no line of the next one on the same connection."""
    seen: list[Any] = []

    async def look() -> None:
        seen.append(get_contextvars().get("trace_id"))

    async with running(settings(), store, Judge(look)) as service:
        for headers in ({"traceparent": PARENT}, {}):
            await service.call("POST", "/ipn", body=b"{}", headers=headers)
    assert seen == [TRACE, None]


@pytest.mark.parametrize(
    "text",
    [
        "",
        PARENT.upper(),
        PARENT[:-1],
        f"{PARENT}-more",
        f"ff{PARENT[2:]}",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-b7ad6b7169203331-01",
    ],
)
def test_a_wrong_traceparent_is_passed_over(text: str) -> None:
    headers = [(b"traceparent", text.encode())]
    assert (trace_of(headers), traceparent_of(headers)) == ({}, "")


@pytest.mark.parametrize("flags", ["00", "01", "03", "ff"])
def test_a_traceparent_is_passed_on_as_it_came(flags: str) -> None:
    """Sampled or not, and with flags that came after the standard: what they mean is not ours to say."""
    text = f"{PARENT[:-2]}{flags}"
    assert traceparent_of([(b"tracestate", b"x=1"), (b"traceparent", f" {text}\t".encode())]) == text


def test_a_later_version_may_say_more_and_two_say_nothing() -> None:
    """A later version is good for the log; its length and content are not known yet."""
    later = [(b"traceparent", f"cc{PARENT[2:]}-what-the-future".encode())]
    assert (trace_of(later), traceparent_of(later)) == ({"trace_id": TRACE}, "")
    two = [(b"traceparent", PARENT.encode())] * 2
    assert (trace_of(two), traceparent_of(two)) == ({}, "")


async def test_too_many_wrong_tokens_are_429(store: Store) -> None:
    """With the time to wait; the right token has to wait as well, else guessing would go on. /ipn does not mind."""
    async with running(with_http(failed_sign_ins=3), store, Judge()) as service:
        for number in range(3):
            assert (await service.get("/v1/refunds", token=f"wrong-{number}")).status == 401
        for token in ("wrong", READER):
            answer = await service.get("/v1/refunds", token=token)
            assert (answer.status, answer.json["reason"]) == (429, "too_many_attempts")
            assert 1 <= int(answer.headers["Retry-After"]) <= 6
        assert (await service.call("POST", "/ipn", body=b"{}")).status == 200
        assert (await service.get("/v1/refunds", token=None)).json["reason"] == "token_missing"


async def test_behind_a_trusted_proxy_the_client_counts(store: Store) -> None:
    """Each client has its own failures; without trust all have the proxy's."""
    for trusted, other in (((ip_network("127.0.0.0/8"),), 200), ((), 429)):
        async with running(with_http(failed_sign_ins=1, trusted_proxies=trusted), store, Judge()) as service:
            await service.get("/v1/refunds", token="wrong", X_Forwarded_For="198.51.100.1")
            assert (await service.get("/v1/refunds", X_Forwarded_For="198.51.100.1")).status == 429
            assert (await service.get("/v1/refunds", X_Forwarded_For="198.51.100.2")).status == other


def request_of(host: str | None) -> Request:
    return Request({"type": "http", "headers": [], "client": (host, 1) if host is not None else None})


def test_a_failure_comes_back_with_time() -> None:
    now = 0.0
    attempts = SignInLimit(2, refill=6, timer=lambda: now)
    client = request_of("192.0.2.1")
    for _ in range(2):
        attempts.check(client)
        attempts.failed(client)
    with pytest.raises(TooManyAttempts) as refused:
        attempts.check(client)
    assert refused.value.retry_after == 6
    now = 5.9
    with pytest.raises(TooManyAttempts):
        attempts.check(client)
    now = 6.0
    attempts.check(client)
    attempts.failed(client)
    with pytest.raises(TooManyAttempts):
        attempts.check(client)
    now = 1_000.0
    attempts.check(client)
    assert len(attempts) == 0


def test_the_table_does_not_grow() -> None:
    attempts = SignInLimit(1, most=3, timer=lambda: 0.0)
    for number in range(10):
        attempts.failed(request_of(f"192.0.2.{number}"))
    assert len(attempts) == 3
    attempts.check(request_of("192.0.2.0"))
    with pytest.raises(TooManyAttempts):
        attempts.check(request_of("192.0.2.9"))
    off = SignInLimit(0)
    off.failed(request_of("192.0.2.1"))
    off.check(request_of("192.0.2.1"))
    assert len(off) == 0


def test_an_ipv6_client_is_its_network() -> None:
    """A client with one address has 2**64 of them."""
    assert address_of(request_of("2001:db8::1")) == address_of(request_of("2001:db8::ffff:2")) == "2001:db8::/64"
    assert address_of(request_of("2001:db8:0:1::1")) != "2001:db8::/64"
    assert address_of(request_of("::ffff:192.0.2.1")) == "192.0.2.1"
    assert (address_of(request_of(None)), address_of(request_of("unix"))) == ("", "unix")


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"x-one", b"a\r\nset-cookie: b=c"), (b"x-one", b"a\nb"), (b"x-one", b"a\x00"), (b"x one", b"a"), (b"", b"a")],
)
async def test_a_header_that_would_be_two_is_never_written(name: bytes, value: bytes) -> None:
    """Nothing of the answer is written then. A correct header is written unchanged, with the framing headers."""

    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await receive()
        bad = [(name, value)] if scope["path"] == "/bad" else [(b"X-One", b"\xe4 b\tc"), (b"content-length", b"2")]
        headers = [(b"x-first", b"1"), *bad] if scope["path"] != "/chunked" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    async with kit.serving(answers, settings(), None) as service:
        end = b"Host: x\r\nConnection: close\r\n\r\n"
        assert await talk(service, b"GET /bad HTTP/1.1\r\n" + end) == b""
        good = await talk(service, b"GET /good HTTP/1.1\r\n" + end)
        assert re.fullmatch(
            rb"HTTP/1.1 200 OK\r\ndate: [^\r\n]+\r\nx-first: 1\r\nX-One: \xe4 b\tc\r\n"
            rb"content-length: 2\r\nconnection: close\r\n\r\n{}",
            good,
        ), good
        chunked = await talk(service, b"GET /chunked HTTP/1.1\r\n" + end)
        assert chunked.endswith(b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")


class Counting:
    """A transport that records each write."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self.writes = transport, list[bytes]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))
        self._transport.write(data)


@pytest.mark.parametrize(
    ("method", "headers", "bodies", "written"),
    [
        ("GET", [(b"content-length", b"2")], [b"{}"], [b"{}"]),
        ("GET", [(b"content-length", b"4")], [b"{}", b"[]"], [b"{}", b"[]"]),
        ("GET", [(b"content-length", b"2")], [b"", b"{}"], [b"", b"{}"]),
        ("HEAD", [(b"content-length", b"2")], [b"{}"], [b""]),
        ("GET", [], [b"{}"], [b"", b"2\r\n{}\r\n0\r\n\r\n"]),
    ],
)
async def test_the_head_is_sent_with_the_first_part_of_the_body(
    monkeypatch: pytest.MonkeyPatch, method: str, headers: Headers, bodies: list[bytes], written: list[bytes]
) -> None:
    """An empty first part sends it alone, as ASGI has it."""
    made, transports = Protocol.connection_made, list[Counting]()

    def counting(protocol: Protocol, transport: asyncio.Transport) -> None:
        transports.append(Counting(transport))
        made(protocol, transports[-1])  # type: ignore[arg-type]  # it has all that a transport has

    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        assert transports[0].writes == []
        for at, body in enumerate(bodies):
            await send({"type": "http.response.body", "body": body, "more_body": at + 1 < len(bodies)})

    monkeypatch.setattr(Protocol, "connection_made", counting)
    async with kit.serving(answers, settings(), None) as service:
        answer = await talk(service, f"{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, _ = answer.partition(b"\r\n\r\n")
        first, *rest = (each for each in transports[0].writes if each)
        assert [first.removeprefix(head + b"\r\n\r\n"), *rest] == written
        assert answer == b"".join(transports[0].writes)

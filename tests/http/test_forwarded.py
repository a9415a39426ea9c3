"""What proxies report about the client. Trailer fields report nothing."""

from __future__ import annotations

import asyncio
import io
import logging
import re
from html import unescape
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote_plus

import pytest
import structlog
from starlette.types import Receive, Scope, Send
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from receiver.runtime import logs
from receiver.store import Store
from tests.http import kit
from tests.http.kit import READER, everything, running, settings
from tests.http.test_ipn_limits import HEAD, LIMIT, Judge, status_of, talk
from tests.http.test_wire import with_http

PROXY = (ip_network("127.0.0.1/32"),)


@pytest.mark.parametrize(
    ("said", "secure"),
    [
        (("https",), True),
        (("HTTPS",), True),
        (("https,http",), True),
        (("https, https",), True),
        (("https", "http"), True),
        (("wss",), True),
        (("http",), False),
        (("Http, https",), False),
        (("ws",), False),
        (("",), False),
        (("ssl",), True),
        (("\x7f" * 100,), True),
        (("\xa0",), True),
        (("\x85,\xa0",), True),
    ],
)
async def test_the_scheme_is_how_the_browser_came(store: Store, said: tuple[str, ...], secure: bool) -> None:
    """The first entry of a list, in any letter case; an unknown value never makes a cookie without Secure."""
    async with running(with_http(trusted_proxies=PROXY), store, Judge()) as service:
        heads = b"".join(b"X-Forwarded-Proto: %s\r\n" % each.encode("latin-1") for each in said)
        head = b"GET /sign-in HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + heads + b"\r\n"
        answer = await talk(service, head)
        if "\x7f" in said[0]:
            assert status_of(answer) == 400
            return
        cookie = next(line for line in answer.split(b"\r\n") if line.lower().startswith(b"set-cookie:"))
        assert (b"__Host-" in cookie, b"Secure" in cookie) == (secure, secure)


async def test_nobody_else_is_believed(store: Store) -> None:
    """A client that is no trusted proxy says nothing about itself."""
    async with running(settings(), store, Judge()) as service:
        answer = await service.get("/sign-in", token=None, X_Forwarded_Proto="https")
        assert "Secure" not in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("form", ["text", "json"])
async def test_what_a_proxy_passes_on_commands_no_terminal(store: Store, form: str) -> None:
    """A header may hold C1 controls: as the client's address they are in the log, as escapes."""
    stream, root = io.StringIO(), logging.getLogger()
    before = root.handlers, root.level
    logs.configure(format=form, stream=stream)
    # Else the loggers of all modules would keep to this stream.
    structlog.configure(cache_logger_on_first_use=False)
    try:
        async with running(with_http(trusted_proxies=PROXY), store, Judge()) as service:
            page = await talk(service, b"GET /sign-in HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            csrf = re.search(rb'name="csrf" value="([^"]+)"', page)
            cookie = re.search(rb"(?i)set-cookie: ([^;]+)", page)
            assert csrf
            assert cookie
            body = b"token=wrong&csrf=" + quote_plus(unescape(csrf[1].decode())).encode()
            answer = await talk(
                service,
                b"POST /sign-in HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: http://x\r\nCookie: " + cookie[1],
                b"\r\nX-Forwarded-For: \x9b2J\x85forged\r\nContent-Type: application/x-www-form-urlencoded\r\n",
                b"Content-Length: %d\r\n\r\n" % len(body) + body,
            )
            assert status_of(answer) == 401
    finally:
        structlog.reset_defaults()
        root.handlers, root.level = before
    lines = stream.getvalue().removesuffix("\n").split("\n")
    assert [line for line in lines if not line.isprintable()] == []
    (failed,) = [line for line in lines if "dashboard.sign_in_failed" in line]
    assert (r"\u009b2J\u0085forged" if form == "json" else r"'\x9b2J\x85forged'") in failed


async def seen(*pieces: bytes) -> tuple[list[Any], bytes]:
    """The headers that the application has when the body is complete, and the answer."""
    found: list[Any] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        while (await receive()).get("more_body"):
            pass
        found.extend(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with kit.serving(look, settings(), None) as service:
        return found, await talk(service, *pieces)


CHUNKED = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


async def test_trailer_fields_are_not_headers() -> None:
    """Whatever they say, it is about nothing; a request that follows has its own headers."""
    first = (
        HEAD
        + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nAuthorization: Bearer x\r\nX-Forwarded-For: y\r\n\r\n"
    )
    found, heard = await seen(first + HEAD + b"X-Own: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert heard.count(b"HTTP/1.1 200") == 2
    assert {name for name, _ in found} == {b"host", b"transfer-encoding", b"x-own", b"connection", b"content-length"}


async def test_nobody_signs_in_by_a_trailer(store: Store) -> None:
    """Neither in the piece of the head nor later."""
    async with running(settings(), store, Judge()) as service:
        for cut in (0, 30):
            whole = b"0\r\nAuthorization: Bearer %s\r\n\r\n" % READER.encode()
            head = b"GET /v1/refunds HTTP/1.1\r\nHost: x\r\n" + CHUNKED
            answer = await talk(service, head + whole[:cut], whole[cut:])
            assert status_of(answer) == 401


async def test_trailers_have_bounds(store: Store) -> None:
    """Many of them are 400, like many headers; one without an end is cut after some hundred KiB."""
    async with running(settings(), store, Judge()) as service:
        many = b"".join(b"X-%d: y\r\n" % number for number in range(9000))
        answer = await talk(service, HEAD + CHUNKED + b"0\r\n" + many + b"\r\n")
        assert answer == b"" or status_of(answer) == 400
        for endless in (b"0\r\nX-Endless: ", b"5;endless="):
            reader, writer = await service.connect()
            writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + endless)
            sent, heard = 0, asyncio.ensure_future(everything(reader))
            try:
                async with asyncio.timeout(30):
                    while not heard.done():
                        writer.write(b"a" * LIMIT)
                        await writer.drain()
                        sent += LIMIT
                        await asyncio.sleep(0)
            except ConnectionError:
                pass
            await heard
            writer.close()
            assert sent < 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("said", "user"),
    [
        ((b"ann@shop.example",), "ann@shop.example"),
        ((b"  ann  ",), "ann"),
        (("Jos\u00e9 L\u00f3pez".encode(),), "Jos\u00e9 L\u00f3pez"),
        ((b"x" * 128,), "x" * 128),
        ((b"x" * 129,), None),
        (("ann\x9b31m".encode(),), None),
        (("ann\u202e".encode(),), None),
        ((b"ann\xe9",), None),
        ((b"ann", b"bob"), None),
        ((b"",), None),
        ((), None),
    ],
)
async def test_a_proxy_says_who_is_signed_in(store: Store, said: tuple[bytes, ...], user: str | None) -> None:
    """The person stands in the log beside the token; what cannot be a name is left out, and that is logged once."""
    http = with_http(trusted_proxies=PROXY, user_header="X-Auth-Request-Email")
    async with running(http, store, Judge()) as service:
        with capture_logs(processors=[merge_contextvars]) as lines:
            for _ in range(2):
                await talk(service, asked(*(b"X-AUTH-Request-Email: " + each for each in said)))
    answered = [line for line in lines if line["event"] == "http.answered"]
    assert [(line["token_name"], line.get("user")) for line in answered] == [("reader", user)] * 2
    ignored = [line for line in lines if line["event"] == "http.user_header_ignored"]
    assert len(ignored) == (1 if user is None and any(said) else 0)
    assert not any(each.decode("latin-1") in repr(ignored) for each in said if each)


@pytest.mark.parametrize("trusted", [(), (ip_network("192.0.2.0/24"),)])
@pytest.mark.parametrize("header", [b"X-Forwarded-User", b"User", b"X-Forwarded-For"])
async def test_a_forged_person_is_ignored(store: Store, trusted: tuple[Any, ...], header: bytes) -> None:
    """A client that is not a trusted proxy names no person, whatever it sends; that is no error."""
    async with running(with_http(trusted_proxies=trusted, user_header="X-Forwarded-User"), store, Judge()) as service:
        with capture_logs(processors=[merge_contextvars]) as lines:
            await talk(service, asked(header + b": mallory"))
    assert [(line["event"], line.get("user")) for line in lines] == [("http.answered", None)]


async def test_one_request_leaves_no_person_for_the_next(store: Store) -> None:
    """Both come on one connection of the proxy, and the second brings no header."""
    http = with_http(trusted_proxies=PROXY, user_header="X-Forwarded-User")
    async with running(http, store, Judge()) as service:
        with capture_logs(processors=[merge_contextvars]) as lines:
            for named in ({"X-Forwarded-User": "ann"}, {}):
                answer = await service.call("GET", "/v1/refunds", token=READER, headers=named)
                assert answer.status == 200
    assert [line.get("user") for line in lines] == ["ann", None]


async def test_without_the_setting_no_header_names_a_person(store: Store) -> None:
    async with running(with_http(trusted_proxies=PROXY), store, Judge()) as service:
        with capture_logs(processors=[merge_contextvars]) as lines:
            await talk(service, asked(b"X-Forwarded-User: ann", b"User: ann"))
    assert [line.get("user") for line in lines] == [None]


def asked(*headers: bytes) -> bytes:
    """A list of refunds, with these lines in the head."""
    lines = (b"Authorization: Bearer " + READER.encode(), b"Connection: close", *headers)
    return b"GET /v1/refunds HTTP/1.1\r\nHost: x\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"

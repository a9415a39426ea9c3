"""TLS and the signing certificate's fetch: trust, names, sizes and times, against local servers."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
import trustme

from receiver.errors import CertificateUnavailable, TransportError
from receiver.exchange import Request
from receiver.transport.client import MAX_CERTIFICATE, Transport
from receiver.transport.connection import Connection
from tests.kit.webserver import Names, Says, WebServer, serving

HOST = "sns.us-east-1.amazonaws.com"
URL = f"https://{HOST}/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
PEM = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def answer(body: bytes = PEM, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def tls_for(host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(host).configure_cert(context)
    return context


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The system's trust store is the authority of the tests, by the variable that OpenSSL reads."""
    path = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


@asynccontextmanager
async def amazon(says: Says | bytes, host: str = HOST) -> AsyncIterator[tuple[Transport, WebServer]]:
    """A server with a certificate for `host`, and a transport that finds it under SNS's name."""
    async with serving(says, tls_for(host)) as server:
        transport = Transport(resolver=Names({HOST: [[("127.0.0.1", server.port)]]}))
        yield transport, server
        await transport.close()


async def refusal(fetching: Awaitable[bytes]) -> str:
    with pytest.raises((TransportError, CertificateUnavailable)) as caught:
        await fetching
    return f"{type(caught.value).__name__} {caught.value.reason}"


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_is_fetched() -> None:
    """One GET without cookies or encodings, and the bytes as they came."""
    async with amazon(answer()) as (transport, server):
        assert await transport.fetch_certificate(URL) == PEM
    assert len(server.requests) == 1
    line, *headers = server.requests[0].lower().split(b"\r\n")
    assert line == b"get /simplenotificationservice-0123456789abcdef0123456789abcdef.pem http/1.1"
    assert b"accept-encoding: identity" in headers
    assert b"host: sns.us-east-1.amazonaws.com" in headers


async def test_the_systems_trust_store_decides() -> None:
    """Without `SSL_CERT_FILE` the same server is a stranger; one try is enough to know."""
    async with amazon(answer()) as (transport, server):
        assert await refusal(transport.fetch_certificate(URL)) == "TransportError tls_failed"
    assert server.requests == []


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_for_another_name_is_refused() -> None:
    """What a rebound or poisoned name would meet."""
    async with amazon(answer(), "sns.us-east-1.amazonaws.com.evil.example") as (transport, server):
        with pytest.raises(TransportError, match="Hostname mismatch") as caught:
            await transport.fetch_certificate(URL)
    assert caught.value.reason == "tls_failed"
    assert server.requests == []


@pytest.mark.usefixtures("trusted")
async def test_a_server_without_tls_is_refused() -> None:
    """Plain HTTP at the same port."""
    async with serving(answer(), greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        transport = Transport(resolver=Names({HOST: [[("127.0.0.1", server.port)]]}))
        with pytest.raises(TransportError) as caught:
            await transport.send(Request("GET", URL), timeout=30)
        await transport.close()
    assert caught.value.reason == "tls_failed"
    assert server.requests == []


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", f"http://{HOST}/x.pem", URL.replace("https", "HTTPS")])
async def test_only_https_is_fetched(url: str) -> None:
    """Nothing is looked up for another scheme."""
    names = Names({})
    assert await refusal(Transport(resolver=names).fetch_certificate(url)) == "TransportError bad_url"
    assert names.asked == []


ANSWERS: dict[str, bytes] = {
    "redirect": answer(b"", "302 Found", "Location: https://sns.us-east-1.amazonaws.com/other.pem\r\n"),
    "404 with a PEM": answer(PEM, "404 Not Found"),
    "403": answer(b"", "403 Forbidden"),
    "206": answer(PEM, "206 Partial Content"),
    "gzip": answer(gzip.compress(PEM), "200 OK", "Content-Encoding: gzip\r\n"),
    "too large": answer(b"x" * (MAX_CERTIFICATE + 1)),
}


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("said", ANSWERS)
async def test_any_other_answer_is_no_certificate(said: str) -> None:
    """Asked once, nothing followed or unpacked."""
    async with amazon(ANSWERS[said]) as (transport, server):
        found = await refusal(transport.fetch_certificate(URL))
    assert found == "CertificateUnavailable certificate_not_found"
    assert len(server.requests) == 1


@pytest.mark.usefixtures("trusted")
async def test_as_much_as_the_limit_is_a_certificate() -> None:
    """16 KiB."""
    async with amazon(answer(b"x" * MAX_CERTIFICATE)) as (transport, _):
        assert len(await transport.fetch_certificate(URL)) == MAX_CERTIFICATE


@pytest.mark.usefixtures("trusted")
async def test_a_huge_answer_is_cut_off() -> None:
    """Of 100 MB little is sent before the connection is closed."""
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
        for _ in range(1600):
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with amazon(flood) as (transport, _):
        assert await refusal(transport.fetch_certificate(URL)) == "CertificateUnavailable certificate_not_found"
    assert sent < 30_000_000


def in_turn(*answers: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    left = list(answers)

    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = left.pop(0)
        writer.write(said)
        await writer.drain()
        if not said:
            writer.close()

    return says


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("first", [answer(b"", "503 Slow Down"), answer(b"", "500 X"), b""], ids=["503", "500", "cut"])
async def test_passing_trouble_is_tried_once_more(first: bytes) -> None:
    """A 5xx or a cut, then the certificate."""
    async with amazon(in_turn(first, answer())) as (transport, server):
        assert await transport.fetch_certificate(URL) == PEM
    assert len(server.requests) == 2


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("said", "reason"), [(answer(b"", "503 Slow Down"), "server_error"), (answer(b"", "429 X"), "server_error")]
)
async def test_lasting_trouble_is_ours_not_the_senders(said: bytes, reason: str) -> None:
    """Two tries, then `TransportError`: the notification may come again."""
    async with amazon(said) as (transport, server):
        assert await refusal(transport.fetch_certificate(URL)) == f"TransportError {reason}"
    assert len(server.requests) == 2


@pytest.mark.usefixtures("trusted")
async def test_a_slow_drip_ends_with_the_timeout() -> None:
    """Both tries together take no longer than the timeout."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with amazon(drip) as (transport, _):
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await refusal(transport.fetch_certificate(URL, timeout=0.3)) == "TransportError timeout"
        assert loop.time() - began < 1.0


@pytest.mark.usefixtures("trusted")
async def test_a_host_that_does_not_shake_hands_is_tried_twice_in_time() -> None:
    """It accepts the connection and says nothing: `connect_timeout` ends each try."""
    loop = asyncio.get_running_loop()
    async with serving(answer()) as server:
        transport = Transport(resolver=Names({HOST: [[("127.0.0.1", server.port)]]}))
        began = loop.time()
        assert (
            await refusal(transport.fetch_certificate(URL, timeout=1.0, connect_timeout=0.2))
            == "TransportError timeout"
        )
        assert loop.time() - began < 0.9
        await transport.close()
    assert (server.connections, server.requests) == (2, [])


async def test_a_name_that_cannot_be_looked_up_is_passing_trouble() -> None:
    """Asked twice."""
    names = Names({})
    transport = Transport(resolver=names)
    assert await refusal(transport.fetch_certificate(URL)) == "TransportError dns_failed"
    assert names.asked == [HOST, HOST]
    await transport.close()


@pytest.mark.usefixtures("trusted")
async def test_an_address_that_leads_to_another_has_its_words_too() -> None:
    """0.0.0.0 leads to 127.0.0.1: once the certificate has another name, once the host completes no handshake."""
    transport = Transport()
    async with serving(answer(), tls_for(HOST)) as named, serving(answer()) as silent:
        for server, patience, reason in ((named, 10, "tls_failed"), (silent, 0.2, "timeout")):
            with pytest.raises(TransportError) as caught:
                await transport.send(Request("GET", f"https://0.0.0.0:{server.port}/"), connect_timeout=patience)
            assert caught.value.reason == reason
    await transport.close()


@pytest.mark.usefixtures("trusted")
async def test_a_cancellation_when_tls_is_ready_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next connection gets the number of its socket."""

    class Cancels(Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            sending.cancel()

    async with amazon(answer()) as (transport, server):
        monkeypatch.setattr("receiver.transport.pool.Connection", Cancels)
        sending = asyncio.create_task(transport.fetch_certificate(URL))
        with pytest.raises(asyncio.CancelledError):
            await sending
        monkeypatch.undo()
        for _ in range(3):
            assert await transport.fetch_certificate(URL) == PEM
        assert (server.connections, len(server.requests)) == (2, 3)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("host", [".localhost", "a" * 64 + ".example"])
async def test_a_name_that_tls_cannot_express_is_refused(host: str) -> None:
    """A name with an empty part, and one with a part that is too long. Resolvers find the first."""
    async with serving(answer(), tls_for(HOST)) as server:
        transport = Transport(resolver=Names({host: [[("127.0.0.1", server.port)]]}))
        assert await refusal(transport.fetch_certificate(f"https://{host}/x.pem")) == "TransportError tls_failed"
        await transport.close()

"""The address guard over real sockets: no name, literal or change of mind leads a guarded request to a private host."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from receiver.errors import TransportError
from receiver.exchange import Request
from receiver.transport.addresses import networks
from receiver.transport.client import Transport
from tests.kit.webserver import Names, WebServer, serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Spares reading the trust store, which no test here needs."""
CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    async with serving(OK) as server:
        yield server


async def guarded(transport: Transport, url: str) -> str:
    """The reason for the refusal, or the status of the answer."""
    try:
        response = await transport.send(Request("POST", url), guarded=True, timeout=30)
    except TransportError as error:
        return error.reason
    finally:
        await transport.close()
    return str(response.status)


LITERALS = [
    "127.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[::]",
    "0.0.0.0",
    "10.0.0.1",
    "169.254.169.254",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "127.1",
    "127.0.0.1.",
    "0",
    "localhost",
    "LOCALHOST",
]


@pytest.mark.parametrize("host", LITERALS)
async def test_no_spelling_of_a_private_address_is_connected_to(server: WebServer, host: str) -> None:
    """Literals of every form, and the system's own name for itself."""
    transport = Transport(tls=NO_TLS)
    request = Request("POST", f"http://{host}:{server.port}/?secret")
    with pytest.raises(TransportError) as caught:
        await transport.send(request, guarded=True, timeout=30)
    await transport.close()
    assert caught.value.reason == "forbidden_address"
    assert "secret" not in caught.value.detail
    assert server.connections == 0


async def test_the_refusal_names_the_range(server: WebServer) -> None:
    """So that the operator knows what to allow."""
    transport = Transport(tls=NO_TLS)
    with pytest.raises(TransportError, match=r"127\.0\.0\.1: its address is not public \(loopback\)\."):
        await transport.send(Request("GET", server.url), guarded=True)
    await transport.close()


async def test_an_unguarded_request_reaches_it(server: WebServer) -> None:
    """Amazon's addresses are settings of the operator: a simulator lives on loopback."""
    transport = Transport(tls=NO_TLS)
    assert (await transport.send(Request("GET", server.url))).status == 200
    await transport.close()


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["127.0.0.1", "127.0.0.2"],
        ["::1", "127.0.0.1"],
        ["10.0.0.1", "192.168.0.1", "::ffff:127.0.0.1", "fe80::1"],
    ],
)
async def test_a_public_name_that_leads_to_private_addresses_is_refused(
    server: WebServer, addresses: list[str]
) -> None:
    """One address or several of both families, also on the path that races them."""
    names = Names({"hooks.example": [[(address, server.port) for address in addresses]]})
    assert await guarded(Transport(tls=NO_TLS, resolver=names), "http://hooks.example/") == "forbidden_address"
    assert server.connections == 0


async def test_an_allowed_network_is_reached_by_literal_and_by_name(server: WebServer) -> None:
    """An operator's own subscribers."""
    allow = networks(["127.0.0.0/8"])
    assert await guarded(Transport(tls=NO_TLS, allow_networks=allow), server.url) == "200"
    names = Names({"hooks.internal": [[("127.0.0.1", server.port)]]})
    assert await guarded(Transport(tls=NO_TLS, allow_networks=allow, resolver=names), "http://hooks.internal/") == "200"


async def test_of_several_addresses_the_fine_one_is_taken(server: WebServer) -> None:
    """The private one before it is passed over without a connection."""
    async with serving(OK) as private:
        names = Names({"hooks.example": [[("127.0.0.9", private.port), ("127.0.0.1", server.port)]]})
        transport = Transport(tls=NO_TLS, allow_networks=networks(["127.0.0.1/32"]), resolver=names)
        assert await guarded(transport, "http://hooks.example/") == "200"
        assert (private.connections, server.connections) == (0, 1)


async def test_a_fine_address_that_does_not_answer_is_a_failed_connection() -> None:
    """Not a forbidden address, although another one was refused."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        names = Names({"hooks.example": [[("127.0.0.9", port), ("127.0.0.1", port)]]})
        transport = Transport(tls=NO_TLS, allow_networks=networks(["127.0.0.1/32"]), resolver=names)
        assert await guarded(transport, "http://hooks.example/") == "connect_failed"


async def test_a_name_that_changes_its_address_gains_nothing() -> None:
    """First public (here: an allowed address), then private: every new connection is judged."""
    async with serving(CLOSE) as server:
        names = Names({"hooks.example": [[("127.0.0.1", server.port)], [("127.0.0.2", server.port)]]})
        transport = Transport(tls=NO_TLS, allow_networks=networks(["127.0.0.1/32"]), resolver=names, dns_ttl=0)
        request = Request("GET", "http://hooks.example/")
        assert (await transport.send(request, guarded=True)).status == 200
        with pytest.raises(TransportError) as caught:
            await transport.send(request, guarded=True)
        await transport.close()
    assert caught.value.reason == "forbidden_address"
    assert names.asked == ["hooks.example", "hooks.example"]
    assert server.connections == 1


async def test_a_connection_made_unguarded_is_not_lent_to_a_guarded_request(server: WebServer) -> None:
    """The pools are apart."""
    transport = Transport(tls=NO_TLS)
    assert (await transport.send(Request("GET", server.url))).status == 200
    assert await guarded(transport, server.url) == "forbidden_address"
    assert len(server.requests) == 1


async def test_refusals_at_the_same_time_do_not_mix(server: WebServer) -> None:
    """Each request hears about its own addresses."""
    transport = Transport(tls=NO_TLS, allow_networks=networks(["127.0.0.1/32"]))

    async def one(host: str) -> str:
        try:
            return str((await transport.send(Request("GET", f"http://{host}:{server.port}/"), guarded=True)).status)
        except TransportError as error:
            return error.detail

    found = await asyncio.gather(*(one(host) for host in ["127.0.0.1", "10.0.0.1", "[fe80::1]"] * 20))
    await transport.close()
    assert (
        found
        == [
            "200",
            "10.0.0.1: its address is not public (private).",
            "fe80::1: its address is not public (link_local).",
        ]
        * 20
    )

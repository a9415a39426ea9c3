"""Names, by a real name server on loopback: those that it does not answer keep no other waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest

from receiver.errors import TransportError
from receiver.exchange import Request
from receiver.transport.client import Transport
from receiver.transport.resolver import AsyncResolver
from tests.kit.nameserver import NameServer, nameserver
from tests.kit.processes import until
from tests.kit.webserver import serving
from tests.transport.test_client import NO_TLS, OK

SILENT = 300
"""Far more than a pool of threads would have."""


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    async with nameserver() as server:
        yield server


def transport_of(names: NameServer) -> Transport:
    """One whose names are those of this server alone."""
    return Transport(tls=NO_TLS, allow_networks=[ip_network("127.0.0.0/8")], name_servers=[names.address])


async def sent_to(transport: Transport, host: str, *, guarded: bool = True, connect_timeout: float = 3.0) -> str:
    try:
        request = Request("POST", f"http://{host}/", {}, b"x")
        return str((await transport.send(request, guarded=guarded, connect_timeout=connect_timeout)).status)
    except TransportError as error:
        return f"{error.reason}: {error.detail}"


async def test_names_that_no_server_answers_delay_nobody(names: NameServer) -> None:
    """300 names are waited for; another subscriber, Amazon and the certificates' host are reached at once, each by a
    name that has to be asked for."""
    names.table = {"good.example": "127.0.0.1", "amazon.example": "127.0.0.1", "sns.example": "127.0.0.1"}
    transport, loop = transport_of(names), asyncio.get_running_loop()
    async with serving(OK) as server:
        silent = [asyncio.create_task(sent_to(transport, f"n{n}.silent.example")) for n in range(SILENT)]
        await until(
            lambda: sum(name.endswith(".silent.example") for name in names.asked) == SILENT, "all are asked for"
        )
        for host, guarded in (("good.example", True), ("amazon.example", False), ("sns.example", False)):
            began = loop.time()
            assert await sent_to(transport, f"{host}:{server.port}", guarded=guarded) == "200"
            assert loop.time() - began < 1.0
        assert not any(task.done() for task in silent)
        assert {found.partition(":")[0] for found in await asyncio.gather(*silent)} == {"timeout"}
    await transport.close()


async def test_a_look_up_has_a_time_of_its_own(names: NameServer) -> None:
    """The error says what happened."""
    resolver = AsyncResolver([names.address], longest=0.3)
    with pytest.raises(OSError, match="no name server answered in time"):
        await resolver.resolve("silent.example", 80)
    await resolver.close()


@pytest.mark.parametrize(("said", "words"), [("", "the name has no address"), ("fail", "the name server failed")])
async def test_what_the_name_server_says_is_told(names: NameServer, said: str, words: str) -> None:
    """No such name, and trouble of the server."""
    names.table["x.example"] = said
    transport = transport_of(names)
    assert await sent_to(transport, "x.example") == f"dns_failed: x.example: {words}."
    await transport.close()


async def test_a_slow_answer_is_an_answer(names: NameServer) -> None:
    """Other answers come fast: that does not make this one too late."""
    names.table = {"fast.example": "127.0.0.1", "late.example": "127.0.0.1"}
    names.late["late.example"] = 2.0
    transport = transport_of(names)
    async with serving(OK) as server:
        for _ in range(3):
            assert await sent_to(transport, f"fast.example:{server.port}") == "200"
        assert await sent_to(transport, f"late.example:{server.port}") == "200"
    await transport.close()


async def test_a_question_that_is_lost_is_asked_again(names: NameServer) -> None:
    """UDP loses packets; no request waits five seconds for that."""
    names.table["lost.example"] = "127.0.0.1"
    real = names.datagram_received

    def loses(data: bytes, addr: tuple[str, int]) -> None:
        if names.asked.total() >= 2:
            real(data, addr)
        else:
            names.asked["lost"] += 1

    names.datagram_received = loses  # type: ignore[method-assign]
    transport = transport_of(names)
    async with serving(OK) as server:
        assert await sent_to(transport, f"lost.example:{server.port}", connect_timeout=4.0) == "200"
    await transport.close()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "sub.localhost"])
async def test_names_of_this_machine_need_no_server(names: NameServer, host: str) -> None:
    """/etc/hosts, and RFC 6761."""
    resolver = AsyncResolver([names.address])
    found = await resolver.resolve(host, 80)
    assert {address for address, _ in found} <= {"127.0.0.1", "::1"}
    assert {port for _, port in found} == {80}
    assert not names.asked
    await resolver.close()


async def test_a_private_address_behind_a_name_is_refused_at_the_socket(names: NameServer) -> None:
    """As before: the name is looked up, and each address is judged when a socket is made for it."""
    names.table["inside.example"] = "10.0.0.7"
    transport = transport_of(names)
    assert (await sent_to(transport, "inside.example")).startswith("forbidden_address")
    await transport.close()


async def test_closing_gives_up_what_is_asked(names: NameServer) -> None:
    """Nothing is left over, and a resolver that was closed can be used again."""
    resolver = AsyncResolver([names.address])
    waiting = [asyncio.create_task(resolver.resolve(f"n{n}.silent.example", 80)) for n in range(50)]
    await until(lambda: len(names.asked) == 50, "all are asked for")
    await resolver.close()
    assert all(isinstance(found, OSError) for found in await asyncio.gather(*waiting, return_exceptions=True))
    names.table["again.example"] = "127.0.0.1"
    assert await resolver.resolve("again.example", 80) == [("127.0.0.1", 80)]
    await resolver.close()

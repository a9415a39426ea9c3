"""Connections are limited: a client that holds many idle ones loses them, and a genuine request gets one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from receiver.http import connections
from receiver.http.connections import Connections, Room, is_admitted
from receiver.http.protocol import Protocol
from receiver.store import Store
from tests.http import kit
from tests.http.kit import Service, everything, running, settings, until
from tests.http.test_ipn_limits import HEAD, Judge, status_of
from tests.http.test_wire import with_http

POST = HEAD + b"Content-Length: 2\r\n\r\n{}"
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def none_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new connection can be closed like any other."""
    monkeypatch.setattr(connections, "YOUNG", 0.0)
    monkeypatch.setattr(connections, "IDLE", 0.0)


@asynccontextmanager
async def crowded(store: Store, judge: Judge | None = None, **http: Any) -> AsyncIterator[Service]:
    """The service with few connections. The client that the kit keeps has none of them."""
    async with running(with_http(**{"connections": 10, **http}), store, judge or Judge()) as service:
        await service.session.close()
        yield service


async def connect(service: Service, host: str, said: bytes = b"") -> Line:
    """A connection from this address of the loopback network."""
    line = await asyncio.open_connection("127.0.0.1", service.port, local_addr=(host, 0))
    line[1].write(said)
    await line[1].drain()
    return line


async def asked(line: Line, said: bytes = POST) -> int:
    """The status of the answer."""
    line[1].write(said)
    return int((await asyncio.wait_for(line[0].readuntil(b"\r\n\r\n"), 30)).split(b" ", 2)[1])


async def asked_once(service: Service, host: str, said: bytes) -> int:
    """The status of the answer on a new connection."""
    line = await connect(service, host)
    try:
        return await asked(line, said)
    finally:
        line[1].close()


async def lives(line: Line) -> bool:
    """Whether the service has not closed it, as far as that is known here."""
    await asyncio.sleep(0.05)
    return not line[0].at_eof() and line[0].exception() is None


def close(lines: list[Line]) -> None:
    for _, writer in lines:
        writer.close()


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\nx", GET % b"/healthz"])
async def test_a_client_that_holds_all_gives_up_its_oldest(store: Store, said: bytes) -> None:
    """Connections without a byte, heads and bodies that do not end, and those that idle. All others are served, each on
    a connection that stays."""
    async with crowded(store) as service:
        with capture_logs() as logs:
            strangers = [await connect(service, "127.0.0.2", said) for _ in range(10)]
            amazon = [await connect(service, "127.0.0.3") for _ in range(3)]
            for line in amazon:
                assert await asked(line) == 200
            assert await asked_once(service, "127.0.0.4", GET % b"/readyz") == 200
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["http.too_many_connections"]
        for line in strangers[:4]:
            assert status_of(await everything(line[0])) == (200 if said.startswith(b"GET") else 503)
        assert [await lives(line) for line in strangers[4:]] == [True] * 6
        assert [await asked(line) for line in amazon] == [200] * 3
        close([*strangers, *amazon])


async def test_an_attacker_that_renews_shuts_nobody_out(store: Store) -> None:
    """Each of its new connections costs it one of its old ones, and Amazon's idle connection stays."""
    async with crowded(store) as service:
        amazon = await connect(service, "127.0.0.3")
        assert await asked(amazon) == 200
        strangers = [await connect(service, "127.0.0.2", HEAD) for _ in range(100)]
        assert await asked(amazon) == 200
        close([*strangers, amazon])


async def test_a_request_that_is_answered_is_never_closed_for_another(store: Store) -> None:
    """All connections have a whole request under way. Over the limit what must never be shut out is answered, and the
    connection closed; all other requests are asked to come again, and in the end all of them are answered."""
    gate = asyncio.Event()
    judge = Judge(gate.wait)
    async with crowded(store, judge) as service:
        busy = [await connect(service, "127.0.0.2", POST) for _ in range(10)]
        await until(lambda: len(judge.bodies) == 10)
        probe = await connect(service, "127.0.0.4", GET % b"/healthz")
        assert b"connection: close" in (heard := await everything(probe[0])).lower()
        assert status_of(heard) == 200
        api = await connect(service, "127.0.0.4", GET % b"/v1/refunds")
        assert status_of(await everything(api[0])) == 503
        reserved = await connect(service, "127.0.0.3", POST)
        await until(lambda: len(judge.bodies) == 11)
        full = await connect(service, "127.0.0.3")
        assert status_of(await everything(full[0])) == 503
        gate.set()
        for reader, _ in [*busy, reserved]:
            assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 200")
        close([*busy, probe, api, reserved, full])


async def test_a_place_of_the_reserve_that_is_not_used_is_given_up(store: Store) -> None:
    """A client that takes it and sends nothing is the next to be closed."""
    gate = asyncio.Event()
    judge = Judge(gate.wait)
    async with crowded(store, judge) as service:
        busy = [await connect(service, "127.0.0.2", POST) for _ in range(10)]
        await until(lambda: len(judge.bodies) == 10)
        idle = [await connect(service, "127.0.0.2", HEAD) for _ in range(5)]
        assert await asked_once(service, "127.0.0.4", GET % b"/readyz") == 200
        gate.set()
        close([*busy, *idle])


async def test_trusted_proxies_come_last(store: Store) -> None:
    """A proxy has many connections, idle ones among them: they are not counted against it."""
    trusted = (ip_network("127.0.0.5/32"),)
    async with crowded(store, trusted_proxies=trusted) as service:
        proxy = [await connect(service, "127.0.0.5") for _ in range(8)]
        for line in proxy:
            assert await asked(line) == 200
        strangers = [await connect(service, "127.0.0.2", HEAD) for _ in range(20)]
        assert [await asked(line) for line in proxy] == [200] * 8
        close(strangers)
        more = [await connect(service, "127.0.0.5") for _ in range(4)]
        assert [await asked(line) for line in more] == [200] * 4
        close([*proxy, *more])


async def test_who_takes_nothing_of_an_answer_can_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before it is cut off for that."""
    monkeypatch.setattr(Protocol, "stall_timeout", 60.0)

    async def much(scope: Scope, _: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _piece in range(1000 if scope["path"] == "/much" else 1):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with kit.serving(much, with_http(connections=3), None) as service:
        held = [await connect(service, "127.0.0.2", GET % b"/much") for _ in range(3)]
        for _, writer in held:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)
        amazon = await connect(service, "127.0.0.3")
        assert await asked(amazon, GET % b"/little") == 200
        for _, writer in [*held, amazon]:
            writer.transport.abort()


class Remembers:
    """A connection that remembers that it has closed."""

    def __init__(self, *, reserved: bool = False) -> None:
        self.closed, self.reserved = False, reserved

    def give_way(self) -> None:
        self.closed = True


def test_the_greediest_client_gives_way_and_the_oldest_of_its_connections() -> None:
    """IPv6 clients are their /64; what cannot go does not count."""
    found = Connections(10, ())
    assert found.pool_of("2001:db8::1") == found.pool_of("2001:db8::2") == "2001:db8::/64"
    assert found.pool_of("") is None
    lines = {name: [Remembers() for _ in range(count)] for name, count in (("a", 2), ("b", 3), ("c", 1))}
    for name, each in lines.items():
        for line in each:
            found.spare(name, line, 0.0)
    found.needed("b", lines["b"][0])
    assert found.room_for("new", 11, 0.0) is Room.FREE
    assert [line.closed for line in lines["a"]] == [True, False]
    assert found.room_for("new", 11, 0.0) is Room.FREE
    assert [line.closed for line in lines["b"]] == [False, True, False]
    assert [found.room_for("new", 12, 0.0) for _ in range(4)] == [Room.FREE] * 3 + [Room.NONE]
    assert not lines["b"][0].closed


def test_over_the_limit_a_tenth_more_is_let_in() -> None:
    """For what must never be shut out: health, and what Amazon sends."""
    found = Connections(11, ())
    rooms = [found.room_for("new", count, 0.0) for count in (11, 12, 13, 14)]
    assert rooms == [Room.FREE, Room.RESERVED, Room.RESERVED, Room.NONE]
    assert all(is_admitted(path) for path in ("/healthz", "/readyz", "/ipn", "/ipn/us", "//ipn", "/fps/us"))
    assert not any(is_admitted(path) for path in ("/v1/refunds", "/", "/metrics", "/sign-in"))


def test_what_has_just_come_goes_only_when_the_reserve_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request may be on the way: if many come at once, each would be closed for the next. A connection that
    replaces one of the reserve belongs to the reserve."""
    monkeypatch.setattr(connections, "YOUNG", 1.0)
    monkeypatch.setattr(connections, "IDLE", 5.0)
    found = Connections(10, ())
    young, reserved = Remembers(), Remembers(reserved=True)
    found.spare("a", young, 0.0)
    assert found.room_for("new", 11, 0.9) is Room.RESERVED
    found.spare("a", reserved, 0.9)
    assert (found.room_for("new", 12, 0.9), young.closed) == (Room.FREE, True)
    assert (found.room_for("new", 12, 0.9), reserved.closed) == (Room.RESERVED, True)
    old = Remembers()
    found.spare("b", old, 1.0)
    assert (found.room_for("new", 11, 2.0), old.closed) == (Room.FREE, True)
    found.spare("c", idle := Remembers(), 2.0, idle=True)
    assert (found.room_for("new", 11, 6.9), idle.closed) == (Room.RESERVED, False)
    assert (found.room_for("new", 11, 7.0), idle.closed) == (Room.FREE, True)


def test_a_flood_displaces_nothing_of_its_own_that_was_of_use_just_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that holds the most is refused until its oldest is not young any more: else those that are served would
    be closed between two requests. Any other client finds room at once."""
    monkeypatch.setattr(connections, "YOUNG", 1.0)
    monkeypatch.setattr(connections, "IDLE", 5.0)
    found = Connections(10, ())
    for name, count in (("flood", 4), ("amazon", 2)):
        for _ in range(count):
            found.spare(name, Remembers(), 0.0, idle=True)
    assert [found.room_for("flood", 12, 4.9) for _ in range(3)] == [Room.NONE] * 3
    assert found.room_for("amazon", 12, 4.9) is Room.FREE
    assert found.room_for("flood", 12, 5.0) is Room.FREE


async def test_a_connection_idles_as_long_as_the_setting_says(store: Store) -> None:
    """Longer than proxies keep theirs: otherwise a notification that is sent at the moment of closing gets a 502. The
    rest of a body after an early answer does not get this time."""
    assert settings().http.keep_alive.total_seconds() == 75
    async with running(with_http(keep_alive=timedelta(seconds=1)), store, Judge()) as service:
        line = await connect(service, "127.0.0.3")
        began = asyncio.get_running_loop().time()
        assert await asked(line) == 200
        assert await everything(line[0]) == b""
        assert 0.9 < asyncio.get_running_loop().time() - began < 3
        line[1].close()

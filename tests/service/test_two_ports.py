"""`http.admin_port`: notifications on one port, everything else on another."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import aiohttp
import pytest
from starlette.routing import Mount, Route

from receiver.http.app import split_by_port
from tests.http.kit import all_routes
from tests.kit.processes import Command, Desk, until
from tests.service.crash_kit import TOKEN, World

BOTH = {"/healthz", "/readyz"}
PUBLIC = {"/ipn", "/ipn/", "/ipn/{account}", "/ipn/{account}/", "/fps/{account}", "/fps/{account}/"}


def test_every_route_is_behind_one_door_and_health_behind_both() -> None:
    """A route that is added later is not public by default."""
    app = all_routes()
    every, public, admin = (
        [route.path for route in each.routes if isinstance(route, Route | Mount)] for each in (app, *split_by_port(app))
    )
    assert set(public) == PUBLIC | BOTH
    assert admin == every
    assert {"/metrics", "/openapi.json", "/", "/v1/diagnostics", "/v1/fps/refunds"} <= set(admin)


async def both(command: Command, around: World) -> tuple[str, str]:
    """The addresses of the two ports; the world posts to the first and asks the second."""
    said = await command.line("serve.ready")
    around.url = said["admin_address"]
    return said["address"], said["admin_address"]


async def seen(url: str, method: str = "GET") -> tuple[int, str]:
    """What a browser that has no token gets: status, and the reason where it is a problem."""
    headers = {"Accept": "text/html", "Connection": "close"}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers, allow_redirects=False) as answer,
    ):
        problem = answer.headers.get("Content-Type", "") == "application/problem+json"
        return answer.status, (await answer.json(content_type=None))["reason"] if problem else ""


@pytest.mark.parametrize("more", [[], ["--workers", "2"], ["--no-worker"]], ids=["one", "several", "no-worker"])
async def test_each_port_serves_its_own(place: Desk, around: World, more: list[str]) -> None:
    """Strangers at the first find no API, no page and no metrics. A notification at the second is not lost: SNS repeats
    what is answered 503. Both are one service: what came in at the first is shown at the second."""
    command = await place.serve(around.configure(place.folder, admin_port=0), *more)
    public, admin = await both(command, around)
    assert public != admin
    for path in ("/", "/sign-in", "/v1/refunds", "/v1/events", "/metrics", "/openapi.json", "/static/page.css"):
        assert await seen(public + path) == (404, "no_such_route"), path
    assert await seen(f"{public}/v1/fps/refunds", "POST") == (404, "no_such_route")
    assert await seen(f"{public}/ipn") == (405, "")
    for url in (public, admin):
        assert await seen(f"{url}/healthz") == (200, "")
        await until(lambda url=url: ready(url), "it is ready")
    assert (await seen(f"{admin}/sign-in"), await seen(f"{admin}/metrics")) == ((200, ""), (200, ""))
    assert await seen(f"{admin}/v1/refunds") == (401, "token_missing")
    for path in ("/ipn", "/ipn/us", "/ipn/", "/fps/us"):
        assert await seen(admin + path, "POST") == (503, "")
    await until(lambda: len(command.logged("http.notification_at_admin_port")) == 4, "each is in the log")

    refund_id = around.refund()
    body = around.body(refund_id)
    assert (await around.post(body, admin))[0] == 503
    assert (await around.post(body, public))[0] == 200
    if "--no-worker" not in more:
        await until(around.settled, "everything is known")
    families = await metrics_of(admin)
    assert 'receiver_notifications_total{outcome="noted",reason=""} 1.0' in families
    assert await command.stop() == 0


async def ready(url: str) -> bool:
    """Whether the service reports there that it is ready."""
    return await seen(f"{url}/readyz") == (200, "")


async def metrics_of(url: str) -> str:
    """The page."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        return await answer.text()


async def test_both_ports_are_let_go_together_and_what_began_is_answered(place: Desk, around: World) -> None:
    """Else the second would begin to end when the first has waited for its clients, and the process would be killed."""
    command = await place.serve(around.configure(place.folder, admin_port=0))
    public, admin = await both(command, around)
    notification = around.body(around.refund())
    token = f"Authorization: Bearer {TOKEN}\r\n"
    begun = [
        await begin(public, "/ipn", notification),
        await begin(admin, "/v1/subscribers", b'{"nonsense": 1}', token),
    ]
    command.process.terminate()
    for url in (public, admin):
        await until(lambda url=url: refused(url), f"{url} takes nobody in")
    assert command.process.returncode is None
    statuses = []
    for reader, writer, rest in begun:
        writer.write(rest)
        statuses.append(int((await asyncio.wait_for(reader.readline(), 30)).split()[1]))
        writer.close()
    assert statuses == [200, 400]
    assert await command.ended(10) == 0


async def begin(
    url: str, path: str, body: bytes, more: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """Send a request without the last byte of its body. Returns the connection and that byte."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{more}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode())
    assert b" 100 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    writer.write(body[:-1])
    await writer.drain()
    return reader, writer, body[-1:]


async def refused(url: str) -> bool:
    """Whether the port has no listener."""
    address = urlsplit(url)
    try:
        _, writer = await asyncio.open_connection(address.hostname, address.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@pytest.mark.parametrize("more", [[], ["--workers", "2"]])
async def test_a_taken_admin_port_is_a_clear_error(place: Desk, around: World, more: list[str]) -> None:
    """Exit code 2, the settings that are meant, and nothing was started."""
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with taken:
        port = taken.sockets[0].getsockname()[1]
        command = await place.run("serve", "--config", around.configure(place.folder, admin_port=port), *more)
    assert command.process.returncode == 2
    assert command.complaint == (
        f"receiver: http: cannot listen on 127.0.0.1:{port} (Address already in use). "
        "Set http.admin_host and http.admin_port.\n"
    )
    assert not (place.folder / "data").exists()

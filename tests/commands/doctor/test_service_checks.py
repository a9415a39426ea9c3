"""The running service as the doctor sees it: on a real socket, with notifications for topics that are not
configured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from receiver.commands.doctor.finding import Finding, Status
from receiver.commands.doctor.service import check_service
from receiver.store.dashboard import AlertingProblem
from receiver.transport.client import Transport
from tests.commands.doctor.kit import only, silence, site, system_clock, words
from tests.commands.kit import Server
from tests.http.kit import ADMIN, READER
from tests.kit.sns import SnsSigner, headers
from tests.kit.webserver import serving
from tests.service.kit import trust

STRANGE = "arn:aws:sns:eu-west-1:598607868003:A1UNKNOWN"


@pytest.fixture(scope="module")
def server(valkey_url: str) -> Iterator[Server]:
    """One service for these tests."""
    found = Server(valkey_url)
    found.empty()
    yield found
    found.close()


async def look(url: str = "", token: str = "", **more: Any) -> list[Finding]:
    transport = Transport(tls=trust())
    try:
        return await check_service(site(send=transport.send, url=url, token=token, **more))
    finally:
        await transport.close()


async def test_what_nobody_configured_is_shown_with_the_fix(server: Server) -> None:
    """Two notifications of another Amazon Pay topic, and one for a misspelt account name."""
    envelope = SnsSigner().envelope(topic_arn=STRANGE, timestamp_ms=system_clock())
    before = await look(server.url, ADMIN)
    assert "service.unconfigured" not in words(before)
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.post(f"{server.url}/ipn", data=json.dumps(envelope), headers=headers(envelope)) as said:
                assert said.status == 503
        async with session.post(f"{server.url}/ipn/US", data="{}") as said:
            assert said.status == 503
    server.service.receiver.unconfigured_merchants.count("A2STRANGER", system_clock())
    found = [each for each in await look(server.url, ADMIN) if each.check == "service.unconfigured"]
    assert [(each.reason, each.subject) for each in found] == [
        ("unconfigured_account", "US"),
        ("unconfigured_topic", STRANGE),
        ("unconfigured_merchant", "A2STRANGER"),
    ]
    assert "/ipn/us in Seller Central" in found[0].fix
    assert "/ipn/US: 1 notification" in found[0].found
    assert f'"{STRANGE}" to topic_arns' in found[1].fix
    assert "2 notifications" in found[1].found
    assert 'merchant_id = "A2STRANGER"' in found[2].fix


@pytest.mark.parametrize(("token", "reason"), [("", "no_token"), ("wrong", "token_refused"), (READER, "token_refused")])
async def test_without_an_admins_token_it_says_which_is_needed(server: Server, token: str, reason: str) -> None:
    """The rest is reported all the same."""
    found = await look(server.url, token)
    assert words(found) == {"service.diagnostics": reason}
    assert "admin" in only(found, "service.diagnostics").fix
    assert only(found, "service.ready").status is Status.OK


async def test_a_service_that_is_not_ready_says_why(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reasons of /readyz, and the states of its workers."""
    monkeypatch.setattr(server.service.kept, "_failing", {"track:us"})
    found = await look(server.url, ADMIN)
    assert (only(found, "service.ready").reason, only(found, "service.ready").subject) == ("workers_failing", "workers")
    assert (only(found, "service.workers").reason, only(found, "service.workers").subject) == (
        "worker_failing",
        "track:us",
    )


async def test_a_healthy_service_without_flexible_payments_is_right(server: Server) -> None:
    """A worker that is not configured does not count as one that ended."""
    found = await look(server.url, ADMIN)
    assert only(found, "service.workers").status is Status.OK
    assert not [name for name in server.service.kept.states() if name.startswith("fps:")]


async def test_subscribers_that_get_nothing_are_a_warning(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness shows them and does not depend on them."""

    async def problems() -> list[AlertingProblem]:
        return [AlertingProblem("a", paused=True), AlertingProblem("b", failing=True), AlertingProblem("c", dead=2)]

    monkeypatch.setattr(server.service.store.of("us").gauges, "alerting_problems", problems)
    found = [each for each in await look(server.url, ADMIN) if each.check == "service.ready"]
    assert [(each.status, each.subject, each.reason) for each in found] == [
        (Status.WARN, "subscribers_paused", "paused"),
        (Status.WARN, "subscribers_failing", "failing"),
        (Status.WARN, "subscribers_dead", "dead_events"),
    ]


async def test_nobody_there() -> None:
    """A fault only where the settings say that there is one."""
    assert words(await look("http://127.0.0.1:1")) == {"service.running": "connect_failed"}
    assert words(await look(http={"port": 1})) == {"service.running": "not_running"}
    assert words(await look(http={"port": 0})) == {"service.running": "no_address"}
    assert words(await look(http={"port": 1, "admin_port": 0})) == {"service.running": "no_address"}


async def test_with_a_port_of_its_own_it_asks_there(server: Server) -> None:
    """`http.admin_port`: only that port has what the doctor asks for."""
    found = await look(token=ADMIN, http={"port": 1, "admin_port": server.port})
    assert f"127.0.0.1:{server.port}" in only(found, "service.running").found
    assert only(found, "service.diagnostics").status is Status.OK


async def test_somebody_else_there() -> None:
    """Another program on the port; it is sent no token."""
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as web:
        found = await look(web.url, ADMIN)
        assert words(found) == {"service.running": "not_the_service"}
        assert ADMIN.encode() not in b"".join(web.requests)


async def test_one_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `TIMEOUT`, here shortened."""
    monkeypatch.setattr("receiver.commands.doctor.service.TIMEOUT", 0.3)
    async with silence() as port, asyncio.timeout(5):
        assert words(await look(f"http://127.0.0.1:{port}")) == {"service.running": "timeout"}

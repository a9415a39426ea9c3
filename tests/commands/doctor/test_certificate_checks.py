"""Certificates as the doctor sees them: pinned files, and the host of the others behind a real TLS listener."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
import trustme

from receiver.commands.doctor.certificates import check_hosts, check_pinned
from receiver.commands.doctor.finding import Finding, Status
from receiver.transport.client import Transport
from tests.commands.doctor.kit import site, words
from tests.kit.configuration import table
from tests.kit.sns import NOW, SnsSigner
from tests.kit.webserver import Names, WebServer, serving
from tests.service.kit import trust

HOST = "sns.us-east-1.amazonaws.com"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
DAY = 86_400_000


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def sns_host(name: str = HOST) -> AsyncIterator[tuple[Transport, WebServer]]:
    """A listener with a certificate for `name`, under SNS's name; only this authority is trusted."""
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(name).configure_cert(there)
    trust = ssl.create_default_context()
    authority().configure_trust(trust)
    async with serving(NOT_FOUND, there) as server:
        transport = Transport(resolver=Names({HOST: [[("127.0.0.1", server.port)]]}), tls=trust)
        yield transport, server
        await transport.close()


async def pinned(folder: Path, signer: SnsSigner, pem: bytes | None = None, url: str = "", now: int = NOW) -> Finding:
    file = folder / "sns.pem"
    file.write_bytes(signer.pem if pem is None else pem)
    account = table("us", signing_certificates={url or signer.url: str(file)})
    [found] = await check_pinned(site(account, system_clock=lambda: now))
    return found


async def test_a_host_with_tls_is_right() -> None:
    """Nothing is fetched: one HEAD of the root."""
    async with sns_host() as (transport, server):
        found = await check_hosts(site(send=transport.send))
        assert words(found) == {}
        assert [request.split(b"\r\n")[0] for request in server.requests] == [b"HEAD / HTTP/1.1"]


async def test_a_host_of_another_name_is_not(tmp_path: Path) -> None:
    """A proxy intercepts TLS. Pinned certificates still work, so that is a warning."""
    async with sns_host("proxy.example") as (transport, server):
        [found] = await check_hosts(site(send=transport.send))
        assert (found.status, found.reason, found.subject) == (Status.FAIL, "tls_failed", HOST)
        assert "SSL_CERT_FILE" in found.fix
        signer = SnsSigner()
        (tmp_path / "sns.pem").write_bytes(signer.pem)
        account = table("us", signing_certificates={signer.url: str(tmp_path / "sns.pem")})
        [warned] = await check_hosts(site(account, send=transport.send))
        assert (warned.status, warned.reason) == (Status.WARN, "tls_failed")
        assert not server.requests


async def test_a_name_that_has_no_address() -> None:
    """DNS is another fault than TLS."""
    transport = Transport(resolver=Names({}), tls=trust())
    [found] = await check_hosts(site(send=transport.send))
    await transport.close()
    assert (found.status, found.reason) == (Status.FAIL, "dns_failed")
    assert "DNS" in found.fix


async def test_each_region_is_asked_once_and_nobody_offline() -> None:
    """Two accounts in one region are one host."""
    accounts = [
        table("us"),
        table("us2", merchant_id="A2BBBBBBBBBBB"),
        table("eu", merchant_id="A2CCCCCCCCCCC", topic_arns=["arn:aws:sns:eu-west-1:291180941288:*"]),
    ]
    found = await check_hosts(site(*accounts))
    assert sorted(each.subject for each in found) == ["sns.eu-west-1.amazonaws.com", HOST]
    assert words(await check_hosts(site(*accounts, offline=True))) == {"certificates.host": "offline"}


async def test_a_pinned_certificate_says_how_long_it_is_good(tmp_path: Path) -> None:
    """In days."""
    found = await pinned(tmp_path, SnsSigner())
    assert found.status is Status.OK
    assert "300 more days" in found.found


@pytest.mark.parametrize(
    ("now", "status", "reason"),
    [
        (NOW + 271 * DAY, Status.WARN, "certificate_ends_soon"),
        (NOW + 301 * DAY, Status.FAIL, "certificate_dates"),
        (NOW - 31 * DAY, Status.FAIL, "certificate_dates"),
    ],
)
async def test_dates_count(tmp_path: Path, now: int, status: Status, reason: str) -> None:
    """Soon, over, and not yet."""
    found = await pinned(tmp_path, SnsSigner(), now=now)
    assert (found.status, found.reason) == (status, reason)


async def test_a_pinned_file_that_cannot_be_used(tmp_path: Path) -> None:
    """No PEM; another certificate than its address promises; another name than SNS's."""
    signer = SnsSigner()
    damaged = await pinned(tmp_path, signer, b"-----BEGIN CERTIFICATE-----\nMIIB\n")
    renamed = await pinned(tmp_path, signer, url=signer.url.replace(signer.name, "0" * 32))
    foreign = await pinned(tmp_path, SnsSigner(common_name="evil.example", san=["evil.example"]))
    assert [(each.status, each.reason) for each in (damaged, renamed, foreign)] == [
        (Status.FAIL, "certificate_unusable"),
        (Status.FAIL, "certificate_unusable"),
        (Status.FAIL, "certificate_wrong_name"),
    ]
    assert signer.url in damaged.fix

"""The host of the signing certificates is down, slow or serves garbage; or strangers name 10,000 of its files.

A genuine notification gets 503 and is accepted when it is sent again; messages signed with a proven certificate are not
affected. The host is a TLS server with the name of Amazon's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from receiver.errors import CertificateUnavailable
from receiver.ledger.notification import NotificationOutcome, PostedNotification
from receiver.receive.certificates import FAILED_MAX, UNPROVEN_MAX, CertificateStore
from receiver.receive.fetch_queue import BURST, PER_SECOND
from receiver.receive.receiver import Receiver
from receiver.settings import Settings
from receiver.store import Store
from receiver.transport.client import Transport
from tests.http.kit import Service, running, settings, until
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.sns import NOW, SnsSigner, notice, rsa_key
from tests.kit.webserver import Names, WebServer, serving
from tests.transport.test_transport_tls import HOST, answer, authority, tls_for

SIGNER, OTHER = SnsSigner(), SnsSigner(key=rsa_key(number=1))
NAMES = 10_000
PLACES = 20
"""`ingest.concurrency` here."""
TROUBLES = {
    "500": answer(b"", "500 Internal Server Error"),
    "404": answer(b"", "404 Not Found"),
    "a page": answer(b"<html>" * 100),
    "bytes": answer(bytes(range(256)) * 8),
    "another certificate": answer(OTHER.pem),
    "half": answer(SIGNER.pem)[:-100],
    "no end": answer(b"x" * 1_000_000),
}
FORGET = 300_001
"""ms after which the host is asked again, whatever its last answer was."""


@dataclass
class Host:
    """The certificate host. `says` is its answer; None: it accepts connections and never answers."""

    says: bytes | None
    server: WebServer

    async def speak(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        if self.says is None:
            await asyncio.Event().wait()
        writer.write(self.says or b"")
        await writer.drain()
        writer.close()


@dataclass
class Town:
    """The service and the host; `clock` is the service's."""

    service: Service
    host: Host
    names: Names
    certificates: CertificateStore
    receiver: Receiver
    clock: ManualClock

    async def post(self, number: int, signer: SnsSigner = SIGNER) -> tuple[int, str]:
        """A genuine notification: status and Retry-After."""
        body = signer.post_body(notice(NotificationId=str(number)), MessageId=message_id(number))
        found = await self.service.call("POST", "/ipn", body=body)
        return found.status, found.headers.get("Retry-After", "")

    async def ready(self) -> int:
        """The status of readiness."""
        return (await self.service.get("/readyz")).status


def narrow() -> Settings:
    """Settings with few places."""
    chosen = settings()
    return chosen.model_copy(update={"ingest": chosen.ingest.model_copy(update={"concurrency": PLACES})})


def message_id(number: int) -> str:
    """A UUID."""
    return f"00000000-0000-4000-8000-{number:012d}"


@asynccontextmanager
async def town(store: Store) -> AsyncIterator[Town]:
    """The HTTP endpoint for notifications, on a real store."""
    host, clock = Host(None, WebServer()), ManualClock(NOW)
    async with serving(host.speak, tls_for(HOST)) as host.server:
        names = Names({HOST: [[("127.0.0.1", host.server.port)]]})
        transport = Transport(resolver=names, dns_ttl=0)
        fetch = partial(transport.fetch_certificate, timeout=60.0, connect_timeout=60.0)
        certificates = CertificateStore(fetch, clock, fetch_timeout=60.0, wait_timeout=60.0)
        receiver = Receiver([make_account()], certificates, store, clock)
        try:
            async with running(narrow(), store, receiver, checks={"store": store.check_writes}) as service:
                yield Town(service, host, names, certificates, receiver, clock)
        finally:
            await certificates.close()
            await transport.close()


@pytest.fixture
async def at(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Town]:
    """The town, in which the host's authority is trusted."""
    path = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    async with town(store) as found:
        yield found


async def is_put_off(at: Town, heal: Callable[[], Any]) -> None:
    """A first notification is put off with a time to come back, the process stays ready, and when the host is well the
    same notification is taken; after that the host is not needed any more."""
    status, after = await at.post(1)
    assert (status, after.isdigit()) == (503, True)
    assert await at.ready() == 200
    heal()
    at.clock.tick(FORGET)
    assert await at.post(1) == (200, "")
    at.host.says = b""
    at.clock.tick(FORGET)
    assert await at.post(2) == (200, "")


async def test_it_is_down(at: Town) -> None:
    """Its address has no listener."""
    port, at.names.table = at.names.table, {HOST: [[("127.0.0.1", 9)]]}

    def heal() -> None:
        at.names.table, at.host.says = port, answer(SIGNER.pem)

    await is_put_off(at, heal)


async def test_its_name_is_unknown(at: Town) -> None:
    """No answer from DNS."""
    table, at.names.table = at.names.table, {}

    def heal() -> None:
        at.names.table, at.host.says = table, answer(SIGNER.pem)

    await is_put_off(at, heal)


async def test_it_says_nothing(at: Town) -> None:
    """It is given up in time, for all who wait at once."""
    at.certificates._fetch_timeout, at.certificates._wait_timeout = 0.5, 0.8
    began = perf_counter()
    assert {status for status, _ in await asyncio.gather(*(at.post(number) for number in range(10, 30)))} == {503}
    assert perf_counter() - began < 5
    assert len(at.host.server.requests) <= 2
    at.clock.tick(FORGET)
    await is_put_off(at, lambda: setattr(at.host, "says", answer(SIGNER.pem)))


@pytest.mark.parametrize("says", TROUBLES)
async def test_it_serves_garbage(at: Town, says: str) -> None:
    """Whatever it is, it is the host's trouble and not the sender's."""
    at.host.says = TROUBLES[says]
    await is_put_off(at, lambda: setattr(at.host, "says", answer(SIGNER.pem)))


async def test_ten_thousand_names_harm_nobody(at: Town) -> None:
    """A stranger who knows a topic names many files of the host at once: fetches and memory are bounded, and genuine
    notifications are accepted as fast as before, also those of another client with a new certificate."""
    at.host.says = answer(SIGNER.pem)
    assert await at.post(0) == (200, "")
    at.host.says = answer(b"", "404 Not Found")
    envelope = SIGNER.envelope(notice())
    genuine, others, began = list[float](), set[str](), perf_counter()

    async def strange(number: int) -> None:
        url = f"https://{HOST}/SimpleNotificationService-{number:032x}.pem"
        body = json.dumps({**envelope, "SigningCertURL": url}).encode()
        with pytest.raises(CertificateUnavailable) as refused:
            await at.receiver.receive(PostedNotification(body, {}, source="stranger"))
        others.add(refused.value.reason)

    for first in range(0, NAMES, 500):
        strangers = asyncio.gather(*(strange(number) for number in range(first, first + 500)))
        at_once = perf_counter()
        posted = PostedNotification(SIGNER.post_body(notice(), MessageId=message_id(first + 1)), {}, source="amazon")
        assert (await at.receiver.receive(posted)).outcome is NotificationOutcome.NOTED
        genuine.append(perf_counter() - at_once)
        await strangers
    assert others == {"certificate_not_found", "certificate_too_many"}
    assert len(at.host.server.requests) <= BURST + PER_SECOND * (perf_counter() - began) + 1
    assert sorted(genuine)[len(genuine) // 2] < 0.5
    held = at.certificates
    assert len(held._failed) <= FAILED_MAX
    assert len(held._unproven) <= UNPROVEN_MAX
    assert not held.waiting
    assert await at.ready() == 200


async def test_those_who_wait_for_a_silent_host_take_no_place_of_proven_mail(at: Town) -> None:
    """There are more strangers than places; a message signed with a proven certificate is still judged at once."""
    at.host.says = answer(SIGNER.pem)
    assert await at.post(0) == (200, "")
    at.host.says = None
    envelope = SIGNER.envelope(notice())

    async def strange(number: int) -> int:
        url = f"https://{HOST}/SimpleNotificationService-{number:032x}.pem"
        body = json.dumps({**envelope, "SigningCertURL": url}).encode()
        return (await at.service.call("POST", "/ipn", body=body)).status

    async with asyncio.TaskGroup() as group:
        # All name few files: for so many the client has fetches.
        strangers = []
        for number in range(PLACES + 20):
            strangers.append(group.create_task(strange(number % 8)))
            if number % 8 == 7:
                await until(lambda: at.certificates.waiting == len(strangers))
        await until(lambda: at.certificates.waiting == len(strangers))
        assert await at.post(1) == (200, "")
        assert at.certificates.waiting == PLACES + 20
        assert await at.ready() == 200
        at.certificates.stop_fetching()
    assert {each.result() for each in strangers} == {503}

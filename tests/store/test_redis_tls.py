"""`rediss://`: Redis over TLS, with certificates that are right and wrong. No password of an address is ever shown."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from receiver.commands.doctor.store import check_store
from receiver.runtime.rounds import ChangeSignal
from receiver.simulator.outcomes import Outcome
from receiver.store import Store
from receiver.store.redis.address import read_address
from receiver.store.redis.client import link
from receiver.store.redis.pipeline import connect
from receiver.store.redis.wakeups import News
from tests.commands.doctor.kit import site
from tests.kit.fleet import MASTER, fleet
from tests.kit.processes import Desk, until
from tests.kit.tls import front
from tests.kit.valkey import start_valkey, stop_valkey
from tests.service.crash_kit import World
from tests.service.stage import Amazon, Hook, account, running
from tests.store.makers import hint

PASSWORD = "hunter2-hunter2"


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A durable Valkey."""
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        process, url = start_valkey(Path(folder), "--appendonly", "yes", "--appendfsync", "always")
        try:
            yield url
        finally:
            stop_valkey(process)


@pytest.fixture(scope="module")
def ours() -> trustme.CA:
    """The authority that is named in the address."""
    return trustme.CA()


@pytest.fixture
def ca_file(ours: trustme.CA, tmp_path: Path) -> Path:
    """Its certificate, in a file."""
    ours.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[Store]:
    """A store that listens to others."""
    store = Store(link(read_address(url)))
    try:
        await store.start()
        yield store
    finally:
        await store.close()


async def test_all_of_the_store_works_over_tls(guarded: str, ours: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """A notification, the ledger, the delivery, the feed; the listener has got only TLS."""
    async with (
        front(guarded, ours.issue_cert("localhost")) as (listener, port),
        Amazon(retry_waits=(0.1,) * 100) as shop,
        Hook("audit").listening() as audit,
    ):
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={ca_file}"
        async with running(url, [account(shop, tmp_path)], [audit]) as stage:
            await until(stage.ready, "it is ready")
            shop.post_to = f"{stage.url}/ipn"
            following = asyncio.create_task(stage.get("/v1/events?after=beginning&wait=30"))
            refund_id = shop.start_refund("12.00", "USD", Outcome.DECLINED_AT_ONCE)
            await until(lambda: audit.posts, "the webhook")
            assert audit.told == await stage.events() == [(refund_id, "declined")]
            status, page = await following
            assert (status, [each["subject"] for each in page["events"]]) == (200, [refund_id])
    assert listener.secured > 1
    assert listener.plain == 0


async def test_processes_wake_each_other_over_tls(guarded: str, ours: trustme.CA, ca_file: Path) -> None:
    """The channel on which wake-ups come is as secret as the rest."""
    async with front(guarded, ours.issue_cert("localhost")) as (listener, port):
        url = f"rediss://localhost:{port}?ssl_ca_certs={ca_file}"
        async with store_at(url) as one, store_at(url) as two:
            with one.of("us").change_signal(News.DUE) as waker:
                await until(lambda: woken(two, waker), "another process's hint wakes this one")
    assert listener.plain == 0


async def woken(other: Store, waker: ChangeSignal) -> bool:
    """Whether a hint that the other store takes ends this one's rest."""
    clock = asyncio.get_running_loop().time
    waker.clear()
    began = clock()
    await other.of("us").schedule.hint(hint(message=os.urandom(8).hex()))
    await waker.rest(2.0)
    return clock() - began < 1.5


PAST = datetime.now(UTC) - timedelta(days=1)


@pytest.mark.parametrize(
    ("case", "word", "fix"),
    [
        ("untrusted", "tls_untrusted", "ssl_ca_certs"),
        ("wrong host", "tls_wrong_host", "host name of its certificate"),
        ("wrong address", "tls_wrong_host", "host name of its certificate"),
        ("expired", "tls_expired", "Renew its certificate"),
        ("no TLS", "tls_failed", "rediss://"),
    ],
)
async def test_what_cannot_be_trusted_is_refused_with_a_word(
    guarded: str, ours: trustme.CA, ca_file: Path, tmp_path: Path, case: str, word: str, fix: str
) -> None:
    """In `/readyz`, in the answer to a notification and by the doctor; nothing was sent to the listener there."""
    authority = trustme.CA() if case == "untrusted" else ours
    name = {"wrong host": "cache.example", "wrong address": "127.0.0.2"}.get(case, "localhost")
    leaf = authority.issue_cert(name, not_after=PAST) if case == "expired" else authority.issue_cert(name)
    host = "127.0.0.1" if case == "wrong address" else "localhost"
    async with front(guarded, leaf) as (listener, port), nonsense() as other, Amazon() as shop:
        url = f"rediss://:{PASSWORD}@{host}:{other if case == 'no TLS' else port}?ssl_ca_certs={ca_file}"
        redis = {"url": url, "timeout": "1s", "connect_timeout": "1s"}
        async with running(guarded, [account(shop, tmp_path)], redis=redis) as stage:
            status, body = await stage.get("/readyz")
            assert (status, body["checks"]["store"]) == (503, f"store_{word}")
            assert stage.counted("store_errors", kind=word) > 0
        [found] = await check_store(site(redis=redis))
        assert found.reason == f"store_{word}"
        assert fix in found.fix
        assert PASSWORD not in str(found)
    assert listener.plain == 0


@asynccontextmanager
async def nonsense() -> AsyncIterator[int]:
    """The port of a server without TLS."""

    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"-ERR unknown command\r\n")
        writer.close()

    async with await asyncio.start_server(says, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_sentinels_and_their_master_over_tls(ours: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """Both are spoken to over TLS alone, and both certificates are looked at."""
    leaf = ours.issue_cert("127.0.0.1")
    async with fleet() as found:
        master = await found.start()
        async with front(master.url, leaf) as (before, port):
            address = await found.sentinels(dataclasses.replace(master, port=port), count=1, quorum=1)
            sentinel = address.split("/")[2]
            async with front(f"redis://{sentinel}", leaf) as (guard, guarded_at):
                base = f"rediss+sentinel://127.0.0.1:{guarded_at}/{MASTER}"
                async with store_at(f"{base}?ssl_ca_certs={ca_file}") as store:
                    await store.check_writes(["us"])
                assert (before.secured > 0, guard.secured > 0, guard.plain) == (True, True, 0)
                other = tmp_path / "other.pem"
                trustme.CA().cert_pem.write_to_path(str(other))
                [finding] = await check_store(site(redis={"url": f"{base}?ssl_ca_certs={other}"}))
                assert finding.reason == "store_master_down"
                assert "ssl_ca_certs" in finding.fix


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_password_in_the_address_never_reaches_the_log(
    ours: trustme.CA, ca_file: Path, place: Desk, around: World, trusted: bool
) -> None:
    """All log lines of a real service, also at the level debug, with a trusted certificate and without one."""
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        process, upstream = start_valkey(Path(folder))
        try:
            async with connect(upstream) as client:
                await client.config_set("requirepass", PASSWORD)
            authority = ours if trusted else trustme.CA()
            async with front(upstream, authority.issue_cert("localhost")) as (listener, port):
                url = f"rediss://:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={ca_file}"
                config = around.configure(place.folder, url)
                config.write_text(config.read_text() + '\n[log]\nlevel = "debug"\n')
                command = await around.at(await place.serve(config))
                wanted = "ok" if trusted else "store_tls_untrusted"
                await until(lambda: word_of(around, wanted), f"the store is {wanted}")
                status, _ = await around.post(around.body(around.refund()))
                assert status == (200 if trusted else 503)
                if trusted:
                    await until(around.settled, "everything is known")
                doctor = await place.run("doctor", "--config", config, "--offline")
                assert await command.stop() == 0
                assert (listener.secured > 0) is trusted
        finally:
            stop_valkey(process)
    for each in (command, doctor):
        assert each.complaint + each.said
        assert PASSWORD not in each.complaint + each.said


async def word_of(around: World, word: str) -> bool:
    """Whether `/readyz` says this of the store."""
    _, body = await around.get("/readyz")
    return bool(body) and body["checks"]["store"] == word

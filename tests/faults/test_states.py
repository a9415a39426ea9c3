"""The service on a Redis in a bad state: notifications get 503 with Retry-After, `/readyz` says why, and everything
works again without a restart as soon as Redis does."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from receiver.deliver import configured
from receiver.ledger import next_look
from receiver.store.embedded.program import find_program
from receiver.store.redis.pipeline import connect
from tests.kit.processes import until
from tests.kit.proxy import Proxy, proxied
from tests.kit.valkey import start_valkey, stop_valkey
from tests.service.stage import Amazon, Hook, Stage, account, running

IMPATIENT = {"timeout": "1s", "connect_timeout": "1s"}
"""The settings of a service whose Redis does not answer."""
LOAD_DELAY, LOADED = "10", 40_000
"""Microseconds that the loading Valkey rests after each command of its file, and how many those are. It answers after
each 1024 of them."""


@dataclass
class Server:
    """A Valkey of this test's own."""

    folder: Path
    url: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *args: str, folder: Path | None = None) -> None:
        process, url = start_valkey(folder or self.folder, "--appendonly", "yes", *args)
        self.processes.append(process)
        self.url = self.url or url

    def stop(self) -> None:
        for process in self.processes:
            stop_valkey(process)
        self.processes.clear()

    async def command(self, *words: str) -> Any:
        client = connect(self.url)
        try:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()


@pytest.fixture
def server() -> Iterator[Server]:
    """It is up, and nothing of it is left in the end."""
    found = Server(Path(tempfile.mkdtemp(prefix="rf-")))
    found.start()
    yield found
    found.stop()
    shutil.rmtree(found.folder, ignore_errors=True)


@dataclass
class World:
    """The service, Amazon and the subscriber."""

    stage: Stage
    amazon: Amazon
    hook: Hook
    server: Server

    async def post(self, refund_id: str) -> tuple[int, str]:
        """Send the notification about a refund as SNS does: status and Retry-After."""
        last = self.amazon._engine.announcer._last[refund_id]
        request = last.request(self.stage.url + "/ipn")
        async with self.stage.session.post(request.url, data=request.body, headers=request.headers) as answer:
            return answer.status, answer.headers.get("Retry-After", "")

    def decline(self) -> str:
        """A new refund that Amazon has declined."""
        return self.amazon.start_refund("14.00", "USD", "DeclinedAtOnce")

    async def unready(self) -> str:
        """What is the matter with the store by `/readyz`; empty while it is ready."""
        status, found = await self.stage.get("/readyz")
        return "" if status == 200 else str(found["checks"]["store"])

    async def is_put_off(self, *reasons: str) -> str:
        """A notification gets 503, and readiness names one of the reasons. Returns the refund."""
        refund_id = self.decline()
        await until(lambda: self.unready_by(reasons), f"/readyz says one of {reasons}")
        assert await self.post(refund_id) == (503, "5")
        return refund_id

    async def unready_by(self, reasons: tuple[str, ...]) -> bool:
        return await self.unready() in reasons

    async def is_well(self, *refund_ids: str) -> None:
        """What was answered with 503 is sent again, accepted, and delivered once; so is a new notification."""
        await until(self.stage.ready, "it is ready")
        wanted = [*refund_ids, self.decline()]
        for refund_id in wanted:
            assert await self.post(refund_id) == (200, "")
        await until(lambda: {each for each, _ in self.hook.told} >= set(wanted), "the subscriber is told")
        told = [each for each in self.hook.told if each[0] in wanted]
        assert sorted(told) == sorted((refund_id, "declined") for refund_id in wanted)


@asynccontextmanager
async def world(
    server: Server, folder: Path, url: str = "", patience: Mapping[str, str] | None = None
) -> AsyncIterator[World]:
    """Ready, with one refund that is known and delivered. `url`: where the service finds its Redis, if not there."""
    async with Amazon() as amazon, Hook().listening() as hook:
        redis = {"url": url or server.url, **(patience or {})}
        async with running(server.url, [account(amazon, folder)], [hook], redis=redis) as stage:
            found = World(stage, amazon, hook, server)
            await found.is_well()
            yield found


@pytest.fixture
async def at(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """The world; the configured subscribers are looked after every tenth of a second."""
    monkeypatch.setattr(configured, "EVERY", 0.1)
    async with world(server, tmp_path) as found:
        yield found


async def test_full(at: World) -> None:
    """`maxmemory` is reached, and nothing is evicted."""
    await at.server.command("CONFIG", "SET", "maxmemory", "1")
    refund_id = await at.is_put_off("store_full")
    await at.server.command("CONFIG", "SET", "maxmemory", "0")
    await at.is_well(refund_id)


async def test_too_few_replicas(at: World) -> None:
    """`min-replicas-to-write` is not met."""
    await at.server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    refund_id = await at.is_put_off("store_replicas_missing")
    await at.server.command("CONFIG", "SET", "min-replicas-to-write", "0")
    await at.is_well(refund_id)


async def test_a_replica_of_another(at: World) -> None:
    """It replaces its data by the other's, which is empty: after it is a primary again, everything has to be sent
    again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    at.server.start(
        "--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", folder=at.server.folder / "2"
    )
    await at.server.command("REPLICAOF", "127.0.0.1", str(port))
    refund_id = await at.is_put_off("store_read_only")
    await until(lambda: emptied(at.server), "the other's data is here")
    await at.server.command("REPLICAOF", "NO", "ONE")
    await until(at.stage.service.store.of("us").subscribers.readable, "the configured subscriber is back")
    await at.is_well(refund_id)


async def emptied(server: Server) -> bool:
    """Whether it holds nothing."""
    return int(await server.command("DBSIZE")) == 0


async def test_it_hangs(server: Server, tmp_path: Path) -> None:
    """It takes connections and says nothing."""
    async with world(server, tmp_path, patience=IMPATIENT) as at:
        os.kill(at.server.processes[0].pid, signal.SIGSTOP)
        try:
            refund_id = await at.is_put_off("store_timeout", "timeout")
        finally:
            os.kill(at.server.processes[0].pid, signal.SIGCONT)
        await at.is_well(refund_id)


async def test_it_is_emptied(at: World) -> None:
    """The configured subscriber comes back by itself, and events from then on are owed to it."""
    await at.server.command("FLUSHALL")
    await at.is_well()
    assert len(await at.stage.service.store.of("us").subscribers.readable()) == 1


async def test_it_starts_again_without_its_data(at: World) -> None:
    """As a Redis without persistence does."""
    at.server.stop()
    refund_id = await at.is_put_off("store_unreachable")
    shutil.rmtree(at.server.folder / "appendonlydir")
    at.server.start()
    await until(at.stage.service.store.of("us").subscribers.readable, "the configured subscriber is back")
    await at.is_well(refund_id)


async def test_amazon_is_down(at: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notifications are taken and the process stays ready: another would be no better off. When Amazon is back, the
    state of every accepted notification is found and delivered. `test_amazon_down.py` has the hour."""
    monkeypatch.setattr(next_look, "RETRY_FIRST", 200)
    rule = at.amazon.fault_injection.add("error", times=None)
    refund_id = at.decline()
    assert await at.post(refund_id) == (200, "")
    await until(lambda: rule.used >= 3, "Amazon is asked again and again")
    assert await at.unready() == ""
    at.amazon.fault_injection.clear()
    await until(lambda: (refund_id, "declined") in at.hook.told, "the subscriber is told")
    await at.is_well()


@pytest.fixture
async def slow(server: Server, tmp_path: Path) -> AsyncIterator[tuple[World, Proxy]]:
    """The world with the settings as they come, and a proxy before its Redis that can be slow."""
    with tempfile.TemporaryDirectory(prefix="rp-") as folder:
        async with proxied(server.url, Path(folder)) as (proxy, url), world(server, tmp_path, url) as found:
            yield found, proxy


async def test_slow(slow: tuple[World, Proxy]) -> None:
    """Each answer takes 2 s, less than `redis.timeout`: notifications are still accepted, slowly; the readiness check
    reports that it is too slow."""
    at, proxy = slow
    proxy.delay = 2.0
    refund_id = at.decline()
    posted = asyncio.create_task(at.post(refund_id))
    await until(at.unready, "it is not ready")
    assert await at.unready() == "timeout"
    assert await posted == (200, "")
    proxy.delay = 0.0
    await until(lambda: (refund_id, "declined") in at.hook.told, "the subscriber is told")
    await at.is_well()


async def test_slower_than_the_timeout(server: Server, tmp_path: Path) -> None:
    """Each answer takes 2 s, and `redis.timeout` is 1 s: 503, as if it were unavailable."""
    with tempfile.TemporaryDirectory(prefix="rp-") as folder:
        async with (
            proxied(server.url, Path(folder)) as (proxy, url),
            world(server, tmp_path, url, IMPATIENT) as at,
        ):
            proxy.delay = 2.0
            refund_id = await at.is_put_off("store_timeout")
            proxy.delay = 0.0
            await at.is_well(refund_id)


async def test_it_loads_its_data(at: World) -> None:
    """A long file: until all of it is read, nothing is answered from half of the data."""
    client = connect(at.server.url)
    async with client.pipeline(transaction=False) as pipeline:
        for number in range(LOADED):
            pipeline.set(f"other:{number}", "x")
        await pipeline.execute()
    await client.aclose()
    at.server.stop()
    socket_path = at.server.folder / "valkey.sock"
    options = ["--port", "0", "--dir", str(at.server.folder), "--unixsocket", str(socket_path), "--save", ""]
    slow = ["--appendonly", "yes", "--key-load-delay", LOAD_DELAY]
    with (at.server.folder / "loading.log").open("wb") as log:
        at.server.processes.append(
            subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                [str(find_program().path), *options, *slow], cwd=at.server.folder, stdout=log, stderr=log
            )
        )
    await until(lambda: loading(at.server), "it is loading")
    refund_id = await at.is_put_off("store_loading")
    await at.server.command("CONFIG", "SET", "key-load-delay", "0")
    await at.is_well(refund_id)


async def loading(server: Server) -> bool:
    """Whether it answers that it loads."""
    try:
        await server.command("GET", "x")
    except ResponseError:
        return False
    except Exception as error:
        return "oading" in f"{type(error).__name__} {error}"
    return False

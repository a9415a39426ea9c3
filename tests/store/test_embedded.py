"""The embedded store: nothing acknowledged is lost, whichever process is killed, and no directory ever has two
servers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from receiver.store.embedded.store import EmbeddedStore
from tests.store.embedded_kit import (
    Service,
    client,
    environment_of,
    keys,
    kill_servers,
    link,
    lives,
    mode,
    put,
    running,
    servers,
    until,
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory that does not exist yet."""
    yield tmp_path / "data"
    kill_servers(tmp_path)


async def test_the_server_is_durable_private_and_never_evicts(data_dir: Path) -> None:
    """Every setting that acknowledgements rest on is in force in the running server."""
    async with running(data_dir) as store, client(store.url) as redis:
        config = await redis.config_get("*")
        wanted = {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "aof-load-truncated": "yes",
            "save": "",
            "stop-writes-on-bgsave-error": "yes",
            "maxmemory-policy": "noeviction",
            "databases": "1",
            "hash-max-listpack-value": "512",
            "hash-max-listpack-entries": "64",
            "dir": str(data_dir),
            "logfile": str(data_dir / "valkey.log"),
        }
        assert {name: config[name] for name in wanted} == wanted
        assert mode(data_dir / "valkey.sock") == mode(data_dir) == mode(data_dir / "appendonlydir") == 0o700
        assert (store.owner, store.healthy, store.url) == (True, True, f"unix://{data_dir}/valkey.sock")
        assert store.server == f"Valkey {(await redis.info('server'))['valkey_version']}"
    assert not store.healthy
    assert servers(data_dir) == []


async def test_a_stopped_store_finds_everything_again(data_dir: Path) -> None:
    """Stop and start, of one object and of another."""
    store = EmbeddedStore(data_dir)
    for name in ("one", "two"):
        await put(await store.start(), name)
        await store.stop()
        await store.stop()
    async with running(data_dir) as other:
        assert await keys(other.url) == {"one", "two"}


async def test_kill_of_valkey_alone_loses_nothing_and_is_mended(data_dir: Path) -> None:
    """The supervisor starts another on the same files; meanwhile the store says that it is not healthy."""
    with capture_logs() as logs:
        async with running(data_dir) as store:
            acknowledged: set[str] = set()
            writer = asyncio.create_task(write_through(store.url, acknowledged))
            for _ in range(3):
                before, pid = len(acknowledged), store.pid
                await until(lambda: len(acknowledged) > before + 50, "writes")  # noqa: B023 - awaited in this round
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                await until(lambda: not store.healthy, "unhealthy")
                await until(lambda: store.healthy, "healthy again")
                assert store.pid != pid
            writer.cancel()
            await asyncio.wait({writer})
            assert await keys(store.url) >= acknowledged
    events = [line["event"] for line in logs]
    assert events[0] == "store.started"
    assert events[-1] == "store.stopped"
    assert events.count("store.died") == events.count("store.restarted") == 3
    assert next(line for line in logs if line["event"] == "store.died")["exit_status"] == -signal.SIGKILL


async def write_through(url: str, acknowledged: set[str]) -> None:
    """Writes key after key, and notes those that were acknowledged."""
    number = 0
    async with client(url) as redis:
        while True:
            number += 1
            try:
                await redis.set(f"k{number}", number)
            except (RedisError, OSError):
                await asyncio.sleep(0.005)
            else:
                acknowledged.add(f"k{number}")


async def test_kill_of_the_service_alone_leaves_the_server_to_the_next(data_dir: Path) -> None:
    """The next start attaches to the same process, becomes its owner, and ends it when it stops."""
    service = await Service.start(data_dir, "a")
    acknowledged = await service.acknowledged(500) | await service.kill()
    assert lives(service.pid)
    with capture_logs() as logs:
        async with running(data_dir) as store:
            assert (store.pid, store.owner) == (service.pid, True)
            assert await keys(store.url) >= acknowledged
    assert [line["event"] for line in logs] == ["store.attached", "store.stopped"]
    assert servers(data_dir) == []


async def test_an_adopted_server_that_dies_is_started_again(data_dir: Path) -> None:
    """A service supervises a server that it has adopted like one that it has started."""
    service = await Service.start(data_dir, "a")
    acknowledged = await service.acknowledged(100) | await service.kill()
    async with running(data_dir) as store:
        os.kill(service.pid, signal.SIGKILL)
        await until(lambda: not store.healthy, "unhealthy")
        await until(lambda: store.healthy, "healthy again")
        assert store.pid != service.pid
        assert await keys(store.url) >= acknowledged
    assert servers(data_dir) == []


async def test_kill_of_both_loses_nothing(data_dir: Path) -> None:
    """In the middle of load, three times in a row."""
    acknowledged: set[str] = set()
    for prefix in "abc":
        service = await Service.start(data_dir, prefix)
        acknowledged |= await service.acknowledged(300)
        os.kill(service.pid, signal.SIGKILL)
        acknowledged |= await service.kill()
        await until(lambda: not lives(service.pid), "the killed server is gone")  # noqa: B023 - awaited in this round
    async with running(data_dir) as store:
        assert store.owner
        assert await keys(store.url) >= acknowledged


@pytest.mark.parametrize("orphan", [False, True], ids=["fresh", "with an orphan"])
async def test_concurrent_starts_end_with_one_server(data_dir: Path, orphan: bool) -> None:
    """Three processes at once: one server, one owner, and each process sees the writes of all."""
    left = await Service.start(data_dir) if orphan else None
    if left is not None:
        await left.kill()
    services = await asyncio.gather(*(Service.start(data_dir, prefix) for prefix in "abc"))
    assert servers(data_dir) == [services[0].pid]
    assert {service.pid for service in services} == {left.pid if left is not None else services[0].pid}
    assert sorted(service.owner for service in services) == [False, False, True]
    written = [await service.acknowledged(50) for service in services]
    for service in services:
        assert await keys(service.url) >= set().union(*written)
    for service in sorted(services, key=lambda service: service.owner):
        await service.stop()
    assert servers(data_dir) == []


async def test_many_concurrent_starts_in_one_process_end_with_one_server(data_dir: Path) -> None:
    """The locks exclude also within a process."""
    for _ in range(3):
        stores = [EmbeddedStore(data_dir) for _ in range(8)]
        await asyncio.gather(*(store.start() for store in stores))
        assert servers(data_dir) == [stores[0].pid]
        assert [store.pid for store in stores] == [stores[0].pid] * 8
        assert sum(store.owner for store in stores) == 1
        await asyncio.gather(*(store.stop() for store in stores))
        assert servers(data_dir) == []


async def test_a_guest_never_ends_the_server_of_a_living_owner(data_dir: Path) -> None:
    """A process that only attached leaves it as it was."""
    async with running(data_dir) as owner:
        async with running(data_dir) as guest:
            assert (guest.pid, guest.owner) == (owner.pid, False)
            await put(guest.url, "from the guest")
        assert owner.healthy
        assert await keys(owner.url) == {"from the guest"}


async def test_a_guest_takes_over_from_an_owner_that_was_killed(data_dir: Path) -> None:
    """An orphan is not left without supervision while a process uses it."""
    service = await Service.start(data_dir)
    async with running(data_dir) as guest:
        assert not guest.owner
        await service.kill()
        await until(lambda: guest.owner, "the guest owns the server")
        assert guest.pid == service.pid
        os.kill(service.pid, signal.SIGKILL)
        await until(lambda: guest.pid != service.pid and guest.healthy, "a new server")
    assert servers(data_dir) == []


async def test_a_guest_goes_on_when_the_owner_stops(data_dir: Path) -> None:
    """It starts the server anew, on the same data, and at last ends it."""
    owner = EmbeddedStore(data_dir)
    await put(await owner.start(), "kept")
    async with running(data_dir) as guest:
        await owner.stop()
        await until(lambda: guest.owner and guest.healthy, "the guest owns a new server")
        assert guest.pid != owner.pid
        assert await keys(guest.url) == {"kept"}
    assert servers(data_dir) == []


async def test_the_server_is_beyond_ctrl_c_and_knows_no_secrets(data_dir: Path) -> None:
    """It has its own session, and of our environment only what it needs."""
    service = await Service.start(data_dir, RECEIVER_TOKEN="secret-of-the-service")
    assert os.getsid(service.pid) == os.getpgid(service.pid) == service.pid
    assert b"PATH=" in environment_of(service.pid)
    assert b"secret-of-the-service" not in environment_of(service.pid)
    await service.stop()


@pytest.mark.parametrize(
    "name", ["x" * 150, "y" * 60 + "/" + "z" * 60, 'with "quotes" \\ #1 ?a=b %41 [*] ünï', "\udcff\udcfe"]
)
async def test_any_directory_has_a_reachable_socket(data_dir: Path, name: str) -> None:
    """Also one too deep for a socket, and one whose name means something to a URL or to Valkey's configuration."""
    place = data_dir / name
    async with running(place) as store, running(place) as guest:
        assert guest.pid == store.pid
        await put(guest.url, "reached")
        assert await keys(store.url) == {"reached"}
        async with client(store.url) as redis:
            assert (place / "appendonlydir").is_dir()
            assert len(await redis.client_list()) >= 1


async def test_two_names_of_one_directory_are_one_store(data_dir: Path, tmp_path: Path) -> None:
    """The directory counts, not the way to it."""
    other_name = link(tmp_path / "link", to=data_dir)
    async with running(data_dir) as store, running(other_name) as guest:
        assert (guest.pid, guest.owner) == (store.pid, False)

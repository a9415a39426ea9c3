"""The embedded store in trouble: damaged files, a full disk, servers that hang or keep dying, cancelled calls."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from receiver.errors import StoreUnavailable
from receiver.store import Store
from receiver.store.embedded.files import LOG_KEPT, LOG_LIMIT, DataDir, FileLock
from receiver.store.embedded.process import TAIL_LIMIT
from receiver.store.embedded.program import find_program
from receiver.store.embedded.store import EmbeddedStore
from receiver.store.redis.pipeline import connect
from tests.store.embedded_kit import Service, client, keys, kill_servers, lives, put, running, servers, until


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory that does not exist yet."""
    yield tmp_path / "data"
    kill_servers(tmp_path)


async def filled(data_dir: Path, count: int = 20) -> Path:
    """A stopped store with keys in it; the file that Valkey appended them to."""
    async with running(data_dir) as store, client(store.url) as redis, redis.pipeline(transaction=False) as batch:
        for number in range(count):
            batch.set(f"k{number}", number)
        await batch.execute()
    increment = DataDir(data_dir).newest_increment()
    assert increment is not None
    return increment


def append(path: Path, tail: bytes) -> bytes:
    """What the file held before."""
    before = path.read_bytes()
    path.write_bytes(before + tail)
    return before


async def test_a_command_cut_short_is_dropped(data_dir: Path) -> None:
    """As after a power cut: Valkey itself truncates it."""
    increment = await filled(data_dir)
    os.truncate(increment, increment.stat().st_size - 3)
    async with running(data_dir) as store:
        assert await keys(store.url) == {f"k{number}" for number in range(19)}


@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 4096,
        bytes(range(1, 256)),
        b"*3\r\n$3\r\nSET\r\n$1\r\nabcdef\r\n$1\r\nv\r\n",
        b"\0" * 10 + b"*1\r\n$4\r\nPING\r\n",
    ],
    ids=["zeros", "garbage", "garbled command", "zeros and a command"],
)
async def test_a_garbled_tail_is_cut_off_and_kept(data_dir: Path, tail: bytes) -> None:
    """Valkey refuses to start on it. Acknowledged writes come before it, and nothing is deleted."""
    increment = await filled(data_dir)
    before = append(increment, tail)
    with capture_logs() as logs:
        async with running(data_dir) as store:
            assert await keys(store.url) == {f"k{number}" for number in range(20)}
            await put(store.url, "new")
        async with running(data_dir) as store:
            assert "new" in await keys(store.url)
    (mended,) = [line for line in logs if line["event"] == "store.tail_cut"]
    assert mended["cut_bytes"] == len(tail)
    kept = data_dir / f"damaged-{increment.name}-{len(before)}"
    assert kept.read_bytes() == tail


async def test_a_garbled_tail_of_much_data_is_cut_off(data_dir: Path) -> None:
    """Also where the server answered, while it loaded, before it came upon the damage."""
    append(await filled(data_dir, 100_000), b"\0" * 4096)
    async with running(data_dir) as store, client(store.url) as redis:
        assert await redis.dbsize() == 100_000


async def test_long_damage_is_left_to_people(data_dir: Path) -> None:
    """So much cannot be one unacknowledged group of writes: the file stays, and the error says where to cut."""
    increment = await filled(data_dir)
    before = append(increment, b"\0" * (TAIL_LIMIT + 1))
    with pytest.raises(StoreUnavailable, match=f"readable up to byte {len(before)} of"):
        await EmbeddedStore(data_dir).start()
    assert increment.read_bytes() == before + b"\0" * (TAIL_LIMIT + 1)
    assert servers(data_dir) == []


async def test_a_server_that_cannot_start_says_why(data_dir: Path) -> None:
    """Valkey's own complaint is in the error, and nothing is left behind."""
    increment = await filled(data_dir)
    append(increment, b"*1\r\n$9\r\nNOCOMMAND\r\n")
    with pytest.raises(StoreUnavailable, match="unknown command 'NOCOMMAND'"):
        await EmbeddedStore(data_dir).start()
    assert FileLock(data_dir / "owner.lock").take()


async def test_a_full_disk_loses_nothing_acknowledged(data_dir: Path) -> None:
    """A server that may not write on ends, half a command in its file; the next one has all that was acknowledged."""
    async with running(data_dir) as store:
        await put(store.url, "before")
        assert store.pid is not None
        pid = store.pid
        increment = DataDir(data_dir).newest_increment()
        assert increment is not None
        room = increment.stat().st_size + 1000
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, room))
        acknowledged = await write_until_refused(store.url)
        assert acknowledged
        await until(lambda: store.pid != pid and store.healthy, "a new server")
        assert await keys(store.url) >= {"before", *acknowledged}


async def write_until_refused(url: str) -> list[str]:
    """The keys whose writes were acknowledged."""
    acknowledged: list[str] = []
    for name in (f"k{number}" for number in range(100)):
        try:
            await put(url, name)
        except RedisConnectionError:
            break
        acknowledged.append(name)
    return acknowledged


async def test_a_hanging_orphan_is_ended_before_another_is_started(data_dir: Path) -> None:
    """Two servers on one directory would lose what the first acknowledges."""
    service = await Service.start(data_dir, "a")
    acknowledged = await service.acknowledged(100) | await service.kill()
    os.kill(service.pid, signal.SIGSTOP)
    with capture_logs() as logs:
        async with running(data_dir, answer_timeout=0.5, stop_timeout=0.5) as store:
            assert store.pid != service.pid
            assert not lives(service.pid)
            assert await keys(store.url) >= acknowledged
    assert [line["event"] for line in logs] == ["store.unresponsive", "store.started", "store.stopped"]


async def test_a_hanging_server_of_a_living_owner_is_not_touched(data_dir: Path) -> None:
    """The second start fails and names the owner; the owner is unhealthy for as long as it lasts."""
    async with running(data_dir, answer_timeout=0.5) as owner:
        assert owner.pid is not None
        os.kill(owner.pid, signal.SIGSTOP)
        with pytest.raises(StoreUnavailable, match=f"in use by the service with process id {os.getpid()}"):
            await EmbeddedStore(data_dir, answer_timeout=0.5).start()
        await until(lambda: not owner.healthy, "unhealthy")
        os.kill(owner.pid, signal.SIGCONT)
        await until(lambda: owner.healthy, "healthy again")
        await put(owner.url, "written")


async def test_no_innocent_process_is_ended(data_dir: Path) -> None:
    """A process id in a stale file may be another process's by now, and a directory that another process holds is not
    ours."""
    files = DataDir(data_dir)
    files.prepare()
    innocent = bystander()
    append_text(files.pid_file, f"{innocent.pid}\n")
    lock = FileLock(data_dir / "server.lock")
    assert lock.take()
    with pytest.raises(StoreUnavailable, match=rf"held by another Valkey \(process {innocent.pid}\)"):
        await EmbeddedStore(data_dir, answer_timeout=0.2, stop_timeout=0.2).start()
    assert innocent.poll() is None
    innocent.communicate(b"\n", timeout=20)
    lock.release()
    async with running(data_dir) as store:
        assert store.owner


def bystander() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def append_text(path: Path, text: str) -> None:
    path.write_text(text)


async def test_a_start_waits_while_the_server_loads(data_dir: Path) -> None:
    """However long that takes: a server that loads answers, it does not hang."""
    await filled(data_dir, 8000)
    slow = slow_orphan(DataDir(data_dir))
    began = monotonic()
    async with running(data_dir, answer_timeout=1.0) as store:
        assert (store.pid, store.owner, store.healthy) == (slow.pid, True, True)
        assert monotonic() - began > 1.5
        assert len(await keys(store.url)) == 8000
        stopping = asyncio.create_task(store.stop())
        await until(lambda: slow.poll() is not None, "the end of the adopted server")
        await stopping


def slow_orphan(files: DataDir) -> subprocess.Popen[bytes]:
    """A server that loads 1024 keys, which is how often it answers meanwhile, in 0.3 s."""
    lock = FileLock(files.path / "server.lock")
    assert lock.take()
    command = [str(find_program().path), *files.options(), "--key-load-delay", "250"]
    server = subprocess.Popen(command, pass_fds=(lock.descriptor,))
    lock.release()
    return server


async def test_a_server_that_keeps_dying_is_restarted_ever_more_slowly(data_dir: Path) -> None:
    """0.1 s, then double: four deaths in a row take at least 1.5 s."""
    async with running(data_dir) as store:
        began = monotonic()
        for _ in range(4):
            pid = store.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: store.pid != pid and store.healthy, "a new server")  # noqa: B023 - awaited in this round
        assert monotonic() - began > 0.1 + 0.2 + 0.4 + 0.8


async def test_a_cancelled_start_leaves_nothing(data_dir: Path) -> None:
    """Wherever it is cancelled."""
    for delay in (0.0, 0.005, 0.02, 0.05, 0.1):
        store = EmbeddedStore(data_dir)
        start = asyncio.create_task(store.start())
        await asyncio.wait({start}, timeout=delay)
        start.cancel()
        await asyncio.wait({start})
        await store.stop()
        assert servers(data_dir) == []
    async with running(data_dir) as store:
        assert store.owner


async def test_a_cancelled_stop_goes_on(data_dir: Path) -> None:
    """The server is ended all the same, and a second stop waits for it."""
    store = EmbeddedStore(data_dir)
    await store.start()
    stop = asyncio.create_task(store.stop())
    await asyncio.wait({stop}, timeout=0.005)
    stop.cancel()
    await asyncio.wait({stop})
    assert stop.cancelled()
    await store.stop()
    assert servers(data_dir) == []


async def test_a_stop_while_starting_ends_the_start(data_dir: Path) -> None:
    """A process that waits for the start gets the error."""
    store = EmbeddedStore(data_dir)
    start = asyncio.create_task(store.start())
    await asyncio.wait({start}, timeout=0.01)
    await store.stop()
    with pytest.raises(StoreUnavailable, match="Stopped while starting"):
        await start
    assert servers(data_dir) == []


def test_a_loop_that_ends_without_stop_ends_the_server(data_dir: Path) -> None:
    """`asyncio.run` cancels what is left, and that is an orderly stop."""

    async def careless() -> None:
        await put(await EmbeddedStore(data_dir).start(), "kept")

    asyncio.run(careless())
    assert servers(data_dir) == []


async def test_a_long_log_is_cut_to_its_end(data_dir: Path) -> None:
    """Valkey's log does not grow without bound over restarts."""
    log = data_dir / "valkey.log"
    DataDir(data_dir).prepare()
    append_text(log, "an old line\n" * (LOG_LIMIT // 12) + "the last line\n")
    async with running(data_dir):
        assert log.stat().st_size < LOG_KEPT + 100_000
        assert "the last line" in log.read_text()


async def test_a_store_whose_folder_was_removed_confirms_nothing(data_dir: Path) -> None:
    """Valkey continues to write to deleted files, so the service must not answer 200."""
    async with running(data_dir) as embedded:
        store = Store(connect(embedded.url), gone=lambda: embedded.gone)
        await store.of("us").subscribers.open()
        assert not embedded.gone
        shutil.rmtree(data_dir)
        assert embedded.gone
        with pytest.raises(StoreUnavailable) as caught:
            await store.of("us").subscribers.open()
        assert caught.value.reason == "store_data_dir_gone"
        await store.close()

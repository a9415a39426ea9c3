"""What the tests of the embedded store share: services in separate processes, and a list of the processes that are
alive."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from receiver.store.embedded.files import DataDir
from receiver.store.embedded.store import EmbeddedStore

BOUND = 20.0
"""Seconds after which a condition that should come true never will."""

PROJECT = Path(__file__).resolve().parents[2]


async def until(condition: Callable[[], object], what: str) -> None:
    """Returns when the condition is true."""
    try:
        async with asyncio.timeout(BOUND):
            while not condition():  # noqa: ASYNC110 - most of it is in other processes
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {BOUND} s: {what}") from None


def lives(pid: int | None) -> bool:
    """Whether the process is there, and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def mode(path: Path) -> int:
    """The permission bits."""
    return path.stat().st_mode & 0o777


def environment_of(pid: int) -> bytes:
    """What Linux shows of the process's environment."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def link(path: Path, to: Path) -> Path:
    """A symbolic link to a new directory."""
    to.mkdir(mode=0o700)
    path.symlink_to(to)
    return path


def running_servers() -> Iterator[tuple[int, list[bytes]]]:
    """The Valkey servers of this machine: process and command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and lives(int(entry.name)):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"valkey-server" in words[0]:
                yield int(entry.name), words


def servers(directory: Path) -> list[int]:
    """The Valkey servers that work for a directory at or below this one."""
    below = os.fsencode(directory)
    return [pid for pid, words in running_servers() if any(word.startswith(below) for word in words[1:])]


def homeless_servers() -> list[str]:
    """The command lines of the servers of this environment whose folder is gone: a test left them behind."""
    found = []
    for pid, words in running_servers():
        with suppress(OSError):
            is_of_ours = words[0].startswith(os.fsencode(sys.prefix))
            if is_of_ours and os.readlink(f"/proc/{pid}/cwd").endswith(" (deleted)"):
                found.append(os.fsdecode(b" ".join(words)))
    return found


def kill_servers(directory: Path) -> None:
    """Ends the servers that a test left behind, and removes the socket folders outside of their directories."""
    for pid in servers(directory):
        os.kill(pid, signal.SIGKILL)
    used = {directory / "data", *(lock.parent for lock in directory.rglob("owner.lock"))}
    for data_dir in used:
        place = DataDir(data_dir).socket.parent
        if place != data_dir:
            shutil.rmtree(place, ignore_errors=True)


def client(url: str) -> Redis:
    """A client that asks once. With a timeout, redis-py loses cancellations before Python 3.12 (`asyncio.wait_for`)."""
    return Redis.from_url(url, decode_responses=True, retry=Retry(NoBackoff(), 0), socket_timeout=None)


async def keys(url: str) -> set[str]:
    """Every key in the store."""
    async with client(url) as redis:
        return {key async for key in redis.scan_iter(count=1000)}


async def put(url: str, *names: str) -> None:
    """Writes the keys and has them acknowledged."""
    async with client(url) as redis:
        for name in names:
            await redis.set(name, name)


@asynccontextmanager
async def running(
    data_dir: Path, *, answer_timeout: float = 10.0, stop_timeout: float = 10.0
) -> AsyncIterator[EmbeddedStore]:
    """A store in this process, started and in the end stopped."""
    store = EmbeddedStore(data_dir, answer_timeout=answer_timeout, stop_timeout=stop_timeout)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


@dataclass
class Service:
    """A service in its own process (`embedded_service.py`)."""

    process: asyncio.subprocess.Process
    pid: int
    """Of its Valkey."""
    owner: bool
    url: str

    @classmethod
    async def start(cls, data_dir: Path, prefix: str = "", **environment: str) -> Service:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            Path(__file__).with_name("embedded_service.py"),
            data_dir,
            prefix,
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        told = json.loads(await asyncio.wait_for(cls._line(process), BOUND))
        return cls(process, told["pid"], told["owner"], told["url"])

    async def acknowledged(self, count: int) -> set[str]:
        """Wait for the next `count` acknowledged writes. Returns their keys."""
        return {(await asyncio.wait_for(self._line(self.process), BOUND)).strip() for _ in range(count)}

    async def kill(self) -> set[str]:
        """`kill -9`. Returns the other keys that it had acknowledged."""
        self.process.kill()
        return await self._rest()

    async def stop(self) -> set[str]:
        """An orderly end; what it had acknowledged besides."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        rest = await self._rest()
        assert "stopped" in rest
        return rest - {"stopped"}

    async def _rest(self) -> set[str]:
        assert self.process.stdout is not None
        rest = await asyncio.wait_for(self.process.stdout.read(), BOUND)
        await asyncio.wait_for(self.process.wait(), BOUND)
        return {line for line in rest.decode().split("\n")[:-1] if line}

    @staticmethod
    async def _line(process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        line = await process.stdout.readline()
        assert line, "the service ended"
        return line.decode()

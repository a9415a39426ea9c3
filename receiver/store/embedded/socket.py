"""Edge: a socket. Checks the health of the embedded Valkey.

Four commands are implemented by hand instead of with a Redis client, because this connection must show three things
that a client hides behind reconnects: that the server is still loading, that it hangs, and the moment at which it ends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from receiver.errors import StoreUnavailable
from receiver.store.redis.keys import PROBE

TROUBLE = (OSError, EOFError)
"""What a command may raise: refused, cut off, timed out (TimeoutError is an OSError), or an incomplete answer."""


class ServerConnection:
    """One connection: `async with ServerConnection(path, timeout) as server`. Each command has `timeout` seconds."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(self._timeout):
            self._reader, self._writer = await asyncio.open_unix_connection(os.fspath(self._path))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.transport.abort()

    async def ping(self) -> str:
        """`PONG`, or the first word of the server's error: `LOADING`, `BUSY`, `MISCONF` (it cannot write to disk)."""
        async with asyncio.timeout(self._timeout):
            return (await self._ask(b"PING")).split()[0].lstrip("+-")

    async def info(self) -> dict[str, str]:
        """`INFO server`, which a server answers even while it loads."""
        async with asyncio.timeout(self._timeout):
            body = await self._bulk(await self._ask(b"INFO server"))
        fields = (line.partition(":") for line in body.split("\r\n"))
        return {name: value for name, colon, value in fields if colon}

    async def directory(self) -> str:
        """The server's working directory; empty if it was removed. A server answers this even while it loads."""
        async with asyncio.timeout(self._timeout):
            if await self._ask(b"CONFIG GET dir") != "*2":
                raise ConnectionError("not an answer to CONFIG GET")
            await self._bulk(await self._read())
            return await self._bulk(await self._read())

    async def write(self) -> str:
        """`OK` once a temporary key (1 ms) is on disk; or the first word of an error."""
        async with asyncio.timeout(self._timeout):
            return (await self._ask(f"SET {PROBE} 1 PX 1".encode())).split()[0].lstrip("+-")

    async def ended_within(self, seconds: float) -> bool:
        """Whether the server closed the connection within this time."""
        try:
            async with asyncio.timeout(seconds):
                return not await self._reader.read(1)
        except TimeoutError:
            return False

    async def _ask(self, command: bytes) -> str:
        self._writer.write(command + b"\r\n")
        await self._writer.drain()
        return await self._read()

    async def _read(self) -> str:
        answer = await self._reader.readline()
        if not answer.strip():
            raise ConnectionError("cut")
        return os.fsdecode(answer).rstrip("\r\n")

    async def _bulk(self, head: str) -> str:
        if not head.startswith("$"):
            raise ConnectionError("not a text")
        return os.fsdecode(await self._reader.readexactly(int(head[1:]) + 2))[:-2]


def described(info: Mapping[str, str]) -> dict[str, str]:
    """By its `info`, the server's product, version and program."""
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get(f"{product.lower()}_version", "")
    return {"product": product, "version": version, "program": info.get("executable", "")}


async def try_a_write(path: Path, timeout: float) -> None:
    """Raise `StoreUnavailable` unless a write succeeds: on a full disk the server dies at the first write."""
    try:
        async with ServerConnection(path, timeout) as line:
            answer = await line.write()
    except TROUBLE as error:
        raise StoreUnavailable("Valkey ended at its first write: look at its disk.") from error
    if answer != "OK":
        raise StoreUnavailable(f"Valkey refuses writes: {answer}.")

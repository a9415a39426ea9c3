"""TLS in front of a Valkey that has none: a real listener with a real certificate, which passes the bytes on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from urllib.parse import unquote, urlsplit

import trustme

HELLO = b"\x16"
"""How TLS begins (RFC 8446, 5.1: handshake); no command of Redis begins so."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Front:
    """Passes on to `upstream` (`unix://…`, `redis://host:port`) what comes over TLS, and what comes without as well:
    Sentinels tell clients the address at which they themselves look after the master."""

    def __init__(self, upstream: str, certificate: trustme.LeafCert) -> None:
        self.upstream = urlsplit(upstream)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)
        self.secured = 0
        """Connections over TLS that came about."""
        self.plain = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, listener: socket.socket) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        while True:
            line, _ = await loop.sock_accept(listener)
            task = loop.create_task(self._serve(line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, line: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        came: asyncio.Future[None] = loop.create_future()
        loop.add_reader(line, partial(_ready, came))
        try:
            await came
        finally:
            loop.remove_reader(line)
        with contextlib.suppress(OSError, ssl.SSLError):
            tls = line.recv(1, socket.MSG_PEEK) == HELLO
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, line, ssl=self.context if tls else None)
            self.secured, self.plain = self.secured + tls, self.plain + (not tls)
            await self._pass_on((reader, asyncio.StreamWriter(transport, protocol, reader, loop)))

    async def _pass_on(self, below: Streams) -> None:
        above = await self._above()
        pumps = [asyncio.create_task(pump(below[0], above[1])), asyncio.create_task(pump(above[0], below[1]))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in pumps:
                each.cancel()
            above[1].close()
            below[1].close()
            await asyncio.gather(*pumps, return_exceptions=True)

    def _above(self) -> Awaitable[Streams]:
        if self.upstream.scheme == "unix":
            return asyncio.open_unix_connection(unquote(self.upstream.path))
        return asyncio.open_connection(self.upstream.hostname, self.upstream.port)

    async def close(self) -> None:
        """Cut every connection."""
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _ready(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """All bytes, until one of the two ends."""
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


@contextlib.asynccontextmanager
async def front(upstream: str, certificate: trustme.LeafCert) -> AsyncIterator[tuple[Front, int]]:
    """Listening on 127.0.0.1; with its port."""
    found = Front(upstream, certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepting = asyncio.create_task(found.accept(listener))
        try:
            yield found, listener.getsockname()[1]
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            await found.close()

"""A proxy between a store and its Redis that loses answers: the command ran, but its caller cannot know."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path


class Proxy:
    """Forwards a unix socket. While `lose` is positive, the next answers are swallowed and their connections cut.

    `skip` answers come through before that. Each piece of an answer is held back for `delay` seconds.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.lose = 0
        self.skip = 0
        self.delay = 0.0
        self.connections: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection."""
        above, below = await asyncio.open_unix_connection(self.upstream)
        pumps = [asyncio.create_task(self._requests(reader, below)), asyncio.create_task(self._answers(above, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            below.close()
            writer.close()
            await asyncio.gather(*pumps, below.wait_closed(), writer.wait_closed(), return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, below: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            below.write(data)

    async def _answers(self, above: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await above.read(65536):
            if self.skip > 0:
                self.skip -= 1
            elif self.lose > 0:
                self.lose -= 1
                return
            if self.delay:
                await asyncio.sleep(self.delay)
            writer.write(data)


@contextlib.asynccontextmanager
async def proxied(upstream_url: str, directory: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """A running proxy and the address of its socket."""
    proxy = Proxy(upstream_url.removeprefix("unix://"))
    path = directory / "p.sock"

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.connections.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(asyncio.CancelledError):
            await proxy.serve(reader, writer)

    server = await asyncio.start_unix_server(connected, str(path))
    try:
        yield proxy, f"unix://{path}"
    finally:
        server.close()
        for connection in proxy.connections:
            connection.cancel()
        await asyncio.gather(*proxy.connections, return_exceptions=True)

"""Edge: a web server for tests that sends exactly the given bytes, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from receiver.transport.resolver import AsyncResolver

Says = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class WebServer:
    """What came in: whole requests as bytes, and how many connections carried them."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request with its body; empty where the client has gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    length = re.search(rb"content-length: *([0-9]+)", head, re.IGNORECASE)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


@asynccontextmanager
async def serving(
    says: Says | bytes, tls: ssl.SSLContext | None = None, greeting: bytes = b""
) -> AsyncIterator[WebServer]:
    """Serve `says` to every request, on the same connection as long as the client likes; `greeting` is sent without a
    request."""
    server = WebServer()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        server.tasks.add(task)
        writer.write(greeting)
        try:
            while request := await read_request(reader):
                server.requests.append(request)
                if isinstance(says, bytes):
                    writer.write(says)
                    await writer.drain()
                else:
                    await says(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            server.tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await asyncio.sleep(0)
        for task in tuple(server.tasks):
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        await listener.wait_closed()


class Names(AsyncResolver):
    """Answers names from a table: each look-up of a name takes its next answer, the last one for ever.

    An answer is a list of `(address, port)`; port 0 means the requested port.
    """

    def __init__(self, table: dict[str, list[list[tuple[str, int]]]]) -> None:
        super().__init__()
        self.table = table
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> list[tuple[str, int]]:
        self.asked.append(host)
        answers = self.table.get(host)
        if answers is None:
            raise OSError(None, "unknown name")
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(address, at or port) for address, at in found]

"""A server that needs very little CPU. It answers the requests that the service sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from tests.benchmarks.load import END, LENGTH

Answer = Callable[[bytes, bytes], bytes]
"""Head and body of a request → the whole answer."""

NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"


def text(body: bytes, kind: str = "application/json") -> bytes:
    """A whole answer 200."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class _Line(asyncio.Protocol):
    def __init__(self, answer: Answer) -> None:
        self._answer, self._held = answer, b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(END)) >= 0:
            found = LENGTH.search(self._held, 0, end)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._held) < whole or self._transport is None:
                return
            head, body, self._held = self._held[:end], self._held[end + 4 : whole], self._held[whole:]
            self._transport.write(self._answer(head, body))


@asynccontextmanager
async def plain(answer: Answer) -> AsyncIterator[int]:
    """Serve on a free port of this machine, which is yielded."""
    server = await asyncio.get_running_loop().create_server(lambda: _Line(answer), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()

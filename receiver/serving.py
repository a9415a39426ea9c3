"""Edge: uvicorn. A server within a program that does more: it says when it answers, and leaves signals alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn


class Server(uvicorn.Server):
    """A server that leaves the process's signals to whoever started the process.

    uvicorn raises the signals that it caught once more when it has stopped: the process would die of them before the
    rest of it has let go in order.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.answering.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """No."""
        yield


@contextlib.asynccontextmanager
async def serving(server: Server, listener: socket.socket) -> AsyncIterator[str]:
    """Serve on a bound socket. Yields the base address once it answers; at the end, requests in flight are answered."""
    life = asyncio.create_task(server.serve([listener]), name="http")
    answering = asyncio.create_task(server.answering.wait())
    try:
        await asyncio.wait({life, answering}, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            life.result()
            raise RuntimeError("The HTTP server ended before it answered.")
        yield base_url(listener)
    finally:
        answering.cancel()
        server.should_exit = True
        await life


def base_url(listener: socket.socket) -> str:
    """`http://127.0.0.1:8000` for a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"

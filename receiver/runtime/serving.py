"""Edge: uvicorn. A server inside a larger program: it reports when it is ready and when it ends, and ignores
signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import Final, cast

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ENDING: Final = "receiver.ending"
"""The ASGI extension that tells an application that the server is ending: `event` is set then."""


class Server(uvicorn.Server):
    """A server that leaves signals to the program around it.

    When uvicorn has stopped, it raises the signals that it caught once more: the process would die before the rest of
    it could stop cleanly.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        self.answering, self.ending = asyncio.Event(), asyncio.Event()
        config.app, config.interface = Leaving(cast(ASGIApp, config.app), self.ending), "asgi3"
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and send without Nagle's algorithm.

        The second piece of an answer would wait up to 40 ms for the client's delayed acknowledgement of the first.
        asyncio turns the algorithm off only for a socket that was made with the protocol number of TCP.
        """
        for each in sockets or ():
            if each.family != socket.AF_UNIX:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # accepted sockets inherit it
        await super().startup(sockets)
        self.answering.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and let requests in progress be answered."""
        self.ending.set()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class Leaving:
    """When the server ends, tells waiting requests that the client has gone (`request.is_disconnected()`). Their
    answers are still sent.

    uvicorn waits for every answer, but supervisors kill a program that does not end in time (Docker: 10 s). A request
    whose body has not arrived yet is not interrupted. The extension `ENDING` tells endless answers to stop.
    """

    def __init__(self, app: ASGIApp, ending: asyncio.Event) -> None:
        self._app, self._ending = app, ending
        self._offered = {"event": ending}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """One request."""
        whole = False
        scope.setdefault("extensions", {})[ENDING] = self._offered

        async def received() -> Message:
            nonlocal whole
            if whole and self._ending.is_set():
                return {"type": "http.disconnect"}
            message = await receive()
            whole = whole or (message["type"] == "http.request" and not message.get("more_body", False))
            return message

        return self._app(scope, received, send)


@contextlib.asynccontextmanager
async def serving(server: Server, listener: socket.socket) -> AsyncIterator[str]:
    """Serve on a bound socket. Yields the base address once it answers; requests in progress are still answered."""
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


@contextlib.asynccontextmanager
async def serving_all(servers: Sequence[tuple[Server, socket.socket]]) -> AsyncIterator[list[str]]:
    """Serve on several sockets, like `serving`. All begin to stop together, because supervisors do not wait long."""
    async with contextlib.AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(serving(*each)) for each in servers]
        try:
            yield addresses
        finally:
            for server, _ in servers:
                server.should_exit = True


def base_url(listener: socket.socket) -> str:
    """The base address of a bound socket, such as `http://127.0.0.1:8000`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"

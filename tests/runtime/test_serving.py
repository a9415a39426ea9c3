"""The server inside a larger program, on a real socket."""

from __future__ import annotations

import socket

import uvicorn
from starlette.applications import Starlette

from receiver.runtime.serving import Server, serving


async def test_an_answer_does_not_wait_for_an_acknowledgement() -> None:
    """Accepted sockets inherit that Nagle's algorithm is off; also if the listener was made without TCP's number."""
    web = Server(uvicorn.Config(Starlette(), lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert (listener.proto, listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) == (0, 0)
        async with serving(web, listener):
            assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

"""HTTP. The answer to a notification: a status and headers, never a body."""

from __future__ import annotations

import asyncio
from functools import cache

from starlette.types import Receive, Scope, Send

from receiver.http.headers import DEFAULTS
from receiver.http.ipn.incoming import Dropped, Incoming
from receiver.http.protocol import CLOSE

LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 1.0
"""After an early response, up to this much of what the sender still sends is read and discarded. Closing at once would
reset the connection and could lose the response (RFC 9112, 9.6)."""


@cache
def _headers(status: int, retry_after: int | None, early: bool) -> tuple[tuple[bytes, bytes], ...]:
    more = {b"retry-after": str(retry_after).encode()} if retry_after is not None else {}
    more |= ({b"allow": b"POST"} if status == 405 else {}) | ({b"connection": b"close"} if early else {})
    return ((b"content-length", b"0"), *more.items(), *DEFAULTS.items())


async def answer(send: Send, incoming: Incoming, status: int, retry_after: int | None, request_id: str) -> None:
    """An empty response. If the body was not read to its end, the connection is not reused."""
    early = incoming.more
    headers = [*_headers(status, retry_after, early), (b"x-request-id", request_id.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if early:
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await _linger(incoming)
    await send({"type": "http.response.body", "body": b""})


async def _linger(incoming: Incoming) -> None:
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while incoming.more and left > 0:
                left -= len(await incoming.chunk())
    except (Dropped, TimeoutError):
        pass


async def close(scope: Scope, receive: Receive, send: Send) -> None:
    """Drop the connection. If the server cannot, send 503: SNS tries again."""
    extension = scope.get("extensions", {}).get(CLOSE)
    if extension is None:
        headers = [(b"content-length", b"0"), (b"retry-after", b"30"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    extension["close"]()
    while (await receive())["type"] != "http.disconnect":
        pass

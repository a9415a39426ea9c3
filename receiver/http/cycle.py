"""HTTP. How an answer is written. uvicorn searches each header's name and value, which takes longer than judging
whether a notification is from a stranger; here all headers are checked at once. It writes head and body separately."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, 5.6.2: a token."""
FORBIDDEN: Final = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])
"""What no header value may hold."""

FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    head = b""
    """The head, until the first part of the body is sent. Both are written together, because each write is a system
    call. ASGI allows the head to wait."""

    async def send(self, message: Any) -> None:
        """Write the next part of the answer."""
        if self.access_log or self.disconnected:
            await super().send(message)
        elif message["type"] == "http.response.start" and not self.response_started:
            self.response_started, self.waiting_for_100_continue = True, False
            self.head = self._head(message["status"], [*self.default_headers, *message.get("headers", ())])
        elif not (head := self.head):
            await super().send(message)
        else:
            self.head = b""
            if self.chunked_encoding or self.scope["method"] == "HEAD":
                self.transport.write(head)
            else:
                self.expected_content_length += len(head)
                message = {**message, "body": head + message.get("body", b"")}
            await super().send(message)

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        names, values = zip(*headers, strict=True) if headers else ((), ())
        closes = False
        for at, kind in _framing(names):
            if kind == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length, self.chunked_encoding = int(values[at]), False
            elif kind == b"transfer-encoding" and values[at].lower() == b"chunked":
                self.expected_content_length, self.chunked_encoding = 0, True
            elif kind == b"connection" and b"close" in values[at].lower():
                self.keep_alive, closes = False, True
        if len(joined := b"".join(values)) != len(joined.translate(None, FORBIDDEN)):
            raise RuntimeError("Invalid HTTP header value.")
        lines = [*map(b": ".join, headers)]
        if not self.keep_alive and not closes:
            lines.append(b"connection: close")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked")
        return STATUS_LINE[status] + b"\r\n".join([*lines, b"", b""])


@lru_cache(1024)
def _framing(names: tuple[bytes, ...]) -> tuple[tuple[int, bytes], ...]:
    """The place and name of each header that says where the answer ends. Raises `RuntimeError` for what is no name."""
    if not all(map(NAME.fullmatch, names)):
        raise RuntimeError("Invalid HTTP header name.")
    return tuple((at, name.lower()) for at, name in enumerate(names) if name.lower() in FRAMING)

"""HTTP. How an answer is written. uvicorn searches each header's name and value, which takes longer than judging
whether a notification is from a stranger; here all headers are checked at once."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, 5.6.2: a token."""
FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What no header value may hold."""

FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    async def send(self, message: Any) -> None:
        """Write the next part of the answer: the head here, the rest as uvicorn does."""
        if self.response_started or message["type"] != "http.response.start" or self.access_log:
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if not self.disconnected:
            self.response_started, self.waiting_for_100_continue = True, False
            self.transport.write(self._head(message["status"], [*self.default_headers, *message.get("headers", ())]))

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        lines, closes = [STATUS_LINE[status]], False
        for name, value in headers:
            kind = _framing(name)
            if kind == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length, self.chunked_encoding = int(value), False
            elif kind == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length, self.chunked_encoding = 0, True
            elif kind == b"connection" and b"close" in value.lower():
                self.keep_alive, closes = False, True
            lines += (name, b": ", value, b"\r\n")
        if FORBIDDEN.search(b"".join([value for _, value in headers])):
            raise RuntimeError("Invalid HTTP header value.")
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)


@lru_cache(1024)
def _framing(name: bytes) -> bytes:
    """The name in lower case if it says where the answer ends, else empty. Raises `RuntimeError` if it is no name."""
    if not NAME.fullmatch(name):
        raise RuntimeError("Invalid HTTP header name.")
    return name.lower() if name.lower() in FRAMING else b""

"""HTTP. The uvicorn that serves the application: what it accepts, and how it lets a connection go without an answer.

uvicorn has no limit on the time or the size of a request's head, and no way for an application to close a connection
without an answer. Both are added to its protocol here, where the transport is at hand.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from receiver.serving import Server
from receiver.settings.sections import HttpSettings

CLOSE: Final = "receiver.close"
"""The ASGI extension by which an application drops the connection: `close` after what was written, `abort` at once."""
MOST_HEAD: Final = 32 * 1024
"""Bytes of request line and headers together; SNS sends about 1 KiB."""
MOST_FED: Final = MOST_HEAD + 256 * 1024
"""Bytes that may arrive before a head has ended: the loop reads up to 256 KiB at once, a body's beginning included."""


class TooMuchHead(ValueError):
    """uvicorn answers 400 and closes, as for any head that it cannot parse."""


class Protocol(HttpToolsProtocol):
    """One connection, with bounds on the time and the size of a request's head."""

    head_timeout = 10.0
    head = 0
    fed = 0
    head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection is there: its first head is due."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and its timer with it."""
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """httptools keeps a header that does not end to itself, whatever its length: what it is fed is counted here."""
        if self.head_timer is not None:
            self.fed += len(data)
            if self.fed > MOST_FED:
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """The first byte of a request: the rest of its head is due."""
        super().on_message_begin()
        self.head = 0
        self._expect_head()
        self.scope["extensions"] = {CLOSE: {"close": self.transport.close, "abort": self.transport.abort}}

    def on_url(self, url: bytes) -> None:
        """A piece of the request line."""
        self._measure(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._measure(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_is_here()
        super().on_headers_complete()

    def _measure(self, *parts: bytes) -> None:
        self.head += sum(map(len, parts))
        if self.head > MOST_HEAD:
            raise TooMuchHead

    def _expect_head(self) -> None:
        if self.head_timer is None:
            self.head_timer = self.loop.call_later(self.head_timeout, self.transport.close)

    def _head_is_here(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
            self.fed = 0


def server(app: ASGIApp, http: HttpSettings, **more: Any) -> Server:
    """A server for the application, not yet started. `more` goes to `uvicorn.Config` as it is (`fd`, `workers`, …)."""
    timed = type("TimedProtocol", (Protocol,), {"head_timeout": http.header_timeout.total_seconds()})
    trusted = [str(network) for network in http.trusted_proxies]
    return Server(
        uvicorn.Config(
            app,
            host=http.host,
            port=http.port,
            http=timed,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(trusted),
            forwarded_allow_ips=trusted,
            timeout_graceful_shutdown=int(http.shutdown_timeout.total_seconds()),
            **more,
        )
    )

"""HTTP. The uvicorn that serves the application: what it accepts, and how it lets a connection go without an answer.

uvicorn has no limit on the time or the size of a request's head, none on connections that leaves those alone which are
open already, and no way for an application to close a connection without an answer. It loses the body of a request that
offers an upgrade. All of that is mended in its protocol here, where the transport is at hand.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httptools
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from receiver.serving import Server
from receiver.settings.sections import HttpSettings

CLOSE: Final = "receiver.close"
"""The ASGI extension by which an application drops the connection: `close` after what was written, `abort` at once."""
REST: Final = "receiver.rest"
"""The ASGI extension by which an application that sheds a request has its connection rest: `rest` is called before the
answer."""
REST_SECONDS: Final = 1.0
"""For so long nothing more is read from a connection whose request was shed. Otherwise ten times what the machine takes
would keep it busy with refusing; who heeds the `Retry-After` of 2 s does not notice."""
MOST_HEAD: Final = 16 * 1024
"""Bytes of request line and headers together; SNS sends about 1 KiB."""
MOST_FED: Final = MOST_HEAD + 256 * 1024
"""Bytes that may arrive before a head has ended: the loop reads up to 256 KiB at once, a body's beginning included."""


OFFERS: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})
"""What offers an upgrade."""
FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
STALL_SECONDS: Final = 30.0
"""Who takes nothing of an answer for so long loses the connection: it would stay for ever, and count as one."""
SAY_EVERY: Final = 60.0
"""Seconds between two log lines about too many connections."""

log = structlog.get_logger()


class TooMuchHead(ValueError):
    """uvicorn answers 400 and closes, as for any head that it cannot parse."""


class Protocol(HttpToolsProtocol):
    """One connection, with bounds on the time and the size of a request's head."""

    head_timeout = 10.0
    head = 0
    heading = False
    """Whether a head has begun and not ended."""
    fed = 0
    head_timer: asyncio.TimerHandle | None = None
    most: int = 1000
    said_at: list[float]
    """When too many connections were last said; one list for all connections of a server."""
    upgrading = False
    tired = False
    """Whether the request that is answered now is shed."""
    rest_timer: asyncio.TimerHandle | None = None
    stall_timeout = STALL_SECONDS
    stall_timer: asyncio.TimerHandle | None = None
    answered: RequestResponseCycle | None = None
    """Whose answer is under way, or was last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection is there: its first head is due. One too many gets 503 at once; SNS comes back after it."""
        super().connection_made(transport)
        self.extensions: dict[str, dict[object, object]] = {
            CLOSE: {"close": transport.close, "abort": transport.abort},
            REST: {"rest": self._tire},
        }
        if len(self.connections) > self.most:
            self._say_full()
            transport.write(FULL)
            transport.close()
            return
        self._expect_head()

    def _say_full(self) -> None:
        now = self.loop.time()
        if now - self.said_at[0] >= SAY_EVERY:
            self.said_at[0] = now
            log.error(
                "http.too_many_connections",
                connections=self.most,
                mend="look who holds them, or raise http.connections",
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and its timers with it.

        uvicorn tells the last request of a pipeline only: the one that is being answered would wait for ever, or write.
        """
        self._head_is_here()
        for timer in (self.rest_timer, self.stall_timer):
            if timer is not None:
                timer.cancel()
        if self.answered is not None:
            self.answered.disconnected = True
            self.answered.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.answered = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """The sender does not take what it is answered."""
        super().pause_writing()
        self._expect_taken()

    def resume_writing(self) -> None:
        """It does. What is left when the connection is closed stays due."""
        super().resume_writing()
        if self.stall_timer is not None and not self.transport.is_closing():
            self.stall_timer.cancel()
            self.stall_timer = None

    def _expect_taken(self) -> None:
        if self.stall_timer is None:
            self.stall_timer = self.loop.call_later(self.stall_timeout, self.transport.abort)

    def _close(self) -> None:
        self.transport.close()
        self._expect_taken()

    def timeout_keep_alive_handler(self) -> None:
        """No request came after the last one."""
        self._close()

    def data_received(self, data: bytes) -> None:
        """httptools keeps a header that does not end to itself, whatever its length: what it is fed is counted here."""
        if self.head_timer is not None:
            self.fed += len(data)
            if self.fed > MOST_FED:
                self.transport.abort()
                return
        if self.transport.is_closing():
            return
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")
            self._expect_taken()
        if self.heading:
            self._expect_head()

    def _feed(self, data: bytes) -> None:
        """The parser takes an offered upgrade for accepted: it is given the head again, without the offer."""
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self.upgrading:
                    return
                rest = rest[upgrade.args[0] :]
                head = self._head_without_offer()
                self.upgrading = False
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)

    def _head_without_offer(self) -> bytes:
        """RFC 9110, 7.8: a server may ignore `Upgrade`. What else `Connection` says is kept."""
        said = b",".join(value for name, value in self.headers if name == b"connection")
        options = [option.strip().lower() for option in said.split(b",") if option.strip()]
        kept = [option for option in options if option not in (b"upgrade", b"http2-settings")]
        headers = [pair for pair in self.headers if pair[0] not in OFFERS]
        lines = [
            b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode()),
            *(b"%s: %s" % pair for pair in headers),
            *([b"connection: " + b", ".join(kept)] if kept else []),
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        """The first byte of a request: what of its head is not here yet is due.

        Nothing else ends the rest between two requests. Empty lines, or what still comes of a body that was answered
        early, would otherwise hold a connection for ever.
        """
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self.head = 0
        self.heading = True
        self.scope["extensions"] = self.extensions

    def on_url(self, url: bytes) -> None:
        """A piece of the request line."""
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._measure(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole. It may have begun before the answer to the last request ended."""
        self._head_is_here()
        self._unset_keepalive_if_required()
        self.upgrading = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self.upgrading:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole, unless it was not looked at yet."""
        if not self.upgrading:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written. After a shed request the connection rests; the sender waits in its own kernel."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_taken()
        if self.tired and not self.transport.is_closing():
            self.tired = False
            self.flow.pause_reading()
            self.rest_timer = self.loop.call_later(REST_SECONDS, self._rested)

    def _tire(self) -> None:
        self.tired = True

    def _rested(self) -> None:
        self.rest_timer = None
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _measure(self, size: int) -> None:
        self.head += size
        if self.head > MOST_HEAD:
            raise TooMuchHead

    def _expect_head(self) -> None:
        if self.head_timer is None:
            self.head_timer = self.loop.call_later(self.head_timeout, self._close)

    def _head_is_here(self) -> None:
        self.heading = False
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
            self.fed = 0


def server(app: ASGIApp, http: HttpSettings, **more: Any) -> Server:
    """A server for the application, not yet started. `more` goes to `uvicorn.Config` as it is (`fd`, `workers`, …)."""
    bounds = {
        "head_timeout": http.header_timeout.total_seconds(),
        "most": http.connections,
        "said_at": [float("-inf")],
    }
    timed = type("BoundedProtocol", (Protocol,), bounds)
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

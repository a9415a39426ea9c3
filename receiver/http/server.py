"""HTTP. The uvicorn that serves the application: what it accepts, and how it lets a connection go without an answer.

uvicorn has no limit on the time or the size of a request's head, none on connections that tells idle ones from others,
and no way for an application to close a connection without an answer. It loses the body of a request that offers an
upgrade, and takes trailer fields for headers. Its protocol is corrected here, where the transport is at hand.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from receiver.http.connections import FULL, Connections, Room, is_admitted, no_room
from receiver.http.forwarded import Forwarded
from receiver.http.headers import head_without_offer
from receiver.runtime.serving import Server
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
"""Bytes that may arrive before a head has ended, or that bring nothing of a body: the loop reads up to 256 KiB at once,
a body's beginning included."""
REST_OF_BODY: Final = 5
"""Seconds that what still comes of a body may take after an early answer."""

STALL_SECONDS: Final = 30.0
"""Who takes nothing of an answer for so long loses the connection: it would stay for ever, and count as one."""


class TooMuchHead(ValueError):
    """uvicorn answers 400 and closes, as for any head that it cannot parse."""


class Protocol(HttpToolsProtocol):
    """One connection, with bounds on the time and the size of a request's head."""

    head_timeout = 10.0
    keep_alive = 75
    head = 0
    heading = False
    """Whether a head has begun and not ended."""
    fed = 0
    head_timer: asyncio.TimerHandle | None = None
    others: Connections
    """All of the server that can go."""
    counts_for: str | None = None
    """The client, by whose number of connections it goes earlier or later."""
    reserved = False
    """Whether it is one over the limit, for requests that are never shut out."""
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
        self.counts_for = self.others.pool_of(self.client[0] if self.client else "")
        room = self.others.room_for(self.counts_for, len(self.connections), self.loop.time())
        if room is Room.NONE:
            transport.write(FULL)
            transport.close()
            return
        self.reserved = room is Room.RESERVED
        self.others.spare(self.counts_for, self, self.loop.time())
        self._expect_head()

    def give_way(self) -> None:
        """Another needs the room. Who has not been answered yet is told to come again; who idles is not, since it would
        take that for the answer to its next request."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
            return
        asked = self.answered
        if self.heading or asked is None or not asked.response_started:
            self.transport.write(FULL)
        self._close()

    def _sort(self) -> None:
        """Can it go? Not while a whole request is answered, and the answer is taken; nor while it rests."""
        asked = self.answered
        whole = asked is not None and not asked.response_complete and not asked.more_body
        if self.rest_timer is not None or (whole and not self.flow.write_paused):
            self.others.needed(self.counts_for, self)
        elif not self.transport.is_closing():
            idle = asked is not None and asked.response_complete
            self.others.spare(self.counts_for, self, self.loop.time(), idle=idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and its timers with it.

        uvicorn tells the last request of a pipeline only: the one that is being answered would wait for ever, or write.
        """
        self._head_is_here()
        self.others.needed(self.counts_for, self)
        for timer in (self.rest_timer, self.stall_timer):
            if timer is not None:
                timer.cancel()
        if self.answered is not None:
            self.answered.disconnected = True
            self.answered.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.answered = cycle
        if self.reserved:
            cycle.keep_alive = False
            app = app if is_admitted(cycle.scope["path"]) else no_room
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """The sender does not take what it is answered."""
        super().pause_writing()
        self._expect_taken()
        self._sort()

    def resume_writing(self) -> None:
        """It does. What is left when the connection is closed stays due."""
        super().resume_writing()
        self._sort()
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
        """httptools keeps a field that does not end to itself, whatever its length: what it is fed is counted here."""
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
                version = self.parser.get_http_version().encode()
                head = head_without_offer(self.parser.get_method(), self.url, version, self.headers)
                self.upgrading = False
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)

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
        """One header; or one trailer field, which says nothing about the request (RFC 9110, 6.5.1)."""
        self._measure(len(name) + len(value))
        if self.heading:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole. It may have begun before the answer to the last request ended."""
        self._head_is_here()
        self._unset_keepalive_if_required()
        self.upgrading = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self.upgrading:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.fed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole, unless it was not looked at yet."""
        self.fed = 0
        if not self.upgrading:
            super().on_message_complete()
            self._sort()

    def on_response_complete(self) -> None:
        """The answer is written. After a shed request the connection rests; the sender waits in its own kernel."""
        self.timeout_keep_alive = min(self.keep_alive, REST_OF_BODY) if self.cycle.more_body else self.keep_alive
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_taken()
        if self.tired and not self.transport.is_closing():
            self.tired = False
            self.flow.pause_reading()
            self.rest_timer = self.loop.call_later(REST_SECONDS, self._rested)
        self._sort()

    def _tire(self) -> None:
        self.tired = True

    def _rested(self) -> None:
        self.rest_timer = None
        self._sort()
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
    keep_alive = more.pop("timeout_keep_alive", int(http.keep_alive.total_seconds()))
    bounds = {
        "head_timeout": http.header_timeout.total_seconds(),
        "keep_alive": keep_alive,
        "others": Connections(http.connections, http.trusted_proxies),
    }
    timed = type("BoundedProtocol", (Protocol,), bounds)
    if http.trusted_proxies:
        app = cast(ASGIApp, Forwarded(cast(Any, app), [str(network) for network in http.trusted_proxies]))
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
            proxy_headers=False,
            timeout_keep_alive=keep_alive,
            timeout_graceful_shutdown=int(http.shutdown_timeout.total_seconds()),
            **more,
        )
    )

"""HTTP. One connection: what it accepts, what it waits for, and how it is closed without a response.

uvicorn does not limit the time or the size of a request's head. Its limit on connections does not distinguish idle
ones. An application cannot close a connection without a response. It loses the body of a request that offers an
upgrade, and treats trailer fields as headers. Its protocol is corrected here, where the transport is accessible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from receiver.http.connections import FULL, Connections, Room, is_admitted, no_room
from receiver.http.cycle import Cycle
from receiver.http.headers import head_without_offer
from receiver.runtime.deadline import Ticker, ticker

CLOSE: Final = "receiver.close"
"""The ASGI extension with which an application closes the connection: `close` after the pending output is sent, `abort`
at once."""
REST: Final = "receiver.rest"
"""The ASGI extension by which an application under load reads less. Before the response, call `rest` to pause the
connection, or `hold(ask)`: if `ask(connection)` is true, its next request is not read until `connection.resume()`."""
REST_SECONDS: Final = 1.0
"""Seconds for which nothing more is read from a connection whose request was shed. Otherwise ten times the load that
the machine can handle would keep it busy refusing. A client that respects the `Retry-After` of 2 s does not notice."""
MOST_HEAD: Final = 16 * 1024
"""Bytes of request line and headers together; SNS sends about 1 KiB."""
MOST_FED: Final = MOST_HEAD + 256 * 1024
"""Bytes that may arrive before a head ends, or that carry nothing of a body. The loop reads up to 256 KiB at once,
including the beginning of a body."""
REST_OF_BODY: Final = 5
"""Seconds for the rest of a body to arrive after an early response."""
STALL_SECONDS: Final = 30.0
"""Seconds after which a client that reads nothing of a response loses its connection."""
NEVER: Final = float("inf")


class TooMuchHead(ValueError):
    """uvicorn answers 400 and closes, as for any head that it cannot parse."""


class Protocol(HttpToolsProtocol):
    """One connection, with limits on the time and the size of a request's head."""

    head_timeout = 10.0
    keep_alive = 75
    head = 0
    heading = False
    """Whether a head has begun and not ended."""
    fed = 0
    head_end = NEVER
    """When the head that is expected, or has begun, is due; by the loop's clock."""
    idle_end = NEVER
    """When a connection without a request is closed."""
    ticker: Ticker
    others: Connections
    """All of the server's connections that can be closed."""
    counts_for: str | None = None
    """The client that it counts towards."""
    reserved = False
    """Whether it is over the limit, for requests that are never shut out."""
    upgrading = False
    tired = False
    """Whether the current request is shed."""
    hold: Callable[[Protocol], bool] | None = None
    rest_timer: asyncio.TimerHandle | None = None
    stall_timeout = STALL_SECONDS
    stall_end = NEVER
    answered: RequestResponseCycle | None = None
    """The request whose response is in progress, or was last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # asyncio names the base class of transports
        """Starts the timer for the first head. One connection too many gets 503 at once; SNS retries after it."""
        super().connection_made(transport)
        self.ticker = ticker()
        self.extensions: dict[str, dict[object, object]] = {
            CLOSE: {"close": transport.close, "abort": transport.abort},
            REST: {"rest": partial(setattr, self, "tired", True), "hold": partial(setattr, self, "hold")},
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
        self.ticker.add(self)

    def tick(self, now: float) -> None:
        """Closes it if the client takes too long to send a head or the next request, or to read a response."""
        if now >= self.stall_end:
            self.transport.abort()
        elif now >= self.head_end or now >= self.idle_end:
            self.head_end = self.idle_end = NEVER
            self._close()

    def give_way(self) -> None:
        """Closes it to make room. An unanswered request gets 503. An idle client gets no response: it would take one
        for the response to its next request."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
            return
        if self.heading or self.answered is None or not self.answered.response_started:
            self.transport.write(FULL)
        self._close()

    def _sort(self) -> None:
        """Updates whether it can be closed. It cannot while a complete request is being answered and the client reads
        the response, or while it is paused."""
        asked = self.answered
        whole = asked is not None and not asked.response_complete and not asked.more_body
        if self.rest_timer is not None or (whole and not self.flow.write_paused):
            self.others.needed(self.counts_for, self)
        elif not self.transport.is_closing():
            idle = asked is not None and asked.response_complete
            self.others.spare(self.counts_for, self, self.loop.time(), idle=idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the connection's timers, and notifies the request being answered.

        uvicorn notifies only the last request of a pipeline: the one being answered would wait, or write, for ever.
        """
        self.ticker.remove(self)
        self.others.needed(self.counts_for, self)
        if self.rest_timer is not None:
            self.rest_timer.cancel()
        if self.answered is not None:
            self.answered.disconnected = True
            self.answered.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Gives each request a separate context. In a pipeline, uvicorn would begin a request in that of the previous
        one."""
        self.answered = cycle
        cycle.__class__ = Cycle  # uvicorn has no setting for it.
        if self.reserved:
            cycle.keep_alive = False
            app = app if is_admitted(cycle.scope["path"]) else no_room
        task = self.loop.create_task(cycle.run_asgi(app), context=Context())
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def pause_writing(self) -> None:
        """The client has stopped reading its response."""
        super().pause_writing()
        self._expect_taken()
        self._sort()

    def resume_writing(self) -> None:
        """The client reads again. If the connection is closing, it still has to take the rest in time."""
        super().resume_writing()
        self._sort()
        self.stall_end = self.stall_end if self.transport.is_closing() else NEVER

    def _expect_taken(self) -> None:
        self.stall_end = min(self.stall_end, self.loop.time() + self.stall_timeout)

    def _close(self) -> None:
        self.transport.close()
        self._expect_taken()

    def data_received(self, data: bytes) -> None:
        """Counts the bytes: httptools buffers a field that does not end, whatever its length."""
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
        """The parser treats an offered upgrade as accepted: it is given the head again, without the offer."""
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
        """The first byte of a request: the rest of its head is now due.

        Only this ends the idle time between two requests. Otherwise empty lines, or the rest of a body that was
        answered early, would keep a connection open for ever.
        """
        super().on_message_begin()
        self.idle_end = NEVER
        self.head = 0
        self.heading = True
        self.scope["extensions"] = self.extensions

    def on_url(self, url: bytes) -> None:
        self.head += len(url)
        if self.head > MOST_HEAD:
            raise TooMuchHead
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer field, which does not describe the request (RFC 9110, 6.5.1)."""
        self.head += len(name) + len(value)
        if self.head > MOST_HEAD:
            raise TooMuchHead
        if self.heading:
            name = name.lower()
            self.expect_100_continue |= name == b"expect" and value.lower() == b"100-continue"
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete. It may have begun before the last response ended."""
        self.heading, self.fed, self.head_end, self.idle_end = False, 0, NEVER, NEVER
        self.upgrading = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self.upgrading:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.fed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The message is complete. After an offered upgrade it is not: the head is parsed again first."""
        self.fed = 0
        if not self.upgrading:
            super().on_message_complete()
            self._sort()

    def on_response_complete(self) -> None:
        """The response is written. The next request of a pipeline is next; otherwise the connection is idle.

        After a shed request it is paused; the client's kernel holds back the rest.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._expect_taken()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            seconds = min(self.keep_alive, REST_OF_BODY) if self.cycle.more_body else self.keep_alive
            self.idle_end = self.loop.time() + seconds
        if self.tired:
            self.tired = False
            self.flow.pause_reading()
            self.rest_timer = self.loop.call_later(REST_SECONDS, self._rested)
        elif self.hold is not None:
            self._go_on()
        self._sort()

    def _rested(self) -> None:
        self.rest_timer = None
        self._sort()
        self._go_on()

    def _go_on(self) -> None:
        ask, self.hold = self.hold, None
        if self.answered is not None and self.answered.response_complete and ask is not None and ask(self):
            self.flow.pause_reading()
        else:
            self.resume()

    def resume(self) -> None:
        """Continues reading."""
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _expect_head(self) -> None:
        if self.head_end == NEVER:
            self.head_end = self.loop.time() + self.head_timeout

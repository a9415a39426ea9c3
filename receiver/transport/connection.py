"""Edge: the web. One connection: sends a request, and returns its answer or raises `TransportError`."""

from __future__ import annotations

import asyncio
from typing import BinaryIO, cast

from receiver.errors import TransportError
from receiver.exchange import Response
from receiver.transport.answer import Answer, BadAnswer


class Connection(asyncio.Protocol):
    """A connection to this host, for one request at a time. It is in `open_` from its start to its end."""

    def __init__(self, host: str, open_: set[Connection]) -> None:
        self._host, self._open = host, open_
        self._loop = asyncio.get_running_loop()
        self._answer = Answer()
        self._transport: asyncio.Transport
        self._waiting: asyncio.Future[Response] | None = None
        self._lenient = self._was_used = False
        self._early = b""
        """What came before the first request: an overloaded server may answer before it gets one, as ours does."""
        self.is_silent = True
        """Whether nothing has come in answer to the last request."""

    async def exchange(
        self, request: bytes, until: float, *, has_body: bool, max_body: int, into: BinaryIO | None, lenient: bool
    ) -> Response:
        """Send the request, and read the answer until then, by the loop's clock; see `Transport.send`.

        `has_body`: whether the answer may have one. `lenient`: the status alone says what matters.
        """
        self._answer.begin(has_body=has_body, max_body=max_body, into=into)
        self._lenient, self._was_used, self.is_silent = lenient, True, True
        waiting: asyncio.Future[Response] = self._loop.create_future()
        self._waiting = waiting
        timer = self._loop.call_at(until, self._fail, "timeout", "no complete answer in time")
        if self._early:
            self.data_received(self._early)
        if self._transport.is_closing():
            self._cut()
        elif not waiting.done():
            self._transport.write(request)
        try:
            return await waiting
        finally:
            timer.cancel()
            self._waiting = None
            if not self.is_reusable:
                self.abort()

    @property
    def is_reusable(self) -> bool:
        """Whether another request can be sent."""
        whole = self._answer.ended and self._answer.keeps_alive and not self._early
        return whole and not self._transport.is_closing() and not self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer. Bytes that belong to no request end the connection."""
        if not self._was_used:
            self._early += data
            return
        if self._waiting is None or self._waiting.done():
            self.abort()
            return
        self.is_silent = False
        try:
            self._answer.feed(data)
        except BadAnswer as error:
            self._fail("bad_answer", str(error))
        except Exception as error:
            self._waiting.set_exception(error)
        else:
            if self._answer.ended:
                self._waiting.set_result(self._answer.response())

    def connection_lost(self, exc: Exception | None) -> None:
        """Either side has ended the connection."""
        self._open.discard(self)
        if exc is None and self._waiting is not None and not self._waiting.done():
            self._answer.closed()
            if self._answer.ended:
                self._waiting.set_result(self._answer.response())
        self._cut()

    def _cut(self) -> None:
        self._fail("cut", "the connection ended before the answer did")

    def _fail(self, reason: str, what: str) -> None:
        """End the exchange: with the answer's status, if that says what matters, or with an error."""
        if self._waiting is None or self._waiting.done():
            return
        status = self._answer.status
        if status in {429, 503} or (status and self._lenient):
            self._waiting.set_result(self._answer.response(what))
        else:
            self._waiting.set_exception(TransportError(f"{self._host}: {what}.", reason=reason))

"""Edge: the web. Reads the head of an answer before the HTTP library does, and isolates it from what follows.

    interim answers (1xx)         a few are skipped; a flood ends the connection
    a head that aiohttp refuses   its status and readable fields are kept, with a note of what is wrong
    a body that breaks off        the reader of the body gets an error at once
    bytes after the answer        dropped, and the connection is closed: they belong to no request

RFC 9110, 15.2: a client must be able to parse one or more 1xx before the final answer. Each costs as much as an answer,
and aiohttp accepts any number of them in one read: two hundred kilobytes of `100 Continue` block the whole process for
a second. RFC 9112, 6.3: a 204 ends with its head, whatever its framing fields say. Some servers send the last chunk of
an empty body with it; if it arrives together with the head, aiohttp refuses both.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from aiohttp import HttpVersion11
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import set_exception
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

from receiver.transport.errors import GarbledBody
from receiver.transport.head import MAX_HEAD, end_of, fields_of, may_begin, status_of

MOST_INTERIM = 16
"""Interim answers to one request."""
SLICE = 4096
"""Bytes of a body that are parsed before checking whether it has ended."""
NO_BODY = frozenset({204, 304})
NOTE = "\n"
"""Marks the start of a note about a bad head with a readable status; a reason phrase never contains this character."""


def careful(loop: asyncio.AbstractEventLoop) -> partial[Any]:
    """Creates the connections of an aiohttp connector, which has no setting for this."""
    return partial(CarefulHandler, loop=loop)


class CarefulHandler(ResponseHandler):
    """A connection that handles one answer at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._head = bytearray()
        """The incomplete head of an answer."""
        self._refusable = b""
        """The head that aiohttp is parsing."""
        self._interim = 0
        self._body: StreamReader | None = None
        """The body of the answer; None before there is an answer."""

    def set_response_params(self, **params: Any) -> None:
        """Another request begins."""
        self._head.clear()
        self._interim, self._body = 0, None
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer, or after it; without bytes: continue with those held back."""
        if self._parser is None or self._upgraded:
            super().data_received(data)
        elif self._body is not None:
            self._more_body(data)
        elif data:
            self._more_head(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """aiohttp has parsed a head. Anything after the expected answer is ignored."""
        if self._body is None:
            self._refusable, self._body = b"", data[1]
            super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Something is wrong with this head, with the body, or with the connection."""
        if self._refusable:
            self._stand_in(self._refusable, "its head violates HTTP")
            return
        if self._body is not None and not self._body.is_eof():
            set_exception(self._body, GarbledBody("the body violates HTTP"), exc)
        super().set_exception(exc, *cause)

    def _more_head(self, data: bytes) -> None:
        searched = max(len(self._head) - 2, 0)
        self._head += data if self._head else data.lstrip(b"\r\n")
        while self._body is None and self._head:
            if not may_begin(self._head):
                self._refuse("the answer is not HTTP")
                return
            end = end_of(self._head, searched)
            if end < 0 and len(self._head) <= MAX_HEAD:
                return
            head, searched = bytes(self._head[: end if end > 0 else None]), 0
            if 100 <= status_of(head) < 200 and status_of(head) != 101:
                self._interim += 1
                if self._interim > MOST_INTERIM or end < 0:
                    self._refuse("too many interim answers")
                    return
                del self._head[:end]
            elif not self._final(head, whole=0 < end <= MAX_HEAD):
                return

    def _final(self, head: bytes, *, whole: bool) -> bool:
        """Read the head of the answer and begin its body. Returns whether there is an answer now."""
        rest = bytes(self._head[len(head) :])
        self._head.clear()
        status = status_of(head)
        if not whole and not status:
            self._refuse("the answer is not HTTP")
        elif not whole:
            self._stand_in(head[:MAX_HEAD], f"its head is longer than {MAX_HEAD} bytes")
        else:
            self._refusable = head if status else b""
            super().data_received(head)
            if status in NO_BODY and b"\ntransfer-encoding" in head.lower():
                self.force_close()
            if rest and self._body is not None:
                self._more_body(rest)
        return self._body is not None

    def _more_body(self, data: bytes) -> None:
        for start in range(0, max(len(data), 1), SLICE):
            if self._body is None or self._body.is_eof():
                if data:
                    self.force_close()
                    if self.transport is not None:
                        self.transport.close()
                return
            super().data_received(data[start : start + SLICE])

    def _stand_in(self, head: bytes, what: str) -> None:
        """Pass on a head that aiohttp would refuse, with nothing after it."""
        self._refusable = b""
        self.force_close()
        self._payload = EMPTY_PAYLOAD
        fields = CIMultiDictProxy(CIMultiDict(fields_of(head)))
        self.feed_data(
            (
                RawResponseMessage(HttpVersion11, status_of(head), NOTE + what, fields, (), True, None, False, False),
                EMPTY_PAYLOAD,
            )
        )
        if self.transport is not None:
            self.transport.close()

    def _refuse(self, why: str) -> None:
        if self.transport is not None:
            self.transport.abort()
        self.set_exception(HttpProcessingError(message=why))

"""Edge: the web. How often a server may speak before it answers: interim answers (1xx) are a few at most.

RFC 9110, 15.2: a client must be able to parse one or more 1xx before the final answer. Each costs as much as an answer,
and aiohttp takes any number, a whole read at a time: two hundred kilobytes of `100 Continue` hold up everything else in
the process for a second, and who floods fills read after read.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

MOST_ANSWERS = 16
"""Heads of answers, interim ones and those that nobody asked for together, in one exchange."""
SLICE = 4096
"""Bytes that are parsed before they are counted."""


def limited(loop: asyncio.AbstractEventLoop) -> partial[Any]:
    """What makes the connections of an aiohttp connector: it has no setting for this."""
    return partial(FewAnswers, loop=loop)


class FewAnswers(ResponseHandler):
    """A connection that is cut as soon as its server has answered too often."""

    _answers = 0

    def set_response_params(self, **params: Any) -> None:
        """Another request begins."""
        self._answers = 0
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """One more answer."""
        self._answers += 1
        if self._answers <= MOST_ANSWERS:
            super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as long as it is not too much."""
        for start in range(0, max(len(data), 1), SLICE):
            super().data_received(data[start : start + SLICE])
            if self._answers > MOST_ANSWERS:
                self._cut()
                return

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        self.set_exception(HttpProcessingError(message="too many answers to one request"))

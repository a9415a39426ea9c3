"""HTTP. Schedules lists: a few at a time, tokens in turn, and never so many that notifications wait.

A list costs as much as hundreds of notifications. A process has one loop, so the number of lists in progress decides
how long a response to Amazon takes. Notifications are not scheduled: they never wait for a list.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from receiver.errors import ApiError, Overloaded

AT_ONCE: Final = 2
"""How many lists are in progress at once: one waits for Redis while the other is rendered."""
MOST_WAITING: Final = 100
"""How many lists of one token may wait."""
PATIENCE: Final = 15.0
"""Seconds that a list waits for its turn."""


class TooManyReads(ApiError):
    """Too many lists of this token are waiting: read them one after the other."""

    status = 429
    title = "Too Many Requests"
    reason = "too_many_reads"
    retry_after = 1


class Reads:
    """The queue. Tokens take turns; lists of one token are first come, first served."""

    def __init__(self, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING, patience: float = PATIENCE) -> None:
        self._free, self._most, self._patience = at_once, most_waiting, patience
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, token: str) -> AsyncIterator[None]:
        """The turn of one list of the token. Raises `TooManyReads`, or `Overloaded` if its turn comes too late."""
        await self._enter(token)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, token: str) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        queue = self._waiting.setdefault(token, deque())
        if len(queue) >= self._most:
            raise TooManyReads()
        admitted = asyncio.get_running_loop().create_future()
        queue.append(admitted)
        try:
            async with asyncio.timeout(self._patience):
                await admitted
        except BaseException as error:
            self._give_up(token, admitted)
            if isinstance(error, TimeoutError):
                raise Overloaded("Too many lists are being read. Try again later.") from None
            raise

    def _give_up(self, token: str, admitted: asyncio.Future[None]) -> None:
        if admitted.done() and not admitted.cancelled():
            self._leave()
            return
        queue = self._waiting.get(token, deque())
        if admitted in queue:
            queue.remove(admitted)
            if not queue:
                del self._waiting[token]

    def _leave(self) -> None:
        """Gives the turn to the next token's next list."""
        while self._waiting:
            token, queue = self._waiting.popitem(last=False)
            admitted = queue.popleft()
            if queue:
                self._waiting[token] = queue
            if not admitted.done():
                admitted.set_result(None)
                return
        self._free += 1

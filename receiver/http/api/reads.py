"""HTTP. Lists are read in turns: few at a time, each token in its turn, and never so many that notifications wait.

A list costs as much as hundreds of notifications. All of a process share one loop, so what is worked on at once decides
how long an answer to Amazon waits. Notifications take no part in this: they never wait for a list.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from receiver.errors import ApiError, Overloaded

AT_ONCE: Final = 2
"""Lists that are worked on at once: one waits for Redis while the other is rendered."""
MOST_WAITING: Final = 100
"""Lists of one token that may wait."""
PATIENCE: Final = 15.0
"""Seconds that a list waits for its turn."""


class TooManyReads(ApiError):
    """Too many lists of this token wait already: read one after the other."""

    status = 429
    title = "Too Many Requests"
    reason = "too_many_reads"
    retry_after = 1


class Reads:
    """Whose turn it is. Tokens take turns; those of one token are first come, first served."""

    def __init__(self, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING, patience: float = PATIENCE) -> None:
        self._free, self._most, self._patience = at_once, most_waiting, patience
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, token: str) -> AsyncIterator[None]:
        """Work on one list of the token. Raises `TooManyReads`, or `Overloaded` where its turn comes too late."""
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
                raise Overloaded("Lists are read one after the other, and others were before this one.") from None
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
        """The next token's next list has its turn."""
        while self._waiting:
            token, queue = self._waiting.popitem(last=False)
            admitted = queue.popleft()
            if queue:
                self._waiting[token] = queue
            if not admitted.done():
                admitted.set_result(None)
                return
        self._free += 1

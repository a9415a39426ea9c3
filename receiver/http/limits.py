"""HTTP. Limits: failed sign-ins and refreshes by their rate, lists by how many are in progress.

Rates are kept by token buckets in tables of bounded size, which belong to this process. An address without failures
left is refused before anything is compared, even with the right secret: otherwise guessing could continue. uvicorn
supplies the address. Behind a proxy it is the client's only with `http.trusted_proxies`; without that all clients share
the proxy's address and its bucket.

A list costs as much as hundreds of notifications. A process has one loop, so the number of lists in progress decides
how long a response to Amazon takes. Tokens take turns. Notifications are not scheduled: they never wait for a list.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import HTTPConnection

from receiver.errors import ApiError, Overloaded
from receiver.transport.addresses import client_of

MOST_KNOWN = 10_000
"""How many keys are remembered. A new one replaces the one counted longest ago."""
REFILL = 6.0
"""Seconds after which an address may fail once more."""
MINUTE = 60.0


class Buckets:
    """At most `burst` of a key at once, and one more every `refill` seconds. A burst of 0: no limit.

    `timer` is a monotonic clock in seconds.
    """

    def __init__(
        self, burst: int, refill: float = REFILL, most: int = MOST_KNOWN, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._refill, self._most, self._timer = burst, refill, most, timer
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Key → the count, and when it was updated."""

    def __len__(self) -> int:
        return len(self._spent)

    def wait(self, key: str) -> int:
        """Seconds until the key is allowed one more; 0: now."""
        if not self._burst or not self._spent:
            return 0
        over = self._counting(key) - (self._burst - 1)
        return max(1, math.ceil(over * self._refill)) if over > 0 else 0

    def count(self, key: str) -> None:
        if not self._burst:
            return
        self._spent[key] = (self._counting(key) + 1, self._timer())
        self._spent.move_to_end(key)
        if len(self._spent) > self._most:
            self._spent.popitem(last=False)

    def _counting(self, key: str) -> float:
        """The current count; a key at zero is removed."""
        spent, at = self._spent.get(key, (0.0, 0.0))
        spent -= max(self._timer() - at, 0.0) / self._refill
        if spent <= 0:
            self._spent.pop(key, None)
            return 0.0
        return spent


class TooManyAttempts(ApiError):
    """Too many failed sign-ins from this address: wait."""

    status = 429
    reason = "too_many_attempts"


class SignInLimit(Buckets):
    """Failed sign-ins, by client address."""

    def check(self, request: HTTPConnection) -> None:
        """Raise `TooManyAttempts` if the client has no failure left."""
        if self and (wait := self.wait(address_of(request))):
            raise TooManyAttempts(retry_after=wait)

    def failed(self, request: HTTPConnection) -> None:
        """Count one failure of the client."""
        self.count(address_of(request))


class TooManyRefreshes(ApiError):
    """This token has reached its limit of refreshes: wait."""

    status = 429
    reason = "too_many_refreshes"


class Refreshes:
    """At most `per_minute` refreshes of a token at once, and as many a minute. 0: no limit.

    `timer` is a monotonic clock in seconds.
    """

    def __init__(self, per_minute: int, timer: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._buckets = Buckets(per_minute, MINUTE / max(per_minute, 1), timer=timer)

    def take(self, token: str) -> None:
        """Count one. Raises `TooManyRefreshes`."""
        if wait := self._buckets.wait(token):
            raise TooManyRefreshes(
                f"The token {token} may request {self._most} refreshes a minute. Wait for the seconds in Retry-After. "
                "The service polls notified and pending refunds without a refresh.",
                retry_after=wait,
            )
        self._buckets.count(token)


def address_of(request: HTTPConnection) -> str:
    """The client's IPv4 address, the /64 of its IPv6 address, or empty if there is none (a socket)."""
    return client_of(request.client.host if request.client else "")


AT_ONCE: Final = 2
"""How many lists are in progress at once: one waits for Redis while the other is rendered."""
MOST_WAITING: Final = 100
"""How many lists of one token may wait."""
PATIENCE: Final = 15.0
"""Seconds that a list waits for its turn."""


class TooManyReads(ApiError):
    """Too many lists of this token are waiting: read them one after the other."""

    status = 429
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

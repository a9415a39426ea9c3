"""HTTP. Failed sign-ins of a client address are limited: a token bucket each, in a table that cannot grow.

The table is this process's own. An address that has used up its failures is refused before anything is compared, also
with the right secret: else guessing would go on. The address is what uvicorn says, so behind a proxy it is the client's
only with `http.trusted_proxies`; without it all clients share the proxy's, and its bucket.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import HTTPConnection

from receiver.errors import ApiError
from receiver.transport.addresses import client_of

MOST_KNOWN = 10_000
"""Addresses that are remembered. The one that failed longest ago is forgotten for a new one."""
REFILL = 6.0
"""Seconds after which an address has one failure more."""


class TooManyAttempts(ApiError):
    """Too many sign-ins from this address have failed: wait."""

    status = 429
    title = "Too Many Requests"
    reason = "too_many_attempts"


class SignInLimit:
    """At most `burst` failures of an address at once, and one more every `refill` seconds. A burst of 0: no limit.

    `timer` is a monotonic clock in seconds.
    """

    def __init__(
        self, burst: int, refill: float = REFILL, most: int = MOST_KNOWN, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._refill, self._most, self._timer = burst, refill, most, timer
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Address → failures that count, as of when."""

    def __len__(self) -> int:
        return len(self._spent)

    def check(self, request: HTTPConnection) -> None:
        """Raise `TooManyAttempts` if the client has no failure left."""
        if not self._spent:
            return
        address = address_of(request)
        if (over := self._counting(address) - (self._burst - 1)) > 0:
            raise TooManyAttempts(retry_after=max(1, math.ceil(over * self._refill)))

    def failed(self, request: HTTPConnection) -> None:
        """The client has failed once more."""
        if not self._burst:
            return
        address = address_of(request)
        spent = self._counting(address) + 1
        self._spent[address] = (spent, self._timer())
        self._spent.move_to_end(address)
        if len(self._spent) > self._most:
            self._spent.popitem(last=False)

    def _counting(self, address: str) -> float:
        """Failures that still count; an address without any is forgotten."""
        spent, at = self._spent.get(address, (0.0, 0.0))
        spent -= (self._timer() - at) / self._refill
        if spent <= 0:
            self._spent.pop(address, None)
            return 0.0
        return spent


def address_of(request: HTTPConnection) -> str:
    """Who fails: the client's IPv4 address, the /64 of its IPv6 address, or empty where there is none (a socket)."""
    return client_of(request.client.host if request.client else "")

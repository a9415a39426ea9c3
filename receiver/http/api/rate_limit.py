"""HTTP. Limits the rates of failed sign-ins and of refreshes, by token buckets in tables of bounded size.

The tables belong to this process. An address without failures left is refused before anything is compared, even with
the right secret: otherwise guessing could continue. uvicorn supplies the address. Behind a proxy it is the client's
only with `http.trusted_proxies`; without that all clients share the proxy's address and its bucket.
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
"""How many keys are remembered. A new one replaces the one counted longest ago."""
REFILL = 6.0
"""Seconds after which an address may fail once more."""
MINUTE = 60.0


class Buckets:
    """At most `burst` of a key at once, and one more every `refill` seconds. A burst of 0: no limit.

    `timer` is a monotonic clock in seconds.
    """

    def __init__(
        self, burst: int, refill: float, most: int = MOST_KNOWN, timer: Callable[[], float] = time.monotonic
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
    title = "Too Many Requests"
    reason = "too_many_attempts"


class SignInLimit(Buckets):
    """Failed sign-ins, by client address."""

    def __init__(
        self, burst: int, refill: float = REFILL, most: int = MOST_KNOWN, timer: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(burst, refill, most, timer)

    def check(self, request: HTTPConnection) -> None:
        """Raise `TooManyAttempts` if the client has no failure left."""
        if wait := self.wait(address_of(request)):
            raise TooManyAttempts(retry_after=wait)

    def failed(self, request: HTTPConnection) -> None:
        """Count one failure of the client."""
        self.count(address_of(request))


class TooManyRefreshes(ApiError):
    """This token has reached its limit of refreshes: wait."""

    status = 429
    title = "Too Many Requests"
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

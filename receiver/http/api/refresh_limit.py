"""HTTP. How often one token may do what costs others something: a token bucket for each token of the API.

The table is this process's own, and has one entry for each configured token that was used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from receiver.errors import ApiError

MINUTE = 60.0


class TooManyRefreshes(ApiError):
    """Refreshes of this token are limited: wait."""

    status = 429
    title = "Too Many Requests"
    reason = "too_many_refreshes"


class Refreshes:
    """At most `per_minute` refreshes of a token at once, and as many a minute. 0: no limit.

    `timer` is a monotonic clock in seconds.
    """

    def __init__(self, per_minute: int, timer: Callable[[], float] = time.monotonic) -> None:
        self._most, self._timer = per_minute, timer
        self._spent: dict[str, tuple[float, float]] = {}
        """Token name → refreshes that count, as of when."""

    def take(self, token: str) -> None:
        """Count one. Raises `TooManyRefreshes`."""
        if not self._most:
            return
        now = self._timer()
        spent, at = self._spent.get(token, (0.0, now))
        spent = max(0.0, spent - (now - at) * self._most / MINUTE)
        if spent > self._most - 1:
            wait = (spent - self._most + 1) * MINUTE / self._most
            raise TooManyRefreshes(
                f"The token {token} may ask for {self._most} refreshes a minute. Wait for as long as Retry-After says; "
                "notified and pending refunds are asked about by themselves.",
                retry_after=max(1, math.ceil(wait)),
            )
        self._spent[token] = (spent + 1, now)

"""Edge: time. A clock that all processes of an installation share: the local monotonic clock, set by Redis's `TIME`."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Milliseconds since the epoch, UTC. Steps of the machine's wall clock do not affect it; only `correct` does."""

    def __init__(
        self, system_clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._offset = system_clock() - monotonic()

    def __call__(self) -> int:
        return int((self._monotonic() + self._offset) * 1000)

    def monotonic(self) -> float:
        """Monotonic seconds, for `correct`."""
        return self._monotonic()

    def correct(self, redis_seconds: float, asked_at: float, answered_at: float) -> None:
        """Set the clock: Redis answered `redis_seconds` between these two `monotonic()` times."""
        self._offset = redis_seconds - (asked_at + answered_at) / 2

"""Edge: time. What all processes of an installation agree on: the local monotonic clock, set by Redis `TIME`."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Milliseconds since the epoch, UTC. A step of the machine's wall clock does not move it; `correct` does."""

    def __init__(
        self, system_clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._offset = system_clock() - monotonic()

    def __call__(self) -> int:
        return int((self._monotonic() + self._offset) * 1000)

    def monotonic(self) -> float:
        """Seconds, for `correct`."""
        return self._monotonic()

    def correct(self, redis_seconds: float, asked_at: float, answered_at: float) -> None:
        """Redis said `redis_seconds`; it was asked and had answered at these `monotonic()` seconds."""
        self._offset = redis_seconds - (asked_at + answered_at) / 2

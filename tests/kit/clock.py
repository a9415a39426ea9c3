"""A clock that stands still until a test moves it."""

from __future__ import annotations

from receiver.store.redis.clock import Clock

T0 = 1_760_000_000_000
"""2025-10-09T08:53:20Z."""


class ManualClock(Clock):
    """Milliseconds, as the store's clock; corrections by Redis are passed over."""

    def __init__(self, now: int = T0) -> None:
        super().__init__()
        self.ms = now

    def __call__(self) -> int:
        return self.ms

    def correct(self, redis_seconds: float, asked_at: float, answered_at: float) -> None:
        """The test's time is the time."""

    def tick(self, ms: int) -> None:
        """Let time pass."""
        self.ms += ms

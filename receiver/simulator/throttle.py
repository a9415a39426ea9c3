"""Pure. Amazon's throttling: one leaky bucket for each call; when it overflows, the answer is 429."""

from __future__ import annotations

from collections.abc import Mapping

Rates = Mapping[str, tuple[float, float]]
"""Call (`get_refund`, `get_charge`, `get_dispute`, `create_refund`) → burst, refill per second. Others: no limit."""

LIVE: Rates = {"create_refund": (10, 4), "get_refund": (20, 4), "get_charge": (20, 4), "get_dispute": (20, 4)}
SANDBOX: Rates = {"create_refund": (2, 1), "get_refund": (5, 1), "get_charge": (5, 1), "get_dispute": (5, 1)}
"""Amazon's page "API throttling limits". It does not list Get Dispute."""


class Throttle:
    """Counts the calls of one merchant."""

    def __init__(self, rates: Rates) -> None:
        self.rates = dict(rates)
        self._left: dict[str, tuple[float, int]] = {}

    def admits(self, call: str, now: int) -> bool:
        """Take a token for a call at `now` (ms); False if there is none."""
        if call not in self.rates:
            return True
        burst, per_second = self.rates[call]
        left, since = self._left.get(call, (burst, now))
        left = min(burst, left + max(0, now - since) * per_second / 1000)
        admitted = left >= 1
        self._left[call] = (left - 1 if admitted else left, now)
        return admitted

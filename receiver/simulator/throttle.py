"""Pure. Amazon's throttling: one leaky bucket for each call; when it overflows, the answer is 429."""

from __future__ import annotations

from collections.abc import Mapping

Rates = Mapping[str, tuple[float, float]]
"""Call (`get_refund`, `create_report`, …) → burst, refill per second. Others: no limit."""

REPORTS = ("create_report", "get_reports", "get_report", "get_report_document")
LIVE: Rates = {
    "create_refund": (10, 4),
    **dict.fromkeys(("get_refund", "get_charge", "get_dispute"), (20, 4)),
    **dict.fromkeys(REPORTS, (10, 1)),
}
SANDBOX: Rates = {
    "create_refund": (2, 1),
    **dict.fromkeys(("get_refund", "get_charge", "get_dispute"), (5, 1)),
    **dict.fromkeys(REPORTS, (1, 1)),
}
"""Amazon's page "API throttling limits". It does not list Get Dispute, nor the calls about reports: these have the
lowest limits on that page."""


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

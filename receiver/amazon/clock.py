"""Pure. The time to sign with: that of Amazon's hosts, learned from the `Date` of their answers.

Amazon refuses a request dated in its future, and its hosts' clocks differ. It accepts a request dated some seconds in
the past. So requests are dated by the host whose clock is furthest behind, minus a margin.

`now` is always this machine's clock in ms. A host's clock is stored as its difference from that.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

from receiver.exchange import Response

UNLEARNED = -5_000
"""ms from this machine's clock, used while a host is unknown. NTP keeps machines closer than that."""
MARGIN = 3_000
"""Margin (ms) behind the learned time: another host of the same name can be this far behind."""
KEPT = 600_000
"""ms for which a host's date is trusted, and for which a host with a misleading date is not."""
SPREAD = 15_000
"""ms that a date can be behind the others and still count. Beyond that it is an error, not a clock."""
BELIEVABLE = 86_400_000
"""Maximum difference (ms) between two clocks. Anything greater is not a clock."""
STALE = 60_000
"""ms that a date can be behind the host's without being the reason for a refusal. Amazon documents no limit."""
STEP, LOWEST = 30_000, -300_000
"""Step (ms) by which a date goes back if a host sends no usable time, and the maximum in total."""
SAME = 2_000
"""ms within which two dates count as the same."""
SAMPLES = 32

OF_THE_DATE = re.compile(r"x-amz-pay-date|timestamp|\bdate\b|future|expired|clock|skew", re.IGNORECASE)
"""Amazon says "The value … provided for x-amz-pay-date should not be in future"; FPS, that a request has expired."""
OF_THE_FUTURE = re.compile(r"future|not yet valid", re.IGNORECASE)


@dataclass(slots=True)
class _Host:
    """Differences (ms) from this machine's clock, each with the time at which it was learned."""

    samples: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    fallback: int = UNLEARNED
    """The difference to use instead, after the host's date proved misleading."""
    fallback_since: int | None = None

    def fallen_back(self, now: int) -> bool:
        return self.fallback_since is not None and abs(now - self.fallback_since) <= KEPT


class HostClocks:
    """The clocks of all hosts that have answered, by host name and port."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    def date_for(self, host: str, now: int) -> int:
        """The time (ms) with which to date a request to this host."""
        found = self._hosts.get(host)
        if found is None:
            return now + UNLEARNED
        if found.fallen_back(now):
            return now + found.fallback
        # If this machine's clock was stepped, older measurements age by the size of the step.
        known = sorted(difference for at, difference in found.samples if abs(now - at) <= KEPT)
        if not known:
            return now + UNLEARNED
        middle = known[(len(known) - 1) // 2]
        return now + next(each for each in known if middle - each <= SPREAD) - MARGIN

    def heard(self, host: str, response: Response, now: int) -> None:
        """Record the date of an answer from this host."""
        theirs = date_of(response.headers)
        found = self._hosts.setdefault(host, _Host())
        if theirs is None or abs(theirs - now) > BELIEVABLE or found.fallen_back(now):
            return
        # `Date` is truncated to the second and was written before the answer arrived: the host is not behind this.
        found.samples.append((now, theirs - now))

    def refused(self, host: str, response: Response, now: int, *, dated: int) -> bool:
        """Whether the date of a request, `dated`, may be why it was refused. If so, `date_for` returns another date.

        A refusal that does not mention dates counts as one if the host's own date is before the request's, or more than
        a minute after it.
        """
        text = response.body[:4_096].decode("utf-8", "replace")
        theirs = date_of(response.headers)
        if theirs is not None and abs(theirs - now) > BELIEVABLE:
            theirs = None
        off = theirs is not None and not theirs - STALE <= dated <= theirs + 999
        if not off and not OF_THE_DATE.search(text):
            return False
        found = self._hosts.setdefault(host, _Host())
        if theirs is not None and abs(theirs - MARGIN - dated) > SAME and not found.fallen_back(now):
            found.samples.clear()
            found.samples.append((now, theirs - now))
            return True
        return self._falls_back(found, now, dated - now, future=bool(OF_THE_FUTURE.search(text)))

    @staticmethod
    def _falls_back(found: _Host, now: int, refused: int, *, future: bool) -> bool:
        """The host refuses dates taken from its own `Date`, or sends none: use this machine's clock."""
        other = UNLEARNED
        if abs(other - refused) <= SAME or (future and other > refused):
            other = refused - STEP if future and refused - STEP >= LOWEST else UNLEARNED
        found.fallback, found.fallback_since = other, now
        found.samples.clear()
        return abs(other - refused) > SAME


def date_of(headers: Mapping[str, str]) -> int | None:
    """The `Date` of an answer in ms; None if it is absent or unreadable."""
    try:
        found = parsedate_to_datetime(headers.get("date", "")[:64])
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None

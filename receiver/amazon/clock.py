"""Pure. Which time to sign by: that of Amazon's hosts, learned from the `Date` of their answers.

Amazon refuses a request that is dated in its future, and its hosts do not agree on the time. A request that is dated
some seconds in the past is accepted. So requests are dated by the host that is furthest behind, less a margin.

`now` is always this machine's own clock in ms; what is kept of a host is how far it is from that.
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
"""ms from this machine's clock, while nothing is known of a host. NTP keeps machines closer than that."""
MARGIN = 3_000
"""ms that a date stays behind what was learned: another host of that name may be so far behind this one."""
KEPT = 600_000
"""ms for which a host's date is believed, and for which a host whose date has misled us is not."""
SPREAD = 15_000
"""ms behind the others that a date may be and still count. What is further behind is a mistake, not a clock."""
BELIEVABLE = 86_400_000
"""ms between two clocks. A greater difference is no clock's."""
STALE = 60_000
"""ms that a date may be behind the host's and cannot be the reason of a refusal. Amazon documents no limit."""
STEP, LOWEST = 30_000, -300_000
"""ms by which a date goes back where a host does not say what time it is, and how far in all."""
SAME = 2_000
"""ms within which two dates are the same."""
SAMPLES = 32

OF_THE_DATE = re.compile(r"x-amz-pay-date|timestamp|\bdate\b|future|expired|clock|skew", re.IGNORECASE)
"""Amazon says "The value … provided for x-amz-pay-date should not be in future"; FPS, that a request has expired."""
OF_THE_FUTURE = re.compile(r"future|not yet valid", re.IGNORECASE)


@dataclass(slots=True)
class _Host:
    """Differences (ms) to this machine's clock, each with when it was learned."""

    samples: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    fallback: int = UNLEARNED
    """The difference to go by instead, where the host's date has misled us."""
    fallback_since: int | None = None

    def fallen_back(self, now: int) -> bool:
        return self.fallback_since is not None and abs(now - self.fallback_since) <= KEPT


class HostClocks:
    """The clocks of all hosts that were heard, by host name and port."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    def date_for(self, host: str, now: int) -> int:
        """The time (ms) by which to date a request to this host."""
        found = self._hosts.get(host)
        if found is None:
            return now + UNLEARNED
        if found.fallen_back(now):
            return now + found.fallback
        # A step of this machine's clock makes what was learned before it as old as the step is wide.
        known = sorted(difference for at, difference in found.samples if abs(now - at) <= KEPT)
        if not known:
            return now + UNLEARNED
        middle = known[(len(known) - 1) // 2]
        return now + next(each for each in known if middle - each <= SPREAD) - MARGIN

    def heard(self, host: str, response: Response, now: int) -> None:
        """An answer of this host has come."""
        theirs = date_of(response.headers)
        found = self._hosts.setdefault(host, _Host())
        if theirs is None or abs(theirs - now) > BELIEVABLE or found.fallen_back(now):
            return
        # `Date` is cut to the second and was written before the answer came: the host is not behind this.
        found.samples.append((now, theirs - now))

    def refused(self, host: str, response: Response, now: int, *, dated: int) -> bool:
        """Whether a refusal of a request that was `dated` so may be because of its date. Then `date_for` gives another.

        A refusal that does not speak of dates is one of the date where the host's own date is before the request's, or
        more than a minute after it.
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
        """The host refuses what is dated by its own `Date`, or tells none: go by this machine's clock."""
        other = UNLEARNED
        if abs(other - refused) <= SAME or (future and other > refused):
            other = refused - STEP if future and refused - STEP >= LOWEST else UNLEARNED
        found.fallback, found.fallback_since = other, now
        found.samples.clear()
        return abs(other - refused) > SAME


def date_of(headers: Mapping[str, str]) -> int | None:
    """The `Date` of an answer in ms, or None where there is none that can be read."""
    try:
        found = parsedate_to_datetime(headers.get("date", "")[:64])
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None

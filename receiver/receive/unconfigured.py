"""Pure. Names in notifications that are not configured: accounts, topics and merchants, for diagnostics."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNCONFIGURED_MAX = 64
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
"""The form of an account's name, in any letter case."""


def account_in_path(asked: str) -> str:
    """The account's name in a path, for the log. Other text of strangers is not repeated."""
    return asked if NAME.fullmatch(asked) else "a name that no account can have"


@dataclass(frozen=True, slots=True)
class UnconfiguredSeen:
    """A topic, a merchant or an account's name that is not configured."""

    count: int
    last_seen: int
    """ms since the epoch, UTC."""


class UnconfiguredNames:
    """A bounded table of unconfigured names. Strangers can fill it with topics, so the rarest name is evicted."""

    def __init__(self, most: int = UNCONFIGURED_MAX) -> None:
        self._most = most
        self._seen: dict[str, UnconfiguredSeen] = {}

    def count(self, name: str, now: int) -> None:
        """Count one more sighting of `name` at `now` (ms)."""
        known = self._seen.get(name)
        if known is None and len(self._seen) >= self._most:
            rarest = min(self._seen, key=lambda key: (self._seen[key].count, self._seen[key].last_seen))
            del self._seen[rarest]
        self._seen[name] = UnconfiguredSeen(known.count + 1 if known else 1, now)

    def listed(self) -> dict[str, UnconfiguredSeen]:
        """Name → count and time last seen, in the order of first sight."""
        return dict(self._seen)

"""Edge: Redis. A refund's timeline, for display only.

    trail:<refund>    list, capped: notifications, polls that brought nothing new, delivery attempts, and refused
                      attempts to issue the refund again

No decision depends on it, and no operation fails because of it: the scripts write it along with other data.
"""

from __future__ import annotations

import msgspec

from receiver.store.redis.base import LAST_TIME, AccountRepository
from receiver.store.redis.damage import WrongType

LOOK, DELIVERY, RETRY = "look", "delivery", "retry"


class TimelineEntry(msgspec.Struct, frozen=True, array_like=True):
    """One entry. `at` is ms."""

    at: int
    what: str
    """`notification` or `refresh`: the refund may have changed; `LOOK`, `DELIVERY`, `RETRY`."""
    who: str = ""
    """For a poll, what made the refund due; for a delivery, the subscriber; for a retry, the API token."""
    outcome: str = ""
    """For a poll, `unchanged` or the reason of an error; for a delivery, `delivered`, `retry` or `dead`; for a retry,
    Amazon's reason code."""
    attempt: int = 0
    detail: str = ""
    """For people: how a delivery failed, or how Amazon explained its refusal of a retry."""
    event: str = ""
    """The type of the delivered event."""


ENTRY = msgspec.json.Decoder(TimelineEntry)


def timeline_line(at: int, what: str, *more: str | int) -> bytes:
    """An entry as stored; trailing fields may be left out."""
    return msgspec.json.encode((at, what, *more))


class Timelines(AccountRepository):
    async def add(self, refund_id: str, what: str, who: str, outcome: str, detail: str) -> None:
        """Add an entry with the current time."""
        line = timeline_line(self.now(), what, who, outcome, 0, detail)
        await self._script("trace", [line], refund=refund_id)

    async def read(self, refund_id: str) -> list[TimelineEntry]:
        """The entries, oldest first. Damaged ones are skipped."""
        key = self.keys("trail", refund_id)
        try:
            lines: list[bytes] = await self._read("LRANGE", key, 0, -1)
        except WrongType:
            return []
        found = self._lines(key, lines, "unreadable timeline entry", ENTRY.decode)
        return [msgspec.structs.replace(each, at=min(max(each.at, 0), LAST_TIME)) for each in found]

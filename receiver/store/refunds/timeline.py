"""Edge: Redis. The trail of a refund: what befell it beside its revisions, for a person who wants to know.

    trail:<refund>    list, capped: notifications, looks at Amazon that brought nothing new, tries to deliver its
                      events, refused tries to issue it again

Nothing is decided by it, and nothing is refused because of it: the scripts write it in passing.
"""

from __future__ import annotations

import msgspec

from receiver.store.redis.base import LAST_TIME, RedisRepository
from receiver.store.redis.damage import WrongType

CAP = 300
"""Entries kept of one refund; of more, the oldest go."""
KEPT_FOR = 400 * 86_400_000
"""ms from the first entry: as long as what was issued here is kept, so that no trail outlives its refund for ever."""
LOOK, DELIVERY, RETRY = "look", "delivery", "retry"


class TimelineEntry(msgspec.Struct, frozen=True, array_like=True):
    """One entry. `at` is ms."""

    at: int
    what: str
    """`notification` or `refresh`: somebody said that the refund may have changed; `LOOK`, `DELIVERY`, `RETRY`."""
    who: str = ""
    """Of a look, who made us look; of a delivery, the subscriber; of a retry, the token that asked for it."""
    outcome: str = ""
    """Of a look, `unchanged` or the reason of an error; of a delivery, `delivered`, `retry` or `dead`; of a retry,
    Amazon's reason code."""
    attempt: int = 0
    detail: str = ""
    """How a delivery failed, or what Amazon said to a retry, for people."""
    event: str = ""
    """The type of the event that was delivered."""


def timeline_line(at: int, what: str, *more: str | int) -> bytes:
    """An entry as it is kept; what stands at its end may be left out."""
    return msgspec.json.encode((at, what, *more))


class Timelines(RedisRepository):
    """Reads for people."""

    async def trace(self, account: str, refund_id: str, what: str, who: str, outcome: str, detail: str) -> None:
        """Add an entry of now."""
        line = timeline_line(self.now(), what, who, outcome, 0, detail)
        await self._run("trace", [self._keys(account)("trail", refund_id)], [line, CAP, KEPT_FOR], without=("trail",))

    async def timeline(self, account: str, refund_id: str) -> list[TimelineEntry]:
        """The entries, oldest first. One that is damaged is passed over."""
        key, found = self._keys(account)("trail", refund_id), []
        try:
            lines: list[bytes] = await self._read("LRANGE", key, 0, -1)
        except WrongType:
            return []
        for place, line in enumerate(lines):
            try:
                trace = msgspec.json.decode(line, type=TimelineEntry)
                found.append(msgspec.structs.replace(trace, at=min(max(trace.at, 0), LAST_TIME)))
            except (msgspec.MsgspecError, RecursionError):
                self.damage.record(key, str(place), "no entry of a trail")
        return found

"""Edge: Redis. The stream of an account's events, read in pages from any place, with word of what was lost between."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from receiver.outbox.events.cursor import Place
from receiver.outbox.events.event import Event
from receiver.store.redis.base import RedisRepository

Where = Place | Literal["beginning", "end"]
"""After a place; before the oldest entry that is kept; after the newest."""
Lost = Literal["", "trimmed", "emptied"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the stream, and the place after it."""

    place: Place
    fields: Mapping[str, str]
    event: Event | None = None
    """It, where somebody has read it already."""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Entries in their order. `start` is the place before them, and the one that was asked for unless it is `lost`.

    `lost`: entries after that place were trimmed, or are not those of this store any more: it was emptied, or restored
    from before. The page then begins with the oldest entry.
    """

    start: Place
    entries: tuple[Entry, ...]
    more: bool
    lost: Lost = ""

    @property
    def end(self) -> Place:
        """The place after the last entry."""
        return self.entries[-1].place if self.entries else self.start


class Feed(RedisRepository):
    """The events, for whoever wants all of them."""

    async def events_after(self, account: str, where: Where, limit: int) -> FeedPage:
        """At most `limit` events after a place."""
        keys = self._keys(account)
        place = (where.epoch, where.number, where.id) if isinstance(where, Place) else (where, 0, "0-0")
        args: list[str | int | bytes] = [secrets.token_hex(3), limit, *place]
        # A read, but for the epoch's first time. No replica has to confirm that: a lost epoch is told as a loss.
        epoch, number, at, last, lost, raw = await self._run("feed", [keys("events"), keys("epoch")], args, reads=True)
        start = Place(epoch.decode(), int(number), at.decode())
        more = len(raw) == limit
        # The last entry has the last number. Only after a restore does counting from the place come to another one.
        first = start.number + 1 if more else int(last) - len(raw) + 1
        entries = tuple(
            Entry(Place(start.epoch, first + index, stream_id.decode()), _texts(flat))
            for index, (stream_id, flat) in enumerate(raw)
        )
        return FeedPage(start, entries, more, lost.decode())


def _texts(flat: list[bytes]) -> dict[str, str]:
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs}

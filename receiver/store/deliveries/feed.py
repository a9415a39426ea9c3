"""Edge: Redis. The stream of an account's events, read in pages from any position; reports entries lost in between."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from receiver.outbox.events.cursor import Place
from receiver.outbox.events.event import Event
from receiver.store.redis.base import AccountRepository, Args
from receiver.store.redis.stream_ids import texts_of

Where = Place | Literal["beginning", "end"]
"""After a position; before the oldest entry; after the newest entry."""
Lost = Literal["", "trimmed", "emptied"]


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry of the stream, and the position after it."""

    place: Place
    fields: Mapping[str, str]
    event: Event | None = None
    """The parsed event, if it has been parsed already."""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Entries in stream order. `start` is the position before them: the requested one, unless entries are `lost`.

    `lost`: entries after the requested position were trimmed, or the store was emptied or restored from an earlier
    backup. The page then begins with the oldest entry.
    """

    start: Place
    entries: tuple[StreamEntry, ...]
    more: bool
    lost: Lost = ""

    @property
    def end(self) -> Place:
        """The position after the last entry."""
        return self.entries[-1].place if self.entries else self.start


class Feed(AccountRepository):
    """All events of an account, in order."""

    async def events_after(self, where: Where, limit: int) -> FeedPage:
        """At most `limit` events after a position."""
        place = (where.epoch, where.number, where.id) if isinstance(where, Place) else (where, 0, "0-0")
        args: Args = [secrets.token_hex(3), limit, *place]
        # A read, except that the first one writes the epoch. No replica has to confirm it: losing the epoch is reported
        # as a loss.
        epoch, number, at, last, lost, raw = await self._script("feed", args, reads=True)
        start = Place(epoch.decode(), int(number), at.decode())
        more = len(raw) == limit
        # The last entry has the last number. Counting from the position gives another number only after a restore.
        first = start.number + 1 if more else int(last) - len(raw) + 1
        entries = tuple(
            StreamEntry(Place(start.epoch, first + index, stream_id.decode()), texts_of(flat))
            for index, (stream_id, flat) in enumerate(raw)
        )
        return FeedPage(start, entries, more, lost.decode())

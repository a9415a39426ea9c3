"""Edge: the web. Follows the feed by long polling: a page of events at a time, from a cursor, across outages of the
service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence

import msgspec

from receiver.client.answers import AnyEvent, EventPage
from receiver.client.api import Api, decode, decode_body, target
from receiver.client.retrying import RetryingCaller
from receiver.outbox.events.envelope import CloudEventJson
from receiver.outbox.formats.cloudevents import SHAPE_OF

WAIT = 25
"""Seconds that the service may wait for an event."""
PAGE = 200
LEAST = 0.5
"""The minimum time (s) between an empty answer and the next request: a proxy may cut the service's wait short."""


class FeedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the feed."""

    event: CloudEventJson
    """A `RefundEventJson`, `BalanceEventJson` or `DisputeEventJson`. A `CloudEventJson` with any JSON as its `data` if
    the service is newer and this program does not know the type."""
    cursor: str
    """Where to go on after this event."""
    raw: bytes
    """The JSON of the event, as received."""


class EventFollower:
    """The events after a cursor that pass the filters. `after` is the cursor to continue from."""

    def __init__(
        self, api: Api, steadily: RetryingCaller, *, types: Sequence[str], reasons: Sequence[str], after: str
    ) -> None:
        self._api, self._steadily = api, steadily
        self._filters = {"type": ",".join(types), "reason": ",".join(reasons)}
        self.after = after

    async def pages(self) -> AsyncIterator[EventPage]:
        """Pages without end; the first comes at once, even if it has no events.

        A page counts as read when the next is requested. Raises a `ReceiverError` that waiting cannot fix.
        """
        page = await self._steadily(self._page, 0)
        clock = asyncio.get_running_loop().time
        while True:
            yield page
            self.after = page.after
            began = clock()
            page = await self._steadily(self._page, 0 if page.more else WAIT)
            if not (page.events or page.more):
                await asyncio.sleep(max(0.0, began + LEAST - clock()))

    async def events(self, on_page: Callable[[EventPage], Awaitable[None]]) -> AsyncGenerator[FeedEvent, None]:
        """Events without end; each counts as read when the next is requested. `on_page` comes before those of a page.

        Raises as `pages` does.
        """
        async for page in self.pages():
            await on_page(page)
            for event in events_of(page, self.after):
                yield event
                self.after = event.cursor

    async def _page(self, wait: int) -> EventPage:
        path = target("events", account=self._api.account, after=self.after, limit=PAGE, wait=wait, **self._filters)
        return decode(await self._api.call("GET", path, wait=wait), EventPage)


def events_of(page: EventPage, before: str) -> Iterator[FeedEvent]:
    """The events of a page that began after the cursor `before`. Raises `ApiProblem` (`not_the_api`).

    After the last one, the cursor of the page also covers what the filters left out. An older service sends no cursors
    of events: there, only the last event moves the cursor.
    """
    cursors = page.cursors if len(page.cursors) == len(page.events) else [before] * len(page.events)
    for raw, cursor in zip(page.events, [*cursors[:-1], page.after], strict=False):
        body = bytes(raw)
        kind = SHAPE_OF.get(decode_body(body, AnyEvent).type, CloudEventJson)
        yield FeedEvent(event=decode_body(body, kind), cursor=cursor, raw=body)

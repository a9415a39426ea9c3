"""Command. Follows the feed by long polling: a page of events at a time, from a cursor, across outages of the
service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from receiver.commands.client.answers import EventPage
from receiver.commands.client.api import Api, decode, target
from receiver.commands.client.reconnect import RetryingCaller

WAIT = 25
"""Seconds that the service may wait for an event."""
PAGE = 200
LEAST = 0.5
"""The least seconds between an empty answer and the next request: a proxy may cut the service's wait short."""


class EventFollower:
    """The events after a cursor that pass the filters. `after` is the cursor to continue from.

    `greeting` is printed after the service's first answer.
    """

    def __init__(
        self,
        api: Api,
        say: Callable[[list[str]], None],
        *,
        types: Sequence[str],
        reasons: Sequence[str],
        after: str,
        greeting: str,
    ) -> None:
        self._api, self._say, self._steadily, self._greeting = api, say, RetryingCaller(say), greeting
        self._filters = {"type": ",".join(types), "reason": ",".join(reasons)}
        self.after = after

    async def pages(self) -> AsyncIterator[EventPage]:
        """Pages without end; the first comes at once, even if it has no events.

        A page counts as read when the next is requested. Raises a `ReceiverError` that waiting cannot fix.
        """
        page = await self._steadily(self._page, 0)
        self._say([self._greeting])
        clock = asyncio.get_running_loop().time
        while True:
            if page.reset:
                self._say([page.reset.detail or "Events may be lost. Continuing with the oldest kept event."])
            yield page
            self.after = page.after
            began = clock()
            page = await self._steadily(self._page, 0 if page.more else WAIT)
            if not (page.events or page.more):
                await asyncio.sleep(max(0.0, began + LEAST - clock()))

    async def _page(self, wait: int) -> EventPage:
        path = target("events", account=self._api.account, after=self.after, limit=PAGE, wait=wait, **self._filters)
        return decode(await self._api.call("GET", path, wait=wait), EventPage)

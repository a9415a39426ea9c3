"""HTTP. The hub of the feed: one reader of each account's stream in this process, for any number of clients.

A client reads pages until it has caught up, and then joins. `join` and each step of the hub happen in one turn of the
loop, and the hub keeps its last entries. So there is no gap and no overlap between a client's last page and what the
hub sends next. Both count entries by number (`Place.number`).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import structlog

from receiver.errors import Malformed, StoreUnavailable
from receiver.outbox.events.cursor import Place
from receiver.outbox.events.event import Event, from_fields
from receiver.outbox.events.kinds import REFUND, kind_of, read_event
from receiver.outbox.events.operator_event import is_operator
from receiver.outbox.formats.cloudevents import render_body
from receiver.runtime.rounds import ChangeSignal
from receiver.store import Store
from receiver.store.deliveries.feed import FeedPage, Lost, Where
from receiver.track.current import current_events

log = structlog.get_logger()

LOOK_EVERY = 1.0
"""Poll this often (seconds), since a wake-up can be lost."""
PAGE = 200
AWAY, BACK = "the store does not answer; nothing is lost", "the store answers again"


class CurrentFeed:
    """A store's events, with the advice current when they are read."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def change_signal(self, account: str) -> AbstractContextManager[ChangeSignal]:
        """A signal that is set whenever something of the account is written."""
        return self._store.of(account).change_signal()

    async def events_after(self, account: str, where: Where, limit: int) -> FeedPage:
        """A page of events. Raises `StoreUnavailable`."""
        page = await self._store.of(account).feed.events_after(where, limit)
        found = {entry.place: event for entry in page.entries if (event := readable(account, entry.fields))}
        events = dict(zip(found, await current_events(self._store.of(account), [*found.values()]), strict=True))
        entries = tuple(replace(entry, event=events.get(entry.place)) for entry in page.entries)
        return replace(page, entries=entries)


def readable(account: str, fields: Mapping[str, str]) -> Event | None:
    """The refund event that an entry contains; None if it contains another kind, or is unreadable."""
    try:
        return from_fields(account, fields) if kind_of(fields) is REFUND else None
    except Malformed:
        return None


@dataclass(slots=True)
class FeedItem:
    """One item for clients, and the place after it: an event or, with `lost`, the loss of the events before it."""

    account: str
    place: Place
    fields: Mapping[str, str] = field(default_factory=dict)
    lost: Lost = ""
    event: Event | None = None
    """The event, with the advice current when it was read."""
    _body: bytes | None = None

    @property
    def type(self) -> str:
        return self.fields.get("type", "")

    @property
    def reason(self) -> str:
        """The reason code of its refund; empty if there is none."""
        return self.fields.get("reasonCode", "")

    def body(self) -> bytes:
        """The CloudEvent as webhooks get it, rendered once for all clients.

        Empty for an operator event, which is not sent to clients, and for an unreadable entry, which is logged.
        """
        if self._body is None and is_operator(self.fields):
            self._body = b""
        if self._body is None:
            try:
                self._body = render_body(self.event or read_event(self.account, self.fields))
            except Malformed:
                log.error("feed.entry_unreadable", account=self.account, stream_id=self.place.id)
                self._body = b""
        return self._body


class Listener:
    """The queue of one client: at most `most` items. A client that exceeds it is cut off (`cut`, and `on_cut`).

    A string in the queue becomes a comment.
    """

    def __init__(self, most: int, on_cut: Callable[[], None] = lambda: None) -> None:
        self._most, self.on_cut = most, on_cut
        self._waiting: deque[FeedItem | str] = deque()
        self._stirred = asyncio.Event()
        self.cut = False

    @property
    def room(self) -> int:
        """How many more items fit."""
        return self._most - len(self._waiting)

    def put(self, item: FeedItem | str) -> None:
        if self.cut:
            return
        if not self.room:
            self.cut_off()
            return
        self._waiting.append(item)
        self._stirred.set()

    def cut_off(self) -> None:
        """Ends the client: it is too slow, or its tail has failed."""
        if not self.cut:
            self.cut = True
            self._waiting.clear()
            self._stirred.set()
            self.on_cut()

    def stir(self) -> None:
        """Ends its wait."""
        self._stirred.set()

    def take(self) -> list[FeedItem | str]:
        found = list(self._waiting)
        self._waiting.clear()
        self._stirred.clear()
        return found

    async def rest(self, seconds: float) -> None:
        """Waits until there is an item, `stir` is called, or `seconds` are over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()


class Hub:
    """The tails that have listeners. `keep` is how many entries each tail keeps."""

    def __init__(self, store: CurrentFeed, keep: int) -> None:
        self._store, self._keep = store, keep
        self._tails: dict[str, Tail] = {}

    def join(self, listener: Listener, account: str, place: Place) -> bool:
        """Sends the listener everything after the place; False if that is too far back: read a page first."""
        tail = self._tails.get(account)
        if tail is None or tail.ended:
            tail = self._tails[account] = Tail(self._store, account, place, self._keep)
        return tail.join(listener, place)

    def leave(self, listener: Listener) -> None:
        """Stops sending to it. A tail without listeners ends."""
        for account, tail in list(self._tails.items()):
            tail.listeners.pop(listener, None)
            if not tail.listeners:
                tail.stop()
                del self._tails[account]


class Tail:
    """Reads one account's stream as it grows."""

    def __init__(self, store: CurrentFeed, account: str, place: Place, keep: int) -> None:
        self._store, self._account = store, account
        self._place = place
        self._floor = place.number
        self._page = min(PAGE, keep)
        self._recent: deque[FeedItem] = deque(maxlen=keep)
        self._away = False
        self.listeners: dict[Listener, int] = {}
        """Each with the number of the last entry that it read by itself."""
        # Its own context, so that its log lines do not carry the id of the request that started it.
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name=f"feed:{account}", context=contextvars.Context())

    def join(self, listener: Listener, place: Place) -> bool:
        """See `Hub.join`."""
        recent = [item for item in self._recent if item.place.number > place.number]
        if place.epoch != self._place.epoch or place.number < self._floor or len(recent) > listener.room:
            return False
        self.listeners[listener] = place.number
        for item in recent:
            listener.put(item)
        return True

    @property
    def ended(self) -> bool:
        return self._task.done()

    def stop(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        try:
            with self._store.change_signal(self._account) as signal:
                while True:
                    signal.clear()
                    if not await self._look():
                        await signal.rest(LOOK_EVERY)
        except Exception:
            log.exception("feed.failed", account=self._account)
            for listener in list(self.listeners):
                listener.cut_off()

    async def _look(self) -> bool:
        """Sends new entries to the listeners; True if there are more."""
        try:
            page = await self._store.events_after(self._account, self._place, self._page)
        except StoreUnavailable as error:
            if not self._away:
                log.debug("feed.store_away", account=self._account, reason=error.reason)
                self._remark(AWAY)
            self._away = True
            await asyncio.sleep(LOOK_EVERY)
            return False
        if self._away:
            self._remark(BACK)
            self._away = False
        self._take(page)
        return page.more

    def _take(self, page: FeedPage) -> None:
        if page.lost:
            self._begin_again(page)
        for entry in page.entries:
            self._publish(FeedItem(self._account, entry.place, entry.fields, event=entry.event))
        self._place = page.end

    def _begin_again(self, page: FeedPage) -> None:
        """A listener past the trimmed entries has lost nothing. After the store was emptied every listener has."""
        item = FeedItem(self._account, page.start, lost=page.lost)
        for listener, known in list(self.listeners.items()):
            if page.lost == "emptied":
                self.listeners[listener] = page.start.number
            if page.lost == "emptied" or max(known, self._place.number) < page.start.number:
                listener.put(item)
        self._recent.clear()
        self._place, self._floor = page.start, page.start.number

    def _publish(self, item: FeedItem) -> None:
        if len(self._recent) == self._recent.maxlen:
            self._floor = self._recent[0].place.number
        self._recent.append(item)
        self._place = item.place
        for listener, known in list(self.listeners.items()):
            if item.place.number > known:
                listener.put(item)

    def _remark(self, text: str) -> None:
        for listener in list(self.listeners):
            listener.put(text)

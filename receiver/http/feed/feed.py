"""HTTP. `GET /v1/events`: every event, as server-sent events that resume exactly, or as JSON pages with long polling.

Both use a cursor (`outbox/events/cursor.py`). A client that returns its last cursor gets exactly the events after it,
without duplicates or gaps. If that is impossible, a `reset` reports it, and the feed continues from the oldest event
kept. Events of one account are in order; there is no order between accounts.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from receiver.http.api.auth import Tokens
from receiver.http.api.operations import IN_TURN, JSON, READ, Answer, Call, Operation
from receiver.http.api.params import ACCOUNT, Parameter, Schema, check_query, number, text
from receiver.http.feed.hub import CurrentFeed, Hub, Listener
from receiver.http.feed.reader import (
    EVENT_STREAM,
    TYPES,
    FeedFilter,
    Reader,
    accepts_stream,
    read_reasons,
    read_start,
    read_types,
    reset_json,
)
from receiver.http.feed.schema import EventPageJson
from receiver.http.feed.stream import HEADERS, Stream, Timing, ending_of
from receiver.http.limits import Reads
from receiver.http.respond import json_answer
from receiver.http.seats import Seats, share_of
from receiver.ledger.refund import REASONS
from receiver.runtime.metrics import Metrics
from receiver.settings.sections import FeedSettings
from receiver.store import Store

CLIENTS = ("feed.clients", "feed.clients_per_token")
MOST_PAGES = 20
"""How many pages one request scans for a wanted event before it answers without one."""
ASK_EVERY = 5.0
"""Seconds between checks whether a long-polling client is still connected: this can be checked but not awaited."""


def _separated(pattern: str) -> Schema:
    """The schema of comma-separated words that match the pattern. Empty: all."""
    return {"type": "string", "pattern": f"^(?:(?:{pattern})(?:,(?:{pattern}))*)?$"}


NONE: Final[frozenset[str]] = frozenset()
TYPE: Final = Parameter(
    "type",
    "Comma-separated types, with or without the prefix amazonpay.refund. In any letter case. Default: all of refunds. "
    "Others have to be named: balance.suspected, balance.resolved, dispute.action_required, mismatch.",
    _separated("|".join(map(re.escape, TYPES))),
    read_types,
    NONE,
    "bad_parameter",
)
REASON: Final = Parameter(
    "reason",
    "Comma-separated reason codes. In any letter case.",
    _separated("|".join(REASONS)),
    read_reasons,
    NONE,
    "bad_parameter",
    example="AmazonRejected",
)
AFTER: Final = text(
    "after",
    "Where to begin. Default: now.",
    {"anyOf": [{"enum": ["beginning", "now"]}, {"type": "string", "description": "A cursor from the feed."}]},
    example="beginning",
)
LIMIT: Final = number("limit", "For pages: the maximum number of events.", 100, 1, 500)
WAIT: Final = number("wait", "For pages: seconds to wait for an event.", 0, 0, 30)
LAST_EVENT_ID: Final = text(
    "Last-Event-ID", "For streams: the cursor to resume from; overrides `after`.", place="header"
)
OF_BOTH, OF_PAGES = (ACCOUNT, TYPE, REASON, AFTER), (LIMIT, WAIT)
STREAM: Final[Schema] = {
    "type": "string",
    "description": "Server-sent events. `event` is the type of the event whose CloudEvent is `data`, or cursor (the "
    "current position), reset (events may be lost) or bye (the server is stopping). The `id` of each is a cursor.",
}


class FeedApi:
    def __init__(
        self,
        events: Store,
        tokens: Tokens,
        settings: FeedSettings,
        metrics: Metrics,
        reads: Reads,
        timing: Timing | None = None,
    ) -> None:
        store = CurrentFeed(events)
        self._store, self._tokens, self._metrics, self._reads = store, tokens, metrics, reads
        self._buffer, self._timing = settings.buffer, timing or Timing()
        self._hub = Hub(store, settings.buffer)

        def of_one() -> int:
            return share_of(settings.clients, settings.clients_per_token, tokens.count)

        self._seats = Seats(settings.clients, of_one, metrics.feed_clients, reason="feed_full", settings=CLIENTS)

    @Operation(
        "GET",
        "/v1/events",
        id="followEvents",
        tag="events",
        summary="All events: server-sent events that resume exactly, or JSON pages with long polling",
        about="A stream for clients that accept `text/event-stream`, else a page. A stream has no `limit` and `wait`.",
        scopes=READ,
        parameters=(*OF_BOTH, *OF_PAGES, LAST_EVENT_ID),
        answers=(Answer(200, {JSON: EventPageJson, EVENT_STREAM: STREAM}, headers={"Vary": "Accept."}),),
        reasons=(
            IN_TURN,
            {400: ("bad_cursor",), 503: ("feed_full",)},
        ),
    )
    async def events(self, call: Call) -> Response:
        """A stream for a client that accepts `text/event-stream`, otherwise a page."""
        request, token = call.request, call.caller.name
        streamed = accepts_stream(request.headers)
        if streamed:
            check_query(request, OF_BOTH)
        accounts = call.accounts
        wanted = FeedFilter(call[TYPE], call[REASON])
        after = (call[LAST_EVENT_ID] if streamed else "") or call[AFTER]
        reader = Reader(self._store, self._hub, wanted, read_start(after, accounts))
        head = request.method == "HEAD"
        if not streamed:
            limit, wait = call[LIMIT], call[WAIT]
            return await self._page(request, reader, limit, 0 if head else wait, token)
        return head_of_stream() if head else await self._stream(reader, request, token)

    async def _stream(self, reader: Reader, request: Request, token: str) -> Response:
        self._seats.take(token)
        listener = Listener(self._buffer)

        def leave() -> None:
            self._hub.leave(listener)
            self._seats.free(token)

        def admitted() -> bool:
            return self._tokens.admits(request)

        try:
            # Before the first byte, so that an unavailable store gives a 503.
            first = await reader.catch_up(listener)
        except BaseException:
            leave()
            raise
        return Stream(reader, first, listener, self._metrics, self._timing, admitted, leave)

    async def _page(self, request: Request, reader: Reader, limit: int, wait: int, token: str) -> Response:
        clock = asyncio.get_running_loop().time
        until, found, pages = clock() + wait, PageContent(), 0
        while True:
            async with self._reads.turn(token):
                await self._look(reader, found, limit)
            pages += 1
            if found.bodies or found.lost or (found.more and pages >= MOST_PAGES):
                break
            if not found.more:
                if clock() >= until or await request.is_disconnected():
                    break
                await self._something(request, reader, until - clock(), token)
        self._metrics.feed_events("json", len(found.bodies))
        reset = reset_json(found.lost) if found.lost else UNSET
        after = reader.cursor()
        body = EventPageJson(events=found.bodies, cursors=found.cursors, after=after, more=found.more, reset=reset)
        return json_answer(body, Vary="Accept")

    async def _look(self, reader: Reader, found: PageContent, limit: int) -> None:
        """Reads the next page of every account, as far as the response has room."""
        found.more = False
        for account in reader.accounts:
            room = max(limit - len(found.bodies), 1)
            page, items = await reader.read(account, room if reader.wanted.everything else max(room, LIMIT.absent))
            found.more = found.more or page.more
            for each in items:
                if len(found.bodies) == limit and reader.wanted(each):
                    found.more = True
                    break
                reader.passes(each)
                if each.lost:
                    found.lost[account] = each.lost
                elif reader.wanted(each):
                    found.bodies.append(msgspec.Raw(each.body()))
                    found.cursors.append(reader.cursor())

    async def _something(self, request: Request, reader: Reader, left: float, token: str) -> None:
        """Waits until there is a new event, the server stops, or `left` seconds are over."""
        self._seats.take(token)
        listener = Listener(self._buffer)
        ended = asyncio.ensure_future(ending_of(request.scope).wait())
        ended.add_done_callback(lambda _: listener.stir())
        try:
            # If the hub cannot serve this position, the next page does.
            await listener.rest(min(left, ASK_EVERY if reader.join(listener) else 0.05))
        finally:
            ended.cancel()
            self._hub.leave(listener)
            self._seats.free(token)


def head_of_stream() -> Response:
    """The response to HEAD: a stream has no length."""
    answer = Response(headers=HEADERS, media_type=EVENT_STREAM)
    del answer.headers["content-length"]
    return answer


class PageContent:
    def __init__(self) -> None:
        self.bodies: list[msgspec.Raw] = []
        self.cursors: list[str] = []
        self.lost: dict[str, str] = {}
        self.more = False

"""HTTP. The feed as server-sent events (WHATWG HTML, 9.2).

    event                meaning
    amazonpay.refund.…   `data` is the CloudEvent as webhooks get it
    cursor               no event: the client's position, at the start, and when filters have skipped events
    reset                events may be lost, and why; the feed continues from the oldest event kept
    bye                  the server is stopping; the client resumes

The `id` of each is the cursor, which the client returns as `Last-Event-ID`. The first has `retry: 3000`. An idle stream
sends a comment every 15 s. While the store is unavailable the stream stays open, reports it in a comment, and then
continues. A stream opened with a dashboard session ends with the session, at most 15 s later. A client that reads
nothing for 30 s, or lags further behind than the buffer holds, is cut off, and resumes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from receiver.errors import StoreUnavailable
from receiver.http.feed.hub import AWAY, BACK, LOOK_EVERY, FeedItem, Listener
from receiver.http.feed.reader import EVENT_STREAM, Reader, reset_json
from receiver.http.protocol import CLOSE
from receiver.runtime.metrics import Metrics
from receiver.runtime.serving import ENDING

HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
"""nginx would otherwise hold events back until its buffer is full."""
RETRY_MS, RETRY_AFTER_BYE_MS = 3000, 1000
FAREWELL = 2.0
"""Seconds that a client has to read its `bye`, so that it cannot delay the server's stop."""
AT_ONCE = 64 * 1024
"""Bytes passed to the server in one piece."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds between signs of life on an idle stream, which are also the checks of the client's access; and seconds
    until a client that reads nothing is cut off."""

    heartbeat: float = 15.0
    stall: float = 30.0


def ending_of(scope: Mapping[str, Any]) -> asyncio.Event:
    """Set when the server stops; never set by a server that does not support it."""
    found = (scope.get("extensions") or {}).get(ENDING)
    return found["event"] if found else asyncio.Event()


def frame(event: str, cursor: str, data: bytes, retry: int = 0) -> bytes:
    hint = b"retry: %d\n" % retry if retry else b""
    return hint + b"event: %s\nid: %s\ndata: %s\n\n" % (event.encode(), cursor.encode(), data)


def comment(text: str) -> bytes:
    """A comment, which clients ignore."""
    return f": {text}\n\n".encode()


class Stream(Response):
    """The response to one client. `first` is sent first; `admitted` says whether the client still has access; `leave`
    is called at the end in every case."""

    def __init__(
        self,
        reader: Reader,
        first: Sequence[FeedItem],
        listener: Listener,
        metrics: Metrics,
        timing: Timing,
        admitted: Callable[[], bool],
        leave: Callable[[], None],
    ) -> None:
        super().__init__(headers=HEADERS, media_type=EVENT_STREAM)
        del self.headers["content-length"]
        self._reader, self._first, self._listener = reader, first, listener
        self._metrics, self._timing, self._admitted, self._leave = metrics, timing, admitted, leave
        self._gone = False
        self._away = False
        self._said = ""
        """The last cursor sent to the client."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the client disconnects, is cut off or loses access, or the server stops."""
        abort = (scope.get("extensions") or {}).get(CLOSE, {}).get("abort", lambda: None)
        ending = ending_of(scope)
        self._listener.on_cut = abort
        tasks = [asyncio.ensure_future(each) for each in (self._watch(receive), self._end(ending))]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._run(send, ending)
        except TimeoutError:
            self._listener.cut_off()
        finally:
            for task in tasks:
                task.cancel()
            self._leave()
            if self._listener.cut:
                self._metrics.feed_cut()

    async def _run(self, send: Send, ending: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        start = self._cursor_event(RETRY_MS)
        await self._write(send, [start])
        spoke, items = clock(), list[FeedItem | str](self._first)
        asked = spoke
        while not (self._gone or self._listener.cut or ending.is_set()):
            if await self._write(send, self._frames(items)):
                spoke = clock()
            if clock() - spoke >= self._timing.heartbeat:
                here = self._reader.cursor()
                await self._write(send, [comment("still here") if here == self._said else self._cursor_event()])
                spoke = clock()
            if not self._reader.lags:
                await self._listener.rest(max(0.0, spoke + self._timing.heartbeat - clock()))
            if clock() - asked >= self._timing.heartbeat:
                if not self._admitted():
                    break
                asked = clock()
            items = self._listener.take()
            if self._reader.lags:
                items += await self._older()
        if ending.is_set() and not (self._gone or self._listener.cut):
            data = msgspec.json.encode({"reason": "shutdown", "after": self._reader.cursor()})
            await self._write(send, [frame("bye", self._reader.cursor(), data, RETRY_AFTER_BYE_MS)])
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _older(self) -> Sequence[FeedItem | str]:
        """The items of the next pages."""
        try:
            items = await self._reader.catch_up(self._listener)
        except StoreUnavailable:
            remarks = [] if self._away else [AWAY]
            self._away = True
            await self._listener.rest(LOOK_EVERY)
            return remarks
        if self._reader.lags and not items:
            # The hub has not reached this client's position yet.
            await self._listener.rest(0.05)
        remarks = [BACK] if self._away else []
        self._away = False
        return [*remarks, *items]

    def _frames(self, items: Sequence[FeedItem | str]) -> Iterator[bytes]:
        for each in items:
            if isinstance(each, str):
                yield comment(each)
                continue
            self._reader.passes(each)
            if each.lost:
                self._said = self._reader.cursor()
                word = {**msgspec.structs.asdict(reset_json({each.account: each.lost})), "after": self._said}
                yield frame("reset", self._said, msgspec.json.encode(word))
            elif self._reader.wanted(each):
                self._said = self._reader.cursor()
                self._metrics.feed_events("sse", 1)
                yield frame(each.type, self._said, each.body())

    def _cursor_event(self, retry: int = 0) -> bytes:
        self._said = self._reader.cursor()
        return frame("cursor", self._said, msgspec.json.encode({"after": self._said}), retry)

    async def _write(self, send: Send, frames: Sequence[bytes] | Iterator[bytes]) -> bool:
        """Sends them in pieces; True if there were any. Raises `TimeoutError` if the client reads nothing."""
        piece, wrote = bytearray(), False
        for each in frames:
            piece += each
            if len(piece) >= AT_ONCE:
                await self._send(send, bytes(piece))
                piece.clear()
                wrote = True
        if piece:
            await self._send(send, bytes(piece))
        return wrote or bool(piece)

    async def _send(self, send: Send, piece: bytes) -> None:
        async with asyncio.timeout(self._timing.stall):
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._listener.stir()

    async def _end(self, ending: asyncio.Event) -> None:
        await ending.wait()
        self._listener.stir()
        await asyncio.sleep(FAREWELL)
        self._listener.cut_off()

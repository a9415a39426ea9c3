"""HTTP. `POST /ipn` and `/ipn/{account}`: takes a notification off the wire, within bounds, and answers what SNS needs.

SNS takes a 4xx as "never again" and a 5xx as "later", and reads no body: answers are empty, and the reason of a refusal
goes to the log and a counter only. A body that comes too slowly gets no answer at all, since 408 would be final.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
from starlette.types import Receive, Scope, Send

from receiver.amazon.sns.envelope import HEADERS
from receiver.errors import (
    Encoded,
    InvalidNotification,
    NotFound,
    Overloaded,
    ReceiverError,
    TooLarge,
    Unavailable,
    Unconfigured,
)
from receiver.http.headers import traceparent_of
from receiver.http.ipn.pacing import PerTickLimit
from receiver.http.server import CLOSE, REST
from receiver.ledger.notification import Receipt
from receiver.runtime.deadline import Deadline
from receiver.runtime.metrics import Metrics
from receiver.runtime.shares import Shares
from receiver.settings.sections import IngestSettings
from receiver.transport.addresses import client_of

log = structlog.get_logger()

SNS = {name.encode(): name for name in HEADERS}
"""The headers of SNS that are looked at."""
NO_REST = {"rest": bool}
"""Of a server that is not ours."""
LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 1.0
"""After an early answer what the sender still sends is read and thrown away, so far: closing at once would reset the
connection, and the answer could be lost on the way (RFC 9112, 9.6)."""
SMALL_BODY = 16 * 1024
"""Bytes. Amazon Pay's notifications are smaller: one finds room as long as anybody holds a larger body."""
PER_TURN = 16
"""Notifications judged in one turn of the loop, some 5 ms: a 503 waits for no more, and Redis syncs those of the turn
before meanwhile."""


class Receives(Protocol):
    """The verb behind it: `receive/receiver.py`."""

    @property
    def waiting(self) -> int:
        """How many of those that it judges wait for something else than their turn, in bounds of its own."""

    async def receive(
        self,
        body: bytes,
        headers: Mapping[str, str],
        account: str | None = None,
        traceparent: str = "",
        source: str = "",
    ) -> Receipt:
        """Judge one body. Raises `InvalidNotification`, `Unavailable` or `NotFound`."""


class MethodNotAllowed(InvalidNotification):
    """Notifications are posted."""

    status = 405
    reason = "method"


class Dropped(Exception):
    """There is nobody to answer, or nobody that we want to answer: `disconnected`, `body_timeout`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Incoming:
    """The body of one request as it comes. `more` says whether there may be more of it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.more = True

    async def chunk(self) -> bytes:
        """The next piece, maybe empty. Raises `Dropped` when the sender has gone."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Dropped("disconnected")
        self.more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


class Body:
    """One body: what is held of it, for whom, and how long."""

    __slots__ = ("data", "gave_way", "limit", "source")

    def __init__(self, source: str, limit: Deadline) -> None:
        self.source, self.limit = source, limit
        self.data, self.gave_way = bytearray(), False

    def give_way(self) -> None:
        """Others need the room: the request ends now."""
        self.gave_way = True
        self.limit.move(0)


class Ipn:
    """The ASGI endpoint. `timer` is a monotonic clock in seconds; `dated`: whether it is proven when a message was
    sent."""

    def __init__(
        self,
        receiver: Receives,
        limits: IngestSettings,
        metrics: Metrics,
        timer: Callable[[], float] = time.perf_counter,
        *,
        dated: bool = True,
    ) -> None:
        self._receiver, self._limits, self._metrics, self._timer = receiver, limits, metrics, timer
        self._dated = dated
        self._body_timeout = limits.body_timeout.total_seconds()
        self._answer_timeout = limits.answer_timeout.total_seconds()
        self._turns = PerTickLimit(PER_TURN)
        self._working = 0
        self._held = Shares[Body](limits.max_buffered)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._timer()
        incoming = Incoming(receive)
        try:
            receipt = await self._received(scope, incoming)
        except Dropped as dropped:
            self._note("dropped", dropped.reason, began)
            await _close(scope, receive, send)
        except ReceiverError as error:
            self._note_error(error, began)
            if isinstance(error, Overloaded):
                scope.get("extensions", {}).get(REST, NO_REST)["rest"]()
            await _answer(send, incoming, error.status, _headers_of(error))
        except Exception:
            log.exception("ipn.failed")
            self._note("failed", "internal_error", began)
            await _answer(send, incoming, 500, {b"retry-after": b"60"})
        else:
            self._note(receipt.outcome.value, "", began, receipt)
            await _answer(send, incoming, 200, {})

    async def _received(self, scope: Scope, incoming: Incoming) -> Receipt:
        deadline = asyncio.get_running_loop().time() + self._answer_timeout
        headers = self._check_head(scope)
        client = scope.get("client")
        limit = Deadline(self._body_timeout)
        body = Body(client_of(client[0]) if client else "", limit)
        try:
            with limit:
                await self._read(incoming, body)
                # What waits for a certificate takes no place of what is proven by one that is there.
                if self._working - self._receiver.waiting >= self._limits.concurrency:
                    raise Overloaded()
                limit.move(deadline)
                return await self._judged(scope, body, headers)
        except TimeoutError:
            if body.gave_way:
                raise Overloaded() from None
            if incoming.more:
                raise Dropped("body_timeout") from None
            raise Overloaded("There was no time left to judge it.", reason="answer_timeout") from None
        finally:
            self._held.remove(body.source, body)

    def _check_head(self, scope: Scope) -> dict[str, str]:
        """The headers that SNS sends along."""
        if scope["method"] != "POST":
            raise MethodNotAllowed()
        headers = {}
        for name, value in scope["headers"]:
            if known := SNS.get(name):
                headers[known] = value.decode("latin-1")
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise Encoded()
            elif name == b"content-length" and value.isdigit() and int(value[:20]) > self._limits.max_body:
                raise TooLarge()
        return headers

    async def _read(self, incoming: Incoming, body: Body) -> None:
        """Read the body. What is held of it counts against all bodies that are held at once."""
        while incoming.more:
            piece = await incoming.chunk()
            if len(body.data) + len(piece) > self._limits.max_body:
                raise TooLarge()
            while not self._held.fits(len(piece)):
                self._make_room(body, len(piece))
            body.data += piece
            self._held.add(body.source, body, len(piece))

    def _make_room(self, body: Body, size: int) -> None:
        """The client that holds the most gives up its largest body. Raises `Overloaded` if this is the one."""
        found = self._held.greediest(body.source, size)
        if found is None and len(body.data) + size <= SMALL_BODY:
            found = self._held.largest(SMALL_BODY)
        if found is None:
            raise Overloaded()
        self._held.remove(*found)
        found[1].give_way()

    async def _judged(self, scope: Scope, body: Body, headers: Mapping[str, str]) -> Receipt:
        self._working += 1
        try:
            await self._turns.enter()
            account, parent = scope.get("path_params", {}).get("account"), traceparent_of(scope["headers"])
            return await self._receiver.receive(
                bytes(body.data), headers, account, traceparent=parent, source=body.source
            )
        except NotFound:
            # A renamed account must not lose notifications for good: 404 would be final to SNS.
            raise Unconfigured("No account has the name in the path.", reason="unconfigured_account") from None
        finally:
            self._working -= 1

    def _note_error(self, error: ReceiverError, began: float) -> None:
        if not isinstance(error, InvalidNotification | Unavailable):
            log.error("ipn.unexpected", error=type(error).__name__, reason=error.reason)
        outcome = "refused" if isinstance(error, InvalidNotification) else "unavailable"
        self._note(outcome, error.reason, began, status=error.status)

    def _note(
        self, outcome: str, reason: str, began: float, receipt: Receipt | None = None, status: int | None = None
    ) -> None:
        """One line and one count for each notification, whatever became of it."""
        seconds = self._timer() - began
        self._metrics.notification(outcome, reason, seconds, receipt.age if receipt and self._dated else None)
        values: dict[str, object] = {"outcome": outcome, "duration_ms": round(seconds * 1000, 2)}
        if receipt is None:
            values |= {"reason": reason, "status": status}
        else:
            values |= {"age_ms": receipt.age, "object_type": receipt.object_type, "accounts": receipt.accounts}
            values["topic"] = receipt.topic
            if receipt.refund_id:
                values["refund_id"] = receipt.refund_id
        line = log.info if receipt else log.warning if outcome in ("refused", "dropped") else log.error
        line("ipn.answered" if outcome != "dropped" else "ipn.dropped", **values)


def _headers_of(error: ReceiverError) -> dict[bytes, bytes]:
    headers = {} if error.retry_after is None else {b"retry-after": str(error.retry_after).encode()}
    return headers | ({b"allow": b"POST"} if error.status == 405 else {})


async def _answer(send: Send, incoming: Incoming, status: int, headers: Mapping[bytes, bytes]) -> None:
    """An empty answer. Where the body was not read to its end, the connection is not used again."""
    early = incoming.more
    fields = [(b"content-length", b"0"), *headers.items(), *([(b"connection", b"close")] if early else [])]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    if early:
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await _linger(incoming)
    await send({"type": "http.response.body", "body": b""})


async def _linger(incoming: Incoming) -> None:
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while incoming.more and left > 0:
                left -= len(await incoming.chunk())
    except (Dropped, TimeoutError):
        pass


async def _close(scope: Scope, receive: Receive, send: Send) -> None:
    """Drop the connection. A server that cannot gets a 503 to send: the next best, since SNS tries again."""
    extension = scope.get("extensions", {}).get(CLOSE)
    if extension is None:
        headers = [(b"content-length", b"0"), (b"retry-after", b"30"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    extension["close"]()
    while (await receive())["type"] != "http.disconnect":
        pass

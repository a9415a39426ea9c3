"""HTTP. `POST /ipn` and `/ipn/{account}`: reads a notification, within limits, and answers in SNS's terms.

SNS takes a 4xx as "never again" and a 5xx as "later", and reads no body. So responses are empty, and the reason of a
refusal goes only to the log and a counter. A body that arrives too slowly gets no response at all, since 408 would be
final.
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
"""The SNS headers that are read."""
NO_REST = {"rest": bool}
"""The fallback for a server other than ours."""
LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 1.0
"""After an early response, up to this much of what the sender still sends is read and discarded. Closing at once would
reset the connection and could lose the response (RFC 9112, 9.6)."""
SMALL_BODY = 16 * 1024
"""Bytes. Amazon Pay's notifications are smaller: one finds room as long as any client holds a larger body."""
PER_TURN = 16
"""Notifications judged in one turn of the loop, about 5 ms. A 503 waits no longer than that, and Redis syncs the
previous turn's notifications meanwhile."""


class Receives(Protocol):
    """What processes a notification: `receive/receiver.py`."""

    @property
    def waiting(self) -> int:
        """How many notifications being judged wait for something other than their turn, within limits of their own."""

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
    """Notifications must be posted."""

    status = 405
    reason = "method"


class Dropped(Exception):
    """The request ends without a response: `disconnected`, `body_timeout`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Incoming:
    """The body of one request as it arrives. `more` says whether more may follow."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.more = True

    async def chunk(self) -> bytes:
        """The next piece, possibly empty. Raises `Dropped` when the sender has disconnected."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Dropped("disconnected")
        self.more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


class HeldBody:
    """The part of one body held in memory, its client, and its deadline."""

    __slots__ = ("data", "gave_way", "limit", "source")

    def __init__(self, source: str, limit: Deadline) -> None:
        self.source, self.limit = source, limit
        self.data, self.gave_way = bytearray(), False

    def give_way(self) -> None:
        """Ends the request now, to make room for others."""
        self.gave_way = True
        self.limit.move(0)


class Ipn:
    """The ASGI endpoint. `timer` is a monotonic clock in seconds; `dated`: whether the time of sending is proven."""

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
        self._held = Shares[HeldBody](limits.max_buffered)

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
        body = HeldBody(client_of(client[0]) if client else "", limit)
        try:
            with limit:
                await self._read(incoming, body)
                # A wait for a certificate takes no place from messages whose certificate is cached.
                if self._working - self._receiver.waiting >= self._limits.concurrency:
                    raise Overloaded()
                limit.move(deadline)
                return await self._judged(scope, body, headers)
        except TimeoutError:
            if body.gave_way:
                raise Overloaded() from None
            if incoming.more:
                raise Dropped("body_timeout") from None
            raise Overloaded("Not judged in time.", reason="answer_timeout") from None
        finally:
            self._held.remove(body.source, body)

    def _check_head(self, scope: Scope) -> dict[str, str]:
        """The headers that SNS sends."""
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

    async def _read(self, incoming: Incoming, body: HeldBody) -> None:
        """Read the body. What is held of it counts towards the limit for all bodies."""
        while incoming.more:
            piece = await incoming.chunk()
            if len(body.data) + len(piece) > self._limits.max_body:
                raise TooLarge()
            while not self._held.fits(len(piece)):
                self._make_room(body, len(piece))
            body.data += piece
            self._held.add(body.source, body, len(piece))

    def _make_room(self, body: HeldBody, size: int) -> None:
        """Drops the largest body of the client that holds the most. Raises `Overloaded` if that is this one."""
        found = self._held.greediest(body.source, size)
        if found is None and len(body.data) + size <= SMALL_BODY:
            found = self._held.largest(SMALL_BODY)
        if found is None:
            raise Overloaded()
        self._held.remove(*found)
        found[1].give_way()

    async def _judged(self, scope: Scope, body: HeldBody, headers: Mapping[str, str]) -> Receipt:
        self._working += 1
        try:
            await self._turns.enter()
            account, parent = scope.get("path_params", {}).get("account"), traceparent_of(scope["headers"])
            return await self._receiver.receive(
                bytes(body.data), headers, account, traceparent=parent, source=body.source
            )
        except NotFound:
            # A renamed account must not lose notifications permanently: SNS treats 404 as final.
            raise Unconfigured("The path names no configured account.", reason="unconfigured_account") from None
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
        """Logs and counts each notification, whatever its outcome."""
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
    """An empty response. If the body was not read to its end, the connection is not reused."""
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
    """Drop the connection. If the server cannot, send 503: SNS tries again."""
    extension = scope.get("extensions", {}).get(CLOSE)
    if extension is None:
        headers = [(b"content-length", b"0"), (b"retry-after", b"30"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    extension["close"]()
    while (await receive())["type"] != "http.disconnect":
        pass

"""HTTP. `POST /ipn` and `/ipn/{account}`: reads a notification, within limits, and answers in SNS's terms.

SNS takes a 4xx as "never again" and a 5xx as "later", and reads no body. So responses are empty, and the reason of a
refusal goes only to the log and a counter. A body that arrives too slowly gets no response at all, since 408 would be
final.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

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
from receiver.http.headers import Headers, RequestIds, is_plain
from receiver.http.ipn.answer import answer, close
from receiver.http.ipn.incoming import Address, Dropped, Head, Incoming
from receiver.http.ipn.pacing import PerTickLimit
from receiver.http.protocol import REST
from receiver.ledger.notification import PostedNotification, Receipt
from receiver.runtime.loop import running_loop
from receiver.runtime.metrics import Metrics
from receiver.runtime.shares import Shares
from receiver.settings.sections import IngestSettings
from receiver.transport.addresses import client_of

log = structlog.get_logger()

IPN = Address("/ipn")
NO_REST = {"rest": bool, "hold": bool}
"""The fallback for a server other than ours."""
REFUSED = ("refused", "dropped")
SMALL_BODY = 16 * 1024
"""Bytes. Amazon Pay's notifications are smaller: one finds room as long as any client holds a larger body."""
PER_TURN = 32
"""Notifications judged in one turn of the loop, about 5 ms. A 503 waits no longer than that, and Redis syncs the
previous turn's notifications meanwhile."""


class Receives(Protocol):
    """What processes a notification: `receive/receiver.py`."""

    @property
    def waiting(self) -> int:
        """How many notifications that are being judged wait for something that has its own limits, such as a
        certificate."""

    async def receive(self, posted: PostedNotification) -> Receipt:
        """Judge a notification. Raises `InvalidNotification`, `Unavailable` or `NotFound`."""


class Connection(Protocol):
    """A connection whose next request waits unread."""

    def resume(self) -> None:
        """Continue reading."""


class MethodNotAllowed(InvalidNotification):
    """Notifications must be posted."""

    status = 405
    reason = "method"


class UnknownCoding(Unavailable):
    """The only supported Transfer-Encoding is chunked (RFC 9112, 6.1). Unlike a 4xx, SNS retries 501."""

    status = 501
    reason = "transfer_encoding"


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
        address: Address = IPN,
    ) -> None:
        self._receiver, self._limits, self._metrics, self._timer = receiver, limits, metrics, timer
        self._dated, self._address = dated, address
        self._body_timeout = limits.body_timeout.total_seconds()
        self._answer_timeout = limits.answer_timeout.total_seconds()
        self._turns = PerTickLimit(PER_TURN)
        self._new_id, self._log = RequestIds(), log.bind()
        self._working = 0
        self._crowd = max(1, limits.concurrency // 2)
        self._unread = deque[Connection]()
        self._resumes = False
        self._held = Shares[Incoming](limits.max_buffered)

    def takes(self, path: str) -> bool:
        """Whether a request for this path is for this endpoint."""
        return path == self._address.plain or self._address.match(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, head = self._timer(), Head(scope, self._address, self._new_id)
        bound = bind_contextvars(request_id=head.request_id, **head.trace)
        client = scope.get("client")
        incoming = Incoming(receive, client_of(client[0]) if client else "", self._body_timeout)
        status, retry_after, receipt = 200, None, None
        try:
            receipt = await self._received(scope, head, incoming)
            self._note(receipt.outcome.value, "", began, receipt)
        except Dropped as dropped:
            status = 0
            self._note("dropped", dropped.reason, began)
        except ReceiverError as error:
            status, retry_after = error.status, error.retry_after
            self._note_error(error, began)
            if isinstance(error, Overloaded):
                self._less(scope)["rest"]()
        except Exception:
            status, retry_after = 500, 60
            log.exception("ipn.failed")
            self._note("failed", "internal_error", began)
        self._metrics.request(head.route, scope["method"], status)
        if head.trace:
            reset_contextvars(**bound)
        if self._working > self._crowd:
            self._less(scope)["hold"](self._hold)
        if status:
            await answer(send, incoming, status, retry_after, head.request_id)
        else:
            await close(scope, receive, send)

    async def _received(self, scope: Scope, head: Head, incoming: Incoming) -> Receipt:
        limit = incoming.limit
        deadline = limit.loop.time() + self._answer_timeout
        self._check(scope["method"], head.odd)
        try:
            with limit:
                await self._read(incoming)
                # A wait for a certificate takes no place from messages whose certificate is cached.
                if self._working - self._receiver.waiting >= self._limits.concurrency:
                    raise Overloaded()
                limit.move(deadline)
                return await self._judged(head, incoming)
        except TimeoutError:
            if incoming.gave_way:
                raise Overloaded() from None
            if incoming.more:
                raise Dropped("body_timeout") from None
            raise Overloaded("Not judged in time.", reason="answer_timeout") from None
        finally:
            self._held.remove(incoming.source, incoming)

    def _check(self, method: str, headers: Headers) -> None:
        if method != "POST":
            raise MethodNotAllowed()
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > self._limits.max_body:
                raise TooLarge()
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise Encoded()
            if name == b"transfer-encoding" and not is_plain(headers):
                raise UnknownCoding()

    async def _read(self, incoming: Incoming) -> None:
        """Read the body. What is held of it counts towards the limit for all bodies."""
        while incoming.more:
            piece = await incoming.chunk()
            if len(incoming.data) + len(piece) > self._limits.max_body:
                raise TooLarge()
            while not self._held.fits(len(piece)):
                self._make_room(incoming, len(piece))
            incoming.add(piece)
            self._held.add(incoming.source, incoming, len(piece))

    def _make_room(self, incoming: Incoming, size: int) -> None:
        """Drops the largest body of the client that holds the most. Raises `Overloaded` if that is this one."""
        found = self._held.greediest(incoming.source, size)
        if found is None and len(incoming.data) + size <= SMALL_BODY:
            found = self._held.largest(SMALL_BODY)
        if found is None:
            raise Overloaded()
        self._held.remove(*found)
        found[1].give_way()

    async def _judged(self, head: Head, incoming: Incoming) -> Receipt:
        self._working += 1
        try:
            if not self._turns.entered():
                await self._turns.enter()
            body = bytes(incoming.data)
            posted = PostedNotification(body, head.sns, head.account, head.traceparent, incoming.source)
            return await self._receiver.receive(posted)
        except NotFound:
            # A renamed account must not lose notifications permanently: SNS treats 404 as final.
            raise Unconfigured("The path names no configured account.", reason="unconfigured_account") from None
        finally:
            self._working -= 1
            if self._unread and not self._resumes:
                self._resumes = True
                incoming.limit.loop.call_soon(self._resume)

    def _less(self, scope: Scope) -> Mapping[str, Callable[..., object]]:
        found: Mapping[str, Callable[..., object]] = scope.get("extensions", {}).get(REST, NO_REST)
        return found

    def _hold(self, connection: Connection) -> bool:
        """Whether the next request of a connection that has carried notifications waits unread, because half of the
        places of this process are taken. The other half is for requests on new connections."""
        if self._working <= self._crowd:
            return False
        self._unread.append(connection)
        return True

    def _resume(self) -> None:
        """Reads from as many connections as there are places, the one that waits longest first. Those that have
        nothing to read take none."""
        self._resumes = False
        for _ in range(min(self._crowd - self._working, len(self._unread))):
            self._unread.popleft().resume()
        if self._unread and self._working < self._crowd:
            self._resumes = True
            running_loop().call_soon(self._resume)

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
        write = self._log.info if receipt else self._log.warning if outcome in REFUSED else self._log.error
        write("ipn.answered" if outcome != "dropped" else "ipn.dropped", **values)

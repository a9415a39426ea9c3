"""Edge: notifications. Posts envelopes to the receiver as SNS does, and keeps a log of every attempt.

SNS waits 15 s for an answer. It tries again on 5xx, 429 and network errors, by default three times 20 s apart. Every
other answer is final (AWS, "Fanout to HTTP/S endpoints" and "Message delivery retries").
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec
import structlog

from receiver.errors import TransportError
from receiver.exchange import Request, Response
from receiver.simulator.notifications.notices import Envelope

LOG_LENGTH = 10_000
log = structlog.get_logger("receiver.simulator")


class Sender(Protocol):
    """The interface of `receiver.transport.client.Transport`."""

    async def send(self, request: Request, *, timeout: float = ...) -> Response:
        """Send, and return the whole answer; raises `TransportError`."""
        ...


class Verdict(StrEnum):
    """The result of an attempt."""

    DELIVERED = "delivered"
    RETRYING = "retrying"
    REFUSED = "refused"
    """4xx except 429, or a redirect: final for SNS."""
    GIVEN_UP = "given_up"
    DROPPED = "dropped"
    """Fault injection: never posted."""
    NOWHERE = "nowhere"
    """No address is configured."""


class Posted(msgspec.Struct, frozen=True, rename="camel"):
    """One attempt. `kind`: genuine, repeated or forged:<kind>; `about`: the refund; `state`: its state then."""

    at: int
    message_id: str
    about: str
    state: str
    kind: str
    attempt: int
    verdict: Verdict
    status: int | None = None
    error: str = ""


class NotificationSender:
    """Delivers envelopes, each in its own task.

    `retry_waits`: seconds before each further attempt; `timeout`: seconds for one. `posted` is the log, oldest first.
    """

    def __init__(
        self,
        sender: Sender,
        url: str | None,
        now: Callable[[], int],
        *,
        retry_waits: Sequence[float] = (20.0, 20.0, 20.0),
        timeout: float = 15.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.url = url
        self.posted: deque[Posted] = deque(maxlen=LOG_LENGTH)
        self.sleep = sleep
        self._sender = sender
        self._now = now
        self._waits = tuple(retry_waits)
        self._timeout = timeout
        self._tasks: set[asyncio.Task[Any]] = set()

    async def deliver(self, envelope: Envelope, *, retry: bool = True) -> Posted:
        """Post until it is delivered, refused or given up. Returns the last attempt."""
        waits = self._waits if retry else ()
        for attempt, wait in enumerate((*waits, None), start=1):
            found = await self._attempt(envelope, attempt, last=wait is None)
            self.note(found)
            if wait is None or found.verdict is not Verdict.RETRYING:
                return found
            await self.sleep(wait)
        raise AssertionError("the last wait is None")

    def drop(self, envelope: Envelope) -> None:
        """Do not post it, but log that."""
        self.note(self._entry(envelope, 0, Verdict.DROPPED))

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def idle(self) -> None:
        """Return once no envelope is being posted or waiting for its next attempt."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def note(self, found: Posted) -> None:
        self.posted.append(found)
        log.debug(
            "simulator.posted", kind=found.kind, refund_id=found.about, verdict=found.verdict, status=found.status
        )

    async def _attempt(self, envelope: Envelope, attempt: int, *, last: bool) -> Posted:
        if self.url is None:
            return self._entry(envelope, attempt, Verdict.NOWHERE)
        again = Verdict.GIVEN_UP if last else Verdict.RETRYING
        try:
            answer = await self._sender.send(envelope.request(self.url), timeout=self._timeout)
        except TransportError as error:
            return self._entry(envelope, attempt, again, error=error.reason)
        if answer.status >= 500 or answer.status == 429:
            return self._entry(envelope, attempt, again, answer.status)
        verdict = Verdict.DELIVERED if 200 <= answer.status < 300 else Verdict.REFUSED
        return self._entry(envelope, attempt, verdict, answer.status)

    def _entry(
        self, envelope: Envelope, attempt: int, verdict: Verdict, status: int | None = None, error: str = ""
    ) -> Posted:
        return Posted(
            at=self._now(),
            message_id=envelope.message_id,
            about=envelope.about,
            state=envelope.state,
            kind=envelope.kind,
            attempt=attempt,
            verdict=verdict,
            status=status,
            error=error,
        )

"""Verb. One message to one subscriber: render, send, judge, settle.

An event that is given up is told to operators in the same step, and may pause the subscriber (`deliver/failing.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from receiver.deliver.failing import announce, pause_failing, pause_gone
from receiver.errors import Malformed, StoreUnavailable, TransportError
from receiver.exchange import Request, Response, in_the_log
from receiver.ledger.lifecycle import EventType
from receiver.outbox.dead_letter import dead_event, dead_letter
from receiver.outbox.events.event import Event, from_fields, is_newer
from receiver.outbox.events.operator_event import OperatorEvent, is_operator, read_operator_event
from receiver.outbox.formats.registry import render, render_operator
from receiver.outbox.retries import (
    ClaimedDelivery,
    Dead,
    Delivered,
    DeliveryAttempts,
    Gone,
    Retry,
    Tested,
    Verdict,
    error_text,
    excerpt,
    judge,
    record,
)
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.store.deliveries.queues import LONGEST_HOLD, AttemptEffects
from receiver.store.redis.stream_ids import written_at
from receiver.track.current import current_events, without_judgement

log = structlog.get_logger()

ANSWER_BYTES = 4096
"""What is read of a subscriber's answer: enough to show a person, too little to hurt."""
LATER_PAUSE = 5_000
"""ms for which an event of a later version is left to processes of that version."""
STALE_TEST = 120_000
"""ms after which nobody waits for a test any more."""

Told = Event | OperatorEvent


class Send(Protocol):
    """How a request gets to a subscriber: `Transport.send`."""

    async def __call__(
        self, request: Request, *, timeout: float, connect_timeout: float, max_body: int, guarded: bool
    ) -> Response:
        """The answer. Raises `TransportError`."""


@dataclass(slots=True)
class DeliveryAttempt:
    """Sends what was claimed. `system_clock` is the machine's own clock (ms): subscribers check the timestamp by
    theirs."""

    store: Store
    send: Send
    metrics: Metrics
    system_clock: Callable[[], int]
    random: Callable[[], float]
    timeout: float = 10.0
    connect_timeout: float = 3.0

    async def deliver(self, deliveries: Sequence[ClaimedDelivery], subscriber: Subscriber) -> None:
        """Send events that were claimed for one message, and settle each.

        Operator events go in a message of their own, and so does each test. After `StoreUnavailable` the lease runs
        out, and they are sent again.
        """
        together: list[tuple[ClaimedDelivery, Told]] = []
        for_operators: list[tuple[ClaimedDelivery, Told]] = []
        for delivery in deliveries:
            if is_newer(delivery.fields):
                await self._leave(delivery)
                continue
            try:
                told = read(delivery)
            except Malformed:
                await self._unreadable(delivery)
                continue
            if isinstance(told, Event) and told.type is EventType.TEST:
                await self._test(delivery, told, subscriber)
            elif isinstance(told, OperatorEvent):
                for_operators.append((delivery, told))
            else:
                together.append((delivery, told))
        together = await self._as_of_now(together, subscriber)
        for batch in filter(None, (together, for_operators)):
            await self._message(batch, subscriber)

    async def _as_of_now(
        self, batch: list[tuple[ClaimedDelivery, Told]], subscriber: Subscriber
    ) -> list[tuple[ClaimedDelivery, Told]]:
        """With the advice of now. Where the store cannot tell it, the event goes out without."""
        deliveries, events = [delivery for delivery, _ in batch], [told for _, told in batch if isinstance(told, Event)]
        if not deliveries:
            return batch
        try:
            return list(zip(deliveries, await current_events(self.store, deliveries[0].account, events), strict=True))
        except StoreUnavailable as error:
            log.warning("delivery.advice_unknown", subscriber=subscriber.name, reason=error.reason)
            return list(zip(deliveries, map(without_judgement, events), strict=True))

    async def _message(self, batch: Sequence[tuple[ClaimedDelivery, Told]], subscriber: Subscriber) -> None:
        answer, seconds = await self._post([told for _, told in batch], subscriber)
        for number, (delivery, told) in enumerate(batch):
            with structlog.contextvars.bound_contextvars(**in_the_log(delivery.fields.get("traceparent", ""))):
                await self._settle(delivery, told, subscriber, answer, seconds, first=number == 0)

    async def _post(self, batch: Sequence[Told], subscriber: Subscriber) -> tuple[Response | TransportError, float]:
        began = asyncio.get_running_loop().time()
        answer: Response | TransportError
        try:
            answer = await self.send(
                request_of(batch, subscriber, self.system_clock()),
                timeout=self.timeout,
                connect_timeout=self.connect_timeout,
                max_body=ANSWER_BYTES,
                guarded=True,
            )
        except TransportError as error:
            answer = error
        return answer, asyncio.get_running_loop().time() - began

    async def _settle(
        self,
        delivery: ClaimedDelivery,
        told: Told,
        subscriber: Subscriber,
        answer: Response | TransportError,
        seconds: float,
        *,
        first: bool,
    ) -> None:
        """`first`: a message that fails counts as one failure of the subscriber, however many events it holds."""
        now, paused_ms = self.store.now(), subscriber.paused_ms
        verdict = judge(answer, delivery.attempts, now, self.random(), paused_ms=paused_ms)
        attempts = record(answer, delivery.attempts, verdict, now, paused_ms=paused_ms)
        result = _result(verdict, answer, now) if first else AttemptEffects()
        match verdict:
            case Delivered():
                held = await self.store.deliveries.delivered(delivery, result)
            case Retry(at=at):
                held = await self.store.deliveries.retry(delivery, at, attempts, result)
            case Gone():
                await pause_gone(self.store, delivery, subscriber)
                await announce(self.store, delivery.account, self.metrics)
                held = await self.store.deliveries.retry(delivery, now, attempts, result)
            case Dead(reason=reason):
                held = await self._dead_letter(delivery, reason, attempts, result)
        self._log(delivery, told, verdict, attempts, answer, seconds, held)
        if isinstance(verdict, Dead) and held and isinstance(told, Event):
            if verdict.reason != "aborted":
                await pause_failing(self.store, delivery, subscriber, attempts)
            await announce(self.store, delivery.account, self.metrics)

    async def _dead_letter(
        self, delivery: ClaimedDelivery, reason: str, attempts: DeliveryAttempts, result: AttemptEffects
    ) -> bool:
        now = self.store.now()
        tell = [] if is_operator(delivery.fields) else [dead_letter(delivery, reason, now, attempts)]
        entry = dead_event(delivery, reason, now, attempts)
        return await self.store.deliveries.dead(delivery, entry, AttemptEffects(result.failed, result.error, tell))

    def _log(
        self,
        delivery: ClaimedDelivery,
        told: Told,
        verdict: Verdict,
        attempts: DeliveryAttempts,
        answer: Response | TransportError,
        seconds: float,
        held: bool,
    ) -> None:
        outcome = type(verdict).__name__.lower()
        self.metrics.delivery_attempt(outcome, seconds)
        delivered = isinstance(verdict, Delivered)
        line = log.info if delivered else log.error if isinstance(verdict, Dead) else log.warning
        line(
            f"delivery.{outcome}",
            event_id=told.id,
            type=told.type.value,
            refund_id=delivery.fields.get("refundId", ""),
            attempt=attempts.count,
            error=None if delivered else error_text(answer),
            note=(answer.note or None) if isinstance(answer, Response) else None,
            seconds=round(seconds, 3),
            settled=held,
        )

    async def _test(self, delivery: ClaimedDelivery, event: Event, subscriber: Subscriber) -> None:
        """Sent once, whatever comes of it; a test that nobody waits for any more is not sent."""
        if self.store.now() - written_at(delivery.stream_id) > STALE_TEST:
            await self.store.deliveries.tested(delivery, b"", AttemptEffects())
            return
        answer, seconds = await self._post([event], subscriber)
        right = isinstance(answer, Response) and 200 <= answer.status < 300
        tested = Tested(
            right,
            answer.status if isinstance(answer, Response) else 0,
            "" if right else error_text(answer),
            excerpt(answer.body) if isinstance(answer, Response) else "",
            round(seconds, 3),
            answer.note if isinstance(answer, Response) else "",
        )
        result = AttemptEffects(not right, tested.error)
        held = await self.store.deliveries.tested(delivery, msgspec.json.encode(tested), result)
        log.info("delivery.tested", event_id=event.id, delivered=right, error=tested.error or None, settled=held)

    async def _leave(self, delivery: ClaimedDelivery) -> None:
        """An event of a later version is that version's to deliver: it waits, and nothing counts against it."""
        held = await self.store.deliveries.postpone(delivery, self.store.now() + LATER_PAUSE)
        log.warning(
            "delivery.left_to_later_version",
            type=delivery.fields.get("type"),
            stream_id=delivery.stream_id,
            settled=held,
            fix="run the newer version of the receiver again",
        )

    async def _unreadable(self, delivery: ClaimedDelivery) -> None:
        """The stream does not have the event, or not in a form that we can read: somebody else must have touched it."""
        reason = "unreadable" if delivery.fields else "lost"
        log.error("delivery.dead", reason=reason, stream_id=delivery.stream_id)
        self.metrics.delivery_attempt("dead", 0.0)
        if await self._dead_letter(delivery, reason, delivery.attempts, AttemptEffects()):
            await announce(self.store, delivery.account, self.metrics)


def read(delivery: ClaimedDelivery) -> Told:
    """What is to be told. Raises `Malformed`."""
    if is_operator(delivery.fields):
        return read_operator_event(delivery.account, delivery.fields)
    return from_fields(delivery.account, delivery.fields)


def request_of(batch: Sequence[Told], subscriber: Subscriber, now: int) -> Request:
    """The one request that tells all of the batch. Raises `TransportError`."""
    for_operators = [each for each in batch if isinstance(each, OperatorEvent)]
    if for_operators:
        return render_operator(for_operators, subscriber, now)
    events = [each for each in batch if isinstance(each, Event)]
    return render(events, subscriber, now)


def _result(verdict: Verdict, answer: Response | TransportError, now: int) -> AttemptEffects:
    """What the answer says of the subscriber's health. That it does not want one event is no failure."""
    if isinstance(verdict, Delivered):
        return AttemptEffects(failed=False)
    if isinstance(verdict, Dead) and verdict.reason == "aborted":
        return AttemptEffects()
    asked = verdict.at if isinstance(verdict, Retry) and not verdict.counts else None
    hold = None if asked is None else min(asked, now + LONGEST_HOLD)
    return AttemptEffects(failed=True, error=error_text(answer), hold=hold)

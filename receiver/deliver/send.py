"""Verb. Claimed events → one message to one subscriber: render, send, judge, write.

The write that moves an event to the dead letters also queues an event for operators. It may be followed by pausing the
subscriber (`deliver/failing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import msgspec
import structlog

from receiver.deliver.failing import pause_failing, pause_gone, publish_operator_events
from receiver.errors import Malformed, StoreUnavailable, TransportError
from receiver.exchange import Request, Response, in_the_log
from receiver.ledger.lifecycle import EventType
from receiver.outbox.dead_letter import dead_event, dead_letter
from receiver.outbox.events.balance_event import BalanceEvent
from receiver.outbox.events.envelope import AnEvent
from receiver.outbox.events.event import Event
from receiver.outbox.events.kinds import is_newer, read_event
from receiver.outbox.events.operator_event import is_operator
from receiver.outbox.formats.registry import render
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
from receiver.store.account import AccountStore
from receiver.store.deliveries.queues import LONGEST_HOLD, AttemptEffects
from receiver.store.redis.stream_ids import written_at
from receiver.track.current import current_events, without_judgement

log = structlog.get_logger()

ANSWER_BYTES = 4096
"""The most bytes read of a subscriber's answer: enough for display."""
LATER_PAUSE = 5_000
"""ms for which an event of a later version is postponed, so that a process of that version can send it."""
STALE_TEST = 120_000
"""ms after which a test is dropped: its caller has stopped waiting."""

CHUNK = 25
"""Refunds to read at once. Answers to Amazon are delayed by at most one such chunk."""


class Send(Protocol):
    """Sends a request to a subscriber: `Transport.send`."""

    async def __call__(
        self, request: Request, *, timeout: float, connect_timeout: float, max_body: int, guarded: bool
    ) -> Response:
        """The answer. Raises `TransportError`."""


@dataclass(slots=True)
class DeliveryAttempt:
    """Sends claimed events. `system_clock` (ms) is the machine's clock: subscribers compare timestamps with theirs."""

    store: AccountStore
    send: Send
    metrics: Metrics
    system_clock: Callable[[], int]
    random: Callable[[], float]
    timeout: float = 10.0
    connect_timeout: float = 3.0
    release: Callable[[], None] = lambda: None
    """Called when a subscriber has accepted a message: the next one can be sent while the success is written. A failure
    must be written first, because it may delay the next message."""

    async def deliver(
        self,
        deliveries: Sequence[ClaimedDelivery],
        subscriber: Subscriber,
        events: Sequence[AnEvent | None] | None = None,
    ) -> None:
        """Send events that were claimed for one message, and finish each delivery.

        `events` is what `read_all` returned for them; None: they are read now. Events of different kinds go in
        separate messages, and so does each test. After `StoreUnavailable` the lease expires, and the events are sent
        again.
        """
        # An alarm comes before the declines that raised it.
        batches: dict[type, list[tuple[ClaimedDelivery, AnEvent]]] = {BalanceEvent: []}
        found = await read_all(self.store, deliveries) if events is None else events
        for delivery, event in zip(deliveries, found, strict=True):
            if event is None:
                await (self._leave if is_newer(delivery.fields) else self._unreadable)(delivery)
            elif isinstance(event, Event) and event.type is EventType.TEST:
                await self._test(delivery, event, subscriber)
            else:
                batches.setdefault(type(event), []).append((delivery, event))
        messages = [batch for batch in batches.values() if batch]
        for batch in messages:
            await self._message(batch, subscriber, is_last=batch is messages[-1])

    async def _message(
        self, batch: Sequence[tuple[ClaimedDelivery, AnEvent]], subscriber: Subscriber, *, is_last: bool
    ) -> None:
        answer, seconds = await self._post([event for _, event in batch], subscriber)
        if is_last and _is_accepted(answer):
            self.release()
        for number, (delivery, event) in enumerate(batch):
            trace = in_the_log(delivery.fields.get("traceparent", ""))
            with structlog.contextvars.bound_contextvars(**trace) if trace else nullcontext():
                await self._finish(delivery, event, subscriber, answer, seconds, first=number == 0)

    async def _post(self, batch: Sequence[AnEvent], subscriber: Subscriber) -> tuple[Response | TransportError, float]:
        began = perf_counter()
        answer: Response | TransportError
        try:
            answer = await self.send(
                render(batch, subscriber, self.system_clock()),
                timeout=self.timeout,
                connect_timeout=self.connect_timeout,
                max_body=ANSWER_BYTES,
                guarded=True,
            )
        except TransportError as error:
            answer = error
        return answer, perf_counter() - began

    async def _finish(
        self,
        delivery: ClaimedDelivery,
        event: AnEvent,
        subscriber: Subscriber,
        answer: Response | TransportError,
        seconds: float,
        *,
        first: bool,
    ) -> None:
        """Judge the answer, and write the verdict. Only the `first` event of a message affects the health."""
        now, paused_ms = self.store.now(), subscriber.paused_ms
        verdict = judge(answer, delivery.attempts, now, self.random(), paused_ms=paused_ms)
        attempts = record(answer, delivery.attempts, verdict, now, paused_ms=paused_ms)
        effects = _effects(verdict, answer, now) if first else AttemptEffects()
        match verdict:
            case Delivered():
                held = await self.store.deliveries.delivered(delivery, effects)
            case Retry(at=at):
                held = await self.store.deliveries.retry(delivery, at, attempts, effects)
            case Gone():
                await pause_gone(self.store, delivery, subscriber)
                await publish_operator_events(self.store, self.metrics)
                held = await self.store.deliveries.retry(delivery, now, attempts, effects)
            case Dead(reason=reason):
                held = await self._dead_letter(delivery, reason, attempts, effects)
        self._log(delivery, event, verdict, attempts, answer, seconds, held)
        if isinstance(verdict, Dead) and held and isinstance(event, Event):
            if verdict.reason != "aborted":
                await pause_failing(self.store, delivery, subscriber, attempts)
            await publish_operator_events(self.store, self.metrics)

    async def _dead_letter(
        self, delivery: ClaimedDelivery, reason: str, attempts: DeliveryAttempts, effects: AttemptEffects
    ) -> bool:
        now = self.store.now()
        tell = [] if is_operator(delivery.fields) else [dead_letter(delivery, reason, now, attempts)]
        entry = dead_event(delivery, reason, now, attempts)
        return await self.store.deliveries.dead(delivery, entry, AttemptEffects(effects.failed, effects.error, tell))

    def _log(
        self,
        delivery: ClaimedDelivery,
        event: AnEvent,
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
            event_id=event.id,
            type=event.type.value,
            refund_id=delivery.fields.get("refundId", ""),
            attempt=attempts.count,
            error=None if delivered else error_text(answer),
            note=(answer.note or None) if isinstance(answer, Response) else None,
            seconds=round(seconds, 3),
            settled=held,
        )

    async def _test(self, delivery: ClaimedDelivery, event: Event, subscriber: Subscriber) -> None:
        """Send a test once, whatever the answer; not at all if its caller has stopped waiting."""
        if self.store.now() - written_at(delivery.stream_id) > STALE_TEST:
            await self.store.deliveries.tested(delivery, b"", AttemptEffects())
            return
        answer, seconds = await self._post([event], subscriber)
        right = _is_accepted(answer)
        tested = Tested(
            right,
            answer.status if isinstance(answer, Response) else 0,
            "" if right else error_text(answer),
            excerpt(answer.body) if isinstance(answer, Response) else "",
            round(seconds, 3),
            answer.note if isinstance(answer, Response) else "",
        )
        effects = AttemptEffects(not right, tested.error)
        held = await self.store.deliveries.tested(delivery, msgspec.json.encode(tested), effects)
        log.info("delivery.tested", event_id=event.id, delivered=right, error=tested.error or None, settled=held)

    async def _leave(self, delivery: ClaimedDelivery) -> None:
        """Postpone an event of a later version, for processes of that version. This does not count as an attempt."""
        held = await self.store.deliveries.postpone(delivery, self.store.now() + LATER_PAUSE)
        log.warning(
            "delivery.left_to_later_version",
            type=delivery.fields.get("type"),
            stream_id=delivery.stream_id,
            settled=held,
            fix="run the newer version of the receiver again",
        )

    async def _unreadable(self, delivery: ClaimedDelivery) -> None:
        """Make a dead letter of an event that is missing from the stream or unreadable: another program has written to
        Redis."""
        reason = "unreadable" if delivery.fields else "lost"
        log.error("delivery.dead", reason=reason, stream_id=delivery.stream_id)
        self.metrics.delivery_attempt("dead", 0.0)
        if await self._dead_letter(delivery, reason, delivery.attempts, AttemptEffects()):
            await publish_operator_events(self.store, self.metrics)


async def read_all(store: AccountStore, deliveries: Sequence[ClaimedDelivery]) -> list[AnEvent | None]:
    """The event of each delivery; None if a later version wrote it, or if it is unreadable.

    Events about refunds have current advice, or no judgement if the store cannot be read. An event that several
    subscribers get is judged once.
    """
    read: dict[int, AnEvent | None] = {}
    """By the fields, which the deliveries of one event share."""
    for delivery in deliveries:
        if id(delivery.fields) not in read:
            read[id(delivery.fields)] = _read(delivery)
    found = [read[id(delivery.fields)] for delivery in deliveries]
    refunds = [*dict.fromkeys(each for each in found if isinstance(each, Event) and each.type is not EventType.TEST)]
    current: dict[AnEvent, AnEvent] = {}
    for start in range(0, len(refunds), CHUNK):
        chunk = refunds[start : start + CHUNK]
        try:
            current |= zip(chunk, await current_events(store, chunk), strict=True)
        except StoreUnavailable as error:
            log.warning("delivery.advice_unknown", account=store.account, reason=error.reason)
            current |= zip(chunk, map(without_judgement, chunk), strict=True)
    return [current.get(event, event) if isinstance(event, Event) else event for event in found]


def _read(delivery: ClaimedDelivery) -> AnEvent | None:
    with suppress(Malformed):
        return None if is_newer(delivery.fields) else read_event(delivery.account, delivery.fields)
    return None


def _is_accepted(answer: Response | TransportError) -> bool:
    return isinstance(answer, Response) and 200 <= answer.status < 300


def _effects(verdict: Verdict, answer: Response | TransportError, now: int) -> AttemptEffects:
    """The answer's effect on the subscriber's health. A refusal of one event is not a failure."""
    if isinstance(verdict, Delivered):
        return AttemptEffects(failed=False)
    if isinstance(verdict, Dead) and verdict.reason == "aborted":
        return AttemptEffects()
    asked = verdict.at if isinstance(verdict, Retry) and not verdict.counts else None
    pause_until = None if asked is None else min(asked, now + LONGEST_HOLD)
    return AttemptEffects(failed=True, error=error_text(answer), pause_until=pause_until)

"""Edge: Redis. One delivery queue for each subscriber, with the attempts so far and the subscriber's health.

The score of an event in its queue is when to send it. A claim sets the score to the end of its lease, and uses it as
its token. The breaker and the rate are kept in Redis, so that they hold across all processes; `concurrency` applies to
each process.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import structlog

from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.events.operator_event import OperatorEvent, is_operator, operator_fields
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts
from receiver.runtime.batch import SharedCall
from receiver.runtime.rounds import Claim
from receiver.store.deliveries.subscribers import queued_form
from receiver.store.redis.base import LAST_TIME, AccountRepository, Args, Connection
from receiver.store.redis.damage import WrongType
from receiver.store.redis.keys import Keys
from receiver.store.redis.stream_ids import fixed_width, joined_texts
from receiver.store.refunds.timeline import DELIVERY, timeline_line

log = structlog.get_logger()

BREAKER = 5
"""Failures in a row after which only one message at a time is sent, as a probe, until one succeeds."""
PROBE_PAUSE = 1_000
"""ms between a failed probe and the next."""
FARTHEST = 400 * 86_400_000
"""ms; nothing is scheduled later than this. `store/redis/helpers.lua` corrects anything that is."""
LONGEST_HOLD = 60_000
"""ms for which a subscriber may ask for a pause; `claim_deliveries.lua` ignores longer ones."""
COUNT = re.compile(rb"[0-9]{1,20}")
TEST_KEPT = 120_000
"""ms for which the result of a test is kept."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """The limits for taking events from a queue."""

    rate: float = 0.0
    """Messages a second; 0: any number."""
    most: int = 1
    """Events in one message."""
    window: int = 0
    """ms between two messages."""
    breaker: int = 0
    """Failures in a row after which messages are sent one at a time; 0: never."""
    tests_only: bool = False
    """Only tests are sent: the subscriber is paused."""


class Copy(msgspec.Struct, frozen=True):
    """A copy of an event, kept outside the stream."""

    fields: dict[str, str] = {}


COPY, ATTEMPTS = msgspec.json.Decoder(Copy), msgspec.json.Decoder(DeliveryAttempts)


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A subscriber's delivery health. Times are ms; 0 means never."""

    delivered: int = 0
    """Events delivered since it was added."""
    streak: int = 0
    """Failures in a row."""
    success_at: int = 0
    error: str = ""
    error_at: int = 0

    @property
    def probing(self) -> bool:
        """Whether messages are sent one at a time."""
        return self.streak >= BREAKER


@dataclass(frozen=True, slots=True)
class AttemptEffects:
    """The effects of one attempt besides its outcome: on the subscriber's health, and operator events to publish."""

    failed: bool | None = None
    """None: the attempt says nothing about the subscriber's health."""
    error: str = ""
    operator_events: Sequence[OperatorEvent] = field(default=())
    pause_until: int | None = None
    """Until when (ms) the subscriber asked for a pause."""


NO_EFFECT = AttemptEffects()
SUCCESS = AttemptEffects(failed=False)


class DeliveryQueues(AccountRepository):
    def __init__(self, connection: Connection, keys: Keys) -> None:
        super().__init__(connection, keys)
        self._finishing: dict[str, SharedCall[tuple[str, Args], bool]] = {}
        """Subscriber → the shared call that finishes its deliveries."""

    async def queue_heads(self, names: Sequence[str]) -> dict[str, int]:
        """When (ms) each queue has something to send, 0 for a test; empty queues are left out."""
        tops = await asyncio.gather(*(self._top(self.keys("lane", name)) for name in names))
        found = {name: self._scored(self.keys("lane", name), top) for name, top in zip(names, tops, strict=True) if top}
        # Claiming corrects ids that are not text and times that cannot be right: such a queue counts as due.
        never = self.now() + FARTHEST
        return {name: pairs[0][1] if pairs and pairs[0][1] <= never else 1 for name, pairs in found.items()}

    async def _top(self, key: str) -> list[Any]:
        """The first entry of a queue; empty if the key has the wrong type, which must not affect other queues."""
        with contextlib.suppress(WrongType):
            return list(await self._read("ZRANGE", key, 0, 0, "WITHSCORES"))
        return []

    async def claim(
        self, name: str, *, lease: int, limit: int, terms: QueueLimits = QueueLimits()
    ) -> Claim[ClaimedDelivery]:
        """Claim due deliveries of this subscriber, at most `limit` messages, for `lease` ms."""
        return (await self.claim_all({name: (limit, terms)}, lease=lease))[name]

    async def claim_all(
        self, queues: Mapping[str, tuple[int, QueueLimits]], *, lease: int
    ) -> dict[str, Claim[ClaimedDelivery]]:
        """Claim due deliveries of these subscribers for `lease` ms. `queues`: name → maximum number of messages, and
        limits.

        `WrongType`: a key of one of them has the wrong type, and nothing was claimed.
        """
        args: Args = [self.now(), lease]
        for name, (limit, terms) in queues.items():
            args += [limit, name, terms.most, terms.window, str(terms.rate), terms.breaker, int(terms.tests_only)]
        keys = [key for name in queues for key in (*self.keys.of_subscriber(name), self.keys("aside", "lane", name))]
        entries, *claims = await self._script("claim_deliveries", args, more=keys, repeatable=False)
        return {
            name: Claim([self._claimed(name, entries, *each) for each in claimed], None if wait < 0 else int(wait))
            for name, (wait, *claimed) in zip(queues, claims, strict=True)
        }

    def _claimed(
        self,
        name: str,
        entries: Sequence[bytes],
        stream_id: bytes,
        token: bytes,
        attempts: bytes,
        place: int,
        copy: bytes,
    ) -> ClaimedDelivery:
        """A delivery from the answer of the script. Its event is in the stream, or there is a copy of it."""
        found = self.read_attempts(self.keys("attempts", name), stream_id, attempts)
        fields = (
            joined_texts(entries[place - 1]) if place else self.read_copy(self.keys("copies", name), stream_id, copy)
        )
        return ClaimedDelivery(self.account, name, stream_id.decode(), int(token), found, fields)

    async def delivered(self, delivery: ClaimedDelivery, result: AttemptEffects = SUCCESS) -> bool:
        """The subscriber has received it."""
        return await self._finish(delivery, "delivered", result, trace=self._trace(delivery, "delivered"))

    async def retry(
        self, delivery: ClaimedDelivery, at: int, attempts: DeliveryAttempts, result: AttemptEffects = NO_EFFECT
    ) -> bool:
        """Try again at `at` (ms)."""
        trace = self._trace(delivery, "retry", attempts.last_error)
        return await self._finish(delivery, "retry", result, at, msgspec.json.encode(attempts), trace=trace)

    async def postpone(self, delivery: ClaimedDelivery, at: int) -> bool:
        """No attempt was made: the delivery waits until `at` (ms), and its attempts stay as they are."""
        return await self._finish(delivery, "retry", NO_EFFECT, at, msgspec.json.encode(delivery.attempts))

    async def dead(self, delivery: ClaimedDelivery, entry: DeadEvent, result: AttemptEffects = NO_EFFECT) -> bool:
        """It failed permanently: the event is kept as a dead letter."""
        trace = self._trace(
            delivery, "dead", f"{entry.reason}: {entry.last_error}" if entry.last_error else entry.reason
        )
        return await self._finish(delivery, "dead", result, dead=msgspec.json.encode(entry), trace=trace)

    async def tested(self, delivery: ClaimedDelivery, outcome: bytes, result: AttemptEffects) -> bool:
        """A test has finished. Its result is kept for the caller that requested it."""
        key = self.keys("tested", delivery.stream_id)
        await self._write("SET", key, outcome, "PX", TEST_KEPT, "GET")
        return await self._finish(delivery, "dropped", result)

    async def _finish(
        self,
        delivery: ClaimedDelivery,
        outcome: str,
        result: AttemptEffects,
        at: int | str = "",
        attempts: bytes = b"",
        dead: bytes = b"",
        trace: bytes = b"",
    ) -> bool:
        """Finish the claim; False, writing nothing, if it is no longer ours."""
        args: Args = [
            delivery.stream_id,
            fixed_width(delivery.stream_id),
            delivery.token,
            outcome,
            at,
            attempts,
            dead,
            "" if result.failed is None else int(result.failed),
            result.error,
            "" if result.pause_until is None else result.pause_until,
            trace,
            len(result.operator_events),
            *(queued_form(event) for event in result.operator_events),
        ]
        name = delivery.subscriber
        if (shared := self._finishing.get(name)) is None:
            shared = self._finishing[name] = SharedCall(partial(self._finish_all, name))
        held = await shared.run((delivery.fields.get("refundId", ""), args))
        unpublished = self.keys("told")
        for event in result.operator_events if any(each.key == unpublished for each in self.damage.foreign) else ():
            log.error("operator.event_not_published", **operator_fields(event))
        return held

    async def _finish_all(self, name: str, outcomes: Sequence[tuple[str, Args]]) -> list[bool]:
        """Finish several claims of one subscriber."""
        answer: list[int] = await self._script(
            "finish_delivery",
            [self.now(), self.connection.keep_dead, PROBE_PAUSE, *(arg for _, args in outcomes for arg in args)],
            more=[self.keys("trail", refund_id) for refund_id, _ in outcomes],
            without=["trail"],
            name=name,
        )
        if dropped := sum(answer[1::2]):
            log.error("delivery.dead_dropped", account=self.account, subscriber=name, count=dropped)
            self.connection.on_dropped(dropped)
        return [bool(held) for held in answer[::2]]

    def _trace(self, delivery: ClaimedDelivery, outcome: str, detail: str = "") -> bytes:
        """The line for the refund's timeline; empty for operator events, and if the event itself is lost."""
        if is_operator(delivery.fields) or not delivery.fields.get("refundId"):
            return b""
        attempt = delivery.attempts.count + 1
        more = (delivery.subscriber, outcome, attempt, detail, delivery.fields.get("type", ""))
        return timeline_line(self.now(), DELIVERY, *more)

    async def health(self, name: str) -> Health:
        key = self.keys("health", name)
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        found: dict[str, str | int] = {}
        for field_, value in ((name, raw[name.encode()]) for name in Health.__struct_fields__ if name.encode() in raw):
            if field_ == "error":
                found[field_] = value.decode(errors="replace")
            elif COUNT.fullmatch(value):
                found[field_] = min(int(value), LAST_TIME)
            else:
                self.damage.record(key, field_, "not a number")
        return msgspec.convert(found, Health)

    def read_attempts(self, key: str, stream_id: bytes | str, stored: bytes | None) -> DeliveryAttempts:
        """The attempts so far. If the record is damaged, they count from zero and the event is still delivered."""
        what = "unreadable attempts; counting starts again"
        found = self._part(key, stream_id, what, ATTEMPTS.decode, stored) if stored else None
        return found or DeliveryAttempts()

    def read_copy(self, key: str, stream_id: bytes | str, stored: bytes | None) -> dict[str, str]:
        """The fields of a copy; empty if it is damaged."""
        found = self._part(key, stream_id, "unreadable copy of an event", COPY.decode, stored) if stored else None
        return found.fields if found else {}

    async def publish_failing_once(self, event: OperatorEvent) -> bool:
        """Queue an operator event about failures, once until the subscriber succeeds; whether it was queued."""
        return bool(await self._script("publish_failing_once", [queued_form(event)], name=event.subscriber))

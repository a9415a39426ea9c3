"""Edge: Redis. What each subscriber is owed: one lane per subscriber, what was tried, and how it fares.

The score of an event in its lane is when to send it; a claim moves it to the end of its lease, and is that score.
The breaker and the rate are kept here, so that they hold over all processes together; `concurrency` is each process's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.events.operator_event import OperatorEvent, is_operator, operator_fields
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts
from receiver.runtime.rounds import Claim
from receiver.store.deliveries.subscribers import queued_form
from receiver.store.redis.base import LAST_TIME, RedisRepository
from receiver.store.redis.damage import WrongType
from receiver.store.redis.stream_ids import fixed_width, texts_of
from receiver.store.refunds.timeline import CAP, DELIVERY, KEPT_FOR, timeline_line

log = structlog.get_logger()

BREAKER = 5
"""Failures in a row after which only one message at a time is sent, as a probe, until one succeeds."""
PROBE_PAUSE = 1_000
"""ms between a probe that failed and the next."""
FARTHEST = 400 * 86_400_000
"""ms; nothing is scheduled for later. `store/redis/prelude.lua` brings back what is."""
LONGEST_HOLD = 60_000
"""ms for which nothing is sent to a subscriber that asks for time; `claim_deliveries.lua` believes in no longer."""
COUNT = re.compile(rb"[0-9]{1,20}")
TEST_KEPT = 120_000
"""ms for which the outcome of a test can be asked."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How a lane may be emptied."""

    rate: float = 0.0
    """Messages a second; 0: any number."""
    most: int = 1
    """Events in one message."""
    window: int = 0
    """ms after one message until the next."""
    breaker: int = 0
    """Failures in a row after which messages are sent one at a time; 0: never."""
    tests_only: bool = False
    """Nothing but tests: the subscriber is paused."""


class Copy(msgspec.Struct, frozen=True):
    """An event that is kept apart from the stream."""

    fields: dict[str, str] = {}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a subscriber fares. Times are ms, 0 where there is none."""

    delivered: int = 0
    """Events, since it was added."""
    streak: int = 0
    """Failures in a row."""
    success_at: int = 0
    error: str = ""
    error_at: int = 0

    @property
    def probing(self) -> bool:
        """Whether only one message at a time is sent."""
        return self.streak >= BREAKER


@dataclass(frozen=True, slots=True)
class AttemptEffects:
    """What one try says beside the outcome: of the subscriber's health, and to operators."""

    failed: bool | None = None
    """None: it says nothing about the subscriber."""
    error: str = ""
    operator_events: Sequence[OperatorEvent] = field(default=())
    hold: int | None = None
    """Until when (ms) the subscriber wants nothing more."""


NO_EFFECT = AttemptEffects()
SUCCESS = AttemptEffects(failed=False)


class DeliveryQueues(RedisRepository):
    """Deliveries of one account, by subscriber."""

    keep_dead = 10_000
    """Dead events kept for each subscriber; of more, the oldest go."""
    on_dropped: Callable[[int], None]
    """Is told how many had to go."""

    async def queue_heads(self, account: str, names: Sequence[str]) -> dict[str, int]:
        """When (ms) each lane has something to send, 0 for a test; a lane that owes nothing is left out."""
        keys = self._keys(account)
        tops = await asyncio.gather(*(self._top(keys("lane", name)) for name in names))
        found = {name: self._scored(keys("lane", name), top) for name, top in zip(names, tops, strict=True) if top}
        # What is no text, or lies in no time that was ever meant, is seen to by the claim.
        never = self.now() + FARTHEST
        return {name: pairs[0][1] if pairs and pairs[0][1] <= never else 1 for name, pairs in found.items()}

    async def _top(self, key: str) -> list[Any]:
        """The first of a lane; nothing of a foreign key, which is its subscriber's trouble alone."""
        with contextlib.suppress(WrongType):
            return list(await self._read("ZRANGE", key, 0, 0, "WITHSCORES"))
        return []

    async def claim_deliveries(
        self, account: str, name: str, *, lease: int, limit: int, terms: QueueLimits = QueueLimits()
    ) -> Claim[ClaimedDelivery]:
        """Take what is due for this subscriber, at most `limit` messages, for `lease` ms."""
        keys = self._keys(account)
        args: list[str | int | bytes] = [
            self.now(),
            lease,
            limit,
            name,
            terms.most,
            terms.window,
            str(terms.rate),
            terms.breaker,
            int(terms.tests_only),
        ]
        own = {kind: keys(kind, name) for kind in ("lane", "attempts", "copies", "health")}
        wait, *claimed = await self._run(
            "claim_deliveries",
            [
                *(own["lane"], keys("events"), own["attempts"], keys("subscribers"), own["copies"], own["health"]),
                keys("aside", "lane", name),
                *(keys(kind, name) for kind in ("owed", "dead", "deaths")),
            ],
            args,
            repeatable=False,
        )
        deliveries = [
            ClaimedDelivery(
                account,
                name,
                stream_id.decode(),
                int(token),
                self._attempts(own["attempts"], stream_id, attempts),
                texts_of(flat) or self._copied(own["copies"], stream_id, copy),
            )
            for stream_id, token, attempts, flat, copy in claimed
        ]
        return Claim(deliveries, None if wait < 0 else int(wait))

    async def delivered(self, delivery: ClaimedDelivery, result: AttemptEffects = SUCCESS) -> bool:
        """The subscriber has it."""
        return await self._finish(delivery, "delivered", result, trace=self._trace(delivery, "delivered"))

    async def retry(
        self, delivery: ClaimedDelivery, at: int, attempts: DeliveryAttempts, result: AttemptEffects = NO_EFFECT
    ) -> bool:
        """Try again at `at` (ms)."""
        trace = self._trace(delivery, "retry", attempts.last_error)
        return await self._finish(delivery, "retry", result, at, msgspec.json.encode(attempts), trace=trace)

    async def postpone(self, delivery: ClaimedDelivery, at: int) -> bool:
        """Nobody tried: it waits until `at` (ms), and its attempts stay as they are."""
        return await self._finish(delivery, "retry", NO_EFFECT, at, msgspec.json.encode(delivery.attempts))

    async def dead(self, delivery: ClaimedDelivery, entry: DeadEvent, result: AttemptEffects = NO_EFFECT) -> bool:
        """Given up; kept beside the lane."""
        trace = self._trace(
            delivery, "dead", f"{entry.reason}: {entry.last_error}" if entry.last_error else entry.reason
        )
        return await self._finish(delivery, "dead", result, dead=msgspec.json.encode(entry), trace=trace)

    async def tested(self, delivery: ClaimedDelivery, outcome: bytes, result: AttemptEffects) -> bool:
        """A test has ended, however; its outcome is kept for whoever asked for it."""
        key = self._keys(delivery.account)("tested", delivery.stream_id)
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
        """False if the claim is no longer ours: then nothing is written."""
        keys, name = self._keys(delivery.account), delivery.subscriber
        held, *dropped = await self._run(
            "finish_delivery",
            [
                *(keys(kind, name) for kind in ("lane", "owed", "attempts", "dead", "deaths", "copies", "health")),
                keys("told"),
                keys("trail", delivery.fields.get("refundId", "")),
            ],
            [
                delivery.stream_id,
                fixed_width(delivery.stream_id),
                delivery.token,
                outcome,
                at,
                attempts,
                dead,
                self.now(),
                "" if result.failed is None else int(result.failed),
                result.error,
                self.keep_dead,
                PROBE_PAUSE,
                "" if result.hold is None else result.hold,
                trace,
                CAP,
                KEPT_FOR,
                *(queued_form(event) for event in result.operator_events),
            ],
            without=("told", "trail"),
        )
        for event in result.operator_events if any(each.key == keys("told") for each in self.damage.foreign) else ():
            log.error("operator.not_told", **operator_fields(event))
        if dropped and dropped[0]:
            log.error("delivery.dead_dropped", account=delivery.account, subscriber=name, count=dropped[0])
            self.on_dropped(int(dropped[0]))
        return bool(held)

    def _trace(self, delivery: ClaimedDelivery, outcome: str, detail: str = "") -> bytes:
        """The line of the refund's trail; none for what is told to operators, and where the event is lost."""
        if is_operator(delivery.fields) or not delivery.fields.get("refundId"):
            return b""
        attempt = delivery.attempts.count + 1
        more = (delivery.subscriber, outcome, attempt, detail, delivery.fields.get("type", ""))
        return timeline_line(self.now(), DELIVERY, *more)

    async def health(self, account: str, name: str) -> Health:
        """How a subscriber fares."""
        key = self._keys(account)("health", name)
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        found: dict[str, str | int] = {}
        for field_, value in ((name, raw[name.encode()]) for name in Health.__struct_fields__ if name.encode() in raw):
            if field_ == "error":
                found[field_] = value.decode(errors="replace")
            elif COUNT.fullmatch(value):
                found[field_] = min(int(value), LAST_TIME)
            else:
                self.damage.record(key, field_, "no number")
        return msgspec.convert(found, Health)

    def _attempts(self, key: str, stream_id: bytes | str, stored: bytes | None) -> DeliveryAttempts:
        """What was tried so far. A damaged record costs the schedule its memory, not the subscriber its event."""
        try:
            return msgspec.json.decode(stored, type=DeliveryAttempts) if stored else DeliveryAttempts()
        except msgspec.MsgspecError:
            self.damage.record(key, stream_id, "not the attempts of an event; they count from none")
            return DeliveryAttempts()

    def _copied(self, key: str, stream_id: bytes | str, stored: bytes | None) -> dict[str, str]:
        """The fields of a copy; none of one that is damaged."""
        try:
            return msgspec.json.decode(stored, type=Copy).fields if stored else {}
        except msgspec.MsgspecError:
            self.damage.record(key, stream_id, "not the copy of an event")
            return {}

    async def publish_failing_once(self, account: str, event: OperatorEvent) -> bool:
        """Have operators told of failures, once until the subscriber succeeds again; whether this was the once."""
        keys = self._keys(account)
        return bool(
            await self._run(
                "publish_failing_once", [keys("health", event.subscriber), keys("told")], [queued_form(event)]
            )
        )

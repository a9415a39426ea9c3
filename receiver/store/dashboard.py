"""Edge: Redis. Queries for the dashboard: refunds by state and over time, and what happened to an account's events.

Every query is bounded, because pages reload with each event. Redis counts the totals, and only part of the stream is
read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from receiver.errors import Malformed
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Revision
from receiver.ledger.timestamps import parse_time
from receiver.outbox.retries import DeliveryAttempts
from receiver.store.deliveries.dead_letters import DeadLetters
from receiver.store.redis.base import AccountRepository, Connection
from receiver.store.redis.damage import WrongType
from receiver.store.redis.keys import STATES, Keys
from receiver.store.redis.stream_ids import parts_of, texts_of, written_at

PAGE, MOST_READ = 500, 5_000
"""Entries of the stream to read at once, and at most, when looking for contradictions."""
BEFORE, AFTER = 2_000, 5_000
"""ms before and after a revision in which its events were written: Redis assigns the stream id later than we take the
time."""
MOST_REVISIONS = 10
MOST_NEAR = 500
"""Entries to read around one revision."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Refunds by state: in all, and how many last changed in each requested time span."""

    totals: Mapping[str, int]
    spans: Sequence[Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Contradictions:
    """Refunds with a conflict event after a stream id, and the id to continue from."""

    last: str
    refund_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class QueueState:
    """The state of a subscriber's delivery queue. Times are ms; 0 means none."""

    waiting: int
    dead: int
    oldest_at: int = 0
    """When the oldest waiting event was written."""
    next_at: int = 0
    """When the next event is due."""
    attempts: DeliveryAttempts = field(default_factory=DeliveryAttempts)
    """Delivery attempts for the oldest event."""


@dataclass(frozen=True, slots=True)
class AlertingProblem:
    """Why a subscriber receives no events, or has missed some."""

    subscriber: str
    paused: bool = False
    failing: bool = False
    """It failed so often in a row that messages are sent one at a time."""
    dead: int = 0
    """Events that failed permanently."""
    unreadable: bool = False
    """Its record is damaged."""


@dataclass(frozen=True, slots=True)
class RefundEvent:
    """An event of one refund. `waiting` maps each subscriber whose queue still holds the event to when it is due, and
    to the attempts so far."""

    stream_id: str
    fields: Mapping[str, str]
    waiting: Mapping[str, tuple[int, DeliveryAttempts]]

    @property
    def at(self) -> int:
        """ms: the time of its revision. If the event is damaged, when it was written."""
        try:
            return parse_time(self.fields.get("time"))
        except Malformed:
            return written_at(self.stream_id)


class Overview(AccountRepository):
    """Read-only queries for people."""

    def __init__(self, connection: Connection, keys: Keys, deliveries: DeadLetters) -> None:
        super().__init__(connection, keys)
        self._deliveries = deliveries

    async def counted(self, edges: Sequence[int]) -> Counted:
        """How many refunds are in each of `STATES`, and how many last changed between each pair of adjacent edges
        (ms)."""
        spans = [(state, low, high) for state in STATES for low, high in pairwise(edges)]
        totals, counts = await asyncio.gather(
            asyncio.gather(*(self._read("ZCARD", self.keys.state(state)) for state in STATES)),
            asyncio.gather(
                *(self._read("ZCOUNT", self.keys.state(state), low, f"({high}") for state, low, high in spans)
            ),
        )
        found: list[dict[str, int]] = [{} for _ in edges[1:]]
        for (state, low, _), count in zip(spans, counts, strict=True):
            found[edges.index(low)][state] = int(count)
        return Counted(dict(zip(STATES, map(int, totals), strict=True)), found)

    async def pending_longest(self, limit: int) -> list[str]:
        """The pending refunds that changed least recently, oldest first."""
        indexes = (self.keys.state("RefundInitiated"), self.keys.state(""))
        found = await asyncio.gather(*(self._read("ZRANGE", key, 0, limit - 1, "WITHSCORES") for key in indexes))
        each_scored = (self._scored(key, each) for key, each in zip(indexes, found, strict=True))
        pairs = sorted((at, member) for each in each_scored for member, at in each)
        return [refund_id for _, refund_id in pairs[:limit]]

    async def contradictions(self, after: str) -> Contradictions:
        """Refunds with a `conflict` event after this stream id; an empty id searches the last `MOST_READ` entries."""
        found: list[str] = []
        last, end = "", "+"
        low = f"({after}" if after else "-"
        for _ in range(0, MOST_READ, PAGE):
            entries = await self._read("XREVRANGE", self.keys("events"), end, low, "COUNT", PAGE)
            for stream_id, raw in entries:
                fields = texts_of(raw)
                last = last or stream_id.decode()
                if fields.get("type") == EventType.CONFLICT:
                    found.append(fields.get("refundId", ""))
            if len(entries) < PAGE:
                break
            end = f"({entries[-1][0].decode()}"
        return Contradictions(last or after, list(dict.fromkeys(found)))

    async def queue_state(self, name: str) -> QueueState:
        """The state of this subscriber's delivery queue."""
        waiting, dead, top, oldest = await asyncio.gather(
            self._read("ZCARD", self.keys("lane", name)),
            self._read("HLEN", self.keys("dead", name)),
            self._read("ZRANGE", self.keys("lane", name), 0, 0, "WITHSCORES"),
            self._deliveries.oldest_owed(name),
        )
        if not oldest:
            return QueueState(int(waiting), int(dead))
        stored = await self._read("HGET", self.keys("attempts", name), oldest)
        next_at = max((at for _, at in self._scored(self.keys("lane", name), top)), default=0)
        tried = self._deliveries.read_attempts(self.keys("attempts", name), oldest, stored)
        return QueueState(int(waiting), int(dead), written_at(oldest), next_at, tried)

    async def refund_events(
        self, refund_id: str, history: Sequence[Revision], names: Sequence[str]
    ) -> list[RefundEvent]:
        """A refund's events that are still in the stream, oldest first, and where they wait in these subscribers'
        queues.

        Searches around the latest revisions, at most `MOST_NEAR` entries each.
        """
        near = [(revision.at - BEFORE, revision.at + AFTER) for revision in history[-MOST_REVISIONS:]]
        key = self.keys("events")
        pages = await asyncio.gather(
            *(self._read("XRANGE", key, max(low, 0), high, "COUNT", MOST_NEAR) for low, high in near)
        )
        entries = {stream_id.decode(): texts_of(raw) for page in pages for stream_id, raw in page}
        own = {each: fields for each, fields in entries.items() if fields.get("refundId") == refund_id}
        found = [RefundEvent(each, fields, await self._waits(each, names)) for each, fields in own.items()]
        return sorted(found, key=lambda each: parts_of(each.stream_id))

    async def _waits(self, stream_id: str, names: Sequence[str]) -> dict[str, tuple[int, DeliveryAttempts]]:
        found = await asyncio.gather(*(self._wait_of(stream_id, name) for name in names))
        return {name: waits for name, waits in zip(names, found, strict=True) if waits is not None}

    async def _wait_of(self, stream_id: str, name: str) -> tuple[int, DeliveryAttempts] | None:
        """When the event is due for this subscriber, and the attempts so far; None if the event is not in its queue."""
        queue, attempts = (self.keys(kind, name) for kind in ("lane", "attempts"))
        try:
            score, stored = await asyncio.gather(
                self._read("ZSCORE", queue, stream_id), self._read("HGET", attempts, stream_id)
            )
        except WrongType:
            return None
        if score is None:
            return None
        return self._millis(queue, stream_id, score), self._deliveries.read_attempts(attempts, stream_id, stored)

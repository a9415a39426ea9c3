"""Edge: Redis. Waiting and dead events of a subscriber, in pages, and redriving them.

dead:<sub>      stream id → the event with the reason, the attempts and the last answer
deaths:<sub>    the same ids in stream order, to read them in pages and to find the oldest
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from receiver.ledger.audit import AuditEntry
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.retries import DeliveryAttempts
from receiver.store.deliveries.queues import Copy, DeliveryQueues
from receiver.store.redis.base import LAST_TIME, Args, scored
from receiver.store.redis.stream_ids import fixed_width, plain_id, texts_of, written_at

BATCH = 200
"""Events that one run of the script moves."""
LAST_SEQ = 2**64 - 1
STREAM_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,20}")
MOST_DAMAGED = 100
"""Members of `owed` to look at before giving up on finding the oldest valid event."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that is still owed. `at` (ms): when it is sent next, or when the lease of its delivery ends."""

    stream_id: str
    at: int
    attempts: DeliveryAttempts
    fields: dict[str, str]


class Redriven(NamedTuple):
    """How many events will be sent again, and how many will not."""

    dead: int = 0
    """Dead letters."""
    again: int = 0
    """Events that had been delivered, or were never owed."""
    waiting: int = 0
    """Events that were already waiting: unchanged."""
    missing: int = 0
    """Events that no longer exist."""

    def plus(self, other: Sequence[int]) -> Redriven:
        return Redriven(*(one + two for one, two in zip(self, other, strict=True)))


class DeadLetters(DeliveryQueues):
    """Waiting and dead events of a subscriber."""

    async def dead_events(self, name: str) -> list[DeadEvent]:
        """All dead events of this subscriber, oldest first."""
        key = self.keys("dead", name)
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        ids = [each for each in self._texts(key, raw) if STREAM_ID.fullmatch(each)]
        found = [self._dead(key, each, raw[each.encode()]) for each in ids]
        return sorted(found, key=lambda dead: fixed_width(dead.stream_id))

    async def dead_page(
        self, name: str, *, before: str = "", since: int = 0, until: int = 0, limit: int = 50
    ) -> list[DeadEvent]:
        """Dead events written from `since` to `until` (ms, 0: no bound) and before the id `before`, newest first."""
        top = f"({fixed_width(before)}" if before else f"[{fixed_width(f'{until}-{LAST_SEQ}')}" if until else "+"
        low = f"[{fixed_width(f'{since}-0')}" if since else "-"
        ids = await self._read("ZRANGE", self.keys("deaths", name), top, low, "BYLEX", "REV", "LIMIT", 0, limit)
        return await self.dead_of(name, self.plain_ids(self.keys("deaths", name), ids))

    async def dead_of(self, name: str, stream_ids: Sequence[str]) -> list[DeadEvent]:
        """Those of these events that are dead for this subscriber."""
        if not stream_ids:
            return []
        key = self.keys("dead", name)
        raw = await self._read("HMGET", key, *stream_ids)
        return [self._dead(key, each, value) for each, value in zip(stream_ids, raw, strict=True) if value]

    async def waiting_page(self, name: str, *, after: tuple[int, str] | None = None, limit: int = 50) -> list[Waiting]:
        """Owed events by the time of the next attempt, after the last one of the previous page."""
        least, offset = after[0] if after else "-inf", 0
        found: list[tuple[int, str]] = []
        while len(found) < limit:
            flat = await self._read(
                "ZRANGE", self.keys("lane", name), least, "+inf", "BYSCORE", "LIMIT", offset, limit, "WITHSCORES"
            )
            pairs = [(at, each) for each, at in self._scored(self.keys("lane", name), flat) if self._is_id(name, each)]
            found += [pair for pair in pairs if after is None or pair > after]
            offset += limit
            if len(scored(flat)) < limit:
                break
        return await asyncio.gather(*(self.waiting(name, at, each) for at, each in found[:limit]))

    async def waiting(self, name: str, at: int, stream_id: str) -> Waiting:
        stored, copy, entry = await asyncio.gather(
            self._read("HGET", self.keys("attempts", name), stream_id),
            self._read("HGET", self.keys("copies", name), stream_id),
            self._read("XRANGE", self.keys("events"), stream_id, stream_id),
        )
        fields = (
            texts_of(entry[0][1])
            if entry and entry[0][1]
            else self.read_copy(self.keys("copies", name), stream_id, copy)
        )
        return Waiting(stream_id, at, self.read_attempts(self.keys("attempts", name), stream_id, stored), fields)

    async def queue_sizes(self, name: str) -> tuple[int, int, int]:
        """How many events wait, how many are dead, and when (ms) the oldest waiting event was written; 0: none.

        Redriven events do not count towards the age.
        """
        waiting, dead, oldest = await asyncio.gather(
            self._read("ZCARD", self.keys("lane", name)),
            self._read("HLEN", self.keys("dead", name)),
            self.oldest_owed(name),
        )
        return int(waiting), int(dead), written_at(oldest) if oldest else 0

    async def oldest_owed(self, name: str) -> str:
        """The oldest event that the subscriber is owed; empty if there is none."""
        key = self.keys("owed", name)
        return next(iter(self.plain_ids(key, await self._read("ZRANGE", key, 0, MOST_DAMAGED))), "")

    def plain_ids(self, key: str, fixed: Sequence[bytes]) -> list[str]:
        """The stream ids of members of `owed` or `deaths`; invalid members are reported and left out."""
        found = [(each, plain_id(each)) for each in fixed]
        for each, plain in found:
            if not plain:
                self.damage.record(key, each, "not an event id")
        return [plain for _, plain in found if plain]

    def _is_id(self, name: str, member: str) -> bool:
        if STREAM_ID.fullmatch(member):
            return True
        self.damage.record(self.keys("lane", name), member, "not an event id")
        return False

    def _dead(self, key: str, stream_id: str, value: bytes) -> DeadEvent:
        """A dead event. If the record is damaged: only its known fields, with the reason `unreadable`."""
        dead = self._part(key, stream_id, "not a dead event", msgspec.json.decode, value, type=DeadEvent)
        if dead is None:
            text = "The record of this dead event is damaged."
            at = min(written_at(stream_id), LAST_TIME)
            return DeadEvent(stream_id, "", "", "", "unreadable", at, 0, text)
        return msgspec.structs.replace(dead, stream_id=stream_id, at=min(max(dead.at, 0), LAST_TIME))

    async def redrive(self, name: str, stream_ids: Sequence[str], audit: AuditEntry | None = None) -> Redriven:
        """Send these events again: dead ones, and others that are still in the stream. Their attempts start from zero.

        They are sent at the subscriber's rate, with the same ids as before. `audit` is written with the first of them.
        """
        total = Redriven()
        for start in range(0, len(stream_ids), BATCH):
            batch = stream_ids[start : start + BATCH]
            pairs = [text for each in batch for text in (each, fixed_width(each))]
            args: Args = [self.now(), name, *pairs]
            once = None if total.dead + total.again else audit
            total = total.plus(await self._script("redrive", args, audit=once, name=name))
            self._written()
        return total

    async def known(self, name: str, stream_ids: Sequence[str]) -> list[str]:
        """Those of the ids that are dead, waiting, or in the stream."""
        queue, dead, events = self.keys("lane", name), self.keys("dead", name), self.keys("events")
        found = await asyncio.gather(
            *(self._read("HEXISTS", dead, each) for each in stream_ids),
            *(self._read("ZSCORE", queue, each) for each in stream_ids),
            *(self._read("XRANGE", events, each, each) for each in stream_ids),
        )
        count = len(stream_ids)
        dead_ones, waiting, kept = found[:count], found[count : 2 * count], found[2 * count :]
        rows = zip(stream_ids, dead_ones, waiting, kept, strict=True)
        return [each for each, is_dead, at, entry in rows if is_dead or at is not None or entry]

    async def enqueue_test(
        self, name: str, stream_id: str, fields: dict[str, str], audit: AuditEntry | None = None
    ) -> bool:
        """Put a test at the head of the queue; False if there is no such subscriber. `audit` is written with it."""
        copy = msgspec.json.encode(Copy(fields))
        held = await self._script("enqueue_test", [name, stream_id, copy], audit=audit, name=name)
        self._written()
        return bool(held)

    async def test_result(self, stream_id: str) -> bytes:
        """The result of a test; empty until there is one."""
        return await self._read("GET", self.keys("tested", stream_id)) or b""

    async def stream_page(self, after: str, limit: int = 500) -> list[tuple[str, dict[str, str]]]:
        """Entries of the stream after this id, oldest first."""
        entries = await self._read("XRANGE", self.keys("events"), f"({after}", "+", "COUNT", limit)
        return [(stream_id.decode(), texts_of(fields)) for stream_id, fields in entries if fields]

"""Edge: Redis. Maintains the stream of events: backfill, expiry, trimming, and publishing operator events.

backfill        subscriber → `cursor last`: the matching events after `cursor`, up to `last`, are still to be owed to it
told            operator events that were queued together with their cause and are not in the stream yet
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec
import structlog

from receiver.errors import Malformed
from receiver.outbox.events.kinds import OPERATOR, is_newer, read_event
from receiver.outbox.events.operator_event import OperatorEvent, is_operator
from receiver.outbox.formats.registry import wants
from receiver.outbox.retries import ClaimedDelivery
from receiver.outbox.subscribers.fields import ALL
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.store.deliveries.dead_letters import DeadLetters
from receiver.store.deliveries.subscribers import SubscriberRepository
from receiver.store.redis.base import LAST_TIME, Args, Connection
from receiver.store.redis.keys import Keys
from receiver.store.redis.stream_ids import fixed_width, plain_id

log = structlog.get_logger()

BACKFILL_BATCH = 200
EXPIRY_BATCH = 100
JOB = re.compile(rb"([0-9]{1,15}-[0-9]{1,20}) ([0-9]{1,15}-[0-9]{1,20})")
NO_END = -1
"""The reply of `PTTL` for a key that never expires."""
MOST_PUBLISHED = 1_000
"""Operator events that one call publishes."""
MAINTENANCE_LEASE = 60_000
"""ms for which a process that maintains an account keeps other processes from doing so."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """A subscriber's unfinished backfill: events after `cursor`, up to `last`."""

    name: str
    cursor: str
    last: str


class StreamRetention(DeadLetters):
    """Maintenance of one account's stream. Every step may be interrupted and repeated."""

    def __init__(self, connection: Connection, keys: Keys, subscribers: SubscriberRepository) -> None:
        super().__init__(connection, keys)
        self._subscribers = subscribers

    async def take_maintenance_lease(self, every: int) -> bool:
        """Take the lease for maintenance; False if another process has taken it within `every` ms."""
        key = self.keys("upkeep")
        # With GET, a key of the wrong type is refused instead of replaced.
        if await self._write("SET", key, 1, "NX", "GET", "PX", max(every, 1)) is None:
            return True
        if await self._read("PTTL", key) == NO_END:
            self.damage.record(key, what="it never expires")
            await self._write("PEXPIRE", key, max(every, 1))
        return False

    async def backfills(self) -> list[Backfill]:
        key = self.keys("backfill")
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        jobs = []
        for name, value in raw.items():
            found = JOB.fullmatch(value)
            if found and (names := self._texts(key, [name])):
                jobs.append(Backfill(names[0], found[1].decode(), found[2].decode()))
            else:
                await self.set_aside(key, name, "not a backfill; set aside")
        return jobs

    async def backfill(self, job: Backfill, subscriber: Subscriber) -> bool:
        """Owe the next batch and advance the cursor; False if the backfill is complete or another process advanced it.

        Both happen in one step, so that a crash can neither owe an event twice nor skip one.
        """
        entries = [
            entry
            for entry in await self.stream_page(job.cursor, BACKFILL_BATCH)
            if fixed_width(entry[0]) <= fixed_width(job.last)
        ]
        done = len(entries) < BACKFILL_BATCH
        wanted = [stream_id for stream_id, fields in entries if _wanted(self.account, subscriber, fields)]
        moved = await self._script(
            "backfill",
            [
                job.name,
                await self._subscribers.stored(subscriber),
                f"{job.cursor} {job.last}",
                "" if done else f"{entries[-1][0]} {job.last}",
                self.now(),
                *(text for each in wanted for text in (each, fixed_width(each))),
            ],
            repeatable=False,
            name=job.name,
        )
        self._written()
        return bool(moved) and not done

    async def overdue(self, name: str, before: int, lease: int) -> list[ClaimedDelivery]:
        """Events of the queue written before this time (ms), oldest first, except those that may be in flight.

        The score of each event serves as the token of a claim: if another worker claims it meanwhile, finishing fails.
        """
        top = f"({fixed_width(f'{max(before, 0)}-0')}"
        ids = await self._read("ZRANGE", self.keys("owed", name), "-", top, "BYLEX", "LIMIT", 0, EXPIRY_BATCH)
        if bad := [each for each in ids if not plain_id(each)]:
            for each in bad:
                await self.set_aside(self.keys("owed", name), each, "not an event id; set aside")
            return await self.overdue(name, before, lease)
        found = []
        for stream_id in self.plain_ids(self.keys("owed", name), ids):
            score = await self._read("ZSCORE", self.keys("lane", name), stream_id)
            at = int(float(score)) if score is not None and abs(float(score)) < LAST_TIME else 0
            if self.now() < at <= self.now() + lease:
                continue
            waiting = await self.waiting(name, at, stream_id)
            found.append(ClaimedDelivery(self.account, name, stream_id, at, waiting.attempts, waiting.fields))
        return found

    async def trim(self, before: int) -> int:
        """Remove entries older than this (ms) that no subscriber is owed. Returns how many were removed."""
        while True:
            subscriber_list = await self._subscribers.read()
            pairs = ((self.keys("owed", name), self.keys("aside", "owed", name)) for name in subscriber_list.names)
            args: Args = [subscriber_list.version, fixed_width(f"{max(before, 0)}-0")]
            gone = await self._script("trim", args, more=[key for pair in pairs for key in pair])
            if gone >= 0:
                return int(gone)

    async def publish_operator_events(self) -> list[OperatorEvent]:
        """Move the queued operator events into the stream, owed to the subscribers that want them. Returns those moved
        here.

        Unreadable events are set aside, and events of a later version are left to that version, so that neither blocks
        the rest.
        """
        published = []
        for waits in await self._read("LRANGE", self.keys("told"), 0, MOST_PUBLISHED):
            try:
                fields = msgspec.json.decode(waits, type=dict[str, str])
                if is_newer(fields):
                    continue
                event = OPERATOR.read(self.account, fields)
            except (msgspec.MsgspecError, Malformed, RecursionError):
                await self.set_aside(self.keys("told"), waits, "not an operator event; set aside")
                continue
            written = await self._publish(event, waits, fields)
            if written:
                published.append(event)
        if published:
            self._written()
        return published

    async def _publish(self, event: OperatorEvent, waits: bytes, fields: dict[str, str]) -> bool:
        """Move one event; False if another process has moved it."""
        while True:
            subscriber_list = await self._subscribers.read()
            asking = [name for name, each in subscriber_list.subscribers.items() if wants(each, event)]
            owed = [self.keys(kind, name) for name in asking for kind in ("lane", "owed")]
            written = await self._script(
                "publish_operator_event",
                [subscriber_list.version, waits, self.now(), *(text for pair in fields.items() for text in pair)],
                more=owed,
                repeatable=False,
                without=("lane", "owed"),
            )
            if written >= 0:
                return bool(written)


def _wanted(account: str, subscriber: Subscriber, fields: dict[str, str]) -> bool:
    """Whether the subscriber would have been owed this event. Operator events are not backfilled."""
    if is_newer(fields):
        # Written by a later version: only subscribers to all events want it.
        return ALL in subscriber.types and not is_operator(fields)
    try:
        return not is_operator(fields) and wants(subscriber, read_event(account, fields))
    except Malformed:
        return False

"""Edge: Redis. Reads the contents of any key, record by record, and reports damage to `damage`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from receiver.ledger.refund import REFUND_ID, How, Source
from receiver.outbox.events.kinds import is_newer, read_event
from receiver.store.account import AccountStore
from receiver.store.deliveries.dead_letters import STREAM_ID
from receiver.store.deliveries.queues import FARTHEST
from receiver.store.deliveries.upkeep import JOB
from receiver.store.maintenance.restored import GAP
from receiver.store.redis.base import AccountRepository
from receiver.store.redis.keys import Name
from receiver.store.refunds.codec import CASE, FLAGS, MOST_NUMBER, NUMBERS, TEXTS, case_fields

BATCH = 500
LONGEST_BLOCK = 3_600_000
"""ms; `store/redis/helpers.lua` ignores a longer pause in a throttle."""
REFUNDS = frozenset({"state", "reason", "order", "due", "hinted", "refreshed", "second_looks", "open", "rejected"})
"""Sorted sets whose members are refunds."""
SCHEDULES = frozenset({"due", "second_looks", "lane", "issuing", "fps_issuing", "disputes_due", "jobs"})


class Records(AccountRepository):
    """Reads records only to see whether they are readable."""

    def __init__(self, store: AccountStore) -> None:
        super().__init__(store.connection, store.keys)
        self._all = store

    async def read_record(self, key: str, name: Name) -> None:
        """Read a key of the right type. Raises `RecordUnreadable` if the whole key is one record."""
        readers: Mapping[str, Callable[[str], Awaitable[Any]]] = MappingProxyType(
            {
                "refund": self._all.refunds.get,
                "history": self._all.refunds.history,
                "trail": self._all.timelines.read,
                "charge": self._all.requests.charge_entries,
                "taken": self._all.requests.refund_owner,
                "disputes": self._all.disputes.of_permission,
                "requests": self._all.requests.get,
                "fps": self._all.fps.get,
                "job": self._all.jobs.get,
                "job_todo": self._all.jobs.todo,
                "job_outcomes": self._all.jobs.outcomes,
                "health": self._all.deliveries.health,
                "dead": self._all.deliveries.dead_events,
                "open:details": lambda _: self._all.cases.all(),
            }
        )
        if name.kind in readers:
            await readers[name.kind](name.of)
        elif name.entry.type == "zset" and name.kind != "unrecognized":
            await self._read_members(key, name)
        elif name.kind in ("hints", "attempts", "copies", "unrecognized:details", "closes"):
            await self._read_fields(key, name)
        elif name.kind == "throttle":
            await self._read_throttle(key)
        elif name.kind == "subscribers":
            await self._all.subscribers.read()
        elif name.kind == "backfill":
            raw: dict[bytes, bytes] = await self._read("HGETALL", key)
            for job in (job for job, value in raw.items() if not JOB.fullmatch(value)):
                self.damage.record(key, job, "not a backfill")
        elif name.kind == "audit":
            await self._all.audit.check()
        elif name.kind in ("events", "told"):
            await self._read_events(key, name)

    async def _read_members(self, key: str, name: Name) -> None:
        never = self.now() + FARTHEST
        async for found in self._scan(key):
            if name.kind in ("owed", "deaths"):
                self._all.deliveries.plain_ids(key, [member for member, _ in found])
                continue
            for member, at in self._scored(key, found):
                if name.kind in REFUNDS and not REFUND_ID.fullmatch(member):
                    self.damage.record(key, member, "not a refund id")
                elif name.kind == "lane" and not STREAM_ID.fullmatch(member):
                    self.damage.record(key, member, "not an event id")
                elif name.kind in SCHEDULES and at > never:
                    self.damage.record(key, member, "scheduled too far ahead")

    async def _read_fields(self, key: str, name: Name) -> None:
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        for field, value in raw.items():
            text = field.decode(errors="surrogateescape")
            if name.kind == "hints":
                self._all.schedule.read_follow_up(key, text, value)
            elif name.kind == "attempts":
                self._all.deliveries.read_attempts(key, text, value)
            elif name.kind == "copies":
                self._all.deliveries.read_copy(key, text, value)
            elif name.kind == "closes":
                if not (REFUND_ID.fullmatch(text) and REFUND_ID.fullmatch(value.decode(errors="replace"))):
                    self.damage.record(key, field, "not a refund and the one that it closes")
            else:
                self._all.notifications.read_details(key, text, value)

    async def _read_throttle(self, key: str) -> None:
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        for field, value in raw.items():
            try:
                number = float(value)
            except ValueError:
                number = float("nan")
            # If a clock was ahead and was set back, `at` is ahead by as much.
            at = raw.get(b"at", b"0")
            last = max(int(at) if at.isdigit() else 0, self.now()) + LONGEST_BLOCK
            if not 0 <= number <= (last if field == b"blocked" else MOST_NUMBER):
                self.damage.record(key, field, "out of bounds")

    async def _read_events(self, key: str, name: Name) -> None:
        if name.kind == "told":
            for place, value in enumerate(await self._read("LRANGE", key, 0, -1)):
                self._part(key, str(place), "not an operator event", self._judge_stored, value)
            return
        after = "0-0"
        while entries := await self._all.deliveries.stream_page(after, BATCH):
            for after, fields in entries:
                self._part(key, after, "not an event", self._judge_event, fields)

    def _judge_stored(self, value: bytes) -> None:
        self._judge_event(msgspec.json.decode(value, type=dict[str, str]))

    def _judge_event(self, fields: dict[str, str]) -> None:
        if not is_newer(fields):
            read_event(self.account, fields)

    async def restore_refund(self, refund_id: str, kept: str) -> None:
        """After a refund's record was set aside, write the readable part of it, and make the refund due.

        Its case is that of the last revision: a refund whose case was closed must not be reissued. Its revision
        continues above any that subscribers have seen; otherwise they would take new events for old ones.
        """
        raw: dict[bytes, bytes] = {}
        if await self._read("TYPE", kept) in (b"hash", "hash"):
            raw = await self._read("HGETALL", kept)
        history = await self._all.refunds.history(refund_id)
        fields = _readable(raw)
        revision = max([int(fields.get("revision", "0")), *(each.revision for each in history)])
        if revision:
            now = str(self.now())
            last = history[-1].state if history else ""
            fields = {"seen": now, "changed": now, "by": Source.POLL.value, "state": last, **fields}
            if history and history[-1].resolution is not None:
                fields |= case_fields(history[-1].resolution)
            fields["revision"] = str(revision + GAP)
            flat = [text for pair in fields.items() if pair[1] for text in pair]
            await self._write("HSET", self.keys("refund", refund_id), *flat)
            await self._write("ZADD", self.keys.state(fields["state"]), fields["changed"], refund_id)
        await self._write("ZADD", self.keys("due"), self.now(), refund_id)
        self._written()


def _readable(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    """The fields of a refund's damaged hash that are readable on their own."""
    texts = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in raw.items()}
    found = {name: text for name, text in texts.items() if _is_right(name, text)}
    if "case_how" in texts:
        # A case that was closed in an unreadable way is still closed.
        found = {"case_at": "1", "case_how": How.NOT_TRACKED.value, **found}
    return found


def _is_right(name: str, text: str) -> bool:
    if name in NUMBERS or name == "case_at":
        return text.isascii() and text.isdigit() and int(text[:20]) < MOST_NUMBER
    if name in ("by", "case_how"):
        return text in (set(Source) if name == "by" else set(How))
    return "\ufffd" not in text and (
        name in TEXTS or name in FLAGS or name in CASE or name in ("finals", "emitted", "case_paid")
    )

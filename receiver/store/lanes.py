"""Edge: Redis. Subscribers, and what each is owed: one lane per subscriber, dead events beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from receiver.errors import Conflict, Unreadable
from receiver.outbox.delivery import Attempts
from receiver.outbox.subscriber import Subscriber, decode, encode
from receiver.store.part import Part, scored

log = structlog.get_logger()

VERSION = b":version"


@dataclass(frozen=True, slots=True)
class Roster:
    """The subscribers of an account at one version of the list."""

    version: int
    """0: nobody has written the list yet, or the store was emptied."""
    subscribers: Mapping[str, Subscriber]
    unreadable: Sequence[str] = ()
    """Subscribers whose record is damaged: they are owed everything until somebody mends them."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A claimed delivery. `fields` is the event's stream entry; empty if the stream no longer has it."""

    account: str
    subscriber: str
    stream_id: str
    token: int
    attempts: Attempts
    fields: Mapping[str, str]


class DeadEvent(msgspec.Struct, frozen=True, rename="camel"):
    """An event that was given up, with a copy of its body, since the stream may be trimmed."""

    stream_id: str
    event_id: str
    type: str
    refund_id: str
    reason: str
    """Why: exhausted, expired, aborted, lost."""
    at: int
    attempts: int
    last_error: str
    body: str
    excerpt: str = ""
    """The beginning of the last answer's body."""


class Lanes(Part):
    """Deliveries of one account, by subscriber."""

    async def roster(self, account: str) -> Roster:
        """The subscribers, with the version that `commit` wants."""
        raw: dict[bytes, bytes] = await self._read("HGETALL", self._keys(account)("subscribers"))
        found, unreadable = {}, []
        for name, value in raw.items():
            if name == VERSION:
                continue
            try:
                found[name.decode()] = decode(value)
            except Unreadable:
                unreadable.append(name.decode(errors="replace"))
                log.error("store.subscriber_unreadable", account=account, subscriber=unreadable[-1])
        return Roster(int(raw.get(VERSION, b"0")), found, unreadable)

    async def open_roster(self, account: str) -> bool:
        """Mark the list of subscribers as written, if it is not; True if it was not."""
        command = ("HSETNX", self._keys(account)("subscribers"), VERSION, 1)
        return bool(await self._writes.call(command))

    async def subscribers(self, account: str) -> list[Subscriber]:
        """The subscribers by name."""
        roster = await self.roster(account)
        return [roster.subscribers[name] for name in sorted(roster.subscribers)]

    async def add_subscriber(self, account: str, subscriber: Subscriber) -> str:
        """Add one. Returns the stream id of the last event that it does not get.

        Raises `Conflict` if the name is taken.
        """
        answer = await self._subscribe(account, subscriber, "add")
        if answer[0] == b"exists":
            raise Conflict(f"There is already a subscriber {subscriber.name!r}.", reason="subscriber_exists")
        return str(answer[1].decode())

    async def change_subscriber(self, account: str, before: Subscriber, after: Subscriber) -> bool:
        """Replace `before` by `after`; False if somebody changed or removed it meanwhile."""
        answer = await self._subscribe(account, after, "change", encode(before))
        return bool(answer[0] == b"ok")

    async def put_subscriber(self, account: str, subscriber: Subscriber) -> None:
        """Add or replace, as a configuration file does."""
        await self._subscribe(account, subscriber, "put")

    async def _subscribe(self, account: str, subscriber: Subscriber, mode: str, before: bytes = b"") -> Any:
        keys = self._keys(account)
        args: list[str | int | bytes] = [subscriber.name, encode(subscriber), mode, before]
        answer = await self._run("subscribe", [keys("subscribers"), keys("events")], args)
        self._written(account)
        return answer

    async def remove_subscriber(self, account: str, name: str) -> bool:
        """Remove one with everything that it was owed; False if there is none."""
        keys = self._keys(account)
        parts = [keys(kind, name) for kind in ("lane", "owed", "attempts", "dead")]
        removed = await self._run("unsubscribe", [keys("subscribers"), *parts], [name])
        self._written(account)
        return bool(removed)

    async def lane_waits(self, account: str, names: list[str]) -> dict[str, int]:
        """In how many ms each lane has something to send; a lane that owes nothing is left out."""
        keys = self._keys(account)
        tops = await asyncio.gather(*(self._read("ZRANGE", keys("lane", n), 0, 0, "WITHSCORES") for n in names))
        now = self.now()
        scores = {name: scored(top)[0][1] for name, top in zip(names, tops, strict=True) if top}
        return {name: max(int(float(score)) - now, 0) for name, score in scores.items()}

    async def claim_lane(self, account: str, name: str, *, lease: int, limit: int) -> list[Parcel]:
        """Take at most `limit` events that are due for this subscriber, for `lease` ms."""
        keys = self._keys(account)
        _, *claimed = await self._run(
            "claim_lane",
            [keys("lane", name), keys("events"), keys("attempts", name), keys("subscribers")],
            [self.now(), lease, limit, name],
            repeatable=False,
        )
        return [
            Parcel(
                account,
                name,
                stream_id.decode(),
                int(token),
                _attempts(attempts),
                _texts(flat),
            )
            for stream_id, token, attempts, flat in claimed
        ]

    async def delivered(self, parcel: Parcel) -> bool:
        """The subscriber has it."""
        return await self._settle(parcel, "delivered")

    async def retry(self, parcel: Parcel, at: int, attempts: Attempts) -> bool:
        """Try again at `at` (ms)."""
        return await self._settle(parcel, "retry", at, msgspec.json.encode(attempts))

    async def dead(self, parcel: Parcel, entry: DeadEvent) -> bool:
        """Given up; kept beside the lane."""
        return await self._settle(parcel, "dead", "", b"", msgspec.json.encode(entry))

    async def _settle(
        self, parcel: Parcel, outcome: str, at: int | str = "", attempts: bytes = b"", dead: bytes = b""
    ) -> bool:
        """False if the claim is no longer ours: then nothing is written."""
        keys = self._keys(parcel.account)
        held = await self._run(
            "settle_delivery",
            [keys(kind, parcel.subscriber) for kind in ("lane", "owed", "attempts", "dead")],
            [parcel.stream_id, fixed_width(parcel.stream_id), parcel.token, outcome, at, attempts, dead],
        )
        return bool(held)

    async def dead_events(self, account: str, name: str) -> list[DeadEvent]:
        """What was given up for this subscriber, oldest first."""
        raw: list[bytes] = await self._read("HVALS", self._keys(account)("dead", name))
        found = [msgspec.json.decode(value, type=DeadEvent) for value in raw]
        return sorted(found, key=lambda dead: fixed_width(dead.stream_id))


def _attempts(stored: bytes) -> Attempts:
    """What was tried so far. A damaged record costs the schedule its memory, not the subscriber its event."""
    if not stored:
        return Attempts()
    try:
        return msgspec.json.decode(stored, type=Attempts)
    except msgspec.MsgspecError:
        log.error("store.attempts_unreadable")
        return Attempts()


def _texts(flat: list[bytes]) -> dict[str, str]:
    """The fields of a stream entry. Bytes that are no text make it unreadable, and harm no other entry."""
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {field.decode(errors="replace"): value.decode(errors="replace") for field, value in pairs}


def fixed_width(stream_id: str) -> str:
    """A stream id in the form whose byte order is the order of ids; `commit.lua` writes the same."""
    ms, _, seq = stream_id.partition("-")
    return f"{ms:0>15}-{seq:0>20}"

"""Edge: Redis. The list of subscribers, with a version that every commit checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from receiver.errors import Conflict, Malformed
from receiver.ledger.audit import AuditEntry
from receiver.outbox.events.operator_event import OperatorEvent, operator_fields
from receiver.outbox.subscribers.fields import name_problems
from receiver.outbox.subscribers.subscriber import Subscriber, decode, encode
from receiver.store.redis.base import AccountRepository, Args
from receiver.store.redis.keys import SUBSCRIBER_KINDS

VERSION = b":version"
BEGINNING = "0-0"


@dataclass(frozen=True, slots=True)
class SubscriberList:
    """The subscribers of an account, at one version of the list."""

    version: int
    """0: the list has never been written, or the store was emptied."""
    subscribers: Mapping[str, Subscriber]
    unreadable: Sequence[str] = ()
    """Subscribers with damaged records: they are owed every event until the record is fixed."""

    @property
    def names(self) -> list[str]:
        """All subscribers that are owed events."""
        return [*self.subscribers, *self.unreadable]


class Updated(NamedTuple):
    """A subscriber before and after a change."""

    before: Subscriber
    after: Subscriber

    @property
    def changed(self) -> bool:
        return self.before != self.after


class SubscriberRepository(AccountRepository):
    async def read(self) -> SubscriberList:
        """The subscribers, with the version that `commit` checks."""
        key = self.keys("subscribers")
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        found, unreadable = {}, []
        version = raw.pop(VERSION, b"0")
        if not (version.isdigit() and len(version) < 16):
            await self.set_aside(key, VERSION, "invalid version; the list is rewritten")
            version = b"0"
        for name in self._texts(key, raw):
            if name_problems(name):
                self.damage.record(key, name, "not a valid subscriber name")
                continue
            try:
                found[name] = decode(raw[name.encode()])
            except Malformed:
                unreadable.append(name)
                self.damage.record(key, name, "a subscriber that this version cannot read")
        return SubscriberList(int(version), found, unreadable)

    async def open(self) -> bool:
        """Mark the list of subscribers as written; True if it was not marked before."""
        return bool(await self._write("HSETNX", self.keys("subscribers"), VERSION, 1))

    async def readable(self) -> list[Subscriber]:
        """The readable subscribers, sorted by name."""
        subscriber_list = await self.read()
        return [subscriber_list.subscribers[name] for name in sorted(subscriber_list.subscribers)]

    async def add(
        self,
        subscriber: Subscriber,
        start: int | None = None,
        *,
        most: int | None = None,
        audit: AuditEntry | None = None,
    ) -> str:
        """Add a subscriber. Returns the stream id of the last event written before it was added.

        `start`: the subscriber is owed the matching events since this time (ms; 0: all that are kept). None: only
        future ones. `most`: how many subscribers the account may have, including damaged records; None: any number.
        `audit` is written with it. Raises `Conflict` if the name is taken or the account is full.
        """
        answer = await self._subscribe(subscriber, "add", start=start, most=most, audit=audit)
        if answer[0] == b"exists":
            raise Conflict(f"There is already a subscriber {subscriber.name!r}.", reason="subscriber_exists")
        if answer[0] == b"full":
            raise too_many(most)
        return str(answer[1].decode())

    async def update(
        self,
        name: str,
        change: Callable[[Subscriber, SubscriberList], Subscriber],
        *,
        alone: bool = False,
        operator_events: Sequence[OperatorEvent] = (),
        audit: AuditEntry | None = None,
    ) -> Updated | None:
        """Apply a change to the stored subscriber, and repeat it if another change came first.

        `change` gets the subscriber and its list, and returns the new subscriber; if that is equal, nothing is written.
        `alone`: it is also repeated if any other subscriber of the list was changed meanwhile.
        `operator_events` are queued with the change, and `audit` is written with it. None: there is no such subscriber.
        """
        while True:
            found = await self.read()
            before = found.subscribers.get(name)
            if before is None:
                return None
            updated = Updated(before, change(before, found))
            version = found.version if alone else None
            if not updated.changed or await self.change(
                before, updated.after, version=version, operator_events=operator_events, audit=audit
            ):
                return updated

    async def change(
        self,
        before: Subscriber,
        after: Subscriber,
        *,
        version: int | None = None,
        operator_events: Sequence[OperatorEvent] = (),
        audit: AuditEntry | None = None,
    ) -> bool:
        """Replace `before` by `after` and queue operator events; False if the subscriber was changed or removed
        meanwhile.

        With a `version`, also False if any other subscriber was changed since that version of the list.
        """
        answer = await self._subscribe(
            after, "change", await self.stored(before), version, operator_events=operator_events, audit=audit
        )
        return bool(answer[0] == b"ok")

    async def stored(self, subscriber: Subscriber) -> bytes:
        """The stored record of the subscriber, for comparison in scripts; empty if the stored one differs.

        Equal subscribers may differ in bytes: `10` and `10.0`, or fields that a later version has added.
        """
        raw: bytes | None = await self._read("HGET", self.keys("subscribers"), subscriber.name)
        try:
            return raw if raw and decode(raw) == subscriber else b""
        except Malformed:
            return b""

    async def put(self, subscriber: Subscriber, start: int | None = None) -> None:
        """Add or replace a configured subscriber, without a limit on their number. `start` applies to new ones."""
        await self._subscribe(subscriber, "put", start=start)

    async def _subscribe(
        self,
        subscriber: Subscriber,
        mode: str,
        before: bytes = b"",
        version: int | None = None,
        *,
        start: int | None = None,
        most: int | None = None,
        operator_events: Sequence[OperatorEvent] = (),
        audit: AuditEntry | None = None,
    ) -> Any:
        after = "" if start is None else BEGINNING if start <= 0 else f"{start - 1}-{2**64 - 1}"
        args: Args = [
            subscriber.name,
            encode(subscriber),
            mode,
            before,
            "" if version is None else version,
            after,
            "" if most is None else most,
            *(queued_form(event) for event in operator_events),
        ]
        without = () if mode == "add" else ("told", *SUBSCRIBER_KINDS)
        more = self.keys.of_subscriber(subscriber.name)
        answer = await self._script("subscribe", args, more=more, without=without, audit=audit)
        self._written()
        return answer

    async def remove(self, name: str, audit: AuditEntry | None = None) -> bool:
        """Remove a subscriber with everything that it is owed; False if there is none. `audit` is written with it."""
        removed = await self._script("unsubscribe", [name], more=self.keys.of_subscriber(name), audit=audit)
        self._written()
        return bool(removed)


def too_many(most: int | None) -> Conflict:
    """The account is full: it has `most` subscribers."""
    return Conflict(
        f"The account has as many subscribers as it may have: delivery.max_subscribers is {most}. Remove one that is "
        "no longer needed, or raise that setting.",
        reason="too_many_subscribers",
    )


def queued_form(event: OperatorEvent) -> bytes:
    """An operator event in the form in which it is queued."""
    return msgspec.json.encode(operator_fields(event))

"""Read, decide, commit; repeat on collision. All of Amazon's answers about refunds enter the ledger here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from receiver.amazon.account import Account
from receiver.errors import StoreEmptied, StoreUnavailable
from receiver.ledger.audit import AuditEntry
from receiver.ledger.lifecycle import Change, Details, decide, with_details
from receiver.ledger.polling import next_look, second_look
from receiver.ledger.refund import Observation, Refund, Source
from receiver.ledger.resolution import with_case, with_reissue
from receiver.outbox.events.envelope import AnEvent
from receiver.outbox.events.event import Event, Recorded, event_of
from receiver.outbox.events.kinds import fields_of
from receiver.outbox.formats.registry import wants
from receiver.store import Store
from receiver.store.deliveries.subscribers import SubscriberList
from receiver.store.refunds.refunds import MOST_COLLISIONS, UNGUARDED, CaseGuard, Commit, Committed, Owed
from receiver.track.waves import wave_events


@dataclass(frozen=True, slots=True)
class Recorder:
    """Records observations in the ledger. `random` gives a number in [0, 1) for the jitter of the next poll.

    `declared`: whether the configuration declares subscribers. If so, a store without a subscriber list has been
    emptied, and an event committed before the list is restored would be owed to no subscriber.
    """

    store: Store
    random: Callable[[], float]
    declared: bool = False

    async def record(
        self,
        account: Account,
        seen: Observation,
        *,
        source: Source,
        token: int = 0,
        details: Details = MappingProxyType({}),
        more_details: Callable[[Refund], Awaitable[Details]] | None = None,
        traceparent: str = "",
    ) -> Recorded:
        """Write the changes of an observation. If there are none, nothing is written and the claim is still held.

        `details` come from sources other than Amazon's answer (see `decide`). `more_details` is called once, if there
        are events to send. `token` is the token of the claim, 0 without one. `traceparent` is added to the events.
        Raises `StoreUnavailable`.
        """
        own = {"stuck_after": account.stuck_after, "region": account.endpoint.region.value}
        how: Mapping[str, Any] = {"source": source, **own}
        store, tracked_for = self.store.of(account.name), self.store.connection.tracked_for
        for _ in range(MOST_COLLISIONS):
            known, subscriber_list = await asyncio.gather(store.refunds.get(seen.refund_id), store.subscribers.read())
            now = store.now()
            decided = decide(account.name, known, seen, now=now, details=details, **how)
            change = with_case(decided, now, tracked_for)
            if more_details and change.emissions:
                given = {name: value for name, value in details.items() if value}
                details, more_details = {**await more_details(change.refund), **given}, None
                now = store.now()
                decided = decide(account.name, known, seen, now=now, details=details, **how)
                change = with_case(decided, now, tracked_for)
            changes = await self._with_root(change, now)
            if not changes:
                return Recorded(change)
            # Only a change of the claimed refund finishes a claim.
            looks = not change.is_nothing
            poll = next_look(change.refund, now, account.poll, self.random()) if looks else None
            settled = looks and poll is None
            committed, events = await self.write(
                changes,
                subscriber_list,
                now,
                token=token if looks else 0,
                next_look=poll,
                second_look=second_look(change.refund, now, account.second_looks, self.random()) if settled else None,
                traceparent=traceparent,
            )
            if committed is Committed.OK:
                return Recorded(change, events)
        raise StoreUnavailable("Others kept writing the same refund.", reason="store_collision")

    async def annotate(self, account: str, refund_id: str, details: Details) -> Refund | None:
        """Add details to a known refund, as a revision without an event. Returns the refund; None if it is unknown."""
        store = self.store.of(account)
        for _ in range(MOST_COLLISIONS):
            known = await store.refunds.get(refund_id)
            if known is None:
                return None
            now, refund = store.now(), with_details(known, details)
            if refund is not known:
                refund = msgspec.structs.replace(refund, revision=known.revision + 1, changed_at=now)
            change = with_case(Change(known, refund), now, self.store.connection.tracked_for)
            changes = await self._with_root(change, now)
            if not changes:
                return known
            subscriber_list = await store.subscribers.read()
            committed, _ = await self.write(changes, subscriber_list, now)
            if committed is Committed.OK:
                return change.refund
        raise StoreUnavailable("Others kept writing the same refund.", reason="store_collision")

    async def _with_root(self, change: Change, now: int) -> list[Change]:
        """What has to be written: the change, and the resulting change of the case of the chain of retries."""
        refund, changes = change.refund, [] if change.is_nothing else [change]
        if refund.retry_root and (root := await self.store.of(refund.account).refunds.get(refund.retry_root)):
            of_root = with_reissue(root, refund, now)
            changes += [] if of_root.is_nothing else [of_root]
        return changes

    async def write(
        self,
        changes: Sequence[Change],
        subscriber_list: SubscriberList,
        now: int,
        *,
        token: int = 0,
        next_look: int | None = None,
        second_look: int | None = None,
        traceparent: str = "",
        guard: CaseGuard = UNGUARDED,
        audit: AuditEntry | None = None,
    ) -> tuple[Committed, tuple[Event, ...]]:
        """Commit changes and their events, and `audit`, in one step.

        `next_look` and `second_look` (ms) are of the first change.

        Returns the result and the events. Raises `StoreUnavailable`.
        """
        first, *also = changes
        store = self.store.of(first.refund.account)
        wave = await wave_events(store, changes, now)
        events = tuple(
            event_of(emission, change.refund, now, traceparent, wave.alarm_of(emission.type, change.refund))
            for change in changes
            for emission in change.emissions
        )
        if self.declared and not subscriber_list.version and any(change.emissions for change in changes):
            raise StoreEmptied()
        committed = await store.refunds.commit(
            Commit(
                known=first.known,
                refund=first.refund,
                owed=[owed(event, subscriber_list) for event in (*wave.raised, *events, *wave.over)],
                subscribers_version=subscriber_list.version,
                token=token,
                next_look=next_look,
                second_look=second_look,
                also=also,
                guard=guard,
                wave=wave.write,
                audit=audit,
            )
        )
        if committed is Committed.OK:
            wave.report()
        return committed, events


def owed(event: AnEvent, subscriber_list: SubscriberList) -> Owed:
    """The event in its stored form, and the subscribers to which it is owed."""
    wanting = [name for name, each in subscriber_list.subscribers.items() if wants(each, event)]
    return Owed(fields_of(event), [*wanting, *subscriber_list.unreadable])

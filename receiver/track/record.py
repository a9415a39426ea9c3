"""Read, decide, commit; again on collision. Shared by everything that has seen what Amazon says of a refund."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from receiver.amazon.account import Account
from receiver.errors import StoreUnavailable
from receiver.ledger.lifecycle import Facts, decide, with_details
from receiver.ledger.polling import next_look
from receiver.ledger.refund import Observation, Refund, Source
from receiver.outbox.events.event import Event, Settled, event_of, to_fields
from receiver.outbox.formats.registry import wants
from receiver.store import Store
from receiver.store.deliveries.subscribers import SubscriberList
from receiver.store.refunds.refunds import Commit, Committed, Owed

MOST_COLLISIONS = 16


@dataclass(frozen=True, slots=True)
class Settler:
    """Takes observations in. `random` gives a number in [0, 1) for the jitter of the next look.

    `declared`: whether subscribers are written from a configuration, so that a store without a list of them has been
    emptied: what is committed before they are back would be owed to nobody.
    """

    store: Store
    random: Callable[[], float]
    declared: bool = False

    async def settle(
        self,
        account: Account,
        seen: Observation,
        *,
        source: Source,
        token: int = 0,
        facts: Facts = MappingProxyType({}),
        learn: Callable[[Refund], Awaitable[Facts]] | None = None,
        traceparent: str = "",
    ) -> Settled:
        """Write what the observation changes. A `Change` that is nothing has written nothing: the claim is still held.

        `facts` are what others than Amazon's answer told (see `decide`); `learn` asks for more of them once, when
        there is something to tell subscribers. `token` is that of the claim under which Amazon was asked, 0 without
        one; `traceparent` is told with the events. Raises `StoreUnavailable`.
        """
        own = {"stuck_after": account.stuck_after, "region": account.endpoint.region.value}
        how: Mapping[str, Any] = {"source": source, **own}
        for _ in range(MOST_COLLISIONS):
            known, subscriber_list = await asyncio.gather(
                self.store.refunds.get(account.name, seen.refund_id),
                self.store.subscribers.read(account.name),
            )
            now = self.store.now()
            change = decide(account.name, known, seen, now=now, facts=facts, **how)
            if change.is_nothing:
                return Settled(change)
            if learn and change.emissions:
                told = {name: value for name, value in facts.items() if value}
                facts, learn, now = {**await learn(change.refund), **told}, None, self.store.now()
                change = decide(account.name, known, seen, now=now, facts=facts, **how)
            events = tuple(event_of(emission, change.refund, now, traceparent) for emission in change.emissions)
            if self.declared and not subscriber_list.version:
                raise StoreUnavailable("The subscribers are being written again.", reason="store_emptied")
            committed = await self.store.refunds.commit(
                Commit(
                    known=known,
                    refund=change.refund,
                    owed=[owed(event, subscriber_list) for event in events],
                    subscribers_version=subscriber_list.version,
                    token=token,
                    next_look=next_look(change.refund, now, account.poll, self.random()),
                )
            )
            if committed is Committed.OK:
                return Settled(change, events)
        raise StoreUnavailable("Others kept writing the same refund.", reason="store_collision")

    async def annotate(self, account: str, refund_id: str, facts: Facts) -> Refund | None:
        """Add facts to a refund that is known, as a revision without an event. Returns it; None if it is not known."""
        for _ in range(MOST_COLLISIONS):
            known = await self.store.refunds.get(account, refund_id)
            if known is None:
                return None
            refund = with_details(known, facts)
            if refund is known:
                return known
            refund = msgspec.structs.replace(refund, revision=known.revision + 1, changed_at=self.store.now())
            subscriber_list = await self.store.subscribers.read(account)
            commit = Commit(known, refund, (), subscriber_list.version, 0, None)
            if await self.store.refunds.commit(commit) is Committed.OK:
                return refund
        raise StoreUnavailable("Others kept writing the same refund.", reason="store_collision")


def owed(event: Event, subscriber_list: SubscriberList) -> Owed:
    """The event as it is written, and who is owed it."""
    wanting = [name for name, each in subscriber_list.subscribers.items() if wants(each, event)]
    return Owed(to_fields(event), [*wanting, *subscriber_list.unreadable])

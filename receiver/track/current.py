"""Verb. Stored refunds and events → the same with current advice.

A refund's state is stored as a fact. Whether it may be issued again depends on its charge, and is judged at each read
and each delivery from current data. One round trip serves many refunds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from receiver.ledger.refund import Refund, State
from receiver.ledger.retryability import KnownCharge, judged
from receiver.outbox.events.advice import advice_of
from receiver.outbox.events.event import Event
from receiver.store.account import AccountStore

NOTHING = KnownCharge()


async def current_refunds(store: AccountStore, refunds: Sequence[Refund]) -> list[Refund]:
    """The account's refunds, with `retryable` judged for declined ones. Raises `StoreUnavailable`."""
    declined = [refund for refund in refunds if refund.state == State.DECLINED]
    if not declined:
        return list(refunds)
    known = await store.charges.known_all(refund.charge_id for refund in declined)
    now = store.now()
    return [judged(refund, known.get(refund.charge_id, NOTHING), now) for refund in refunds]


async def current_events(store: AccountStore, events: Sequence[Event]) -> list[Event]:
    """The account's events with current advice. In the refund, only the fields that advice depends on are updated.

    Raises `StoreUnavailable`.
    """
    declined = [event.refund for event in events if event.refund.state == State.DECLINED]
    if not declined:
        return list(events)
    present, known = await asyncio.gather(
        asyncio.gather(*(store.refunds.get_or_id(refund.refund_id) for refund in declined)),
        store.charges.known_all(refund.charge_id for refund in declined),
    )
    by_id = {refund.refund_id: refund for refund in present if isinstance(refund, Refund)}
    now = store.now()
    return [_current(event, by_id, known.get(event.refund.charge_id, NOTHING), now) for event in events]


def _current(event: Event, present: dict[str, Refund], known: KnownCharge, now: int) -> Event:
    if event.refund.state != State.DECLINED:
        return event
    refund, latest = event.refund, present.get(event.refund.refund_id)
    if latest is not None:
        refund = msgspec.structs.replace(
            refund,
            refund_type=latest.refund_type or refund.refund_type,
            retryable=latest.retryable,
            retried_by=latest.retried_by,
            retry_refused=latest.retry_refused,
            conflict=latest.conflict,
            finals=latest.finals,
        )
    refund = judged(refund, known, now)
    return msgspec.structs.replace(event, refund=refund, advice=advice_of(refund, event.type))


def without_judgement(event: Event) -> Event:
    """The event without a judgement, for when the store cannot be read: the stored one may be out of date."""
    refund = msgspec.structs.replace(event.refund, retryable="")
    return msgspec.structs.replace(event, refund=refund, advice=advice_of(refund, event.type))

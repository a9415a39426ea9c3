"""Verb. Refunds and events as they were written → what may be done about them now.

A refund's state is a fact and stays. Whether it may be issued again depends on its charge, and is judged whenever it is
read or pushed: by all that is known then, in one round trip for many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from receiver.ledger.refund import Refund, State
from receiver.ledger.retryability import KnownCharge, judged
from receiver.outbox.events.advice import advice_of
from receiver.outbox.events.event import Event
from receiver.store import Store

NOTHING = KnownCharge()


async def current_refunds(store: Store, account: str, refunds: Sequence[Refund]) -> list[Refund]:
    """The refunds of an account, the declined ones judged. Raises `StoreUnavailable`."""
    declined = [refund for refund in refunds if refund.state == State.DECLINED]
    if not declined:
        return list(refunds)
    known = await store.charges.known_all(account, (refund.charge_id for refund in declined))
    now = store.now()
    return [judged(refund, known.get(refund.charge_id, NOTHING), now) for refund in refunds]


async def current_events(store: Store, account: str, events: Sequence[Event]) -> list[Event]:
    """The events of an account with the advice of now: the refund stays as it was then, but for what advice depends on.

    Raises `StoreUnavailable`.
    """
    declined = [event.refund for event in events if event.refund.state == State.DECLINED]
    if not declined:
        return list(events)
    present, known = await asyncio.gather(
        asyncio.gather(*(store.refunds.get_or_id(account, refund.refund_id) for refund in declined)),
        store.charges.known_all(account, (refund.charge_id for refund in declined)),
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
    """The event where nothing can be known now: what was true when it was written may not be true any more."""
    refund = msgspec.structs.replace(event.refund, retryable="")
    return msgspec.structs.replace(event, refund=refund, advice=advice_of(refund, event.type))

"""Verb. Stored refunds and events → the same with current advice.

A refund's state is stored as a fact. Whether it may be issued again depends on its charge, and is judged at each read
and each delivery from current data. One round trip serves many refunds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from receiver.ledger.refund import Refund, State
from receiver.ledger.resolution import resolution_of
from receiver.ledger.retryability import KnownCharge, judged
from receiver.outbox.events.advice import advice_of
from receiver.outbox.events.event import Event
from receiver.outbox.subscribers.filters import OF_CASES
from receiver.store.account import AccountStore

NOTHING = KnownCharge()


async def current_refunds(store: AccountStore, refunds: Sequence[Refund]) -> list[Refund]:
    """The account's refunds, with the case and `retryable` of declined ones. Raises `StoreUnavailable`."""
    declined = [refund for refund in refunds if refund.state == State.DECLINED]
    if not declined:
        return list(refunds)
    known, roots = await asyncio.gather(
        store.charges.known_all(refund.charge_id for refund in declined), _roots(store, declined)
    )
    now = store.now()
    return [judged(_with_case(store, refund, roots), known.get(refund.charge_id, NOTHING), now) for refund in refunds]


async def _roots(store: AccountStore, refunds: Sequence[Refund]) -> dict[str, Refund]:
    """The first refund of each chain of retries, which has the case."""
    names = {refund.retry_root for refund in refunds if refund.retry_root}
    return {refund.refund_id: refund for refund in await store.refunds.readable(names)}


def _with_case(store: AccountStore, refund: Refund, roots: Mapping[str, Refund]) -> Refund:
    if refund.state != State.DECLINED:
        return refund
    root = roots.get(refund.retry_root) if refund.retry_root else refund
    case = resolution_of(root, store.now(), store.connection.tracked_for) if root else None
    return msgspec.structs.replace(refund, resolution=case)


async def current_events(store: AccountStore, events: Sequence[Event]) -> list[Event]:
    """The account's events with current advice. In the refund, only the fields that advice depends on are updated.

    Raises `StoreUnavailable`.
    """
    declined = [event.refund for event in events if event.refund.state == State.DECLINED]
    if not declined:
        return list(events)
    present, known, roots = await asyncio.gather(
        asyncio.gather(*(store.refunds.get_or_id(refund.refund_id) for refund in declined)),
        store.charges.known_all(refund.charge_id for refund in declined),
        _roots(store, declined),
    )
    by_id = {refund.refund_id: refund for refund in present if isinstance(refund, Refund)}
    return [
        _current(store, event, by_id, roots | by_id, known.get(event.refund.charge_id, NOTHING)) for event in events
    ]


def _current(
    store: AccountStore, event: Event, present: Mapping[str, Refund], roots: Mapping[str, Refund], known: KnownCharge
) -> Event:
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
    if event.type not in OF_CASES:
        refund = msgspec.structs.replace(refund, resolution=_with_case(store, latest or refund, roots).resolution)
    refund = judged(refund, known, store.now())
    return msgspec.structs.replace(event, refund=refund, advice=advice_of(refund, event.type))


def without_judgement(event: Event) -> Event:
    """The event without a judgement, for when the store cannot be read: the stored one may be out of date."""
    refund = msgspec.structs.replace(event.refund, retryable="")
    return msgspec.structs.replace(event, refund=refund, advice=advice_of(refund, event.type))

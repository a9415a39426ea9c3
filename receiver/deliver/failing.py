"""Verb. Failing subscribers → paused, and operators are notified.

A subscriber is paused when an event fails permanently and no delivery has succeeded since that event was written. The
last subscriber that receives declines stays active instead, and operators are notified. 410 always pauses a subscriber.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from receiver.outbox.events.operator_event import OperatorEvent, OperatorType, operator_event
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts
from receiver.outbox.subscribers.filters import guards_declines, receives_declines
from receiver.outbox.subscribers.subscriber import Subscriber, pause
from receiver.runtime.metrics import Metrics
from receiver.store.account import AccountStore
from receiver.store.deliveries.subscribers import SubscriberList
from receiver.store.redis.stream_ids import written_at

log = structlog.get_logger()


async def publish_operator_events(store: AccountStore, metrics: Metrics) -> None:
    """Publish the queued operator events: in the stream, the log and the metrics."""
    for event in await store.deliveries.publish_operator_events():
        metrics.operator_event(event.type.value)
        log.error(
            "operator.event_published",
            type=event.type.value,
            about=event.subscriber,
            reason=event.reason,
            count=event.count,
            event_id=event.event_id or None,
            error=event.last_error or None,
        )


async def pause_gone(store: AccountStore, delivery: ClaimedDelivery, sent_to: Subscriber) -> None:
    """Pause a subscriber that answered 410 Gone, until an operator resumes it. Its events wait.

    Only that address is gone: a subscriber whose address has changed since is not paused.
    """
    event = _paused(store, delivery, "gone", "It answered 410 Gone.", "HTTP 410")

    def change(found: Subscriber, _: SubscriberList) -> Subscriber:
        return pause(found, "gone", store.now()) if found.url == sent_to.url else found

    await _pause(store, delivery, change, event)


async def pause_failing(
    store: AccountStore, delivery: ClaimedDelivery, sent_to: Subscriber, attempts: DeliveryAttempts
) -> None:
    """Pause a subscriber if nothing was delivered to it since the permanently failed event was written.

    The change is retried if another subscriber was changed: if two fail together, the second sees the first paused.
    """
    if (await store.deliveries.health(delivery.subscriber)).success_at >= written_at(delivery.stream_id):
        return
    why = "Nothing was delivered since an event was written that has now failed permanently."
    event = _paused(store, delivery, "failing", why, attempts.last_error)
    last = False

    def change(found: Subscriber, all_of_account: SubscriberList) -> Subscriber:
        nonlocal last
        last = False
        if found.paused or found.url != sent_to.url:
            return found
        others = [each for name, each in all_of_account.subscribers.items() if name != found.name]
        last = receives_declines(found) and not any(guards_declines(found, each) for each in others)
        return found if last else pause(found, "failing", store.now())

    await _pause(store, delivery, change, event, alone=True)
    if last:
        await _keep_failing(store, delivery, attempts)


async def _pause(
    store: AccountStore,
    delivery: ClaimedDelivery,
    change: Callable[[Subscriber, SubscriberList], Subscriber],
    event: OperatorEvent,
    *,
    alone: bool = False,
) -> None:
    updated = await store.subscribers.update(delivery.subscriber, change, alone=alone, operator_events=[event])
    if updated and updated.changed:
        log.error("subscriber.paused", reason=event.reason, fix="receiver subscriber resume")


async def _keep_failing(store: AccountStore, delivery: ClaimedDelivery, attempts: DeliveryAttempts) -> None:
    event = operator_event(
        OperatorType.FAILING,
        delivery.account,
        delivery.subscriber,
        "last_active",
        "Nothing reaches it any more. It is not paused, because no other subscriber gets declines: fix it, "
        "or add another subscriber.",
        store.now(),
        last_error=attempts.last_error,
    )
    if await store.deliveries.publish_failing_once(event):
        log.error("subscriber.failing", reason="last_active", fix="fix its address, or add another subscriber")


def _paused(store: AccountStore, delivery: ClaimedDelivery, reason: str, why: str, last_error: str) -> OperatorEvent:
    text = f"{why} Nothing more is sent to it, and what it is owed waits: `receiver subscriber resume`."
    now = store.now()
    return operator_event(
        OperatorType.PAUSED, delivery.account, delivery.subscriber, reason, text, now, last_error=last_error
    )

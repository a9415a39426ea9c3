"""Verb. A subscriber that nothing reaches is paused, and operators are notified.

It is paused when an event is given up and no delivery has succeeded since that event was written. The last subscriber
that gets declines stays active instead, and operators are notified of that. 410 pauses a subscriber in any case.
"""

from __future__ import annotations

import structlog

from receiver.outbox.events.operator_event import OperatorEvent, OperatorType, operator_event
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts
from receiver.outbox.subscribers.filters import guards_declines, told_of_declines
from receiver.outbox.subscribers.subscriber import Subscriber, pause
from receiver.runtime.metrics import Metrics
from receiver.store import Store

log = structlog.get_logger()

MOST_COLLISIONS = 8


async def publish_operator_events(store: Store, account: str, metrics: Metrics) -> None:
    """Publish the waiting events for operators: in the stream, the log and the metrics."""
    for event in await store.deliveries.publish_operator_events(account):
        metrics.operator_event(event.type.value)
        log.error(
            "operator.told",
            type=event.type.value,
            about=event.subscriber,
            reason=event.reason,
            count=event.count,
            event_id=event.event_id or None,
            error=event.last_error or None,
        )


async def pause_gone(store: Store, delivery: ClaimedDelivery, sent_to: Subscriber) -> None:
    """Pause a subscriber after a 410: events wait until an operator resumes it.

    It is the address that is gone. A subscriber that has another one by now stays active.
    """
    for _ in range(MOST_COLLISIONS):
        subscriber = (await store.subscribers.read(delivery.account)).subscribers.get(delivery.subscriber)
        if subscriber is None or subscriber.paused or subscriber.url != sent_to.url:
            return
        event = _paused(store, delivery, "gone", "It answered 410 Gone.", "HTTP 410")
        after = pause(subscriber, "gone", store.now())
        if await store.subscribers.change(delivery.account, subscriber, after, operator_events=[event]):
            log.error("subscriber.paused", reason="gone", fix="receiver subscriber resume")
            return


async def pause_failing(
    store: Store, delivery: ClaimedDelivery, sent_to: Subscriber, attempts: DeliveryAttempts
) -> None:
    """Pause a subscriber to which nothing was delivered since the event was written that is given up now.

    The write checks the version of the list: of two subscribers that fail at once, the second sees the first paused.
    """
    written = int(delivery.stream_id.partition("-")[0])
    for _ in range(MOST_COLLISIONS):
        subscriber_list = await store.subscribers.read(delivery.account)
        subscriber = subscriber_list.subscribers.get(delivery.subscriber)
        if subscriber is None or subscriber.paused or subscriber.url != sent_to.url:
            return
        if (await store.deliveries.health(delivery.account, delivery.subscriber)).success_at >= written:
            return
        others = [each for name, each in subscriber_list.subscribers.items() if name != delivery.subscriber]
        if told_of_declines(subscriber) and not any(guards_declines(subscriber, each) for each in others):
            await _keep_failing(store, delivery, attempts)
            return
        why = "Nothing was delivered since an event was written that is given up now."
        event = _paused(store, delivery, "failing", why, attempts.last_error)
        after = pause(subscriber, "failing", store.now())
        if await store.subscribers.change(
            delivery.account, subscriber, after, version=subscriber_list.version, operator_events=[event]
        ):
            log.error("subscriber.paused", reason="failing", fix="receiver subscriber resume")
            return


async def _keep_failing(store: Store, delivery: ClaimedDelivery, attempts: DeliveryAttempts) -> None:
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
    if await store.deliveries.publish_failing_once(delivery.account, event):
        log.error("subscriber.failing", reason="last_active", fix="fix its address, or add another subscriber")


def _paused(store: Store, delivery: ClaimedDelivery, reason: str, why: str, last_error: str) -> OperatorEvent:
    text = f"{why} Nothing more is sent to it, and what it is owed waits: `receiver subscriber resume`."
    now = store.now()
    return operator_event(
        OperatorType.PAUSED, delivery.account, delivery.subscriber, reason, text, now, last_error=last_error
    )

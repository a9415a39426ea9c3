"""Verb. What becomes of a subscriber to which nothing gets through, and who is told: nothing is given up in silence.

When an event is given up and nothing has succeeded since it was written, the subscriber is paused, unless nobody else
would be told about declines: then it stays active, and that is told. 410 pauses it in any case: it asked for it.
"""

from __future__ import annotations

import structlog

from receiver.outbox.events.operator_event import OperatorEvent, OperatorType, operator_event
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts
from receiver.outbox.subscribers.filters import guards_declines, told_of_declines
from receiver.outbox.subscribers.subscriber import Subscriber, pause
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.store.redis.stream_ids import written_at

log = structlog.get_logger()

MOST_COLLISIONS = 8


async def announce(store: Store, account: str, metrics: Metrics) -> None:
    """Have operators told of what waits to be told, in the stream, the log and the metrics."""
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


async def pause_gone(store: Store, delivery: ClaimedDelivery, told: Subscriber) -> None:
    """410 Gone: nothing more is sent until an operator resumes; what is owed waits.

    It is the address that is gone: if the subscriber has another by now, it goes on.
    """
    for _ in range(MOST_COLLISIONS):
        subscriber = (await store.subscribers.read(delivery.account)).subscribers.get(delivery.subscriber)
        if subscriber is None or subscriber.paused or subscriber.url != told.url:
            return
        event = _paused(store, delivery, "gone", "It answered 410 Gone.", "HTTP 410")
        after = pause(subscriber, "gone", store.now())
        if await store.subscribers.change(delivery.account, subscriber, after, operator_events=[event]):
            log.error("subscriber.paused", reason="gone", mend="receiver subscriber resume")
            return


async def pause_failing(store: Store, delivery: ClaimedDelivery, told: Subscriber, attempts: DeliveryAttempts) -> None:
    """Pause a subscriber with which nothing has worked since the event was written that is given up now.

    The list's version is checked with it: of two that fail at the same time, the second sees the first paused.
    """
    written = written_at(delivery.stream_id)
    for _ in range(MOST_COLLISIONS):
        subscriber_list = await store.subscribers.read(delivery.account)
        subscriber = subscriber_list.subscribers.get(delivery.subscriber)
        if subscriber is None or subscriber.paused or subscriber.url != told.url:
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
            log.error("subscriber.paused", reason="failing", mend="receiver subscriber resume")
            return


async def _keep_failing(store: Store, delivery: ClaimedDelivery, attempts: DeliveryAttempts) -> None:
    event = operator_event(
        OperatorType.FAILING,
        delivery.account,
        delivery.subscriber,
        "last_active",
        "Nothing reaches it any more. It is not paused, because nobody else would be told about declines: mend it, "
        "or add another subscriber.",
        store.now(),
        last_error=attempts.last_error,
    )
    if await store.deliveries.publish_failing_once(delivery.account, event):
        log.error("subscriber.failing", reason="last_active", mend="mend its address, or add another subscriber")


def _paused(store: Store, delivery: ClaimedDelivery, reason: str, why: str, last_error: str) -> OperatorEvent:
    text = f"{why} Nothing more is sent to it, and what it is owed waits: `receiver subscriber resume`."
    now = store.now()
    return operator_event(
        OperatorType.PAUSED, delivery.account, delivery.subscriber, reason, text, now, last_error=last_error
    )

"""Pure. Which events a subscriber is owed: by type, reason, amount, and whether they are about old refunds."""

from __future__ import annotations

from receiver.ledger.lifecycle import EventType
from receiver.outbox.events.event import Event
from receiver.outbox.events.incident import closes
from receiver.outbox.events.operator_event import FAMILY, OperatorEvent
from receiver.outbox.subscribers.fields import ALL
from receiver.outbox.subscribers.formats import format_spec
from receiver.outbox.subscribers.limits import large_enough
from receiver.outbox.subscribers.subscriber import Subscriber, told_of_old


def wants(subscriber: Subscriber, event: Event) -> bool:
    """Whether the subscriber is owed the event: it asks for it, or the event ends an incident that it was told of.

    A paused subscriber is owed as much as any: its events wait.
    """
    if asks(subscriber, event):
        return True
    if skips(subscriber, event):
        return False
    return format_spec(subscriber.format).incidents and any(kind.value in subscriber.types for kind in closes(event))


def asks(subscriber: Subscriber, event: Event) -> bool:
    """Whether type, reason and amount are those asked for, and the refund is not an old one that it skips.

    A refund without a reason code passes the filter of reasons, one without an amount, or in a currency that is not
    named, that of amounts.
    """
    return not skips(subscriber, event) and matches(subscriber, event)


def skips(subscriber: Subscriber, event: Event) -> bool:
    """Whether the event is skipped because it is about an old refund (`backfill`)."""
    return event.refund.backfill and not told_of_old(subscriber)


def matches(subscriber: Subscriber, event: Event) -> bool:
    """Whether type, reason and amount are those asked for."""
    if ALL not in subscriber.types and event.type.value not in subscriber.types:
        return False
    reason = event.refund.reason_code
    if reason and subscriber.reasons and reason not in subscriber.reasons:
        return False
    return large_enough(event.refund.amount, subscriber.min_amount)


def wants_operator(subscriber: Subscriber, event: OperatorEvent) -> bool:
    """Whether the subscriber has asked for operator events of this type."""
    return FAMILY in subscriber.types or event.type.value in subscriber.types


def told_of_declines(subscriber: Subscriber) -> bool:
    """Whether the subscriber is told about declines, of some kind at least."""
    return bool({ALL, EventType.DECLINED.value} & set(subscriber.types))


def guards_declines(subscriber: Subscriber, other: Subscriber) -> bool:
    """Whether `other` is told at least of every decline that `subscriber` is told of, and is awake."""
    if other.paused or not told_of_declines(other):
        return False
    reasons = not other.reasons or (bool(subscriber.reasons) and set(subscriber.reasons) <= set(other.reasons))
    return reasons and other.min_amount in ((), subscriber.min_amount)

"""Pure. A subscriber's filters: by type, reason and amount. `Format.wants` decides what it is owed."""

from __future__ import annotations

from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Reason
from receiver.outbox.events.balance_event import BalanceEvent
from receiver.outbox.events.dispute_event import DisputeEvent
from receiver.outbox.events.event import Event
from receiver.outbox.events.operator_event import FAMILY, OperatorEvent
from receiver.outbox.subscribers.fields import ALL
from receiver.outbox.subscribers.limits import large_enough
from receiver.outbox.subscribers.subscriber import CLOUDEVENTS, Subscriber

OF_CASES = frozenset({EventType.RESOLVED, EventType.REOPENED})


def matches(subscriber: Subscriber, event: Event) -> bool:
    """Whether the event's type, reason and amount pass the subscriber's filters.

    A subscriber of declines also gets the events that end or reopen their cases. The end of a chain of retries passes
    every reason filter: each refund of the chain can have another reason. A refund without a reason code passes the
    reason filter. A refund without an amount, or in a currency that the filter does not name, passes the amount filter.
    """
    types = {event.type.value, EventType.DECLINED.value} if event.type in OF_CASES else {event.type.value}
    if ALL not in subscriber.types and types.isdisjoint(subscriber.types):
        return False
    is_end_of_chain = event.type is EventType.RESOLVED and event.refund.retried_by
    reason = "" if is_end_of_chain else event.refund.reason_code
    if reason and subscriber.reasons and reason not in subscriber.reasons:
        return False
    return large_enough(event.refund.amount, subscriber.min_amount)


def wants_operator(subscriber: Subscriber, event: OperatorEvent) -> bool:
    """Whether the subscriber wants operator events of this type."""
    return FAMILY in subscriber.types or event.type.value in subscriber.types


def wants_dispute(subscriber: Subscriber, event: DisputeEvent) -> bool:
    """Whether the subscriber wants dispute events of this type and amount. `*` does not include them."""
    return event.type.value in subscriber.types and large_enough(event.dispute.amount, subscriber.min_amount)


def wants_balance(subscriber: Subscriber, event: BalanceEvent) -> bool:
    """Whether the subscriber gets balance events. Subscribers for people do if they get such declines; a program has to
    name the type, because these events do not concern a single refund.

    One of the sums must reach the minimum amount of its currency.
    """
    is_program = subscriber.format == CLOUDEVENTS
    types = {event.type.value} if is_program else {event.type.value, EventType.DECLINED.value}
    if types.isdisjoint(subscriber.types):
        return False
    if subscriber.reasons and Reason.AMAZON_REJECTED not in subscriber.reasons:
        return False
    is_known = bool(event.sums) and not event.unknown_amounts
    return not is_known or any(large_enough(each, subscriber.min_amount) for each in event.sums)


def receives_declines(subscriber: Subscriber) -> bool:
    """Whether the subscriber receives at least some declines."""
    return bool({ALL, EventType.DECLINED.value} & set(subscriber.types))


def guards_declines(subscriber: Subscriber, other: Subscriber) -> bool:
    """Whether `other` is active and receives every decline that `subscriber` receives."""
    if other.paused or not receives_declines(other):
        return False
    reasons = not other.reasons or (bool(subscriber.reasons) and set(subscriber.reasons) <= set(other.reasons))
    return reasons and other.min_amount in ((), subscriber.min_amount)

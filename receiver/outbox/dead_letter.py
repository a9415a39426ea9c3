"""Pure. Dead letters: events that could not be delivered, kept with the reason."""

from __future__ import annotations

import msgspec

from receiver.outbox.events.operator_event import (
    OperatorEvent,
    OperatorType,
    operator_event,
)
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts


class DeadEvent(msgspec.Struct, frozen=True, rename="camel"):
    """An event that could not be delivered. It holds a copy of the fields, since the stream may be trimmed."""

    stream_id: str
    event_id: str
    type: str
    refund_id: str
    reason: str
    """exhausted, expired, aborted, lost or unreadable."""
    at: int
    attempts: int
    last_error: str
    excerpt: str = ""
    """The beginning of the last answer's body."""
    last_status: int = 0
    fields: dict[str, str] = {}


def dead_event(delivery: ClaimedDelivery, reason: str, now: int, attempts: DeliveryAttempts) -> DeadEvent:
    """The record of an event that failed permanently."""
    return DeadEvent(
        stream_id=delivery.stream_id,
        event_id=delivery.fields.get("id", ""),
        type=delivery.fields.get("type", ""),
        refund_id=delivery.fields.get("refundId", ""),
        reason=reason,
        at=now,
        attempts=attempts.count,
        last_error=attempts.last_error,
        excerpt=attempts.excerpt,
        last_status=attempts.last_status,
        fields=dict(delivery.fields),
    )


def dead_letter(
    delivery: ClaimedDelivery, reason: str, now: int, attempts: DeliveryAttempts, count: int = 1
) -> OperatorEvent:
    """The operator event about `count` events that failed permanently. It names the first of them."""
    which = "An event" if count == 1 else f"{count} events"
    return operator_event(
        OperatorType.DEAD,
        delivery.account,
        delivery.subscriber,
        reason,
        f"{which} could not be delivered: `receiver delivery list`, and `receiver delivery redrive` to send again.",
        now,
        count=count,
        event_id=delivery.fields.get("id", ""),
        event_type=delivery.fields.get("type", ""),
        refund_id=delivery.fields.get("refundId", ""),
        last_error=attempts.last_error,
    )

"""Pure. Which incident an event opens, and which it closes, where a format knows incidents (PagerDuty, Alertmanager).

A decline opens one, named after the first refund of the chain of retries; a retry that is declined too stays in it; a
retry that is Refunded closes it. A refund that is stuck opens one that its end closes. A contradiction opens one that
only a person closes, and never closes another: of two final states nobody knows which is true.
"""

from __future__ import annotations

from receiver.ledger.age import STUCK_AFTER, started_at
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Refund, is_final
from receiver.ledger.schema import tidy
from receiver.outbox.events.event import Event

OPENING = (EventType.DECLINED, EventType.STUCK, EventType.CONFLICT)


def opens(event: Event) -> bool:
    """Whether the event opens an incident, or belongs into an open one."""
    return event.type in OPENING


def closes(event: Event) -> frozenset[EventType]:
    """The types of the incidents that the event ends, whether or not anybody was told of them."""
    ended = set()
    if event.type is EventType.REFUNDED and event.refund.retry_root and not event.refund.conflict:
        ended.add(EventType.DECLINED)
    final = event.type in (EventType.REFUNDED, EventType.DECLINED) and is_final(event.refund.state)
    # An event that an older version wrote does not say whether its refund was stuck: after a day it may have been.
    was_stuck = EventType.STUCK in event.refund.emitted or event.at - started_at(event.refund, event.at) > STUCK_AFTER
    if final and was_stuck:
        ended.add(EventType.STUCK)
    return frozenset(ended)


def chain(refund: Refund) -> str:
    """The refund that the chain of retries began with: what the incident of a decline is named after."""
    return tidy(refund.retry_root) or tidy(refund.refund_id)

"""Pure. Which incidents an event opens and closes, for formats with incidents (PagerDuty, Alertmanager).

A decline opens an incident, named after the first refund of the chain of retries. A declined retry belongs to the same
incident. It closes with the case of the decline, and reopens with it (`ledger/resolution.py`). A stuck refund opens an
incident that its final state closes. A conflict opens an incident that only a person closes.
"""

from __future__ import annotations

from receiver.ledger.age import STUCK_AFTER, started_at
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Refund, is_final
from receiver.ledger.schema import tidy
from receiver.outbox.events.event import Event

OPENING = {
    EventType.DECLINED: EventType.DECLINED,
    EventType.REOPENED: EventType.DECLINED,
    EventType.STUCK: EventType.STUCK,
    EventType.CONFLICT: EventType.CONFLICT,
}


def opens(event: Event) -> EventType | None:
    """The type of the incident that the event opens or belongs to; None if it opens none."""
    return OPENING.get(event.type)


def closes(event: Event) -> frozenset[EventType]:
    """The types of the incidents that the event closes, whether or not they were ever sent."""
    ended = set()
    if event.type is EventType.RESOLVED:
        ended.add(EventType.DECLINED)
    final = event.type in (EventType.REFUNDED, EventType.DECLINED) and is_final(event.refund.state)
    # Events of older versions do not say whether the refund was stuck: after a day it may have been.
    was_stuck = EventType.STUCK in event.refund.emitted or event.at - started_at(event.refund, event.at) > STUCK_AFTER
    if final and was_stuck:
        ended.add(EventType.STUCK)
    return frozenset(ended)


def chain(refund: Refund) -> str:
    """The first refund of the chain of retries. It names the incident of a decline."""
    return tidy(refund.retry_root) or tidy(refund.refund_id)

"""Pure. Which incidents an event opens and closes, for formats with incidents (PagerDuty, Alertmanager).

A decline opens an incident, named after the first refund of the chain of retries. A declined retry belongs to the same
incident; a retry that is Refunded closes it. A stuck refund opens an incident that its final state closes. A conflict
opens an incident that only a person closes. It closes no other incident: it is unknown which of the two final states is
true.
"""

from __future__ import annotations

from receiver.ledger.age import STUCK_AFTER, started_at
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Refund, is_final
from receiver.ledger.schema import tidy
from receiver.outbox.events.event import Event

OPENING = (EventType.DECLINED, EventType.STUCK, EventType.CONFLICT)


def opens(event: Event) -> bool:
    """Whether the event opens an incident or belongs to an open one."""
    return event.type in OPENING


def closes(event: Event) -> frozenset[EventType]:
    """The types of the incidents that the event closes, whether or not they were ever sent."""
    ended = set()
    if event.type is EventType.REFUNDED and event.refund.retry_root and not event.refund.conflict:
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

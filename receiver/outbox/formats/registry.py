"""Pure. The formats, one line each, and the functions that apply a subscriber's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from receiver.errors import TransportError
from receiver.exchange import Request
from receiver.outbox.events.balance_event import BalanceEvent
from receiver.outbox.events.dispute_event import DisputeEvent
from receiver.outbox.events.envelope import AnEvent
from receiver.outbox.events.event import Event
from receiver.outbox.events.mismatch_event import MismatchEvent
from receiver.outbox.events.operator_event import OperatorEvent
from receiver.outbox.formats import alertmanager, cloudevents, pagerduty, slack, teams
from receiver.outbox.formats.format import Format
from receiver.outbox.subscribers.filters import wants_balance, wants_dispute, wants_operator
from receiver.outbox.subscribers.limits import large_enough
from receiver.outbox.subscribers.subscriber import Subscriber

DEFAULT = cloudevents.FORMAT
FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        cloudevents.FORMAT,
        slack.FORMAT,
        teams.FORMAT,
        pagerduty.FORMAT,
        alertmanager.FORMAT,
    )
}


def format_spec(name: object) -> Format:
    """The format of that name, in any letter case; for an unknown name, the default."""
    return FORMATS.get(name.lower(), DEFAULT) if isinstance(name, str) else DEFAULT


def wants(subscriber: Subscriber, event: AnEvent) -> bool:
    """Whether the subscriber is owed the event."""
    match event:
        case Event():
            return format_spec(subscriber.format).wants(subscriber, event)
        case BalanceEvent():
            return wants_balance(subscriber, event)
        case DisputeEvent():
            return wants_dispute(subscriber, event)
        case MismatchEvent():
            return wants_mismatch(subscriber, event)
        case OperatorEvent():
            return wants_operator(subscriber, event)
    return False


def wants_mismatch(subscriber: Subscriber, event: MismatchEvent) -> bool:
    """Whether the subscriber wants mismatch events of this amount. `*` does not include them."""
    is_old = event.backfill and not format_spec(subscriber.format).takes_backfill(subscriber)
    return event.type.value in subscriber.types and not is_old and large_enough(event.amount, subscriber.min_amount)


def render(events: Sequence[AnEvent], subscriber: Subscriber, now: int) -> Request:
    """The request that delivers these events, all of one kind, at `now` (ms, this machine's clock). It may hold
    credentials.

    Raises `TransportError`: `no_live_secret` if it cannot be signed, `no_credential` if the routing key is missing,
    `unknown_format` for a format of a later version, or one that cannot express these events.
    """
    renderer = _known(subscriber).renderers.get(type(events[0]))
    if renderer is None:
        raise TransportError("The subscriber's format cannot express these events.", reason="unknown_format")
    return renderer(events, subscriber, now)


def _known(subscriber: Subscriber) -> Format:
    if subscriber.format not in FORMATS:
        raise TransportError("This version does not know the subscriber's format.", reason="unknown_format")
    return FORMATS[subscriber.format]

"""Pure. The format `cloudevents`: CloudEvents 1.0 in structured JSON, signed by Standard Webhooks.

Every attempt and every subscriber gets the same body; the signature's time and keys differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from receiver.errors import Malformed, TransportError
from receiver.exchange import FORM, Request
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Refund
from receiver.ledger.schema import RefundJson, refund_as
from receiver.outbox.events.advice import Advice, AdviceJson, advice_json
from receiver.outbox.events.balance_event import BalanceEvent, BalanceEventJson, balance_cloud_event
from receiver.outbox.events.dispute_event import DisputeEvent, DisputeEventJson, dispute_cloud_event
from receiver.outbox.events.envelope import AnEvent, CloudEventJson, enveloped
from receiver.outbox.events.event import SAME, Event
from receiver.outbox.events.mismatch_event import MismatchEvent, MismatchEventJson, mismatch_cloud_event
from receiver.outbox.events.operator_event import OperatorEvent, OperatorEventJson, operator_cloud_event
from receiver.outbox.formats.format import USER_AGENT, Format
from receiver.outbox.formats.standard_webhooks import webhook_headers
from receiver.outbox.subscribers.secrets import read_secret
from receiver.outbox.subscribers.subscriber import CLOUDEVENTS, Subscriber

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
LARGEST_BODY = 20_000
"""The largest possible body, since all texts in it are bounded. Standard Webhooks asks for less than 20 KB, CloudEvents
for 64."""


class AdvisedRefundJson(RefundJson, kw_only=True):
    """A refund with advice."""

    advice: Annotated[AdviceJson | None, msgspec.Meta(description="Null if there is nothing to do.")] = None


def advised_json(refund: Refund, advice: Advice | None) -> AdvisedRefundJson:
    """A refund as JSON, with its advice."""
    return refund_as(AdvisedRefundJson, refund, advice=advice_json(advice))


class RefundEventJson(CloudEventJson, kw_only=True):
    """A change of a refund: CloudEvents 1.0 (JSON event format)."""

    TYPES: ClassVar = {
        EventType.INITIATED: "A pending refund was seen for the first time.",
        EventType.REFUNDED: "Amazon processed a refund: the buyer gets the money.",
        EventType.DECLINED: "Amazon declined a refund: the buyer does not get the money by it.",
        EventType.STUCK: "A refund has been pending for longer than `accounts.stuck_after`.",
        EventType.CONFLICT: "Amazon has reported two different final states of a refund.",
        EventType.RESOLVED: "The case of a declined refund was closed: `data.resolution` says how.",
        EventType.REOPENED: "The case of a declined refund was reopened: the buyer may still be owed the money.",
        EventType.TEST: "You asked for a test. It is about no refund.",
    }
    subject: Annotated[str, msgspec.Meta(description="The refund's id.")]
    data: AdvisedRefundJson
    backfill: (
        Annotated[
            Literal[True],
            msgspec.Meta(
                description="Present only if Amazon settled the refund over 7 days before it was first seen here. "
                "It is old news: page no one for it. data.backfill has the same value."
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    traceparent: (
        Annotated[
            str,
            msgspec.Meta(
                description="W3C Trace Context of the request that caused this event (CloudEvents extension "
                "Distributed Tracing). Link your span to it; do not use it as the parent.",
                extra_json_schema={"pattern": f"^{FORM}$"},
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


EVENT_SHAPES: Final = (RefundEventJson, BalanceEventJson, DisputeEventJson, MismatchEventJson, OperatorEventJson)
"""The JSON of every kind of event that is pushed."""
SHAPE_OF: Final[Mapping[str, type[CloudEventJson]]] = {word.value: kind for kind in EVENT_SHAPES for word in kind.TYPES}
"""The same, by the type of the event."""


def cloud_event(event: Event) -> RefundEventJson:
    """The event as CloudEvents 1.0 (JSON event format)."""
    return enveloped(
        RefundEventJson,
        event,
        event.refund.refund_id,
        advised_json(event.refund, event.advice),
        backfill=True if event.refund.backfill else msgspec.UNSET,
        traceparent=event.traceparent or msgspec.UNSET,
    )


TO_JSON: Final[Mapping[type[AnEvent], Callable[[Any], CloudEventJson]]] = {
    Event: cloud_event,
    BalanceEvent: balance_cloud_event,
    DisputeEvent: dispute_cloud_event,
    MismatchEvent: mismatch_cloud_event,
    OperatorEvent: operator_cloud_event,
}


@lru_cache(SAME)
def render_body(event: AnEvent) -> bytes:
    """The body: compact JSON in UTF-8, at most `LARGEST_BODY` bytes."""
    return msgspec.json.encode(TO_JSON[type(event)](event))


def render(events: Sequence[AnEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for the one event, signed at `now` (ms) with every secret that is live then.

    Raises `TransportError` (`no_live_secret`) if there is none: the subscriber could not trust an unsigned event.
    """
    (event,) = events
    return _signed(event.id, render_body(event), subscriber, now)


def _signed(event_id: str, body: bytes, subscriber: Subscriber, now: int) -> Request:
    signature = webhook_headers(_keys(subscriber, now), event_id, now, body)
    return Request("POST", subscriber.url, {"content-type": CONTENT_TYPE, "user-agent": USER_AGENT, **signature}, body)


def _keys(subscriber: Subscriber, now: int) -> list[bytes]:
    try:
        keys = [read_secret(secret.value) for secret in subscriber.secrets if secret.live(now)]
    except Malformed as error:
        raise TransportError("A secret of the subscriber cannot be read.", reason="no_live_secret") from error
    if not keys:
        raise TransportError("Every secret of the subscriber has expired.", reason="no_live_secret")
    return keys


FORMAT = Format(
    name=CLOUDEVENTS,
    types=(EventType.DECLINED,),
    renderers=dict.fromkeys(TO_JSON, render),
    signed=True,
    backfill=True,
)

"""Pure. An operator event: a problem with deliveries, for the operators of the service.

It is in the same stream as refund events, as flat texts. Only subscribers that ask for its type by name or for
`receiver.*` get it. `*` means refund events only, so that programs that book refunds never get an operator event.

| field | always | value |
|---|---|---|
| id | yes | `evt_` and 32 hex digits; drop ids that you have seen |
| type | yes | receiver.subscriber.paused, receiver.subscriber.failing, receiver.delivery.dead |
| time | yes | when it happened, RFC 3339 with milliseconds |
| subscriber | yes | the subscriber concerned |
| reason | yes | `failing`, `gone`; of a delivery `exhausted`, `expired`, `aborted`, `lost`, `unreadable` |
| text | yes | what happened and what to do, for people |
| count | yes | how many events are affected |
| eventId, eventType, refundId | no | the event affected, or the first of several |
| lastError | no | the subscriber's last answer |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import msgspec

from receiver.ledger.schema import Account, Json, tidy
from receiver.outbox.events.envelope import AnEvent, CloudEventJson, derived_id, enveloped, of_entry, to_entry

FAMILY = "receiver.*"
"""In a subscriber's types: every operator event, including future ones."""
COUNT = re.compile(r"[1-9][0-9]{0,8}")


class OperatorType(StrEnum):
    PAUSED = "receiver.subscriber.paused"
    """Nothing is sent to the subscriber until an operator resumes it. Its events wait."""
    FAILING = "receiver.subscriber.failing"
    """The subscriber fails, but stays active: it is the last one that receives declines."""
    DEAD = "receiver.delivery.dead"
    """An event failed permanently. It is kept, and can be sent again."""


class OperatorEvent(AnEvent, frozen=True, kw_only=True):
    """A problem with deliveries."""

    type: OperatorType
    subscriber: str
    reason: str
    text: str
    count: int = 1
    event_id: str = ""
    event_type: str = ""
    refund_id: str = ""
    last_error: str = ""


def operator_event(
    type_: OperatorType, account: str, subscriber: str, reason: str, text: str, at: int, **more: Any
) -> OperatorEvent:
    """An operator event, with an id derived from its content; `at` is in ms."""
    return OperatorEvent(
        id=derived_id(account, type_.value, subscriber, reason, str(at), str(more.get("event_id", ""))),
        type=type_,
        account=account,
        at=at,
        subscriber=subscriber,
        reason=reason,
        text=text,
        **more,
    )


def is_operator(fields: Mapping[str, str]) -> bool:
    """Whether a stream entry, or an event type, is an operator event."""
    return fields.get("type", "").startswith("receiver.")


def operator_fields(event: OperatorEvent) -> dict[str, str]:
    """The event as flat texts (see the table above)."""
    fields = {
        "subscriber": event.subscriber,
        "reason": event.reason,
        "text": event.text,
        "count": str(event.count),
        "eventId": event.event_id,
        "eventType": event.event_type,
        "refundId": event.refund_id,
        "lastError": event.last_error,
    }
    return to_entry(event, fields)


def read_operator_event(account: str, fields: Mapping[str, str]) -> OperatorEvent:
    """The event of a stream entry made by `operator_fields`. `Kind.read` turns its exceptions into `Malformed`."""
    if not COUNT.fullmatch(fields.get("count", "")):
        raise ValueError("count")
    return OperatorEvent(
        **of_entry(OperatorType, account, fields),
        subscriber=fields["subscriber"],
        reason=fields["reason"],
        text=fields["text"],
        count=int(fields["count"]),
        event_id=fields.get("eventId", ""),
        event_type=fields.get("eventType", ""),
        refund_id=fields.get("refundId", ""),
        last_error=fields.get("lastError", ""),
    )


class HappeningJson(Json, kw_only=True):
    """A problem with deliveries, and its fix."""

    account: Account
    subscriber: str
    reason: str
    text: Annotated[str, msgspec.Meta(description="For people.")]
    count: Annotated[int, msgspec.Meta(description="How many events are affected.", extra_json_schema={"minimum": 1})]
    event_id: str | None = None
    event_type: str | None = None
    refund_id: str | None = None
    last_error: Annotated[str | None, msgspec.Meta(description="The subscriber's last answer.")] = None


class OperatorEventJson(CloudEventJson, kw_only=True):
    """A problem with deliveries, for the operators of the service: CloudEvents 1.0 (JSON event format)."""

    TYPES: ClassVar = {
        OperatorType.PAUSED: "A subscriber was paused: its events wait until an operator resumes it.",
        OperatorType.FAILING: "A subscriber fails, and stays active because no other one receives its declines.",
        OperatorType.DEAD: "An event could not be delivered. It is kept, and can be sent again.",
    }
    subject: Annotated[str, msgspec.Meta(description="The subscriber's name.")]
    data: HappeningJson


def operator_cloud_event(event: OperatorEvent) -> OperatorEventJson:
    data = HappeningJson(
        account=tidy(event.account),
        subscriber=tidy(event.subscriber),
        reason=tidy(event.reason),
        text=tidy(event.text, 1024),
        count=event.count,
        event_id=tidy(event.event_id) or None,
        event_type=tidy(event.event_type) or None,
        refund_id=tidy(event.refund_id) or None,
        last_error=tidy(event.last_error, 256) or None,
    )
    return enveloped(OperatorEventJson, event, event.subscriber, data)

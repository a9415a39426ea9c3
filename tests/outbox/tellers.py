"""Subscribers of the formats for people, and a refund's life as events: declined, tried again, refunded."""

from __future__ import annotations

from typing import Any

from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import How, Resolution
from receiver.outbox.events.event import Event
from receiver.outbox.subscribers.reading import read_subscriber
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import UrlPolicy
from tests.outbox.examples import NOW, an_event

RULES = UrlPolicy(allow_http=True, public_url="https://refunds.example", seller_central="https://sellers.example")
HOOK = "https://hooks.slack.com/services/T00000000/B00000000/hunter2hunter2hunter2"
WORKFLOW = "https://prod-1.westus.logic.azure.com:443/workflows/1/triggers/manual/paths/invoke?sp=%2Frun&sig=hunter2"
ROUTING_KEY = "R0123456789ABCDEFGHIJKLMNOPQRSTU"
BEARER = "Bearer hunter2hunter2"
FIRST = "S01-5105180-3221187-R022311"

FIELDS: dict[str, dict[str, Any]] = {
    "slack": {"name": "chat", "format": "slack", "url": HOOK},
    "teams": {"name": "office", "format": "teams", "url": WORKFLOW},
    "pagerduty": {"name": "oncall", "format": "pagerduty", "routing_key": ROUTING_KEY},
    "alertmanager": {
        "name": "alerts",
        "format": "alertmanager",
        "url": "http://127.0.0.1:9093",
        "authorization": BEARER,
    },
}


def teller(name: str, **changes: Any) -> Subscriber:
    """A subscriber of that format, read as people write it."""
    return read_subscriber({**FIELDS[name], **changes}, RULES, origin="api", now=NOW)


def retry(event_type: EventType, number: int = 2, **changes: Any) -> Event:
    """An event of the retry that repeats the refund of the examples."""
    state = {EventType.REFUNDED: "Refunded", EventType.DECLINED: "Declined"}.get(event_type, "RefundInitiated")
    reason = {} if event_type is EventType.DECLINED else {"reason_code": "", "reason_description": ""}
    told = {"refund_id": f"S01-5105180-3221187-R02231{number}", "retry_of": FIRST, "retry_root": FIRST, "state": state}
    return an_event(event_type, **{**told, "finals": (f"{state}@1563119700000",), **reason, **changes})


def resolved(by: int = 2, **changes: Any) -> Event:
    """The event that the refund of the examples is resolved: a reissue is Refunded."""
    case = Resolution(at=NOW, how=How.REISSUED, refund_id=f"S01-5105180-3221187-R02231{by}")
    return an_event(EventType.RESOLVED, **{"resolution": case, **changes})

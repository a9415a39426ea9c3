"""Pure. The format `alertmanager`: alerts for `POST /api/v2/alerts`, several events in one request.

    alert                     refund_id is                           fires on    ends with
    AmazonPayRefundDeclined   the first of the chain of retries      declined,   resolved: its case is closed
                                                                     reopened
    AmazonPayRefundStuck      the refund                             stuck       its end, Refunded or Declined
    AmazonPayRefundConflict   the refund                             conflict    only by itself; silence it

`AmazonPayRefundMismatch` has `finding` beside `refund_id`, and ends by itself.
`AmazonPayDisputeActionRequired` has `dispute_id` in place of `refund_id`. It fires at each reminder, with another
severity, and ends at the deadline.

Alertmanager identifies an alert by all its labels, so they are the same when it fires and when it ends: alertname,
account, refund_id, severity. Whatever differs within a chain, or is unknown at its end, is in annotations: the reason,
the retry's id, amount, order, Amazon's texts. To route by reason, add a subscriber for each (`reasons`). An end is sent
only for alerts that may have fired: Alertmanager notifies its receivers of any end in a firing group.

These alerts are not repeated, so each has an end: `FIRES_FOR` after it was sent. Alertmanager would ignore a new end in
the future ("Merge" in its types/types.go). So the end of an alert is dated `MARGIN` back, in case Alertmanager's clock
is behind ours.

200 is success. 400 and 401 are retried by the schedule, and then become dead letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from receiver.exchange import Request
from receiver.ledger.lifecycle import EventType
from receiver.ledger.schema import tidy
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.events.balance_event import BalanceEvent, BalanceEventType
from receiver.outbox.events.dispute_event import DisputeEvent
from receiver.outbox.events.envelope import AnEvent
from receiver.outbox.events.event import Event
from receiver.outbox.events.incident import chain, closes, opens
from receiver.outbox.events.mismatch_event import MismatchEvent
from receiver.outbox.formats.format import NEEDS_A_PERSON, REMINDED, Format, post_json
from receiver.outbox.formats.wording import worded
from receiver.outbox.subscribers.subscriber import Subscriber

AUTHORIZATION = re.compile(r"[!-~]+( [!-~]+)+")
LONGEST_AUTHORIZATION = 4096
PATH = "/api/v2/alerts"
FIRES_FOR = 7 * 86_400_000
MARGIN = 60_000
TEST_FIRES_FOR = 300_000
NAMES = {
    EventType.DECLINED: "AmazonPayRefundDeclined",
    EventType.STUCK: "AmazonPayRefundStuck",
    EventType.CONFLICT: "AmazonPayRefundConflict",
    EventType.TEST: "AmazonPayRefundTest",
}
SEVERITY = {
    EventType.DECLINED: "critical",
    EventType.STUCK: "warning",
    EventType.CONFLICT: "critical",
    EventType.TEST: "info",
}
"""Prometheus has no severity between these two."""
BALANCE = "AmazonPayBalanceSuspected"
DISPUTE = "AmazonPayDisputeActionRequired"
MISMATCH = "AmazonPayRefundMismatch"

Alert = dict[str, Any]


def render(events: Sequence[AnEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for one or several events, with the `authorization` header if one is set."""
    headers = {"authorization": subscriber.credential.value} if subscriber.credential else {}
    return post_json(address(subscriber.url), alerts(events, subscriber, now), **headers)


def address(url: str) -> str:
    """The address for alerts, given an Alertmanager's address with or without its API path."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(PATH) else path + PATH).geturl()


def alerts(events: Sequence[AnEvent], subscriber: Subscriber, now: int) -> list[Alert]:
    """The alerts. Of several events about one alert, the latest counts. `now` is in ms."""
    found: dict[str, Alert] = {}
    for event in sorted(events, key=lambda event: event.at):
        for alert in _alerts(event, subscriber, now):
            identity = "\n".join(alert["labels"].values())
            found.pop(identity, None)
            found[identity] = alert
    return list(found.values())


def _alerts(event: AnEvent, subscriber: Subscriber, now: int) -> Iterator[Alert]:
    match event:
        case Event():
            yield from _refund_alerts(event, subscriber, now)
        case BalanceEvent():
            labels = {"suspected_event_id": tidy(event.alarm), "severity": "critical"}
            end = now - MARGIN if event.type is BalanceEventType.RESOLVED else now + FIRES_FOR
            yield _alert(event, BALANCE, labels, subscriber, end)
        case DisputeEvent():
            labels = {"dispute_id": tidy(event.dispute.dispute_id), "severity": REMINDED[event.reminder]}
            end = event.dispute.deadline if event.dispute.deadline > now else now + FIRES_FOR
            yield _alert(event, DISPUTE, labels, subscriber, end)
        case MismatchEvent(finding=found):
            labels = {"refund_id": tidy(found.refund_id), "finding": found.kind.value, "severity": "warning"}
            yield _alert(event, MISMATCH, labels, subscriber, now + FIRES_FOR)


def _refund_alerts(event: Event, subscriber: Subscriber, now: int) -> Iterator[Alert]:
    if event.type is EventType.TEST:
        yield _refund_alert(event, event.type, subscriber, now + TEST_FIRES_FOR)
        return
    ended = closes(event)
    opened = opens(event)
    if opened and (FORMAT.asks(subscriber, event) or not ended):
        yield _refund_alert(event, opened, subscriber, now + FIRES_FOR)
    for kind in sorted(ended):
        if kind.value in subscriber.types:
            yield _refund_alert(event, kind, subscriber, now - MARGIN)


def _refund_alert(event: Event, kind: EventType, subscriber: Subscriber, end: int) -> Alert:
    refund_id = chain(event.refund) if kind is EventType.DECLINED else tidy(event.refund.refund_id)
    labels = {"refund_id": refund_id, "severity": SEVERITY[kind]}
    return _alert(event, NAMES[kind], labels, subscriber, end)


def _alert(event: AnEvent, name: str, labels: dict[str, str], subscriber: Subscriber, end: int) -> Alert:
    words = worded(event, subscriber)
    advice = " ".join(f"{number}. {each.text}" for number, each in enumerate(words.actions, start=1))
    page = words.links.get("Refund")
    return {
        "labels": {"alertname": name, "account": tidy(event.account), **labels},
        "annotations": {
            "summary": words.sentence,
            "description": words.summary,
            **({"advice": advice} if advice else {}),
            **{name.lower().replace(" ", "_"): text for name, text in words.details.items()},
            "event": event.id,
            "seller_central": words.links["Seller Central"],
        },
        "startsAt": format_rfc3339(min(event.at, end)),
        "endsAt": format_rfc3339(end),
        **({"generatorURL": page} if page else {}),
    }


def _authorization_problems(value: object) -> list[str]:
    if value is None:
        return []
    fine = isinstance(value, str) and AUTHORIZATION.fullmatch(value) and len(value) <= LONGEST_AUTHORIZATION
    return [] if fine else ["is not the value of an Authorization header; write Bearer TOKEN, or Basic and base64"]


FORMAT = Format(
    name="alertmanager",
    types=NEEDS_A_PERSON,
    renderers=dict.fromkeys((Event, BalanceEvent, DisputeEvent, MismatchEvent), render),
    incidents=True,
    credential="authorization",
    credential_problems=_authorization_problems,
    most_in_one=50,
    window=1_000,
)

"""Pure. The format `alertmanager`: alerts for `POST /api/v2/alerts`, several events in one request.

    alert                     refund_id is                           fires on    ends with
    AmazonPayRefundDeclined   the first of the chain of retries      declined    a retry that is Refunded
    AmazonPayRefundStuck      the refund                             stuck       its end, Refunded or Declined
    AmazonPayRefundConflict   the refund                             conflict    only by itself; silence it

Alertmanager knows an alert by all its labels, so they are the same when it fires and when it ends: alertname, account,
refund_id, severity. What the end of a chain does not know, or what differs along it, stands in annotations: the reason,
the retry's own id, amount, order, Amazon's words. To route by reason, add a subscriber for each (`reasons`). An end is
sent only of what may have fired: Alertmanager tells its receivers of any end in a group that fires.

Nobody repeats these alerts, so each carries an end: `FIRES_FOR` after it was sent. An end that lies ahead would lose
against it ("Merge" in Alertmanager's types/types.go), so what ends now has ended `MARGIN` ago, for the case that
Alertmanager's clock is behind ours.

200 is success; 400 and 401 are tried by the schedule, and then dead.
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
from receiver.outbox.events.event import Event
from receiver.outbox.events.incident import chain, closes, opens
from receiver.outbox.formats.format import NEEDS_A_PERSON, Format, post_json
from receiver.outbox.formats.wording import actions, facts, links, refund_url, sentence, summary
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
"""Prometheus has no word between these two."""

Alert = dict[str, Any]


def render(events: Sequence[Event], subscriber: Subscriber, now: int) -> Request:
    """The request for one or several events; `authorization`, if there is one, is its header."""
    headers = {"authorization": subscriber.credential.value} if subscriber.credential else {}
    return post_json(address(subscriber.url), alerts(events, subscriber, now), **headers)


def address(url: str) -> str:
    """Where alerts are posted, given the address of an Alertmanager with or without the path of its API."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(PATH) else path + PATH).geturl()


def alerts(events: Sequence[Event], subscriber: Subscriber, now: int) -> list[Alert]:
    """The alerts; of several events about one alert the last to happen counts. `now` in ms."""
    found: dict[str, Alert] = {}
    for event in sorted(events, key=lambda event: event.at):
        for alert in _alerts(event, subscriber, now):
            identity = "\n".join(alert["labels"].values())
            found.pop(identity, None)
            found[identity] = alert
    return list(found.values())


def _alerts(event: Event, subscriber: Subscriber, now: int) -> Iterator[Alert]:
    if event.type is EventType.TEST:
        yield _alert(event, event.type, subscriber, now + TEST_FIRES_FOR)
        return
    ended = closes(event)
    if opens(event) and (FORMAT.asks(subscriber, event) or not ended):
        yield _alert(event, event.type, subscriber, now + FIRES_FOR)
    for kind in sorted(ended):
        if kind.value in subscriber.types:
            yield _alert(event, kind, subscriber, now - MARGIN)


def _alert(event: Event, kind: EventType, subscriber: Subscriber, end: int) -> Alert:
    return {
        "labels": {
            "alertname": NAMES[kind],
            "account": tidy(event.account),
            "refund_id": chain(event.refund) if kind is EventType.DECLINED else tidy(event.refund.refund_id),
            "severity": SEVERITY[kind],
        },
        "annotations": _annotations(event, subscriber),
        "startsAt": format_rfc3339(min(event.at, end)),
        "endsAt": format_rfc3339(end),
        **_generator(event, subscriber),
    }


def _annotations(event: Event, subscriber: Subscriber) -> dict[str, str]:
    advice = " ".join(f"{number}. {step}" for number, step in enumerate(actions(event), start=1))
    return {
        "summary": sentence(event),
        "description": summary(event),
        **({"advice": advice} if advice else {}),
        **{name.lower().replace(" ", "_"): text for name, text in facts(event).items()},
        "event": event.id,
        "seller_central": links(event, subscriber)["Seller Central"],
    }


def _generator(event: Event, subscriber: Subscriber) -> dict[str, str]:
    url = refund_url(event, subscriber)
    return {"generatorURL": url} if url else {}


def _authorization_problems(value: object) -> list[str]:
    if value is None:
        return []
    fine = isinstance(value, str) and AUTHORIZATION.fullmatch(value) and len(value) <= LONGEST_AUTHORIZATION
    return [] if fine else ["is not the value of such a header; write Bearer TOKEN, or Basic and base64"]


FORMAT = Format(
    name="alertmanager",
    types=NEEDS_A_PERSON,
    render=render,
    incidents=True,
    credential="authorization",
    credential_problems=_authorization_problems,
    most_in_one=50,
    window=1_000,
)

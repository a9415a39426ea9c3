"""Pure. The format `pagerduty`: one request of the Events API v2 for each event.

    event                                         action     incident (dedup_key)
    declined, reopened                            trigger    amazonpay/ACCOUNT/FIRST, FIRST begins the chain of retries
    resolved                                      resolve    the same
    stuck                                         trigger    amazonpay/ACCOUNT/REFUND/stuck
    a stuck refund that ends                      resolve    the same
    conflict                                      trigger    amazonpay/ACCOUNT/REFUND/conflict; a person closes it
    balance suspected; declines that follow it    trigger    amazonpay/ACCOUNT/balance/EVENT, the event's id
    balance resolved                              resolve    the same
    declined, sent over LATE after it happened    trigger    amazonpay/ACCOUNT/burst/REASON/DAY; a person closes it
    a dispute to answer                           trigger    amazonpay/ACCOUNT/dispute/DISPUTE/REMINDER; likewise
    a mismatch                                    trigger    amazonpay/ACCOUNT/mismatch/FINDING/DAY; likewise

PagerDuty takes one event per request, and `window` keeps two requests of a queue 2 s apart. So in a burst the first ten
or so events open separate incidents at once. Events sent more than 20 s after they happened share one incident for each
reason and day (UTC). The same holds for events that waited while PagerDuty was down or the subscriber was paused.
(PagerDuty's content-based alert grouping works too: `class` and `group` are set.)

The two declines before the alarm have separate incidents; all that follow it in the wave share its incident.

One request has one action, and declines come first. If a stuck refund is then declined, or is the retry that ends a
chain, its `stuck` incident stays open until a person closes it.
An event that neither opens nor closes an incident is sent as a `resolve` of a key without an incident: PagerDuty
accepts it and pages no one. This happens only if the format was changed while the event waited.

202 is success: PagerDuty has the event. 429 is retried, at its `Retry-After` if it has one. 400 is retried by the
schedule, and then becomes a dead letter.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from receiver.errors import TransportError
from receiver.exchange import Request
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Reason
from receiver.ledger.schema import tidy
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.events.balance_event import BalanceEvent, BalanceEventType
from receiver.outbox.events.dispute_event import DisputeEvent, DisputeEventType
from receiver.outbox.events.envelope import AnEvent
from receiver.outbox.events.event import Event
from receiver.outbox.events.incident import chain, closes, opens
from receiver.outbox.events.mismatch_event import MismatchEvent
from receiver.outbox.formats.format import REMINDED, USER_AGENT, Format, post_json
from receiver.outbox.formats.wording import worded
from receiver.outbox.subscribers.subscriber import Subscriber

ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")
"""PagerDuty: "the 32 character Integration Key"."""
LONGEST_KEY, LONGEST_SUMMARY = 255, 1024
LARGEST_BODY = 512_000
"""PagerDuty's limit. Our requests are far smaller, since every text in them is bounded."""
SEVERITY = {
    EventType.DECLINED: "error",
    EventType.STUCK: "warning",
    EventType.CONFLICT: "critical",
    EventType.REOPENED: "error",
    EventType.TEST: "info",
}
"""The severity of each event type that opens an incident. `critical` and `error` are urgent if urgency depends on
severity."""
LATE = 20_000
"""ms after which a decline no longer opens a separate incident, by this machine's clock. If that clock is ahead of the
store's by this much, all declines share incidents."""


def render(events: Sequence[AnEvent], subscriber: Subscriber, now: int) -> Request:
    """The request for the one event. Its body holds the routing key.

    Raises `TransportError` (`no_credential`) if the subscriber has none.
    """
    (event,) = events
    if subscriber.credential is None:
        raise TransportError("The subscriber has no routing key.", reason="no_credential")
    body = message(event, subscriber, now)
    return post_json(subscriber.url, {"routing_key": subscriber.credential.value, **body})


def message(event: AnEvent, subscriber: Subscriber, now: int) -> dict[str, Any]:
    """The event without the routing key; `now` is in ms."""
    match event:
        case BalanceEvent(type=BalanceEventType.RESOLVED):
            return _resolve(_key(event, "balance", event.alarm))
        case BalanceEvent():
            return _trigger(event, subscriber, _key(event, "balance", event.alarm), "critical")
        case DisputeEvent(dispute=dispute, reminder=reminder):
            key = _key(event, "dispute", dispute.dispute_id, reminder.value)
            return _trigger(event, subscriber, key, REMINDED[reminder])
        case MismatchEvent(finding=found):
            key = _key(event, "mismatch", found.kind.value, format_rfc3339(event.at)[:10])
            return _trigger(event, subscriber, key, "warning")
        case Event():
            return _about_refund(event, subscriber, now)
    raise TypeError(type(event))


def _about_refund(event: Event, subscriber: Subscriber, now: int) -> dict[str, Any]:
    if event.type is EventType.TEST:
        return _trigger(event, subscriber, _key(event, "test", event.id), SEVERITY[event.type])
    ended = closes(event)
    if opens(event) and (FORMAT.asks(subscriber, event) or not ended):
        return _trigger(event, subscriber, _opened(event, now), SEVERITY[event.type])
    known = [kind for kind in (EventType.DECLINED, EventType.STUCK) if kind in ended]
    kind = next((each for each in known if each.value in subscriber.types), known[0] if known else event.type)
    if kind is EventType.DECLINED and known:
        return _resolve(_key(event, chain(event.refund)))
    last = "stuck" if kind is EventType.STUCK and known else event.type.value
    return _resolve(_key(event, event.refund.refund_id, last))


def _resolve(key: str) -> dict[str, Any]:
    return {"event_action": "resolve", "dedup_key": key}


def _trigger(event: AnEvent, subscriber: Subscriber, key: str, severity: str) -> dict[str, Any]:
    words, account = worded(event, subscriber), tidy(event.account)
    page = words.links.get("Refund")
    reason = tidy(event.refund.reason_code) if isinstance(event, Event) else ""
    details = {"What happened": words.summary, "What to do": [each.text for each in words.actions], "Event": event.id}
    return {
        "event_action": "trigger",
        "dedup_key": key,
        "client": USER_AGENT,
        **({"client_url": page} if page else {}),
        "links": [{"href": href, "text": text} for text, href in words.links.items()],
        "payload": {
            "summary": tidy(words.sentence, LONGEST_SUMMARY),
            "source": f"amazonpay/{account}",
            "severity": severity,
            "timestamp": format_rfc3339(event.at),
            "component": "amazonpay",
            "group": account,
            "class": f"{event.type.value}/{reason}" if reason else event.type.value,
            "custom_details": {**words.details, **details},
        },
    }


def _opened(event: Event, now: int) -> str:
    """The key of the incident that the event belongs to."""
    refund = event.refund
    if event.type is EventType.CONFLICT:
        return _key(event, refund.refund_id, "conflict")
    if event.type is EventType.STUCK:
        return _key(event, refund.refund_id, "stuck")
    if event.type is EventType.DECLINED and event.alarm:
        return _key(event, "balance", event.alarm)
    if event.type is EventType.DECLINED and now - event.at > LATE:
        reason = next((known for known in Reason if known == refund.reason_code), "other")
        return _key(event, "burst", reason, format_rfc3339(event.at)[:10])
    return _key(event, chain(refund))


def _key(event: AnEvent, *parts: str) -> str:
    """The key, at most 255 characters; a longer key is replaced by its digest."""
    key = "/".join(("amazonpay", tidy(event.account), *(tidy(part) for part in parts)))
    return key if len(key) <= LONGEST_KEY else f"amazonpay/{hashlib.sha256(key.encode()).hexdigest()}"


def _routing_key_problems(value: object) -> list[str]:
    where = "PagerDuty shows it as the integration key of an Events API v2 integration: 32 letters and digits"
    if value is None:
        return [f"is missing; {where}"]
    return [] if isinstance(value, str) and ROUTING_KEY.fullmatch(value) else [f"is not a routing key; {where}"]


FORMAT = Format(
    name="pagerduty",
    types=(EventType.DECLINED, EventType.CONFLICT, DisputeEventType.ACTION_REQUIRED),
    renderers=dict.fromkeys((Event, BalanceEvent, DisputeEvent, MismatchEvent), render),
    incidents=True,
    credential="routing_key",
    credential_problems=_routing_key_problems,
    url="https://events.pagerduty.com/v2/enqueue",
    window=2_000,
)
"""A stuck refund can wait until morning, so it does not page by default."""

"""What PagerDuty receives: pinned, and judged by the rules of its Events API v2."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import TransportError
from receiver.exchange import Request, Response
from receiver.ledger.lifecycle import EventType
from receiver.outbox.events.event import Event
from receiver.outbox.formats.pagerduty import LATE
from receiver.outbox.formats.registry import format_spec, render, wants
from receiver.outbox.retries import SCHEDULE, Delivered, DeliveryAttempts, Retry, judge
from tests.outbox.examples import NOW, a_subscriber, an_event, any_text, events, long_text
from tests.outbox.tellers import FIRST, ROUTING_KEY, resolved, retry, teller

DAY = 86_400_000
KEY = f"amazonpay/us/{FIRST}"
BODY = (
    '{"routing_key":"R0123456789ABCDEFGHIJKLMNOPQRSTU","event_action":"trigger",'
    '"dedup_key":"amazonpay/us/S01-5105180-3221187-R022311","client":"amazon-pay-refund-receiver",'
    '"client_url":"https://refunds.example/refunds/S01-5105180-3221187-R022311?account=us","links":['
    '{"href":"https://refunds.example/refunds/S01-5105180-3221187-R022311?account=us","text":"Refund"},'
    '{"href":"https://sellers.example","text":"Seller Central"}],"payload":{"summary":"Refund declined: 14.00 USD '
    "(AmazonRejected), refund S01-5105180-3221187-R022311, account us. Amazon rejected this refund, possibly because "
    'the merchant account has a negative balance. The buyer has not been paid by it.","source":"amazonpay/us",'
    '"severity":"error","timestamp":"2019-07-14T16:00:00.250Z","component":"amazonpay","group":"us",'
    '"class":"amazonpay.refund.declined/AmazonRejected","custom_details":{"Refund":"S01-5105180-3221187-R022311",'
    '"Amount":"14.00 USD","Reason":"AmazonRejected","Amazon says":"The refund was rejected.",'
    '"Charge":"S01-5105180-3221187-C056351","Account":"us","Environment":"Sandbox","Changed":"20190714T155500Z",'
    '"What happened":"Amazon rejected this refund, possibly because the merchant account has a negative balance. The '
    'buyer has not been paid by it.","What to do":["Look at the balance of the merchant account in Seller Central; '
    'where it is negative, pay Amazon what is owed.","Once the balance is settled, issue a new refund for the charge; '
    'Amazon never reopens a declined refund.","Look at the other refunds of the charge: once its maximum has been '
    'refunded, Amazon declines every further one.","Or compensate the buyer outside Amazon Pay, for example with store '
    'credit, a gift card or a check."],"Event":"evt_a0b1dbf5ddba89abbeed14ef890d0517"}}}'
)
RESOLVED = (
    '{"routing_key":"R0123456789ABCDEFGHIJKLMNOPQRSTU","event_action":"resolve",'
    '"dedup_key":"amazonpay/us/S01-5105180-3221187-R022311"}'
)
ENVELOPE = {"routing_key", "event_action", "dedup_key", "client", "client_url", "links", "images", "payload"}
PAYLOAD = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}


def check(request: Request) -> dict[str, Any]:
    """The rules of "Send an alert event" in PagerDuty's API reference."""
    assert len(request.body) <= 512_000
    event = json.loads(request.body)
    assert set(event) <= ENVELOPE
    assert len(event["routing_key"]) == 32
    assert event["event_action"] in ("trigger", "acknowledge", "resolve")
    assert 1 <= len(event["dedup_key"]) <= 255
    if event["event_action"] == "trigger":
        payload = event["payload"]
        assert set(payload) <= PAYLOAD
        assert 1 <= len(payload["summary"]) <= 1024
        assert payload["source"]
        assert payload["severity"] in ("critical", "error", "warning", "info")
        assert datetime.fromisoformat(payload["timestamp"]).tzinfo
        assert isinstance(payload["custom_details"], dict)
        assert all(set(link) == {"href", "text"} for link in event["links"])
    return dict(event)


def told(event: Event, now: int = NOW, **changes: Any) -> tuple[str, str]:
    found = check(render([event], teller("pagerduty", **changes), now))
    return found["event_action"], found["dedup_key"]


def test_the_whole_request_of_a_decline() -> None:
    """Byte for byte, to PagerDuty's address if no other is given."""
    request = render([an_event()], teller("pagerduty"), NOW)
    assert (request.method, request.url) == ("POST", "https://events.pagerduty.com/v2/enqueue")
    assert request.headers == {"content-type": "application/json", "user-agent": "amazon-pay-refund-receiver"}
    assert request.body.decode() == BODY
    check(request)
    assert render([resolved()], teller("pagerduty"), NOW).body.decode() == RESOLVED


def test_a_chain_of_retries_is_one_incident_that_its_success_resolves() -> None:
    """Declined, retried and declined, retried and refunded: and the subscriber is owed each of them."""
    life = [an_event(), retry(EventType.DECLINED, 2), resolved(), an_event(EventType.REOPENED)]
    actions = ["trigger", "trigger", "resolve", "trigger"]
    assert [told(event) for event in life] == [(action, KEY) for action in actions]
    assert all(wants(teller("pagerduty"), event) for event in life)
    assert not wants(teller("pagerduty"), retry(EventType.INITIATED))
    assert not wants(teller("pagerduty"), retry(EventType.REFUNDED))
    assert wants(teller("pagerduty", reasons=["BuyerCanceled"]), resolved())


def test_a_contradiction_resolves_nothing() -> None:
    """A refund that was declined and is Refunded now: a person is called, and no incident is closed."""
    refunded = retry(EventType.REFUNDED, conflict=True, finals=("Declined@1", "Refunded@2"))
    assert not wants(teller("pagerduty"), refunded)
    assert told(refunded)[1] != KEY
    action, key = told(an_event(EventType.CONFLICT, conflict=True))
    assert (action, key) == ("trigger", f"{KEY}/conflict")
    alone = an_event(EventType.REFUNDED, state="Refunded", reason_code="")
    assert not wants(teller("pagerduty"), alone)


def test_a_stuck_refund_has_an_incident_of_its_own() -> None:
    """Only on request, as a warning; its end resolves it, and a decline still opens an incident."""
    stuck = an_event(EventType.STUCK, state="RefundInitiated", reason_code="")
    types = ["amazonpay.refund.declined", "amazonpay.refund.stuck"]
    assert not wants(teller("pagerduty"), stuck)
    assert wants(teller("pagerduty", types=types), stuck)
    assert told(stuck, types=types) == ("trigger", f"{KEY}/stuck")
    refunded = an_event(EventType.REFUNDED, state="Refunded", reason_code="", created_at=NOW - DAY - 1)
    assert wants(teller("pagerduty", types=types), refunded)
    assert not wants(teller("pagerduty"), refunded)
    assert told(refunded, types=types) == ("resolve", f"{KEY}/stuck")
    assert told(an_event(created_at=NOW - DAY - 1), types=types) == ("trigger", KEY)


def test_who_asked_for_other_reasons_has_no_incident_closed_by_a_decline() -> None:
    """A retry that was stuck and is then declined for a reason that is filtered out ends the one, not the chain."""
    declined = retry(EventType.DECLINED, created_at=NOW - DAY - 1)
    types = ["amazonpay.refund.declined", "amazonpay.refund.stuck"]
    changes: dict[str, Any] = {"types": types, "reasons": ["ProcessingFailure"]}
    assert wants(teller("pagerduty", **changes), declined)
    assert told(declined, **changes) == ("resolve", "amazonpay/us/S01-5105180-3221187-R022312/stuck")


def test_a_burst_opens_a_handful_of_incidents() -> None:
    """Five hundred declines at once, two seconds apart as the lane sends them: eleven are called alone, the rest is one
    incident for each reason and day."""
    assert format_spec(teller("pagerduty").format).most_in_one == 1
    pause = format_spec(teller("pagerduty").format).window
    reasons = ("AmazonRejected", "Surprise")
    burst = [an_event(refund_id=f"R{n}", reason_code=reasons[n % 2]) for n in range(500)]
    keys = [told(event, NOW + n * pause)[1] for n, event in enumerate(burst)]
    assert len(set(keys)) == LATE // pause + 1 + 2
    assert keys[:2] == ["amazonpay/us/R0", "amazonpay/us/R1"]
    assert keys[-2:] == [f"amazonpay/us/burst/{reason}/2019-07-14" for reason in ("AmazonRejected", "other")]


@given(events(any_text | long_text), st.integers(NOW - DAY, NOW + DAY))
def test_every_event_keeps_to_the_rules(event: Event, now: int) -> None:
    """Whatever Amazon sends; what opens no incident opens none."""
    action, _ = told(event, now)
    opening = event.type in (
        EventType.DECLINED,
        EventType.STUCK,
        EventType.CONFLICT,
        EventType.REOPENED,
        EventType.TEST,
    )
    assert action == "resolve" if not opening else action in ("trigger", "resolve")


@given(st.text(st.characters(), min_size=1), st.text("😀x", min_size=100, max_size=300))
def test_keys_are_bounded_and_stay_the_same(account: str, refund: str) -> None:
    """The same event has the same key at every attempt; two long ones differ."""
    event = an_event(account=account + refund, retry_root=refund)
    assert told(event) == told(event, NOW + 5_000)
    assert told(event)[1] != told(an_event(account=account + refund, retry_root="y" + refund))[1]


def test_without_a_routing_key_nothing_is_sent() -> None:
    """It cannot be so but by a store that another program wrote to."""
    with pytest.raises(TransportError) as caught:
        render([an_event()], a_subscriber(format="pagerduty"), NOW)
    assert caught.value.reason == "no_credential"


def test_answers_of_pagerduty() -> None:
    """202 is success; 429 and 5xx are tried again; 400 too, until it is dead."""
    assert judge(Response(202, {}, b'{"status":"success"}'), DeliveryAttempts(), NOW, 0.0) == Delivered()
    assert judge(Response(429, {"retry-after": "7"}), DeliveryAttempts(), NOW, 0.0) == Retry(NOW + 7_000, counts=False)
    for status in (400, 429, 500):
        assert judge(Response(status), DeliveryAttempts(), NOW, 0.0) == Retry(NOW + SCHEDULE[0] // 2)


def test_the_routing_key_is_in_the_body_alone() -> None:
    """Once."""
    request = render([an_event()], teller("pagerduty"), NOW)
    assert request.body.count(ROUTING_KEY.encode()) == 1
    assert ROUTING_KEY not in f"{request.url}{request.headers}"

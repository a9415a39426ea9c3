"""The alarm of many declines with one cause: as flat texts, in every format, and which subscribers get it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from receiver.errors import Malformed
from receiver.ledger.money import Money
from receiver.outbox.events.balance_event import (
    BalanceEvent,
    BalanceEventJson,
    balance_fields,
    resolved,
    suspected,
)
from receiver.outbox.events.event import from_fields, to_fields
from receiver.outbox.events.kinds import BALANCE, is_newer, kind_of
from receiver.outbox.formats.registry import FORMATS, render
from receiver.outbox.subscribers.filters import wants_balance
from receiver.outbox.subscribers.subscriber import Subscriber
from tests.outbox.examples import NOW, a_refund, a_subscriber, an_event
from tests.outbox.tellers import teller

DECLINED = "amazonpay.refund.declined"


def alarm(count: int = 3, **changes: Any) -> BalanceEvent:
    refunds = [a_refund(refund_id=f"S01-5105180-3221187-R00000{number}", **changes) for number in range(count)]
    return suspected("us", refunds, NOW - 1_000, NOW)


def over() -> BalanceEvent:
    return resolved("us", alarm().id, NOW + 5_000)


def body_of(subscriber: Subscriber, *events: BalanceEvent) -> Any:
    return json.loads(render(events, subscriber, NOW).body)


@pytest.mark.parametrize("event", [alarm(), over(), alarm(amount=None)])
def test_flat_texts_are_read_as_they_were_written(event: BalanceEvent) -> None:
    fields = balance_fields(event)
    assert kind_of(fields) is BALANCE
    assert not is_newer(fields)
    assert BALANCE.read("us", fields) == event
    assert is_newer({**fields, "type": "amazonpay.balance.later"})


@pytest.mark.parametrize("wrong", [{"time": "x"}, {"refundIds": "a/b"}, {"sums": "1"}, {"type": "x"}, {"since": ""}])
def test_what_cannot_be_read_has_one_error(wrong: dict[str, str]) -> None:
    with pytest.raises(Malformed) as caught:
        BALANCE.read("us", {**balance_fields(alarm()), **wrong})
    assert caught.value.reason == "bad_event"


def test_a_webhook_gets_the_count_the_sums_and_the_refunds() -> None:
    """As described in OpenAPI."""
    found = body_of(a_subscriber(), alarm())
    assert msgspec.convert(found, BalanceEventJson)
    assert (found["type"], found["subject"], found["data"]["count"]) == ("amazonpay.balance.suspected", "us", 3)
    assert found["data"]["sums"] == [{"amount": "42.00", "currencyCode": "USD"}]
    assert len(found["data"]["refundIds"]) == 3
    assert [each["action"] for each in found["data"]["advice"]["actions"]] == ["repay_negative_balance", "reissue_all"]
    end = body_of(a_subscriber(), over())
    assert (end["type"], end["data"]["count"]) == ("amazonpay.balance.resolved", None)
    assert end["data"]["suspectedEventId"] == found["id"]


def test_pagerduty_has_one_incident_for_the_wave() -> None:
    """The declines that follow the alarm share it, and its end resolves it."""
    pager = teller("pagerduty")
    opened = body_of(pager, alarm())
    assert opened["event_action"] == "trigger"
    assert "3 refunds declined, 42.00 USD" in opened["payload"]["summary"]
    decline = msgspec.structs.replace(an_event(), alarm=alarm().id)
    shared = json.loads(render([decline], pager, decline.at).body)
    assert shared["dedup_key"] == opened["dedup_key"]
    late = json.loads(render([decline], pager, decline.at + 3_600_000).body)
    assert late["dedup_key"] == opened["dedup_key"]
    ended = body_of(pager, over())
    assert (ended["event_action"], ended["dedup_key"]) == ("resolve", opened["dedup_key"])
    assert from_fields("us", to_fields(decline)).alarm == alarm().id


def test_alertmanager_has_one_alert_with_an_end() -> None:
    alerts = teller("alertmanager")
    (opened,) = body_of(alerts, alarm())
    (ended,) = body_of(alerts, over())
    assert opened["labels"] == ended["labels"]
    assert opened["labels"]["alertname"] == "AmazonPayBalanceSuspected"
    assert ended["endsAt"] < opened["endsAt"]
    assert body_of(alerts, over(), alarm()) == [ended], "of several, the latest counts"


def test_slack_shows_what_to_do() -> None:
    shown = body_of(teller("slack"), alarm(), over())
    text = json.dumps(shown)
    assert len(shown["blocks"]) <= 50
    assert "Negative balance suspected: 3 refunds declined, 42.00 USD" in text
    assert "receiver refund retry --reason AmazonRejected" in text


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        (False, {"types": (DECLINED,), "format": "cloudevents"}),
        (True, {"types": (DECLINED, "amazonpay.balance.suspected"), "format": "cloudevents"}),
        (True, {"types": (DECLINED,)}),
        (True, {"types": ("amazonpay.balance.suspected",)}),
        (True, {"types": (DECLINED,), "reasons": ("AmazonRejected",)}),
        (True, {"types": (DECLINED,), "min_amount": (Money(Decimal(42), "USD"),)}),
        (False, {"types": (DECLINED,), "min_amount": (Money(Decimal(43), "USD"),)}),
        (False, {"types": (DECLINED,), "reasons": ("ProcessingFailure",)}),
        (False, {"types": ("*",)}),
        (False, {"types": ("amazonpay.balance.resolved",)}),
    ],
)
def test_people_who_get_declines_get_it(wanted: bool, changes: dict[str, Any]) -> None:
    """A program that expects refunds gets it only where it names the type."""
    subscriber = msgspec.structs.replace(teller("slack"), **changes)
    assert wants_balance(subscriber, alarm()) is wanted
    if changes["types"] == (DECLINED,) and not changes.keys() & {"reasons", "format"}:
        assert wants_balance(subscriber, over()), "whoever may have got the alarm gets its end"


def test_every_format_has_a_form_for_it() -> None:
    for name in FORMATS:
        subscriber = a_subscriber() if name == "cloudevents" else teller(name)
        assert render([alarm()], subscriber, NOW).body

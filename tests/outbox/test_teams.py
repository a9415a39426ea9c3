"""What a Teams workflow receives: pinned, and checked against the reference of Adaptive Cards and the limits of
Teams."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.exchange import Request, Response
from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import Money
from receiver.outbox.events.event import Event
from receiver.outbox.events.operator_event import OperatorType, operator_event
from receiver.outbox.formats.registry import format_spec, render
from receiver.outbox.formats.teams import LEFT_OUT, MOST_CARD
from receiver.outbox.retries import Delivered, DeliveryAttempts, Gone, Retry, judge
from tests.outbox.examples import NOW, an_event, any_text, events, long_text
from tests.outbox.tellers import WORKFLOW, resolved, teller
from tests.outbox.test_balance_event import alarm, over
from tests.outbox.test_dispute_event import event as dispute

OFFICE = teller("teams")
LINES = [
    "Refund declined: 14.00 USD",
    "Amazon rejected this refund, possibly because the merchant account has a negative balance. The buyer has not been "
    "paid by it.",
    "Refund: S01-5105180-3221187-R022311",
    "Amount: 14.00 USD",
    "Reason: AmazonRejected",
    "Amazon says: The refund was rejected.",
    "Order: A & B [x](http://evil.example) **b** {{DATE(2017-02-14T06:08:39Z)}}",
    "Charge: S01-5105180-3221187-C056351",
    "Account: us",
    "Environment: Sandbox",
    "Changed: 20190714T155500Z",
    "Event: evt_a0b1dbf5ddba89abbeed14ef890d0517",
    "What to do",
]
BUTTONS = [
    {
        "type": "Action.OpenUrl",
        "title": "Refund",
        "url": "https://refunds.example/refunds/S01-5105180-3221187-R022311?account=us",
    },
    {"type": "Action.OpenUrl", "title": "Seller Central", "url": "https://sellers.example"},
]


def check(request: Request) -> dict[str, Any]:
    """The card of a whole message. Its texts are only in text runs, which are not read as Markdown."""
    assert (request.method, request.url) == ("POST", WORKFLOW)
    message = json.loads(request.body)
    assert set(message) == {"type", "attachments"}
    (attachment,) = message["attachments"]
    assert (message["type"], set(attachment)) == ("message", {"contentType", "contentUrl", "content"})
    assert (attachment["contentType"], attachment["contentUrl"]) == ("application/vnd.microsoft.card.adaptive", None)
    card: dict[str, Any] = attachment["content"]
    assert set(card) <= {"$schema", "type", "version", "msteams", "body", "actions"}
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    for block in card["body"]:
        assert set(block) <= {"type", "inlines", "spacing"}
        assert block["type"] == "RichTextBlock"
        for run in block["inlines"]:
            assert set(run) <= {"type", "text", "weight", "size"}
            assert (run["type"], bool(run["text"])) == ("TextRun", True)
    for button in card.get("actions", []):
        assert button["type"] == "Action.OpenUrl"
        assert button["url"].startswith("https://")
    assert len(json.dumps(json.dumps(card))) <= MOST_CARD < 28 * 1024
    return card


def lines(card: dict[str, Any]) -> list[str]:
    return ["".join(run["text"] for run in block["inlines"]) for block in card["body"]]


def test_the_whole_card_of_a_decline() -> None:
    """Outside texts are unchanged: nothing in them is read as a link, an emphasis or a date."""
    order = "A & B [x](http://evil.example) **b** {{DATE(2017-02-14T06:08:39Z)}}"
    request = render([an_event(order_reference=order)], OFFICE, NOW)
    assert request.headers == {"content-type": "application/json", "user-agent": "amazon-pay-refund-receiver"}
    card = check(request)
    assert lines(card)[: len(LINES)] == LINES
    assert lines(card)[len(LINES)].startswith("1. Look at the balance")
    assert card["actions"] == BUTTONS


@given(st.lists(events(any_text | long_text), min_size=1, max_size=3))
def test_every_card_keeps_to_the_rules(told: list[Event]) -> None:
    """Whatever Amazon sends."""
    check(render(told, OFFICE, NOW))


def test_many_events_are_one_card_with_sums_and_a_list() -> None:
    """Every refund is named, each advice once."""
    told = [an_event(refund_id=f"R{n}", order_reference=f"order-{n}") for n in range(48)]
    told += [an_event(refund_id="EU", reason_code="ProcessingFailure", amount=Money(Decimal("3.10"), "EUR"))]
    told += [an_event(EventType.STUCK, refund_id="S", state="RefundInitiated", reason_code="", amount=None)]
    assert len(told) == format_spec("teams").most_in_one
    found = lines(check(render(told, OFFICE, NOW)))
    assert found[:4] == [
        "50 refund events: 49 declined, 1 stuck",
        "• 48 declined (AmazonRejected): 672.00 USD",
        "• 1 declined (ProcessingFailure): 3.10 EUR",
        "• 1 stuck: 1 of unknown amount",
    ]
    assert "R7: 14.00 USD declined, AmazonRejected, order order-7" in found
    assert "S: amount unknown stuck" in found
    assert found.count("What to do") == 3


@pytest.mark.parametrize("text", ["&" * 5000, "😀" * 5000, '"' * 5000])
def test_the_worst_fifty_fit_and_each_is_named(text: str) -> None:
    """Every text has its maximum length, and each character its longest form in JSON."""
    names = ("reason_description", "order_reference", "reason_code", "charge_id", "environment", "state")
    told = [an_event(EventType.CONFLICT, refund_id=f"{n:064}", **dict.fromkeys(names, text)) for n in range(50)]
    found = lines(check(render(told, OFFICE, NOW)))
    assert all(any(f"{n:064}" in line for line in found) for n in range(50))
    check(render(told[:1], OFFICE, NOW))


def test_what_operators_get_is_counted_and_cut() -> None:
    """One title for each; a card that is still too long says that lines are missing."""

    def told(text: str, subscriber: str = "finance") -> Any:
        return operator_event(OperatorType.DEAD, "us", subscriber, "exhausted", text, NOW, event_id="evt_1")

    found = lines(check(render([told("It is dead.")] * 3, OFFICE, NOW)))
    assert found == ["Subscriber finance of us: delivery.dead (3 times)", "It is dead."]
    found = lines(check(render([told("😀" * 400, f"s{n}") for n in range(50)], OFFICE, NOW)))
    assert (found[0], found[-1]) == ("Subscriber s0 of us: delivery.dead", LEFT_OUT)


def test_every_other_kind_of_event_has_a_card() -> None:
    """A test, a case, a suspected balance and its end, one dispute and many."""
    assert lines(check(render([an_event(EventType.TEST)], OFFICE, NOW)))[0].startswith("Test alert")
    assert lines(check(render([resolved()], OFFICE, NOW)))[0] == "Declined refund resolved: 14.00 USD"
    balance = check(render([alarm(), over()], OFFICE, NOW))
    assert "Negative balance suspected: 3 refunds declined, 42.00 USD" in lines(balance)
    assert "reason=AmazonRejected" in balance["actions"][0]["url"]
    one = lines(check(render([dispute(reason="Fraud <!here>")], OFFICE, NOW)))
    assert "Filed for: Fraud <!here>" in one
    many = lines(check(render([dispute(dispute_id=f"S01-B{n:06}") for n in range(50)], OFFICE, NOW)))
    assert many[0] == "50 disputes to answer"
    assert many[50].startswith("S01-B000049: Dispute to answer by 2019-07-25 16:00 UTC: 400.00 USD")


def test_answers_of_a_workflow() -> None:
    """202 is a success; a workflow that is gone may come back."""

    def verdict(status: int, **headers: str) -> object:
        return judge(Response(status, headers, b""), DeliveryAttempts(), NOW, 0.0)

    assert verdict(202) == Delivered()
    assert verdict(410) == Gone()
    for status in (400, 404, 502):
        assert isinstance(verdict(status), Retry)
    assert verdict(429, **{"retry-after": "30"}) == Retry(NOW + 30_000, counts=False)

"""Thresholds, limits, which subscribers get another's declines as well, and operator events: pure."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from receiver.errors import Malformed, TransportError
from receiver.ledger.money import Money
from receiver.outbox.events.event import from_fields
from receiver.outbox.events.kinds import OPERATOR
from receiver.outbox.events.operator_event import (
    FAMILY,
    OperatorType,
    is_operator,
    operator_event,
    operator_fields,
)
from receiver.outbox.formats.registry import render, wants
from receiver.outbox.subscribers.filters import guards_declines, wants_operator
from receiver.outbox.subscribers.limits import (
    amount_problems,
    concurrency_problems,
    large_enough,
    rate_problems,
    read_amounts,
)
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from tests.outbox.examples import NOW, an_event, any_text
from tests.store.makers import SECRET

DECLINED = ("amazonpay.refund.declined",)
EVENT = operator_event(
    OperatorType.DEAD, "us", "finance", "exhausted", "An event is lost.", NOW, event_id="evt_1", last_error="HTTP 500"
)


def one(**more: object) -> Subscriber:
    fields = {"name": "finance", "url": "https://x.example/", "secrets": (Secret(SECRET),), "types": ("*",), **more}
    return msgspec.structs.replace(Subscriber(name="", url="", secrets=()), **fields)


@pytest.mark.parametrize(
    ("amount", "passes"),
    [("99.99 USD", False), ("100.00 USD", True), ("100.01 USD", True), ("1 EUR", True), ("4999 JPY", False)],
)
def test_less_than_the_threshold_of_its_currency_is_not_told(amount: str, passes: bool) -> None:
    """Other currencies have none, and pass."""
    number, currency = amount.split()
    least = read_amounts(["100.00 USD", "5000 JPY"])
    assert wants(one(min_amount=least), an_event(amount=Money(Decimal(number), currency))) is passes


def test_a_refund_without_an_amount_passes() -> None:
    """Better sent than lost."""
    assert large_enough(None, read_amounts("100.00 USD"))


@pytest.mark.parametrize(
    "given", ["100", "100.00USD", "-1 USD", "1e3 USD", "5,00 USD", "1 USD EUR", "", [], [5], [None]]
)
def test_what_is_no_amount_is_told_with_its_form(given: object) -> None:
    """With a text that says how to write it."""
    (problem,) = amount_problems(given)
    assert 'write it as "100.00 USD"' in problem
    assert amount_problems("100.00 USD") == amount_problems(["0 USD", "5 JPY"]) == amount_problems(None) == []


@pytest.mark.parametrize("given", [0, 0.05, 1001, True, "5", [5], float("nan"), float("inf")])
def test_rates_and_numbers_have_bounds(given: object) -> None:
    """Also against numbers that are none."""
    assert rate_problems(given) != []
    assert concurrency_problems(0.5) != []
    assert rate_problems(0.1) == rate_problems(1000) == rate_problems(None) == concurrency_problems(256) == []


@pytest.mark.parametrize(
    ("other", "guards"),
    [
        ({}, True),
        ({"types": DECLINED}, True),
        ({"paused": True}, False),
        ({"types": ("amazonpay.refund.refunded", FAMILY)}, False),
        ({"reasons": ("AmazonRejected",)}, False),
        ({"min_amount": read_amounts("1 USD")}, False),
    ],
)
def test_who_hears_of_the_same_declines(other: dict[str, object], guards: bool) -> None:
    """Another filter could leave out just the one that matters; the same filter leaves out the same."""
    assert guards_declines(one(), one(**other)) is guards
    narrow = one(reasons=("AmazonRejected",), min_amount=read_amounts("1 USD"))
    assert guards_declines(narrow, one(reasons=("AmazonRejected", "X"), min_amount=read_amounts("1 USD")))


def test_operator_events_are_asked_for_by_name() -> None:
    """`*` is about refunds: a bookkeeping system gets nothing else."""
    assert not wants_operator(one(), EVENT)
    assert wants_operator(one(types=(FAMILY,)), EVENT)
    assert wants_operator(one(types=("receiver.delivery.dead",)), EVENT)
    assert not wants_operator(one(types=("receiver.subscriber.paused",)), EVENT)


def test_an_operator_event_survives_the_stream() -> None:
    """And who reads events of refunds passes it over as something that it does not know."""
    fields = operator_fields(EVENT)
    assert is_operator(fields)
    assert OPERATOR.read("us", fields) == EVENT
    with pytest.raises(Malformed):
        from_fields("us", fields)


@given(st.dictionaries(st.sampled_from(["id", "type", "time", "subscriber", "reason", "text", "count"]), any_text))
def test_whatever_stands_there_is_read_or_unreadable(fields: dict[str, str]) -> None:
    """It has one way to fail."""
    for given_fields in (fields, {**operator_fields(EVENT), **fields}):
        with suppress(Malformed):
            assert OPERATOR.read("us", given_fields).account == "us"


def test_an_operator_event_is_a_cloud_event_signed_like_any_other() -> None:
    """Checked by the libraries of others."""
    now = 1_790_000_000_000
    request = render([EVENT], one(), now)
    event = from_structured_event(HTTPMessage(dict(request.headers), request.body))
    assert isinstance(event, CloudEvent)
    assert (event.get_type(), event.get_subject(), event.get_id()) == ("receiver.delivery.dead", "finance", EVENT.id)
    signed = Webhook(SECRET).sign(EVENT.id, datetime.fromtimestamp(now / 1000, UTC), request.body.decode())
    assert request.headers["webhook-signature"] == signed
    with pytest.raises(TransportError):
        render([EVENT], one(secrets=()), now)

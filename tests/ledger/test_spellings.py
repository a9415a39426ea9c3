"""Words, amounts and spans as people write them: one reading for commands, settings and the API."""

from __future__ import annotations

from datetime import timedelta

import pytest

from receiver.errors import Malformed
from receiver.ledger.money import Money, parse_amount
from receiver.ledger.refund import is_known_reason, reason_of, state_of
from receiver.ledger.timestamps import parse_duration, parse_span
from receiver.outbox.subscribers.fields import spelled_type


@pytest.mark.parametrize("word", ["Declined", "declined", "DECLINED"])
def test_states_and_reasons_are_known_in_any_letter_case(word: str) -> None:
    assert state_of(word) == "Declined"
    assert reason_of("amazonREJECTED") == "AmazonRejected"
    assert [state_of("Declind"), reason_of("Other")] == ["Declind", "Other"]


def test_reasons_that_amazon_documents_are_known() -> None:
    """Also those of refunds that the merchant did not start."""
    assert all(map(is_known_reason, ("processingfailure", "Chargeback", "AmazonA-ZRefund", "BuyerCanceled")))
    assert not any(map(is_known_reason, ("AmazonRejectd", "", "Declined")))


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("declined", "amazonpay.refund.declined"),
        ("Refund.Declined", "amazonpay.refund.declined"),
        ("AMAZONPAY.REFUND.STUCK", "amazonpay.refund.stuck"),
        ("dispute.action_required", "amazonpay.dispute.action_required"),
        ("balance.suspected", "amazonpay.balance.suspected"),
        ("Receiver.*", "receiver.*"),
        ("all", "*"),
        ("lost", "lost"),
        (7, 7),
    ],
)
def test_types_of_events_have_short_names(word: object, kind: object) -> None:
    assert spelled_type(word) == kind


@pytest.mark.parametrize("text", ["1000.50 USD", "1,000.50 usd", " 1000.50  Usd "])
def test_amounts_are_written_with_their_currency(text: str) -> None:
    """The currency in any letter case; commas between thousands."""
    assert parse_amount(text) == Money.written("1000.50", "usd") == Money.parse("1000.50", "USD")


@pytest.mark.parametrize("text", ["5,00 EUR", "1,0000 USD", "-5 USD", "5", "5 US", "5 uſd", 7])
def test_amounts_are_not_guessed(text: object) -> None:
    """`5,00` may be five, or five hundred."""
    with pytest.raises(Malformed):
        parse_amount(text)


@pytest.mark.parametrize("text", ["400d", "400D", " 400 d"])
def test_a_span_on_a_command_line_has_a_unit(text: str) -> None:
    """A bare number may be meant as days. In the settings it is seconds."""
    assert parse_span(text) == parse_duration(text) == timedelta(days=400)
    with pytest.raises(ValueError, match=r"400 has no unit\. Write 400d for days"):
        parse_span("400")
    assert parse_duration("400") == timedelta(seconds=400)

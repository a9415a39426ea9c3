"""How much may be refunded on a charge."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import BadRequest
from receiver.ledger.charge import check_amount, refundable_total, spent
from receiver.ledger.charge_book import Entry
from receiver.ledger.money import Money


def money(amount: str, currency: str = "USD") -> Money:
    return Money(Decimal(amount), currency)


@pytest.mark.parametrize(
    ("captured", "currency", "total"),
    [
        ("100.00", "USD", 11_500),
        ("500.00", "EUR", 57_500),
        ("1000.00", "GBP", 107_500),
        ("10000", "JPY", 11_500),
        ("56000", "JPY", 64_400),
        ("100000", "JPY", 108_400),
        ("0.10", "USD", 11),
        ("100.00", "CHF", 10_000),
    ],
)
def test_the_lesser_of_fifteen_percent_and_the_fixed_sum_rounded_down(captured: str, currency: str, total: int) -> None:
    assert refundable_total(money(captured, currency)) == total


def test_another_currencys_allowance_can_be_configured() -> None:
    assert refundable_total(money("100.00", "CHF"), {"CHF": 500}) == 10_500


def test_what_is_declined_does_not_count_and_reservations_do() -> None:
    entries = [Entry(1000, "Refunded"), Entry(500, "Declined"), Entry(200, "Reserved"), Entry(30, "RefundInitiated")]
    assert spent(None, entries, 11_500) == 1230
    assert spent(money("20.00"), entries, 11_500) == 2000
    assert spent(money("5.00"), entries, 11_500) == 1230


@pytest.mark.parametrize("amount", ["0", "0.00", "14.001", "150000.01"])
def test_amounts_that_nobody_can_be_refunded(amount: str) -> None:
    with pytest.raises(BadRequest, match="amount"):
        check_amount(money(amount))


def test_yen_have_no_decimals() -> None:
    check_amount(money("8400.00", "JPY"))
    with pytest.raises(BadRequest):
        check_amount(money("8400.50", "JPY"))


@given(st.integers(1, 10**9), st.sampled_from(["USD", "EUR", "GBP", "JPY", "CHF"]))
def test_the_allowance_is_never_more_than_either_bound(minor: int, currency: str) -> None:
    over = refundable_total(Money.of_minor(minor, currency)) - minor
    assert 0 <= over <= minor * 15 // 100
    assert over <= {"JPY": 8400, "CHF": 0}.get(currency, 7500)

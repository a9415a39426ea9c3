"""How much may be refunded on a charge."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import BadRequest
from receiver.ledger.charge import Balance, Charge, balance_of, check_amount, refundable_total, spent
from receiver.ledger.charge_book import Entry
from receiver.ledger.money import Money
from receiver.ledger.refund import Unread

CHARGE = "S01-1111111-1111111-C000001"
WAITS, DONE, FAILED, HELD = "RefundInitiated", "Refunded", "Declined", "Reserved"


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


def charge(
    captured: str | None = "100.00", refunded: str | None = "0.00", *unread: str, state: str = "Captured"
) -> Charge:
    """A charge as Amazon described it."""
    return Charge(
        charge_id=CHARGE,
        state=state,
        captured=money(captured) if captured else None,
        refunded=money(refunded) if refunded else None,
        unread=tuple(Unread(each, "bad_amount") for each in unread),
    )


def usd(minor: int | None, state: str = DONE, *, conflict: bool = False) -> Entry:
    return Entry(minor, state, began=1, currency="USD", conflict=conflict)


LEFT: dict[str, tuple[Charge | None, list[Entry] | None, tuple[int, int] | None]] = {
    "nothing refunded": (charge(), [], (10_000, 10_000)),
    "no amount refunded is none": (charge(refunded=None), [], (10_000, 10_000)),
    "refunded here and known to Amazon": (charge(refunded="30.00"), [usd(3_000)], (7_000, 7_000)),
    "Amazon's total lags": (charge(), [usd(3_000)], (7_000, 7_000)),
    "refunded elsewhere": (charge(refunded="30.00"), [], (7_000, 7_000)),
    "refunded here and elsewhere": (charge(refunded="40.00"), [usd(3_000)], (6_000, 6_000)),
    "declined refunds count nothing": (charge(), [usd(3_000, FAILED)], (10_000, 10_000)),
    "pending, not in Amazon's total": (charge(), [usd(3_000, WAITS)], (7_000, 7_000)),
    "an unknown state is pending": (charge(), [usd(3_000, "RefundUnderReview")], (7_000, 7_000)),
    "pending, in Amazon's total or refunded twice": (charge(refunded="30.00"), [usd(3_000, WAITS)], (4_000, 7_000)),
    "reserved": (charge(), [usd(3_000, HELD)], (7_000, 7_000)),
    "reserved, and refunded elsewhere": (charge(refunded="10.00"), [usd(9_000, HELD)], (0, 1_000)),
    "in conflict, declined last": (charge(), [usd(3_000, FAILED, conflict=True)], (7_000, 7_000)),
    "in conflict, refunded last": (charge(), [usd(3_000, conflict=True)], (7_000, 7_000)),
    "all of it": (charge(refunded="100.00"), [usd(10_000)], (0, 0)),
    "all of it and the allowance": (charge(refunded="115.00"), [usd(10_000), usd(1_500)], (0, 0)),
    "all of it, part of it pending": (charge(refunded="100.00"), [usd(5_000), usd(5_000, WAITS)], (0, 0)),
    "an unknown amount": (charge(), [usd(None, WAITS)], None),
    "the unknown amount of a declined refund": (charge(), [usd(None, FAILED)], (10_000, 10_000)),
    "another currency": (charge(), [Entry(3_000, DONE, 1, "EUR")], None),
    "an entry of an older version": (charge(), [Entry(3_000, DONE)], (7_000, 7_000)),
    "captured amount not reported": (charge(captured=None), [], None),
    "refunded amount unreadable": (charge("100.00", None, "refundedAmount"), [], None),
    "Amazon has never answered": (None, [usd(3_000)], None),
    "damaged book": (charge(), None, None),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_of_the_captured_amount(case: str) -> None:
    """The least and the most that can be left: they differ where Amazon's total can be explained in two ways."""
    described, entries, left = LEFT[case]
    balance = balance_of(described, entries)
    assert balance.left == left
    assert balance.refundable == (left[0] if left and left[0] == left[1] else None)


def test_every_known_refund_is_in_one_sum() -> None:
    """Declined ones are in none."""
    entries = [usd(1), usd(20, WAITS), usd(300, HELD), usd(4_000, FAILED, conflict=True), usd(50_000, FAILED)]
    balance = balance_of(charge(refunded="0.01"), entries)
    assert balance == Balance("USD", 10_000, 1, refunded=1, pending=20, reserved=300, in_conflict=4_000)
    assert balance.known == 4_321
    assert balance.money(balance.in_conflict) == money("40.00")


def test_one_unknown_amount_leaves_the_other_sums_known() -> None:
    balance = balance_of(charge(), [usd(1_000), usd(None, WAITS)])
    assert (balance.refunded, balance.pending, balance.reserved) == (1_000, None, 0)
    assert (balance.known, balance.elsewhere, balance.with_allowance()) == (None, None, None)


def test_without_amazons_answer_the_currency_is_that_of_the_refunds() -> None:
    balance = balance_of(None, [usd(1_000), Entry(500, DONE)])
    assert balance.money(balance.refunded) == money("15.00"), "all refunds of a charge have its currency"
    assert balance_of(None, []).money(0) is None
    assert balance_of(None, [usd(1_000), Entry(500, DONE, 1, "EUR")]) == Balance(pending=0, reserved=0, in_conflict=0)


def test_with_the_allowance_it_is_what_the_reserving_script_admits() -> None:
    entries = [usd(3_000), usd(2_000, HELD)]
    balance = balance_of(charge(refunded="60.00"), entries)
    assert balance.with_allowance() == 11_500 - spent(money("60.00"), entries, 11_500)
    assert balance.with_allowance({}) == 4_000
    assert balance_of(charge(refunded="120.00"), []).with_allowance() == 0


@given(st.tuples(*(st.integers(0, 60) for _ in range(4))), st.booleans())
def test_a_certain_amount_is_right_whether_or_not_amazon_counts_pending_refunds(
    sums: tuple[int, int, int, int], amazon_counts_pending: bool
) -> None:
    """Never more than is left, so that `full` cannot use the allowance, and never less."""
    done, waits, held, elsewhere = sums
    reported = done + elsewhere + (waits if amazon_counts_pending else 0)
    described = charge("1.00", str(Decimal(reported) / 100))
    balance = balance_of(described, [usd(done), usd(waits, WAITS), usd(held, HELD)])
    assert balance.left is not None
    truth = max(100 - done - waits - held - elsewhere, 0)
    assert balance.left[0] <= truth <= balance.left[1]
    assert balance.refundable in (None, truth)

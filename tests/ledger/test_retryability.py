"""Whether a declined refund may be issued again, as a table of what is known of its charge."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from receiver.ledger.charge import Charge
from receiver.ledger.charge_book import MOST_REFUNDS, Entry, reservation
from receiver.ledger.dispute import Dispute
from receiver.ledger.money import Money
from receiver.ledger.refund import FPS, Refund, Source
from receiver.ledger.request_shape import charge_json
from receiver.ledger.retryability import KnownCharge, judge, obstacles

NOW = 1_760_000_000_000
DAY = 86_400_000
CHARGE, REFUND, OTHER = "S01-1111111-1111111-C000001", "S01-1111111-1111111-R000001", "S01-1111111-1111111-R000002"


def money(amount: str, currency: str = "USD") -> Money:
    return Money(Decimal(amount), currency)


def declined(**more: Any) -> Refund:
    """A declined refund of 14.00 USD, settled an hour ago."""
    fields: dict[str, Any] = {
        "account": "us",
        "refund_id": REFUND,
        "state": "Declined",
        "reason_code": "AmazonRejected",
        "charge_id": CHARGE,
        "amount": money("14.00"),
        "created_at": NOW - DAY,
        "updated_at": NOW - 3_600_000,
        "revision": 2,
        "first_seen_at": NOW - DAY,
        "changed_at": NOW - 3_600_000,
        "source": Source.NOTIFICATION,
    }
    return Refund(**{**fields, **more})


def charge(captured: str = "100.00", refunded: str = "0.00", state: str = "Captured", currency: str = "USD") -> Charge:
    """As Amazon described it a minute ago."""
    return Charge(
        charge_id=CHARGE,
        state=state,
        captured=money(captured, currency),
        refunded=money(refunded, currency),
        read_at=NOW - 60_000,
    )


def entry(minor: int | None, state: str, *, began: int = NOW - 30 * DAY, **more: Any) -> Entry:
    return Entry(minor, state, began=began, currency="USD", **more)


def verdict(refund: Refund, charge: Charge | None = None, **entries: Entry) -> tuple[bool | None, tuple[str, ...]]:
    book: Mapping[str, Entry] = {name.replace("_", "-"): each for name, each in entries.items()}
    found = judge(refund, KnownCharge(entries=book, charge=charge), NOW)
    assert found is not None
    return found.value, found.reasons


@pytest.mark.parametrize(
    ("of", "entries", "answer"),
    [
        (charge(), [], (True, ())),
        (charge(state="Canceled"), [], (False, ("charge_not_captured",))),
        (charge(currency="EUR"), [], (False, ("charge_does_not_admit",))),
        (charge(refunded="110.00"), [], (False, ("allowance_exceeded",))),
        (charge(refunded="100.00"), [], (True, ())),
        (charge(), [entry(11_000, "Refunded")], (False, ("allowance_exceeded",))),
        (charge(), [entry(11_000, "Declined")], (True, ())),
        (charge(), [entry(11_000, "Declined", conflict=True)], (False, ("charge_in_conflict", "allowance_exceeded"))),
        (charge(), [entry(None, "Declined")], (True, ())),
        (Charge(charge_id=CHARGE, state="Captured", read_at=NOW), [], (None, ())),
        (None, [], (None, ())),
    ],
)
def test_a_declined_refund_can_be_retried_while_the_charge_is_captured_and_the_money_is_there(
    of: Charge | None, entries: list[Entry], answer: tuple[bool | None, tuple[str, ...]]
) -> None:
    """What Amazon does not tell is not known; every refund that is not declined uses the charge up."""
    assert (
        verdict(declined(), of, **dict.fromkeys((OTHER.replace("-", "_"),), *entries or [entry(1, "Declined")]))
        == answer
    )


def test_an_unknown_amount_uses_up_the_whole_charge() -> None:
    """Where money is guarded, what cannot be read counts as everything."""
    value, reasons = verdict(declined(), charge(), other=entry(None, "RefundInitiated"))
    assert value is False
    assert "allowance_exceeded" in reasons


def test_the_same_amount_refunded_since_is_in_the_way() -> None:
    """The buyer was paid another way, or soon will be; what began before the decline is another matter."""
    later = entry(1400, "Refunded", began=NOW - 600_000)
    assert verdict(declined(), charge(), other=later) == (False, ("same_amount_refunded",))
    assert verdict(declined(), charge(), other=entry(1400, "Refunded", began=NOW - 5 * DAY)) == (True, ())
    assert verdict(declined(), charge(), other=entry(1400, "Declined", began=NOW - 600_000)) == (True, ())


@pytest.mark.parametrize(
    ("refunded", "entries", "told"),
    [
        ("14.00", [], False),
        ("20.00", [entry(600, "Refunded")], False),
        ("20.00", [entry(600, "RefundInitiated")], False),
        ("14.00", [entry(600, "RefundInitiated")], False),
        ("14.00", [entry(1400, "Refunded")], True),
        ("13.99", [], True),
        ("20.00", [], True),
    ],
)
def test_amazon_may_know_of_the_same_amount_paid_another_way_before_we_do(
    refunded: str, entries: list[Entry], told: bool
) -> None:
    """Amazon's sum exceeds ours by exactly this amount, with or without pending refunds."""
    found = verdict(declined(), charge(refunded=refunded), **{f"other_{n}": each for n, each in enumerate(entries)})
    assert found == ((True, ()) if told else (False, ("same_amount_refunded",)))


def test_a_reading_older_than_the_decline_says_nothing() -> None:
    """What an older version kept of its outcome still counts."""
    old = msgspec.structs.replace(charge(), read_at=NOW - 2 * DAY)
    assert verdict(declined(), old) == (None, ())
    assert verdict(declined(retryable="yes"), old) == (True, ())
    assert verdict(declined(retryable="no"), old) == (False, ("charge_does_not_admit",))


@pytest.mark.parametrize("ahead", [3_600_000, 365 * DAY])
def test_amazons_clock_may_be_ahead_of_ours(ahead: int) -> None:
    """A charge that was read when the decline was written is newer than the decline, whatever Amazon's clock says."""
    before = msgspec.structs.replace(charge(), read_at=NOW - 2 * DAY)
    assert verdict(declined(updated_at=NOW + ahead), before) == (None, ())
    assert verdict(declined(updated_at=NOW + ahead), charge()) == (True, ())


def test_a_refund_in_conflict_is_not_judged() -> None:
    """The buyer may have the money."""
    assert verdict(declined(conflict=True), charge()) == (None, ("in_conflict",))


def test_one_that_was_issued_again_is_not_issued_again() -> None:
    """At most once each."""
    assert verdict(declined(retried_by=OTHER), charge()) == (False, ("already_retried",))


@pytest.mark.parametrize(
    "word",
    [
        *("AmazonA-ZRefund", "AmazonA-ZGuarantee", "AmazonA-ZCancel", "Chargeback", "BuyerCanceled"),
        *("amazona-zrefund", "Amazon A to Z Refund", "AMAZON_A_TO_Z_GUARANTEE", "CHARGEBACK", "Buyer Cancelled"),
        *("AmazonA-ZClaim", "AtoZGuaranteeClaim", "A-Z Guarantee Refund", "ChargebackRefund", "CanceledByBuyer"),
    ],
)
@pytest.mark.parametrize("field", ["refund_type", "reason_code"])
def test_a_refund_that_the_merchant_did_not_begin_is_not_retried(word: str, field: str) -> None:
    """By its type, or by a reason code of that name, in any spelling."""
    value, reasons = verdict(declined(**{field: word}), charge())
    assert (value, reasons) == (False, ("not_merchants_refund",))


@pytest.mark.parametrize("word", ["", "SellerInitiated", "AmazonRejected", "ProcessingFailure", "Azure", "Canceled"])
def test_other_words_do_not_make_it_somebody_elses(word: str) -> None:
    assert verdict(declined(refund_type=word), charge()) == (True, ())


def test_what_is_not_declined_or_of_flexible_payments_is_not_judged() -> None:
    known = KnownCharge(charge=charge())
    assert judge(declined(state="Refunded"), known, NOW) is None
    assert judge(declined(refund_type=FPS), known, NOW) is None


def test_without_amount_or_charge_too_little_is_known() -> None:
    assert verdict(declined(amount=None), charge()) == (None, ("not_enough_known",))
    assert verdict(declined(charge_id=""), charge()) == (None, ("not_enough_known",))


def test_ten_refunds_are_all_that_amazon_takes() -> None:
    ten = {f"r{number}": entry(100, "Refunded") for number in range(10)}
    assert verdict(declined(), charge(), **ten) == (False, ("too_many_refunds",))


def test_a_reservation_that_may_be_its_own_is_no_reason() -> None:
    """A decline that is heard before the answer to its own Create Refund."""
    own = {reservation("a" * 64): entry(1400, "Reserved", began=NOW - 2 * DAY)}
    found = judge(declined(first_seen_at=NOW - DAY), KnownCharge(entries=own, charge=charge()), NOW)
    assert found is not None
    assert (found.value, found.reasons) == (None, ())


DISPUTE = Dispute(dispute_id="S01-1111111-1111111-B000001", charge_permission_id="S01-1111111-1111111")
OBSTACLES: dict[str, tuple[KnownCharge, tuple[str, ...]]] = {
    "none": (KnownCharge(charge=charge()), ()),
    "part of it refunded": (KnownCharge({OTHER: entry(1_400, "Refunded")}, charge=charge()), ()),
    "not captured": (KnownCharge(charge=charge(state="Authorized")), ("charge_not_captured",)),
    "canceled, refunded": (KnownCharge(charge=charge(refunded="100.00", state="Canceled")), ("charge_not_captured",)),
    "disputed": (KnownCharge(disputes=(DISPUTE,), charge=charge()), ("buyer_may_be_paid",)),
    "in conflict": (
        KnownCharge({OTHER: entry(1_400, "Declined", conflict=True)}, charge=charge()),
        ("charge_in_conflict",),
    ),
    "ten refunds": (
        KnownCharge({f"R{number}": entry(1, "Refunded") for number in range(MOST_REFUNDS)}, charge=charge()),
        ("too_many_refunds",),
    ),
    "ten declined": (
        KnownCharge({f"R{number}": entry(1, "Declined") for number in range(MOST_REFUNDS)}, charge=charge()),
        (),
    ),
    "all refunded": (KnownCharge({OTHER: entry(10_000, "Refunded")}, charge=charge()), ("nothing_left",)),
    "all refunded elsewhere": (KnownCharge(charge=charge(refunded="100.00")), ("nothing_left",)),
    "unknown amount": (KnownCharge({OTHER: entry(None, "Refunded")}, charge=charge()), ("not_enough_known",)),
    "two explanations": (
        KnownCharge({OTHER: entry(1_400, "RefundInitiated")}, charge=charge(refunded="14.00")),
        ("not_enough_known",),
    ),
    "never described": (KnownCharge({OTHER: entry(1_400, "Refunded")}), ("not_enough_known",)),
    "damaged": (KnownCharge(charge=charge(), readable=False), ("charge_unreadable",)),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_what_prevents_a_refund_of_all_that_is_left(case: str) -> None:
    known, reasons = OBSTACLES[case]
    assert obstacles(CHARGE, known) == reasons


def test_the_json_of_a_charge_divides_it_among_its_refunds() -> None:
    """Each sum beside Amazon's; refunds with the latest change first; requests apart; missing records by their id."""
    first = declined(state="Refunded", changed_at=NOW - DAY)
    second = declined(refund_id=OTHER, state="RefundInitiated", amount=money("6.00"))
    book = {
        REFUND: entry(1_400, "Refunded"),
        OTHER: entry(600, "RefundInitiated"),
        "S01-1111111-1111111-R000009": entry(100, "Refunded"),
        reservation("a" * 64): entry(1_000, "Reserved"),
    }
    known = KnownCharge(book, disputes=(DISPUTE,), charge=charge(refunded="15.00"))
    found = charge_json("us", CHARGE, known, [first, second], "amazon_timeout")
    shown = msgspec.to_builtins(found)
    amounts = {name: each and each["amount"] for name, each in shown["known"].items()}
    assert amounts == {"refunded": "15.00", "pending": "6.00", "reserved": "10.00", "inConflict": "0.00"}
    names = ("captureAmount", "refundedAmount", "refundable", "refundableWithAllowance")
    assert [shown[name]["amount"] for name in names] == ["100.00", "15.00", "69.00", "84.00"]
    assert [each["refundId"] for each in shown["refunds"]] == [OTHER, REFUND]
    assert [each["refundRequestId"] for each in shown["reservations"]] == ["a" * 64]
    assert shown["unreadable"] == ["S01-1111111-1111111-R000009"]
    assert [each["disputeId"] for each in shown["disputes"]] == [DISPUTE.dispute_id]
    assert (shown["refundCount"], shown["mostRefunds"]) == (4, MOST_REFUNDS)
    assert (shown["refreshError"], shown["refundableReasons"]) == ("amazon_timeout", ["buyer_may_be_paid"])


def test_the_json_of_a_charge_guesses_nothing() -> None:
    """What is not known is null: without Amazon's description, with a damaged book, and of a charge not captured."""
    unseen = charge_json("us", CHARGE, KnownCharge({OTHER: entry(None, "Refunded")}), [])
    assert (unseen.state, unseen.capture_amount, unseen.refundable, unseen.charge_read_at) == (None, None, None, None)
    assert unseen.known.refunded is None
    assert unseen.known.pending is not None
    damaged = charge_json("us", CHARGE, KnownCharge(charge=charge(), readable=False), [])
    assert damaged.capture_amount is not None
    assert (damaged.refundable, damaged.refund_count, damaged.known.refunded) == (None, None, None)
    canceled = charge_json("us", CHARGE, KnownCharge(charge=charge(state="Canceled")), [])
    assert (canceled.refundable, canceled.refundable_with_allowance) == (None, None)
    assert charge_json("us", CHARGE, KnownCharge(), []).known.refunded is None, "in no currency"

"""Disputes: when they are open, what they concern, and what several notifications say together."""

from __future__ import annotations

import itertools
from decimal import Decimal
from functools import reduce

import msgspec
import pytest

from receiver.ledger.dispute import Dispute, joined, may_be_paid, open_on, permission_of, signed
from receiver.ledger.money import Money
from tests.kit.clock import T0

PERMISSION = "S01-5105180-3221187"
CHARGE = f"{PERMISSION}-C056351"
DISPUTE = Dispute(dispute_id=f"{PERMISSION}-B000001", charge_permission_id=PERMISSION)


@pytest.mark.parametrize(
    ("state", "resolution", "is_open"),
    [
        ("", "", True),
        ("UnderReview", "", True),
        ("ActionRequired", "", True),
        ("Resolved", "MerchantWon", False),
        ("Closed", "MerchantWon", False),
        ("Resolved", "BuyerWon", True),
        ("Closed", "NoFault", True),
        ("Closed", "", True),
        ("UnderReview", "MerchantWon", True),
        ("Reopened", "MerchantWon", True),
    ],
)
def test_only_a_dispute_that_the_merchant_has_won_is_over(state: str, resolution: str, is_open: bool) -> None:
    """In every other case the buyer may have the money."""
    assert msgspec.structs.replace(DISPUTE, state=state, resolution=resolution).is_open is is_open
    assert msgspec.structs.replace(DISPUTE, told_state="RESOLVED").is_open


def test_a_dispute_concerns_its_charge_or_all_of_them() -> None:
    """Where the charge is not told, it may be any of the charge permission."""
    other = msgspec.structs.replace(DISPUTE, charge_id=f"{PERMISSION}-C000002")
    assert open_on(CHARGE, [other, DISPUTE]) == [DISPUTE]
    won = msgspec.structs.replace(DISPUTE, state="Resolved", resolution="MerchantWon")
    assert open_on(CHARGE, [won]) == []


@pytest.mark.parametrize("text", [PERMISSION, CHARGE, f"{PERMISSION}-R022311", f"{PERMISSION}-B000001"])
def test_every_id_begins_with_its_charge_permission(text: str) -> None:
    """19 characters of all of Amazon's ids."""
    assert permission_of(text) == PERMISSION


def test_several_notifications_say_the_same_in_any_order() -> None:
    """The newest that tells a fact counts; one that does not tell it takes nothing away."""
    first = signed(msgspec.structs.replace(DISPUTE, reason="Fraud", amount=Money(Decimal(5), "USD")), "m1", T0)
    second = signed(msgspec.structs.replace(DISPUTE, told_state="RECEIVED"), "m2", T0 + 1_000)
    third = signed(msgspec.structs.replace(DISPUTE, reason="Service", charge_id=CHARGE), "m3", T0 + 2_000)
    found = {reduce(joined, order) for order in itertools.permutations([first, second, third])}
    assert found == {
        msgspec.structs.replace(
            DISPUTE,
            amount=Money(Decimal(5), "USD"),
            reason="Service",
            told_state="RECEIVED",
            charge_id=CHARGE,
            first_told_at=T0,
            told_at=T0 + 2_000,
        )
    }
    assert joined(first, first) == first


def test_one_without_a_name_is_named_after_its_message() -> None:
    """So that two of them are two."""
    nameless = msgspec.structs.replace(DISPUTE, dispute_id="")
    assert signed(nameless, "m1", T0).dispute_id == "unnamed-m1"
    assert signed(DISPUTE, "m1", T0).dispute_id == DISPUTE.dispute_id


def test_it_is_named_to_people() -> None:
    """Which dispute, how much, why and since when."""
    dispute = msgspec.structs.replace(
        DISPUTE, kind="A-to-z claim", amount=Money(Decimal("20"), "USD"), reason="Fraud", first_told_at=T0
    )
    text = may_be_paid([dispute, DISPUTE])
    assert f"an A-to-z claim ({DISPUTE.dispute_id}, 20.00 USD, Fraud, " in text
    assert f"a chargeback ({DISPUTE.dispute_id})" in text
    assert may_be_paid([]).startswith("Amazon reported a dispute that")

"""Disputes: when they are open, what they concern, and what several notifications say together."""

from __future__ import annotations

import itertools
from decimal import Decimal
from functools import reduce
from typing import Any

import msgspec
import pytest

from receiver.ledger.dispute import (
    Dispute,
    DisputeChange,
    DisputeObservation,
    dispute_json,
    guarding,
    joined,
    learned,
    may_be_paid,
    permission_of,
    signed,
    standing,
)
from receiver.ledger.money import Money
from receiver.ledger.refund import Unread
from tests.kit.clock import T0

PERMISSION = "S01-5105180-3221187"
CHARGE = f"{PERMISSION}-C056351"
DISPUTE = Dispute(dispute_id=f"{PERMISSION}-B000001", charge_permission_id=PERMISSION)


@pytest.mark.parametrize(
    ("state", "resolution", "is_open", "guards"),
    [
        ("", "", True, True),
        ("UnderReview", "", True, True),
        ("ActionRequired", "", True, True),
        ("Resolved", "MerchantWon", False, False),
        ("Closed", "MerchantWon", False, False),
        ("Resolved", "NoFault", False, False),
        ("Closed", "NoFault", False, False),
        ("Resolved", "BuyerWon", False, True),
        ("Closed", "", False, True),
        ("Resolved", "Shared", False, True),
        ("UnderReview", "MerchantWon", True, True),
        ("Reopened", "MerchantWon", True, True),
    ],
)
def test_a_dispute_guards_until_it_is_certain_that_the_buyer_has_nothing_from_it(
    state: str, resolution: str, is_open: bool, guards: bool
) -> None:
    """In every other case the buyer may have the money. A notification never says who won."""
    dispute = msgspec.structs.replace(DISPUTE, state=state, resolution=resolution)
    assert (dispute.is_open, dispute.guards) == (is_open, guards)
    shown = dispute_json(dispute)
    assert (shown.open, shown.blocks_refunds) == (is_open, guards)
    assert msgspec.structs.replace(DISPUTE, told_state="RESOLVED").guards


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "open"),
        ({"state": "UnderReview", "deadline": T0}, "open"),
        ({"state": "ActionRequired"}, "open"),
        ({"state": "ActionRequired", "deadline": T0}, "open, answer by 2025-10-09 08:53 UTC"),
        ({"state": "Resolved", "resolution": "MerchantWon"}, "won by the merchant"),
        ({"state": "Closed", "resolution": "BuyerWon"}, "won by the buyer"),
        ({"state": "Closed", "resolution": "NoFault"}, "ended without a fault"),
        ({"state": "Closed"}, "ended, outcome unknown"),
        ({"state": "Closed", "resolution": "NoFault", "told_at": T0}, "ended without a fault, but reported again"),
    ],
)
def test_how_it_stands_is_said_to_people(change: dict[str, Any], words: str) -> None:
    """On the timeline, in lists, and in the warning."""
    dispute = msgspec.structs.replace(DISPUTE, **change)
    assert standing(dispute) == words
    assert (words in may_be_paid([dispute])) is bool(change)


def test_a_dispute_concerns_its_charge_or_all_of_them() -> None:
    """If the charge is not named, it may be any of the charge permission."""
    other = msgspec.structs.replace(DISPUTE, charge_id=f"{PERMISSION}-C000002")
    assert guarding(CHARGE, [other, DISPUTE]) == [DISPUTE]
    won = msgspec.structs.replace(DISPUTE, state="Resolved", resolution="MerchantWon")
    assert guarding(CHARGE, [won]) == []


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


SEEN = DisputeObservation(
    dispute_id=DISPUTE.dispute_id,
    state="ActionRequired",
    reason_code="MerchantResponseRequired",
    charge_id=CHARGE,
    amount=Money(Decimal(400), "USD"),
    reason="Fraudulent",
    deadline=T0 + 11 * 86_400_000,
    created_at=T0,
    updated_at=T0 + 5_000,
)


def test_an_answer_fills_what_the_notification_did_not_say() -> None:
    """And it is written down when what changed."""
    known = msgspec.structs.replace(DISPUTE, told_at=T0, failure="amazon_refuses_us", failures=3, told_state="RECEIVED")
    found = learned(known, SEEN, T0 + 9_000)
    assert found == msgspec.structs.replace(
        known,
        state="ActionRequired",
        reason_code="MerchantResponseRequired",
        charge_id=CHARGE,
        amount=Money(Decimal(400), "USD"),
        reason="Fraudulent",
        deadline=T0 + 11 * 86_400_000,
        created_at=T0,
        updated_at=T0 + 5_000,
        asked_at=T0 + 9_000,
        failure="",
        failures=0,
        changes=(DisputeChange(T0 + 9_000, "ActionRequired", "", "MerchantResponseRequired", SEEN.deadline),),
    )
    again = learned(found, SEEN, T0 + 20_000)
    assert again == msgspec.structs.replace(found, asked_at=T0 + 20_000)


def test_the_latest_state_counts_and_takes_the_earlier_one_whole() -> None:
    """A late older answer changes nothing of it. What a state no longer has is gone."""
    found = learned(DISPUTE, SEEN, T0)
    end = msgspec.structs.replace(
        SEEN, state="Resolved", resolution="MerchantWon", reason_code="", deadline=0, updated_at=T0 + 6_000, reason=""
    )
    ended = learned(found, end, T0 + 1)
    assert (ended.state, ended.resolution, ended.reason_code, ended.deadline) == ("Resolved", "MerchantWon", "", 0)
    assert (ended.reason, ended.guards) == ("Fraudulent", False)
    late = learned(ended, SEEN, T0 + 2)
    assert late == msgspec.structs.replace(ended, asked_at=T0 + 2)
    # Where Amazon gives no time, or the same one, the answer that came last counts.
    for updated_at in (0, T0 + 6_000):
        reopened = learned(ended, msgspec.structs.replace(SEEN, updated_at=updated_at), T0 + 3)
        assert (reopened.state, reopened.guards, reopened.updated_at) == ("ActionRequired", True, T0 + 6_000)


def test_what_cannot_be_read_never_opens_the_way() -> None:
    """An unreadable resolution is unknown; an unreadable deadline keeps the known one; no foreign charge is taken."""
    found = learned(DISPUTE, SEEN, T0)
    unread = msgspec.structs.replace(SEEN, deadline=0, unread=(Unread("merchantResponseDeadline", "bad_timestamp"),))
    assert learned(found, unread, T0 + 1).deadline == SEEN.deadline
    won = learned(found, msgspec.structs.replace(SEEN, state="Resolved", resolution="MerchantWon"), T0 + 1)
    garbled = msgspec.structs.replace(SEEN, state="Resolved", unread=(Unread("resolution", "bad_word"),))
    assert learned(won, garbled, T0 + 2).guards
    foreign = msgspec.structs.replace(SEEN, charge_id="S01-0000000-0000000-C000001")
    assert learned(DISPUTE, foreign, T0).charge_id == ""


def test_a_notification_takes_nothing_from_what_amazon_answered() -> None:
    """Whichever of the two is written first."""
    told = signed(DISPUTE, "m2", T0 + 50_000)
    known = learned(signed(DISPUTE, "m1", T0), SEEN, T0 + 9_000)
    assert joined(known, told) == msgspec.structs.replace(known, told_at=T0 + 50_000)
    assert joined(told, known) == joined(known, told)


def test_a_dispute_that_is_reported_after_its_end_guards_again() -> None:
    """Until Amazon has answered once more."""
    ended = msgspec.structs.replace(DISPUTE, state="Resolved", resolution="MerchantWon", told_at=T0, asked_at=T0)
    assert not ended.guards
    again = joined(ended, signed(DISPUTE, "m2", T0 + 1))
    assert (again.is_open, again.guards, dispute_json(again).blocks_refunds) == (False, True, True)
    seen = msgspec.structs.replace(SEEN, state="Resolved", resolution="MerchantWon")
    assert not learned(again, seen, T0 + 1).guards

"""Get Dispute: how the call is made, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings

from receiver.amazon.calls import Endpoint, Region, get_dispute, read_dispute
from receiver.errors import (
    AmazonError,
    AmazonNotFound,
    AmazonOutcomeUnknown,
    AmazonRefusesUs,
    AmazonThrottled,
    BadRequest,
)
from receiver.exchange import Response
from receiver.ledger.age import DAY
from receiver.ledger.dispute import Dispute, DisputeObservation, dispute_json, standing
from receiver.ledger.money import Money
from receiver.ledger.next_look import after_dispute
from receiver.ledger.refund import Unread
from tests.amazon.examples import CHARGE_ID, DISPUTE, DISPUTE_ID, answer
from tests.amazon.test_odd_fields import VALUES
from tests.kit.clock import T0


def changed(**members: Any) -> Response:
    return answer({**DISPUTE, **members})


def status(**members: Any) -> Response:
    return changed(statusDetails={**DISPUTE["statusDetails"], **members})


def test_it_is_asked_for_by_its_id() -> None:
    """Where the path names the environment, and where the key does."""
    live = Endpoint(Region.EU, "live", "LIVE-AG3EXAMPLE0000000000000")
    request = get_dispute(live, DISPUTE_ID)
    assert (request.method, request.url) == ("GET", f"https://pay-api.amazon.eu/v2/disputes/{DISPUTE_ID}")
    named = get_dispute(Endpoint(Region.NA, "sandbox", "AG3EXAMPLE0000000000000"), DISPUTE_ID)
    assert named.url == f"https://pay-api.amazon.com/sandbox/v2/disputes/{DISPUTE_ID}"
    with pytest.raises(BadRequest):
        get_dispute(live, "../refunds")


def test_a_dispute_is_read_whole() -> None:
    """Every field that Amazon's page documents and we use."""
    assert read_dispute(answer(DISPUTE), DISPUTE_ID) == DisputeObservation(
        dispute_id=DISPUTE_ID,
        state="ActionRequired",
        reason_code="MerchantResponseRequired",
        charge_id=CHARGE_ID,
        amount=Money(Decimal(400), "USD"),
        reason="Fraudulent",
        deadline=T0 + 11 * DAY,
        created_at=T0 - 1_000,
        updated_at=T0,
        environment="Sandbox",
    )
    ended = read_dispute(status(state="Resolved", resolution="BuyerWon"))
    assert (ended.state, ended.resolution) == ("Resolved", "BuyerWon")


def test_the_id_and_the_state_are_enough() -> None:
    """All else may be absent."""
    found = read_dispute(answer({"disputeId": DISPUTE_ID, "statusDetails": {"state": "UnderReview"}}))
    assert found == DisputeObservation(dispute_id=DISPUTE_ID, state="UnderReview")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {**DISPUTE, "disputeId": None},
        {**DISPUTE, "disputeId": "a b"},
        {**DISPUTE, "statusDetails": None},
        {**DISPUTE, "statusDetails": {"state": ""}},
        {**DISPUTE, "statusDetails": {"state": "Merchant won"}},
        [DISPUTE],
        b"<html>",
    ],
)
def test_without_them_the_answer_is_unintelligible(body: object) -> None:
    """Then it says nothing about the dispute."""
    with pytest.raises(AmazonOutcomeUnknown) as caught:
        read_dispute(answer(body))
    assert caught.value.reason == "amazon_unintelligible"


def test_an_answer_about_another_dispute_is_not_ours() -> None:
    """Whatever it says."""
    with pytest.raises(AmazonOutcomeUnknown) as caught:
        read_dispute(answer(DISPUTE), "S01-5105180-3221187-B000002")
    assert caught.value.reason == "amazon_wrong_dispute"


@pytest.mark.parametrize(
    ("response", "unread"),
    [
        (status(resolution={"who": "MerchantWon"}), Unread("resolution", "not_a_text")),
        (status(resolution="Merchant won"), Unread("resolution", "bad_word")),
        (status(reasonCode=3), Unread("reasonCode", "not_a_text")),
        (status(lastUpdatedTimestamp="today"), Unread("lastUpdatedTimestamp", "bad_timestamp")),
        (changed(merchantResponseDeadline="20251131T000000Z"), Unread("merchantResponseDeadline", "bad_timestamp")),
        (changed(chargeId="C" * 65), Unread("chargeId", "bad_id")),
        (changed(disputeAmount=400), Unread("disputeAmount", "not_an_object")),
        (changed(filingReason=["Fraudulent"]), Unread("filingReason", "not_a_text")),
    ],
)
def test_a_field_that_cannot_be_read_is_empty_and_noted(response: Response, unread: Unread) -> None:
    """And hides neither the id nor the state."""
    found = read_dispute(response, DISPUTE_ID)
    assert found.unread == (unread,)
    assert found.state == "ActionRequired"


REFUSALS: list[tuple[int, dict[str, str], type[AmazonError]]] = [
    (401, {"reasonCode": "UnauthorizedAccess"}, AmazonRefusesUs),
    (403, {"reasonCode": "InvalidAccountStatus"}, AmazonRefusesUs),
    (403, {"reasonCode": "ResourceNotFound"}, AmazonRefusesUs),
    (400, {"reasonCode": "RequestNotSupported"}, AmazonRefusesUs),
    (404, {"reasonCode": "ResourceNotFound"}, AmazonNotFound),
    (429, {"reasonCode": "TooManyRequests"}, AmazonThrottled),
    (500, {"reasonCode": "InternalServerError"}, AmazonOutcomeUnknown),
]


@pytest.mark.parametrize(("code", "body", "error"), REFUSALS)
def test_a_refusal_is_never_a_word_about_the_dispute(code: int, body: dict[str, str], error: type[AmazonError]) -> None:
    """Even one that holds a whole dispute which the merchant won."""
    won = {**DISPUTE, "statusDetails": {"state": "Resolved", "resolution": "MerchantWon"}}
    for told in (body, {**won, **body}):
        with pytest.raises(error):
            read_dispute(answer(told, code), DISPUTE_ID)


PLACES: list[tuple[str, ...]] = [
    *((name,) for name in DISPUTE if name not in ("disputeId", "statusDetails")),
    *(("statusDetails", name) for name in DISPUTE["statusDetails"] if name != "state"),
    *(("disputeAmount", name) for name in DISPUTE["disputeAmount"]),
]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
@given(value=VALUES)
@settings(max_examples=40)
def test_no_value_of_any_field_breaks_the_reading_or_takes_the_guard(place: tuple[str, ...], value: object) -> None:
    """Only an end that Amazon reports removes the guard."""

    def put(members: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        first, *rest = names
        return {**members, first: put(members[first], tuple(rest)) if rest else value}

    read: Callable[[], DisputeObservation] = lambda: read_dispute(answer(put(DISPUTE, place)), DISPUTE_ID)  # noqa: E731
    try:
        found = read()
    except ValueError:
        return  # JSON cannot hold it
    known = Dispute(dispute_id=DISPUTE_ID, charge_permission_id="S01-5105180-3221187", told_at=T0)
    look = after_dispute(known, found, T0, 0.5)
    assert look.dispute.guards
    assert look.dispute.charge_id in ("", CHARGE_ID) or look.dispute.charge_id.startswith("S01-5105180-3221187")
    assert look.at is not None
    assert standing(look.dispute)
    assert dispute_json(look.dispute).blocks_refunds

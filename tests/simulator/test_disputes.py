"""Disputes of the simulator: opened and moved by hand, announced, and answered by Get Dispute as Amazon's page says."""

from __future__ import annotations

import json

import pytest

from receiver.simulator.amounts import Amount
from receiver.simulator.app import Simulator
from receiver.simulator.faults import Fault
from tests.kit.clock import T0, ManualClock
from tests.simulator.conftest import Client, Inbox, until

CHARGE = "S01-0000001-0000001-C000001"
PERMISSION = "S01-0000001-0000001"


async def test_a_dispute_from_the_filing_to_the_end(
    amazon: Simulator, client: Client, clock: ManualClock, inbox: Inbox
) -> None:
    """Each step sends a notification that does not describe it; Get Dispute does."""
    status, opened = await client.control("POST", "/disputes", {"chargeId": CHARGE})
    assert status == 201
    dispute_id = str(opened["disputeId"])
    assert dispute_id.startswith(f"{PERMISSION}-B")
    status, found = await client.call("GET", f"/v2/disputes/{dispute_id}")
    assert status == 200
    assert found == opened == {
        "disputeId": dispute_id,
        "releaseEnvironment": "Sandbox",
        "chargeId": CHARGE,
        "disputeType": "Chargeback",
        "disputeAmount": {"amount": "100.00", "currencyCode": "USD"},
        "filingReason": "Fraudulent",
        "statusDetails": {
            "state": "ActionRequired",
            "reasonCode": "MerchantResponseRequired",
            "reasonDescription": None,
            "resolution": None,
            "lastUpdatedTimestamp": "20251009T085320Z",
        },
        "merchantEvidences": [],
        "merchantResponseDeadline": "20251020T085320Z",
        "resolutionAuthority": "AmazonPay",
        "creationTimestamp": "20251009T085320Z",
    }  # fmt: skip
    clock.tick(1_000)
    move = {"state": "Resolved", "resolution": "MerchantWon"}
    status, moved = await client.control("POST", f"/disputes/{dispute_id}", move)
    assert status == 200
    assert moved["merchantResponseDeadline"] is None
    assert moved["statusDetails"] == {
        "state": "Resolved",
        "reasonCode": "InvestigatorResolved",
        "reasonDescription": None,
        "resolution": "MerchantWon",
        "lastUpdatedTimestamp": "20251009T085321Z",
    }
    await until(lambda: len(inbox.bodies) == 2)
    messages = [json.loads(envelope["Message"]) for envelope in inbox.envelopes]
    assert {(each["ObjectType"], each["ObjectId"], each["ChargePermissionId"]) for each in messages} == {
        ("CHARGEBACK", dispute_id, PERMISSION)
    }
    assert await client.control("GET", "/disputes") == (200, {"disputes": [moved]})


async def test_the_fields_of_a_dispute_are_chosen(amazon: Simulator, client: Client) -> None:
    """A part of the charge, another reason, another state; a time to answer, or none."""
    values = {"chargeId": CHARGE, "amount": "40.00", "currencyCode": "USD", "filingReason": "ProductNotReceived"}
    _, found = await client.control("POST", "/disputes", {**values, "state": "UnderReview", "answerWithin": None})
    assert (found["disputeAmount"], found["filingReason"]) == (Amount(4_000, "USD").json(), "ProductNotReceived")
    assert found["merchantResponseDeadline"] is None
    answer = {"state": "ActionRequired", "answerWithin": 60}
    _, moved = await client.control("POST", f"/disputes/{found['disputeId']}", answer)
    assert moved["merchantResponseDeadline"] == "20251009T085420Z"


@pytest.mark.parametrize(
    ("values", "status", "code"),
    [
        ({}, 400, "MissingParameterValue"),
        ({"chargeId": "S01-0000001-0000001-C999999"}, 404, "ResourceNotFound"),
        ({"chargeId": CHARGE, "state": "Lost"}, 400, "InvalidParameterValue"),
        ({"chargeId": CHARGE, "answerWithin": "soon"}, 400, "InvalidParameterValue"),
        ({"chargeId": CHARGE, "amount": "x", "currencyCode": "USD"}, 400, "InvalidParameterValue"),
        ({"chargeId": CHARGE, "odd": 1}, 400, "UnrecognizedField"),
    ],
)
async def test_an_impossible_dispute_is_refused(
    amazon: Simulator, client: Client, values: dict[str, object], status: int, code: str
) -> None:
    """With the field that is wrong, and nothing is announced."""
    found = await client.control("POST", "/disputes", values)
    assert (found[0], found[1]["reasonCode"]) == (status, code)
    await amazon.idle()
    assert list(amazon.posted) == []


def test_only_an_end_has_a_resolution(amazon: Simulator) -> None:
    """And only one of Amazon's three."""
    dispute = amazon.disputes.open(CHARGE)
    for state, resolution in (("UnderReview", "BuyerWon"), ("Closed", "Draw")):
        with pytest.raises(Fault):
            amazon.disputes.move(dispute.dispute_id, state, resolution)
    assert amazon.disputes.move(dispute.dispute_id, "Closed").updated_at == T0


async def test_a_key_can_be_without_the_right(amazon: Simulator, client: Client) -> None:
    """To this call alone; an unknown dispute is 404."""
    dispute = amazon.disputes.open(CHARGE)
    amazon.fault_injection.add("refuse", kind="access", place="get_dispute", times=None)
    for _ in range(2):
        status, found = await client.call("GET", f"/v2/disputes/{dispute.dispute_id}")
        assert (status, found["reasonCode"]) == (401, "UnauthorizedAccess")
    assert (await client.call("GET", f"/v2/charges/{CHARGE}"))[0] == 200
    amazon.fault_injection.clear()
    assert (await client.call("GET", f"/v2/disputes/{dispute.dispute_id}"))[0] == 200
    assert (await client.call("GET", f"/v2/disputes/{PERMISSION}-B999999"))[0] == 404


async def test_a_wrong_dispute_and_a_repeated_notification(amazon: Simulator, client: Client) -> None:
    """The faults of refunds are also those of disputes."""
    dispute_id = amazon.disputes.open(CHARGE).dispute_id
    amazon.fault_injection.add("wrong_refund", place="get_dispute")
    _, found = await client.call("GET", f"/v2/disputes/{dispute_id}")
    assert found["disputeId"] == f"{PERMISSION}-B999999"
    await amazon.idle()
    amazon.fault_injection.add("drop", refund_id=dispute_id, state="UnderReview")
    amazon.disputes.move(dispute_id, "UnderReview")
    await amazon.idle()
    first, dropped = amazon.posted
    assert (first.about, first.state, dropped.state, dropped.status) == (
        dispute_id,
        "ActionRequired",
        "UnderReview",
        None,
    )
    again = await amazon.repeat(dispute_id)
    assert again is not None
    assert again.status == 200

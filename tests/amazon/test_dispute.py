"""What a notification says about a dispute: everything readable is kept, and unreadable fields prevent nothing."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from receiver.amazon.dispute import kind_of
from receiver.amazon.notification import read_notice
from receiver.errors import Malformed
from receiver.ledger.dispute import Dispute
from receiver.ledger.money import Money
from receiver.ledger.timestamps import parse_time
from tests.kit.sns import notice

PERMISSION = "P01-7128087-7259534"
DETAILS = f"""<AmazonChargebackId>C9KORZRXQ655G</AmazonChargebackId>
<AmazonOrderReferenceId>{PERMISSION}</AmazonOrderReferenceId>
<AmazonCaptureReferenceId>CaptureReference6282176</AmazonCaptureReferenceId>
<CreationTimestamp>2017-08-23T12:20:56.061Z</CreationTimestamp>
<ChargebackAmount><Amount>100.0</Amount><CurrencyCode>USD</CurrencyCode></ChargebackAmount>
<ChargebackState>RECEIVED</ChargebackState>
<ChargebackReason>Generic Service Chargeback</ChargebackReason>"""


def xml(details: str = DETAILS, head: str = '<?xml version="1.0" encoding="UTF-8"?>') -> str:
    space = "https://mws.amazonservices.com/ipn/OffAmazonPayments/2013-01-01"
    return (
        f'{head}<ChargebackNotification xmlns="{space}"><ChargebackDetails>{details}</ChargebackDetails>'
        "</ChargebackNotification>"
    )


def v1(data: object, notification_type: str = "ChargebackDetailedNotification") -> str:
    fields = {
        "ReleaseEnvironment": "Live",
        "NotificationType": notification_type,
        "SellerId": "A08593053M41F7TQ7YR7W",
        "NotificationReferenceId": "9bc8ec61-da88-4b63-b201-dc7afeaae764",
        "NotificationData": data,
    }
    return json.dumps(fields)


def v2(**more: object) -> str:
    fields: dict[str, object] = {
        "ObjectType": "CHARGEBACK",
        "ObjectId": "S01-0000000-0000000-B000000",
        "ChargePermissionId": "S01-0000000-0000000",
    }
    return notice(**{**fields, **more})


def told(message: str) -> Dispute:
    found = read_notice(message).dispute
    assert found is not None
    return found


def test_a_json_notification_names_the_dispute_and_its_charge_permission() -> None:
    """The example of Amazon's page on disputes."""
    assert told(v2()) == Dispute(
        dispute_id="S01-0000000-0000000-B000000", charge_permission_id="S01-0000000-0000000", kind="chargeback"
    )
    assert not read_notice(v2()).is_refund


@pytest.mark.parametrize("notification_type", ["ChargebackDetailedNotification", "Chargeback Detailed Notification"])
def test_an_xml_notification_tells_more(notification_type: str) -> None:
    """A real one of 2017, in both spellings of its type. The capture's id in it is the merchant's own."""
    assert told(v1(xml(), notification_type)) == Dispute(
        dispute_id="C9KORZRXQ655G",
        charge_permission_id=PERMISSION,
        kind="chargeback",
        amount=Money(Decimal("100.0"), "USD"),
        reason="Generic Service Chargeback",
        told_state="RECEIVED",
        created_at=parse_time("2017-08-23T12:20:56.061Z"),
    )


@pytest.mark.parametrize(
    ("more", "charge"),
    [
        ({"ChargeId": "S01-0000000-0000000-C000001"}, "S01-0000000-0000000-C000001"),
        ({"ObjectId": "S01-0000000-0000000-C000002"}, "S01-0000000-0000000-C000002"),
        ({"ChargeId": "S01-9999999-0000000-C000001"}, ""),
        ({"ChargeId": "the merchant's own"}, ""),
    ],
)
def test_the_charge_is_known_where_an_id_of_its_form_is_told(more: dict[str, object], charge: str) -> None:
    """An id of another charge permission, or of no form of Amazon's, proves nothing: any charge may be meant."""
    assert told(v2(**more)).charge_id == charge


@pytest.mark.parametrize(
    ("details", "field", "value"),
    [
        (DETAILS.replace("100.0", "a lot"), "amount", None),
        (DETAILS.replace("USD", ""), "amount", None),
        (DETAILS.replace("2017-08-23T12:20:56.061Z", "yesterday"), "created_at", 0),
        (DETAILS.replace("C9KORZRXQ655G", "two words"), "dispute_id", ""),
        (DETAILS.replace("C9KORZRXQ655G", ""), "dispute_id", ""),
        (DETAILS.replace("Generic Service Chargeback", "x" * 5_000), "reason", "x" * 127 + "…"),
        (DETAILS.replace("RECEIVED", ""), "told_state", ""),
        (DETAILS.replace(PERMISSION, f"{PERMISSION}-C000001"), "charge_id", ""),
        (f"<More><Even>{DETAILS}</Even></More>", "dispute_id", "C9KORZRXQ655G"),
    ],
)
def test_what_cannot_be_read_costs_nothing_else(details: str, field: str, value: Any) -> None:
    """The dispute is known by its charge permission in any case."""
    found = told(v1(xml(details)))
    assert (found.charge_permission_id, getattr(found, field)) == (PERMISSION, value)


@pytest.mark.parametrize(
    "message",
    [
        v1(xml(head="\n <?xml version='1.0'?>")),
        v1(xml()[:-40]),
        v1(xml(head='<!DOCTYPE x [<!ENTITY a "b">]>')),
        v1(f"The order {PERMISSION} is disputed."),
        v1({"Order": [PERMISSION]}),
        v1(xml(DETAILS.replace("AmazonOrderReferenceId", "Order"))),
        v1(xml(DETAILS.replace(PERMISSION, PERMISSION.lower()))),
        v2(ObjectId=None, ChargePermissionId=PERMISSION),
        v2(ObjectId=["odd"], ChargePermissionId=PERMISSION),
        v2(ObjectId=f"{PERMISSION}-B000001", ChargePermissionId=None),
        v2(ObjectId="B000001", ChargePermissionId={"odd": 1}, Note=f"{PERMISSION}-C000001"),
    ],
)
def test_a_charge_permission_anywhere_in_the_message_is_enough(message: str) -> None:
    """Whatever its form: a dispute that is dropped is a buyer who is paid twice."""
    assert told(message).charge_permission_id == PERMISSION


@pytest.mark.parametrize("message", [v2(ObjectId="B000001", ChargePermissionId=None), v1("<no xml"), v1(None)])
def test_a_dispute_about_nothing_is_not_understood(message: str) -> None:
    """It is then kept as every message that is not understood."""
    with pytest.raises(Malformed) as caught:
        read_notice(message)
    assert caught.value.reason == "notice_unreadable"


def test_a_test_message_of_seller_central_is_no_dispute() -> None:
    """Its ids are invented."""
    assert read_notice(v2(IsSample=True)).dispute is None
    assert read_notice(v2(IsSample=True, ChargePermissionId=None, ObjectId=None)).is_sample


@pytest.mark.parametrize(
    ("told_type", "kind"),
    [
        ("CHARGEBACK", "chargeback"),
        ("CHARGEBACK_REVERSAL", "chargeback"),
        ("ChargebackDetailedNotification", "chargeback"),
        ("A_TO_Z_CLAIM", "A-to-z claim"),
        ("AToZClaimNotification", "A-to-z claim"),
        ("A-Z_GUARANTEE", "A-to-z claim"),
        ("AmazonA-ZGuaranteeClaim", "A-to-z claim"),
        ("CLAIM", "A-to-z claim"),
        ("DISPUTE", "dispute"),
        ("DISPUTE_STATE_CHANGE", "dispute"),
        ("CHARGE", ""),
        ("CHARGE_PERMISSION", ""),
        ("STATE_CHANGE", ""),
        ("REFUND", ""),
        ("PaymentCapture", ""),
    ],
)
def test_the_type_tells_the_kind(told_type: str, kind: str) -> None:
    """Amazon documents only CHARGEBACK; similar words are understood too."""
    assert kind_of(told_type) == kind


def test_a_charge_whose_notification_says_chargeback_is_disputed() -> None:
    """The object's type is the charge; the notification's type says what happened to it."""
    message = v2(
        ObjectType="CHARGE",
        ObjectId="S01-0000000-0000000-C000007",
        ChargePermissionId=None,
        NotificationType="CHARGEBACK",
    )
    found = told(message)
    assert (found.charge_permission_id, found.charge_id) == ("S01-0000000-0000000", "S01-0000000-0000000-C000007")
    assert read_notice(v2(ObjectType="REFUND", NotificationType="CHARGEBACK")).dispute is None

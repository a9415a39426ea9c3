"""The message inside: which object of which merchant it names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.amazon.notification import Notice, read_notice
from receiver.errors import Malformed
from receiver.ledger.refund import is_theirs
from tests.kit.sns import MERCHANT, REFUND_ID, notice

XML = """<?xml version="1.0" encoding="UTF-8"?><RefundNotification \
xmlns="https://mws.amazonservices.com/ipn/OffAmazonPayments/2013-01-01">
    <RefundDetails>
        <AmazonRefundId>S02-8274313-3487267-R019346</AmazonRefundId>
        <RefundReferenceId>aed9ba8b</RefundReferenceId>
        <RefundType>SellerInitiated</RefundType>
        <RefundStatus><State>Completed</State></RefundStatus>
    </RefundDetails>
</RefundNotification>"""


def v1(data: object = XML, **overrides: object) -> str:
    fields = {
        "ReleaseEnvironment": "Sandbox",
        "MarketplaceID": "136311",
        "Version": "2013-01-01",
        "NotificationType": "PaymentRefund",
        "SellerId": "AOPZVV2STP28T",
        "NotificationReferenceId": "f021fa22-bc5f-48d6-a5fa-91e1272eec51",
        "Timestamp": "2017-06-28T18:15:08.001Z",
        "NotificationData": data,
    }
    return json.dumps({**fields, **overrides})


def refuse(message: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_notice(message)
    assert caught.value.reason == "notice_unreadable"


def test_a_v2_notice_names_a_refund() -> None:
    """The example of Amazon's IPN page."""
    assert read_notice(notice()) == Notice(
        merchant_id=MERCHANT,
        object_type="REFUND",
        object_id=REFUND_ID,
        notification_type="STATE_CHANGE",
        notification_id="0b1c8f3e",
        generation=2,
    )
    assert read_notice(notice()).is_refund


@pytest.mark.parametrize("spell", [str, str.lower, str.upper, lambda name: name[0].lower() + name[1:]])
@pytest.mark.parametrize("kind", ["REFUND", "Refund", "refund"])
def test_the_case_of_keys_and_object_type_does_not_count(spell: Any, kind: str) -> None:
    """Amazon's IPN page writes `MerchantID` here and `merchantID` there; integrations have seen `Refund`."""
    fields = json.loads(notice(ObjectType=kind))
    assert read_notice(json.dumps({spell(name): value for name, value in fields.items()})) == read_notice(notice())


def test_one_name_with_two_values_is_refused() -> None:
    """Which of two merchants, or refunds, is meant must not depend on the reader."""
    refuse(notice(merchantID="A2OTHER"))
    refuse(notice(objectid="S01-0000000-0000000-R000000"))
    refuse(notice()[:-1] + f', "ObjectId": "{REFUND_ID}"}}')
    assert read_notice(notice(merchantID=MERCHANT)) == read_notice(notice())


@pytest.mark.parametrize("kind", ["CHARGE", "CHARGE_PERMISSION", "NEWS"])
def test_other_objects_are_read_tolerantly(kind: str) -> None:
    """They are only counted, so an id of theirs that we cannot use is no reason to refuse them."""
    found = read_notice(notice(ObjectType=kind))
    assert (found.object_type, found.is_refund) == (kind, False)
    assert read_notice(notice(ObjectType=kind, ObjectId={"odd": 1}, NotificationId=7)).object_id == ""


@pytest.mark.parametrize(
    "change",
    [
        {"MerchantID": None},
        {"MerchantID": ""},
        {"MerchantID": "A2 X"},
        {"MerchantID": "A2\n"},
        {"MerchantID": ["A2"]},
        {"ObjectType": None},
        {"ObjectType": 1},
        {"ObjectType": ""},
        {"ObjectType": "REFUND\n"},
        {"ObjectId": None},
        {"ObjectId": ""},
        {"ObjectId": "../../x"},
        {"ObjectId": "S01-1\n"},
        {"ObjectId": "a" * 65},
        {"ObjectId": "\ud800"},
        {"ObjectId": "S01\u2010"},
    ],
)
def test_a_refund_notice_without_a_usable_name_is_unreadable(change: dict[str, Any]) -> None:
    """Ids go into paths and keys: their form is checked here, once."""
    refuse(notice(**change))


def test_an_xml_notice_names_a_refund() -> None:
    """The shape of the real ones of 2017."""
    assert read_notice(v1()) == Notice(
        merchant_id="AOPZVV2STP28T",
        object_type="REFUND",
        object_id="S02-8274313-3487267-R019346",
        notification_type="PaymentRefund",
        notification_id="f021fa22-bc5f-48d6-a5fa-91e1272eec51",
        generation=1,
        refund_type="SellerInitiated",
        release_environment="Sandbox",
    )


@pytest.mark.parametrize("word", ["Amazon A to Z Refund", "A-to-z Guarantee", "Charge Back", "Buyer\u00a0Cancelled"])
def test_the_type_of_a_refund_is_kept_in_any_spelling(word: str) -> None:
    """The type says that the refund is not the merchant's. Without it, the refund could be retried."""
    found = read_notice(v1(XML.replace("SellerInitiated", word))).refund_type
    assert found == word.replace("\u00a0", " ")
    assert is_theirs(found)


@pytest.mark.parametrize(
    ("notification_type", "object_type"),
    [
        ("OrderReferenceNotification", "CHARGE_PERMISSION"),
        ("BillingAgreementNotification", "CHARGE_PERMISSION"),
        ("PaymentAuthorize", "CHARGE"),
        ("PaymentCapture", "CHARGE"),
        ("ProviderCredit", "PROVIDERCREDIT"),
    ],
)
def test_xml_types_have_the_names_of_v2(notification_type: str, object_type: str) -> None:
    """One vocabulary for both generations; XML that names no refund is not even parsed."""
    found = read_notice(v1("<no xml", NotificationType=notification_type))
    assert (found.object_type, found.is_refund, found.object_id) == (object_type, False, "")


@pytest.mark.parametrize("value", [True, "true"])
def test_test_messages_are_recognised(value: object) -> None:
    """Seller Central's test messages are properly signed, about refunds that do not exist."""
    assert read_notice(v1(IsSample=value)).is_sample
    assert not read_notice(v1(IsSample=False)).is_sample
    assert not read_notice(v1()).is_sample


@pytest.mark.parametrize("before", ["\n", " \t\r\n", "\ufeff", "\ufeff\n"])
def test_xml_may_begin_after_white_space(before: str) -> None:
    """A strict parser refuses an XML declaration that is not at the very beginning."""
    assert read_notice(v1(before + XML)) == read_notice(v1())


@pytest.mark.parametrize(
    ("message", "is_known"),
    [
        *((notice(ObjectType=kind), True) for kind in ("REFUND", "charge", "CHARGE_PERMISSION", "CHARGEBACK")),
        *((v1(NotificationType=kind), True) for kind in ("PaymentCapture", "ProviderCreditReversal")),
        *((v1(NotificationType=kind), True) for kind in ("SolutionProviderEvent", "OrderReferenceNotification")),
        *((notice(ObjectType=kind), False) for kind in ("PAYOUT", "REFUND_V3", "REFUNDS")),
        (v1(NotificationType="PaymentReversal"), False),
    ],
)
def test_types_that_amazon_documents_are_known(message: str, is_known: bool) -> None:
    """Any other object might be about a refund."""
    assert read_notice(message).is_known is is_known


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "data",
    [
        None,
        1,
        ["x"],
        "",
        "no xml",
        XML[:-5],
        XML + "x",
        XML.replace("RefundNotification", "CaptureNotification"),
        XML.replace("AmazonRefundId>", "Other>"),
        XML.replace("S02-8274313-3487267-R019346", ""),
        XML.replace("S02-8274313-3487267-R019346", "../x"),
        XML.replace("S02-8274313-3487267-R019346", "S02<b/>-1"),
        XML.replace("<RefundReferenceId>aed9ba8b</RefundReferenceId>", "<AmazonRefundId>S03</AmazonRefundId>"),
        XML.replace("?><Refund", "?><!DOCTYPE x><Refund"),
        XML.replace("?><Refund", f"?>{BOMB}<Refund").replace("aed9ba8b", "&b;"),
        XML.replace("?><Refund", '?><!DOCTYPE x SYSTEM "http://169.254.169.254/"><Refund'),
        XML.replace("aed9ba8b", "&unknown;"),
        XML.replace("aed9ba8b", "\x00"),
        XML.replace("aed9ba8b", "\ud800"),
        "<a>" * 50_000,
    ],
)
def test_bad_xml_is_unreadable(data: object) -> None:
    """No document type, no entity, nothing outside; exactly one refund."""
    refuse(v1(data))


@pytest.mark.parametrize(
    "message",
    ["", "text", "[]", "null", "{}", '{"a": NaN}', "[" * 2000, '{"ObjectType": 1e999}', '{"hello": "world"}'],
)
def test_other_messages_are_unreadable(message: str) -> None:
    """The strictness of the envelope holds inside as well."""
    refuse(message)


@given(st.text())
def test_any_text_is_a_notice_or_unreadable(message: str) -> None:
    """Nothing but `Malformed` escapes."""
    try:
        read_notice(message)
    except Malformed:
        return


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2) | st.just(XML)


@given(
    st.sampled_from([notice(), v1()]),
    st.dictionaries(
        st.sampled_from(["MerchantID", "ObjectType", "objectId", "SellerId", "NotificationType", "NotificationData"])
        | st.text(),
        VALUES,
    ),
)
def test_any_mutation_is_a_notice_or_unreadable(message: str, changes: dict[str, Any]) -> None:
    """Structured nonsense, and what is read is safe to use as a key."""
    try:
        found = read_notice(json.dumps({**json.loads(message), **changes}))
    except Malformed:
        return
    assert found.merchant_id.isascii()
    assert found.merchant_id.isalnum()
    assert not found.is_refund or found.object_id.replace("-", "").isalnum() or set(found.object_id) == {"-"}


@given(st.text(st.sampled_from("<>/?!&;[]RefundDetails\"'= \n-x"), max_size=120))
def test_any_text_as_xml_is_a_notice_or_unreadable(data: str) -> None:
    """Whatever the XML parser thinks of it."""
    refuse(v1(data))

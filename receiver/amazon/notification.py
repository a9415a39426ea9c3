"""Pure. The message inside a proven envelope: which object of which merchant changed.

Two generations are in use: JSON with `NotificationVersion: V2`, and JSON around an XML text (`OffAmazonPayments` of
2013). Neither is trusted for the state of an object; it only names the object to look up.
"""

from __future__ import annotations

import re
from typing import Final
from xml.etree.ElementTree import Element, ParseError

import msgspec
from defusedxml.ElementTree import fromstring

from receiver.amazon.dispute import kind_of, notified_dispute
from receiver.amazon.sns import strict_json
from receiver.errors import Malformed
from receiver.ledger.dispute import Dispute
from receiver.ledger.refund import REFUND_ID
from receiver.ledger.schema import clean

REFUND: Final = "REFUND"

_XML_TYPES = {
    "OrderReferenceNotification": "CHARGE_PERMISSION",
    "BillingAgreementNotification": "CHARGE_PERMISSION",
    "PaymentAuthorize": "CHARGE",
    "PaymentCapture": "CHARGE",
    "PaymentRefund": REFUND,
    "ChargebackDetailedNotification": "CHARGEBACK",
}
"""`NotificationType` of the XML generation → the corresponding object type of V2."""

KNOWN_TYPES: Final = frozenset(
    {
        *("CHARGE", "CHARGE_PERMISSION", "CHARGEBACK", REFUND),
        *("PROVIDERCREDIT", "PROVIDERCREDITNOTIFICATION"),
        *("PROVIDERCREDITREVERSAL", "PROVIDERCREDITREVERSALNOTIFICATION"),
        *("SOLUTIONPROVIDEREVENT", "SOLUTIONPROVIDERMERCHANTNOTIFICATION"),
    }
)
"""The object types that Amazon documents, and types of XML notifications that do not concern our refunds."""

MERCHANT = re.compile(r"[A-Za-z0-9]{1,64}")
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Notice(msgspec.Struct, frozen=True):
    """The content of a notification."""

    merchant_id: str
    """`MerchantID`, or `SellerId` in the XML generation."""
    object_type: str
    """REFUND, CHARGE, CHARGE_PERMISSION, CHARGEBACK, or another type from Amazon, in capitals."""
    object_id: str
    """For a refund always a `REFUND_ID`; for other objects empty if it is missing or malformed."""
    notification_type: str
    notification_id: str
    generation: int
    """1: XML inside, 2: JSON V2."""
    is_sample: bool = False
    """A test message from Seller Central: properly signed, about objects that do not exist."""
    refund_type: str = ""
    """`RefundType` of the XML generation: SellerInitiated, AmazonA-ZRefund, Chargeback, ..."""
    release_environment: str = ""
    """`Sandbox` or `Live`; only in the XML generation."""
    dispute: Dispute | None = None
    """For a chargeback or a claim: its details. The receiver adds the times, and an id if there is none."""

    @property
    def is_refund(self) -> bool:
        """Whether the notice is about a refund."""
        return self.object_type == REFUND

    @property
    def is_known(self) -> bool:
        """Whether we know what the notice says about refunds: its type is documented, or it describes a dispute."""
        return self.object_type in KNOWN_TYPES or self.dispute is not None


def read_notice(message: str) -> Notice:
    """Parse the `Message` of a notification.

    Amazon's IPN page spells the keys in two ways (`MerchantID` and `merchantID`, ...), so their case is ignored; two
    values under one name are an error. Raises only `Malformed` (`notice_unreadable`), for any text.
    """
    try:
        fields = _fold(strict_json.parse_text(message))
    except Malformed as error:
        raise _unreadable(error.detail.removesuffix(".")) from error
    if "objecttype" in fields:
        return _read_v2(fields)
    if "notificationdata" in fields:
        return _read_v1(fields)
    raise _unreadable("it names no object")


def _unreadable(why: str) -> Malformed:
    return Malformed(f"The message inside is not a notice of Amazon Pay: {why}.", reason="notice_unreadable")


def _fold(fields: object) -> dict[str, object]:
    if not isinstance(fields, dict):
        raise _unreadable("it is not a JSON object")
    folded: dict[str, object] = {}
    for name, value in fields.items():
        if folded.setdefault(name.casefold(), value) != value:
            raise _unreadable("one name has two values")
    return folded


def _read_v2(fields: dict[str, object]) -> Notice:
    object_type = _required(fields, "objecttype", _WORD).upper()
    return Notice(
        merchant_id=_required(fields, "merchantid", MERCHANT),
        object_type=object_type,
        object_id=_required(fields, "objectid", REFUND_ID) if object_type == REFUND else _optional(fields, "objectid"),
        notification_type=_optional(fields, "notificationtype"),
        notification_id=_optional(fields, "notificationid"),
        generation=2,
        is_sample=_is_sample(fields),
        release_environment=_optional(fields, "releaseenvironment"),
        dispute=_read_dispute(fields, object_type, _optional(fields, "notificationtype")),
    )


def _read_dispute(fields: dict[str, object], object_type: str, notification_type: str) -> Dispute | None:
    kind = "" if object_type == REFUND else kind_of(object_type, notification_type)
    try:
        return notified_dispute(kind, fields) if kind and not _is_sample(fields) else None
    except Malformed as error:
        raise _unreadable(error.detail) from error


def _read_v1(fields: dict[str, object]) -> Notice:
    # "Chargeback Detailed Notification" comes with and without the spaces.
    spaced = fields.get("notificationtype")
    notification_type = spaced.replace(" ", "") if isinstance(spaced, str) else ""
    if not _WORD.fullmatch(notification_type):
        raise _unreadable("NotificationType is missing")
    object_type = _XML_TYPES.get(notification_type, notification_type.upper())
    refund_id, refund_type = _read_refund(fields["notificationdata"]) if object_type == REFUND else ("", "")
    return Notice(
        merchant_id=_required(fields, "sellerid", MERCHANT),
        object_type=object_type,
        object_id=refund_id,
        notification_type=notification_type,
        notification_id=_optional(fields, "notificationreferenceid"),
        generation=1,
        is_sample=_is_sample(fields),
        refund_type=refund_type,
        release_environment=_optional(fields, "releaseenvironment"),
        dispute=_read_dispute(fields, object_type, notification_type),
    )


def _read_refund(data: object) -> tuple[str, str]:
    """`AmazonRefundId` and `RefundType` of `RefundNotification/RefundDetails`."""
    if not isinstance(data, str):
        raise _unreadable("NotificationData is not a text")
    try:
        # XML allows nothing before the declaration, but some writers put an empty line there.
        root: Element = fromstring(data.lstrip("\ufeff \t\r\n"), forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:
        raise _unreadable("NotificationData is not plain XML") from error
    ids = root.findall("{*}RefundDetails/{*}AmazonRefundId")
    refund_id = (ids[0].text or "").strip() if len(ids) == 1 and len(ids[0]) == 0 else ""
    if root.tag.rpartition("}")[2] != "RefundNotification" or not REFUND_ID.fullmatch(refund_id):
        raise _unreadable("it names no refund")
    refund_type = root.findtext("{*}RefundDetails/{*}RefundType", "").strip()
    return refund_id, clean(refund_type, 64)


def _required(fields: dict[str, object], name: str, form: re.Pattern[str]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise _unreadable(f"{name} is missing or malformed")
    return value


def _optional(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def _is_sample(fields: dict[str, object]) -> bool:
    return fields.get("issample") in (True, "true", "True")

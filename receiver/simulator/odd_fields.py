"""Pure. Undocumented values in the fields of an answer: every field except id and state can be corrupted."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class OddField(StrEnum):
    REASON_WITH_A_BLANK = "reason_with_a_blank"
    LONG_REASON = "long_reason"
    DESCRIPTION_OBJECT = "description_object"
    TIME_WITH_AN_OFFSET = "time_with_an_offset"
    IMPOSSIBLE_DATE = "impossible_date"
    EXPONENT_AMOUNT = "exponent_amount"
    NO_CURRENCY = "no_currency"
    LONG_CHARGE_ID = "long_charge_id"
    DESCRIPTOR_NUMBER = "descriptor_number"
    ENVIRONMENT_LIST = "environment_list"
    LONG_ORDER_REFERENCE = "long_order_reference"


STATUS: Mapping[OddField, tuple[str, object]] = {
    OddField.REASON_WITH_A_BLANK: ("reasonCode", "Amazon Rejected"),
    OddField.LONG_REASON: ("reasonCode", "A" * 80),
    OddField.DESCRIPTION_OBJECT: ("reasonDescription", {"en": "no"}),
    OddField.TIME_WITH_AN_OFFSET: ("lastUpdatedTimestamp", "2026-11-29T00:00:00+00:00"),
    OddField.IMPOSSIBLE_DATE: ("lastUpdatedTimestamp", "20260230T000000Z"),
}
"""Members of `statusDetails`."""
TOP: Mapping[OddField, tuple[str, object]] = {
    OddField.EXPONENT_AMOUNT: ("refundAmount", {"amount": "1.4e1", "currencyCode": "USD"}),
    OddField.NO_CURRENCY: ("refundAmount", {"amount": "14.00"}),
    OddField.LONG_CHARGE_ID: ("chargeId", "C" * 100),
    OddField.DESCRIPTOR_NUMBER: ("softDescriptor", 3),
    OddField.ENVIRONMENT_LIST: ("releaseEnvironment", ["Sandbox"]),
}
"""Members of a refund or a charge."""


def corrupted(body: Mapping[str, object], kind: str) -> dict[str, object]:
    """The answer with fields of this kind corrupted; without a kind, all of them. Requested ids stay."""
    found = dict(body)
    for each in (OddField(kind),) if kind else OddField:
        if each in STATUS and isinstance(status := found.get("statusDetails"), dict):
            name, value = STATUS[each]
            found["statusDetails"] = {**status, name: value}
        elif each in TOP and TOP[each][0] in found and not ("refundId" not in found and TOP[each][0] == "chargeId"):
            name, value = TOP[each]
            found[name] = value
        elif isinstance(metadata := found.get("merchantMetadata"), dict) and each is OddField.LONG_ORDER_REFERENCE:
            found["merchantMetadata"] = {**metadata, "merchantReferenceId": "x" * 257}
    return found

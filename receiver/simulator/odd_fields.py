"""Pure. Undocumented values in the fields of an answer: every field except id and state can be corrupted."""

from __future__ import annotations

from collections.abc import Mapping

ODD_FIELDS: Mapping[str, tuple[str, str, object]] = {
    "reason_with_a_blank": ("statusDetails", "reasonCode", "Amazon Rejected"),
    "long_reason": ("statusDetails", "reasonCode", "A" * 80),
    "description_object": ("statusDetails", "reasonDescription", {"en": "no"}),
    "time_with_an_offset": ("statusDetails", "lastUpdatedTimestamp", "2026-11-29T00:00:00+00:00"),
    "impossible_date": ("statusDetails", "lastUpdatedTimestamp", "20260230T000000Z"),
    "exponent_amount": ("", "refundAmount", {"amount": "1.4e1", "currencyCode": "USD"}),
    "no_currency": ("", "refundAmount", {"amount": "14.00"}),
    "long_charge_id": ("", "chargeId", "C" * 100),
    "descriptor_number": ("", "softDescriptor", 3),
    "environment_list": ("", "releaseEnvironment", ["Sandbox"]),
    "long_order_reference": ("merchantMetadata", "merchantReferenceId", "x" * 257),
}
"""Kind → the member of a refund or a charge that has the field (empty: itself), the field, and its value."""


def corrupted(body: Mapping[str, object], kind: str) -> dict[str, object]:
    """The answer with fields of this kind corrupted; without a kind, all of them. Requested ids stay."""
    found = dict(body)
    for member, name, value in (ODD_FIELDS[kind],) if kind else ODD_FIELDS.values():
        if isinstance(within := found.get(member), dict):
            found[member] = {**within, name: value}
        elif not member and name in found and not (name == "chargeId" and "refundId" not in found):
            found[name] = value
    return found

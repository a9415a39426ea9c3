"""Pure. The JSON of the API: reads Create Refund's body strictly, and formats its objects as Amazon does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import NoReturn

from receiver.simulator.amounts import Amount
from receiver.simulator.bank import Bank, Charge, Order, Refund
from receiver.simulator.disputes import REASONS, Dispute
from receiver.simulator.faults import Fault, invalid_value
from receiver.simulator.outcomes import DESCRIPTIONS

KEY = re.compile(r"[A-Za-z0-9_-]{1,32}")
"""An idempotency key (Amazon's page "Idempotency"). A UUID with dashes is four characters too long."""

ENVIRONMENTS = {"sandbox": "Sandbox", "live": "Live"}

_DEFAULT_DESCRIPTOR = "AMZ*Simulator pay.amazon.com"
_YEAR = 365 * 86_400_000


def read_object(body: bytes) -> dict[str, object]:
    """A JSON object with numbers as int or Decimal; raises `Fault` 400 InvalidRequestFormat for anything else."""
    try:
        found = json.loads(
            body.decode("utf-8"), parse_float=Decimal, parse_constant=_no, object_pairs_hook=_without_doubles
        )
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Fault(400, "InvalidRequestFormat", "The body is not a JSON object.")
    return found


def read_create_refund(body: bytes) -> Order:
    """The values of Create Refund; raises `Fault` 400 that names the field."""
    found = read_object(body)
    only(found, {"chargeId", "refundAmount", "softDescriptor"})
    money = need(found, "refundAmount")
    if not isinstance(money, dict):
        raise invalid_value("refundAmount", "it is not an object")
    only(money, {"amount", "currencyCode"}, "refundAmount.")
    charge_id = need(found, "chargeId")
    if not isinstance(charge_id, str):
        raise invalid_value("chargeId", "it is not a text")
    descriptor = found.get("softDescriptor")
    if descriptor is not None and (not isinstance(descriptor, str) or len(descriptor) > 16):
        raise invalid_value("softDescriptor", "it is not a text of at most 16 characters")
    amount = need(money, "amount", "refundAmount.")
    currency = need(money, "currencyCode", "refundAmount.")
    return Order(charge_id, Amount.read(amount, currency), str(descriptor or ""))


def read_key(value: str) -> str:
    """The idempotency key; raises `Fault` 400."""
    if not KEY.fullmatch(value):
        raise Fault(400, "InvalidHeaderValue", "x-amz-pay-idempotency-key: 1 to 32 of A-Z, a-z, 0-9, - and _.")
    return value


def need(found: Mapping[str, object], name: str, path: str = "") -> object:
    """A required field; raises `Fault` 400 MissingParameterValue."""
    value = found.get(name)
    if value is None or value == "":
        raise Fault(400, "MissingParameterValue", f"The parameter '{path}{name}' is missing.")
    return value


def only(found: Mapping[str, object], known: set[str], path: str = "") -> None:
    """Raise `Fault` 400 UnrecognizedField if there are unknown fields."""
    for name in found:
        if name not in known:
            raise Fault(400, "UnrecognizedField", f"There is no field '{path}{name[:64]}' here.")


def basic_time(ms: int) -> str:
    """`20190714T155300Z`: Amazon's form, whole seconds."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y%m%dT%H%M%SZ")


def read_time(name: str, text: str) -> int:
    """A time in ms, in Amazon's form or ISO 8601's extended one; raises `Fault` 400."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise invalid_value(name, "it is not a time such as 20190714T155300Z")
    return round(found.timestamp() * 1000)


def refund_json(refund: Refund, environment: str) -> dict[str, object]:
    """A refund as in the answers of Get Refund and Create Refund."""
    return {
        "refundId": refund.refund_id,
        "chargeId": refund.order.charge_id,
        "creationTimestamp": basic_time(refund.created_at),
        "refundAmount": refund.order.amount.json(),
        "statusDetails": _status(refund.state, refund.reason, refund.updated_at),
        "softDescriptor": refund.order.soft_descriptor or _DEFAULT_DESCRIPTOR,
        "releaseEnvironment": ENVIRONMENTS[environment],
        "disbursementDetails": None,
    }


def charge_json(charge: Charge, bank: Bank) -> dict[str, object]:
    """A charge as in the answer of Get Charge. `refundedAmount` does not include refunds in progress."""
    currency = charge.amount.currency
    captured = charge.amount if charge.state == "Captured" else Amount(0, currency)
    return {
        "chargeId": charge.charge_id,
        "chargePermissionId": charge.permission_id,
        "chargeAmount": charge.amount.json(),
        "captureAmount": captured.json(),
        "refundedAmount": Amount(bank.refunded(charge), currency).json(),
        "convertedAmount": None,
        "conversionRate": None,
        "softDescriptor": _DEFAULT_DESCRIPTOR,
        "providerMetadata": {"providerReferenceId": None},
        "merchantMetadata": {
            "merchantReferenceId": charge.reference,
            "merchantStoreName": "Simulator",
            "noteToBuyer": None,
            "customInformation": None,
        },
        "creationTimestamp": basic_time(charge.created_at),
        "expirationTimestamp": basic_time(charge.created_at + _YEAR),
        "statusDetails": _status(charge.state, "", charge.created_at),
        "releaseEnvironment": ENVIRONMENTS[bank.environment],
        "disbursementDetails": None,
    }


def dispute_json(dispute: Dispute, environment: str) -> dict[str, object]:
    """A dispute as in the answer of Get Dispute (Amazon's page "Dispute")."""
    status = _status(dispute.state, REASONS.get(dispute.state, ""), dispute.updated_at)
    return {
        "disputeId": dispute.dispute_id,
        "releaseEnvironment": ENVIRONMENTS[environment],
        "chargeId": dispute.charge_id,
        "disputeType": "Chargeback",
        "disputeAmount": dispute.amount.json(),
        "filingReason": dispute.filing_reason,
        "statusDetails": {**status, "resolution": dispute.resolution or None},
        "merchantEvidences": [],
        "merchantResponseDeadline": None if dispute.deadline is None else basic_time(dispute.deadline),
        "resolutionAuthority": "AmazonPay",
        "creationTimestamp": basic_time(dispute.created_at),
    }


def _status(state: str, reason: str, updated_at: int) -> dict[str, object]:
    return {
        "state": state,
        "reasonCode": reason or None,
        "reasonDescription": DESCRIPTIONS.get(reason),
        "lastUpdatedTimestamp": basic_time(updated_at),
    }


def _no(constant: str) -> NoReturn:
    raise ValueError(constant)


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is repeated")
    return found

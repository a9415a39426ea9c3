"""A refund, a charge and a dispute as Amazon describes them, and answers with such values."""

from __future__ import annotations

import json
from typing import Any

from receiver.exchange import Response

REFUND_ID = "S01-5105180-3221187-R022311"
CHARGE_ID = "S01-5105180-3221187-C056351"

REFUND: dict[str, Any] = {
    "refundId": REFUND_ID,
    "chargeId": CHARGE_ID,
    "refundAmount": {"amount": "14.00", "currencyCode": "USD"},
    "softDescriptor": "Descriptor",
    "creationTimestamp": "20190714T155300Z",
    "statusDetails": {
        "state": "Declined",
        "reasonCode": "AmazonRejected",
        "reasonDescription": "It was rejected.",
        "lastUpdatedTimestamp": "20190714T155301Z",
    },
    "releaseEnvironment": "Sandbox",
}
CHARGE: dict[str, Any] = {
    "chargeId": CHARGE_ID,
    "chargePermissionId": "S01-5105180-3221187",
    "chargeAmount": {"amount": "20.00", "currencyCode": "USD"},
    "captureAmount": {"amount": "14.00", "currencyCode": "USD"},
    "refundedAmount": {"amount": "4.00", "currencyCode": "USD"},
    "merchantMetadata": {"merchantReferenceId": "order 7", "noteToBuyer": None},
    "statusDetails": {"state": "Captured", "reasonCode": None},
    "releaseEnvironment": "Sandbox",
}
DISPUTE_ID = "S01-5105180-3221187-B000001"
DISPUTE: dict[str, Any] = {
    "disputeId": DISPUTE_ID,
    "releaseEnvironment": "Sandbox",
    "chargeId": CHARGE_ID,
    "disputeType": "Chargeback",
    "disputeAmount": {"amount": "400", "currencyCode": "USD"},
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
    "creationTimestamp": "20251009T085319Z",
}


def answer(values: object, status: int = 200, **headers: str) -> Response:
    """An answer of Amazon with this JSON, or these bytes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, values if isinstance(values, bytes) else json.dumps(values).encode())

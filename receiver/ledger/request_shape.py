"""Pure. The one JSON shape of a request to issue a refund. Texts from outside are bounded as in `ledger/schema.py`."""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from receiver.ledger.order_reference import whole_reference
from receiver.ledger.refund_request import RefundRequestRecord, RequestState
from receiver.ledger.schema import DESCRIPTION_LIMIT, Account, MoneyJson, Rfc3339, money_json, tidy
from receiver.ledger.timestamps import format_rfc3339


class RefusalJson(TypedDict):
    """An answer of Amazon's that is no refund, for whoever has to talk to Amazon about it."""

    status: Annotated[int | None, Meta(description="Amazon's HTTP status; null where no answer came.")]
    reasonCode: str | None
    requestId: Annotated[str | None, Meta(description="X-Amz-Pay-Request-Id.")]


class RefundRequestJson(TypedDict):
    """A request to issue a refund, and what became of it."""

    refundRequestId: Annotated[
        str, Meta(description="SHA-256 (hex) of the caller's Idempotency-Key.", pattern="^[0-9a-f]{64}$")
    ]
    account: Account
    state: Annotated[
        str,
        Meta(
            description="reserved: Amazon has not answered, it is tried on. unclear: a person has to look.",
            extra_json_schema={"enum": [*RequestState]},
        ),
    ]
    chargeId: str
    refundAmount: MoneyJson | None
    orderReference: str | None
    retryOf: Annotated[str | None, Meta(description="The declined refund that it repeats.")]
    refundId: Annotated[str | None, Meta(description="The refund that it became.")]
    candidateRefundId: Annotated[
        str | None,
        Meta(description="Of an unclear request: the one refund that it may have made, for a person to check."),
    ]
    tries: Annotated[int, Meta(description="How often it was sent.", ge=0)]
    mayHaveReachedAmazon: Annotated[bool, Meta(description="Whether a try has ended without a whole answer.")]
    lastError: Annotated[str | None, Meta(description="Our word for how the last try failed.")]
    detail: Annotated[str | None, Meta(description="The last thing that was said of it.")]
    amazon: Annotated[RefusalJson | None, Meta(description="Amazon's answer to the last try, if it gave one.")]
    issuedBy: Annotated[
        str | None,
        Meta(description="The name of the token with which it was requested; null in requests of older versions."),
    ]
    besides: Annotated[
        list[str], Meta(description="The refunds and requests that the caller named: this one was wanted beside them.")
    ]
    settledBy: Annotated[str | None, Meta(description="The name of the token with which a person settled it.")]
    createdAt: Rfc3339 | None
    changedAt: Rfc3339 | None


def refusal_json(record: RefundRequestRecord) -> RefusalJson | None:
    """What Amazon answered to the last try of a request; None where it did not."""
    if not record.amazon_status:
        return None
    return {
        "status": record.amazon_status,
        "reasonCode": tidy(record.reason_code) or None,
        "requestId": tidy(record.request_id) or None,
    }


def request_json(account: str, record: RefundRequestRecord, candidate: str = "") -> RefundRequestJson:
    """The JSON of a request to issue a refund, with its keys in the order of `RefundRequestJson`."""
    order = record.order
    return {
        "refundRequestId": order.id,
        "account": account,
        "state": str(record.state),
        "chargeId": order.charge_id,
        "refundAmount": money_json(order.money),
        "orderReference": whole_reference(order.order_reference),
        "retryOf": order.retry_of or None,
        "refundId": record.refund_id or None,
        "candidateRefundId": candidate or None,
        "tries": record.tries,
        "mayHaveReachedAmazon": record.unknown,
        "lastError": record.last_error or None,
        "detail": tidy(record.detail, DESCRIPTION_LIMIT) or None,
        "amazon": refusal_json(record),
        "issuedBy": order.issued_by or None,
        "besides": list(order.besides),
        "settledBy": record.settled_by or None,
        "createdAt": format_rfc3339(record.created_at) if record.created_at else None,
        "changedAt": format_rfc3339(record.changed_at) if record.changed_at else None,
    }

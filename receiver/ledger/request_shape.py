"""Pure. The JSON of a request to issue a refund. Texts from outside are bounded as in `ledger/schema.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from receiver.ledger.charge_book import RESERVATION, Entry
from receiver.ledger.order_reference import whole_reference
from receiver.ledger.refund_request import RefundRequestRecord, RequestState
from receiver.ledger.schema import DESCRIPTION_LIMIT, Account, Json, MoneyJson, Rfc3339, money_json, tidy
from receiver.ledger.timestamps import format_rfc3339


class RefusalJson(Json, kw_only=True):
    """Amazon's answer if it is not a refund, for use with Amazon's support."""

    status: Annotated[int | None, Meta(description="Amazon's HTTP status; null if there was no answer.")] = None
    reason_code: str | None = None
    request_id: Annotated[str | None, Meta(description="X-Amz-Pay-Request-Id.")] = None


class OtherRefundJson(Json, kw_only=True):
    """Another refund of the charge, or a request for one, that blocks this one."""

    refund_id: Annotated[str | None, Meta(description="Null if Amazon has not answered the request yet.")] = None
    refund_request_id: Annotated[
        str | None, Meta(description="Set for a request that Amazon has not answered yet.")
    ] = None
    state: Annotated[str, Meta(description="Reserved, or the last state that Amazon reported.")]
    refund_amount: Annotated[MoneyJson | None, Meta(description="Null if unknown.")] = None
    began_at: Annotated[Rfc3339 | None, Meta(description="Null if unknown.")] = None
    conflict: Annotated[bool, Meta(description="Whether Amazon has reported both Refunded and Declined.")]


class RefundRequestJson(Json, kw_only=True):
    """A request to issue a refund, and its progress."""

    refund_request_id: Annotated[
        str,
        Meta(
            description="SHA-256 (hex) of the caller's Idempotency-Key.",
            extra_json_schema={"pattern": "^[0-9a-f]{64}$"},
        ),
    ]
    account: Account
    state: Annotated[
        str,
        Meta(
            description="reserved: Amazon has not answered; it will be retried. unclear: a person must check.",
            extra_json_schema={"enum": [*RequestState]},
        ),
    ]
    charge_id: str
    refund_amount: MoneyJson | None = None
    order_reference: str | None = None
    retry_of: Annotated[str | None, Meta(description="The declined refund that it repeats.")] = None
    refund_id: Annotated[str | None, Meta(description="The refund that it became.")] = None
    candidate_refund_id: Annotated[
        str | None,
        Meta(description="For an unclear request: the only refund that it may have made, for a person to check."),
    ] = None
    tries: Annotated[int, Meta(description="How often it was sent.", extra_json_schema={"minimum": 0})]
    may_have_reached_amazon: Annotated[bool, Meta(description="Whether an attempt ended without a complete answer.")]
    last_error: Annotated[str | None, Meta(description="Our code for the failure of the last attempt.")] = None
    detail: Annotated[str | None, Meta(description="The latest message about it.")] = None
    amazon: Annotated[RefusalJson | None, Meta(description="Amazon's answer to the last attempt, if any.")] = None
    issued_by: Annotated[
        str | None,
        Meta(description="The name of the token with which it was requested; null in requests of older versions."),
    ] = None
    issued_by_user: Annotated[
        str | None, Meta(description="The person who requested it with that token, if a signing-in proxy named one.")
    ] = None
    besides: Annotated[
        list[str], Meta(description="Refunds and requests that the caller named: they do not block this one.")
    ]
    settled_by: Annotated[str | None, Meta(description="The name of the token with which a person resolved it.")] = None
    settled_by_user: Annotated[str | None, Meta(description="That person, if a signing-in proxy named one.")] = None
    created_at: Rfc3339 | None = None
    changed_at: Rfc3339 | None = None


def refusal_json(record: RefundRequestRecord) -> RefusalJson | None:
    """Amazon's answer to the last attempt of a request; None if there was none."""
    if not record.amazon_status:
        return None
    return RefusalJson(
        status=record.amazon_status,
        reason_code=tidy(record.reason_code) or None,
        request_id=tidy(record.request_id) or None,
    )


def request_json(account: str, record: RefundRequestRecord, candidate: str = "") -> RefundRequestJson:
    """The JSON of a refund request, with keys in the order of `RefundRequestJson`."""
    order = record.order
    return RefundRequestJson(
        refund_request_id=order.id,
        account=account,
        state=str(record.state),
        charge_id=order.charge_id,
        refund_amount=money_json(order.money),
        order_reference=whole_reference(order.order_reference),
        retry_of=order.retry_of or None,
        refund_id=record.refund_id or None,
        candidate_refund_id=candidate or None,
        tries=record.tries,
        may_have_reached_amazon=record.unknown,
        last_error=record.last_error or None,
        detail=tidy(record.detail, DESCRIPTION_LIMIT) or None,
        amazon=refusal_json(record),
        issued_by=order.issued_by or None,
        issued_by_user=order.issued_by_user or None,
        besides=list(order.besides),
        settled_by=record.settled_by or None,
        settled_by_user=record.settled_by_user or None,
        created_at=format_rfc3339(record.created_at) if record.created_at else None,
        changed_at=format_rfc3339(record.changed_at) if record.changed_at else None,
    )


def other_refunds_json(entries: Mapping[str, Entry]) -> list[OtherRefundJson]:
    """The JSON of refunds and reservations in a charge's book, oldest first."""
    return [
        OtherRefundJson(
            refund_id=None if name.startswith(RESERVATION) else tidy(name),
            refund_request_id=name.removeprefix(RESERVATION) if name.startswith(RESERVATION) else None,
            state=tidy(entry.state),
            refund_amount=money_json(entry.amount),
            began_at=None if entry.began is None else format_rfc3339(entry.began),
            conflict=entry.conflict,
        )
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].began or 0, item[0]))
    ]

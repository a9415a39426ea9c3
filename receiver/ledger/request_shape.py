"""Pure. The JSON of a request to issue a refund, and of a charge. Texts from outside are bounded as in
`ledger/schema.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import Meta

from receiver.ledger.charge import CAPTURED
from receiver.ledger.charge_book import MOST_REFUNDS, RESERVATION, Entry
from receiver.ledger.dispute import DisputeJson, dispute_json
from receiver.ledger.order_reference import whole_reference
from receiver.ledger.refund import Refund
from receiver.ledger.refund_request import RefundRequestRecord, RequestState
from receiver.ledger.retryability import KnownCharge, balance_at, obstacles
from receiver.ledger.schema import (
    DESCRIPTION_LIMIT,
    Account,
    Json,
    MoneyJson,
    RefundJson,
    Rfc3339,
    money_json,
    refund_json,
    tidy,
)
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
    full: Annotated[
        bool, Meta(description="Whether it was requested for all that was left of the captured amount.")
    ] = False
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


class KnownRefundsJson(Json, kw_only=True):
    """The refunds and requests of a charge that are known here. An amount is null if that of one of them is unknown."""

    refunded: Annotated[MoneyJson | None, Meta(description="Refunded by Amazon.")] = None
    pending: Annotated[MoneyJson | None, Meta(description="Made by Amazon, and not final.")] = None
    reserved: Annotated[MoneyJson | None, Meta(description="Requested here; Amazon has not answered.")] = None
    in_conflict: Annotated[
        MoneyJson | None,
        Meta(description="Amazon reported both Refunded and Declined: the buyer may have it."),
    ] = None


class ChargeJson(Json, kw_only=True):
    """A charge: what can still be refunded. A value that Amazon did not report is null."""

    charge_id: str
    account: Account
    state: Annotated[str | None, Meta(description="Amazon's. Only a Captured charge can be refunded.")] = None
    charge_permission_id: str | None = None
    order_reference: Annotated[str | None, Meta(description="The merchant's order number of the charge.")] = None
    release_environment: Annotated[str | None, Meta(description="Sandbox or Live, as reported by Amazon.")] = None
    capture_amount: MoneyJson | None = None
    refunded_amount: Annotated[
        MoneyJson | None,
        Meta(description="As reported by Amazon, at `chargeReadAt`. It can lag behind refunds in progress."),
    ] = None
    known: KnownRefundsJson
    refundable: Annotated[
        MoneyJson | None,
        Meta(description="What is left of the captured amount: what `full` refunds. Null if it is not certain."),
    ] = None
    refundable_with_allowance: Annotated[
        MoneyJson | None,
        Meta(description="The most that one more refund may have, with Amazon's allowance above the captured amount."),
    ] = None
    refundable_reasons: Annotated[
        list[str], Meta(description="The reasons with which a refund of all that is left would be refused.")
    ]
    refund_count: Annotated[
        int | None,
        Meta(
            description="Refunds and requests that are not declined. Null if unknown.", extra_json_schema={"minimum": 0}
        ),
    ] = None
    most_refunds: Annotated[int, Meta(description="The most that Amazon accepts for one charge.")] = MOST_REFUNDS
    charge_read_at: Annotated[Rfc3339 | None, Meta(description="When Amazon last described it; null: never.")] = None
    refresh_error: Annotated[
        str | None,
        Meta(
            description="Why Amazon has not described it again, although `chargeReadAt` is over a minute ago: "
            "amazon_timeout, amazon_throttled, too_many_refreshes, … Null if it has."
        ),
    ] = None
    unread_fields: Annotated[
        list[str], Meta(description="Fields of Amazon's answer that are null because they could not be read.")
    ]
    disputes: Annotated[list[DisputeJson], Meta(description="Of the charge or its charge permission.")]
    refunds: Annotated[list[RefundJson], Meta(description="Every known refund of the charge, newest change first.")]
    reservations: Annotated[
        list[OtherRefundJson], Meta(description="Requests that Amazon has not answered, and that reserve an amount.")
    ]
    unreadable: Annotated[list[str], Meta(description="Ids of refunds whose records are damaged or missing.")]


def charge_json(
    account: str, charge_id: str, known: KnownCharge, refunds: Sequence[Refund], refresh_error: str = ""
) -> ChargeJson:
    """The JSON of a charge and its refunds, with keys in the order of `ChargeJson`."""
    charge, balance = known.charge, balance_at(known)
    shown = sorted(refunds, key=lambda each: (each.changed_at, each.refund_id), reverse=True)
    reserved = {name: each for name, each in known.entries.items() if name.startswith(RESERVATION)}
    missing = known.entries.keys() - reserved.keys() - {each.refund_id for each in shown}
    is_captured = charge is not None and charge.state == CAPTURED
    return ChargeJson(
        charge_id=charge_id,
        account=account,
        state=(tidy(charge.state) or None) if charge else None,
        charge_permission_id=(tidy(charge.charge_permission_id) or None) if charge else None,
        order_reference=whole_reference(charge.merchant_reference_id) if charge else None,
        release_environment=(tidy(charge.environment) or None) if charge else None,
        capture_amount=money_json(balance.money(balance.captured)),
        refunded_amount=money_json(balance.money(balance.reported)),
        known=KnownRefundsJson(
            refunded=money_json(balance.money(balance.refunded)),
            pending=money_json(balance.money(balance.pending)),
            reserved=money_json(balance.money(balance.reserved)),
            in_conflict=money_json(balance.money(balance.in_conflict)),
        ),
        refundable=money_json(balance.money(balance.refundable)) if is_captured else None,
        refundable_with_allowance=money_json(balance.money(balance.with_allowance(known.over)))
        if is_captured
        else None,
        refundable_reasons=[*obstacles(charge_id, known)],
        refund_count=sum(each.counts for each in known.entries.values()) if known.readable else None,
        charge_read_at=format_rfc3339(charge.read_at) if charge and charge.read_at else None,
        refresh_error=refresh_error or None,
        unread_fields=[tidy(each.field) for each in charge.unread] if charge else [],
        disputes=[dispute_json(each) for each in known.disputes if each.concerns(charge_id)],
        refunds=[refund_json(each) for each in shown],
        reservations=other_refunds_json(reserved),
        unreadable=sorted(missing),
    )


def refusal_json(record: RefundRequestRecord) -> RefusalJson | None:
    """Amazon's answer to the last attempt of a request; None if there was none."""
    if not record.amazon_status:
        return None
    return RefusalJson(
        status=record.amazon_status,
        reason_code=tidy(record.reason_code) or None,
        request_id=tidy(record.amazon_request_id) or None,
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
        full=order.full,
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

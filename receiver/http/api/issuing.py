"""HTTP. `POST /v1/refunds` and `/v1/refunds/{id}/retry`: issue a refund once, however often it is requested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from receiver.amazon.calls import MAX_SOFT_DESCRIPTOR
from receiver.errors import AmazonRefusesUs, BadRequest
from receiver.http.api.bodies import (
    ACCOUNT_FIELD,
    CURRENCY_FIELD,
    REFUND_FIELD,
    check_fields,
    money_schema,
    object_schema,
    only_account,
    possible_accounts,
    read_money,
    read_object,
)
from receiver.http.api.operations import (
    AMAZON,
    COMMIT,
    LOCATION,
    NO_ACCOUNT,
    PENDING,
    Answer,
    Body,
    Call,
    Reasons,
    issue_operation,
)
from receiver.http.api.params import ACCOUNT, REFUND, Parameter, Schema
from receiver.http.api.schema import PendingRequestJson
from receiver.http.headers import traceparent_of
from receiver.http.problems import RefundProblemJson
from receiver.http.respond import json_answer
from receiver.issue.issuer import Issued, Issuer
from receiver.issue.orders import LONGEST_KEY
from receiver.ledger.money import Money
from receiver.ledger.order_reference import MAX_ORDER_REFERENCE, reference_problem, whole_reference
from receiver.ledger.refund import REFUND_ID
from receiver.ledger.refund_request import Asked, RefundRequest
from receiver.ledger.request_shape import refusal_json
from receiver.ledger.schema import DESCRIPTION_LIMIT, RefundJson, money_json, refund_json, tidy

MOST_NAMED = 50
"""How many ids one `besides` may hold: far more than the refunds that Amazon accepts for a charge."""
ASK_AGAIN = 5
EXAMPLE_KEY: Final = "order-4711-refund-1"
KEY: Final = Parameter(
    "Idempotency-Key",
    "Your unique key for this refund, in printable ASCII characters.",
    {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[ -~]+$"},
    str,
    "",
    place="header",
    required=True,
    example=EXAMPLE_KEY,
)
BESIDES: Final = {
    "type": "array",
    "maxItems": MOST_NAMED,
    "items": REFUND_FIELD,
    "description": "Ids of other refunds and refund requests of the same charge: issue this refund in addition to "
    "them. The answer 409 same_amount_refunded or charge_in_conflict lists the ids that must be named. Ids that do not "
    "prevent the refund are ignored. Not part of what the Idempotency-Key identifies.",
}
FIELDS: Final[Mapping[str, Schema]] = {
    "account": ACCOUNT_FIELD,
    "chargeId": {**REFUND_FIELD, "description": "Amazon's id of a captured charge."},
    "refundAmount": money_schema(CURRENCY_FIELD, ""),
    "softDescriptor": {
        "type": "string",
        "maxLength": MAX_SOFT_DESCRIPTOR,
        "description": "Text on the buyer's statement. Printable characters.",
    },
    "orderReference": {
        "type": "string",
        "maxLength": MAX_ORDER_REFERENCE,
        "description": "Your own order number, kept unaltered. Default: the charge's. No control characters.",
    },
    "besides": BESIDES,
}
CHARGE_ID: Final = "S01-5105180-3221187-C056351"
USD: Final = {"amount": "14.00", "currencyCode": "USD"}
CREATE: Final[Schema] = {
    "description": "A refund to issue.",
    "oneOf": [
        object_schema(
            "Of an amount.",
            ("chargeId", "refundAmount"),
            {**FIELDS, "full": {"const": False}},
            {"chargeId": CHARGE_ID, "refundAmount": USD},
        ),
        object_schema(
            "Of all that is left of the captured amount, without Amazon's allowance. The first accepted call "
            "determines the amount; repeating the call with the same key is the same refund.",
            ("chargeId", "full"),
            {**{name: each for name, each in FIELDS.items() if name != "refundAmount"}, "full": {"const": True}},
            {"chargeId": CHARGE_ID, "full": True},
        ),
    ],
}
RETRY: Final = object_schema(
    "Empty, or the other refunds of the charge that this one is in addition to.",
    (),
    {"besides": BESIDES},
    {"besides": ["S01-5105180-3221187-R022311"]},
)
TO_REFUND: Final = {"getRefund": {"operationId": "getRefund", "parameters": {"refund_id": "$response.body#/refundId"}}}
OF_ANSWER: Final = {"request_id": "$response.body#/refundRequestId"}
TO_REQUEST: Final = {"getRefundRequest": {"operationId": "getRefundRequest", "parameters": OF_ANSWER}}
REPEATED: Final = {"Idempotent-Replayed": "`true` if an earlier call made it, so that this one has changed nothing."}
MADE: Final = {**LOCATION, **REPEATED}
STILL_PENDING: Final = Answer(
    202, PendingRequestJson, "Amazon has not answered yet.", {**PENDING, **REPEATED}, TO_REQUEST
)
REFUSALS: Final[tuple[Reasons, ...]] = (
    {
        400: ("bad_amount", "bad_besides", "currency_mismatch"),
        409: (
            *("account_needed", "allowance_exceeded", "charge_not_captured"),
            *("refund_unclear", "settled_as_not_issued"),
            *("buyer_may_be_paid", "same_amount_refunded", "charge_in_conflict", "too_many_refunds"),
        ),
        422: ("amazon_refused", "amazon_not_found"),
        502: (AMAZON,),
    },
    COMMIT,
)


class IssueApi:
    def __init__(self, issuers: Mapping[str, Issuer]) -> None:
        self._issuers = issuers

    @issue_operation(
        "POST",
        "/v1/refunds",
        id="createRefund",
        summary="Issue a refund, once however often it is requested",
        about="The request is on disk before Amazon is asked. The same key with the same values identifies the same "
        "refund: repeating the call is always safe.",
        parameters=(KEY,),
        body=Body(CREATE),
        answers=(
            Answer(201, RefundJson, "Accepted by Amazon.", MADE, TO_REFUND),
            STILL_PENDING,
        ),
        problem=RefundProblemJson,
        reasons=(
            {
                400: (
                    *("idempotency_key_needed", "bad_idempotency_key", "bad_parameter", "unknown_field"),
                    *("bad_charge_id", "bad_currency", "bad_soft_descriptor", "bad_order_reference", "bad_full"),
                ),
                409: ("idempotency_key_reused", "nothing_left", "not_enough_known"),
            },
            NO_ACCOUNT,
            *REFUSALS,
        ),
    )
    async def create(self, call: Call) -> Response:
        """201 with the refund, or 202 while Amazon has not answered."""
        key = _key(call.request)
        fields = await read_object(call.request)
        account = only_account(possible_accounts(call.caller, fields.get("account")))
        wanted, asked = read_refund_request(fields), _asked(call, fields)
        return _answer(account, await self._issuers[account].create(wanted, key, asked))

    @issue_operation(
        "POST",
        "/v1/refunds/{refund_id}/retry",
        id="retryRefund",
        summary="Reissue a declined refund, at most once",
        parameters=(REFUND, ACCOUNT),
        body=Body(RETRY, required=False),
        answers=(
            Answer(201, RefundJson, "Amazon accepted the new refund.", MADE, TO_REFUND),
            STILL_PENDING,
        ),
        problem=RefundProblemJson,
        reasons=(
            {
                400: ("unknown_field",),
                404: ("no_such_refund",),
                409: (
                    *("not_declined", "not_enough_known", "in_conflict", "not_amazon_pay", "not_merchants_refund"),
                    "closed",
                ),
            },
            *REFUSALS,
        ),
    )
    async def retry(self, call: Call) -> Response:
        """Reissues a declined refund with its original values; the body may only have `besides`. Answers as `create`
        does."""
        account, refund_id = only_account(call.accounts), call[REFUND]
        fields = await read_object(call.request, needed=False)
        more = "A retry repeats the declined refund unchanged. For a different refund use POST /v1/refunds."
        check_fields(fields, ("besides",), more)
        return _answer(account, await self._issuers[account].retry(refund_id, _asked(call, fields)))


def read_refund_request(fields: Mapping[str, Any]) -> RefundRequest:
    """The refund requested. Raises `BadRequest` that names the field."""
    check_fields(fields, (*FIELDS, "full"))
    charge_id = fields.get("chargeId")
    if not isinstance(charge_id, str) or not REFUND_ID.fullmatch(charge_id):
        raise BadRequest("`chargeId` must be a charge id such as S01-5105180-3221187-C056351.", reason="bad_charge_id")
    return RefundRequest(
        charge_id=charge_id,
        money=_money(fields),
        soft_descriptor=_text(fields, "softDescriptor", MAX_SOFT_DESCRIPTOR, "bad_soft_descriptor"),
        order_reference=_reference(fields.get("orderReference", "")),
    )


def _asked(call: Call, fields: Mapping[str, Any]) -> Asked:
    traceparent = traceparent_of(call.request.headers.raw)
    return Asked(call.actor, read_besides(fields.get("besides", [])), traceparent)


def read_besides(value: object) -> tuple[str, ...]:
    """The refunds and refund requests that `besides` names. Raises `BadRequest` (`bad_besides`)."""
    ids = value if isinstance(value, list) else [None]
    if len(ids) > MOST_NAMED or not all(isinstance(each, str) and REFUND_ID.fullmatch(each) for each in ids):
        raise BadRequest(
            f"`besides` must be a list of at most {MOST_NAMED} ids of refunds or refund requests of the charge, such "
            'as ["S01-5105180-3221187-R022311"].',
            reason="bad_besides",
        )
    return tuple(ids)


def _money(fields: Mapping[str, Any]) -> Money | None:
    """The amount; None for all that is left."""
    full = fields.get("full", False)
    if not isinstance(full, bool) or (full and "refundAmount" in fields):
        raise BadRequest(
            'Send either `refundAmount`, or `"full": true` for all that is left of the captured amount.',
            reason="bad_full",
        )
    return None if full else read_money(fields.get("refundAmount"), ', or send `"full": true`')


def _text(fields: Mapping[str, Any], name: str, most: int, reason: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise BadRequest(f"`{name}` must be a string of at most {most} printable characters.", reason=reason)
    return value


def _reference(value: object) -> str:
    if not isinstance(value, str) or reference_problem(value):
        most = f"{MAX_ORDER_REFERENCE} characters, without control characters"
        raise BadRequest(f"`orderReference` must be a string of at most {most}.", reason="bad_order_reference")
    return value


def _key(request: Request) -> str:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) != 1:
        raise BadRequest(
            "Send one Idempotency-Key header that is unique to this refund, such as your refund number. "
            "The same key never refunds twice.",
            reason="idempotency_key_needed",
        )
    return keys[0]


def pending_detail(last_error: str, detail: str, again: str) -> str:
    """Why there is no refund yet, and what the caller can do."""
    if last_error == AmazonRefusesUs.reason:
        said = tidy(detail, DESCRIPTION_LIMIT)
        kept = f"The request is saved and will be retried; {again}."
        return f"Amazon refuses our requests, so nothing has been refunded yet. {kept} {said}"
    return f"Amazon has not answered yet. The request is saved and will be retried; {again}."


def _answer(account: str, issued: Issued) -> Response:
    repeated = {"Idempotent_Replayed": "true"} if issued.repeated else {}
    if issued.refund is not None:
        refund = issued.refund
        location = f"/v1/refunds/{refund.refund_id}?account={account}"
        return json_answer(refund_json(refund), 201, Location=location, **repeated)
    record, order = issued.record, issued.record.order
    body = PendingRequestJson(
        account=account,
        refund_request_id=order.id,
        charge_id=order.charge_id,
        refund_amount=money_json(order.money),
        order_reference=whole_reference(order.order_reference),
        status="pending",
        reason=record.last_error or None,
        detail=pending_detail(record.last_error, record.detail, "repeat the call with the same key"),
        amazon=refusal_json(record),
    )
    return json_answer(body, 202, Retry_After=str(ASK_AGAIN), **repeated)

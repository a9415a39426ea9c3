"""HTTP. `POST /v1/fps/refunds` and `/fps/{account}`: Flexible Payments, which Amazon retired on 1 June 2015.

The second receives the status notification, a form. Its sender can no longer be proven, so it only makes the poll of
Amazon due now, and only for a refund that this account has ordered:

| case | answer |
|---|---|
| about a refund ordered here: it is due now | 200 |
| not about a refund: ignored | 200 |
| malformed | 400 |
| no such account, or one without Flexible Payments | 404 |
| more than 16 KiB | 413 |
| about a refund not ordered here: the order may be on its way | 503 + Retry-After |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response
from starlette.routing import Route

from receiver.amazon.fps.calls import MAX_DESCRIPTION, TRANSACTION_ID, FpsRefundRequest, Policy
from receiver.amazon.fps.notification import MAX_BODY, read_status_notification
from receiver.errors import BadRequest, InvalidNotification, NotFound, Unavailable
from receiver.http.api.auth import Caller
from receiver.http.api.bodies import (
    ACCOUNT_FIELD,
    REFUND_FIELD,
    check_fields,
    money_schema,
    object_schema,
    only_account,
    possible_accounts,
    read_money,
    read_object,
)
from receiver.http.api.issuing import ASK_AGAIN, TO_REFUND, pending_detail
from receiver.http.api.operations import (
    COMMIT,
    LOCATION,
    NO_ACCOUNT,
    PENDING,
    Answer,
    Body,
    Call,
    Operation,
    issue_operation,
)
from receiver.http.api.params import Schema, whole
from receiver.http.api.schema import PendingOrderJson
from receiver.http.ipn.endpoint import Ipn
from receiver.http.ipn.incoming import Address
from receiver.http.ipn.operations import ACCOUNT_IN_PATH, TO_SNS
from receiver.http.problems import RefundProblemJson
from receiver.http.respond import json_answer
from receiver.issue.fps import FpsIssuer, Ordered
from receiver.ledger.notification import NotificationOutcome, PostedNotification, Receipt
from receiver.ledger.schema import RefundJson, money_json, refund_json
from receiver.runtime.metrics import Metrics
from receiver.settings.sections import IngestSettings

FIELDS: Final[Mapping[str, Schema]] = {
    "account": ACCOUNT_FIELD,
    "transactionId": {"type": "string", "pattern": whole(TRANSACTION_ID), "description": "The transaction to refund."},
    "refundTransactionReference": {
        **REFUND_FIELD,
        "description": "Your own reference, unique for ever. It is the refund's id here, and the key: the same values "
        "again are the same refund.",
    },
    "refundAmount": money_schema(
        {"type": "string", "pattern": "^[Uu][Ss][Dd]$"}, "Default: everything not yet refunded."
    ),
    "description": {"type": "string", "maxLength": MAX_DESCRIPTION, "description": "Printable characters."},
    "marketplaceRefundPolicy": {"type": "string", "enum": ["", *Policy]},
}
CREATE: Final = object_schema(
    "A refund through Flexible Payments.",
    ("transactionId", "refundTransactionReference"),
    FIELDS,
    {
        "transactionId": "14GKSIMULATOR0000000000000000000001",
        "refundTransactionReference": "order-4711-refund-1",
        "refundAmount": {"amount": "14.01", "currencyCode": "USD"},
    },
)
FORM: Final[Schema] = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "string", "pattern": "^[A-Za-z]{1,32}$"},
        "operation": {"type": "string", "pattern": "^[A-Za-z]{0,32}$"},
        "transactionId": {"type": "string"},
        "referenceId": {
            "type": "string",
            "description": "For a refund: the reference under which it was ordered here.",
        },
    },
    "additionalProperties": {"type": "string"},
    "description": "The fields of a status notification, named as in FPS or Simple Pay, in any case.",
    "examples": [{"status": "SUCCESS", "operation": "REFUND", "referenceId": "order-4711-refund-1"}],
}
ORDER_ON_ITS_WAY = 60
WHEN_ABSENT = "; omit it to refund everything not yet refunded"
TAKE_FORM: Final = Operation(
    "POST",
    "/fps/{account}",
    id="receiveFpsNotification",
    tag="notifications",
    summary="Receive a status notification from Flexible Payments, which Amazon retired in 2015",
    about="The sender of such a form can no longer be proven. It only makes a refund ordered here due for polling now.",
    parameters=(ACCOUNT_IN_PATH,),
    body=Body(FORM, media_type="application/x-www-form-urlencoded"),
    answers=(Answer(200, about="Accepted, or not about a refund. No body."),),
    bare={
        **{status: TO_SNS[status] for status in (413, 415, 500, 501)},
        400: "Malformed. No body.",
        404: "The account does not exist or has no Flexible Payments. No body.",
        503: "There is no order with this reference yet, or a temporary problem of the service. No body.",
    },
    problem=None,
)


class NoFlexiblePayments(InvalidNotification):
    """No account of this name has Flexible Payments."""

    status = 404
    reason = "no_fps"


def form_endpoint(fps_issuers: Mapping[str, FpsIssuer], limits: IngestSettings, metrics: Metrics) -> Ipn:
    """Where status notifications are posted; `fps_issuers` by account, only the configured ones."""
    narrow = limits.model_copy(update={"max_body": min(limits.max_body, MAX_BODY)})
    return Ipn(Forms(fps_issuers), narrow, metrics, dated=False, address=Address("/fps", needs_account=True))


def form_routes(forms: Ipn) -> list[Route]:
    return [Route(path, forms) for path in (TAKE_FORM.path, f"{TAKE_FORM.path}/")]


class Forms:
    """Receives status notifications, in the same way as those of Amazon Pay."""

    waiting = 0

    def __init__(self, fps_issuers: Mapping[str, FpsIssuer]) -> None:
        self._issuers = fps_issuers

    async def receive(self, posted: PostedNotification) -> Receipt:
        """Process one. Raises `InvalidNotification`, or `Unavailable` for a reference without an order.

        Any client can post a form, so its `traceparent` is used in the log only.
        """
        issuer = self._issuers.get(posted.account or "")
        if issuer is None:
            raise NoFlexiblePayments()
        notice = read_status_notification(posted.body)
        if not notice.is_refund:
            return Receipt(NotificationOutcome.NOT_A_REFUND, 0, 0, object_type="FPS")
        if not await issuer.hint(notice.reference):
            raise Unavailable(
                "There is no order with this reference yet.", reason="fps_no_order", retry_after=ORDER_ON_ITS_WAY
            )
        return Receipt(
            NotificationOutcome.NOTED,
            0,
            0,
            object_type="FPS",
            refund_id=notice.reference,
            accounts=(posted.account or "",),
        )


class FpsApi:
    """The handler; `fps_issuers` by account, only the configured ones."""

    def __init__(self, fps_issuers: Mapping[str, FpsIssuer]) -> None:
        self._issuers = fps_issuers

    @issue_operation(
        "POST",
        "/v1/fps/refunds",
        id="createFpsRefund",
        summary="Issue a refund through Flexible Payments, which Amazon retired in 2015",
        about="Your reference is the key: repeating the call with the same values is answered from the ledger.",
        body=Body(CREATE),
        answers=(
            Answer(201, RefundJson, "Accepted by Amazon.", LOCATION, TO_REFUND),
            Answer(202, PendingOrderJson, "Amazon has not answered yet.", PENDING),
        ),
        problem=RefundProblemJson,
        reasons=(
            {
                400: (
                    *("bad_parameter", "unknown_field", "bad_field", "bad_transaction_id", "bad_reference"),
                    *("bad_amount", "bad_currency", "bad_description", "bad_policy"),
                ),
                404: ("no_fps",),
                409: ("account_needed", "reference_taken", "reference_reused", "refund_unclear", "refund_not_sent"),
                422: ("amazon_refused",),
            },
            NO_ACCOUNT,
            COMMIT,
        ),
    )
    async def create(self, call: Call) -> Response:
        """201 with the refund, or 202 while Amazon has not answered. The reference is the key."""
        fields = await read_object(call.request)
        account = self._account(call.caller, fields.get("account"))
        return _answer(account, await self._issuers[account].create(read_order(fields), call.actor))

    def _account(self, caller: Caller, named: object) -> str:
        found = [name for name in possible_accounts(caller, named) if name in self._issuers]
        if not found:
            raise NotFound("No account visible to the token has Flexible Payments (`[accounts.fps]`).", reason="no_fps")
        return only_account(found)


def read_order(fields: Mapping[str, Any]) -> FpsRefundRequest:
    """The refund that the fields describe. Raises `BadRequest` that names the field."""
    check_fields(fields, FIELDS)
    texts = {name: _text(fields, name) for name in FIELDS if name not in ("account", "refundAmount")}
    return FpsRefundRequest(
        texts["transactionId"],
        texts["refundTransactionReference"],
        read_money(fields["refundAmount"], WHEN_ABSENT) if "refundAmount" in fields else None,
        texts["description"],
        texts["marketplaceRefundPolicy"],
    )


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise BadRequest(f"`{name}` must be a string.", reason="bad_field")
    return value


def _answer(account: str, ordered: Ordered) -> Response:
    if ordered.refund is not None:
        location = f"/v1/refunds/{ordered.refund.refund_id}?account={account}"
        return json_answer(refund_json(ordered.refund), 201, Location=location)
    record, values = ordered.record, ordered.record.order.values
    body = PendingOrderJson(
        account=account,
        refund_id=values.reference,
        charge_id=values.transaction_id,
        refund_amount=money_json(values.amount),
        status="pending",
        reason=record.last_error or None,
        detail=pending_detail(record.last_error, record.detail, "repeat the call with the same values"),
    )
    return json_answer(body, 202, Retry_After=str(ASK_AGAIN))

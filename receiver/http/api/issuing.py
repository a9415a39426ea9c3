"""HTTP. `POST /v1/refunds` and `/v1/refunds/{id}/retry`: issue a refund, once however often it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from receiver.amazon.calls import MAX_SOFT_DESCRIPTOR
from receiver.errors import AmazonRefusesUs, BadRequest, Malformed
from receiver.http.api.auth import Caller, Tokens
from receiver.http.api.bodies import chosen_account, read_object
from receiver.http.api.params import Params
from receiver.http.api.respond import json_answer
from receiver.http.api.schema import PendingRequestJson
from receiver.http.headers import traceparent_of
from receiver.issue.issuer import Issued, Issuer
from receiver.ledger.money import Money
from receiver.ledger.order_reference import MAX_ORDER_REFERENCE, reference_problem, whole_reference
from receiver.ledger.refund import REFUND_ID
from receiver.ledger.refund_request import Asked, RefundRequest
from receiver.ledger.request_shape import refusal_json
from receiver.ledger.schema import DESCRIPTION_LIMIT, money_json, refund_json, tidy
from receiver.settings.sections import Scope

FIELDS = ("account", "chargeId", "refundAmount", "softDescriptor", "orderReference", "besides")
MOST_NAMED = 50
"""Ids that one `besides` may hold: far more than refunds that Amazon takes for a charge."""
ASK_AGAIN = 5


class IssueApi:
    """The handlers; `issuers` by account."""

    def __init__(self, issuers: Mapping[str, Issuer], tokens: Tokens) -> None:
        self._issuers, self._tokens = issuers, tokens

    async def create(self, request: Request) -> Response:
        """`POST /v1/refunds` with `Idempotency-Key`: 201 with the refund, 202 while Amazon has not answered."""
        caller = self._caller(request)
        Params(request, ())
        key = _key(request)
        fields = await read_object(request)
        account = chosen_account(caller, fields.get("account"))
        wish, asked = read_wish(fields), _asked(request, caller, fields)
        return _answer(account, await self._issuers[account].create(wish, key, asked))

    async def retry(self, request: Request) -> Response:
        """`POST /v1/refunds/{id}/retry?account=`: a declined refund again, at most once. Answers as `create` does.

        Whoever sends values means another refund than this one; only `besides` may be sent.
        """
        caller = self._caller(request)
        account = chosen_account(caller, Params(request, ("account",)).opaque("account") or None)
        refund_id = request.path_params["refund_id"]
        if not REFUND_ID.fullmatch(refund_id):
            raise BadRequest("A refund id has at most 64 letters, digits and dashes.", reason="bad_refund_id")
        fields = await read_object(request, needed=False)
        if set(fields) - {"besides"}:
            raise BadRequest(
                "Unknown field; known: besides. A retry repeats the declined refund as it was. Another one is POST "
                "/v1/refunds.",
                reason="unknown_field",
            )
        asked = _asked(request, caller, fields)
        return _answer(account, await self._issuers[account].retry(refund_id, asked))

    def _caller(self, request: Request) -> Caller:
        caller = self._tokens.identify(request)
        caller.need(Scope.REFUND)
        return caller


def read_wish(fields: Mapping[str, Any]) -> RefundRequest:
    """What a caller wants refunded. Raises `BadRequest` that names the field."""
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise BadRequest(f"Unknown field; known are {', '.join(FIELDS)}.", reason="unknown_field")
    charge_id = fields.get("chargeId")
    if not isinstance(charge_id, str) or not REFUND_ID.fullmatch(charge_id):
        raise BadRequest("`chargeId` is the id of a charge, like S01-5105180-3221187-C056351.", reason="bad_charge_id")
    return RefundRequest(
        charge_id=charge_id,
        money=_money(fields.get("refundAmount")),
        soft_descriptor=_text(fields, "softDescriptor", MAX_SOFT_DESCRIPTOR, "bad_soft_descriptor"),
        order_reference=_reference(fields.get("orderReference", "")),
    )


def _asked(request: Request, caller: Caller, fields: Mapping[str, Any]) -> Asked:
    return Asked(caller.name, read_besides(fields.get("besides", [])), traceparent_of(request.headers.raw))


def read_besides(value: object) -> tuple[str, ...]:
    """The refunds and refund requests that the caller names. Raises `BadRequest` (`bad_besides`)."""
    ids = value if isinstance(value, list) else [None]
    if len(ids) > MOST_NAMED or not all(isinstance(each, str) and REFUND_ID.fullmatch(each) for each in ids):
        raise BadRequest(
            f"`besides` is a list of at most {MOST_NAMED} ids of refunds or refund requests of the charge, such as "
            '["S01-5105180-3221187-R022311"].',
            reason="bad_besides",
        )
    return tuple(ids)


def _money(value: object) -> Money:
    if not isinstance(value, Mapping) or set(value) != {"amount", "currencyCode"}:
        shape = '{"amount": "14.00", "currencyCode": "USD"}'
        raise BadRequest(f"`refundAmount` is an object like {shape}.", reason="bad_amount")
    try:
        return Money.parse(value["amount"], value["currencyCode"])
    except Malformed as error:
        raise BadRequest(f"`refundAmount`: {error.detail}", reason=error.reason) from None


def _text(fields: Mapping[str, Any], name: str, most: int, reason: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise BadRequest(f"`{name}` is a text of at most {most} printable characters.", reason=reason)
    return value


def _reference(value: object) -> str:
    if not isinstance(value, str) or reference_problem(value):
        most = f"{MAX_ORDER_REFERENCE} characters, without control characters"
        raise BadRequest(f"`orderReference` is a text of at most {most}.", reason="bad_order_reference")
    return value


def _key(request: Request) -> str:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) != 1:
        raise BadRequest(
            "Send one Idempotency-Key header with a word of your own for this refund, such as your refund's number. "
            "The same key never refunds twice.",
            reason="idempotency_key_needed",
        )
    return keys[0]


def pending_detail(last_error: str, detail: str, again: str) -> str:
    """Why there is no refund yet, and what the caller may do."""
    if last_error == AmazonRefusesUs.reason:
        said = tidy(detail, DESCRIPTION_LIMIT)
        return f"Amazon refuses our requests, so nothing was refunded yet. It is tried on; {again}. {said}"
    return f"Amazon has not answered yet. The request is kept and tried on; {again}."


def _answer(account: str, issued: Issued) -> Response:
    if issued.refund is not None:
        refund = issued.refund
        location = f"/v1/refunds/{refund.refund_id}?account={account}"
        return json_answer(refund_json(refund), 201, Location=location)
    record, order = issued.record, issued.record.order
    body: PendingRequestJson = {
        "account": account,
        "refundRequestId": order.id,
        "chargeId": order.charge_id,
        "refundAmount": money_json(order.money),
        "orderReference": whole_reference(order.order_reference),
        "status": "pending",
        "reason": record.last_error or None,
        "detail": pending_detail(record.last_error, record.detail, "ask again with the same key"),
        "amazon": refusal_json(record),
    }
    return json_answer(body, 202, Retry_After=str(ASK_AGAIN))

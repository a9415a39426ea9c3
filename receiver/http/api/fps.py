"""HTTP. `POST /v1/fps/refunds` and `/fps/{account}`: Flexible Payments, which Amazon retired on 1 June 2015.

The second takes the status notification, a form. Nothing proves any more who sent it, so it changes nothing but when
Amazon is asked, and that only for a refund that this account has ordered:

| case | answer |
|---|---|
| about a refund that was ordered here: it is due now | 200 |
| not about a refund: passed over | 200 |
| garbled | 400 |
| no such account, or one without Flexible Payments | 404 |
| more than 16 KiB | 413 |
| about a refund that nobody ordered here: the order may be on its way | 503 + Retry-After |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from receiver.amazon.fps.calls import FpsRefundRequest
from receiver.amazon.fps.notification import MAX_BODY, read_status_notification
from receiver.errors import BadRequest, Conflict, InvalidNotification, Malformed, NotFound, Unavailable
from receiver.http.api.auth import Caller, Tokens
from receiver.http.api.bodies import read_object
from receiver.http.api.issuing import pending_detail
from receiver.http.api.params import Params
from receiver.http.api.respond import json_answer
from receiver.http.api.schema import PendingOrderJson
from receiver.http.ipn.endpoint import Ipn
from receiver.issue.fps import FpsIssuer, Ordered
from receiver.ledger.money import Money
from receiver.ledger.receipt import NotificationOutcome, Receipt
from receiver.ledger.schema import money_json, refund_json
from receiver.runtime.metrics import Metrics
from receiver.settings.sections import IngestSettings, Scope

FIELDS = (
    "account",
    "transactionId",
    "refundTransactionReference",
    "refundAmount",
    "description",
    "marketplaceRefundPolicy",
)
ASK_AGAIN = 5
ORDER_ON_ITS_WAY = 60


class NoFlexiblePayments(InvalidNotification):
    """No account of this name has Flexible Payments."""

    status = 404
    title = "Not Found"
    reason = "no_fps"


def fps_routes(
    fps_issuers: Mapping[str, FpsIssuer], tokens: Tokens, limits: IngestSettings, metrics: Metrics
) -> list[BaseRoute]:
    """The routes over the accounts that have Flexible Payments."""
    configured = {name: legacy for name, legacy in fps_issuers.items() if legacy.is_configured}
    narrow = limits.model_copy(update={"max_body": min(limits.max_body, MAX_BODY)})
    forms = Ipn(Forms(configured), narrow, metrics, dated=False)
    return [
        Route("/v1/fps/refunds", FpsApi(configured, tokens).create, methods=["POST"]),
        *(Route(path, forms) for path in ("/fps/{account}", "/fps/{account}/")),
    ]


class Forms:
    """Status notifications, taken off the wire as those of Amazon Pay are."""

    waiting = 0

    def __init__(self, fps_issuers: Mapping[str, FpsIssuer]) -> None:
        self._legacies = fps_issuers

    async def receive(
        self,
        body: bytes,
        headers: Mapping[str, str],
        account: str | None = None,
        traceparent: str = "",
        source: str = "",
    ) -> Receipt:
        """Take one. Raises `InvalidNotification`, or `Unavailable` for a reference without an order.

        Anybody can post a form: its `traceparent` goes no further than the log.
        """
        legacy = self._legacies.get(account or "")
        if legacy is None:
            raise NoFlexiblePayments()
        told = read_status_notification(body)
        if not told.is_refund:
            return Receipt(NotificationOutcome.NOT_A_REFUND, 0, 0, object_type="FPS")
        if not await legacy.hint(told.reference):
            raise Unavailable(
                "There is no order under this reference yet.", reason="fps_no_order", retry_after=ORDER_ON_ITS_WAY
            )
        return Receipt(
            NotificationOutcome.NOTED, 0, 0, object_type="FPS", refund_id=told.reference, accounts=(account or "",)
        )


class FpsApi:
    """The handler; `fps_issuers` by account, only those that are configured."""

    def __init__(self, fps_issuers: Mapping[str, FpsIssuer], tokens: Tokens) -> None:
        self._legacies, self._tokens = fps_issuers, tokens

    async def create(self, request: Request) -> Response:
        """`POST /v1/fps/refunds`: 201 with the refund, 202 while Amazon has not answered. The reference is the key."""
        caller = self._tokens.identify(request)
        caller.need(Scope.REFUND)
        Params(request, ())
        fields = await read_object(request)
        account = self._account(caller, fields.get("account"))
        return _answer(account, await self._legacies[account].create(read_order(fields)))

    def _account(self, caller: Caller, named: object) -> str:
        if named is not None and not isinstance(named, str):
            raise BadRequest("`account` is the name of an account.", reason="bad_parameter")
        found = [name for name in caller.seen(named) if name in self._legacies]
        if not found:
            raise NotFound("No account here has Flexible Payments: `[accounts.fps]`.", reason="no_fps")
        if len(found) > 1:
            raise Conflict(f"Say which `account`: one of {', '.join(found)}.", reason="account_needed")
        return found[0]


def read_order(fields: Mapping[str, Any]) -> FpsRefundRequest:
    """The values of a refund. Raises `BadRequest` that names the field."""
    if set(fields) - set(FIELDS):
        raise BadRequest(f"Unknown field; known are {', '.join(FIELDS)}.", reason="unknown_field")
    texts = {name: _text(fields, name) for name in FIELDS if name not in ("account", "refundAmount")}
    return FpsRefundRequest(
        texts["transactionId"],
        texts["refundTransactionReference"],
        _money(fields["refundAmount"]) if "refundAmount" in fields else None,
        texts["description"],
        texts["marketplaceRefundPolicy"],
    )


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise BadRequest(f"`{name}` is a text.", reason="bad_field")
    return value


def _money(value: object) -> Money:
    """An amount that is there; null is none, and does not mean all that is left."""
    if not isinstance(value, Mapping) or set(value) != {"amount", "currencyCode"}:
        shape = '{"amount": "14.00", "currencyCode": "USD"}'
        raise BadRequest(
            f"`refundAmount` is an object like {shape}; it is left out where all that is left is to be refunded.",
            reason="bad_amount",
        )
    try:
        return Money.parse(value["amount"], value["currencyCode"])
    except Malformed as error:
        raise BadRequest(f"`refundAmount`: {error.detail}", reason=error.reason) from None


def _answer(account: str, ordered: Ordered) -> Response:
    if ordered.refund is not None:
        location = f"/v1/refunds/{ordered.refund.refund_id}?account={account}"
        return json_answer(refund_json(ordered.refund), 201, Location=location)
    record, values = ordered.record, ordered.record.order.values
    body: PendingOrderJson = {
        "account": account,
        "refundId": values.reference,
        "chargeId": values.transaction_id,
        "refundAmount": money_json(values.amount),
        "status": "pending",
        "reason": record.last_error or None,
        "detail": pending_detail(record.last_error, record.detail, "ask again with the same values"),
    }
    return json_answer(body, 202, Retry_After=str(ASK_AGAIN))

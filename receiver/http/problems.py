"""HTTP. Errors as `application/problem+json` (RFC 9457) with a stable `reason`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated, Literal, NotRequired, TypedDict

import msgspec
import structlog
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import AmazonError, ReceiverError, Unauthorized
from receiver.ledger.dispute import DisputeJson
from receiver.ledger.request_shape import OtherRefundJson, RefusalJson

MEDIA_TYPE = "application/problem+json"
REASONS = {404: "no_such_route", 405: "method"}
"""Stable reasons for what the router refuses."""
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""The status phrases of RFC 9110. Python has older ones for these, before version 3.13."""


class ProblemJson(TypedDict):
    """What is wrong (RFC 9457). Branch on `reason`; for a reason that you do not know, use the status."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: Annotated[str, Meta(description="Human-readable: what is wrong, and what to do.")]
    reason: Annotated[str, Meta(description="A stable, machine-readable code.", pattern="^[a-z0-9_]+$")]
    requestId: NotRequired[Annotated[str, Meta(description="The same id as in X-Request-Id and in the service's log.")]]


class RefundProblemJson(ProblemJson):
    """Why a refund was not issued, or a refund request not resolved."""

    amazon: NotRequired[Annotated[RefusalJson, Meta(description="Amazon's answer, if Amazon was asked.")]]
    refunds: NotRequired[
        Annotated[
            list[OtherRefundJson],
            Meta(
                description="For same_amount_refunded, charge_in_conflict, too_many_refunds and allowance_exceeded: "
                "the other refunds of the charge that prevent this one. The first two go away if `besides` names them."
            ),
        ]
    ]
    disputes: NotRequired[
        Annotated[list[DisputeJson], Meta(description="For buyer_may_be_paid: the disputes that prevent it.")]
    ]
    refundRequestId: NotRequired[Annotated[str, Meta(description="For refund_unclear: the unclear request.")]]
    candidateRefundId: NotRequired[
        Annotated[str | None, Meta(description="For refund_unclear: the one refund that it may have made.")]
    ]


class JobProblemJson(ProblemJson):
    """Why a job was not started."""

    job: NotRequired[Annotated[str, Meta(description="For job_running: the id of the unfinished job.")]]


def problem(
    status: int,
    reason: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    more: Mapping[str, object] = MappingProxyType({}),
) -> Response:
    """Builds one problem. `type` is `about:blank`, so `title` is the status phrase; `reason` identifies the problem."""
    http_request_id = structlog.contextvars.get_contextvars().get("request_id")
    body = {
        "type": "about:blank",
        "title": TITLES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "reason": reason,
        **({"requestId": http_request_id} if http_request_id else {}),
        **more,
    }
    return Response(msgspec.json.encode(body), status, headers, MEDIA_TYPE)


def answer_to(_: Request, error: Exception) -> Response:
    """The answer to an error. For an unexpected one, it contains no details."""
    if isinstance(error, ReceiverError):
        return _on_receiver_error(error)
    if isinstance(error, HTTPException):
        detail = "See the Allow header." if error.status_code == 405 else "Not found."
        reason = REASONS.get(error.status_code, "rejected")
        return problem(error.status_code, reason, detail, headers=dict(error.headers or {}))
    return problem(500, "internal_error", "Internal error. See the service's log for this request's id.")


def _on_receiver_error(error: ReceiverError) -> Response:
    """The error's texts are written for users and contain no secrets."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        wrong = ', error="invalid_token"' if error.reason == "token_unknown" else ""
        headers["WWW-Authenticate"] = f'Bearer realm="receiver"{wrong}'
    elif error.reason == "scope_missing":
        headers["WWW-Authenticate"] = 'Bearer realm="receiver", error="insufficient_scope"'
    return problem(
        error.status,
        error.reason,
        error.detail,
        headers=headers,
        more={**error.more, **_amazon_answer(error)},
    )


def _amazon_answer(error: ReceiverError) -> dict[str, object]:
    """Amazon's answer, for a caller that has to contact Amazon about it."""
    if not isinstance(error, AmazonError):
        return {}
    refusal = {
        "status": error.amazon_status,
        "reasonCode": error.reason_code or None,
        "requestId": error.amazon_request_id,
    }
    return {"amazon": refusal}

"""HTTP. Operations on refunds and on requests to issue them, described."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from receiver.http.api.params import WORD
from receiver.http.api.refunds import LIMIT, LONGEST_WAIT, MOST
from receiver.http.api.requests import REQUEST_ID
from receiver.http.api.schema import HistoryJson, PendingOrderJson, PendingRequestJson, RefreshJson, RefundListJson
from receiver.http.openapi.bodies import CREATE_FPS_REFUND, CREATE_REFUND, RETRY_REFUND, time, whole
from receiver.http.openapi.vocabulary import (
    ACCOUNT,
    AMAZON,
    COMMIT,
    JSON,
    LISTED,
    OBJECT,
    QUERY,
    SEVERAL,
    STORE,
    Answer,
    Body,
    Operation,
    Parameter,
    Schema,
)
from receiver.http.problems import RefundProblemJson
from receiver.issue.orders import LONGEST_KEY
from receiver.ledger.order_reference import MAX_ORDER_REFERENCE
from receiver.ledger.refund import REFUND_ID
from receiver.ledger.schema import RefundJson
from receiver.outbox.formats.cloudevents import AdvisedRefundJson
from receiver.settings.sections import Scope

EXAMPLE_KEY: Final = "order-4711-refund-1"
TEXT: Final[Schema] = {"type": "string"}
WORD_SCHEMA: Final[Schema] = {"type": "string", "pattern": whole(WORD)}
ONE_ACCOUNT: Final = Parameter("account", "Our name of the account. Left out: all that the token may see.", TEXT)
REFUND: Final = Parameter(
    "refund_id",
    "Amazon's id of the refund; of Flexible Payments, your reference.",
    {"type": "string", "pattern": whole(REFUND_ID)},
    place="path",
    required=True,
    example="S01-5105180-3221187-R022311",
)
REQUEST: Final = Parameter(
    "request_id",
    "SHA-256 of the Idempotency-Key, in hexadecimal digits.",
    {"type": "string", "pattern": whole(REQUEST_ID)},
    place="path",
    required=True,
    example=sha256(EXAMPLE_KEY.encode()).hexdigest(),
)
LOCATION: Final = {"Location": "Where the refund is."}
TAG: Final = {"ETag": "Weak: the same tag is the same answer but for `asOf`."}
PENDING: Final = {"Retry-After": "Seconds after which to ask again."}
READ, ISSUE = (Scope.READ,), (Scope.REFUND,)
TO_REQUEST: Final = {
    "getRefundRequest": {
        "operationId": "getRefundRequest",
        "parameters": {"request_id": "$response.body#/refundRequestId"},
    }
}
ONE_REFUND: Final = ({400: ("bad_refund_id",), 404: ("no_such_refund",)}, SEVERAL, QUERY, STORE)
ISSUING: Final = (
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
    ACCOUNT,
    QUERY,
    STORE,
    COMMIT,
)


def number(name: str, about: str, default: int, low: int, high: int) -> Parameter:
    """A whole number in the query."""
    return Parameter(name, about, {"type": "integer", "minimum": low, "maximum": high, "default": default})


def to_refund(operation: str) -> dict[str, Schema]:
    """That the answer's refund is what the operation asks for."""
    return {operation: {"operationId": operation, "parameters": {"refund_id": "$response.body#/refundId"}}}


OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("/v1/refunds", "get"): Operation(
        id="listRefunds",
        tag="refunds",
        summary="Refunds, newest change first",
        scopes=READ,
        parameters=(
            ONE_ACCOUNT,
            Parameter("state", "RefundInitiated, Refunded, Declined, or another word of Amazon's.", WORD_SCHEMA),
            Parameter("reason", "Reason code, such as AmazonRejected.", WORD_SCHEMA),
            Parameter("charge", "Amazon's id of the charge.", WORD_SCHEMA),
            Parameter(
                "order",
                "The merchant's own order number. Printable characters.",
                {**TEXT, "minLength": 1, "maxLength": MAX_ORDER_REFERENCE},
            ),
            Parameter("since", "The + of an offset is written %2B.", time("Changed at or after it.")),
            Parameter("cursor", "`nextCursor` of the page before, for the same filters.", TEXT),
            number("limit", "How many.", LIMIT, 1, MOST),
        ),
        answers=(Answer(200, {JSON: RefundListJson}),),
        reasons=(LISTED, {400: ("bad_parameter", "bad_cursor")}, ACCOUNT, QUERY, STORE),
    ),
    ("/v1/refunds", "post"): Operation(
        id="createRefund",
        tag="issuing",
        summary="Issue a refund, once however often it is asked for",
        about="The request is on disk before Amazon is asked. The same key with the same values is the same refund: "
        "asking again is always safe.",
        scopes=ISSUE,
        parameters=(
            Parameter(
                "Idempotency-Key",
                "A word of your own for this refund, in printable ASCII characters.",
                {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[ -~]+$"},
                place="header",
                required=True,
                example=EXAMPLE_KEY,
            ),
        ),
        body=Body(CREATE_REFUND),
        answers=(
            Answer(201, {JSON: RefundJson}, "Amazon has taken it.", LOCATION, to_refund("getRefund")),
            Answer(202, {JSON: PendingRequestJson}, "Amazon has not answered yet.", PENDING, TO_REQUEST),
        ),
        problem=RefundProblemJson,
        reasons=(
            {
                400: (
                    *("idempotency_key_needed", "bad_idempotency_key", "bad_parameter", "unknown_field"),
                    *("bad_charge_id", "bad_currency", "bad_soft_descriptor", "bad_order_reference"),
                ),
                409: ("idempotency_key_reused",),
            },
            OBJECT,
            *ISSUING,
        ),
    ),
    ("/v1/refunds/{refund_id}", "get"): Operation(
        id="getRefund",
        tag="refunds",
        summary="A refund, with advice where it was declined",
        scopes=READ,
        parameters=(
            REFUND,
            ONE_ACCOUNT,
            number("wait", "Seconds to wait until it is known and final.", 0, 0, LONGEST_WAIT),
            Parameter("If-None-Match", "An `ETag` that you have; a list, or `*`.", TEXT, place="header"),
        ),
        answers=(Answer(200, {JSON: AdvisedRefundJson}, headers=TAG), Answer(304, headers=TAG)),
        reasons=({400: ("bad_parameter",), 503: ("too_many_waiting",)}, *ONE_REFUND),
    ),
    ("/v1/refunds/{refund_id}/history", "get"): Operation(
        id="getRefundHistory",
        tag="refunds",
        summary="Every revision of a refund, oldest first, with its source",
        scopes=READ,
        parameters=(REFUND, ONE_ACCOUNT),
        answers=(Answer(200, {JSON: HistoryJson}),),
        reasons=ONE_REFUND,
    ),
    ("/v1/refunds/{refund_id}/refresh", "post"): Operation(
        id="refreshRefund",
        tag="refunds",
        summary="Have Amazon asked about a refund now",
        about="Takes in a refund that nobody told us about, where it is clear which account it is of. Its id must have "
        "the form of Amazon's refund ids then. What notifications tell of is asked about first. A token may ask so "
        "often a minute (`http.refreshes`).",
        scopes=(Scope.REFUND, Scope.ADMIN),
        parameters=(REFUND, ONE_ACCOUNT),
        answers=(Answer(202, {JSON: RefreshJson}, headers=LOCATION),),
        reasons=(
            {400: ("bad_refund_id",), 409: ("several_accounts", "account_needed"), 429: ("too_many_refreshes",)},
            ACCOUNT,
            QUERY,
            STORE,
        ),
    ),
    ("/v1/refunds/{refund_id}/retry", "post"): Operation(
        id="retryRefund",
        tag="issuing",
        summary="Issue a declined refund again, at most once",
        scopes=ISSUE,
        parameters=(REFUND, ONE_ACCOUNT),
        body=Body(RETRY_REFUND, required=False),
        answers=(
            Answer(201, {JSON: RefundJson}, "Amazon has taken the new one.", LOCATION, to_refund("getRefund")),
            Answer(202, {JSON: PendingRequestJson}, "Amazon has not answered yet.", PENDING, TO_REQUEST),
        ),
        problem=RefundProblemJson,
        reasons=(
            {
                400: ("bad_refund_id", "unknown_field"),
                404: ("no_such_refund",),
                409: ("not_declined", "not_enough_known", "in_conflict", "not_amazon_pay", "not_merchants_refund"),
            },
            OBJECT,
            *ISSUING,
        ),
    ),
    ("/v1/fps/refunds", "post"): Operation(
        id="createFpsRefund",
        tag="issuing",
        summary="Issue a refund by Flexible Payments, which Amazon retired in 2015",
        about="Your reference is the key: the same values again are answered from the ledger.",
        scopes=ISSUE,
        body=Body(CREATE_FPS_REFUND),
        answers=(
            Answer(201, {JSON: RefundJson}, "Amazon has taken it.", LOCATION, to_refund("getRefund")),
            Answer(202, {JSON: PendingOrderJson}, "Amazon has not answered yet.", PENDING),
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
            ACCOUNT,
            OBJECT,
            QUERY,
            STORE,
            COMMIT,
        ),
    ),
}

"""HTTP. Operations on requests to issue refunds, described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from receiver.http.api.requests import LIMIT as REQUEST_LIMIT
from receiver.http.api.requests import MOST as MOST_REQUESTS
from receiver.http.api.schema import RequestListJson
from receiver.http.openapi.bodies import SETTLEMENT
from receiver.http.openapi.refunds import ISSUE, ONE_ACCOUNT, PENDING, REQUEST, number
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
)
from receiver.http.problems import RefundProblemJson
from receiver.ledger.refund_request import OPEN
from receiver.ledger.request_shape import RefundRequestJson

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("/v1/refund-requests", "get"): Operation(
        id="listRefundRequests",
        tag="issuing",
        summary="Refunds that were asked for and are not settled, unclear before reserved, the oldest first",
        scopes=ISSUE,
        parameters=(
            Parameter("state", "Only these.", {"type": "string", "enum": [*OPEN]}),
            ONE_ACCOUNT,
            number("limit", "How many.", REQUEST_LIMIT, 1, MOST_REQUESTS),
        ),
        answers=(Answer(200, {JSON: RequestListJson}),),
        reasons=(LISTED, {400: ("bad_parameter",)}, ACCOUNT, QUERY, STORE),
    ),
    ("/v1/refund-requests/{request_id}", "get"): Operation(
        id="getRefundRequest",
        tag="issuing",
        summary="A request to issue a refund, in any state",
        scopes=ISSUE,
        parameters=(REQUEST, ONE_ACCOUNT),
        answers=(Answer(200, {JSON: RefundRequestJson}),),
        reasons=({400: ("bad_request_id",), 404: ("no_such_request",)}, SEVERAL, QUERY, STORE),
    ),
    ("/v1/refund-requests/{request_id}/repeat", "post"): Operation(
        id="repeatRefundRequest",
        tag="issuing",
        summary="Send an unclear request once more, under the same key of Amazon's",
        about="Amazon tells again what it did under that key, so this cannot issue a second refund. A request that is "
        "being tried, or is done, is answered as it is. Repeat an unclear request before you settle it.",
        scopes=ISSUE,
        parameters=(REQUEST, ONE_ACCOUNT),
        answers=(
            Answer(200, {JSON: RefundRequestJson}, "What became of it."),
            Answer(202, {JSON: RefundRequestJson}, "Amazon has not answered yet.", PENDING),
        ),
        problem=RefundProblemJson,
        reasons=(
            {
                400: ("bad_request_id", "unknown_field"),
                404: ("no_such_request",),
                409: ("several_accounts", "request_settled"),
            },
            ACCOUNT,
            OBJECT,
            QUERY,
            STORE,
            COMMIT,
        ),
    ),
    ("/v1/refund-requests/{request_id}/settle", "post"): Operation(
        id="settleRefundRequest",
        tag="issuing",
        summary="Say what became of an unclear request, or of one that Amazon keeps refusing",
        about="A refund that is named is looked up at Amazon first, and has to fit.",
        scopes=ISSUE,
        parameters=(REQUEST, ONE_ACCOUNT),
        body=Body(SETTLEMENT),
        answers=(Answer(200, {JSON: RefundRequestJson}),),
        problem=RefundProblemJson,
        reasons=(
            {
                400: ("bad_request_id", "bad_settlement", "bad_refund_id"),
                404: ("no_such_request",),
                409: ("several_accounts", "request_pending", "request_settled", "refund_mismatch", "refund_taken"),
                422: ("amazon_refused", "amazon_not_found"),
                502: (AMAZON,),
            },
            ACCOUNT,
            OBJECT,
            QUERY,
            STORE,
            COMMIT,
        ),
    ),
}

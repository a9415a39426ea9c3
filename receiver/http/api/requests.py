"""HTTP. `/v1/refund-requests…`: refund requests that are not resolved; a person resolves unclear ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from starlette.responses import Response

from receiver.errors import BadRequest
from receiver.http.api.bodies import REFUND_FIELD, check_fields, object_schema, read_object
from receiver.http.api.issuing import ASK_AGAIN, EXAMPLE_KEY
from receiver.http.api.lookup import find_request
from receiver.http.api.operations import AMAZON, COMMIT, OBJECT, PENDING, SEVERAL, Answer, Body, Call, issue_operation
from receiver.http.api.params import ACCOUNT, LIMIT, REFUND, Schema, choice, in_path
from receiver.http.api.schema import RequestListJson
from receiver.http.problems import RefundProblemJson
from receiver.http.respond import json_answer
from receiver.issue.issuer import Issuer
from receiver.ledger.refund_request import OPEN, RefundRequestRecord, RequestState
from receiver.ledger.request_shape import RefundRequestJson, request_json
from receiver.store import Store

REQUEST_ID = re.compile(r"[0-9a-f]{64}")
REQUEST: Final = in_path(
    "request_id",
    "SHA-256 of the Idempotency-Key, in hexadecimal.",
    sha256(EXAMPLE_KEY.encode()).hexdigest(),
    REQUEST_ID,
    ("bad_request_id", "A refund request's id is 64 hexadecimal digits: the SHA-256 of its Idempotency-Key."),
)
STATE: Final = choice("state", "Only requests in this state.", OPEN)
ONE: Final = ({404: ("no_such_request",)}, SEVERAL)
SETTLEMENT: Final[Schema] = {
    "description": "The outcome of an unclear request.",
    "oneOf": [
        object_schema(
            "Amazon made this refund.", ("refundId",), {"refundId": REFUND_FIELD}, {"refundId": "S01-1-2-R000001"}
        ),
        object_schema("Amazon made no refund.", ("notIssued",), {"notIssued": {"const": True}}, {"notIssued": True}),
    ],
}
SETTLEMENTS = '{"refundId": "S01-…"} or {"notIssued": true}'


class RequestApi:
    def __init__(self, store: Store, issuers: Mapping[str, Issuer]) -> None:
        self._store, self._issuers = store, issuers

    @issue_operation(
        "GET",
        "/v1/refund-requests",
        id="listRefundRequests",
        summary="Open refund requests: unclear before reserved, oldest first",
        parameters=(STATE, ACCOUNT, LIMIT),
        in_turn=True,
    )
    async def many(self, call: Call) -> RequestListJson:
        """Open requests. A work list, so it has no pages: `total` is their number."""
        accounts, limit = call.accounts, call[LIMIT]
        wanted = [state for state in (RequestState.UNCLEAR, RequestState.RESERVED) if state in _states(call[STATE])]
        pairs = [(account, state) for state in wanted for account in accounts]
        found = await asyncio.gather(*(self._store.of(account).requests.open(state, limit) for account, state in pairs))
        rows = [
            (wanted.index(state), record.created_at, account, record)
            for (account, state), each in zip(pairs, found, strict=True)
            for record in each.records
        ]
        rows = sorted(rows, key=lambda row: (*row[:3], row[3].order.id))[:limit]
        shown = await asyncio.gather(*(self._json(account, record) for _, _, account, record in rows))
        return RequestListJson(
            requests=[*shown],
            total=sum(each.total for each in found),
            unreadable=[refund_request_id for each in found for refund_request_id in each.unreadable],
        )

    @issue_operation(
        "GET",
        "/v1/refund-requests/{request_id}",
        id="getRefundRequest",
        summary="A refund request, in any state",
        parameters=(REQUEST, ACCOUNT),
        reasons=ONE,
    )
    async def one(self, call: Call) -> RefundRequestJson:
        return await self._json(*await find_request(self._store, call.accounts, call[REQUEST]))

    @issue_operation(
        "POST",
        "/v1/refund-requests/{request_id}/repeat",
        id="repeatRefundRequest",
        summary="Resend an unclear request, with the same Amazon idempotency key",
        about="For the same key Amazon repeats its first answer, so this cannot issue a second refund. A request that "
        "is in progress or done is returned unchanged. Repeat an unclear request before you settle it.",
        parameters=(REQUEST, ACCOUNT),
        answers=(
            Answer(200, RefundRequestJson, "The request after the attempt."),
            Answer(202, RefundRequestJson, "Amazon has not answered yet.", PENDING),
        ),
        problem=RefundProblemJson,
        reasons=(
            {400: ("unknown_field",), 409: ("request_settled",)},
            *ONE,
            OBJECT,
            COMMIT,
        ),
    )
    async def repeat(self, call: Call) -> Response:
        """200 with the outcome; 202 while Amazon has not answered."""
        accounts, refund_request_id = call.accounts, call[REQUEST]
        check_fields(await read_object(call.request, needed=False), ())
        account, _ = await find_request(self._store, accounts, refund_request_id)
        record = await self._issuers[account].manual.repeat(refund_request_id, by=call.actor)
        if record.state is RequestState.RESERVED:
            return json_answer(await self._json(account, record), 202, Retry_After=str(ASK_AGAIN))
        return json_answer(await self._json(account, record))

    @issue_operation(
        "POST",
        "/v1/refund-requests/{request_id}/settle",
        id="settleRefundRequest",
        summary="Settle a request that is unclear, or that Amazon keeps refusing",
        about="If you name a refund, it is first looked up at Amazon and must match the request.",
        parameters=(REQUEST, ACCOUNT),
        body=Body(SETTLEMENT),
        problem=RefundProblemJson,
        reasons=(
            {
                400: ("bad_settlement", "bad_refund_id"),
                409: ("request_pending", "request_settled", "refund_mismatch", "refund_taken"),
                422: ("amazon_refused", "amazon_not_found"),
                502: (AMAZON,),
            },
            *ONE,
            COMMIT,
        ),
    )
    async def settle(self, call: Call) -> RefundRequestJson:
        """Records the outcome that a person found for an unclear request."""
        accounts, refund_request_id = call.accounts, call[REQUEST]
        refund_id = _read_settlement(await read_object(call.request))
        account, _ = await find_request(self._store, accounts, refund_request_id)
        manual = self._issuers[account].manual
        if refund_id:
            record = await manual.as_done(refund_request_id, refund_id, by=call.actor)
        else:
            record = await manual.as_not_issued(refund_request_id, by=call.actor)
        return await self._json(account, record)

    async def _json(self, account: str, record: RefundRequestRecord) -> RefundRequestJson:
        return request_json(account, record, await self._store.of(account).requests.candidate_of(record))


def _states(text: str) -> Sequence[RequestState]:
    return (RequestState(text),) if text else OPEN


def _read_settlement(fields: Mapping[str, Any]) -> str:
    """The refund that the request became, according to the caller; empty if it made none."""
    if fields.keys() == {"notIssued"} and fields["notIssued"] is True:
        return ""
    if fields.keys() != {"refundId"}:
        raise BadRequest(f"Send {SETTLEMENTS} and nothing else.", reason="bad_settlement")
    refund_id = fields["refundId"]
    return REFUND.read(refund_id if isinstance(refund_id, str) else "")

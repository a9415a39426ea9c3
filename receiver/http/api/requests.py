"""HTTP. `/v1/refund-requests…`: refunds that were asked for and are not settled; a person settles unclear ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import BadRequest, Conflict, NotFound
from receiver.http.api.auth import Caller, Tokens
from receiver.http.api.bodies import read_object
from receiver.http.api.issuing import ASK_AGAIN
from receiver.http.api.params import Params
from receiver.http.api.respond import json_answer
from receiver.http.api.schema import RequestListJson
from receiver.issue.issuer import Issuer
from receiver.ledger.refund import REFUND_ID
from receiver.ledger.refund_request import OPEN, RefundRequestRecord, RequestState
from receiver.ledger.request_shape import RefundRequestJson, request_json
from receiver.settings.sections import Scope
from receiver.store import Store

REQUEST_ID = re.compile(r"[0-9a-f]{64}")
LIMIT, MOST = 50, 200
SETTLEMENT = '{"refundId": "S01-…"} or {"notIssued": true}'


class RequestApi:
    """The handlers; `issuers` by account. All need the scope refund."""

    def __init__(self, store: Store, issuers: Mapping[str, Issuer], tokens: Tokens) -> None:
        self._store, self._issuers, self._tokens = store, issuers, tokens

    async def many(self, request: Request) -> Response:
        """`GET /v1/refund-requests?state=&account=&limit=`: what is open, unclear before reserved, the oldest first.

        A list to be worked off, so it has no pages: `total` says how many there are.
        """
        caller = self._caller(request)
        params = Params(request, ("state", "account", "limit"))
        accounts = caller.seen(params.opaque("account") or None)
        limit = params.number("limit", LIMIT, 1, MOST)
        wanted = [state for state in (RequestState.UNCLEAR, RequestState.RESERVED) if state in _states(params)]
        pairs = [(account, state) for state in wanted for account in accounts]
        found = await asyncio.gather(*(self._store.open_requests(*pair, limit) for pair in pairs))
        rows = [
            (wanted.index(state), record.created_at, account, record)
            for (account, state), each in zip(pairs, found, strict=True)
            for record in each.records
        ]
        rows = sorted(rows, key=lambda row: (*row[:3], row[3].order.id))[:limit]
        shown = await asyncio.gather(*(self._json(account, record) for _, _, account, record in rows))
        body: RequestListJson = {
            "requests": [*shown],
            "total": sum(each.total for each in found),
            "unreadable": [request_id for each in found for request_id in each.unreadable],
        }
        return json_answer(body)

    async def one(self, request: Request) -> Response:
        """`GET /v1/refund-requests/{id}?account=`: a request in any state."""
        caller = self._caller(request)
        accounts = caller.seen(Params(request, ("account",)).opaque("account") or None)
        account, record = await self._the_one(accounts, _request_id(request))
        return json_answer(await self._json(account, record))

    async def settle(self, request: Request) -> Response:
        """`POST /v1/refund-requests/{id}/settle?account=`: a person has found out what became of an unclear request."""
        caller = self._caller(request)
        accounts = caller.seen(Params(request, ("account",)).opaque("account") or None)
        request_id = _request_id(request)
        refund_id = _read_settlement(await read_object(request))
        account, _ = await self._the_one(accounts, request_id)
        issuer = self._issuers[account]
        if refund_id:
            record = await issuer.resolve_as_done(request_id, refund_id, by=caller.name)
        else:
            record = await issuer.resolve_as_not_issued(request_id, by=caller.name)
        return json_answer(await self._json(account, record))

    async def repeat(self, request: Request) -> Response:
        """`POST /v1/refund-requests/{id}/repeat?account=`: send an unclear request once more, under the same key.

        200 with what became of it; 202 while Amazon has not answered.
        """
        caller = self._caller(request)
        accounts = caller.seen(Params(request, ("account",)).opaque("account") or None)
        request_id = _request_id(request)
        if await read_object(request, needed=False):
            raise BadRequest("A repetition takes no values.", reason="unknown_field")
        account, _ = await self._the_one(accounts, request_id)
        record = await self._issuers[account].repeat(request_id, by=caller.name)
        if record.state is RequestState.RESERVED:
            return json_answer(await self._json(account, record), 202, Retry_After=str(ASK_AGAIN))
        return json_answer(await self._json(account, record))

    def _caller(self, request: Request) -> Caller:
        caller = self._tokens.identify(request)
        caller.need(Scope.REFUND)
        return caller

    async def _the_one(self, accounts: Sequence[str], request_id: str) -> tuple[str, RefundRequestRecord]:
        answers = await asyncio.gather(*(self._store.request(account, request_id) for account in accounts))
        found = [(account, record) for account, record in zip(accounts, answers, strict=True) if record is not None]
        if not found:
            raise NotFound("There is no such refund request, or the token may not see it.", reason="no_such_request")
        if len(found) > 1:
            names = ", ".join(account for account, _ in found)
            raise Conflict(f"Several accounts know this request: {names}. Add ?account=.", reason="several_accounts")
        return found[0]

    async def _json(self, account: str, record: RefundRequestRecord) -> RefundRequestJson:
        return request_json(account, record, await self._store.candidate_of(account, record))


def _states(params: Params) -> Sequence[RequestState]:
    text = params.text("state")
    if text and text not in OPEN:
        raise BadRequest(f"`state` is one of {', '.join(OPEN)}.", reason="bad_parameter")
    return (RequestState(text),) if text else OPEN


def _request_id(request: Request) -> str:
    request_id: Any = request.path_params["request_id"]
    if not REQUEST_ID.fullmatch(request_id):
        raise BadRequest(
            "The id of a refund request is 64 hexadecimal digits: SHA-256 of its Idempotency-Key.",
            reason="bad_request_id",
        )
    return str(request_id)


def _read_settlement(fields: Mapping[str, Any]) -> str:
    """The refund that a person says it became; empty where he says that there was none."""
    if fields.keys() == {"notIssued"} and fields["notIssued"] is True:
        return ""
    if fields.keys() != {"refundId"}:
        raise BadRequest(f"Send {SETTLEMENT}, and nothing else.", reason="bad_settlement")
    refund_id = fields["refundId"]
    if not isinstance(refund_id, str) or not REFUND_ID.fullmatch(refund_id):
        raise BadRequest("A refund id is 1 to 64 letters, digits and hyphens.", reason="bad_refund_id")
    return refund_id

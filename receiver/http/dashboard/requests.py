"""HTTP. `/requests…`: what a person can do about an unclear refund request."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from receiver.errors import NotFound
from receiver.http.api.params import ACCOUNT
from receiver.http.api.requests import REQUEST_ID
from receiver.http.dashboard.filters import refund_path
from receiver.http.dashboard.guard import Visit, see_other
from receiver.issue.issuer import Issuer
from receiver.ledger.refund_request import RequestState

NOTICES = {
    "repeated": "The request was sent again. Amazon has not answered yet; the service keeps trying.",
    "unclear": "The request was sent again and Amazon still refuses it. Look for the refund in Seller Central.",
}


class RequestPages:
    """The handlers; `issuers` by account."""

    def __init__(self, issuers: Mapping[str, Issuer]) -> None:
        self._issuers = issuers

    async def repeat(self, visit: Visit) -> Response:
        """`POST /requests/{request_id}/repeat?account=`: resends an unclear request, with the same key."""
        refund_request_id, account = str(visit.request.path_params["request_id"]), visit[ACCOUNT]
        if not REQUEST_ID.fullmatch(refund_request_id) or account not in visit.caller.accounts:
            raise NotFound("Refund request not found, or not visible to the token.", reason="no_such_request")
        record = await self._issuers[account].manual.repeat(refund_request_id, by=visit.actor)
        if record.state is RequestState.DONE:
            return see_other(f"{refund_path(record.refund_id, account)}&done=retry")
        return see_other(f"/?done={'unclear' if record.state is RequestState.UNCLEAR else 'repeated'}")

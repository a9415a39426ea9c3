"""HTTP. `/refunds/{refund_id}/close` and `/reopen`: a person ends the case of a declined refund, or undoes that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from receiver.errors import BadRequest, Conflict, ReceiverError
from receiver.http.api.cases import read_closing
from receiver.http.api.listing import merged
from receiver.http.dashboard.filters import refund_path
from receiver.http.dashboard.guard import PageFrame, Visit, see_other
from receiver.http.dashboard.refunds import may_close, refund_of
from receiver.issue.issuer import Issuer
from receiver.ledger.query import Query
from receiver.ledger.refund import How, Refund, State
from receiver.ledger.resolution import already_closed
from receiver.ledger.schema import MAX_TEXT
from receiver.store import Store

WAYS: Final = (
    (How.REFUNDED_ELSEWHERE, "Refunded by another refund", "Another refund of the same charge paid the buyer."),
    (How.COMPENSATED, "Paid another way", "With store credit, a gift card or a check."),
    (How.NOT_OWED, "Nothing is owed", "After a claim or a chargeback, or because the order was returned."),
)
"""The choices of the form: the value, its title, and what it means."""
MOST_OFFERED = 20
"""Refunds of the charge that the form offers."""


class CasePages:
    """The handlers; `issuers` by account."""

    def __init__(self, frame: PageFrame, store: Store, issuers: Mapping[str, Issuer]) -> None:
        self._frame, self._store, self._issuers = frame, store, issuers

    async def ask_close(self, visit: Visit) -> Response:
        """`GET /refunds/{refund_id}/close?account=`: the form."""
        refund = await refund_of(self._store, visit)
        if refund.resolution and not refund.resolution.is_open:
            raise already_closed(refund.resolution)
        if not may_close(refund):
            raise Conflict("Only a declined refund that was not reissued can be closed.", reason="not_closable")
        return await self._form(refund, visit, {})

    async def close(self, visit: Visit) -> Response:
        """`POST /refunds/{refund_id}/close?account=`. An error is shown with the form, which stays filled in."""
        refund, given = await refund_of(self._store, visit), visit.form
        try:
            closing = read_closing(closing_fields(given), visit.actor)
            await self._issuers[refund.account].cases.close(refund.refund_id, closing)
        except ReceiverError as error:
            if error.status >= 500:
                raise
            return await self._form(refund, visit, given, error)
        return see_other(f"{refund_path(refund.refund_id, refund.account)}&done=closed")

    async def reopen(self, visit: Visit) -> Response:
        refund = await refund_of(self._store, visit)
        await self._issuers[refund.account].cases.reopen(refund.refund_id, visit.actor)
        return see_other(f"{refund_path(refund.refund_id, refund.account)}&done=reopened")

    async def _form(
        self, refund: Refund, visit: Visit, given: Mapping[str, str], error: ReceiverError | None = None
    ) -> Response:
        offered = []
        if refund.charge_id:
            query = Query(state=State.REFUNDED, charge=refund.charge_id)
            found = await merged(self._store, [refund.account], query, "", MOST_OFFERED)
            offered = [each for each in found.refunds if not each.retry_root]
        values = {
            "refund": refund,
            "ways": WAYS,
            "elsewhere": How.REFUNDED_ELSEWHERE,
            "offered": offered,
            "most": MAX_TEXT,
            "how": given.get("how", ""),
            "note": given.get("note", ""),
            "paying": given.get("refundId", ""),
            "error": _in_words(error) if error else "",
            "wrong": error.reason if error else "",
        }
        return self._frame.render("close.html", visit, values, at="refunds", status=error.status if error else 200)


def closing_fields(given: Mapping[str, str]) -> dict[str, str]:
    """The fields of the API's body, from those of the form: without fields that the choice hides."""
    how, note = given.get("how", ""), " ".join(given.get("note", "").split())
    if how == How.REFUNDED_ELSEWHERE:
        return {"how": how, "refundId": given.get("refundId", "").strip()} | ({"note": note} if note else {})
    return {"how": how, "note": note}


def _in_words(error: ReceiverError) -> str:
    """The error, without the names of the API's fields."""
    return IN_WORDS.get(error.reason, str(error)) if isinstance(error, BadRequest) else str(error)


IN_WORDS: Final = {
    "bad_how": "Choose how the case ended.",
    "bad_note": f"Write a note of 1 to {MAX_TEXT} printable characters that says how the case ended.",
    "bad_refund_id": "Give the id of the refund that paid the buyer, such as S01-5105180-3221187-R022311.",
}

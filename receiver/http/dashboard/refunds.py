"""HTTP. `/refunds/{refund_id}…`: one refund with all its data, asking Amazon, and reissuing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response

from receiver.errors import Conflict, OtherRefunds
from receiver.http.api.issuing import read_besides
from receiver.http.api.listing import as_of_now
from receiver.http.api.lookup import find_history, find_refunds, the_refund
from receiver.http.api.params import REFUND
from receiver.http.dashboard.filters import refund_path
from receiver.http.dashboard.guard import PageFrame, Visit, see_other
from receiver.http.dashboard.timeline import timeline_of
from receiver.http.limits import Refreshes
from receiver.issue.issuer import Issuer
from receiver.ledger.notification import Hint
from receiver.ledger.refund import How, Refund, Source, State, is_final
from receiver.ledger.refund_request import REFUSES_US, Asked
from receiver.ledger.resolution import BY_PERSON
from receiver.ledger.retryability import NAMEABLE
from receiver.outbox.events.advice import region_of
from receiver.outbox.formats.wording import SELLER_CENTRAL
from receiver.settings.sections import Scope
from receiver.store import Store

NOTICES = {
    "refresh": "Amazon is being asked now. The answer will appear below.",
    "retry": "Amazon accepted this new refund. The declined one stays as it is.",
    "pending": "Amazon has not answered yet. The request is saved and will be retried.",
    "closed": "The case is closed. Nothing more is owed for this refund.",
    "reopened": "The case is open again.",
    "refuses_us": "Amazon refuses our requests. Nothing has been refunded yet. The request is saved and retried.",
}


class RefundPages:
    """The handlers; `issuers` by account, `now` in ms. `seller_central` is its address; empty: the region's."""

    def __init__(
        self,
        frame: PageFrame,
        store: Store,
        issuers: Mapping[str, Issuer],
        now: Callable[[], int],
        refreshes: Refreshes,
        seller_central: str = "",
    ) -> None:
        self._frame, self._store, self._issuers, self._now = frame, store, issuers, now
        self._refreshes, self._seller_central = refreshes, seller_central

    async def one(self, visit: Visit) -> Response:
        refund = await refund_of(self._store, visit)
        history, disputes = await find_history(self._store, refund)
        admin = Scope.ADMIN in visit.caller.scopes
        issues = Scope.REFUND in visit.caller.scopes
        values = {
            "refund": refund,
            "now": self._now(),
            "timeline": await timeline_of(self._store.of(refund.account), refund, history, disputes, deliveries=admin),
            "is_pending": not is_final(refund.state),
            "seller_central": self._seller_central or SELLER_CENTRAL[region_of(refund)],
            "may_refresh": not visit.caller.scopes.isdisjoint((Scope.REFUND, Scope.ADMIN)),
            "may_retry": issues and retry_makes_sense(refund),
            "may_close": issues and may_close(refund),
            "may_reopen": issues and may_reopen(refund),
            "notice": NOTICES.get(visit.request.query_params.get("done", ""), ""),
        }
        return self._frame.render("refund.html", visit, values, at="refunds")

    async def refresh(self, visit: Visit) -> Response:
        """`POST /refunds/{refund_id}/refresh?account=`: ask Amazon now."""
        self._refreshes.take(visit.caller.name)
        refund = await refund_of(self._store, visit)
        by = visit.actor
        hint = Hint(refund_id=refund.refund_id, at=self._now(), source=Source.REFRESH, by=by)
        await self._store.of(refund.account).schedule.hint(hint)
        return see_other(f"{refund_path(refund.refund_id, refund.account)}&done=refresh")

    async def ask_retry(self, visit: Visit) -> Response:
        """`GET /refunds/{refund_id}/retry?account=`: the confirmation page."""
        refund = await refund_of(self._store, visit)
        self._need_retry(refund)
        return self._frame.render(
            "retry.html", visit, {"refund": refund, "refused": False, "besides": "", "unseen": False}, at="refunds"
        )

    async def retry(self, visit: Visit) -> Response:
        """`POST /refunds/{refund_id}/retry?account=`: reissue it, at most once."""
        refund = await refund_of(self._store, visit)
        if refund.retried_by:
            return see_other(f"{refund_path(refund.retried_by, refund.account)}&done=retry")
        self._need_retry(refund)
        asked = Asked(visit.actor, read_besides(visit.form.get("besides", "").split()))
        try:
            issued = await self._issuers[refund.account].retry(refund.refund_id, asked)
        except OtherRefunds as error:
            return self._show_others(refund, visit, error, asked)
        if issued.refund is None:
            done = "refuses_us" if issued.record.last_error == REFUSES_US else "pending"
            return see_other(f"{refund_path(refund.refund_id, refund.account)}&done={done}")
        return see_other(f"{refund_path(issued.refund.refund_id, refund.account)}&done=retry")

    def _show_others(self, refund: Refund, visit: Visit, error: OtherRefunds, asked: Asked) -> Response:
        """The confirmation page again, with the refunds in the way, and a box that names them if that helps."""
        others: Any = error.more["refunds"]
        ids = [each.refund_id or each.refund_request_id for each in others]
        can_name = error.reason in NAMEABLE or any(each.refund_amount is None for each in others)
        besides = " ".join(dict.fromkeys([*asked.besides, *ids])) if can_name else ""
        found = {"others": others, "besides": besides, "unseen": can_name and not ids}
        values = {"refund": refund, "why": error.detail, "refused": True, **found}
        return self._frame.render("retry.html", visit, values, at="refunds", status=error.status)

    def _need_retry(self, refund: Refund) -> None:
        if not retry_makes_sense(refund):
            says = refund.judged.says if refund.judged else ""
            raise Conflict(
                says or "Only a declined refund can be reissued, once, and only if its charge allows another attempt.",
                reason=refund.judged.reasons[0] if refund.judged and refund.judged.reasons else "not_retryable",
            )


async def refund_of(store: Store, visit: Visit) -> Refund:
    """The refund that the path names, with its case and current advice. Raises `NotFound`, `Conflict`, `Forbidden`."""
    visit.caller.need(Scope.READ)
    refund = the_refund(await find_refunds(store, visit.accounts, visit[REFUND]), visit[REFUND])
    return (await as_of_now(store, [refund]))[0]


def retry_makes_sense(refund: Refund) -> bool:
    """Whether the issuer may accept it: it is declined, and naming other refunds lifts every objection."""
    return refund.judged is not None and NAMEABLE.issuperset(refund.judged.reasons)


def may_close(refund: Refund) -> bool:
    """Whether a person can close its case: it is open, and the refund has not been reissued."""
    case = refund.resolution
    return refund.state == State.DECLINED and not refund.retried_by and case is not None and case.is_open


def may_reopen(refund: Refund) -> bool:
    """Whether a person can undo the closing of its case: Amazon has not paid the buyer."""
    case = refund.resolution
    return case is not None and not case.paid and case.how in BY_PERSON | {How.NOT_TRACKED}

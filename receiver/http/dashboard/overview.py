"""HTTP. `/`: problems first, then the state of all refunds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from receiver.http.api.auth import Caller
from receiver.http.api.listing import as_of_now, merged
from receiver.http.dashboard.chart import draw, edges
from receiver.http.dashboard.guard import PageFrame
from receiver.http.dashboard.requests import NOTICES
from receiver.http.dashboard.sessions import Session
from receiver.ledger.age import started_at
from receiver.ledger.lifecycle import EventType
from receiver.ledger.query import Query
from receiver.ledger.refund import Refund, State, is_final
from receiver.ledger.refund_request import RequestState
from receiver.settings.sections import Scope
from receiver.store import Store

DECLINED = 20
MOST_CONFLICTS, MOST_PENDING, MOST_UNCLEAR = 50, 50, 20


class OverviewPage:
    """The handler. `now` is ms."""

    def __init__(self, frame: PageFrame, store: Store, now: Callable[[], int]) -> None:
        self._frame, self._store, self._now = frame, store, now
        self._conflicts: dict[str, tuple[str, list[str]]] = {}

    async def show(self, request: Request, session: Session) -> Response:
        """`GET /`. Shows what the token's scopes allow: refunds need read, requests refund, subscribers admin."""
        caller, now = session.caller, self._now()
        notice = NOTICES.get(request.query_params.get("done", ""), "")
        values: dict[str, Any] = {"now": now, "reads": Scope.READ in caller.scopes, "notice": notice}
        values |= {"unclear": [], "unclear_total": 0, "alerting": []}
        if Scope.READ in caller.scopes:
            values |= await self._refunds(caller, now)
        if Scope.REFUND in caller.scopes:
            values |= await self._requests(caller)
        if Scope.ADMIN in caller.scopes:
            found = await asyncio.gather(
                *(self._store.of(account).gauges.alerting_problems() for account in caller.accounts)
            )
            pairs = zip(caller.accounts, found, strict=True)
            values["alerting"] = [(account, each) for account, problems in pairs for each in problems]
        return self._frame.render("overview.html", session, values, at="overview")

    async def _refunds(self, caller: Caller, now: int) -> Mapping[str, Any]:
        accounts = caller.accounts
        counted, pending, conflicts, page = await asyncio.gather(
            asyncio.gather(*(self._store.of(account).dashboard.counted(edges(now)) for account in accounts)),
            asyncio.gather(*(self._pending(account) for account in accounts)),
            asyncio.gather(*(self._in_conflict(account) for account in accounts)),
            merged(self._store, accounts, Query(state=State.DECLINED), "", DECLINED),
        )
        totals: Counter[str] = sum((Counter(each.totals) for each in counted), Counter())
        columns = zip(*(each.spans for each in counted), strict=True)
        spans = [sum((Counter(span) for span in column), Counter()) for column in columns]
        waiting = sorted((refund for each in pending for refund in each), key=lambda refund: refund.changed_at)
        oldest = min(waiting, key=lambda refund: started_at(refund, now), default=None)
        return {
            "totals": totals,
            "chart": draw(now, spans),
            "oldest": oldest,
            "oldest_at": started_at(oldest, now) if oldest else now,
            "conflicts": [refund for each in conflicts for refund in each],
            "stuck": [refund for refund in waiting if EventType.STUCK in refund.emitted],
            "declined": await as_of_now(self._store, page.refunds[:DECLINED]),
        }

    async def _pending(self, account: str) -> list[Refund]:
        found = await self._all(account, await self._store.of(account).dashboard.pending_longest(MOST_PENDING))
        return [refund for refund in found if not is_final(refund.state)]

    async def _in_conflict(self, account: str) -> list[Refund]:
        """Refunds in conflict, latest first. They are found in the last entries of the stream at this process's first
        look, and in every entry since."""
        last, known = self._conflicts.get(account, ("", []))
        found = await self._store.of(account).dashboard.contradictions(last)
        names = list(dict.fromkeys([*found.refund_ids, *known]))[:MOST_CONFLICTS]
        self._conflicts[account] = (found.last, names)
        return [refund for refund in await self._all(account, names) if refund.conflict]

    async def _all(self, account: str, names: Sequence[str]) -> list[Refund]:
        found = await asyncio.gather(*(self._store.of(account).refunds.get_or_id(name) for name in names))
        return [refund for refund in found if isinstance(refund, Refund)]

    async def _requests(self, caller: Caller) -> Mapping[str, Any]:
        found = await asyncio.gather(
            *(self._store.of(account).requests.open(RequestState.UNCLEAR, MOST_UNCLEAR) for account in caller.accounts)
        )
        rows = [
            (account, record) for account, each in zip(caller.accounts, found, strict=True) for record in each.records
        ]
        candidates = await asyncio.gather(
            *(self._store.of(account).requests.candidate_of(record) for account, record in rows)
        )
        return {
            "unclear": [(*row, candidate) for row, candidate in zip(rows, candidates, strict=True)],
            "unclear_total": sum(each.total for each in found),
        }

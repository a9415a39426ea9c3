"""HTTP. `/`: first what needs a person, each with its next action, then the counts of all refunds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import Response

from receiver.http.api.auth import Caller
from receiver.http.api.listing import as_of_now
from receiver.http.api.lookup import all_subscribers
from receiver.http.dashboard.chart import draw, edges
from receiver.http.dashboard.guard import PageFrame, Visit
from receiver.http.dashboard.refunds import retry_makes_sense
from receiver.http.dashboard.requests import NOTICES
from receiver.ledger.age import started_at
from receiver.ledger.declines.job import Job
from receiver.ledger.dispute import Dispute
from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import sums
from receiver.ledger.refund import Refund, is_final
from receiver.ledger.refund_request import RequestState
from receiver.settings.sections import Scope
from receiver.store import Store
from receiver.store.refunds.cases import OpenCase

MOST_CASES, MOST_CONFLICTS, MOST_PENDING, MOST_UNCLEAR, MOST_DISPUTES = 10, 50, 50, 20, 20
LONGEST_CHAIN = 10
"""Reissues that are followed from a declined refund."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenDecline:
    """An open case: the refund that has it, and the last one that repeats it, which is the refund itself if none
    does."""

    case: OpenCase
    refund: Refund
    last: Refund

    @property
    def is_waiting(self) -> bool:
        """Whether it was reissued, and Amazon has not decided yet."""
        return not is_final(self.last.state)

    @property
    def can_retry(self) -> bool:
        """Whether reissuing is the next action."""
        return retry_makes_sense(self.last)


class OverviewPage:
    """The handler. `now` is ms."""

    def __init__(self, frame: PageFrame, store: Store, now: Callable[[], int]) -> None:
        self._frame, self._store, self._now = frame, store, now
        self._conflicts: dict[str, tuple[str, list[str]]] = {}

    async def show(self, visit: Visit) -> Response:
        """`GET /`. Shows what the token's scopes allow: refunds need read, requests refund, subscribers admin."""
        caller, now = visit.caller, self._now()
        notice = NOTICES.get(visit.request.query_params.get("done", ""), "")
        lists = ("unclear", "alerting", "declines", "conflicts", "stuck", "jobs", "to_answer", "undeclared")
        values: dict[str, Any] = {**dict.fromkeys(lists, ()), "unclear_total": 0, "findings": 0}
        values |= {"now": now, "reads": Scope.READ in caller.scopes, "notice": notice}
        values["may_refresh"] = not caller.scopes.isdisjoint((Scope.REFUND, Scope.ADMIN))
        if Scope.READ in caller.scopes:
            values |= await self._refunds(caller, now)
            values |= await self._declines(caller)
            counts = await self._of_each(caller, self._findings)
            values["findings"] = sum(count for _, (_, count) in counts)
            values["to_answer"] = await self._of_each(caller, self._to_answer)
        if Scope.REFUND in caller.scopes:
            values |= await self._requests(caller)
            values["jobs"] = await self._of_each(caller, self._job)
        if Scope.ADMIN in caller.scopes:
            values["alerting"] = await self._of_each(
                caller, lambda account: self._store.of(account).gauges.alerting_problems()
            )
            found = await all_subscribers(self._store, caller.accounts)
            values["undeclared"] = [(account, each.name) for account, each in found if each.undeclared_at]
        return self._frame.render("overview.html", visit, values, at="overview")

    async def _findings(self, account: str) -> Sequence[tuple[str, int]]:
        """How many findings of each kind are open."""
        return [*(await self._store.of(account).findings.counts()).items()]

    async def _to_answer(self, account: str) -> Sequence[Dispute]:
        return await self._store.of(account).disputes.to_answer(MOST_DISPUTES)

    async def _job(self, account: str) -> Sequence[Job]:
        """The account's unfinished job, if there is one."""
        jobs = self._store.of(account).jobs
        name = await jobs.current()
        job = await jobs.get(name) if name else None
        return [job] if job else []

    async def _of_each(self, caller: Caller, read: Callable[[str], Awaitable[Sequence[T]]]) -> list[tuple[str, T]]:
        """(account, item) of what `read` finds in each account."""
        found = await asyncio.gather(*(read(account) for account in caller.accounts))
        return [(account, each) for account, items in zip(caller.accounts, found, strict=True) for each in items]

    async def _declines(self, caller: Caller) -> Mapping[str, Any]:
        """The open cases: their number and sums, and the oldest ones."""
        found = await self._of_each(caller, lambda account: self._store.of(account).cases.all())
        oldest = sorted(found, key=lambda pair: pair[1].since)[:MOST_CASES]
        rows = await asyncio.gather(*(self._decline(account, case) for account, case in oldest))
        return {
            "declines": [row for row in rows if row],
            "declines_total": len(found),
            "declines_sums": sums(case.amount for _, case in found),
            "declines_since": oldest[0][1].since if oldest else 0,
            "declines_reasons": Counter(case.reason for _, case in found).most_common(),
            "issues": Scope.REFUND in caller.scopes,
        }

    async def _decline(self, account: str, case: OpenCase) -> OpenDecline | None:
        chain = await self._store.of(account).refunds.readable([case.refund_id])
        while chain and chain[-1].retried_by and len(chain) < LONGEST_CHAIN:
            following = await self._store.of(account).refunds.readable([chain[-1].retried_by])
            if not following:
                break
            chain += following
        if not chain:
            return None
        refund, last = await as_of_now(self._store, [chain[0], chain[-1]])
        return OpenDecline(case, refund, last)

    async def _refunds(self, caller: Caller, now: int) -> Mapping[str, Any]:
        accounts = caller.accounts
        counted, pending, conflicts = await asyncio.gather(
            asyncio.gather(*(self._store.of(account).dashboard.counted(edges(now)) for account in accounts)),
            asyncio.gather(*(self._pending(account) for account in accounts)),
            asyncio.gather(*(self._in_conflict(account) for account in accounts)),
        )
        by_state: Counter[str] = sum((Counter(each.totals) for each in counted), Counter())
        columns = zip(*(each.spans for each in counted), strict=True)
        spans = [sum((Counter(span) for span in column), Counter()) for column in columns]
        waiting = sorted((refund for each in pending for refund in each), key=lambda refund: started_at(refund, now))
        stuck = [refund for refund in waiting if EventType.STUCK in refund.emitted]
        return {
            "totals": by_state,
            "chart": draw(now, spans),
            "oldest": waiting[0] if waiting else None,
            "oldest_at": started_at(waiting[0], now) if waiting else now,
            "conflicts": [refund for each in conflicts for refund in each],
            "stuck": [(refund, started_at(refund, now)) for refund in stuck],
        }

    async def _pending(self, account: str) -> list[Refund]:
        store = self._store.of(account)
        found = await store.refunds.readable(await store.dashboard.pending_longest(MOST_PENDING))
        return [refund for refund in found if not is_final(refund.state)]

    async def _in_conflict(self, account: str) -> list[Refund]:
        """Refunds in conflict, latest first. They are found in the last entries of the stream at this process's first
        look, and in every entry since."""
        last, known = self._conflicts.get(account, ("", []))
        found = await self._store.of(account).dashboard.contradictions(last)
        names = list(dict.fromkeys([*found.refund_ids, *known]))[:MOST_CONFLICTS]
        self._conflicts[account] = (found.last, names)
        return [refund for refund in await self._store.of(account).refunds.readable(names) if refund.conflict]

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

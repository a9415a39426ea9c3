"""HTTP. `/findings`: differences between Amazon's reports and what is known, by kind, each with what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from receiver.http.dashboard.guard import PageFrame, Visit
from receiver.ledger.reconciliation.finding import Finding, FindingKind
from receiver.outbox.events.advice import Advice
from receiver.outbox.events.mismatch_event import advice_of
from receiver.store import Store

MOST_OF_A_KIND, MOST_CLOSED = 100, 50


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """The open findings of one kind, the oldest first in each account."""

    kind: FindingKind
    advice: Advice
    total: int
    found: Sequence[tuple[str, Finding]]


class FindingPage:
    def __init__(self, frame: PageFrame, store: Store) -> None:
        self._frame, self._store = frame, store

    async def show(self, visit: Visit) -> Response:
        accounts = visit.accounts
        stores = {account: self._store.of(account).findings for account in accounts}
        counts = await asyncio.gather(*(each.counts() for each in stores.values()))
        groups, closed = list[FindingGroup](), list[tuple[str, Finding]]()
        for kind in FindingKind:
            if total := sum(of_account[kind] for of_account in counts):
                pages = await asyncio.gather(*(each.page(kind, "", MOST_OF_A_KIND) for each in stores.values()))
                found = [(name, each) for name, (page, _) in zip(stores, pages, strict=True) for each in page]
                groups.append(FindingGroup(kind, advice_of(kind), total, found[:MOST_OF_A_KIND]))
        for account, store in stores.items():
            closed += [(account, each) for each in await store.closed(MOST_CLOSED)]
        closed.sort(key=lambda pair: -pair[1].closed_at)
        values = {"groups": groups, "closed": closed[:MOST_CLOSED]}
        return self._frame.render("findings.html", visit, values, at="findings")

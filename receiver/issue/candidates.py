"""Verb. The declined refunds that a job may reissue: for each open case the last refund of its chain, judged now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from receiver.issue.orders import generation_of, retry_id
from receiver.ledger.declines.job import (
    BEING_REISSUED,
    MOST_REFUNDS,
    NO_SUCH_REFUND,
    NOT_DECLINED,
    REFUND_UNCLEAR,
    UNREADABLE,
    Candidate,
    Selection,
    declined_at,
)
from receiver.ledger.query import Query
from receiver.ledger.refund import Refund, State
from receiver.ledger.refund_request import RequestState
from receiver.ledger.resolution import resolution_of
from receiver.store.account import AccountStore
from receiver.track.current import current_refunds

CHUNK = 50
"""Chains of refunds to read at once."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Reads the declined refunds of one account."""

    store: AccountStore

    async def of(self, selection: Selection) -> list[Candidate]:
        """The declined refunds that the selection names. Raises `StoreUnavailable`."""
        if selection.refund_ids:
            roots, found = await self._named(selection.refund_ids)
        else:
            oldest_first = sorted(await self.store.cases.all(), key=lambda case: (case.since, case.refund_id))
            cases = [case.refund_id for case in oldest_first]
            closed = await self._closed(selection)
            roots, found = [*dict.fromkeys([*cases, *closed])], []
        for start in range(0, len(roots), CHUNK):
            chunk = await asyncio.gather(*(self._last(root) for root in roots[start : start + CHUNK]))
            known = [each for each in chunk if each.last is not None]
            current = await current_refunds(self.store, [each.last for each in known if each.last])
            found += [each for each in chunk if each.last is None]
            found += [Candidate(each.name, refund, each.hindrance) for each, refund in zip(known, current, strict=True)]
        return found if selection.refund_ids else [each for each in found if _matches(selection, each.last)]

    async def _named(self, refund_ids: Iterable[str]) -> tuple[list[str], list[Candidate]]:
        """The first refunds of the chains of these refunds, and those that have none."""
        names = list(dict.fromkeys(refund_ids))
        roots, found = list[str](), list[Candidate]()
        for name, refund in zip(names, await asyncio.gather(*map(self.store.refunds.get_or_id, names)), strict=True):
            if not isinstance(refund, Refund):
                found.append(Candidate(name, None, UNREADABLE if refund else NO_SUCH_REFUND))
            elif refund.state != State.DECLINED and not refund.retry_root and refund.resolution is None:
                found.append(Candidate(name, refund, NOT_DECLINED))
            else:
                roots.append(refund.retry_root or name)
        return list(dict.fromkeys(roots)), found

    async def _closed(self, selection: Selection) -> list[str]:
        """The declined refunds that match and whose case is closed: they are left out, and counted."""
        if not selection.since:
            return []
        query = Query(state=State.DECLINED, reason=selection.reason, since=selection.since)
        cursor, found, left = "", list[str](), MOST_REFUNDS
        while left > 0:
            page = await self.store.refunds.page(query, cursor, limit=200)
            found += [each.refund_id for each in page.refunds if each.resolution and not each.resolution.is_open]
            cursor, left = page.next_cursor, left - 200
            if not cursor:
                break
        return found

    async def _last(self, root_id: str) -> Candidate:
        """The last declined refund of a chain, and whether it is being reissued."""
        root = await self.store.refunds.get_or_id(root_id)
        if not isinstance(root, Refund):
            return Candidate(root_id, None, UNREADABLE if root else NO_SUCH_REFUND)
        case = resolution_of(root, self.store.now(), self.store.connection.tracked_for)
        if case is not None and not case.is_open:
            return Candidate(root_id, root, "closed")
        last, seen = root, {root_id}
        while last.retried_by and last.retried_by not in seen:
            seen.add(last.retried_by)
            following = await self.store.refunds.get_or_id(last.retried_by)
            if not isinstance(following, Refund) or following.state != State.DECLINED:
                return Candidate(root_id, last, BEING_REISSUED)
            last = following
        record = await self.store.requests.get(retry_id(last.refund_id, await generation_of(self.store, last)))
        if record is not None and record.state is RequestState.UNCLEAR:
            return Candidate(root_id, last, REFUND_UNCLEAR)
        return Candidate(root_id, last, "" if record is None else BEING_REISSUED)


def _matches(selection: Selection, refund: Refund | None) -> bool:
    """Whether a selection without ids names the last refund of a chain."""
    if refund is None:
        return True
    return selection.reason in ("", refund.reason_code) and declined_at(refund) >= selection.since

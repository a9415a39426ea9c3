"""HTTP. `/refunds`: the list, found by search, state, reason and dates, with its count and sums."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from receiver.errors import BadRequest
from receiver.http.api.listing import as_of_now, merged
from receiver.http.api.lookup import find_refunds
from receiver.http.api.params import CURSOR, WORD
from receiver.http.api.refunds import ORDER, REASON, STATE
from receiver.http.dashboard.filters import refund_path
from receiver.http.dashboard.guard import PageFrame, Visit, see_other
from receiver.http.limits import Reads
from receiver.ledger.money import Money, sums
from receiver.ledger.query import Page, Query
from receiver.ledger.refund import REFUND_ID, Reason, Refund, State
from receiver.settings.sections import Scope
from receiver.store import Store

LIMIT = 50
MOST_SUMMED = 500
"""Refunds that are read at most to count a list and sum its amounts."""
OPEN: Final = "open"
"""The choice of state that lists declined refunds whose case is open."""
FIELDS: Final = ("account", "q", "state", "reason", "from", "to")


@dataclass(frozen=True, slots=True)
class Totals:
    """How many refunds a list has, and their sums; `more`: there are further ones, which are not counted."""

    count: int
    sums: Sequence[Money]
    unknown: int = 0
    """Refunds whose amount is not known."""
    more: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A page of the list, and the query that it matches; None: all are on the page."""

    page: Page
    query: Query | None


class RefundList:
    def __init__(self, frame: PageFrame, store: Store, reads: Reads) -> None:
        self._frame, self._store, self._reads = frame, store, reads

    async def show(self, visit: Visit) -> Response:
        """`GET /refunds?account=&q=&state=&reason=&from=&to=&cursor=`: newest change first.

        A search that finds one refund by its id leads to its page.
        """
        given = {name: visit.request.query_params.get(name, "").strip() for name in FIELDS}
        accounts = visit.caller.seen(given["account"] or None)
        query, cursor = read_query(given), visit[CURSOR]
        async with self._reads.turn(visit.caller.name):
            named = await self._named(accounts, given["q"])
            if len(named) == 1:
                return see_other(refund_path(named[0].refund_id, named[0].account))
            found = Found(Page(tuple(named), ""), None) if named else await self._page(accounts, given, query, cursor)
            counted = None if cursor else await self._totals(accounts, found)
            refunds = await as_of_now(self._store, found.page.refunds)
        filters = {name: value for name, value in given.items() if value}
        more = {**filters, "cursor": found.page.next_cursor}
        values = {
            "refunds": refunds,
            "totals": counted,
            "given": given,
            "filtered": bool(filters),
            "bulk": self._bulk(visit, accounts, query),
            "states": list(State),
            "reasons": list(dict.fromkeys([*Reason, *filter(None, [given["reason"]])])),
            "first": f"/refunds?{urlencode(filters)}" if cursor else "",
            "following": f"/refunds?{urlencode(more)}" if found.page.next_cursor else "",
        }
        return self._frame.render("refunds.html", visit, values, at="refunds")

    def _bulk(self, visit: Visit, accounts: Sequence[str], query: Query) -> str:
        """The account whose open declines the person may reissue together from this list; empty: none."""
        may = query.open and len(accounts) == 1 and Scope.REFUND in visit.caller.scopes
        return accounts[0] if may else ""

    async def _named(self, accounts: Sequence[str], text: str) -> list[Refund]:
        return await find_refunds(self._store, accounts, text) if REFUND_ID.fullmatch(text) else []

    async def _page(self, accounts: Sequence[str], given: Mapping[str, str], query: Query, cursor: str) -> Found:
        """Refunds of the charge that was searched for; if there are none, those of the order."""
        if WORD.fullmatch(given["q"]):
            of_charge = replace(query, charge=given["q"], order="")
            page = await merged(self._store, accounts, of_charge, "", LIMIT)
            if page.refunds:
                if cursor:
                    page = await merged(self._store, accounts, of_charge, cursor, LIMIT)
                return Found(page, of_charge)
        return Found(await merged(self._store, accounts, query, cursor, LIMIT), query)

    async def _totals(self, accounts: Sequence[str], found: Found) -> Totals:
        page, query = found.page, found.query
        if query == Query(reason=query.reason, open=True) if query else False:
            return await self._totals_of_cases(accounts, query.reason if query else "")
        refunds, cursor = list(page.refunds), page.next_cursor
        while query and cursor and len(refunds) < MOST_SUMMED:
            page = await merged(self._store, accounts, query, cursor, MOST_SUMMED - len(refunds))
            refunds, cursor = [*refunds, *page.refunds], page.next_cursor
        unknown = sum(refund.amount is None for refund in refunds)
        return Totals(len(refunds), sums(refund.amount for refund in refunds), unknown, bool(cursor))

    async def _totals_of_cases(self, accounts: Sequence[str], reason: str) -> Totals:
        """All open declines, from their index."""
        found = await asyncio.gather(*(self._store.of(account).cases.all() for account in accounts))
        cases = [case for each in found for case in each if reason in ("", case.reason)]
        return Totals(len(cases), sums(case.amount for case in cases), sum(case.amount is None for case in cases))


def read_query(given: Mapping[str, str]) -> Query:
    """The filters of the list's form, with the search as an order number; an empty field is no filter.

    Raises `BadRequest`.
    """
    state = "" if given["state"] in ("", OPEN) else STATE.read(given["state"])
    reason = REASON.read(given["reason"]) if given["reason"] else ""
    since = _midnight("from", given["from"])
    until = _midnight("to", given["to"], days=1)
    if since and until and since >= until:
        raise BadRequest("The first day is after the last day.", reason="bad_parameter")
    order = ORDER.read(given["q"]) if given["q"] else ""
    return Query(state, reason, order=order, since=since, open=given["state"] == OPEN, until=until)


def _midnight(name: str, text: str, days: int = 0) -> int:
    """The beginning (ms) of this day in UTC, or of one that is `days` later; 0 for an empty text."""
    if not text:
        return 0
    try:
        day = date.fromisoformat(text) + timedelta(days=days)
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadRequest(f"`{name}` must be a day such as 2026-01-31.", reason="bad_parameter") from None

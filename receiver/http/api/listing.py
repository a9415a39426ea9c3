"""HTTP. One list out of several accounts' lists, newest change first.

The store orders every account's refunds by (time of the last change, refund id) and goes on after any such place. One
place therefore serves all accounts; nothing is lost between pages, whatever changes meanwhile moves to the top.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from receiver.ledger.query import Page, Query, place_of, read_cursor, write_cursor
from receiver.ledger.refund import Refund
from receiver.store import Store
from receiver.store.refunds.refunds import MOST_EXAMINED


async def merged(store: Store, accounts: Sequence[str], query: Query, cursor: str, limit: int) -> Page:
    """At most `limit` refunds of all the accounts. Raises `StoreUnavailable`, and `BadRequest` for a wrong cursor.

    The accounts share what one request may look at.
    """
    share = MOST_EXAMINED // max(len(accounts), 1)
    pages = await asyncio.gather(*(store.refunds.page(account, query, cursor, limit, share) for account in accounts))
    if len(pages) == 1:
        return pages[0]
    bad = tuple(each for page in pages for each in page.unreadable)
    # What an account has not shown yet lies below where its page ended: nothing below the highest such end is sure.
    unsure = max((place for page in pages if (place := read_cursor(page.next_cursor))), default=None)
    found = sorted((refund for page in pages for refund in page.refunds), key=place_of, reverse=True)
    sure = [refund for refund in found if unsure is None or place_of(refund) >= unsure]
    shown = _cut(sure, limit)
    if len(shown) < len(sure):
        return Page(tuple(shown), write_cursor(place_of(shown[-1])), unreadable=bad)
    return Page(
        tuple(shown), write_cursor(unsure), unreadable=bad, cut=len(shown) < limit and any(page.cut for page in pages)
    )


def _cut(refunds: list[Refund], limit: int) -> list[Refund]:
    """The first `limit`, and what shares the last one's place: the next page begins below that place."""
    end = limit
    while end < len(refunds) and place_of(refunds[end]) == place_of(refunds[end - 1]):
        end += 1
    return refunds[:end]

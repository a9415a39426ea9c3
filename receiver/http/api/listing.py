"""HTTP. Merges several accounts' lists into one, newest change first.

The store orders every account's refunds by (time of the last change, refund id) and continues after any such position.
One position therefore serves all accounts. No refund is lost between pages: one that changes meanwhile moves to the
top. Clients get the position as an opaque cursor, which is bound to their filters and rejected if altered.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

from receiver.errors import BadRequest
from receiver.ledger.query import Page, Query, place_of
from receiver.ledger.query import read_cursor as read_place
from receiver.ledger.query import write_cursor as write_place
from receiver.ledger.refund import REASONS, Refund, State, is_known_reason
from receiver.store import Store
from receiver.store.refunds.refunds import MOST_EXAMINED
from receiver.track.current import current_refunds

T = TypeVar("T")
P = TypeVar("P", bound=tuple[Any, ...])

CHECK_BYTES = 9
STATE_WORDS = tuple(each.value for each in State)


async def merged(store: Store, accounts: Sequence[str], query: Query, cursor: str, limit: int) -> Page:
    """At most `limit` refunds of all the accounts, after the client's `cursor` (empty: the first page).

    Raises `StoreUnavailable`, and `BadRequest` for a wrong cursor.
    """
    page = await _merged(store, accounts, query, read_cursor(cursor, query, accounts), limit)
    following = write_cursor(page.next_cursor, query, accounts) if page.next_cursor else ""
    return replace(page, next_cursor=following)


async def _merged(store: Store, accounts: Sequence[str], query: Query, cursor: str, limit: int) -> Page:
    """The same with cursors in the store's form. The accounts share the number of entries that one request may scan."""
    share = MOST_EXAMINED // max(len(accounts), 1)
    pages = await asyncio.gather(*(store.of(account).refunds.page(query, cursor, limit, share) for account in accounts))
    if len(pages) == 1:
        return pages[0]
    bad = tuple(each for page in pages for each in page.unreadable)
    ends = [place for page in pages if (place := read_place(page.next_cursor))]
    shown, following = newest_of(ends, (refund for page in pages for refund in page.refunds), place_of, limit)
    cut = len(shown) < limit and any(page.cut for page in pages)
    return Page(tuple(shown), write_place(following), unreadable=bad, cut=cut)


def newest_of(ends: Iterable[P], found: Iterable[T], place: Callable[[T], P], limit: int) -> tuple[list[T], P | None]:
    """The first `limit` items of several accounts, highest place first, and where the next page begins (None: nowhere).

    `ends`: where the pages of the accounts end that have a next page.
    """
    # Unseen items of an account lie below the end of its page: nothing below the highest such end is complete.
    unsure = max(ends, default=None)
    ordered = sorted(found, key=place, reverse=True)
    sure = [each for each in ordered if unsure is None or place(each) >= unsure]
    end = limit
    while end < len(sure) and place(sure[end]) == place(sure[end - 1]):
        end += 1  # Accounts can have items at the same place, and the next page begins below it.
    return sure[:end], place(sure[end - 1]) if end < len(sure) else unsure


async def check_words(store: Store, accounts: Sequence[str], query: Query) -> None:
    """Check the state and the reason of a query that found nothing: a misspelt one must not look like an empty list.

    Amazon may add words, so one that a stored refund has is right. Raises `BadRequest` (`unknown_state`,
    `unknown_reason`), `StoreUnavailable`.
    """
    state, reason = query.state, query.reason
    if state and state not in STATE_WORDS and not await _any(store, accounts, Query(state=state)):
        known = f"Known states: {', '.join(STATE_WORDS)}."
        raise BadRequest(f"No refund has the state {state}. {known}", reason="unknown_state")
    if reason and not is_known_reason(reason) and not await _any(store, accounts, Query(reason=reason)):
        known = f"Known reasons: {', '.join(REASONS)}."
        raise BadRequest(f"No refund has the reason {reason}. {known}", reason="unknown_reason")


async def _any(store: Store, accounts: Sequence[str], query: Query) -> bool:
    """Whether a refund matches, or may match: only a limited number is examined."""
    page = await _merged(store, accounts, query, "", 1)
    return bool(page.refunds or page.unreadable or page.cut)


async def as_of_now(store: Store, refunds: Sequence[Refund]) -> list[Refund]:
    """The refunds of any accounts in the same order, each with its current advice. Raises `StoreUnavailable`."""
    accounts = dict.fromkeys(refund.account for refund in refunds)
    if len(accounts) == 1:
        return await current_refunds(store.of(*accounts), refunds)
    groups = [current_refunds(store.of(name), [each for each in refunds if each.account == name]) for name in accounts]
    found = {(each.account, each.refund_id): each for group in await asyncio.gather(*groups) for each in group}
    return [found[refund.account, refund.refund_id] for refund in refunds]


def write_cursor(place: str, query: object, accounts: Sequence[str]) -> str:
    """The position (in the store's form) with a check that binds it to the filters and accounts; URL-safe text."""
    raw = place.encode()
    return base64.urlsafe_b64encode(_check(raw, query, accounts) + raw).decode().rstrip("=")


def read_cursor(text: str, query: object, accounts: Sequence[str]) -> str:
    """The position in a page's cursor; empty without one. Raises `BadRequest` for any other text, or other filters."""
    if not text:
        return ""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        place = raw[CHECK_BYTES:].decode("ascii")
    except (ValueError, binascii.Error):
        place = ""
    if not place or text != write_cursor(place, query, accounts):
        raise BadRequest(
            "`cursor` does not come from a page of this list with these filters. Omit it to start again.",
            reason="bad_cursor",
        )
    return place


def _check(place: bytes, query: object, accounts: Sequence[str]) -> bytes:
    return sha256(place + repr((query, tuple(accounts))).encode()).digest()[:CHECK_BYTES]

"""HTTP. Finds what a path names, and merges the lists of several accounts, among those that the token may see.

If several accounts have the one refund, refund request or subscriber that a path names, the answer is 409 with their
names. Otherwise the result would depend on which account was searched first.

The store orders every account's refunds by (time of the last change, refund id) and continues after any such position.
One position therefore serves all accounts. No refund is lost between pages: one that changes meanwhile moves to the
top. Clients get the position as an opaque cursor, which is bound to their filters and rejected if altered.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

from receiver.errors import BadRequest, Conflict, NotFound
from receiver.ledger.query import Page, Query, place_of
from receiver.ledger.query import read_cursor as read_place
from receiver.ledger.query import write_cursor as write_place
from receiver.ledger.refund import Refund
from receiver.ledger.refund_request import RefundRequestRecord
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.store import Store
from receiver.store.refunds.refunds import MOST_EXAMINED

T = TypeVar("T")
CHECK_BYTES = 9


async def find_refunds(store: Store, accounts: Sequence[str], refund_id: str) -> list[Refund]:
    """The refund, once for each account that knows it."""
    answers = await asyncio.gather(*(store.of(account).refunds.get(refund_id) for account in accounts))
    return [refund for refund in answers if refund is not None]


def the_refund(found: Sequence[Refund]) -> Refund:
    """The only refund found. Raises `NotFound`, `Conflict`."""
    missing = NotFound(
        "Refund not found. Fetch it with `receiver refund refresh ID`, or check the token's accounts.",
        reason="no_such_refund",
    )
    return _the_one([(refund.account, refund) for refund in found], "know this refund", missing)[1]


async def find_request(store: Store, accounts: Sequence[str], request_id: str) -> tuple[str, RefundRequestRecord]:
    """The request, with its account. Raises `NotFound`, `Conflict`."""
    answers = await asyncio.gather(*(store.of(account).requests.get(request_id) for account in accounts))
    found = [(account, record) for account, record in zip(accounts, answers, strict=True) if record is not None]
    missing = NotFound("Refund request not found, or not visible to the token.", reason="no_such_request")
    return _the_one(found, "know this request", missing)


async def all_subscribers(store: Store, accounts: Sequence[str]) -> list[tuple[str, Subscriber]]:
    """(account, subscriber), by account and name."""
    lists = await asyncio.gather(*(store.of(account).subscribers.readable() for account in accounts))
    return [(account, each) for account, found in zip(accounts, lists, strict=True) for each in found]


async def find_subscriber(store: Store, accounts: Sequence[str], name: str) -> tuple[str, Subscriber]:
    """The subscriber, with its account. Raises `NotFound`, `Conflict`."""
    found = [each for each in await all_subscribers(store, accounts) if each[1].name == name]
    return _the_one(found, "have a subscriber with this name", no_such_subscriber())


def no_such_subscriber() -> NotFound:
    return NotFound("Subscriber not found, or not visible to the token.", reason="no_such_subscriber")


def _the_one(found: Sequence[tuple[str, T]], what: str, missing: NotFound) -> tuple[str, T]:
    if not found:
        raise missing
    if len(found) > 1:
        names = ", ".join(account for account, _ in found)
        raise Conflict(f"Several accounts {what}: {names}. Add ?account=.", reason="several_accounts")
    return found[0]


async def merged(store: Store, accounts: Sequence[str], query: Query, cursor: str, limit: int) -> Page:
    """At most `limit` refunds of all the accounts. Raises `StoreUnavailable`, and `BadRequest` for a wrong cursor.

    The accounts share the number of entries that one request may scan.
    """
    share = MOST_EXAMINED // max(len(accounts), 1)
    pages = await asyncio.gather(*(store.of(account).refunds.page(query, cursor, limit, share) for account in accounts))
    if len(pages) == 1:
        return pages[0]
    bad = tuple(each for page in pages for each in page.unreadable)
    # Unseen refunds of an account lie below the end of its page: nothing below the highest such end is complete.
    unsure = max((place for page in pages if (place := read_place(page.next_cursor))), default=None)
    found = sorted((refund for page in pages for refund in page.refunds), key=place_of, reverse=True)
    sure = [refund for refund in found if unsure is None or place_of(refund) >= unsure]
    shown = _cut(sure, limit)
    if len(shown) < len(sure):
        return Page(tuple(shown), write_place(place_of(shown[-1])), unreadable=bad)
    return Page(
        tuple(shown), write_place(unsure), unreadable=bad, cut=len(shown) < limit and any(page.cut for page in pages)
    )


def _cut(refunds: list[Refund], limit: int) -> list[Refund]:
    """The first `limit`, and those at the last one's position: the next page begins below it."""
    end = limit
    while end < len(refunds) and place_of(refunds[end]) == place_of(refunds[end - 1]):
        end += 1
    return refunds[:end]


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

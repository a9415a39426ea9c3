"""HTTP. One client's position in the streams of its accounts, its filters, and how it catches up."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers

from receiver.errors import BadRequest
from receiver.http.api.params import WORD
from receiver.http.feed.hub import CurrentFeed, FeedItem, Hub, Listener
from receiver.http.feed.schema import ResetJson
from receiver.ledger.refund import REASONS, is_known_reason, reason_of
from receiver.outbox.events.cursor import Place, read_cursor, write_cursor
from receiver.outbox.events.kinds import NAMED, REFUND, kind_of
from receiver.store.deliveries.feed import FeedPage, Where

CATCH_UP = 100
"""How many events of a stream one page has."""
PREFIX, BESIDE_REFUNDS = "amazonpay.refund.", "amazonpay."
TYPES = {
    name: each.value
    for kind in (REFUND, *NAMED)
    for each in kind.types
    for name in (each.value, each.value.removeprefix(PREFIX).removeprefix(BESIDE_REFUNDS))
}
EVENT_STREAM = "text/event-stream"
NOT_AT_ALL = re.compile(r"q=0(\.0{0,3})?")
"""RFC 9110, 12.4.2: a weight of zero, with at most three decimals."""
WHY = {
    "trimmed": "the oldest events after the cursor are no longer kept",
    "emptied": "the store was emptied, or restored from before the cursor",
}


@dataclass(frozen=True, slots=True)
class FeedFilter:
    """The filters; an empty one matches every refund event. All others have to be asked for."""

    types: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether nothing is filtered."""
        return not (self.types or self.reasons)

    def __call__(self, item: FeedItem) -> bool:
        """Whether the client wants this event."""
        if (self.types and item.type not in self.types) or (self.reasons and item.reason not in self.reasons):
            return False
        if not self.types and kind_of(item.fields) is not REFUND:
            return False
        return not item.lost and bool(item.body())


def read_types(text: str) -> frozenset[str]:
    """Comma-separated types, with or without their prefix, in any letter case. Raises `BadRequest`."""
    words = [word.lower() for word in _words(text)]
    unknown = [word for word in words if word not in TYPES]
    if unknown:
        near = difflib.get_close_matches(unknown[0][:64], TYPES, n=1)
        known = ", ".join(word for word in TYPES if not word.startswith(BESIDE_REFUNDS))
        hint = f"Did you mean {near[0]}?" if near else f"Known types: {known}."
        raise BadRequest(f"`type` contains an unknown event type. {hint}", reason="bad_parameter")
    return frozenset(TYPES[word] for word in words)


def read_reasons(text: str) -> frozenset[str]:
    """Comma-separated reason codes, in any letter case. Raises `BadRequest`."""
    words = _words(text)
    if not all(WORD.fullmatch(word) and is_known_reason(word) for word in words):
        raise BadRequest(
            f"`reason` contains an unknown reason code. Known reasons: {', '.join(REASONS)}.", reason="bad_parameter"
        )
    return frozenset(map(reason_of, words))


def _words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def read_start(text: str, accounts: Sequence[str]) -> dict[str, Where]:
    """Where to begin in each account: after a cursor, at the `beginning` (or `0`), or now if empty.

    An account that is missing in the cursor may be new: it begins with its oldest event, so that none is missed. Raises
    `BadRequest` (`bad_cursor`).
    """
    if text in ("", "now"):
        return dict.fromkeys(accounts, "end")
    if text in ("0", "beginning"):
        return dict.fromkeys(accounts, "beginning")
    return {**dict.fromkeys(accounts, "beginning"), **read_cursor(text, accounts)}


def accepts_stream(headers: Headers) -> bool:
    ranges = [each.split(";") for each in ",".join(headers.getlist("accept")).lower().split(",")]
    return any(
        kind.strip() == EVENT_STREAM and not any(NOT_AT_ALL.fullmatch(each.replace(" ", "")) for each in more)
        for kind, *more in ranges
    )


def reset_json(lost: Mapping[str, str]) -> ResetJson:
    """Reports a loss, by account: its cause, and that the feed continues."""
    reasons = "; ".join(f"{account}: {WHY[why]}" for account, why in lost.items())
    return ResetJson(
        accounts={**lost},
        detail=f"Events may be lost ({reasons}). The feed continues from the oldest event kept.",
    )


class Reader:
    """A client's position in each of its accounts: how far pages were read, and how far items were sent (`passes`)."""

    def __init__(self, store: CurrentFeed, hub: Hub, wanted: FeedFilter, start: Mapping[str, Where]) -> None:
        self._store, self._hub, self.wanted = store, hub, wanted
        self.accounts = tuple(start)
        self._ahead: dict[str, Where] = dict(start)
        """How far the pages were read; without the accounts that the hub serves."""
        self._places = {account: where for account, where in start.items() if isinstance(where, Place)}

    @property
    def lags(self) -> bool:
        """Whether some account is still read by pages."""
        return bool(self._ahead)

    def cursor(self) -> str:
        """The position after everything that was passed."""
        return write_cursor({account: self._places[account] for account in self.accounts if account in self._places})

    def passes(self, item: FeedItem) -> None:
        """Records that the client has received this item, or did not want it."""
        self._places[item.account] = item.place

    async def read(self, account: str, limit: int) -> tuple[FeedPage, list[FeedItem]]:
        """The next page of an account, and its items. Raises `StoreUnavailable`."""
        page = await self._store.events_after(account, self._ahead[account], limit)
        return page, self._taken(account, page)

    async def catch_up(self, listener: Listener) -> list[FeedItem]:
        """The items on the next page of each account that lags, losses first. An account read to its end joins the hub.

        If it raises `StoreUnavailable`, no position has changed.
        """
        lagging = list(self._ahead)
        reads = (self._store.events_after(account, self._ahead[account], CATCH_UP) for account in lagging)
        items = []
        for account, page in zip(lagging, await asyncio.gather(*reads), strict=True):
            items += self._taken(account, page)
            if not page.more and self._hub.join(listener, account, page.end):
                del self._ahead[account]
        return sorted(items, key=lambda each: not each.lost)

    def join(self, listener: Listener) -> bool:
        """Joins the hub in every account, after what was read; False if a page must be read first."""
        places = [(account, where) for account, where in self._ahead.items() if isinstance(where, Place)]
        return all(self._hub.join(listener, account, place) for account, place in places)

    def _taken(self, account: str, page: FeedPage) -> list[FeedItem]:
        self._ahead[account] = page.end
        self._places.setdefault(account, page.start)
        lost = [FeedItem(account, page.start, lost=page.lost)] if page.lost else []
        return lost + [FeedItem(account, entry.place, entry.fields, event=entry.event) for entry in page.entries]

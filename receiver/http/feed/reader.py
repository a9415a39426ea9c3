"""HTTP. One client's way through the streams of its accounts: what it has passed, what it wants, and who may come."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers

from receiver.errors import BadRequest
from receiver.http.api.params import WORD
from receiver.http.api.schema import ResetJson
from receiver.http.feed.hub import FeedStore, Hub, Listener, Told
from receiver.ledger.lifecycle import EventType
from receiver.outbox.events.cursor import Place, read_cursor, write_cursor
from receiver.store.deliveries.feed import FeedPage, Where

CATCH_UP = 100
"""Events of one page on a stream."""
PREFIX = "amazonpay.refund."
TYPES = {name: each.value for each in EventType for name in (each.value, each.value.removeprefix(PREFIX))}
EVENT_STREAM = "text/event-stream"
NOT_AT_ALL = re.compile(r"q=0(\.0{0,3})?")
"""RFC 9110, 12.4.2: a weight of nought, with at most three decimals."""
WHY = {
    "trimmed": "events after the cursor are older than what is kept",
    "emptied": "the store was emptied, or restored from before the cursor",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters; an empty one lets everything pass."""

    types: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether nothing is filtered."""
        return not (self.types or self.reasons)

    def __call__(self, told: Told) -> bool:
        """Whether the client wants this event."""
        if (self.types and told.type not in self.types) or (self.reasons and told.reason not in self.reasons):
            return False
        return not told.lost and bool(told.body())


def read_types(text: str) -> frozenset[str]:
    """Types, separated by commas, whole or without their prefix. Raises `BadRequest`."""
    words = _words(text)
    unknown = [word for word in words if word not in TYPES]
    if unknown:
        near = difflib.get_close_matches(unknown[0][:64], TYPES, n=1)
        known = ", ".join(each.value.removeprefix(PREFIX) for each in EventType)
        mend = f"Did you mean {near[0]}?" if near else f"Known are {known}."
        raise BadRequest(f"`type` has a word that is no type of event. {mend}", reason="bad_parameter")
    return frozenset(TYPES[word] for word in words)


def read_reasons(text: str) -> frozenset[str]:
    """Reason codes, separated by commas. Raises `BadRequest`."""
    words = _words(text)
    if not all(WORD.fullmatch(word) for word in words):
        raise BadRequest(
            "`reason` is reason codes such as AmazonRejected, separated by commas.", reason="bad_parameter"
        )
    return frozenset(words)


def _words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def read_start(text: str, accounts: Sequence[str]) -> dict[str, Where]:
    """Where to begin in each account: after a cursor, at the `beginning` (or `0`), or with nothing said, now.

    An account that the cursor does not have is begun with its oldest event: it may be new, and nothing is to be missed.
    Raises `BadRequest` (`bad_cursor`).
    """
    if text in ("", "now"):
        return dict.fromkeys(accounts, "end")
    if text in ("0", "beginning"):
        return dict.fromkeys(accounts, "beginning")
    return {**dict.fromkeys(accounts, "beginning"), **read_cursor(text, accounts)}


def accepts_stream(headers: Headers) -> bool:
    """Whether `Accept` names `text/event-stream`."""
    ranges = [each.split(";") for each in ",".join(headers.getlist("accept")).lower().split(",")]
    return any(
        kind.strip() == EVENT_STREAM and not any(NOT_AT_ALL.fullmatch(each.replace(" ", "")) for each in more)
        for kind, *more in ranges
    )


def reset_json(lost: Mapping[str, str]) -> ResetJson:
    """Word of a loss, by account: why, and where the feed goes on."""
    reasons = "; ".join(f"{account}: {WHY[why]}" for account, why in lost.items())
    return ResetJson(
        accounts={**lost},
        detail=f"Events may be lost ({reasons}). The feed goes on from the oldest that is kept.",
    )


class Reader:
    """Where a client is in each of its accounts: what was read ahead, and what it has been told (`passes`)."""

    def __init__(self, store: FeedStore, hub: Hub, wanted: Wanted, start: Mapping[str, Where]) -> None:
        self._store, self._hub, self.wanted = store, hub, wanted
        self.accounts = tuple(start)
        self._ahead: dict[str, Where] = dict(start)
        """How far the pages were read; an account that the hub tells of is no longer in it."""
        self._places = {account: where for account, where in start.items() if isinstance(where, Place)}

    @property
    def lags(self) -> bool:
        """Whether some account is still read by pages."""
        return bool(self._ahead)

    def cursor(self) -> str:
        """After all that was passed."""
        return write_cursor({account: self._places[account] for account in self.accounts if account in self._places})

    def passes(self, told: Told) -> None:
        """The client has been told this, or did not want it."""
        self._places[told.account] = told.place

    async def read(self, account: str, limit: int) -> tuple[FeedPage, list[Told]]:
        """The next page of an account, and what it tells. Raises `StoreUnavailable`."""
        page = await self._store.events_after(account, self._ahead[account], limit)
        return page, self._taken(account, page)

    async def catch_up(self, listener: Listener) -> list[Told]:
        """What the next page of each account that lags tells, losses first; one that is read to its end joins the hub.

        Raises `StoreUnavailable`, and has then not moved.
        """
        lagging = list(self._ahead)
        reads = (self._store.events_after(account, self._ahead[account], CATCH_UP) for account in lagging)
        told = []
        for account, page in zip(lagging, await asyncio.gather(*reads), strict=True):
            told += self._taken(account, page)
            if not page.more and self._hub.join(listener, account, page.end):
                del self._ahead[account]
        return sorted(told, key=lambda each: not each.lost)

    def join(self, listener: Listener) -> bool:
        """Hear of what comes in every account after what was read; False if a page must be read first."""
        places = [(account, where) for account, where in self._ahead.items() if isinstance(where, Place)]
        return all(self._hub.join(listener, account, place) for account, place in places)

    def _taken(self, account: str, page: FeedPage) -> list[Told]:
        self._ahead[account] = page.end
        self._places.setdefault(account, page.start)
        lost = [Told(account, page.start, lost=page.lost)] if page.lost else []
        return lost + [Told(account, entry.place, entry.fields, event=entry.event) for entry in page.entries]

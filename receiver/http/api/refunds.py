"""HTTP. `/v1/refunds…`: the known refunds, with Amazon's field names.

A refund is searched in every account that the token may see; `?account=` narrows the search.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from receiver.amazon.ids import EXAMPLE_ID, other_object
from receiver.errors import BadRequest
from receiver.http.api.auth import Tokens
from receiver.http.api.bodies import only_account
from receiver.http.api.listing import as_of_now, check_words, merged
from receiver.http.api.lookup import find_history, find_refunds, the_refund
from receiver.http.api.operations import LOCATION, SEVERAL, Answer, Call, Operation, Reasons, read_operation
from receiver.http.api.params import (
    ACCOUNT,
    CURSOR,
    IF_NONE_MATCH,
    LIMIT,
    REFUND,
    flag,
    moment,
    number,
    order_number,
    word,
)
from receiver.http.api.schema import HistoryJson, RefreshJson, RefundListJson
from receiver.http.headers import traceparent_of
from receiver.http.limits import Refreshes
from receiver.http.respond import JsonAnswer, etag, json_answer, matches
from receiver.http.seats import Seats, share_of
from receiver.ledger.dispute import dispute_json
from receiver.ledger.history import revision_json
from receiver.ledger.notification import Hint
from receiver.ledger.query import Query
from receiver.ledger.refund import AMAZON_REFUND_ID, Refund, Source, is_final, reason_of, state_of
from receiver.ledger.schema import refund_json
from receiver.outbox.events.advice import advice_of
from receiver.outbox.formats.cloudevents import AdvisedRefundJson, advised_json
from receiver.runtime.batch import Batch
from receiver.settings.sections import HttpSettings, Scope
from receiver.store import Store
from receiver.track.current import current_refunds

WAITING = ("http.waiting", "http.waiting_per_token")
LOOK_EVERY = 1.0
"""Poll this often (seconds) while waiting, since a wake-up can be lost."""

STATE: Final = word("state", "A state that refunds have, such as Declined. In any letter case.", spelling=state_of)
REASON: Final = word(
    "reason", "A reason code that refunds have, such as AmazonRejected. In any letter case.", spelling=reason_of
)
CHARGE: Final = word("charge", "Amazon's id of the charge.")
ORDER: Final = order_number("order", "The merchant's own order number. Printable characters.")
SINCE: Final = moment("since", "Write the + of an offset as %2B.", "Changed at or after this time.")
OPEN: Final = flag("open", "Only declined refunds whose case is open: the buyer may still be owed the money.")
WAIT: Final = number("wait", "Seconds to wait for the refund to be known and final.", 0, 0, 60)
TAG: Final = {"ETag": "Weak: equal tags mean equal answers except for `asOf`."}
ONE: Final[tuple[Reasons, ...]] = ({404: ("no_such_refund",)}, SEVERAL)


class RefundApi:
    """The handlers. `now` is ms since the epoch, UTC; `tokens` are the configured ones."""

    def __init__(
        self, store: Store, tokens: Tokens, now: Callable[[], int], refreshes: Refreshes, http: HttpSettings
    ) -> None:
        self._store, self._now, self._refreshes = store, now, refreshes
        self._rendering = Batch[tuple[bytes, str]]()

        def of_one() -> int:
            return share_of(http.waiting, http.waiting_per_token, tokens.count)

        self._seats = Seats(http.waiting, of_one, reason="too_many_waiting", settings=WAITING)

    @read_operation(
        "GET",
        "/v1/refunds",
        id="listRefunds",
        summary="Refunds, newest change first",
        parameters=(ACCOUNT, STATE, REASON, CHARGE, ORDER, SINCE, OPEN, CURSOR, LIMIT),
        reasons=({400: ("bad_cursor", "unknown_state", "unknown_reason")},),
        in_turn=True,
    )
    async def many(self, call: Call) -> RefundListJson:
        """Newest change first, filtered, a page at a time."""
        accounts = call.accounts
        query = Query(call[STATE], call[REASON], call[CHARGE], order=call[ORDER], since=call[SINCE], open=call[OPEN])
        page = await merged(self._store, accounts, query, call[CURSOR], call[LIMIT])
        if not page.refunds:
            await check_words(self._store, accounts, query)
        return RefundListJson(
            refunds=[refund_json(refund) for refund in await as_of_now(self._store, page.refunds)],
            unreadable=list(page.unreadable),
            next_cursor=page.next_cursor or None,
            scan_cut=page.cut,
        )

    @read_operation(
        "GET",
        "/v1/refunds/{refund_id}",
        id="getRefund",
        summary="A refund, with advice if it was declined",
        parameters=(REFUND, ACCOUNT, WAIT, IF_NONE_MATCH),
        answers=(Answer(200, AdvisedRefundJson, headers=TAG), Answer(304, headers=TAG)),
        reasons=({503: ("too_many_waiting",)}, *ONE),
    )
    async def one(self, call: Call) -> Response:
        """The refund, with an `ETag`; can wait until it is final."""
        accounts, refund_id, wait = call.accounts, call[REFUND], call[WAIT]
        found = await find_refunds(self._store, accounts, refund_id)
        if wait and not _settled(found):
            with self._seats.taken(call.caller.name):
                found = await self._look(call.request, accounts, refund_id, found, wait)
        refund = the_refund(found, refund_id)
        (refund,) = await current_refunds(self._store.of(refund.account), [refund])
        encoded, tag = await self._rendering.run(partial(_rendered, refund))
        if matches(call.request.scope["headers"], tag):
            return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "private, no-cache"})
        return JsonAnswer(encoded, 200, ((b"etag", tag.encode()), (b"cache-control", b"private, no-cache")))

    @read_operation(
        "GET",
        "/v1/refunds/{refund_id}/history",
        id="getRefundHistory",
        summary="Every revision of a refund, oldest first, with its source",
        parameters=(REFUND, ACCOUNT),
        reasons=ONE,
    )
    async def history(self, call: Call) -> HistoryJson:
        refund = the_refund(await find_refunds(self._store, call.accounts, call[REFUND]), call[REFUND])
        revisions, disputes = await find_history(self._store, refund)
        return HistoryJson(
            refund_id=refund.refund_id,
            account=refund.account,
            revisions=[revision_json(revision) for revision in revisions],
            disputes=[dispute_json(each) for each in disputes],
        )

    @Operation(
        "POST",
        "/v1/refunds/{refund_id}/refresh",
        id="refreshRefund",
        tag="refunds",
        summary="Refresh a refund from Amazon now",
        about="Also adds a refund that is not known here, if its account is clear; its id must then have the form of "
        "Amazon's refund ids. Refunds with a new notification are polled first. Refreshes are limited per token and "
        "minute (`http.refreshes`).",
        scopes=(Scope.REFUND, Scope.ADMIN),
        parameters=(REFUND, ACCOUNT),
        answers=(Answer(202, RefreshJson, headers=LOCATION),),
        reasons=({409: ("several_accounts", "account_needed"), 429: ("too_many_refreshes",)},),
    )
    async def refresh(self, call: Call) -> Response:
        """202 once the poll of Amazon is durably scheduled."""
        accounts, refund_id = call.accounts, call[REFUND]
        self._refreshes.take(call.caller.name)
        is_amazons = AMAZON_REFUND_ID.fullmatch(refund_id) is not None
        found = [] if is_amazons and len(accounts) == 1 else await find_refunds(self._store, accounts, refund_id)
        account = (
            the_refund(found, refund_id).account if found else only_account(accounts, "the account with ?account=")
        )
        if not (found or is_amazons or await self._store.of(account).fps.get(refund_id)):
            raise _no_refund_id(refund_id)
        hint = Hint(
            refund_id=refund_id,
            at=self._now(),
            source=Source.REFRESH,
            traceparent=traceparent_of(call.request.headers.raw),
            by=call.actor,
        )
        await self._store.of(account).schedule.hint(hint)
        body = RefreshJson(
            refund_id=refund_id,
            account=account,
            refresh="noted",
        )
        return json_answer(body, 202, Location=f"/v1/refunds/{refund_id}?account={account}")

    async def _look(
        self, request: Request, accounts: Sequence[str], refund_id: str, found: list[Refund], wait: int
    ) -> list[Refund]:
        """The refunds found after at most `wait` seconds; earlier if the refund is final or ambiguous, or the client
        leaves."""
        try:
            async with asyncio.timeout(wait):
                while not _settled(found) and not await request.is_disconnected():
                    await self._something(accounts)
                    found = await find_refunds(self._store, accounts, refund_id)
        except TimeoutError:
            pass
        return found

    async def _something(self, accounts: Sequence[str]) -> None:
        waits = [asyncio.ensure_future(self._store.of(account).changed(LOOK_EVERY)) for account in accounts]
        if not waits:
            await asyncio.sleep(LOOK_EVERY)
            return
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()


def _rendered(refund: Refund) -> tuple[bytes, str]:
    """The refund as JSON, and its tag."""
    body = advised_json(refund, advice_of(refund))
    encoded = msgspec.json.encode(body)
    return encoded, etag(refund, body, encoded)


def _settled(found: Sequence[Refund]) -> bool:
    return len(found) > 1 or (len(found) == 1 and is_final(found[0].state))


def _no_refund_id(text: str) -> BadRequest:
    """Amazon is not asked about an id that cannot be a refund's: its rate limit is shared with all that can."""
    other = other_object(text)
    what = f" This is the id of {other}." if other else ""
    return BadRequest(
        f"Amazon's refund ids look like {EXAMPLE_ID}, and no refund with this id is known."
        f"{what} Find the refund's id with `receiver refund list` or in Seller Central.",
        reason="bad_refund_id",
    )

"""HTTP. `/v1/refunds…`: what is known of refunds, in Amazon's spelling.

A refund is looked for in every account that the token may see; `?account=` narrows it. An id that several of these
accounts know is a 409 that names them, even where they say the same: an answer that depends on which account was asked
first would be wrong half the time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import BadRequest, Conflict, NotFound
from receiver.http.api.auth import Caller, Tokens
from receiver.http.api.cursor import read_cursor, write_cursor
from receiver.http.api.listing import merged
from receiver.http.api.params import Params
from receiver.http.api.refresh_limit import Refreshes
from receiver.http.api.respond import etag, json_answer, matches
from receiver.http.api.schema import HistoryJson, RefreshJson, RefundListJson
from receiver.http.headers import traceparent_of
from receiver.http.seats import Seats, share_of
from receiver.ledger.dispute import dispute_json, permission_of
from receiver.ledger.hint import Hint
from receiver.ledger.query import Query
from receiver.ledger.refund import AMAZON_REFUND_ID, REFUND_ID, Refund, Source, is_final
from receiver.ledger.schema import refund_json, revision_json
from receiver.outbox.events.advice import advice_json, advice_of
from receiver.outbox.formats.cloudevents import AdvisedRefundJson
from receiver.settings.sections import HttpSettings, Scope
from receiver.store import Store
from receiver.track.current import current_refunds

LONGEST_WAIT = 60
WAITING = ("http.waiting", "http.waiting_per_token")
LOOK_EVERY = 1.0
"""While waiting, look this often (seconds) although nothing seems to have changed: a wake-up can be lost."""
LIMIT = 50
MOST = 200
OTHER_ID = re.compile(r"[A-Z][0-9]{2}-[0-9]{7}-[0-9]{7}(?:-([CA])[0-9]{6})?")
OTHER_OBJECTS = {"": "a charge permission", "C": "a charge", "A": "an authorization"}
"""What else has ids that begin as a refund's does, by the letter that follows."""


class RefundApi:
    """The handlers. `now` is ms since the epoch, UTC."""

    def __init__(
        self, store: Store, tokens: Tokens, now: Callable[[], int], refreshes: Refreshes, http: HttpSettings
    ) -> None:
        self._store, self._tokens, self._now, self._refreshes = store, tokens, now, refreshes
        of_one = share_of(http.waiting, http.waiting_per_token, tokens.count)
        self._seats = Seats(http.waiting, of_one, reason="too_many_waiting", settings=WAITING)

    async def one(self, request: Request) -> Response:
        """`GET /v1/refunds/{id}?wait=&account=`: the refund, with an `ETag`; waits until it is final."""
        caller = self._reader(request)
        params = Params(request, ("account", "wait"))
        accounts, refund_id = caller.seen(params.opaque("account") or None), _refund_id(request)
        wait = params.number("wait", 0, 0, LONGEST_WAIT)
        found = await self._found(accounts, refund_id)
        if wait and not _settled(found):
            with self._seats.taken(caller.name):
                found = await self._look(request, accounts, refund_id, found, wait)
        refund = _the_one(found)
        (refund,) = await current_refunds(self._store, refund.account, [refund])
        body: AdvisedRefundJson = {**refund_json(refund), "advice": advice_json(advice_of(refund))}
        tag = etag(refund, body)
        if matches(request.headers.getlist("if-none-match"), tag):
            return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "private, no-cache"})
        return json_answer(body, ETag=tag, Cache_Control="private, no-cache")

    async def many(self, request: Request) -> Response:
        """`GET /v1/refunds`: newest change first, filtered, a page at a time."""
        caller = self._reader(request)
        names = ("account", "state", "reason", "charge", "order", "since", "cursor", "limit")
        params = Params(request, names)
        accounts = caller.seen(params.opaque("account") or None)
        filters = {name: params.text(name) for name in ("state", "reason", "charge")}
        query = Query(**filters, order=params.free_text("order"), since=params.time("since"))
        limit = params.number("limit", LIMIT, 1, MOST)
        cursor = read_cursor(params.opaque("cursor"), query, accounts)
        page = await merged(self._store, accounts, query, cursor, limit)
        following = write_cursor(page.next_cursor, query, accounts) if page.next_cursor else None
        body: RefundListJson = {
            "refunds": [refund_json(refund) for refund in await self._as_of_now(page.refunds)],
            "unreadable": list(page.unreadable),
            "nextCursor": following,
            "scanCut": page.cut,
        }
        return json_answer(body)

    async def history(self, request: Request) -> Response:
        """`GET /v1/refunds/{id}/history`: every revision, oldest first, with its source."""
        caller = self._reader(request)
        params = Params(request, ("account",))
        refund = _the_one(await self._found(caller.seen(params.opaque("account") or None), _refund_id(request)))
        revisions, disputes = await asyncio.gather(
            self._store.refunds.history(refund.account, refund.refund_id),
            self._store.disputes.of_permission(refund.account, permission_of(refund.charge_id or refund.refund_id)),
        )
        body: HistoryJson = {
            "refundId": refund.refund_id,
            "account": refund.account,
            "revisions": [revision_json(revision) for revision in revisions],
            "disputes": [dispute_json(each) for each in disputes if each.concerns(refund.charge_id)],
        }
        return json_answer(body)

    async def _as_of_now(self, refunds: Sequence[Refund]) -> list[Refund]:
        """The refunds of several accounts in their order, each with what may be done about it now."""
        accounts = list(dict.fromkeys(refund.account for refund in refunds))
        groups = [[refund for refund in refunds if refund.account == account] for account in accounts]
        found = await asyncio.gather(
            *(current_refunds(self._store, *each) for each in zip(accounts, groups, strict=True))
        )
        by_id = {(refund.account, refund.refund_id): refund for each in found for refund in each}
        return [by_id[refund.account, refund.refund_id] for refund in refunds]

    async def refresh(self, request: Request) -> Response:
        """`POST /v1/refunds/{id}/refresh`: ask Amazon now. 202 once that is written down durably.

        A refund that nobody told us about is taken in as well, where it is clear which account it is of.
        """
        caller = self._tokens.identify(request)
        caller.need(Scope.REFUND, Scope.ADMIN)
        params = Params(request, ("account",))
        accounts, refund_id = caller.seen(params.opaque("account") or None), _refund_id(request)
        self._refreshes.take(caller.name)
        is_amazons = AMAZON_REFUND_ID.fullmatch(refund_id) is not None
        found = [] if is_amazons and len(accounts) == 1 else await self._found(accounts, refund_id)
        account = _the_one(found).account if found else _only(accounts)
        if not (found or is_amazons or await self._store.fps.get(account, refund_id)):
            raise _no_refund_id(refund_id)
        brought = traceparent_of(request.headers.raw)
        hint = Hint(refund_id=refund_id, at=self._now(), source=Source.REFRESH, traceparent=brought)
        await self._store.schedule.hint(account, hint)
        body: RefreshJson = {"refundId": refund_id, "account": account, "refresh": "noted"}
        return json_answer(body, 202, Location=f"/v1/refunds/{refund_id}?account={account}")

    def _reader(self, request: Request) -> Caller:
        caller = self._tokens.identify(request)
        caller.need(Scope.READ)
        return caller

    async def _found(self, accounts: Sequence[str], refund_id: str) -> list[Refund]:
        if len(accounts) == 1:
            only = await self._store.refunds.get(accounts[0], refund_id)
            return [] if only is None else [only]
        answers = await asyncio.gather(*(self._store.refunds.get(account, refund_id) for account in accounts))
        return [refund for refund in answers if refund is not None]

    async def _look(
        self, request: Request, accounts: Sequence[str], refund_id: str, found: list[Refund], wait: int
    ) -> list[Refund]:
        """What there is after at most `wait` seconds, or as soon as it is final or ambiguous, or nobody listens."""
        try:
            async with asyncio.timeout(wait):
                while not _settled(found) and not await request.is_disconnected():
                    await self._something(accounts)
                    found = await self._found(accounts, refund_id)
        except TimeoutError:
            pass
        return found

    async def _something(self, accounts: Sequence[str]) -> None:
        waits = [asyncio.ensure_future(self._store.changed(account, LOOK_EVERY)) for account in accounts]
        if not waits:
            await asyncio.sleep(LOOK_EVERY)
            return
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()


def _settled(found: Sequence[Refund]) -> bool:
    return len(found) > 1 or (len(found) == 1 and is_final(found[0].state))


def _refund_id(request: Request) -> str:
    refund_id: Any = request.path_params["refund_id"]
    if not REFUND_ID.fullmatch(refund_id):
        raise BadRequest("A refund id is 1 to 64 letters, digits and hyphens.", reason="bad_refund_id")
    return str(refund_id)


def _no_refund_id(text: str) -> BadRequest:
    """Amazon is not asked about what cannot be a refund: its limit is shared with all that can."""
    other = OTHER_ID.fullmatch(text)
    what = f" This is the id of {OTHER_OBJECTS[other[1] or '']}." if other else ""
    return BadRequest(
        "Amazon's refund ids look like S01-5105180-3221187-R022311, and no refund is known under this one."
        f"{what} See `receiver refund list`, or Seller Central, for the refund's id.",
        reason="bad_refund_id",
    )


def _the_one(found: Sequence[Refund]) -> Refund:
    if not found:
        raise NotFound("Nobody has told us about this refund, or the token may not see it.", reason="no_such_refund")
    if len(found) > 1:
        names = ", ".join(refund.account for refund in found)
        raise Conflict(f"Several accounts know this refund: {names}. Add ?account=.", reason="several_accounts")
    return found[0]


def _only(accounts: Sequence[str]) -> str:
    if len(accounts) != 1:
        raise Conflict(f"Say which account: one of {', '.join(accounts)}. Add ?account=.", reason="account_needed")
    return accounts[0]

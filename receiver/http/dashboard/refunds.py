"""HTTP. `/refunds…`: the list, one refund with all its data, and the actions on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import Conflict, OtherRefunds
from receiver.http.api.auth import Caller, actor_of
from receiver.http.api.issuing import read_besides
from receiver.http.api.limits import Reads, Refreshes
from receiver.http.api.listing import as_of_now, merged
from receiver.http.api.lookup import find_history, find_refunds, the_refund
from receiver.http.api.params import ACCOUNT, REFUND
from receiver.http.api.refunds import CHARGE, CURSOR, ORDER, REASON, STATE
from receiver.http.dashboard.filters import refund_path
from receiver.http.dashboard.guard import PageFrame, see_other
from receiver.http.dashboard.sessions import Session
from receiver.issue.issuer import Issuer
from receiver.ledger.dispute import Dispute, DisputeChange
from receiver.ledger.notification import Hint
from receiver.ledger.query import Query
from receiver.ledger.refund import Refund, Revision, Source, State
from receiver.ledger.refund_request import REFUSES_US, Asked
from receiver.ledger.retryability import NAMEABLE
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.retries import DeliveryAttempts
from receiver.settings.sections import Scope
from receiver.store import Store
from receiver.store.account import AccountStore
from receiver.store.redis.damage import StoreDamaged
from receiver.store.refunds.timeline import DELIVERY, TimelineEntry

LIMIT = 50
MOST_DEAD = 2_000
"""How many dead events of a subscriber are scanned for one refund. Beyond these, only events still in the stream."""
NOTICES = {
    "refresh": "Amazon is being asked now. The answer will appear below.",
    "retry": "Amazon accepted this new refund. The declined one stays as it is.",
    "pending": "Amazon has not answered yet. The request is saved and will be retried.",
    "refuses_us": "Amazon refuses our requests. Nothing has been refunded yet. The request is saved and retried.",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery of one event to one subscriber; `state` is waiting or dead."""

    subscriber: str
    state: str
    next_at: int = 0
    attempts: DeliveryAttempts | None = None
    dead: DeadEvent | None = None


@dataclass(frozen=True, slots=True)
class TimelineLine:
    """One line of the timeline: a revision, an entry of the trail, a dispute, a change of it, or an event with its open
    deliveries."""

    at: int
    revision: Revision | None = None
    trace: TimelineEntry | None = None
    event_type: str = ""
    dispute: Dispute | None = None
    change: DisputeChange | None = None
    """A change of the dispute; None: it became known."""
    deliveries: Sequence[Delivery] = ()


class RefundPages:
    """The handlers; `issuers` by account, `now` in ms."""

    def __init__(
        self,
        frame: PageFrame,
        store: Store,
        issuers: Mapping[str, Issuer],
        now: Callable[[], int],
        refreshes: Refreshes,
        reads: Reads,
    ) -> None:
        self._frame, self._store, self._issuers, self._now = frame, store, issuers, now
        self._refreshes, self._reads = refreshes, reads

    async def many(self, request: Request, session: Session) -> Response:
        """`GET /refunds?account=&state=&reason=&charge=&order=&cursor=`: newest change first."""
        session.caller.need(Scope.READ)
        given = {name: request.query_params.get(name, "").strip() for name in FIELDS}
        accounts = session.caller.seen(given["account"] or None)
        query = read_query(given)
        cursor = CURSOR.of(request)
        async with self._reads.turn(session.caller.name):
            page = await merged(self._store, accounts, query, cursor, LIMIT)
        filters = {name: value for name, value in given.items() if value}
        values = {
            "refunds": page.refunds,
            "given": given,
            "states": list(State),
            "first": f"/refunds?{urlencode(filters)}" if cursor else "",
            "following": (f"/refunds?{urlencode({**filters, 'cursor': page.next_cursor})}" if page.next_cursor else ""),
        }
        return self._frame.render("refunds.html", session, values, at="refunds")

    async def one(self, request: Request, session: Session) -> Response:
        """`GET /refunds/{refund_id}?account=`."""
        refund = await self._refund(request, session.caller)
        history, disputes = await find_history(self._store, refund)
        admin = Scope.ADMIN in session.caller.scopes
        values = {
            "refund": refund,
            "timeline": await self._timeline(refund, history, disputes, deliveries=admin),
            "may_refresh": not session.caller.scopes.isdisjoint((Scope.REFUND, Scope.ADMIN)),
            "may_retry": self._may_retry(refund, session.caller),
            "notice": NOTICES.get(request.query_params.get("done", ""), ""),
        }
        return self._frame.render("refund.html", session, values, at="refunds")

    async def refresh(self, request: Request, session: Session) -> Response:
        """`POST /refunds/{refund_id}/refresh?account=`: ask Amazon now."""
        session.caller.need(Scope.REFUND, Scope.ADMIN)
        self._refreshes.take(session.caller.name)
        refund = await self._refund(request, session.caller)
        by = actor_of(request, session.caller)
        hint = Hint(refund_id=refund.refund_id, at=self._now(), source=Source.REFRESH, by=by)
        await self._store.of(refund.account).schedule.hint(hint)
        return see_other(f"{refund_path(refund.refund_id, refund.account)}&done=refresh")

    async def ask_retry(self, request: Request, session: Session) -> Response:
        """`GET /refunds/{refund_id}/retry?account=`: the confirmation page."""
        session.caller.need(Scope.REFUND)
        refund = await self._refund(request, session.caller)
        self._need_retry(refund, session.caller)
        return self._frame.render(
            "retry.html", session, {"refund": refund, "refused": False, "besides": "", "unseen": False}, at="refunds"
        )

    async def retry(self, request: Request, session: Session) -> Response:
        """`POST /refunds/{refund_id}/retry?account=`: reissue it, at most once."""
        session.caller.need(Scope.REFUND)
        refund = await self._refund(request, session.caller)
        if refund.retried_by:
            return see_other(f"{refund_path(refund.retried_by, refund.account)}&done=retry")
        self._need_retry(refund, session.caller)
        asked = Asked(actor_of(request, session.caller), read_besides(request.state.form.get("besides", "").split()))
        try:
            issued = await self._issuers[refund.account].retry(refund.refund_id, asked)
        except OtherRefunds as error:
            return self._show_others(refund, session, error, asked)
        if issued.refund is None:
            done = "refuses_us" if issued.record.last_error == REFUSES_US else "pending"
            return see_other(f"{refund_path(refund.refund_id, refund.account)}&done={done}")
        return see_other(f"{refund_path(issued.refund.refund_id, refund.account)}&done=retry")

    def _show_others(self, refund: Refund, session: Session, error: OtherRefunds, asked: Asked) -> Response:
        """The confirmation page again, with the refunds in the way, and a box that names them if that helps."""
        others: Any = error.more["refunds"]
        ids = [each.refund_id or each.refund_request_id for each in others]
        can_name = error.reason in NAMEABLE or any(each.refund_amount is None for each in others)
        besides = " ".join(dict.fromkeys([*asked.besides, *ids])) if can_name else ""
        found = {"others": others, "besides": besides, "unseen": can_name and not ids}
        values = {"refund": refund, "why": error.detail, "refused": True, **found}
        return self._frame.render("retry.html", session, values, at="refunds", status=error.status)

    async def _refund(self, request: Request, caller: Caller) -> Refund:
        caller.need(Scope.READ)
        accounts = caller.seen(ACCOUNT.of(request) or None)
        refund = the_refund(await find_refunds(self._store, accounts, REFUND.of(request)))
        return (await as_of_now(self._store, [refund]))[0]

    def _may_retry(self, refund: Refund, caller: Caller) -> bool:
        return Scope.REFUND in caller.scopes and refund.account in self._issuers and retry_makes_sense(refund)

    def _need_retry(self, refund: Refund, caller: Caller) -> None:
        if not self._may_retry(refund, caller):
            says = refund.judged.says if refund.judged else ""
            raise Conflict(
                says or "Only a declined refund can be reissued, once, and only if its charge allows another attempt.",
                reason=refund.judged.reasons[0] if refund.judged and refund.judged.reasons else "not_retryable",
            )

    async def _timeline(
        self, refund: Refund, history: Sequence[Revision], disputes: Sequence[Dispute], *, deliveries: bool
    ) -> list[TimelineLine]:
        store = self._store.of(refund.account)
        subscribers = await store.subscribers.readable() if deliveries else []
        names = [subscriber.name for subscriber in subscribers]
        trail, events = await asyncio.gather(
            store.timelines.read(refund.refund_id),
            store.dashboard.refund_events(refund.refund_id, history, names),
        )
        there = {event.stream_id for event in events}
        dead = await asyncio.gather(*(_dead(store, refund, name, [*there]) for name in names))
        given_up = [(name, each) for name, events in zip(names, dead, strict=True) for each in events]
        steps = [TimelineLine(revision.at, revision) for revision in history]
        steps += [TimelineLine(each.first_told_at, dispute=each) for each in disputes]
        steps += [TimelineLine(change.at, dispute=each, change=change) for each in disputes for change in each.changes]
        steps += [TimelineLine(trace.at, trace=trace) for trace in trail if deliveries or trace.what != DELIVERY]
        for event in events:
            rows = [Delivery(name, "waiting", at, tried) for name, (at, tried) in event.waiting.items()]
            rows += [Delivery(name, "dead", dead=each) for name, each in given_up if each.stream_id == event.stream_id]
            steps.append(TimelineLine(event.at, event_type=event.fields.get("type", ""), deliveries=rows))
        steps += [
            TimelineLine(each.at, event_type=each.type, deliveries=[Delivery(name, "dead", dead=each)])
            for name, each in given_up
            if each.stream_id not in there
        ]
        return sorted(steps, key=_order)


async def _dead(store: AccountStore, refund: Refund, name: str, stream_ids: Sequence[str]) -> list[DeadEvent]:
    try:
        state = await store.dashboard.queue_state(name)
    except StoreDamaged:
        return []
    if not 0 < state.dead <= MOST_DEAD:
        return await store.deliveries.dead_of(name, stream_ids) if state.dead else []
    found = await store.deliveries.dead_events(name)
    return [event for event in found if event.refund_id == refund.refund_id]


def _order(step: TimelineLine) -> tuple[int, int]:
    """By time. At the same time: what triggered the poll, its result, the resulting events, then their deliveries."""
    if step.dispute is not None:
        return step.at, 0
    if step.trace is not None:
        return step.at, 3 if step.trace.what == DELIVERY else 0
    return step.at, 1 if step.revision is not None else 2


FIELDS = tuple(each.name for each in (ACCOUNT, STATE, REASON, CHARGE, ORDER))


def retry_makes_sense(refund: Refund) -> bool:
    """Whether the issuer may accept it: it is declined, and naming other refunds lifts every objection."""
    return refund.judged is not None and NAMEABLE.issuperset(refund.judged.reasons)


def read_query(given: Mapping[str, str]) -> Query:
    """The filters of the list's form; an empty field is no filter. Raises `BadRequest`."""
    filters = (STATE, REASON, CHARGE, ORDER)
    state, reason, charge, order = (each.read(given[each.name]) if given[each.name] else "" for each in filters)
    return Query(state, reason, charge, order)

"""HTTP. `/subscribers…`: each subscriber with its waiting and failed deliveries. Needs the scope `admin`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from receiver.http.api.auth import actor_of
from receiver.http.api.lookup import all_subscribers, change_subscriber
from receiver.http.api.params import ACCOUNT
from receiver.http.api.subscribers import NAME
from receiver.http.dashboard.guard import PageFrame, see_other
from receiver.http.dashboard.sessions import Session
from receiver.ledger.audit import Action, AuditEntry, Outcome
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.subscribers.schema import shown_url
from receiver.outbox.subscribers.subscriber import Subscriber, pause, resume
from receiver.settings.sections import Scope
from receiver.store import Store
from receiver.store.dashboard import QueueState
from receiver.store.deliveries.queues import Health
from receiver.store.redis.damage import StoreDamaged

DEAD_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One subscriber as the page shows it. `url` hides credentials."""

    account: str
    subscriber: Subscriber
    queue: QueueState
    dead: Sequence[DeadEvent]
    health: Health

    @property
    def url(self) -> str:
        """Its endpoint, without credentials."""
        return shown_url(self.subscriber)

    @property
    def last_error(self) -> str:
        """The last error; if unknown, that of the longest-waiting or latest failed delivery."""
        given_up = self.dead[0].last_error if self.dead else ""
        return self.health.error or self.queue.attempts.last_error or given_up


class SubscriberPages:
    """The handlers. `now` is ms."""

    def __init__(self, frame: PageFrame, store: Store, now: Callable[[], int]) -> None:
        self._frame, self._store, self._now = frame, store, now

    async def many(self, request: Request, session: Session) -> Response:
        """`GET /subscribers`."""
        session.caller.need(Scope.ADMIN)
        found = await all_subscribers(self._store, session.caller.accounts)
        rows = await asyncio.gather(*(self._row(account, each) for account, each in found))
        return self._frame.render("subscribers.html", session, {"rows": rows, "now": self._now()}, at="subscribers")

    async def pause(self, request: Request, session: Session) -> Response:
        """`POST /subscribers/{name}/pause?account=`."""
        now = self._now()
        return await self._change(
            request, session, Action.SUBSCRIBER_PAUSE, lambda found: pause(found, "operator", now)
        )

    async def resume(self, request: Request, session: Session) -> Response:
        """`POST /subscribers/{name}/resume?account=`."""
        return await self._change(request, session, Action.SUBSCRIBER_RESUME, lambda found: resume(found, self._now()))

    async def redrive(self, request: Request, session: Session) -> Response:
        """`POST /subscribers/{name}/redrive?account=`: resends every failed delivery, at the subscriber's rate."""
        session.caller.need(Scope.ADMIN)
        name = NAME.of(request)
        (account,) = session.caller.seen(request.query_params.get("account", ""))
        deliveries = self._store.of(account).deliveries
        if dead := await deliveries.dead_events(name):
            entry = AuditEntry(
                action=Action.SUBSCRIBER_REDRIVE,
                actor=actor_of(request, session.caller),
                subscriber=name,
                outcome=Outcome.ACCEPTED,
                count=len(dead),
            )
            await deliveries.redrive(name, [event.stream_id for event in dead], entry)
        return see_other("/subscribers")

    async def _row(self, account: str, subscriber: Subscriber) -> Row:
        store, name = self._store.of(account), subscriber.name
        try:
            queue, health = await asyncio.gather(store.dashboard.queue_state(name), store.deliveries.health(name))
        except StoreDamaged as error:
            # Its keys are damaged: the page says so, and shows the other subscribers as usual.
            return Row(account, subscriber, QueueState(0, 0), [], Health(error=error.detail, error_at=self._now()))
        dead = await store.deliveries.dead_page(name, limit=DEAD_SHOWN) if queue.dead else []
        return Row(account, subscriber, queue, dead, health)

    async def _change(
        self, request: Request, session: Session, action: Action, change: Callable[[Subscriber], Subscriber]
    ) -> Response:
        session.caller.need(Scope.ADMIN)
        accounts, name = session.caller.seen(ACCOUNT.of(request) or None), NAME.of(request)
        entry = AuditEntry(action=action, actor=actor_of(request, session.caller), subscriber=name)
        await change_subscriber(self._store, accounts, name, change, entry)
        return see_other("/subscribers")

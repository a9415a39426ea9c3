"""HTTP. `/subscribers…`: each subscriber with its waiting and failed deliveries. Needs the scope `admin`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from receiver.http.api.auth import actor_of
from receiver.http.api.deliveries import send_test, within
from receiver.http.api.lookup import all_subscribers, change_subscriber, find_subscriber
from receiver.http.api.params import ACCOUNT
from receiver.http.api.redrive import is_stream_id
from receiver.http.api.subscribers import NAME
from receiver.http.dashboard.guard import PageFrame, see_other
from receiver.http.dashboard.sessions import Session
from receiver.ledger.audit import Action, AuditEntry, Outcome
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.retries import Tested
from receiver.outbox.subscribers.schema import shown_url
from receiver.outbox.subscribers.subscriber import Subscriber, pause, resume
from receiver.store import Store
from receiver.store.dashboard import QueueState
from receiver.store.deliveries.queues import Health
from receiver.store.redis.damage import StoreDamaged
from receiver.store.redis.stream_ids import written_at

DEAD_SHOWN = 20
TEST_WAIT = 3.0
"""Seconds that the page waits for the result of a test. It then appears on the page."""
TEST_LOST = 60_000
"""ms after which a test without a result counts as not sent."""


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
    def status(self) -> str:
        """`paused`, `failing`, `failed` (events failed permanently), or `active`."""
        if self.subscriber.paused:
            return "paused"
        if self.health.probing:
            return "failing"
        return "failed" if self.queue.dead else "active"

    @property
    def last_error(self) -> str:
        """The last error; if unknown, that of the longest-waiting or latest failed delivery."""
        given_up = self.dead[0].last_error if self.dead else ""
        return self.health.error or self.queue.attempts.last_error or given_up


@dataclass(frozen=True, slots=True)
class Test:
    """A test that was sent from the page. `result` is None while there is none."""

    name: str
    result: Tested | None
    is_lost: bool = False


class SubscriberPages:
    """The handlers. `now` is ms."""

    def __init__(self, frame: PageFrame, store: Store, now: Callable[[], int]) -> None:
        self._frame, self._store, self._now = frame, store, now

    async def many(self, request: Request, session: Session) -> Response:
        """`GET /subscribers?test=&name=&account=`; the parameters name a test whose result is shown."""
        found = await all_subscribers(self._store, session.caller.accounts)
        rows = await asyncio.gather(*(self._row(account, each) for account, each in found))
        values = {"rows": rows, "now": self._now(), "test": await self._tested(request, session)}
        return self._frame.render("subscribers.html", session, values, at="subscribers")

    async def test(self, request: Request, session: Session) -> Response:
        """`POST /subscribers/{name}/test?account=`: sends it one test event, also while it is paused."""
        account, subscriber = await self._named(request, session)
        _, stream_id = await send_test(
            self._store, account, subscriber.name, self._now(), actor_of(request, session.caller)
        )
        await within(TEST_WAIT, lambda: self._store.of(account).deliveries.test_result(stream_id))
        return see_other(f"/subscribers?{urlencode({'test': stream_id, 'name': subscriber.name, 'account': account})}")

    async def ask_pause(self, request: Request, session: Session) -> Response:
        """`GET /subscribers/{name}/pause?account=`: the confirmation page."""
        account, subscriber = await self._named(request, session)
        return self._frame.render(
            "pause.html", session, {"row": await self._row(account, subscriber)}, at="subscribers"
        )

    async def pause(self, request: Request, session: Session) -> Response:
        now = self._now()
        return await self._change(
            request, session, Action.SUBSCRIBER_PAUSE, lambda found: pause(found, "operator", now)
        )

    async def resume(self, request: Request, session: Session) -> Response:
        return await self._change(request, session, Action.SUBSCRIBER_RESUME, lambda found: resume(found, self._now()))

    async def redrive(self, request: Request, session: Session) -> Response:
        """`POST /subscribers/{name}/redrive?account=`: resends every failed delivery, at the subscriber's rate."""
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

    async def _named(self, request: Request, session: Session) -> tuple[str, Subscriber]:
        accounts = session.caller.seen(ACCOUNT.of(request) or None)
        return await find_subscriber(self._store, accounts, NAME.of(request))

    async def _tested(self, request: Request, session: Session) -> Test | None:
        stream_id, name, account = (request.query_params.get(each, "") for each in ("test", "name", "account"))
        if not is_stream_id(stream_id) or account not in session.caller.accounts:
            return None
        outcome = await self._store.of(account).deliveries.test_result(stream_id)
        if not outcome:
            return Test(name, None, is_lost=self._now() - written_at(stream_id) > TEST_LOST)
        return Test(name, msgspec.json.decode(outcome, type=Tested))

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
        accounts, name = session.caller.seen(ACCOUNT.of(request) or None), NAME.of(request)
        entry = AuditEntry(action=action, actor=actor_of(request, session.caller), subscriber=name)
        await change_subscriber(self._store, accounts, name, change, entry)
        return see_other("/subscribers")

"""HTTP. `/subscribers…`: each subscriber with its waiting and failed deliveries. Needs the scope `admin`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec
from starlette.responses import Response

from receiver.http.api.deliveries import send_test, within
from receiver.http.api.lookup import all_subscribers, find_subscriber
from receiver.http.api.redrive import is_stream_id
from receiver.http.api.subscribers import NAME, SubscriberApi
from receiver.http.dashboard.guard import PageFrame, Visit, see_other
from receiver.ledger.audit import Action, AuditEntry, Outcome
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.retries import Tested
from receiver.outbox.subscribers.schema import shown_url
from receiver.outbox.subscribers.subscriber import Subscriber
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
    """The handlers. `now` is ms; `api` has those that do the same for programs."""

    def __init__(self, frame: PageFrame, store: Store, now: Callable[[], int], api: SubscriberApi) -> None:
        self._frame, self._store, self._now, self._api = frame, store, now, api

    async def many(self, visit: Visit) -> Response:
        """`GET /subscribers?test=&name=&account=`; the parameters name a test whose result is shown."""
        found = await all_subscribers(self._store, visit.caller.accounts)
        rows = await asyncio.gather(*(self._row(account, each) for account, each in found))
        values = {"rows": rows, "now": self._now(), "test": await self._tested(visit)}
        return self._frame.render("subscribers.html", visit, values, at="subscribers")

    async def test(self, visit: Visit) -> Response:
        """`POST /subscribers/{name}/test?account=`: sends it one test event, also while it is paused."""
        account, subscriber = await self._named(visit)
        _, stream_id = await send_test(self._store, account, subscriber.name, self._now(), visit.actor)
        await within(TEST_WAIT, lambda: self._store.of(account).deliveries.test_result(stream_id))
        return see_other(f"/subscribers?{urlencode({'test': stream_id, 'name': subscriber.name, 'account': account})}")

    async def ask_pause(self, visit: Visit) -> Response:
        """`GET /subscribers/{name}/pause?account=`: the confirmation page."""
        account, subscriber = await self._named(visit)
        return self._frame.render("pause.html", visit, {"row": await self._row(account, subscriber)}, at="subscribers")

    async def pause(self, visit: Visit) -> Response:
        await self._api.pause(visit)
        return see_other("/subscribers")

    async def resume(self, visit: Visit) -> Response:
        await self._api.resume(visit)
        return see_other("/subscribers")

    async def redrive(self, visit: Visit) -> Response:
        """`POST /subscribers/{name}/redrive?account=`: resends every failed delivery, at the subscriber's rate."""
        name = visit[NAME]
        (account,) = visit.caller.seen(visit.request.query_params.get("account", ""))
        deliveries = self._store.of(account).deliveries
        if dead := await deliveries.dead_events(name):
            entry = AuditEntry(
                action=Action.SUBSCRIBER_REDRIVE,
                actor=visit.actor,
                subscriber=name,
                outcome=Outcome.ACCEPTED,
                count=len(dead),
            )
            await deliveries.redrive(name, [event.stream_id for event in dead], entry)
        return see_other("/subscribers")

    async def _named(self, visit: Visit) -> tuple[str, Subscriber]:
        return await find_subscriber(self._store, visit.accounts, visit[NAME])

    async def _tested(self, visit: Visit) -> Test | None:
        stream_id, name, account = (visit.request.query_params.get(each, "") for each in ("test", "name", "account"))
        if not is_stream_id(stream_id) or account not in visit.caller.accounts:
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

"""Verb. Lanes → the world: claim in every lane what is due, and hand it over. A bad subscriber delays only itself.

Each lane has its own room, its own rate, and its own breaker: after five failures in a row one message at a time is
sent, a second after the last, until one succeeds. Rate and breaker are the store's
(`store/deliveries/claim_deliveries.lua`), so they hold over all processes together.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf

import structlog

from receiver.deliver.send import DeliveryAttempt, Send
from receiver.errors import StoreUnavailable
from receiver.outbox.retries import ClaimedDelivery
from receiver.outbox.subscribers.subscriber import Subscriber, most_in_one, window
from receiver.runtime.metrics import Metrics
from receiver.runtime.rounds import in_rounds
from receiver.store import Store
from receiver.store.deliveries.queues import BREAKER, Claims, QueueLimits
from receiver.store.deliveries.subscribers import SubscriberList
from receiver.store.redis.wakeups import ChangeSignal

log = structlog.get_logger()

NOTHING = Claims((), None)


@dataclass(slots=True)
class Deliverer:
    """Sends one account's events. `system_clock` is the machine's own clock (ms): subscribers check the timestamp by
    theirs.

    `rate` (messages a second, 0: any) and `per_subscriber` are for subscribers that have no number of their own.
    """

    account: str
    store: Store
    send: Send
    metrics: Metrics
    system_clock: Callable[[], int]
    random: Callable[[], float]
    concurrency: int = 256
    per_subscriber: int = 8
    rate: float = 0.0
    timeout: float = 10.0
    connect_timeout: float = 3.0
    lease: float = 30.0
    _running: dict[asyncio.Task[None], str] = field(default_factory=dict)
    _waker: ChangeSignal = field(default_factory=ChangeSignal)
    _turn: int = 0
    _served: Counter[str] = field(default_factory=Counter)
    """The turn in which each lane was given room last."""
    _lanes: list[str] = field(default_factory=list)
    """Whose lanes there were at the last look."""
    _held: set[str] = field(default_factory=set)
    """Lanes in which something was held back: what comes of that which is under way may set it free."""

    async def run(self) -> None:
        """Work until cancelled; then let go of what is under way: its leases run out and others take it."""
        with self.store.change_signal(self.account) as self._waker:
            await in_rounds(self._waker, self._round, self._running)

    async def _round(self) -> float:
        """Claim in every lane what is due and what there is room for.

        Returns the seconds until more is due; `inf`: nobody knows.
        """
        try:
            subscriber_list, tops = await self._looked()
        except StoreUnavailable as error:
            log.warning("deliver.store_unavailable", account=self.account, reason=error.reason)
            return inf
        now = self.store.now()
        waits = {
            name: max(at - now, 0)
            for name, at in tops.items()
            if not at or not subscriber_list.subscribers[name].paused
        }
        rooms = self._rooms(subscriber_list, [name for name, wait in waits.items() if wait == 0])
        async with asyncio.TaskGroup() as claims:
            claimed = [
                claims.create_task(self._claim(subscriber_list.subscribers[name], room)) for name, room in rooms.items()
            ]
        results = [claim.result() for claim in claimed]
        if any(result.deliveries for result in results):
            return 0.0
        more = [result.wait for result in results if result.wait]
        return min((wait / 1000 for wait in (*waits.values(), *more) if wait), default=inf)

    async def _looked(self) -> tuple[SubscriberList, dict[str, int]]:
        """The subscribers, and when each lane is due next. Both in one go, unless there are others than last time."""
        tops, subscriber_list = await asyncio.gather(
            self.store.queue_heads(self.account, self._lanes), self.store.subscriber_list(self.account)
        )
        if self._lanes != (names := list(subscriber_list.subscribers)):
            self._lanes = names
            tops = await self.store.queue_heads(self.account, names)
        return subscriber_list, tops

    @property
    def _spare(self) -> int:
        return self.concurrency // 4

    def _rooms(self, subscriber_list: SubscriberList, names: list[str]) -> dict[str, int]:
        """How many messages may be begun in each of these lanes.

        Where room is scarce, it goes to those with the least under way; among equals to who has waited longest. The
        last of it is for those with nothing under way.
        """
        busy, rooms = Counter(self._running.values()), Counter[str]()
        most = {name: subscriber_list.subscribers[name].concurrency or self.per_subscriber for name in names}
        queue = [(busy[name], self._served[name], name) for name in names if busy[name] < most[name]]
        heapify(queue)
        for left in range(self.concurrency - len(self._running), 0, -1):
            if not queue or (queue[0][0] and left <= self._spare):
                break
            under_way, served, name = heappop(queue)
            rooms[name] += 1
            if under_way + 1 < most[name]:
                heappush(queue, (under_way + 1, served, name))
        self._turn += 1
        for name in rooms:
            self._served[name] = self._turn
        self._held |= {name for name in names if busy[name] + rooms[name] >= most[name]}
        return rooms

    async def _claim(self, subscriber: Subscriber, room: int) -> Claims:
        """Take events of one lane, and begin to deliver them."""
        most, name = most_in_one(subscriber), subscriber.name
        terms = QueueLimits(
            rate=subscriber.rate or self.rate,
            most=most,
            window=window(subscriber),
            breaker=BREAKER,
            tests_only=subscriber.paused,
        )
        try:
            claims = await self.store.claim_deliveries(
                self.account, name, lease=int(self.lease * 1000), limit=room, terms=terms
            )
        except StoreUnavailable as error:
            log.warning("deliver.not_claimed", account=self.account, subscriber=name, reason=error.reason)
            return NOTHING
        for start in range(0, len(claims.deliveries), most):
            message = claims.deliveries[start : start + most]
            task = asyncio.get_running_loop().create_task(self._deliver(message, subscriber))
            self._running[task] = name
            task.add_done_callback(self._done)
        if claims.wait:
            self._held.add(name)
        return claims

    def _done(self, task: asyncio.Task[None]) -> None:
        """Where there was no room, or something was held back, there may be more to do now."""
        full = len(self._running) >= self.concurrency - self._spare
        name = self._running.pop(task)
        if full or name in self._held:
            self._held.discard(name)
            self._waker.set()

    async def _deliver(self, deliveries: Sequence[ClaimedDelivery], subscriber: Subscriber) -> None:
        with structlog.contextvars.bound_contextvars(account=self.account, subscriber=subscriber.name):
            try:
                await self.deliver(deliveries, subscriber)
            except StoreUnavailable as error:
                log.warning("deliver.not_settled", reason=error.reason)
            except Exception:
                log.exception("deliver.failed", stream_ids=[delivery.stream_id for delivery in deliveries])

    async def deliver(self, deliveries: Sequence[ClaimedDelivery], subscriber: Subscriber) -> None:
        """Send one message, and settle what is in it."""
        handover = DeliveryAttempt(
            self.store, self.send, self.metrics, self.system_clock, self.random, self.timeout, self.connect_timeout
        )
        await handover.deliver(deliveries, subscriber)

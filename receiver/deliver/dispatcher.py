"""Verb. Delivery queues → subscribers: claim due events in every queue and send them. A bad subscriber delays no other.

Each queue has its own concurrency, rate and breaker: after five failures in a row, one message at a time is sent, one
second after the last, until one succeeds. Rate and breaker are kept in the store
(`store/deliveries/claim_deliveries.lua`), so they hold across all processes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import islice

import structlog

from receiver.deliver.send import DeliveryAttempt, Send, read_all
from receiver.errors import StoreUnavailable
from receiver.outbox.events.envelope import AnEvent
from receiver.outbox.formats.registry import format_spec
from receiver.outbox.retries import ClaimedDelivery
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.runtime.metrics import Metrics
from receiver.runtime.rounds import Claim, Rounds
from receiver.store.account import AccountStore
from receiver.store.deliveries.queues import BREAKER, QueueLimits
from receiver.store.deliveries.subscribers import SubscriberList
from receiver.store.redis.damage import WrongType

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Message:
    """Deliveries to one subscriber in one message."""

    subscriber: Subscriber
    deliveries: Sequence[ClaimedDelivery]
    events: Sequence[AnEvent | None] | None = None
    """What `read_all` returned for them; None: they are not read yet."""


@dataclass(slots=True)
class Deliverer:
    """Sends one account's events. `system_clock` (ms) is the machine's clock: subscribers compare timestamps with
    theirs.

    `rate` (messages a second, 0: any) and `per_subscriber` are the defaults for subscribers.
    """

    store: AccountStore
    send: Send
    metrics: Metrics
    system_clock: Callable[[], int]
    random: Callable[[], float]
    concurrency: InitVar[int] = 256
    per_subscriber: int = 8
    rate: float = 0.0
    timeout: float = 10.0
    connect_timeout: float = 3.0
    lease: float = 30.0
    rounds: Rounds[Message] = field(init=False)
    _attempt: DeliveryAttempt = field(init=False)
    _turn: int = 0
    _served: Counter[str] = field(default_factory=Counter)
    """The last turn in which each queue was given a slot."""
    _names: list[str] = field(default_factory=list)
    """The subscribers with a queue at the last look."""
    _held: set[str] = field(default_factory=set)
    """Queues with events held back. The end of a message in flight may release them."""
    _closed: set[str] = field(default_factory=set)
    """Queues that were due and of which nothing could be claimed. A success, once it is written, may open them: it ends
    the breaker."""

    def __post_init__(self, concurrency: int) -> None:
        self.rounds = Rounds(
            name="deliver",
            account=self.store.account,
            claim=self._claim,
            work=self._work,
            about=self._about,
            concurrency=concurrency,
            unblocks=self._unblocks,
        )
        self._attempt = DeliveryAttempt(
            store=self.store,
            send=self.send,
            metrics=self.metrics,
            system_clock=self.system_clock,
            random=self.random,
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
            release=self.rounds.release,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        await self.rounds.run(self.store.change_signal())

    async def _claim(self, room: int) -> Claim[Message]:
        """Claim the due events of every queue, as far as slots are free."""
        subscriber_list, heads = await self._look()
        subscribers, now = subscriber_list.subscribers, self.store.now()
        waits = {name: max(at - now, 0) for name, at in heads.items() if not at or not subscribers[name].paused}
        rooms = self._share_out(room, subscribers, [name for name, wait in waits.items() if wait == 0])
        claims = await self._claim_queues(
            {name: (share, self._limits(subscribers[name])) for name, share in rooms.items()}
        )
        messages = [message for name, claim in claims.items() for message in _messages(subscribers[name], claim.items)]
        if messages:
            return Claim(await self._read(messages), 0)
        more = [claim.wait for claim in claims.values()]
        return Claim((), min((wait for wait in (*waits.values(), *more) if wait), default=None))

    async def _read(self, messages: list[Message]) -> list[Message]:
        """The messages with their events, which are read together. If that fails, each message reads its events
        separately, so that one failure does not stop the others."""
        try:
            events = iter(await read_all(self.store, [each for message in messages for each in message.deliveries]))
        except Exception:
            log.exception("deliver.not_read_together", account=self.store.account)
            return messages
        return [replace(message, events=list(islice(events, len(message.deliveries)))) for message in messages]

    async def _look(self) -> tuple[SubscriberList, dict[str, int]]:
        """The subscribers, and when each queue is due next. One round trip, unless the subscribers have changed."""
        heads, subscriber_list = await asyncio.gather(
            self.store.deliveries.queue_heads(self._names), self.store.subscribers.read()
        )
        if self._names != (names := list(subscriber_list.subscribers)):
            self._names = names
            heads = await self.store.deliveries.queue_heads(names)
        return subscriber_list, heads

    @property
    def _spare(self) -> int:
        return self.rounds.concurrency // 4

    def _share_out(self, room: int, subscribers: Mapping[str, Subscriber], names: list[str]) -> dict[str, int]:
        """How many messages may be started in each of these queues.

        If slots are scarce, they go to the queues with the fewest messages in flight; among equals, to the one that has
        waited longest. The last quarter of all slots is for queues with none in flight.
        """
        busy = Counter(message.subscriber.name for message in self.rounds.under_way.values())
        rooms = Counter[str]()
        most = {name: subscribers[name].concurrency or self.per_subscriber for name in names}
        queue = [(busy[name], self._served[name], name) for name in names if busy[name] < most[name]]
        heapify(queue)
        for left in range(room, 0, -1):
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

    def _limits(self, subscriber: Subscriber) -> QueueLimits:
        return QueueLimits(
            rate=subscriber.rate or self.rate,
            most=format_spec(subscriber.format).most_in_one,
            window=format_spec(subscriber.format).window,
            breaker=BREAKER,
            tests_only=subscriber.paused,
        )

    async def _claim_queues(self, queues: Mapping[str, tuple[int, QueueLimits]]) -> dict[str, Claim[ClaimedDelivery]]:
        """Claim events of these queues together. If one of them is damaged, claim from each separately, so that it
        stops no other."""
        if not queues:
            return {}
        try:
            claims = await self.store.deliveries.claim_all(queues, lease=int(self.lease * 1000))
        except StoreUnavailable as error:
            if isinstance(error, WrongType) and len(queues) > 1:
                parts = await asyncio.gather(*(self._claim_queues({name: terms}) for name, terms in queues.items()))
                return {name: claim for part in parts for name, claim in part.items()}
            for name in queues:
                log.warning("deliver.not_claimed", account=self.store.account, subscriber=name, reason=error.reason)
            return {}
        self._held |= {name for name, claim in claims.items() if claim.wait}
        self._closed |= {name for name, claim in claims.items() if claim.wait and not claim.items}
        return claims

    def _unblocks(self, message: Message) -> bool:
        """Whether slots were scarce, or events were held back in the message's queue."""
        name = message.subscriber.name
        if len(self.rounds.under_way) < self.rounds.concurrency - self._spare and name not in self._held:
            return False
        self._held.discard(name)
        return True

    async def _work(self, message: Message) -> None:
        # Each message has a separate task, and so a separate context.
        structlog.contextvars.bind_contextvars(account=self.store.account, subscriber=message.subscriber.name)
        await self.deliver(message.deliveries, message.subscriber, message.events)
        if (name := message.subscriber.name) in self._closed:
            self._closed.discard(name)
            self.rounds.wake()

    def _about(self, message: Message) -> dict[str, object]:
        stream_ids = [delivery.stream_id for delivery in message.deliveries]
        return {"account": self.store.account, "subscriber": message.subscriber.name, "stream_ids": stream_ids}

    async def deliver(
        self,
        deliveries: Sequence[ClaimedDelivery],
        subscriber: Subscriber,
        events: Sequence[AnEvent | None] | None = None,
    ) -> None:
        """Send one message, and finish each delivery in it."""
        await self._attempt.deliver(deliveries, subscriber, events)


def _messages(subscriber: Subscriber, deliveries: Sequence[ClaimedDelivery]) -> Iterator[Message]:
    most = format_spec(subscriber.format).most_in_one
    for start in range(0, len(deliveries), most):
        yield Message(subscriber, deliveries[start : start + most])

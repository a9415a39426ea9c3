"""Verb. Lanes → the world: claim, render, send, judge, settle. A subscriber that is slow or gone delays only itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Protocol

import structlog

from receiver.errors import NotSent, StoreUnavailable, Unreadable
from receiver.exchange import Request, Response
from receiver.outbox.delivery import Attempts, Dead, Delivered, Gone, Retry, error_text, judge, record
from receiver.outbox.event import Event, from_fields
from receiver.outbox.rendering import render, render_body
from receiver.outbox.subscriber import Subscriber, pause
from receiver.store import Store
from receiver.store.lanes import DeadEvent, Parcel, Roster
from receiver.store.wakes import Waker

log = structlog.get_logger()

IDLE = 1.0
ANSWER_BYTES = 4096
"""What is read of a subscriber's answer: enough to show a person, too little to hurt."""


class Send(Protocol):
    """How a request gets to a subscriber: `Transport.send`."""

    async def __call__(
        self, request: Request, *, timeout: float, connect_timeout: float, max_body: int, guarded: bool
    ) -> Response:
        """The answer. Raises `NotSent`."""


class Watcher(Protocol):
    """Who counts deliveries (`metrics.py`)."""

    def delivered(self, outcome: str, seconds: float) -> None:
        """One try has ended: delivered, retry, dead or gone."""


@dataclass(slots=True)
class Deliverer:
    """Sends one account's events. `wall` is the machine's own clock (ms): subscribers check the timestamp by theirs."""

    account: str
    store: Store
    send: Send
    watcher: Watcher
    wall: Callable[[], int]
    chance: Callable[[], float]
    concurrency: int = 256
    per_subscriber: int = 8
    timeout: float = 10.0
    connect_timeout: float = 3.0
    lease: float = 30.0
    _running: dict[asyncio.Task[None], str] = field(default_factory=dict)
    _waker: Waker = field(default_factory=Waker)
    _turn: int = 0
    _served: Counter[str] = field(default_factory=Counter)
    """The turn in which each lane was given room last."""

    async def run(self) -> None:
        """Work until cancelled; then let go of what is under way: its leases run out and others take it."""
        try:
            with self.store.waking(self.account) as self._waker:
                while True:
                    self._waker.arm()
                    wait = await self._round()
                    if wait:
                        await self._waker.rest(min(wait, IDLE))
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _round(self) -> float:
        """Claim in every lane what is due and what there is room for. Returns the seconds until more is due."""
        try:
            roster = await self.store.roster(self.account)
            awake = [name for name, each in roster.subscribers.items() if not each.paused]
            waits = await self.store.lane_waits(self.account, awake)
        except StoreUnavailable as error:
            log.warning("deliver.store_unavailable", account=self.account, reason=error.reason)
            return IDLE
        rooms = self._rooms([name for name, wait in waits.items() if wait == 0])
        async with asyncio.TaskGroup() as claims:
            claimed = [claims.create_task(self._claim(roster, name, room)) for name, room in rooms.items()]
        if any(claim.result() for claim in claimed):
            return 0.0
        return min((wait / 1000 for wait in waits.values() if wait), default=IDLE)

    def _rooms(self, names: list[str]) -> dict[str, int]:
        """How many deliveries may begin in each of these lanes.

        Where room is scarce, it goes to those with the least under way; among equals to who has waited longest.
        """
        busy, rooms = Counter(self._running.values()), Counter[str]()
        queue = [(busy[name], self._served[name], name) for name in names if busy[name] < self.per_subscriber]
        heapify(queue)
        for _ in range(self.concurrency - len(self._running)):
            if not queue:
                break
            under_way, served, name = heappop(queue)
            rooms[name] += 1
            if under_way + 1 < self.per_subscriber:
                heappush(queue, (under_way + 1, served, name))
        self._turn += 1
        for name in rooms:
            self._served[name] = self._turn
        return rooms

    async def _claim(self, roster: Roster, name: str, room: int) -> bool:
        """Take events of one lane, and begin to deliver them; whether there were any."""
        try:
            parcels = await self.store.claim_lane(self.account, name, lease=int(self.lease * 1000), limit=room)
        except StoreUnavailable as error:
            log.warning("deliver.not_claimed", account=self.account, subscriber=name, reason=error.reason)
            return False
        for parcel in parcels:
            task = asyncio.get_running_loop().create_task(self._deliver(parcel, roster.subscribers[name]))
            self._running[task] = name
            task.add_done_callback(self._done)
        return bool(parcels)

    def _done(self, task: asyncio.Task[None]) -> None:
        """Where there was no room, there is some now."""
        under_way = list(self._running.values())
        name = self._running.pop(task)
        if len(under_way) >= self.concurrency or under_way.count(name) >= self.per_subscriber:
            self._waker.ring()

    async def _deliver(self, parcel: Parcel, subscriber: Subscriber) -> None:
        with structlog.contextvars.bound_contextvars(account=parcel.account, subscriber=parcel.subscriber):
            try:
                await self.deliver(parcel, subscriber)
            except StoreUnavailable as error:
                log.warning("deliver.not_settled", reason=error.reason)
            except Exception:
                log.exception("deliver.failed", stream_id=parcel.stream_id)

    async def deliver(self, parcel: Parcel, subscriber: Subscriber) -> None:
        """Send one claimed event, and settle. After `StoreUnavailable` the lease runs out, and it is sent again."""
        try:
            event = from_fields(parcel.account, parcel.fields)
        except Unreadable:
            await self._unreadable(parcel)
            return
        began = asyncio.get_running_loop().time()
        answer: Response | NotSent
        try:
            answer = await self.send(
                render([event], subscriber, self.wall()),
                timeout=self.timeout,
                connect_timeout=self.connect_timeout,
                max_body=ANSWER_BYTES,
                guarded=True,
            )
        except NotSent as error:
            answer = error
        seconds = asyncio.get_running_loop().time() - began
        await self._settle(parcel, subscriber, event, answer, seconds)

    async def _settle(
        self,
        parcel: Parcel,
        subscriber: Subscriber,
        event: Event,
        answer: Response | NotSent,
        seconds: float,
    ) -> None:
        now, paused_ms = self.store.now(), subscriber.paused_ms
        verdict = judge(answer, parcel.attempts, now, self.chance(), paused_ms=paused_ms)
        attempts = record(answer, parcel.attempts, verdict, now, paused_ms=paused_ms)
        match verdict:
            case Delivered():
                held = await self.store.delivered(parcel)
            case Retry(at=at):
                held = await self.store.retry(parcel, at, attempts)
            case Gone():
                await self._pause(parcel, subscriber)
                held = await self.store.retry(parcel, now, attempts)
            case Dead(reason=reason):
                held = await self.store.dead(parcel, _dead_event(parcel, event, attempts, reason, now))
        outcome = type(verdict).__name__.lower()
        self.watcher.delivered(outcome, seconds)
        line = log.info if isinstance(verdict, Delivered) else log.error if isinstance(verdict, Dead) else log.warning
        line(
            f"delivery.{outcome}",
            event_id=event.id,
            type=event.type.value,
            refund_id=event.refund.refund_id,
            attempt=attempts.count,
            error=None if isinstance(verdict, Delivered) else error_text(answer),
            seconds=round(seconds, 3),
            settled=held,
        )

    async def _pause(self, parcel: Parcel, told: Subscriber) -> None:
        """410 Gone: nothing more is sent until an operator resumes; what is owed waits.

        It is the address that is gone: if the subscriber has another by now, it goes on.
        """
        for _ in range(8):
            subscriber = (await self.store.roster(parcel.account)).subscribers.get(parcel.subscriber)
            if subscriber is None or subscriber.paused or subscriber.url != told.url:
                return
            after = pause(subscriber, "gone", self.store.now())
            if await self.store.change_subscriber(parcel.account, subscriber, after):
                log.error("subscriber.paused", reason="gone", mend="receiver subscriber resume")
                return

    async def _unreadable(self, parcel: Parcel) -> None:
        """The stream does not have the event, or not in a form that we can read: somebody else must have touched it."""
        reason = "unreadable" if parcel.fields else "lost"
        log.error("delivery.dead", reason=reason, stream_id=parcel.stream_id)
        self.watcher.delivered("dead", 0.0)
        entry = DeadEvent(
            stream_id=parcel.stream_id,
            event_id=parcel.fields.get("id", ""),
            type=parcel.fields.get("type", ""),
            refund_id=parcel.fields.get("refundId", ""),
            reason=reason,
            at=self.store.now(),
            attempts=parcel.attempts.count,
            last_error=parcel.attempts.last_error,
            body="",
            excerpt=parcel.attempts.excerpt,
        )
        await self.store.dead(parcel, entry)


def _dead_event(parcel: Parcel, event: Event, attempts: Attempts, reason: str, now: int) -> DeadEvent:
    return DeadEvent(
        stream_id=parcel.stream_id,
        event_id=event.id,
        type=event.type.value,
        refund_id=event.refund.refund_id,
        reason=reason,
        at=now,
        attempts=attempts.count,
        last_error=attempts.last_error,
        body=render_body(event).decode(),
        excerpt=attempts.excerpt,
    )

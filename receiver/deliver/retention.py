"""Verb. Maintenance of the event stream: backfill for new subscribers, expiry, trimming, and operator events.

Every process runs it. Backfill and operator events are safe in several processes at once; one process a minute expires
and trims.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import structlog

from receiver.deliver.failing import publish_operator_events
from receiver.errors import StoreUnavailable
from receiver.outbox.dead_letter import dead_event, dead_letter
from receiver.outbox.events.kinds import is_newer
from receiver.outbox.events.operator_event import is_operator
from receiver.outbox.retries import ClaimedDelivery
from receiver.runtime.metrics import Metrics
from receiver.store.account import AccountStore
from receiver.store.deliveries.queues import AttemptEffects
from receiver.store.deliveries.upkeep import EXPIRY_BATCH, MAINTENANCE_LEASE
from receiver.store.redis.damage import WrongType
from receiver.track.review import review

log = structlog.get_logger()

IDLE = 1.0
MOST_BATCHES = 100
"""The most batches of expired events of one subscriber in one round."""


@dataclass(slots=True)
class Retention:
    """Maintenance for one account. `keep` and `keep_owed` (ms): how long an event is kept, at least and at most."""

    store: AccountStore
    metrics: Metrics
    keep: int
    keep_owed: int
    lease: float = 30.0
    _next: int = 0

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.round()
            except StoreUnavailable as error:
                log.debug("upkeep.store_unavailable", account=self.store.account, reason=error.reason)
            await asyncio.sleep(IDLE)

    async def round(self) -> None:
        """Do what is due. Raises `StoreUnavailable`; what was done stays done."""
        for part in (partial(publish_operator_events, self.store, self.metrics), self.backfill):
            with self._alone():
                await part()
        now = self.store.now()
        if now < self._next <= now + MAINTENANCE_LEASE:
            return
        self._next = now + MAINTENANCE_LEASE
        if await self.store.deliveries.take_maintenance_lease(MAINTENANCE_LEASE - 1000):
            for part in (self.expire, self.trim, partial(review, self.store)):
                with self._alone():
                    await part()

    @contextlib.contextmanager
    def _alone(self, **about: str) -> Iterator[None]:
        """A key of the wrong type stops only the work that needs it."""
        try:
            yield
        except WrongType as error:
            log.warning("upkeep.not_done", account=self.store.account, key=error.key, reason=error.reason, **about)

    async def backfill(self) -> None:
        """Queue earlier events for new subscribers."""
        for job in await self.store.deliveries.backfills():
            subscriber = (await self.store.subscribers.read()).subscribers.get(job.name)
            if subscriber is None:
                log.warning("backfill.waits", account=self.store.account, subscriber=job.name, reason="unreadable")
                continue
            with self._alone(subscriber=job.name):
                if not await self.store.deliveries.backfill(job, subscriber):
                    log.info("backfill.done", account=self.store.account, subscriber=job.name)

    async def expire(self) -> None:
        """Turn events that have been owed too long into dead letters: a paused subscriber must not prevent trimming."""
        before = self.store.now() - self.keep_owed
        for name in (await self.store.subscribers.read()).names:
            with self._alone(subscriber=name):
                await self._expire(name, before)
        await publish_operator_events(self.store, self.metrics)

    async def _expire(self, name: str, before: int) -> None:
        for _ in range(MOST_BATCHES):
            found = await self.store.deliveries.overdue(name, before, int(self.lease * 1000))
            gone = await self._dead_letter([delivery for delivery in found if not is_newer(delivery.fields)])
            if len(found) < EXPIRY_BATCH or not gone:
                break

    async def _dead_letter(self, deliveries: list[ClaimedDelivery]) -> int:
        """One operator event covers all of them. Expired operator events cause no further one."""
        about_refunds = [delivery for delivery in deliveries if not is_operator(delivery.fields)]
        gone = 0
        for delivery in deliveries:
            now = self.store.now()
            first = about_refunds and delivery is about_refunds[0]
            tell = [dead_letter(delivery, "expired", now, delivery.attempts, len(about_refunds))] if first else []
            entry = dead_event(delivery, "expired", now, delivery.attempts)
            if await self.store.deliveries.dead(delivery, entry, AttemptEffects(operator_events=tell)):
                gone += 1
                self.metrics.delivery_attempt("dead", 0.0)
        if gone:
            log.error("delivery.expired", account=self.store.account, subscriber=deliveries[0].subscriber, count=gone)
        return gone

    async def trim(self) -> None:
        """Remove events that are old and not owed to any subscriber."""
        gone = await self.store.deliveries.trim(self.store.now() - self.keep)
        if gone:
            log.info("events.trimmed", account=self.store.account, count=gone)

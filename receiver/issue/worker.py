"""Verb. Resumes refund requests whose lease expired or whose next attempt is due."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from math import inf

import structlog

from receiver.errors import StoreUnavailable
from receiver.exchange import in_the_log
from receiver.issue.attempts import RefundAttempts
from receiver.ledger.refund_request import RequestState
from receiver.runtime.rounds import in_rounds
from receiver.store.redis.wakeups import ChangeSignal
from receiver.store.requests.requests import Attempt

log = structlog.get_logger()


@dataclass(slots=True)
class Worker:
    """Finishes the requests of one account that others began. A lease is in seconds."""

    tries: RefundAttempts
    lease: float = 30.0
    concurrency: int = 4
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _waker: ChangeSignal = field(default_factory=ChangeSignal)

    async def run(self) -> None:
        """Work until cancelled; then let go of what is under way: its leases run out and others take it."""
        with self.tries.store.change_signal(self.tries.account) as self._waker:
            await in_rounds(self._waker, self._round, self._running)

    async def _round(self) -> float:
        """Claim what there is room for. Returns the seconds until there is more to claim; `inf`: nobody knows."""
        room = self.concurrency - len(self._running)
        if room <= 0:
            return inf
        try:
            claimed = await self.tries.store.requests.claim(
                self.tries.account, lease=int(self.lease * 1000), limit=room
            )
        except StoreUnavailable as error:
            log.warning("issue.store_unavailable", account=self.tries.account, reason=error.reason)
            return inf
        for attempt in claimed.attempts:
            task = asyncio.get_running_loop().create_task(self._work(attempt))
            self._running.add(task)
            task.add_done_callback(self._done)
        return inf if claimed.wait is None else claimed.wait / 1000

    def _done(self, task: asyncio.Task[None]) -> None:
        if len(self._running) >= self.concurrency:
            self._waker.set()
        self._running.discard(task)

    async def _work(self, attempt: Attempt) -> None:
        """One claimed request. Whatever is wrong with it, the others go on, and it comes round again."""
        try:
            await self.go_on(attempt)
        except StoreUnavailable as error:
            log.warning("issue.not_settled", account=self.tries.account, reason=error.reason)
        except Exception:
            log.exception("issue.failed", account=self.tries.account, request=attempt.id)

    async def go_on(self, attempt: Attempt) -> None:
        """Try a claimed request, if it still needs one. Raises `StoreUnavailable`: then the lease runs out."""
        record = await self.tries.store.requests.get(self.tries.account, attempt.id)
        if record is None or record.state is not RequestState.RESERVED:
            await self.tries.store.requests.release(self.tries.account, attempt)
            return
        with structlog.contextvars.bound_contextvars(**in_the_log(record.order.traceparent)):
            await self.tries.when_admitted(attempt, record.order)

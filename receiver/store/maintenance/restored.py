"""Edge: Redis. After a restore from a backup, refunds that are not final and open cases may be outdated, so all of them
become due. Nothing that issues refunds continues without a person. A job is paused: people may have closed its cases,
or cancelled it, after the backup. A request that was open becomes unclear: Amazon may have refused it after the backup,
and the buyer may have been paid in another way. So does an order of Flexible Payments: it may have been sent after the
backup, and Amazon forgets its reference seven days later.

`receiver restore` (`backup.py`) writes a unique text to `refunds:restored`. Each account stores the text that it has
dealt with, so that several processes may do this at once, and again after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

import structlog

from receiver.ledger.declines.job import RESTORED, WHY_PAUSED, JobState
from receiver.ledger.refund import State
from receiver.ledger.refund_request import RequestState
from receiver.store.redis.base import AccountRepository, Connection
from receiver.store.redis.damage import WrongType
from receiver.store.redis.keys import OTHER, Keys
from receiver.store.redis.wakeups import News
from receiver.store.requests.fps_orders import FpsOrders
from receiver.store.requests.jobs import JobStore
from receiver.store.requests.open_requests import OpenRequestStore

log = structlog.get_logger()

BATCH = 100
REVISION = re.compile(rb"[0-9]{1,15}")
STOPPED = b" stopped"
"""Suffix of the stored text in an account whose job is paused and whose requests are suspended."""
PAUSED = {"reason": RESTORED}
SUSPENDED = {
    "last_error": RESTORED,
    "detail": "The store was restored from a backup in which this request was open. If the buyer was paid in another "
    "way since, settle it. Otherwise repeat it: it is sent under the same key, so Amazon never refunds twice.",
}
SUSPENDED_FPS = {
    "last_error": RESTORED,
    "detail": "The store was restored from a backup in which this order was open.",
}
FIX_FPS = "look for the refund in the account's activity; if it is not there, order it under a new reference"
GAP = 1_000
"""How much revisions go up: more than a refund can gain between the backup and the restore. Subscribers have seen those
revisions, and would take later events for old ones."""


class Restored(AccountRepository):
    """Catches up one account after a restore."""

    def __init__(
        self, connection: Connection, keys: Keys, jobs: JobStore, requests: OpenRequestStore, fps: FpsOrders
    ) -> None:
        super().__init__(connection, keys)
        self._jobs, self._requests, self._fps = jobs, requests, fps

    async def catch_up(self, mark: bytes) -> None:
        """Pause the job, make open requests unclear, and make every refund that is not final and every open case due,
        once for the restore that `mark` identifies."""
        key, has_stopped = self.keys("restored"), mark + STOPPED
        found = await self._read("GET", key)
        if found == mark:
            return
        if found != has_stopped:
            # Once: a person may continue what waits, although the rest cannot be done yet.
            with contextlib.suppress(WrongType):
                await self._pause_job()
            await self._suspend_requests()
            await self._suspend_fps_orders()
            await self._write("SET", key, has_stopped, "GET")
        count = await self._make_due()
        await self._write("SET", key, mark, "GET")
        self._written(News.DUE)
        log.warning("store.restored", account=self.account, refunds_due=count)

    async def _pause_job(self) -> None:
        job_id = await self._jobs.current()
        if job_id and await self._jobs.move(job_id, JobState.PAUSED, of=[JobState.RUNNING], fields=PAUSED):
            log.error("job.paused", account=self.account, job=job_id, **PAUSED, fix=WHY_PAUSED[RESTORED])

    async def _suspend_requests(self) -> None:
        async for ids in self._members(self.keys(RequestState.RESERVED), BATCH):
            for each in ids:
                with contextlib.suppress(WrongType):
                    if await self._requests.suspend(each, SUSPENDED):
                        log.error("refund.unclear", account=self.account, request=each, fix=SUSPENDED["detail"])

    async def _suspend_fps_orders(self) -> None:
        async for ids in self._members(self.keys(self._fps.schedule), BATCH):
            for each in ids:
                with contextlib.suppress(WrongType):
                    if await self._fps.suspend(each, SUSPENDED_FPS):
                        log.error("fps.unclear", account=self.account, refund_id=each, **SUSPENDED_FPS, fix=FIX_FPS)

    async def _make_due(self) -> int:
        count = 0
        for index in (self.keys.state(State.INITIATED), self.keys.state(OTHER), self.keys("open")):
            async for ids in self._members(index, BATCH):
                for start in range(0, len(ids), BATCH):
                    count += await self._mark_due_now(ids[start : start + BATCH])
        return count

    async def _mark_due_now(self, ids: list[str]) -> int:
        revisions = await asyncio.gather(*(self._revision(self.keys("refund", each)) for each in ids))
        there = {each: revision for each, revision in zip(ids, revisions, strict=True) if revision is not None}
        pairs = [text for pair in there.items() for text in pair]
        await self._script(
            "mark_due_now", [self.now(), GAP, *pairs], more=[self.keys("refund", each) for each in there]
        )
        return len(there)

    async def _revision(self, key: str) -> bytes | None:
        """None if there is none. A damaged record must not prevent the others from being marked."""
        with contextlib.suppress(WrongType):
            found: bytes | None = await self._read("HGET", key, "revision")
            if found is None or REVISION.fullmatch(found):
                return found
            self.damage.record(key, "revision", "not a number")
        return None

"""Edge: Redis. After a restore from a backup, refunds that are not final and open cases may be outdated, so all of them
become due.

`receiver restore` (`backup.py`) writes a unique text to `refunds:restored`. Each account stores the text that it has
dealt with, so that several processes may do this at once, and again after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

import structlog

from receiver.ledger.refund import State
from receiver.store.redis.base import AccountRepository
from receiver.store.redis.damage import WrongType
from receiver.store.redis.keys import OTHER
from receiver.store.redis.wakeups import News

log = structlog.get_logger()

BATCH = 100
REVISION = re.compile(rb"[0-9]{1,15}")
GAP = 1_000
"""How much revisions go up: more than a refund can gain between the backup and the restore. Subscribers have seen those
revisions, and would take later events for old ones."""


class Restored(AccountRepository):
    """Catches up one account after a restore."""

    async def catch_up(self, mark: bytes) -> None:
        """Make every refund that is not final and every open case due, once for the restore that `mark` identifies."""
        key = self.keys("restored")
        if await self._read("GET", key) == mark:
            return
        count = await self._make_due()
        await self._write("SET", key, mark, "GET")
        self._written(News.DUE)
        log.warning("store.restored", account=self.account, refunds_due=count)

    async def _make_due(self) -> int:
        count = 0
        for index in (self.keys.state(State.INITIATED), self.keys.state(OTHER), self.keys("open")):
            async for pairs in self._scan(index, BATCH):
                ids = self._texts(index, [member for member, _ in pairs])
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

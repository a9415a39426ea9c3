"""Edge: Redis. The open cases of declined refunds: how old they are, and about how much money.

open            declined refunds whose case is open, by last change: an index, as for states
open:details    what each is about; written with the refund (commit.lua)
cases           set once the declines of older versions have their cases
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import structlog

from receiver.errors import StoreUnavailable
from receiver.ledger.lifecycle import Change
from receiver.ledger.money import CURRENCY, Money
from receiver.ledger.refund import State
from receiver.ledger.resolution import with_case
from receiver.store.deliveries.subscribers import SubscriberRepository
from receiver.store.redis.base import AccountRepository, Connection
from receiver.store.redis.damage import RecordUnreadable, WrongType
from receiver.store.redis.keys import Keys
from receiver.store.refunds.refunds import Commit, Committed, Refunds

log = structlog.get_logger()

BATCH = 50
MOST_COLLISIONS = 16


@dataclass(frozen=True, slots=True)
class OpenCase:
    """A declined refund whose case is open. `since` is in ms; `amount` is None if Amazon has not reported it."""

    refund_id: str
    since: int
    amount: Money | None
    reason: str


class OpenCases(AccountRepository):
    """Reads the open cases of one account, and gives a case to the declines of older versions."""

    def __init__(self, connection: Connection, keys: Keys, refunds: Refunds, subscribers: SubscriberRepository) -> None:
        super().__init__(connection, keys)
        self._refunds, self._subscribers = refunds, subscribers

    async def all(self) -> list[OpenCase]:
        """Every open case, the oldest first. Damaged entries are reported and left out."""
        key, found = self.keys("open:details"), []
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        for refund_id, line in raw.items():
            try:
                found.append(_read_case(refund_id.decode(), line.decode()))
            except ValueError:
                self.damage.record(key, refund_id, "no details of an open case")
        return sorted(found, key=lambda case: (case.since, case.refund_id))

    async def adopt(self) -> None:
        """Record a case for each refund that an older version recorded as declined, if it was declined recently.

        Safe to repeat, and to run in several processes at once. Raises `StoreUnavailable`.
        """
        key = self.keys("cases")
        if await self._read("GET", key):
            return
        since, count = self.now() - self.connection.tracked_for, 0
        ids = await self._read("ZRANGE", self.keys.state(State.DECLINED), since, "+inf", "BYSCORE")
        texts = self._texts(self.keys.state(State.DECLINED), ids)
        for start in range(0, len(texts), BATCH):
            adopted = await asyncio.gather(*(self._adopt(each) for each in texts[start : start + BATCH]))
            count += sum(adopted)
        await self._write("SET", key, "1")
        if count:
            log.warning("store.cases_opened", account=self.account, refunds=count)

    async def _adopt(self, refund_id: str) -> bool:
        for _ in range(MOST_COLLISIONS):
            known = None
            with contextlib.suppress(RecordUnreadable, WrongType):
                known = await self._refunds.get(refund_id)
            if known is None:
                return False
            change = with_case(Change(known, known), self.now(), self.connection.tracked_for)
            if change.is_nothing:
                return False
            version = (await self._subscribers.read()).version
            commit = Commit(known, change.refund, (), version, 0, None)
            if await self._refunds.commit(commit) is Committed.OK:
                return True
        raise StoreUnavailable("Others kept writing the same refund.", reason="store_collision")


def _read_case(refund_id: str, line: str) -> OpenCase:
    """Parse a line of `open_details` (codec.py). Raises `ValueError`."""
    since, minor, currency, reason = line.split(" ")
    amount = None
    if minor != "?":
        if not CURRENCY.fullmatch(currency):
            raise ValueError("The currency of an open case is three capital letters.")
        amount = Money.of_minor(int(minor), currency)
    return OpenCase(refund_id, int(since), amount, "" if reason == "-" else reason)

"""Edge: Redis. The open cases of declined refunds: how old they are, and about how much money.

open            declined refunds whose case is open, by last change: an index, as for states
open:details    what each is about; written with the refund (commit.lua)
cases           set once the declines of older versions have their cases
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
import structlog

from receiver.errors import StoreUnavailable
from receiver.ledger.lifecycle import Change
from receiver.ledger.money import CURRENCY, Money
from receiver.ledger.refund import Refund, State
from receiver.ledger.resolution import with_case, with_reissues
from receiver.store.deliveries.subscribers import SubscriberRepository
from receiver.store.redis.base import AccountRepository, Connection
from receiver.store.redis.keys import Keys
from receiver.store.refunds.codec import open_details
from receiver.store.refunds.refunds import MOST_COLLISIONS, Commit, Committed, Refunds

log = structlog.get_logger()

BATCH = 50
AT_ONCE = 1_000
"""Entries to parse without a pause: about 5 ms."""


class OpenCase(NamedTuple):
    """A declined refund whose case is open. `since` is in ms."""

    refund_id: str
    since: int
    minor_units: int | None
    currency: str
    reason: str

    @property
    def amount(self) -> Money | None:
        """The amount; None if Amazon has not reported it."""
        return None if self.minor_units is None else Money.of_minor(self.minor_units, self.currency)


class OpenCases(AccountRepository):
    """Reads the open cases of one account, and gives a case to the declines of older versions."""

    def __init__(self, connection: Connection, keys: Keys, refunds: Refunds, subscribers: SubscriberRepository) -> None:
        super().__init__(connection, keys)
        self._refunds, self._subscribers = refunds, subscribers

    async def all(self) -> list[OpenCase]:
        """Every open case, in no order. Damaged entries are reported and left out."""
        key, found = self.keys("open:details"), []
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        for count, (refund_id, line) in enumerate(raw.items()):
            if case := self._part(key, refund_id, "no details of an open case", _read_case, refund_id, line):
                found.append(case)
            if count % AT_ONCE == AT_ONCE - 1:
                # Notifications are answered in between.
                await asyncio.sleep(0)
        return found

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
            adopted = await asyncio.gather(
                *(self._rewrite(each, self._adopted) for each in texts[start : start + BATCH])
            )
            count += sum(adopted)
        await self._write("SET", key, "1")
        if count:
            log.warning("store.cases_opened", account=self.account, refunds=count)

    async def list_again(self) -> None:
        """Add the open cases that the two keys lack, after a damaged part of them was set aside. Each is a revision.

        Safe to repeat. Raises `StoreUnavailable`.
        """
        async for ids in self._members(self.keys.state(State.DECLINED), BATCH):
            await asyncio.gather(*(self._rewrite(each, self._listed) for each in ids))

    async def _listed(self, known: Refund) -> Refund:
        """The refund with a new revision, if its open case is not listed; otherwise the same object."""
        if not open_details(known):
            return known
        score, details = await asyncio.gather(
            self._read("ZSCORE", self.keys("open"), known.refund_id),
            self._read("HEXISTS", self.keys("open:details"), known.refund_id),
        )
        if score is not None and details:
            return known
        return msgspec.structs.replace(known, revision=known.revision + 1, changed_at=self.now())

    async def _adopted(self, known: Refund) -> Refund:
        """The refund with a case, if it has none yet and was declined recently; otherwise the same object."""
        now = self.now()
        change = with_case(Change(known, known), now, self.connection.tracked_for)
        return with_reissues(change, await self._refunds.reissues(known), now).refund

    async def _rewrite(self, refund_id: str, rewritten: Callable[[Refund], Awaitable[Refund]]) -> bool:
        """Commit a changed refund, without events. Returns whether it changed. A damaged one is left out."""
        for _ in range(MOST_COLLISIONS):
            known = await self._refunds.get_or_id(refund_id)
            if not isinstance(known, Refund) or (refund := await rewritten(known)) is known:
                return False
            version = (await self._subscribers.read()).version
            if await self._refunds.commit(Commit(known, refund, (), version, 0, None)) is Committed.OK:
                return True
        raise StoreUnavailable("Others kept writing the same refund.", reason="store_collision")


def _read_case(refund_id: bytes, line: bytes) -> OpenCase:
    """Parse a line of `open_details` (codec.py). Raises `ValueError`."""
    since, minor, currency, reason = line.decode().split(" ")
    if minor != "?" and not CURRENCY.fullmatch(currency):
        raise ValueError("The currency of an open case is three capital letters.")
    minor_units = None if minor == "?" else int(minor)
    return OpenCase(refund_id.decode(), int(since), minor_units, currency, "" if reason == "-" else reason)

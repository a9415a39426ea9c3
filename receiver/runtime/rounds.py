"""Edge: asyncio. The loop of every worker: claim what is due, work on it, wait for more.

Each worker has the same four steps: claim → act → decide → one write. The loop is here; `decide` is a pure function:
`ledger/next_look.py`, `amazon/attempt.py`, `amazon/fps/orders.py` and `outbox/retries.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar

import structlog

from receiver.errors import StoreUnavailable

log = structlog.get_logger()

Item = TypeVar("Item")

IDLE = 1.0
"""Seconds. Workers look at least this often, so a lost wake-up delays nothing for longer."""
MIN_INTERVAL = 0.01
"""Minimum seconds between the ends of two rests. A flood of writes causes a hundred rounds a second instead of
thousands, while a single write takes effect at once."""


class ChangeSignal:
    """The signal of one worker. If it is set during a round, the rest after that round ends at once."""

    def __init__(self, kind: str = "") -> None:
        self.kind = kind
        """The kind of change that sets it."""
        self._changed = asyncio.Event()
        self._rested_at = time.monotonic()

    def set(self) -> None:
        """There may be work."""
        self._changed.set()

    def clear(self) -> None:
        """A round begins: only later changes count."""
        self._changed.clear()

    async def rest(self, seconds: float) -> None:
        """Wait until it is set, for at most `seconds`, and at least `MIN_INTERVAL` since the previous rest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
                await asyncio.sleep(self._rested_at + MIN_INTERVAL - time.monotonic())
        self._rested_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class Claim(Generic[Item]):
    """What a claim took."""

    items: Sequence[Item] = ()
    wait: int | None = None
    """ms until there is more to claim; None: nothing is scheduled."""


@dataclass(slots=True)
class Rounds(Generic[Item]):
    """Works on at most `concurrency` claimed items of one account at once.

    `claim` takes at most as many items as it is given; `work` handles one. Both may raise `StoreUnavailable`: a claim
    is repeated in the next round, and an item becomes due again when its lease ends. Any other failure of an item is
    logged, and the others go on.
    """

    name: str
    """The first part of its log events."""
    account: str
    claim: Callable[[int], Awaitable[Claim[Item]]]
    work: Callable[[Item], Awaitable[None]]
    about: Callable[[Item], Mapping[str, object]]
    """Names an item in the log."""
    concurrency: int
    unblocks: Callable[[Item], bool] = lambda _: False
    """Whether more can be claimed when this item ends, although there was room before."""
    under_way: dict[asyncio.Task[None], Item] = field(default_factory=dict)
    """The tasks that take a place, with their items."""
    _released: set[asyncio.Task[None]] = field(default_factory=set)
    _signal: ChangeSignal = field(default_factory=ChangeSignal)

    async def run(self, waking: AbstractContextManager[ChangeSignal]) -> None:
        """Work until cancelled; then drop what is under way: its leases end, and other workers take it."""
        try:
            with waking as self._signal:
                while True:
                    self._signal.clear()
                    if wait := await self.once():
                        await self._signal.rest(min(wait, IDLE))
        finally:
            tasks = [*self.under_way, *self._released]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def once(self) -> float:
        """Claim what there is room for, and begin to work on it.

        Returns the seconds until there is more to claim; `inf` if that is not known.
        """
        room = self.concurrency - len(self.under_way)
        if room <= 0:
            return inf
        try:
            claimed = await self.claim(room)
        except StoreUnavailable as error:
            log.debug(f"{self.name}.store_unavailable", account=self.account, reason=error.reason)
            return inf
        for item in claimed.items:
            task = asyncio.get_running_loop().create_task(self.work_on(item))
            self.under_way[task] = item
            task.add_done_callback(self._ended)
        return inf if claimed.wait is None else claimed.wait / 1000

    async def work_on(self, item: Item) -> None:
        """Work on one claimed item. Its failure is logged and stops nothing else."""
        try:
            await self.work(item)
        except StoreUnavailable as error:
            log.warning(f"{self.name}.not_settled", reason=error.reason, **self.about(item))
        except Exception:
            log.exception(f"{self.name}.failed", **self.about(item))

    def release(self) -> None:
        """Free the place of the current item before its work has ended, so that the next item can be claimed."""
        if (task := asyncio.current_task()) in self.under_way:
            self._make_room(task)
            self._released.add(task)

    def wake(self) -> None:
        """End the rest: there may be more to claim."""
        self._signal.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._released.discard(task)
        if task in self.under_way:
            self._make_room(task)

    def _make_room(self, task: asyncio.Task[None]) -> None:
        is_full = len(self.under_way) >= self.concurrency
        if self.unblocks(self.under_way[task]) or is_full:
            self._signal.set()
        del self.under_way[task]

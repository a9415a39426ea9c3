"""Edge: asyncio. The loop of a worker: claim, work, wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

IDLE = 1.0
"""Seconds; workers look this often although nobody woke them: a lost wake-up costs no more."""


class Alarm(Protocol):
    """What wakes a worker: `store/redis/wakeups.py`."""

    def clear(self) -> None:
        """A round begins."""

    async def rest(self, seconds: float) -> None:
        """Until it rings, or `seconds` are over."""


async def in_rounds(
    alarm: Alarm, work: Callable[[], Awaitable[float]], running: Collection[asyncio.Task[None]]
) -> None:
    """Round after round until cancelled; then let go of what is under way: its leases run out and others take it.

    `work` returns after how many seconds there is more to do; a round that nothing asked for comes after `IDLE`.
    """
    try:
        while True:
            alarm.clear()
            wait = await work()
            if wait:
                await alarm.rest(min(wait, IDLE))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

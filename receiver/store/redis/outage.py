"""Edge: Redis. Logs that Redis is unavailable, at once and then every minute, and that it is back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from receiver.errors import StoreUnavailable
from receiver.store.redis.pipeline import COMMAND_ERRORS

log = structlog.get_logger()

EVERY = 60.0
"""Seconds between two warnings."""
LOOK_EVERY = 1.0
FIX = "Start Redis, or correct redis.url. Notifications get 503 meanwhile, and Amazon sends them again."


class Outage:
    """Watches for the end of an outage once a command has failed.

    `address` (without secrets) is Redis's; if it is empty, nothing is logged. `probe` raises `StoreUnavailable` while
    Redis accepts no writes.
    """

    def __init__(self, address: str, probe: Callable[[], Awaitable[None]]) -> None:
        self._address, self._probe, self._kind = address, probe, ""
        self._task: asyncio.Task[None] | None = None

    def failed(self, kind: str) -> None:
        """A command has failed with this error code."""
        if not self._address or kind in COMMAND_ERRORS:
            return
        self._kind = kind
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            said = clock()
            reason = f"store_{self._kind}"
            log.warning("store.away", address=self._address, reason=reason, seconds=round(said - began), fix=FIX)
            while clock() < said + EVERY:
                await asyncio.sleep(LOOK_EVERY)
                with contextlib.suppress(StoreUnavailable):
                    await self._probe()
                    log.warning("store.back", address=self._address, seconds=round(clock() - began))
                    return

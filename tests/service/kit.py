"""For workers by themselves: under way while a block lasts, and time that a test moves."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any

from receiver.runtime.rounds import Rounds
from receiver.store import Store
from tests.kit.clock import ManualClock

LEASE = 30_000
"""Of every worker here, in ms."""


@cache
def trust() -> ssl.SSLContext:
    """For transports that meet no TLS here: to read the system's store takes longer than most of these tests."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@asynccontextmanager
async def at_work(run: Callable[[], Awaitable[None]]) -> AsyncIterator[asyncio.Task[None]]:
    """A worker's `run`, under way until the block ends; what it raises fails the test."""

    async def work() -> None:
        await run()

    task = asyncio.create_task(work())
    try:
        yield task
    finally:
        task.cancel()
        async with asyncio.timeout(30):
            with suppress(asyncio.CancelledError):
                await task


async def one_round(*loops: Rounds[Any]) -> None:
    """Run one round of each of these workers, and wait for what they started."""
    for rounds in loops:
        await rounds.once()
    await asyncio.gather(*(task for rounds in loops for task in rounds.under_way))


def pass_time(store: Store, clock: ManualClock, ms: int) -> None:
    """Let time pass, and have the workers look at the clock."""
    clock.tick(ms)
    store.connection.change_notifier.notify("us")


def without_advice(body: bytes) -> dict[str, Any]:
    """An event's body without the fields that are computed again at each attempt."""
    event: dict[str, Any] = json.loads(body)
    for name in ("retryable", "retryableReasons", "asOf", "chargeReadAt", "advice"):
        event["data"].pop(name)
    return event

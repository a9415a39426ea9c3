"""Events that are claimed together are read together: once for all subscribers, and one that fails stops no other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.outbox.events.event import Event
from receiver.store import Store
from receiver.store.account import AccountStore
from receiver.track.current import current_events
from tests.kit.clock import ManualClock
from tests.service.depot import Depot, depot
from tests.service.stage import Hook
from tests.store.makers import refund_id


async def rounds(at: Depot) -> None:
    """Claim what is due, and wait for its deliveries."""
    await at.deliverer.rounds.once()
    await asyncio.gather(*at.deliverer.rounds.under_way)


async def hashes_read(redis: Any) -> int:
    """How many hashes the store has read as a whole."""
    return int((await redis.info("commandstats")).get("cmdstat_hgetall", {}).get("calls", 0))


async def test_an_event_of_many_subscribers_is_judged_once(store: Store, redis: Any, clock: ManualClock) -> None:
    """As many reads for four subscribers as for one: of the list of subscribers, the refund, and its charge."""
    async with depot(store, redis, clock) as at, AsyncExitStack() as stack:
        hooks = [await stack.enter_async_context(Hook(name=f"hook-{number}").listening()) for number in range(4)]
        reads = []
        for number, more in enumerate((hooks[:1], hooks[1:]), start=1):
            for hook in more:
                await at.subscribe(hook)
            await rounds(at)
            await at.owe(first=number)
            before = await hashes_read(redis)
            await rounds(at)
            reads.append(await hashes_read(redis) - before)
        assert [len(hook.posts) for hook in hooks] == [2, 1, 1, 1]
        assert reads[0] == reads[1]


async def test_a_read_that_fails_stops_no_other_event(
    store: Store, redis: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error in one event's advice: the others arrive, and that one stays owed."""

    async def failing(own: AccountStore, events: Sequence[Event]) -> list[Event]:
        if any(event.refund.refund_id == refund_id(2) for event in events):
            raise ZeroDivisionError
        return await current_events(own, events)

    monkeypatch.setattr("receiver.deliver.send.current_events", failing)
    async with depot(store, redis, clock) as at, Hook().listening() as hook:
        await at.subscribe(hook)
        await at.owe(3)
        with capture_logs() as logs:
            await rounds(at)
        assert {about for about, _ in hook.told} == {refund_id(1), refund_id(3)}
        assert not await at.empty()
        assert [each["event"] for each in logs if each["log_level"] == "error"] == [
            "deliver.not_read_together",
            "deliver.failed",
        ]

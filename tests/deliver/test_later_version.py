"""Events of a later version in the lanes of this one: they are left to that version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver.deliver.retention import Retention
from receiver.outbox.events.kinds import is_newer
from receiver.runtime.metrics import Metrics
from receiver.service import system_clock
from receiver.store import Store
from receiver.store.redis.stream_ids import fixed_width
from tests.kit.clock import ManualClock
from tests.service.depot import Depot, depot
from tests.service.stage import Hook

DAY = 86_400_000
LANE, OWED, DEAD = (f"refunds:{{us}}:{kind}:all" for kind in ("lane", "owed", "dead"))
LATER = [{"type": "amazonpay.dispute.opened"}, {"type": "receiver.weather.stormy"}, {"source": "telepathy"}]


@pytest.fixture
async def at(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Depot]:
    """A deliverer of "us" without jitter, on an empty store."""
    clock.ms = system_clock()
    async with depot(store, redis, clock) as found:
        yield found


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """A subscriber that accepts everything."""
    async with Hook().listening() as found:
        yield found


async def owe_later(at: Depot, **fields: str) -> str:
    """An event that a later version has written for the subscriber; its stream id."""
    (_, whole) = (await at.redis.xrange("refunds:{us}:events"))[0]
    told = {name.decode(): value.decode() for name, value in whole.items()}
    stream_id = await at.redis.xadd("refunds:{us}:events", {**told, **fields})
    await at.redis.zadd(LANE, {stream_id: at.clock()})
    await at.redis.zadd(OWED, {fixed_width(stream_id.decode()): 0})
    return str(stream_id.decode())


@pytest.mark.parametrize("fields", LATER)
async def test_an_event_of_a_later_version_waits_for_it(at: Depot, hook: Hook, fields: dict[str, str]) -> None:
    """It is not sent, not given up, and no failure of the subscriber; others are sent."""
    subscriber = await at.subscribe(hook)
    await at.owe(1)
    later = await owe_later(at, **fields)
    for _ in range(3):
        deliveries = (await at.store.of("us").deliveries.claim("all", lease=30_000, limit=10)).items
        await at.deliverer.deliver(deliveries, subscriber)
        at.clock.tick(60_000)
    assert len(hook.posts) == 1
    assert await at.redis.zrange(LANE, 0, -1) == [later.encode()]
    assert not await at.redis.exists(DEAD)
    health = await at.store.of("us").deliveries.health("all")
    assert (health.streak, health.error) == (0, "")
    at.clock.tick(100 * DAY)
    await Retention(at.store.of("us"), Metrics(), 30 * DAY, 60 * DAY).round()
    assert not await at.redis.exists(DEAD), "not even when it is old"
    assert await at.redis.xrange("refunds:{us}:events", later, later)


def test_what_is_no_event_of_any_version() -> None:
    for word in ("", "declined", "amazonpay.refund.declined", "AMAZONPAY.X", "amazonpay.", "receiver.delivery.dead"):
        assert not is_newer({"type": word, "source": "poll"}), word
    assert not is_newer({"type": "amazonpay.refund.declined", "source": "\xff"})

"""The store's numbers about its refunds, for metrics and the doctor."""

from __future__ import annotations

from typing import Any

from receiver.amazon.account import Account
from receiver.ledger.lifecycle import EventType
from receiver.ledger.refund import Source
from receiver.store import Store
from receiver.store.gauges import AGES
from receiver.track.record import Recorder
from tests.kit.clock import ManualClock
from tests.store.makers import refund_id, seen

HOUR = 3_600_000


async def unchanged(store: Store) -> dict[str, float]:
    """Pending refunds by how long they have not changed."""
    sizes = await store.of("us").gauges.measure()
    return {age: sizes[f"pending_unchanged:{age}"] for age in AGES}


async def test_to_tell_that_a_refund_is_stuck_makes_it_no_younger(
    store: Store, account: Account, clock: ManualClock
) -> None:
    """It is written then: judged by that time, a stuck refund would be reported a day late."""
    recorder = Recorder(store, lambda: 0.0)
    await recorder.record(account, seen(), source=Source.NOTIFICATION)
    clock.tick(25 * HOUR)
    told = await recorder.record(account, seen(), source=Source.POLL)
    assert [event.type for event in told.events] == [EventType.STUCK]
    assert (await store.of("us").gauges.measure())["oldest_pending_seconds"] == 25 * 3600
    await recorder.record(account, seen("Refunded"), source=Source.POLL)
    assert (await store.of("us").gauges.measure())["oldest_pending_seconds"] == 0


async def test_pending_refunds_by_age(store: Store, redis: Any, account: Account, clock: ManualClock) -> None:
    """Also one in an unknown word; a record that is damaged hinders nothing."""
    recorder = Recorder(store, lambda: 0.0)
    for number, state in enumerate(("RefundInitiated", "Held", "Declined"), 1):
        await recorder.record(account, seen(state, number), source=Source.POLL)
    assert await unchanged(store) == {"1h": 0, "1d": 0, "7d": 0}
    clock.tick(2 * HOUR)
    assert await unchanged(store) == {"1h": 2, "1d": 0, "7d": 0}
    clock.tick(200 * HOUR)
    await recorder.record(account, seen(number=4), source=Source.POLL)
    assert await unchanged(store) == {"1h": 2, "1d": 2, "7d": 2}
    await redis.hset(f"refunds:{{us}}:refund:{refund_id(1)}", mapping={"created": "x", "seen": ""})
    assert (await store.of("us").gauges.measure())["oldest_pending_seconds"] == 202 * 3600

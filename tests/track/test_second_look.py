"""Second looks at final refunds: what they find, and that they never delay another question. On a real Valkey."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.amazon.throttle import Call
from receiver.ledger.next_look import DueRefund
from receiver.ledger.refund import Source
from receiver.store import Store
from receiver.track.record import Recorder
from tests.kit.accounts import make_account
from tests.kit.clock import T0, ManualClock
from tests.service.desk import bench, http, refund
from tests.store.makers import claim, hint, refund_id, seen

DUE, SECOND = "refunds:{us}:due", "refunds:{us}:second_looks"
DAY, HOUR = 86_400_000, 3_600_000


async def settle(store: Store) -> None:
    """Record a final state, as after a notification whose charge was read."""
    recorder, read = Recorder(store, lambda: 0.0), {"charge_read": True}
    await recorder.record(make_account("us"), seen("Refunded"), source=Source.NOTIFICATION, details=read)


async def take(store: Store, limit: int = 99, **most: int) -> list[DueRefund]:
    """A claim with a burst of 20 and hardly any refill."""
    claimed = await store.of("us").schedule.claim(
        Call.GET_REFUND, lease=30_000, burst=20, per_second=0.0001, limit=limit, **most
    )
    return list(claimed.items)


async def test_it_is_taken_after_a_day_a_week_and_a_month(store: Store, redis: Any, clock: ManualClock) -> None:
    """It is one entry in one sorted set, which is removed at the end."""
    async with bench(store, redis, clock) as at:
        await settle(store)
        at.desk.then = refund("Refunded")
        for age in (1, 7, 30):
            assert await redis.zscore(SECOND, refund_id()) == T0 + age * DAY
            assert (await claim(store)).items == ()
            clock.tick(T0 + age * DAY - clock())
            assert (await at.look()).second
            assert await redis.zcard(DUE) == 0
        assert await redis.exists(SECOND, DUE, "refunds:{us}:hints") == 0
        assert at.counted("amazon_requests", call="get_refund", outcome="ok") == 3


async def test_a_changed_state_is_a_conflict_and_is_asked_about_again(
    store: Store, redis: Any, clock: ManualClock
) -> None:
    async with bench(store, redis, clock) as at:
        await settle(store)
        at.desk.then = refund("Declined", reason="ProcessingFailure", seconds=9)
        clock.tick(DAY)
        await at.look()
        found = await store.of("us").refunds.get(refund_id())
        assert found is not None
        assert (found.state, found.conflict, found.source) == ("Declined", True, Source.POLL)
        events = await redis.xrange("refunds:{us}:events")
        assert [entry[b"type"].decode().rpartition(".")[2] for _, entry in events][1:] == ["conflict", "declined"]
        assert await at.due() == 60_000
        assert await redis.zcard(SECOND) == 0


@pytest.mark.parametrize("answer", [http(500), http(403), http(429)])
async def test_no_answer_does_not_make_it_a_poll(store: Store, redis: Any, clock: ManualClock, answer: Any) -> None:
    async with bench(store, redis, clock) as at:
        await settle(store)
        at.desk.then = answer
        clock.tick(DAY)
        await at.look()
        assert await redis.zcard(DUE) == 0
        assert await redis.zscore(SECOND, refund_id()) in (clock() + HOUR, clock() + 5_000)
        assert await at.follow_up() is None


async def test_everything_else_comes_first(store: Store, redis: Any, clock: ManualClock) -> None:
    """Second looks leave half of the burst, also to those that become due later, and take a few places at most."""
    await redis.zadd(SECOND, {refund_id(number): T0 - DAY for number in range(100, 120)})
    await redis.zadd(DUE, {refund_id(2): T0 - 1})
    await store.of("us").schedule.hint(hint(3))
    first = await take(store, limit=2)
    assert [(each.refund_id, each.second) for each in first] == [(refund_id(3), False), (refund_id(2), False)]
    assert [each.second for each in await take(store, second=2)] == [True] * 2
    await redis.zadd(DUE, {refund_id(4): T0 - 1})
    assert await take(store, patient=0) == []
    assert [each.refund_id for each in await take(store, limit=1)] == [refund_id(4)]
    assert len(await take(store)) == 5
    assert await take(store) == []
    await redis.zadd(DUE, {refund_id(number): T0 - 1 for number in range(200, 220)})
    assert {each.second for each in await take(store)} == {False}


async def test_a_notification_replaces_it(store: Store, redis: Any, clock: ManualClock) -> None:
    """The refund is in one schedule only; at the end, the next second look is scheduled again."""
    async with bench(store, redis, clock) as at:
        await settle(store)
        await store.of("us").schedule.hint(hint())
        at.desk.then = refund("Refunded")
        await at.look()
        assert await redis.zcard(SECOND) == 0
        for _ in range(4):
            await at.wait()
            await at.look()
        assert await redis.zscore(SECOND, refund_id()) == T0 + DAY
        assert await redis.zcard(DUE) == 0

"""Three AmazonRejected declines within an hour raise one alarm, in one step with the third, whichever processes record
them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from receiver.amazon.account import Account
from receiver.ledger.declines.wave import ENOUGH, WITHIN
from receiver.ledger.refund import Source
from receiver.outbox.events.balance_event import BalanceEventType, read_balance_event
from receiver.store import Store
from receiver.track.record import Recorder
from tests.kit.clock import ManualClock
from tests.store.makers import refund_id, seen, subscriber

Decline = Callable[..., Any]


@pytest.fixture
def recorder(store: Store) -> Recorder:
    return Recorder(store, lambda: 0.0)


@pytest.fixture
def becomes(recorder: Recorder, account: Account, clock: ManualClock) -> Decline:
    async def becomes(number: int, state: str = "Declined", reason: str = "AmazonRejected", later: int = 0) -> Any:
        at = clock() + later
        told = seen(state, number, reason if state == "Declined" else "", at)
        told = msgspec.structs.replace(told, created_at=min(told.created_at, at))
        return await recorder.record(account, told, source=Source.POLL)

    return becomes


async def events(redis: Any, kind: str = "amazonpay.balance.") -> list[dict[str, str]]:
    entries = await redis.xrange("refunds:{us}:events")
    found = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]
    return [each for each in found if each["type"].startswith(kind)]


async def test_the_third_decline_raises_the_alarm(becomes: Decline, redis: Any, clock: ManualClock) -> None:
    """It says how many, how much and which. What follows in the wave names it."""
    began = clock()
    for number in range(1, ENOUGH):
        await becomes(number)
        clock.tick(60_000)
    assert await events(redis) == []
    for number in range(ENOUGH, 10):
        await becomes(number)
    (alarm,) = await events(redis)
    event = read_balance_event("us", alarm)
    assert event.type is BalanceEventType.SUSPECTED
    assert event.refund_ids == tuple(refund_id(number) for number in range(1, ENOUGH + 1))
    assert ([*map(str, event.sums)], event.since, event.alarm) == (["42.00 USD"], began, event.id)
    declines = await events(redis, "amazonpay.refund.declined")
    assert [each.get("suspectedEventId", "") for each in declines] == ["", ""] + [event.id] * 7
    every = [each["id"] for each in await events(redis, "")]
    assert every.index(event.id) < every.index(declines[ENOUGH - 1]["id"]), "the alarm comes first"


async def test_other_reasons_and_old_news_do_not_count(becomes: Decline, redis: Any) -> None:
    for number in range(1, 9):
        await becomes(number, reason="ProcessingFailure")
    for number in range(11, 19):
        await becomes(number, later=-30 * 86_400_000)
    for number in range(21, 23):
        await becomes(number)
    assert await events(redis) == []


async def test_three_declines_in_more_than_an_hour_raise_no_alarm(
    becomes: Decline, redis: Any, clock: ManualClock
) -> None:
    for number in range(1, 6):
        await becomes(number)
        clock.tick(WITHIN // 2 + 1)
    assert await events(redis) == []


async def test_the_next_alarm_comes_once_the_wave_has_ended(becomes: Decline, redis: Any, clock: ManualClock) -> None:
    """An hour without such a decline."""
    for number in range(1, 7):
        await becomes(number)
        clock.tick(WITHIN)
        for another in range(2):
            await becomes(100 * number + another)
    assert len(await events(redis)) == 1, "the wave goes on"
    clock.tick(WITHIN + 1)
    for number in range(7, 12):
        await becomes(number)
    first, second = await events(redis)
    assert first["id"] != second["id"]


async def test_a_repeated_answer_counts_once(becomes: Decline, redis: Any) -> None:
    for _ in range(5):
        await becomes(1)
        await becomes(2)
    assert await events(redis) == []


async def test_of_many_at_once_one_raises_the_alarm(becomes: Decline, redis: Any, store: Store) -> None:
    """In several processes too: the store decides."""
    await store.of("us").subscribers.put(
        subscriber("finance", types=("amazonpay.refund.declined", "amazonpay.balance.suspected"))
    )
    await asyncio.gather(*(becomes(number) for number in range(1, 13)))
    (alarm,) = await events(redis)
    declines = await events(redis, "amazonpay.refund.declined")
    assert len(declines) == 12
    assert sum(each.get("suspectedEventId") == alarm["id"] for each in declines) == 10
    owed = await redis.zcard("refunds:{us}:owed:finance")
    assert owed == 13, "the subscriber that names it gets the alarm"


async def test_the_same_refunds_make_the_same_alarm(becomes: Decline, redis: Any, clock: ManualClock) -> None:
    """After the store was emptied, in another order."""
    for number in (1, 2, 3):
        await becomes(number)
    (first,) = await events(redis)
    await redis.flushall()
    for number in (3, 1, 2):
        await becomes(number)
    (second,) = await events(redis)
    assert first["id"] == second["id"]


async def test_the_alarm_is_over_with_the_last_case_of_its_wave(
    becomes: Decline, redis: Any, clock: ManualClock, recorder: Recorder, account: Account
) -> None:
    """Also of those that were declined before it."""
    for number in range(1, 6):
        await becomes(number)
    alarm = (await events(redis))[0]["id"]
    for number in (5, 1, 3, 2):
        await becomes(number, "Refunded", later=1_000)
        assert len(await events(redis)) == 1
    await becomes(4, "Refunded", later=1_000)
    over = (await events(redis))[-1]
    assert (over["type"], over["suspectedEventId"]) == ("amazonpay.balance.resolved", alarm)
    resolved = await events(redis, "amazonpay.refund.resolved")
    assert {each["suspectedEventId"] for each in resolved} == {alarm}
    assert await redis.hgetall("refunds:{us}:wave:cases") == {}


async def test_of_the_last_cases_closed_at_once_one_ends_the_alarm(becomes: Decline, redis: Any) -> None:
    for number in range(1, 9):
        await becomes(number)
    await asyncio.gather(*(becomes(number, "Refunded", later=1_000) for number in range(1, 9)))
    assert [each["type"] for each in await events(redis)] == [*BalanceEventType]


async def test_a_declined_reissue_keeps_the_alarm(
    becomes: Decline, redis: Any, recorder: Recorder, account: Account, clock: ManualClock
) -> None:
    """Its case is that of the first refund of its chain."""
    for number in (1, 2, 3):
        await becomes(number)
    told = msgspec.structs.replace(seen("Declined", 30, "AmazonRejected", clock()))
    chain = {"retry_of": refund_id(3), "retry_root": refund_id(3)}
    await recorder.record(account, told, source=Source.POLL, details=chain)
    for number in (1, 2):
        await becomes(number, "Refunded", later=1_000)
    assert len(await events(redis)) == 1
    paid = seen("Refunded", 31, updated_at=clock())
    await recorder.record(account, paid, source=Source.POLL, details=chain)
    assert len(await events(redis)) == 2

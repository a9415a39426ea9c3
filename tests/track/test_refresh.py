"""Refreshes never delay notified refunds: shares of the throttle and of the places, on a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from receiver.amazon.throttle import SANDBOX_THROTTLE, Call
from receiver.ledger.refund import Source
from receiver.simulator.outcomes import Outcome
from receiver.store import Store
from tests.kit.clock import T0, ManualClock
from tests.kit.processes import until
from tests.service.desk import Bench, Held, bench, http, refund
from tests.service.stage import TOKEN, Amazon, Hook, account, running
from tests.store.makers import claim, hint, refund_id

DUE, REFRESHED, HINTS = (f"refunds:{{us}}:{name}" for name in ("due", "refreshed", "hints"))
DECLINED = 9


@pytest.fixture
async def at(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Bench]:
    """A tracker of "us" with eight places, whose Amazon does what the test says."""
    async with bench(store, redis, clock, concurrency=8) as found:
        yield found


def refreshed(number: int, at: int = T0) -> Any:
    return hint(number, at, message="", digest="", source=Source.REFRESH)


async def flood(store: Store, count: int = 1_500) -> None:
    await asyncio.gather(*(store.of("us").schedule.hint(refreshed(1_000 + number)) for number in range(count)))


async def next_one(store: Store) -> str:
    bucket = SANDBOX_THROTTLE[Call.GET_REFUND]
    (look,) = (
        await store.of("us").schedule.claim(
            Call.GET_REFUND, lease=10**9, burst=1, per_second=bucket.per_second, limit=1
        )
    ).items
    return look.refund_id


async def test_a_flood_of_refreshes_does_not_delay_a_notification(store: Store, clock: ManualClock) -> None:
    """1,500 refreshes wait. The refund that a notification names has the next token, or the one after it."""
    await flood(store)
    for turn in range(8):
        clock.tick(1_000)
        assert await next_one(store) >= refund_id(1_000)
        await store.of("us").schedule.hint(hint(turn, clock(), message=f"m{turn}"))
        taken = []
        while refund_id(turn) not in taken:
            clock.tick(1_000)
            taken.append(await next_one(store))
        assert len(taken) <= 2


async def test_polls_and_refreshes_share_what_notifications_leave(store: Store, redis: Any, clock: ManualClock) -> None:
    """Three tokens of four for notifications; of the rest, each has every other."""
    await flood(store, 20)
    await redis.zadd(DUE, {refund_id(500 + number): T0 - 1 + number // 20 for number in range(20)})
    for number in range(60):
        await store.of("us").schedule.hint(hint(number, T0, message=f"m{number}"))
    taken = []
    for _ in range(64):
        clock.tick(1_000)
        taken.append(await next_one(store))
    patient = [each for each in taken if each >= refund_id(500)]
    assert len(patient) == 16
    assert [each >= refund_id(1_000) for each in patient] == [False, True] * 8
    taken = []
    for _ in range(24):
        clock.tick(1_000)
        taken.append(await next_one(store))
    assert sum(each >= refund_id(1_000) for each in taken) >= 6


async def test_hanging_refreshes_leave_places_free(at: Bench) -> None:
    """Amazon never answers about the invented ids: a quarter of the places stays free for notifications."""
    go = asyncio.Event()
    await flood(at.store, 50)
    at.desk.answers = [Held(http(404), go) for _ in range(6)]
    at.desk.then = refund("Declined", DECLINED, "AmazonRejected")
    work = asyncio.create_task(at.tracker.run())
    try:
        await until(lambda: len(at.desk.asked) == 6, "six of eight places are taken")
        await at.store.of("us").schedule.hint(hint(DECLINED))
        await until(lambda: refund_id(DECLINED) in at.desk.asked, "the notification has a place")
        assert len(at.desk.asked) == 7
        go.set()
        await until(lambda: len(at.desk.asked) > 10, "the places of what has ended are taken again")
    finally:
        go.set()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_what_is_invented_is_asked_about_once(at: Bench, redis: Any) -> None:
    """A notification can be ahead of Get Refund, and is asked about again; who asked for a refresh can ask again."""
    await at.store.of("us").schedule.hint(refreshed(1))
    at.desk.then = http(404)
    await at.look()
    assert await redis.keys("*") == [b"refunds:{us}:throttle:get_refund"]
    assert (await at.due(), await at.follow_up()) == (None, None)


@pytest.mark.parametrize("answer", [http(500), http(403), http(429, b"", "Retry-After: 5")])
async def test_what_is_invented_waits_among_the_refreshes_also_after_trouble(
    at: Bench, redis: Any, answer: bytes
) -> None:
    """Not in the schedule, where it would hold up polls."""
    await at.store.of("us").schedule.hint(refreshed(1))
    at.desk.then = answer
    await at.look()
    assert await redis.zcard(DUE) == 0
    assert (await claim(at.store)).items == ()
    at.clock.ms = int(await redis.zscore(REFRESHED, refund_id(1)))
    assert at.clock() > T0
    at.desk.then = refund("Declined", 1, "AmazonRejected")
    await at.look()
    assert await redis.zcard(REFRESHED) == 0
    assert [await redis.hget("refunds:{us}:refund:" + refund_id(1), name) for name in ("state", "by")] == [
        b"Declined",
        b"refresh",
    ]


async def test_a_refresh_during_a_look_is_not_lost(at: Bench, redis: Any) -> None:
    """It came after the question: it is asked again, and it is still known who asked."""
    await at.store.of("us").schedule.hint(refreshed(1))
    (look,) = (await claim(at.store)).items
    await at.store.of("us").schedule.hint(refreshed(1, at.clock()))
    at.desk.then = refund("RefundInitiated")
    await at.tracker.look(look)
    (again,) = (await claim(at.store)).items
    assert (again.refund_id, again.source, again.patient) == (refund_id(1), Source.REFRESH, True)
    await at.store.of("us").schedule.hint(refreshed(1, at.clock()))
    await at.tracker.look(again)
    (third,) = (await claim(at.store)).items
    assert third.source is Source.REFRESH


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_refresh_does_not_end_what_a_notification_began(at: Bench, claimed: bool) -> None:
    """Amazon is behind with the refund that a notification names. A person refreshes it, before the look or during it:
    it is asked about again all the same, until Amazon tells of the decline."""
    await at.store.of("us").schedule.hint(hint(1))
    at.desk.answers = [http(404), http(404)]
    at.desk.then = refund("Declined", 1, "AmazonRejected")
    if claimed:
        (look,) = (await claim(at.store)).items
        await at.store.of("us").schedule.hint(refreshed(1))
        await at.tracker.look(look)
    else:
        await at.store.of("us").schedule.hint(refreshed(1))
        await at.look()
        await at.wait()
    assert (await at.look()).source is Source.NOTIFICATION
    await at.wait()
    await at.look()
    known = await at.store.of("us").refunds.get(refund_id(1))
    assert known is not None
    assert known.state == "Declined"


async def test_a_refund_of_both_is_asked_about_once(store: Store, redis: Any) -> None:
    """A notification overtakes the refresh of the same refund."""
    await store.of("us").schedule.hint(refreshed(1))
    await store.of("us").schedule.hint(hint(1))
    (look,) = (await claim(store)).items
    assert not look.patient
    assert [await redis.zcard(REFRESHED), await redis.zcard("refunds:{us}:hinted")] == [0, 0]


@pytest.mark.parametrize("limit", [0, 120])
async def test_a_genuine_decline_is_pushed_within_seconds_of_1500_refreshes(
    redis: Any, valkey_url: str, tmp_path: Path, limit: int
) -> None:
    """With Amazon's own limits of a live account, with and without ours: a decline is pushed within 5 s."""
    async with Amazon() as shop, Hook("audit").listening() as audit:
        throttle = {"get_refund": [20, 4], "get_charge": [20, 4]}
        accounts = [account(shop, tmp_path, poll=["every 1d"], throttle=throttle)]
        async with running(valkey_url, accounts, [audit], http={"port": 0, "refreshes": limit}) as stage:
            shop.post_to = f"{stage.url}/ipn"
            await until(stage.ready, "the service is ready")
            headers = {"Authorization": f"Bearer {TOKEN}"}
            paths = [f"/v1/refunds/S01-0000000-0000000-R{number:06d}/refresh" for number in range(1_500)]
            statuses = await asyncio.gather(*(stage.post(path, b"", headers) for path in paths))
            assert statuses.count(202) >= (limit or 1_500)
            assert set(statuses) <= {202, 429}
            began = time.monotonic()
            refund_id = shop.start_refund("14.00", "USD", Outcome.DECLINED_AT_ONCE)
            await until(lambda: audit.told == [(refund_id, "declined")], "the decline is pushed")
            assert time.monotonic() - began < 5

"""How fast, and in which order, Amazon is asked: the sandbox's throttle under a backlog, on a real Valkey.

Two processes' stores take turns on one Valkey. The time is the test's own, so that every token has its exact moment.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import pytest

from receiver.amazon.account import Account
from receiver.amazon.throttle import SANDBOX_THROTTLE, Bucket, Call
from receiver.ledger.next_look import DueRefund, NextLook
from receiver.ledger.refund import Source
from receiver.runtime.rounds import Claim
from receiver.store import Store
from receiver.store.redis.pipeline import connect
from receiver.track.record import Recorder
from tests.kit.clock import T0, ManualClock
from tests.service.desk import bench, http
from tests.store.makers import hint, refund_id, seen

DAY = 86_400_000
WEEK = 7 * DAY
DUE, HINTED, HINTS, BACKLOG = "refunds:{us}:due", 50, range(50), range(1000, 6000)
"""Numbers of the refunds that are hinted, and of those that are overdue."""


def test_the_sandbox_allows_this() -> None:
    """What Amazon documents: Create Refund has a smaller burst."""
    assert {
        Call.GET_REFUND: Bucket(5, 1),
        Call.GET_CHARGE: Bucket(5, 1),
        Call.GET_DISPUTE: Bucket(5, 1),
        Call.CREATE_REFUND: Bucket(2, 1),
        Call.REPORTS: Bucket(1, 1),
    } == SANDBOX_THROTTLE


async def take(store: Store, limit: int = 8) -> Claim[DueRefund]:
    """A claim as the tracker makes it in the sandbox."""
    bucket = SANDBOX_THROTTLE[Call.GET_REFUND]
    return await store.of("us").schedule.claim(
        Call.GET_REFUND, lease=30_000, burst=bucket.burst, per_second=bucket.per_second, limit=limit
    )


async def overdue(redis: Any, numbers: Sequence[int]) -> None:
    """Refunds that should have been asked about long ago, the first of them longest."""
    await redis.zadd(DUE, {refund_id(number): T0 - 10_000 + each for each, number in enumerate(numbers)})


async def hinted(store: Store, numbers: Sequence[int], at: int = T0) -> None:
    """Notifications about these refunds, one millisecond after another."""
    await asyncio.gather(
        *(
            store.of("us").schedule.hint(hint(number, at + each, message=f"m{number}"))
            for each, number in enumerate(numbers)
        )
    )


@dataclass
class Crew:
    """Two processes that take turns to claim. Up to twenty questions are under way.

    What was hinted comes back as refunded; a poll brings nothing new, and the refund waits for another week.
    """

    stores: Sequence[Store]
    clock: ManualClock
    account: Account
    taken: list[tuple[int, str]] = field(default_factory=list)
    """When (ms after `T0`) which refund was claimed."""
    under_way: list[tuple[Store, DueRefund]] = field(default_factory=list)

    async def turn(self, store: Store, limit: int = 8) -> int | None:
        """One claim. Returns when (ms from now) there is more to take."""
        claimed = await take(store, limit)
        self.taken += [(self.clock() - T0, look.refund_id) for look in claimed.items]
        self.under_way += [(store, look) for look in claimed.items]
        if len(self.under_way) >= 20:
            await self.settle()
        return claimed.wait

    async def settle(self) -> None:
        """Write what Amazon said about everything that is under way."""
        looks, self.under_way = self.under_way, []
        await asyncio.gather(*(self._answered(store, look) for store, look in looks))

    async def _answered(self, store: Store, look: DueRefund) -> None:
        if look.source is Source.POLL:
            assert await store.of(look.account).schedule.reschedule(look, NextLook(T0 + WEEK, None, revision=0))
            return
        answer = seen("Refunded", int(look.refund_id[-6:]))
        settled = await Recorder(store, lambda: 0.0).record(
            self.account, answer, source=look.source, token=look.token, details={"charge_read": True}
        )
        assert settled.change.refund.revision == 1

    @property
    def order(self) -> list[str]:
        """The refunds in the order in which they were claimed."""
        return [refund_id for _, refund_id in self.taken]

    @property
    def times(self) -> list[int]:
        """When each of them was, in ms after `T0`."""
        return [time for time, _ in self.taken]


@pytest.fixture
async def crew(store: Store, valkey_url: str, clock: ManualClock, account: Account) -> AsyncIterator[Crew]:
    """On an empty Valkey."""
    other = Store(connect(valkey_url), clock=clock)
    yield Crew((store, other), clock, account)
    await other.close()


def most_at_once(times: Sequence[int]) -> float:
    """The burst that these times (ms) need at one token a second: the maximum, over all windows, of tokens taken minus
    seconds."""
    most, lowest = 0.0, 0.0
    for number, time in enumerate(times):
        ahead = number - time / 1000
        lowest = ahead if number == 0 else min(lowest, ahead)
        most = max(most, ahead - lowest + 1)
    return most


async def test_a_backlog_is_worked_off_in_this_order_at_this_pace(crew: Crew, redis: Any) -> None:
    """5,000 overdue refunds and 50 hints. Five at once, then one a second to the end; hints first, but every fourth
    token is the backlog's; each line oldest first; nothing twice, and nothing left out. After the last hint one token
    is saved up, for the next ones. A claim before that time finds nothing."""
    await overdue(redis, BACKLOG)
    await hinted(crew.stores[0], HINTS)
    first, second = crew.stores
    while (wait := await crew.turn(first)) in (1000, 2000):
        if wait == 2000:
            crew.clock.tick(2000)
        elif len(crew.taken) % 10 == 0:
            crew.clock.tick(500)
            assert await take(second) == Claim((), 500)
            crew.clock.tick(500)
        else:
            crew.clock.tick(1000)
        first, second = second, first
    await crew.settle()

    hints, backlog = iter(HINTS), iter(BACKLOG)
    last_hint = HINTED + HINTED // 3 - 1
    assert crew.order == [
        refund_id(next(backlog) if token % 4 == 3 or token > last_hint else next(hints)) for token in range(5050)
    ]
    assert crew.order.index(refund_id(HINTS[-1])) == last_hint == 65
    assert crew.times == [0] * 5 + [second * 1000 for second in range(1, 5047) if second != 62]
    assert await redis.zcard("refunds:{us}:state:Refunded") == HINTED
    assert await redis.zcount(DUE, T0 + WEEK, T0 + WEEK) == await redis.zcard(DUE) == len(BACKLOG)
    assert await redis.exists("refunds:{us}:hinted", "refunds:{us}:hints") == 0
    assert await take(second) == Claim((), DAY - 5046_000)


async def test_no_window_of_time_has_more_than_the_bucket(crew: Crew, redis: Any) -> None:
    """Workers that come at odd moments, sometimes not for a long while: never more than four and one a second over any
    window, for the fifth is kept for hints; and no other token that Amazon would have granted is lost."""
    await overdue(redis, BACKLOG[:600])
    random_source = random.Random(7)
    tokens = 4.0
    granted = 0
    for store in islice(cycle(crew.stores), 400):
        await crew.turn(store)
        granted += int(tokens)
        tokens -= int(tokens)
        # A sum of thousandths can fall short of a whole token by nothing: it is there a millisecond later.
        assert granted - 1 <= len(crew.taken) <= granted
        passed = random_source.choice([1, 17, 250, 999, 1000, 1001, 3_700, 9_000])
        crew.clock.tick(passed)
        tokens = round(min(4.0, tokens + passed / 1000), 3)
    assert 3.9 < most_at_once(crew.times) <= 4
    assert len(set(crew.order)) == len(crew.order) > 300


async def test_clocks_that_differ_hand_out_no_token_twice(
    store: Store, redis: Any, valkey_url: str, clock: ManualClock
) -> None:
    """One process three quarters of a second ahead of the other: the two together have one bucket, and the slower one
    takes no time away from it."""
    ahead = ManualClock(T0 + 750)
    other = Store(connect(valkey_url), clock=ahead)
    await overdue(redis, BACKLOG[:200])
    taken = []
    for each in islice(cycle((other, store)), 240):
        taken += [(ahead() - T0, look.refund_id) for look in (await take(each)).items]
        clock.tick(250)
        ahead.tick(250)
    await other.close()
    assert most_at_once([time for time, _ in taken]) <= 5
    assert len({refund_id for _, refund_id in taken}) == len(taken)
    assert len(taken) >= 4 + 240 // 4 - 1


async def test_a_steady_flow_of_hints_does_not_starve_the_schedule(crew: Crew, redis: Any) -> None:
    """There are always twice as many hints as tokens: every fourth token still goes to the schedule, so that its wait
    is bounded; also if each claim is for a single refund and the next one comes from another process."""
    await overdue(redis, BACKLOG[:40])
    for number, store in enumerate(islice(cycle(crew.stores), 172)):
        await hinted(store, (2 * number, 2 * number + 1), crew.clock())
        await crew.turn(store, limit=1)
        crew.clock.tick(1000)
    polled = [token for token, name in enumerate(crew.order) if int(name[-6:]) >= BACKLOG[0]]
    assert polled == list(range(3, 160, 4))
    assert crew.order[3:160:4] == [refund_id(number) for number in BACKLOG[:40]]
    answered = [name for token, name in enumerate(crew.order) if token not in polled]
    assert answered == [refund_id(number) for number in range(172 - 40)]


async def test_a_429_stops_everybody_for_as_long_as_amazon_wants(
    store: Store, redis: Any, valkey_url: str, clock: ManualClock
) -> None:
    """Also another process, which has asked nothing; then both go on with one bucket, and the refund that was refused
    is asked about again: it is still overdue."""
    other = Store(connect(valkey_url), clock=clock)
    await overdue(redis, BACKLOG[:100])
    await hinted(store, HINTS[:3])
    async with bench(store, redis, clock) as at:
        at.desk.answers = [http(429, b"", "Retry-After: 37")]
        (look,) = (await take(store, limit=1)).items
        await at.tracker.look(look)
        assert at.desk.asked == [refund_id(0)]
    for passed, left in ((0, 37_000), (20_000, 17_000), (16_999, 1)):
        clock.tick(passed)
        for each in (store, other):
            assert await take(each) == Claim((), left)
    clock.tick(1)
    # The bucket has filled up meanwhile; one token is left for hints. That which was refused counts as one of theirs.
    looks = (await take(other)).items
    assert [each.refund_id for each in looks] == [refund_id(number) for number in (1, 2, 1000, 1001)]
    assert (await take(store)).items == ()
    found = []
    while refund_id(0) not in found:
        clock.tick(1000)
        found += [each.refund_id for each in (await take(store, limit=1)).items]
    assert found == [refund_id(number) for number in (*range(1002, 1100), 0)]
    await other.close()


@pytest.mark.parametrize("drained", Call)
async def test_every_call_has_a_bucket_of_its_own(store: Store, redis: Any, drained: Call) -> None:
    """One that is empty, or that Amazon has refused, leaves the other calls theirs, and other accounts all of them."""

    async def tokens(account: str, call: Call) -> int:
        bucket = SANDBOX_THROTTLE[call]
        count = 0
        while not await store.of(account).requests.take_token(call, bucket.burst, bucket.per_second):
            count += 1
        return count

    full = {call: int(bucket.burst) for call, bucket in SANDBOX_THROTTLE.items()}
    await overdue(redis, BACKLOG[:20])
    assert await tokens("us", drained) == full[drained]
    await store.of("us").schedule.block(drained, T0 + 60_000)
    if drained is Call.GET_REFUND:
        assert await take(store) == Claim((), 60_000)
    else:
        assert len((await take(store)).items) == 4
        full[Call.GET_REFUND] = 1
    assert {call: await tokens("us", call) for call in Call} == {**full, drained: 0}
    assert {call: await tokens("eu", call) for call in Call} == {
        call: int(bucket.burst) for call, bucket in SANDBOX_THROTTLE.items()
    }

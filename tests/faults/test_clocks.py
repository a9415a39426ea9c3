"""Clocks that step by an hour, forwards and back: Redis's, by which all processes go, and that of a process.

Nothing is lost or done twice. What was scheduled by a clock that was ahead comes late by that much at most; later
notifications are not late at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from receiver.ledger.next_look import NextLook
from receiver.service import system_clock
from receiver.store import Store
from tests.faults.stage import PATHS, House, Run, fresh, house
from tests.faults.test_states import Server, World, server
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.service.stage import Amazon, Hook, account, running
from tests.store.makers import claim, hint

HOUR = 3_600_000
STEP = 10 * HOUR
AT_ONCE = STEP // 2
"""ms within which new work is done. The test's clock runs 1000 times as fast, so a slow machine needs hours of it."""

__all__ = ["server"]


@pytest.fixture
async def place(valkey_url: str) -> AsyncIterator[House]:
    """Amazon, a subscriber and a Redis."""
    with tempfile.TemporaryDirectory(prefix="rf-") as folder:
        async with house(valkey_url, Path(folder)) as found:
            yield found


async def walked(run: Run, path: str) -> int:
    """Run a path and recover, without removing what the subscriber got before. Returns how many ms that took."""
    began, posts, refunds = run.clock(), list(run.house.hook.posts), list(run.refunds)
    await run.path(path)
    run.refunds[:0] = [each for each in refunds if each not in run.refunds]
    run.house.hook.posts[:0] = [each for each in posts if each not in run.house.hook.posts]
    await run.recover()
    return run.clock() - began


@pytest.mark.parametrize("path", PATHS)
async def test_the_stores_clock_steps(place: House, path: str) -> None:
    """Forwards by ten hours, and back again."""
    async with fresh(place, {}) as run:
        await walked(run, path)
        run.clock.tick(STEP)
        assert await walked(run, path) < AT_ONCE
        run.clock.tick(-STEP)
        assert await walked(run, path) < AT_ONCE
        await run.check()


async def test_the_stores_clock_steps_while_work_is_claimed(place: House) -> None:
    """Forwards: every lease is over at once, and a second worker takes over; the late one changes nothing. Back: a
    lease lasts longer by that much, unless the refund is notified again."""
    for step in (HOUR, -HOUR):
        async with fresh(place, {}) as run:
            refund_id = run._refund("DeclinedAtOnce", "declined")
            await run.direct.of("us").schedule.hint(hint(message=refund_id))
            (lost,) = (await claim(run.direct)).items
            run.clock.tick(step)
            if step < 0:
                assert (await claim(run.direct)).items == ()
                await run.direct.of("us").schedule.hint(hint(message="again"))
            (taken,) = (await claim(run.direct)).items
            assert (taken.refund_id, taken.token != lost.token) == (lost.refund_id, True)
            assert not await run.direct.of(lost.account).schedule.reschedule(lost, NextLook(None))
            run.told, run.refunds = [], []


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_no_throttle_waits_for_a_clock_that_was_ahead(store: Store, clock: ManualClock, step: int) -> None:
    """Tokens come at the account's rate again within seconds, and a pause that Amazon asked for ends when it said."""
    for number in range(20):
        await store.of("us").schedule.hint(hint(number, message=f"m{number}"))
    assert len((await claim(store, burst=5, per_second=1)).items) == 5
    await store.of("us").schedule.block("get_refund", clock() + 7_000)
    await store.of("us").schedule.block("create_refund", clock() + 7_000)
    clock.tick(step)
    if step > 0:
        await claim(store, burst=5, per_second=1)
        await store.of("us").schedule.block("get_refund", clock() + 7_000)
        await store.of("us").schedule.block("create_refund", clock() + 7_000)
        clock.tick(-step)
    assert (await claim(store, burst=5, per_second=1)).items == ()
    assert 6_000 <= await store.of("us").requests.take_token("create_refund", 5, 1) <= 7_000
    clock.tick(6_000)
    assert (await claim(store, burst=5, per_second=1)).items == ()
    clock.tick(1_001)
    assert len((await claim(store, burst=5, per_second=1)).items) == 5
    assert await store.of("us").requests.take_token("create_refund", 5, 1) == 0
    clock.tick(2_000)
    assert len((await claim(store, burst=5, per_second=1)).items) == 2


async def test_a_pause_is_not_prolonged_by_one_that_a_clock_ahead_wrote(store: Store, clock: ManualClock) -> None:
    """Amazon answers 429 again, right after the step."""
    clock.tick(HOUR)
    await store.of("us").schedule.block("get_refund", clock() + 2_000)
    clock.tick(-HOUR)
    await store.of("us").schedule.block("get_refund", clock() + 7_000)
    await store.of("us").schedule.hint(hint())
    clock.tick(7_000)
    assert len((await claim(store)).items) == 1


async def test_a_process_whose_clock_steps(server: Server, tmp_path: Path) -> None:
    """An hour ahead, notifications are taken, and Amazon refuses the first date: the request is repeated at once, dated
    by Amazon's clock. An hour behind, a new notification is dated in the future: 503, and it comes again. `/readyz`
    names the clock all along, and stays ready: which of the two clocks is right cannot be known here."""
    ahead = 0
    async with Amazon() as amazon, Hook().listening() as hook:
        tables = [account(amazon, tmp_path)]
        async with running(server.url, tables, [hook], now=lambda: system_clock() + ahead) as stage:
            at = World(stage, amazon, hook, server)
            await at.is_well()
            assert await word(at) == (200, "ok")
            ahead = HOUR
            assert await word(at) == (200, "clock_differs")
            refund_id = at.decline()
            assert await at.post(refund_id) == (200, "")
            declined = refund_id.encode()
            await until(lambda: any(declined in each.body for each in hook.posts), "it is asked with Amazon's date")
            # Their own timestamps are of the wrong clock, and a library refuses them.
            hook.posts.clear()
            assert [each.status for each in amazon.asked if each.object_id == refund_id][:2] == [401, 200]
            ahead = -HOUR
            assert await word(at) == (200, "clock_differs")
            other = at.decline()
            assert await at.post(other) == (503, "60")
            ahead = 0
            assert await word(at) == (200, "ok")
            await at.is_well(other)


async def word(at: World) -> tuple[int, str]:
    """The status of `/readyz`, and its result for the clock."""
    status, found = await at.stage.get("/readyz")
    return status, found["checks"]["clock"]

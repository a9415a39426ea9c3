"""The workers of issuing: woken, bounded, and none of them held up by another's request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from math import inf

import pytest
from structlog.testing import capture_logs

from receiver.ledger.refund_request import RequestState
from receiver.runtime import rounds
from receiver.store import Store
from tests.issue.kit import Desk, desk
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.service.kit import at_work, pass_time

FOR_EVER = 3600.0


@pytest.fixture
async def shop(store: Store, clock: ManualClock) -> AsyncIterator[Desk]:
    async with desk(store, clock) as made:
        yield made


async def unanswered(shop: Desk, number: int) -> str:
    """A request that Amazon has not answered; its charge."""
    charge = shop.charge()
    shop.simulator.fault_injection.add("error", place="create_refund")
    assert (await shop.issuer.create(shop.wish(charge), f"key-{number}")).refund is None
    return charge


async def settled(shop: Desk, number: int, charge: str) -> bool:
    shop.simulator.fault_injection.clear()
    record = (await shop.issuer.create(shop.wish(charge), f"key-{number}")).record
    return record.state is RequestState.DONE


async def all_settled(shop: Desk, charges: list[str]) -> bool:
    return all([await settled(shop, number, charge) for number, charge in enumerate(charges)])


async def test_a_request_that_is_postponed_between_claim_and_rest_is_not_slept_through(
    shop: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker found nothing, and before it rested there was something. Without a wake-up, no worker looks again."""
    monkeypatch.setattr(rounds, "IDLE", FOR_EVER)
    real = shop.store.of("us").requests.claim

    async def claimed(*, lease: int, limit: int) -> object:
        found = await real(lease=lease, limit=limit)
        monkeypatch.setattr(shop.store.of("us").requests, "claim", real)
        await unanswered(shop, 1)
        shop.clock.tick(10_000)
        return found

    monkeypatch.setattr(shop.store.of("us").requests, "claim", claimed)
    async with at_work(shop.another().run):
        await until(lambda: len(shop.simulator.refunds) == 1, "the worker goes on")


async def test_full_workers_go_on_as_soon_as_one_request_ends(shop: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the next second: here that is never."""
    monkeypatch.setattr(rounds, "IDLE", FOR_EVER)
    charges = [await unanswered(shop, number) for number in range(6)]
    shop.clock.tick(10_000)
    issuer = shop.another()
    issuer.concurrency = 2
    async with at_work(issuer.run):
        await until(lambda: all_settled(shop, charges), "all are issued")
    assert [len(shop.issued(charge)) for charge in charges] == [1] * 6


async def test_a_request_that_hangs_holds_nobody_up_and_no_more_are_under_way_than_allowed(shop: Desk) -> None:
    """Amazon hangs on the first; the others are issued meanwhile, though their time comes later than its round."""
    stuck = await unanswered(shop, 0)
    shop.clock.tick(10_000)
    shop.simulator.fault_injection.add("hang", place="create_refund", seconds=0)
    issuer = shop.another()
    issuer.amazon_client.timeout, issuer.concurrency = 60.0, 2
    worker = issuer.worker()
    async with at_work(worker.run):
        await until(lambda: shop.issued(stuck), "the first is on its way")
        charges = [await unanswered(shop, number) for number in range(1, 5)]
        pass_time(shop.store, shop.clock, 10_000)
        await until(lambda: all(shop.issued(charge) for charge in charges), "the others are issued")
        await until(lambda: len(worker.rounds.under_way) == 1, "they are settled")
        assert not await settled(shop, 0, stuck)


async def test_workers_that_stop_leave_nothing_running_and_lose_nothing(shop: Desk) -> None:
    """In the middle of a call; when the lease is over, the next worker finishes."""
    charge = await unanswered(shop, 1)
    shop.clock.tick(10_000)
    shop.simulator.fault_injection.add("hang", place="create_refund", seconds=0)
    issuer = shop.another()
    issuer.amazon_client.timeout = 60.0
    before = asyncio.all_tasks()
    async with at_work(issuer.run):
        await until(lambda: shop.issued(charge), "the call is under way")
        names = {task.get_name() for task in asyncio.all_tasks() - before}
        assert names
    await until(lambda: not {t for t in asyncio.all_tasks() - before if "Rounds" in repr(t.get_coro())}, "all end")
    await shop.work()
    assert await settled(shop, 1, charge)
    assert len(shop.issued(charge)) == 1


async def test_workers_without_redis_wait_and_say_so(shop: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that Redis does not answer ends; the next one goes on."""
    charge = await unanswered(shop, 1)
    shop.clock.tick(10_000)
    await shop.store.connection.client.config_set("maxmemory", "1")
    worker = shop.another().worker()
    try:
        with capture_logs() as logs:
            assert await worker.rounds.once() == inf
    finally:
        await shop.store.connection.client.config_set("maxmemory", "0")
    assert {(each["event"], each["reason"]) for each in logs if each["event"].startswith("issue.")} == {
        ("issue.store_unavailable", "store_full")
    }
    await shop.work()
    assert len(shop.issued(charge)) == 1

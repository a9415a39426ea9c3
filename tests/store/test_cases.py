"""The open cases of declined refunds in Redis: their index, and the declines of older versions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from receiver.amazon.account import Account
from receiver.errors import StoreUnavailable
from receiver.ledger.money import Money
from receiver.ledger.query import Query
from receiver.ledger.refund import How, Source
from receiver.store import Store
from receiver.track.record import Recorder
from tests.kit.clock import T0, ManualClock
from tests.store.makers import fill, refund_id, seen

DAY = 86_400_000


@pytest.fixture
def recorder(store: Store) -> Recorder:
    return Recorder(store, lambda: 0.0)


async def test_an_open_case_is_listed_with_its_age_amount_and_reason(
    store: Store, recorder: Recorder, account: Account, clock: ManualClock
) -> None:
    await recorder.record(account, seen("Declined", 1, reason="AmazonRejected"), source=Source.POLL)
    clock.tick(5_000)
    await recorder.record(account, seen("Declined", 2), source=Source.POLL)
    await recorder.record(account, seen("Refunded", 3), source=Source.POLL)
    first, second = await store.of("us").cases.all()
    assert (first.refund_id, first.since, first.reason) == (refund_id(1), T0, "AmazonRejected")
    assert first.amount == Money.parse("14.00", "USD")
    assert (second.refund_id, second.since) == (refund_id(2), T0 + 5_000)
    clock.tick(1_000)
    await recorder.record(account, seen("Refunded", 1, updated_at=T0 + 9_000), source=Source.POLL)
    assert [each.refund_id for each in await store.of("us").cases.all()] == [refund_id(2)]
    page = await store.of("us").refunds.page(Query(open=True))
    assert [each.refund_id for each in page.refunds] == [refund_id(2)]


async def test_declines_of_older_versions_are_opened_once(store: Store, redis: Any, clock: ManualClock) -> None:
    """Those of the last 30 days, as a revision, in however many processes at once; older ones are not tracked."""
    await fill(redis, 120)
    await asyncio.gather(*(store.of("us").cases.adopt() for _ in range(4)))
    cases = await store.of("us").cases.all()
    assert len(cases) == 120
    found = await store.of("us").refunds.get(refund_id(7))
    assert found is not None
    assert found.resolution is not None
    assert found.resolution.is_open
    assert found.revision == 2
    await store.of("us").cases.adopt()
    assert (await store.of("us").refunds.get(refund_id(7))) == found
    assert await redis.xlen("refunds:{us}:events") == 0


async def test_old_declines_are_not_tracked(store: Store, redis: Any, clock: ManualClock) -> None:
    await fill(redis, 3)
    clock.tick(31 * DAY)
    await store.of("us").cases.adopt()
    assert await store.of("us").cases.all() == []
    known = await store.of("us").refunds.get(refund_id(1))
    assert known is not None
    assert known.resolution is None, "it is judged when it is read"


async def test_the_first_start_of_this_version_opens_them(store: Store, redis: Any) -> None:
    store.connection.accounts = ["us"]
    await fill(redis, 2)
    await redis.set("refunds:format", "1")
    await store.format.ensure()
    assert len(await store.of("us").cases.all()) == 2
    assert await redis.get("refunds:format") == b"2"


async def test_a_damaged_entry_hides_no_other(store: Store, redis: Any, recorder: Recorder, account: Account) -> None:
    await recorder.record(account, seen("Declined", 1), source=Source.POLL)
    await redis.hset("refunds:{us}:open:details", refund_id(2), "nonsense")
    assert [each.refund_id for each in await store.of("us").cases.all()] == [refund_id(1)]


async def test_a_damaged_decline_does_not_prevent_the_others(store: Store, redis: Any) -> None:
    await fill(redis, 2)
    await redis.hset(f"refunds:{{us}}:refund:{refund_id(0)}", "revision", "x")
    await store.of("us").cases.adopt()
    assert [each.refund_id for each in await store.of("us").cases.all()] == [refund_id(1)]


async def test_what_was_closed_before_a_restart_stays_closed(
    store: Store, redis: Any, recorder: Recorder, account: Account, clock: ManualClock
) -> None:
    await recorder.record(account, seen("Declined", 1), source=Source.POLL)
    await recorder.record(account, seen("Refunded", 1, updated_at=T0 + 9_000), source=Source.POLL)
    await store.of("us").cases.adopt()
    known = await store.of("us").refunds.get(refund_id(1))
    assert known is not None
    assert known.resolution is not None
    assert known.resolution.how is How.REFUNDED


async def test_without_redis_nothing_is_marked_as_done(
    store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(redis, 1)

    async def gone(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(store.of("us").refunds, "commit", gone)
        with pytest.raises(StoreUnavailable):
            await store.of("us").cases.adopt()
    await store.of("us").cases.adopt()
    assert len(await store.of("us").cases.all()) == 1


async def test_the_gauges_show_number_sum_and_age(
    store: Store, recorder: Recorder, account: Account, clock: ManualClock
) -> None:
    """A reason that Amazon does not document shares one gauge with all others."""
    await recorder.record(account, seen("Declined", 1, reason="AmazonRejected"), source=Source.POLL)
    await recorder.record(account, seen("Declined", 2, reason="SomethingNew"), source=Source.POLL)
    clock.tick(5_000)
    sizes = await store.of("us").gauges.measure()
    assert (sizes["declines:AmazonRejected"], sizes["declines:other"]) == (1, 1)
    assert (sizes["declines_amount:USD"], sizes["oldest_decline_seconds"]) == (28.0, 5.0)

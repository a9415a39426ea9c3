"""The open cases of declined refunds in Redis: their index, and the declines of older versions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from receiver.amazon.account import Account
from receiver.errors import StoreUnavailable
from receiver.ledger.audit import Actor
from receiver.ledger.lifecycle import Change
from receiver.ledger.query import Query
from receiver.ledger.refund import How, Source
from receiver.ledger.resolution import closed
from receiver.store import Store
from receiver.store.redis.keys import Keys
from receiver.store.refunds.refunds import Committed
from receiver.track.record import Recorder
from tests.kit.clock import T0, ManualClock
from tests.store.makers import fill, refund_id, seen

DAY = 86_400_000
KEYS = Keys("us")


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
    first, second = sorted(await store.of("us").cases.all(), key=lambda case: case.since)
    assert (first.refund_id, first.since, first.reason) == (refund_id(1), T0, "AmazonRejected")
    assert (first.minor_units, first.currency) == (1400, "USD")
    assert (second.refund_id, second.since) == (refund_id(2), T0 + 5_000)
    clock.tick(1_000)
    await recorder.record(account, seen("Refunded", 1, updated_at=T0 + 9_000), source=Source.POLL)
    assert [each.refund_id for each in await store.of("us").cases.all()] == [refund_id(2)]
    page = await store.of("us").refunds.page(Query(open=True))
    assert [each.refund_id for each in page.refunds] == [refund_id(2)]


async def test_declines_of_older_versions_are_opened_once(store: Store, redis: Any, clock: ManualClock) -> None:
    """Those of the last 30 days, as a revision, once for any number of processes; older ones are not tracked."""
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


async def test_a_decline_of_an_older_version_whose_reissue_is_refunded_is_not_opened(store: Store, redis: Any) -> None:
    """The buyer has the money: an open case would have a person pay again."""
    await fill(redis, 4)
    for number in (0, 1):
        # 0 was repeated by 1, which was declined, and 1 by 2.
        await redis.hset(KEYS("refund", refund_id(number)), "retried_by", refund_id(number + 1))
        await redis.hset(KEYS("refund", refund_id(number + 1)), "retry_root", refund_id(0))
    await redis.hset(KEYS("refund", refund_id(2)), "state", "Refunded")
    await store.of("us").cases.adopt()
    assert [each.refund_id for each in await store.of("us").cases.all()] == [refund_id(3)]
    known = await store.of("us").refunds.get(refund_id(0))
    assert known is not None
    assert known.resolution is not None
    assert (known.resolution.how, known.resolution.refund_id) == (How.REISSUED, refund_id(2))
    assert known.revision == 2


async def test_a_decline_of_an_older_version_is_as_old_as_its_decline(
    store: Store, redis: Any, clock: ManualClock
) -> None:
    await fill(redis, 1)
    clock.tick(9 * DAY)
    await store.of("us").cases.adopt()
    assert (await store.of("us").gauges.measure())["oldest_decline_seconds"] == 9 * DAY / 1000


@pytest.mark.parametrize("part", ["", "open", "open:details"])
async def test_a_damaged_list_of_open_cases_is_written_again(
    store: Store, redis: Any, recorder: Recorder, account: Account, part: str
) -> None:
    store.connection.accounts = ["us"]
    for number in (1, 2):
        await recorder.record(account, seen("Declined", number), source=Source.POLL)
    await recorder.record(account, seen("Refunded", 3), source=Source.POLL)
    before = await store.of("us").refunds.get(refund_id(2))
    await redis.hset(KEYS("open:details"), refund_id(1), "nonsense")
    await store.inspection.inspect()
    assert store.damage.records, "the doctor sees it"
    assert await store.inspection.repair(KEYS(part or "open:details"), None if part else refund_id(1))
    if part == "open":
        await store.inspection.repair(KEYS("open:details"), refund_id(1))
    assert {each.refund_id for each in await store.of("us").cases.all()} == {refund_id(1), refund_id(2)}
    page = await store.of("us").refunds.page(Query(open=True))
    assert {each.refund_id for each in page.refunds} == {refund_id(1), refund_id(2)}
    if not part:
        assert await store.of("us").refunds.get(refund_id(2)) == before, "what is listed stays as it is"


@pytest.mark.parametrize("has_history", [True, False])
@pytest.mark.parametrize("damaged", ["revision", "case_at", "case_how"])
async def test_the_repair_of_a_refund_opens_no_closed_case(
    store: Store, redis: Any, recorder: Recorder, account: Account, damaged: str, has_history: bool
) -> None:
    """It could be reissued, and the buyer would be paid twice."""
    store.connection.accounts = ["us"]
    change = (await recorder.record(account, seen("Declined", 1), source=Source.POLL)).change
    found = closed(change.refund, How.COMPENSATED, T0, Actor("desk"), note="gift card")
    written, _ = await recorder.write(
        [Change(change.refund, found.refund)], await store.of("us").subscribers.read(), T0
    )
    assert written is Committed.OK
    key = KEYS("refund", refund_id(1))
    await redis.hset(key, damaged, "x")
    if not has_history:
        await redis.delete(KEYS("history", refund_id(1)))
        await redis.hset(key, "currency", "x")
    assert await store.inspection.repair(key)
    after = await store.of("us").refunds.get(refund_id(1))
    if not has_history and damaged == "revision":
        assert after is None, "nothing is known of its revisions: Amazon is asked first"
        return
    assert after is not None
    assert after.resolution is not None
    assert not after.resolution.is_open
    assert await redis.hexists(key, "case_how"), "reserve.lua looks at it"
    if has_history:
        assert after.resolution == found.refund.resolution

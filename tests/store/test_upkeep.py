"""Backfill, trimming, expiry and limits of stored data, on a real Valkey."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.amazon.account import Account
from receiver.deliver.retention import Retention
from receiver.errors import Conflict, StoreUnavailable
from receiver.ledger.refund import Source
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.events.operator_event import OperatorType, operator_event
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts
from receiver.runtime.metrics import Metrics
from receiver.service import system_clock
from receiver.store import Store
from receiver.store.deliveries import upkeep as keeping
from receiver.store.deliveries.queues import AttemptEffects
from receiver.store.redis.damage import WrongType
from receiver.store.redis.stream_ids import fixed_width
from receiver.track.record import Recorder
from tests.kit.clock import ManualClock
from tests.store.makers import refund_id, seen, subscriber

KEY = "refunds:{us}"
DAY = 86_400_000
KEEP, KEEP_OWED = 30 * DAY, 60 * DAY


@pytest.fixture
def clock() -> ManualClock:
    """At the machine's time, as stream ids are."""
    return ManualClock(system_clock())


def upkeep(store: Store) -> Retention:
    return Retention(store.of("us"), Metrics(), KEEP, KEEP_OWED)


async def happen(store: Store, account: Account, count: int, first: int = 0, state: str = "Declined") -> list[str]:
    """So many refunds are declined; the ids of the events in the stream."""
    recorder = Recorder(store, lambda: 0.0)
    for number in range(first, first + count):
        await recorder.record(account, seen(state, number, "AmazonRejected"), source=Source.POLL)
    return [stream_id for stream_id, _ in await store.of("us").deliveries.stream_page("0-0", 10_000)]


async def owed(store: Store, name: str = "new") -> list[str]:
    """What waits for this subscriber, in the order of the stream, as lane and owed agree on."""
    waiting = await store.of("us").deliveries.waiting_page(name, limit=10_000)
    ids = sorted((each.stream_id for each in waiting), key=fixed_width)
    fixed = await store._read("ZRANGE", f"{KEY}:owed:{name}", 0, -1)
    assert [each.decode() for each in fixed] == [fixed_width(each) for each in ids]
    return ids


async def take(store: Store, name: str = "new", limit: int = 100) -> list[ClaimedDelivery]:
    return list((await store.of("us").deliveries.claim(name, lease=30_000, limit=limit)).items)


def dead(delivery: ClaimedDelivery) -> DeadEvent:
    return DeadEvent(delivery.stream_id, "evt", "t", "r", "exhausted", 1, 12, "HTTP 500", fields=dict(delivery.fields))


async def backfilled(store: Store) -> None:
    while await store.of("us").deliveries.backfills():
        await upkeep(store).backfill()


@pytest.mark.parametrize("batch", [1, 2, 7, 200])
async def test_a_new_subscriber_gets_what_it_wants_of_before(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Each event once, through the filter, in batches; what happens meanwhile comes by its own way."""
    monkeypatch.setattr(keeping, "BACKFILL_BATCH", batch)
    await happen(store, account, 3, state="Refunded")
    before = await happen(store, account, 4, first=10)
    after = await store.of("us").subscribers.add(subscriber("new", types=("amazonpay.refund.declined",)), 0)
    assert after == before[-1]
    everything = await happen(store, account, 2, first=20)
    await backfilled(store)
    assert await owed(store) == everything[3:]


async def test_a_record_of_a_later_version_is_backfilled(store: Store, redis: Any, account: Account) -> None:
    """What it says is what counts, not its bytes."""
    ids = await happen(store, account, 2)
    await store.of("us").subscribers.add(subscriber("new"), 0)
    raw = await redis.hget("refunds:{us}:subscribers", "new")
    await redis.hset("refunds:{us}:subscribers", "new", raw.replace(b"{", b'{"colour":"red",', 1))
    for _ in range(2):
        await upkeep(store).backfill()
    assert await store.of("us").deliveries.backfills() == []
    assert await owed(store) == ids


async def test_from_now_is_the_default_and_a_time_is_exact(store: Store, account: Account) -> None:
    first = await happen(store, account, 2)
    await asyncio.sleep(0.003)
    ids = await happen(store, account, 3, first=10)
    await store.of("us").subscribers.add(subscriber("now"))
    await store.of("us").subscribers.add(subscriber("new"), int(ids[2].partition("-")[0]))
    await backfilled(store)
    assert await owed(store, "now") == []
    assert await owed(store) == ids[len(first) :]


async def test_what_was_delivered_during_a_backfill_is_not_owed_again(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes at once, and one that dies after its batch: the cursor and the owed events are written in one
    step."""
    monkeypatch.setattr(keeping, "BACKFILL_BATCH", 3)
    ids = await happen(store, account, 10)
    new = subscriber("new")
    await store.of("us").subscribers.add(new, 0)
    (job,) = await store.of("us").deliveries.backfills()
    delivered = []
    for _ in range(10):
        jobs = await store.of("us").deliveries.backfills() or [job]
        await asyncio.gather(
            *(store.of("us").deliveries.backfill(jobs[0], new) for _ in range(2)),
            store.of("us").deliveries.backfill(job, new),
        )
        for delivery in await take(store):
            delivered.append(delivery.stream_id)
            await store.of(delivery.account).deliveries.delivered(delivery)
    assert delivered == ids
    assert await owed(store) == []
    assert await store.of("us").deliveries.backfills() == []


async def test_a_backfill_goes_by_the_filter_of_the_moment_and_ends_with_its_subscriber(
    store: Store, account: Account
) -> None:
    """A batch that was chosen for another filter is not written; a removed one leaves no cursor behind."""
    ids = await happen(store, account, 2)
    before, after = subscriber("new", types=("amazonpay.refund.refunded",)), subscriber("new")
    await store.of("us").subscribers.add(before, 0)
    (job,) = await store.of("us").deliveries.backfills()
    assert await store.of("us").subscribers.change(before, after)
    assert not await store.of("us").deliveries.backfill(job, before)
    assert await store.of("us").deliveries.backfills() == [job]
    await backfilled(store)
    assert await owed(store) == ids
    await store.of("us").subscribers.remove("new")
    await store.of("us").subscribers.add(after, 0)
    await store.of("us").subscribers.remove("new")
    assert await store.of("us").deliveries.backfills() == []


async def test_the_stream_is_not_cut_past_what_is_owed(store: Store, account: Account, clock: ManualClock) -> None:
    """Old entries are removed, but not the entries that a queue still needs, nor newer ones, nor those that a backfill
    has not reached."""
    ids = await happen(store, account, 2)
    await store.of("us").subscribers.put(subscriber("new"))
    ids = await happen(store, account, 2, first=10)
    clock.tick(KEEP + 1000)
    await upkeep(store).round()
    assert [each for each, _ in await store.of("us").deliveries.stream_page("0-0")] == ids[2:]
    deliveries = await take(store)
    assert [delivery.stream_id for delivery in deliveries] == ids[2:]
    assert all(delivery.fields["type"] == "amazonpay.refund.declined" for delivery in deliveries)
    assert await store.of("us").deliveries.delivered(deliveries[0])
    await store.of("us").deliveries.trim(clock() - KEEP)
    assert [each for each, _ in await store.of("us").deliveries.stream_page("0-0")] == ids[3:]
    assert await store.of("us").deliveries.delivered(deliveries[1])
    await store.of("us").subscribers.add(subscriber("late"), 0)
    await store.of("us").deliveries.trim(clock() - KEEP)
    assert [each for each, _ in await store.of("us").deliveries.stream_page("0-0")] == ids[3:]
    await backfilled(store)
    assert await owed(store, "late") == ids[3:]


async def test_young_entries_stay(store: Store, account: Account, clock: ManualClock) -> None:
    ids = await happen(store, account, 3)
    clock.tick(KEEP - 60_000)
    await upkeep(store).round()
    assert [each for each, _ in await store.of("us").deliveries.stream_page("0-0")] == ids


async def test_nobody_holds_the_stream_for_ever(store: Store, account: Account, clock: ManualClock) -> None:
    """After the second period, the events that a paused subscriber is owed are dead, with a copy, and operators get one
    event."""
    await store.of("us").subscribers.put(subscriber("new", paused=True))
    await store.of("us").subscribers.put(subscriber("ops", types=("receiver.*",)))
    ids = await happen(store, account, 3)
    clock.tick(KEEP_OWED + 1000)
    with capture_logs() as logs:
        await upkeep(store).round()
    assert await owed(store) == []
    found = await store.of("us").deliveries.dead_events("new")
    assert [(each.stream_id, each.reason, each.refund_id) for each in found] == [
        (stream_id, "expired", refund_id(number)) for number, stream_id in enumerate(ids)
    ]
    (told,) = await take(store, "ops")
    assert {key: told.fields[key] for key in ("type", "subscriber", "reason", "count")} == {
        "type": "receiver.delivery.dead",
        "subscriber": "new",
        "reason": "expired",
        "count": "3",
    }
    assert [line["log_level"] for line in logs if line["event"] == "delivery.expired"] == ["error"]
    assert not {each for each, _ in await store.of("us").deliveries.stream_page("0-0")} & set(ids)
    assert (await store.of("us").deliveries.redrive("new", ids)).dead == 3
    assert [delivery.fields["refundId"] for delivery in await take(store)] == [refund_id(number) for number in range(3)]


async def test_what_is_being_sent_is_not_expired(store: Store, account: Account, clock: ManualClock) -> None:
    """Its sender settles it; what another worker has claimed since stays claimed."""
    await store.of("us").subscribers.put(subscriber("new"))
    await happen(store, account, 2)
    clock.tick(KEEP_OWED + 1000)
    (held,) = await take(store, limit=1)
    (found,) = await store.of("us").deliveries.overdue("new", clock() - KEEP_OWED, 30_000)
    assert found.stream_id != held.stream_id
    (taken,) = await take(store, limit=1)
    assert not await store.of(found.account).deliveries.dead(found, dead(found))
    assert await store.of(held.account).deliveries.delivered(held)
    assert await store.of(taken.account).deliveries.delivered(taken)
    assert await store.of("us").deliveries.dead_events("new") == []


async def test_the_upkeep_is_done_by_one_process_a_minute(store: Store) -> None:
    assert [await store.of("us").deliveries.take_maintenance_lease(50) for _ in range(3)] == [True, False, False]


async def test_of_too_many_dead_events_the_oldest_go_with_a_line_and_a_count(
    store: Store, redis: Any, account: Account
) -> None:
    dropped: list[int] = []
    store.connection.keep_dead, store.connection.on_dropped = 3, dropped.append
    await store.of("us").subscribers.put(subscriber("new"))
    ids = await happen(store, account, 5)
    with capture_logs() as logs:
        for delivery in await take(store):
            await store.of(delivery.account).deliveries.dead(delivery, dead(delivery))
    assert [each.stream_id for each in await store.of("us").deliveries.dead_events("new")] == ids[2:]
    assert await redis.zcard(f"{KEY}:deaths:new") == await redis.hlen(f"{KEY}:dead:new") == 3
    assert sum(dropped) == 2
    assert [(line["event"], line["log_level"]) for line in logs] == [("delivery.dead_dropped", "error")] * 2


async def test_dead_and_waiting_events_come_in_pages(store: Store, account: Account, clock: ManualClock) -> None:
    """None twice and none left out, also where many wait for the same moment; dead ones by a span of time."""
    await store.of("us").subscribers.put(subscriber("new"))
    ids = await happen(store, account, 9)
    deliveries = await take(store)
    for number, delivery in enumerate(deliveries[:5]):
        await store.of(delivery.account).deliveries.retry(
            delivery, clock() + number // 3, DeliveryAttempts(count=1, last_error="HTTP 500")
        )
    for delivery in deliveries[5:]:
        await store.of(delivery.account).deliveries.dead(delivery, dead(delivery))
    found, after = [], None
    while page := await store.of("us").deliveries.waiting_page("new", after=after, limit=2):
        found += page
        after = (page[-1].at, page[-1].stream_id)
    assert sorted(each.stream_id for each in found) == ids[:5]
    assert {each.attempts.last_error for each in found} == {"HTTP 500"}
    assert found[0].fields["type"] == "amazonpay.refund.declined"
    gone, before = [], ""
    while entries := await store.of("us").deliveries.dead_page("new", before=before, limit=3):
        gone += [each.stream_id for each in entries]
        before = entries[-1].stream_id
    assert gone == ids[:4:-1]
    at = int(ids[6].partition("-")[0])
    bounded = [each.stream_id for each in await store.of("us").deliveries.dead_page("new", since=at, until=at)]
    assert bounded == [each for each in gone if int(each.partition("-")[0]) == at]
    assert await store.of("us").deliveries.queue_sizes("new") == (5, 4, int(ids[0].partition("-")[0]))


async def test_an_operator_event_is_written_with_what_it_tells_or_not_at_all(store: Store, account: Account) -> None:
    """If a worker dies between the two, the next one publishes it; it is in the stream once, however many workers
    run."""
    await store.of("us").subscribers.put(subscriber("new"))
    await store.of("us").subscribers.put(subscriber("ops", types=("receiver.*",)))
    await happen(store, account, 1)
    (delivery,) = await take(store)
    event = operator_event(OperatorType.DEAD, "us", "new", "exhausted", "Gone.", 5)
    late = ClaimedDelivery(delivery.account, delivery.subscriber, delivery.stream_id, 7, DeliveryAttempts(), {})
    assert not await store.of(late.account).deliveries.dead(
        late, dead(delivery), AttemptEffects(operator_events=[event])
    )
    assert await store.of("us").deliveries.publish_operator_events() == []
    assert await store.of(delivery.account).deliveries.dead(
        delivery, dead(delivery), AttemptEffects(operator_events=[event])
    )
    told = await asyncio.gather(*(store.of("us").deliveries.publish_operator_events() for _ in range(5)))
    assert [each for found in told for each in found] == [event]
    (owed_to,) = await take(store, "ops")
    assert owed_to.fields["id"] == event.id
    assert await store.of("us").deliveries.publish_operator_events() == []


async def test_a_warning_that_could_not_be_written_is_not_taken_for_told(store: Store, redis: Any) -> None:
    """The mark that it was published is written in one step with it; after that it is published once."""
    event = operator_event(OperatorType.FAILING, "us", "finance", "last_active", "Nothing reaches it.", system_clock())
    await redis.set("refunds:{us}:told", "not a list")
    with pytest.raises(StoreUnavailable):
        await store.of("us").deliveries.publish_failing_once(event)
    await redis.delete("refunds:{us}:told")
    assert [await store.of("us").deliveries.publish_failing_once(event) for _ in range(2)] == [True, False]
    assert await store.of("us").deliveries.publish_operator_events() == [event]


async def test_an_operator_event_that_cannot_be_read_holds_up_no_other(store: Store, redis: Any) -> None:
    await redis.rpush(f"{KEY}:told", b"{", b"[]", b'{"type": "x"}')
    one, other = subscriber("new"), subscriber("new", paused=True)
    await store.of("us").subscribers.put(one)
    event = operator_event(OperatorType.PAUSED, "us", "new", "gone", "Gone.", 5)
    assert await store.of("us").subscribers.change(one, other, operator_events=[event])
    assert await store.of("us").deliveries.publish_operator_events() == [event]
    assert await redis.llen(f"{KEY}:told") == 0


async def test_a_key_of_a_foreign_type_stops_what_is_owed_before_its_first_write(
    store: Store, redis: Any, account: Account
) -> None:
    """Redis does not roll back: each retry would publish the event again, and owe delivered events again."""
    ids = await happen(store, account, 2)
    new, one = subscriber("new"), subscriber("one")
    await store.of("us").subscribers.add(new, 0)
    await store.of("us").subscribers.put(one)
    event = operator_event(OperatorType.PAUSED, "us", "one", "gone", "Gone.", 5)
    await store.of("us").subscribers.put(subscriber("ops", types=("receiver.*",)))
    assert await store.of("us").subscribers.change(one, subscriber("one", paused=True), operator_events=[event])
    for name in ("new", "ops"):
        await redis.set(f"{KEY}:owed:{name}", "not mine")
    (job,) = await store.of("us").deliveries.backfills()
    for _ in range(2):
        with pytest.raises(WrongType):
            await store.of("us").deliveries.backfill(job, new)
    assert not await redis.exists(f"{KEY}:lane:new")
    # Operator events do not wait for one of them: it stands in the stream.
    assert await store.of("us").deliveries.publish_operator_events() == [event]
    assert await redis.xlen(f"{KEY}:events") == len(ids) + 1
    assert not await redis.exists(f"{KEY}:lane:ops")
    await redis.delete(f"{KEY}:owed:new", f"{KEY}:owed:ops")
    await backfilled(store)
    assert await owed(store) == ids


async def test_a_change_by_an_old_roster_is_refused(store: Store) -> None:
    """Another subscriber was changed meanwhile: what was decided by the whole list has to be decided again."""
    one = subscriber("one")
    await store.of("us").subscribers.put(one)
    version = (await store.of("us").subscribers.read()).version
    await store.of("us").subscribers.put(subscriber("two"))
    paused = subscriber("one", paused=True)
    assert not await store.of("us").subscribers.change(one, paused, version=version)
    assert await store.of("us").subscribers.change(one, paused, version=version + 1)


async def test_a_removed_subscriber_leaves_nothing(store: Store, redis: Any, account: Account) -> None:
    """Not its dead events, copies or health either; and a late redrive or test revives nothing."""
    await store.of("us").subscribers.add(subscriber("gone"), 0)
    with pytest.raises(Conflict):
        await store.of("us").subscribers.add(subscriber("gone", paused=True))
    ids = await happen(store, account, 3)
    one, two, _ = await take(store, "gone")
    await store.of(one.account).deliveries.dead(one, dead(one), AttemptEffects(failed=True, error="HTTP 500"))
    await store.of(two.account).deliveries.dead(two, dead(two))
    await store.of("us").deliveries.redrive("gone", ids[:1])
    assert await store.of("us").deliveries.enqueue_test("gone", "9-9", {"type": "x"})
    assert await store.of("us").subscribers.remove("gone")
    await store.of("us").deliveries.redrive("gone", ids)
    assert not await store.of("us").deliveries.enqueue_test("gone", "9-9", {"type": "x"})
    assert [key async for key in redis.scan_iter("*gone*")] == []

"""Subscribers and their lanes on a real Valkey."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from receiver.amazon.account import Account
from receiver.errors import Conflict
from receiver.ledger.refund import Source
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.events.event import from_fields
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts
from receiver.outbox.subscribers.subscriber import Subscriber, encode, pause
from receiver.store import Store
from receiver.store.deliveries.subscribers import SubscriberList, Updated
from receiver.track.record import Recorder
from tests.kit.clock import T0, ManualClock
from tests.store.makers import refund_id, seen, subscriber


async def owe(store: Store, account: Account, count: int = 1) -> None:
    await store.of("us").subscribers.put(subscriber("audit"))
    recorder = Recorder(store, lambda: 0.0)
    for number in range(count):
        await recorder.record(account, seen("Declined", number, "AmazonRejected"), source=Source.POLL)


async def take(store: Store, limit: int = 8) -> list[ClaimedDelivery]:
    return list((await store.of("us").deliveries.claim("audit", lease=30_000, limit=limit)).items)


def dead(delivery: ClaimedDelivery) -> DeadEvent:
    return DeadEvent(delivery.stream_id, "evt", "t", "r", "exhausted", T0, 12, "HTTP 500")


async def test_a_claimed_event_is_the_event_that_was_committed(store: Store, account: Account) -> None:
    await owe(store, account)
    (delivery,) = await take(store)
    event = from_fields("us", delivery.fields)
    assert (event.type, event.refund.refund_id) == ("amazonpay.refund.declined", refund_id(0))
    assert delivery.attempts == DeliveryAttempts()


async def test_a_delivered_event_leaves_nothing_behind(store: Store, redis: Any, account: Account) -> None:
    await owe(store, account)
    (delivery,) = await take(store)
    assert await store.of(delivery.account).deliveries.delivered(delivery)
    for kind in ("lane", "owed", "attempts", "dead"):
        assert await redis.exists(f"refunds:{{us}}:{kind}:audit") == 0


async def test_a_retry_waits_and_remembers_its_attempts(store: Store, account: Account, clock: ManualClock) -> None:
    await owe(store, account)
    (delivery,) = await take(store)
    tried = DeliveryAttempts(count=1, first_at=T0, last_status=500)
    await store.of(delivery.account).deliveries.retry(delivery, T0 + 5_000, tried)
    assert await take(store) == []
    assert await store.of("us").deliveries.queue_heads(["audit", "nobody"]) == {"audit": T0 + 5_000}
    clock.tick(5_000)
    (again,) = await take(store)
    assert again.attempts == tried


async def test_a_sender_slower_than_its_lease_settles_nothing(
    store: Store, redis: Any, account: Account, clock: ManualClock
) -> None:
    await owe(store, account)
    (slow,) = await take(store)
    clock.tick(30_000)
    (quick,) = await take(store)
    assert not await store.of(slow.account).deliveries.delivered(slow)
    assert not await store.of(slow.account).deliveries.dead(slow, dead(slow))
    assert await redis.zcard("refunds:{us}:lane:audit") == 1
    assert await store.of("us").deliveries.dead_events("audit") == []
    assert await store.of(quick.account).deliveries.delivered(quick)
    assert not await store.of(slow.account).deliveries.retry(slow, T0, DeliveryAttempts())
    assert await redis.zcard("refunds:{us}:lane:audit") == 0


async def test_a_dead_event_is_kept_with_its_reason(store: Store, redis: Any, account: Account) -> None:
    await owe(store, account)
    (delivery,) = await take(store)
    await store.of(delivery.account).deliveries.dead(delivery, dead(delivery))
    assert await store.of("us").deliveries.dead_events("audit") == [dead(delivery)]
    assert await redis.zcard("refunds:{us}:owed:audit") == 0


async def test_a_removed_subscriber_takes_its_lane_along_and_no_late_worker_revives_it(
    store: Store, redis: Any, account: Account
) -> None:
    await owe(store, account)
    (delivery,) = await take(store)
    assert await store.of("us").subscribers.remove("audit")
    assert not await store.of("us").subscribers.remove("audit")
    assert not await store.of(delivery.account).deliveries.retry(delivery, T0, DeliveryAttempts(count=1))
    assert not await store.of(delivery.account).deliveries.dead(delivery, dead(delivery))
    assert await take(store) == []
    assert [key async for key in redis.scan_iter("*audit*")] == []


async def test_a_name_is_given_once(store: Store) -> None:
    await store.of("us").subscribers.add(subscriber("audit"))
    await store.of("us").subscribers.add(subscriber("audit"))
    with pytest.raises(Conflict, match="audit"):
        await store.of("us").subscribers.add(subscriber("audit", url="https://other.example/"))
    assert [each.url for each in await store.of("us").subscribers.readable()] == ["http://127.0.0.1:9/hook"]


async def test_one_more_than_the_most_is_not_added(store: Store, redis: Any) -> None:
    """Damaged records count, the version of the list does not. An existing name is reported as such, and can be
    changed."""
    for name in ("first", "second"):
        await store.of("us").subscribers.add(subscriber(name), most=3)
    await redis.hset("refunds:{us}:subscribers", "damaged", "{")
    with pytest.raises(Conflict, match=r"delivery\.max_subscribers is 3") as caught:
        await store.of("us").subscribers.add(subscriber("third"), most=3)
    assert caught.value.reason == "too_many_subscribers"
    version = (await store.of("us").subscribers.read()).version
    assert await store.of("us").subscribers.add(subscriber("second"), most=3) == "0-0"
    with pytest.raises(Conflict) as caught:
        await store.of("us").subscribers.add(subscriber("second", paused=True), most=3)
    assert caught.value.reason == "subscriber_exists"
    assert (await store.of("us").subscribers.read()).version == version
    assert await store.of("us").subscribers.change(subscriber("second"), subscriber("second", paused=True))
    await store.of("us").subscribers.put(subscriber("declared"))
    assert sorted((await store.of("us").subscribers.read()).subscribers) == ["declared", "first", "second"]
    await store.of("eu").subscribers.add(subscriber("third"), most=3)


async def test_adding_tells_the_last_event_that_is_not_owed(store: Store, redis: Any, account: Account) -> None:
    assert await store.of("us").subscribers.add(subscriber("first")) == "0-0"
    await owe(store, account, 2)
    ((last, _),) = await redis.xrevrange("refunds:{us}:events", count=1)
    assert await store.of("us").subscribers.add(subscriber("second")) == last.decode()


async def test_a_change_raises_the_version_and_loses_against_an_earlier_change(store: Store) -> None:
    await store.of("us").subscribers.put(subscriber("audit"))
    before = (await store.of("us").subscribers.read()).version
    one, two = subscriber("audit", paused=True), subscriber("audit", reasons=("AmazonRejected",))
    assert await store.of("us").subscribers.change(subscriber("audit"), one)
    assert not await store.of("us").subscribers.change(subscriber("audit"), two)
    assert not await store.of("us").subscribers.change(subscriber("nobody"), subscriber("nobody", paused=True))
    subscriber_list = await store.of("us").subscribers.read()
    assert (subscriber_list.version, subscriber_list.subscribers["audit"]) == (before + 1, one)


async def test_a_record_that_says_the_same_in_other_bytes_is_changed(store: Store, redis: Any) -> None:
    """An integer as rate, fields of a later version: the record that was read is replaced at the first try."""
    raw = encode(subscriber("audit", rate=10.0)).replace(b'"rate":10.0', b'"rate":10,"colour":"red"')
    await redis.hset("refunds:{us}:subscribers", "audit", raw)
    (found,) = await store.of("us").subscribers.readable()
    assert (found.rate, encode(found) == raw) == (10, False)
    assert not await store.of("us").subscribers.change(subscriber("audit"), subscriber("audit", paused=True))
    assert await store.of("us").subscribers.change(found, subscriber("audit", paused=True))
    assert [each.paused for each in await store.of("us").subscribers.readable()] == [True]


async def test_a_subscriber_that_cannot_be_read_does_not_stop_the_others(store: Store, redis: Any) -> None:
    await store.of("us").subscribers.put(subscriber("audit"))
    await redis.hset("refunds:{us}:subscribers", "broken", "{")
    assert list((await store.of("us").subscribers.read()).subscribers) == ["audit"]


async def test_twenty_senders_share_a_lane_without_sending_twice(store: Store, account: Account) -> None:
    await owe(store, account, 60)
    claims = await asyncio.gather(*(take(store, 5) for _ in range(20)))
    ids = [delivery.stream_id for deliveries in claims for delivery in deliveries]
    assert len(ids) == len(set(ids)) == 60


async def test_gauges_count_what_is_there(store: Store, account: Account) -> None:
    await owe(store, account, 3)
    (delivery,) = await take(store, 1)
    await store.of(delivery.account).deliveries.dead(delivery, dead(delivery))
    sizes = await store.of("us").gauges.measure()
    assert (sizes["waiting:audit"], sizes["dead:audit"], sizes["events"], sizes["pending"]) == (2, 1, 4, 0), (
        "three declines, and the alarm for the wave that they are"
    )


async def test_of_changes_at_the_same_time_none_is_lost(store: Store) -> None:
    """Each is applied to what the one before has made; one that changes nothing writes nothing."""
    await store.of("us").subscribers.put(subscriber("audit"))
    words = [f"Reason{number}" for number in range(20)]

    async def also(word: str) -> Updated | None:
        return await store.of("us").subscribers.update(
            "audit", lambda found, _: msgspec.structs.replace(found, reasons=(*found.reasons, word))
        )

    answers = await asyncio.gather(*(also(word) for word in words))
    assert all(answer and answer.changed for answer in answers)
    before = await store.of("us").subscribers.read()
    assert sorted(before.subscribers["audit"].reasons) == sorted(words)
    same = await store.of("us").subscribers.update("audit", lambda found, _: found)
    assert same is not None
    assert not same.changed
    assert (await store.of("us").subscribers.read()).version == before.version
    assert await store.of("us").subscribers.update("nobody", lambda found, _: found) is None


async def test_a_change_that_looks_at_the_others_sees_what_they_have_become(store: Store) -> None:
    """Of two that may not both be paused, one stays awake."""
    for name in ("a", "b"):
        await store.of("us").subscribers.put(subscriber(name))

    def unless_last(found: Subscriber, everyone: SubscriberList) -> Subscriber:
        others = [each for name, each in everyone.subscribers.items() if name != found.name and not each.paused]
        return pause(found, "failing", T0) if others else found

    await asyncio.gather(*(store.of("us").subscribers.update(name, unless_last, alone=True) for name in ("a", "b")))
    assert sorted(each.paused for each in await store.of("us").subscribers.readable()) == [False, True]

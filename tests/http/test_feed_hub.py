"""The hub: a client that joins at a place gets every later item once. Also what the store's script says about a
stream."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from receiver.errors import BadRequest, StoreUnavailable
from receiver.http.feed.hub import CurrentFeed, FeedItem, Hub, Listener
from receiver.outbox.events.cursor import Place, read_cursor, write_cursor
from receiver.store import Store
from tests.http.feed_kit import happened, refund_id
from tests.kit.processes import until

US = "refunds:{us}:events"


def told(listener: Listener) -> list[str]:
    """The refunds of its events."""
    return [each.fields["refundId"] for each in listener.take() if isinstance(each, FeedItem) and not each.lost]


async def place_after(store: Store, count: int) -> Place:
    page = await store.of("us").feed.events_after("beginning", max(count, 1))
    return page.end if count else page.start


async def test_a_listener_is_told_what_comes_after_its_place(store: Store, redis: Redis) -> None:
    """From the hub's buffer, and later ones; a place further back needs a page first."""
    await happened(store, redis, *range(4))
    hub, first = Hub(CurrentFeed(store), keep=10), Listener(100)
    assert hub.join(first, "us", await place_after(store, 4))
    await happened(store, redis, *range(4, 24))
    assert await collected(first, 20) == [refund_id(number) for number in range(4, 24)]
    behind, near, last = (Listener(100) for _ in range(3))
    assert not hub.join(behind, "us", await place_after(store, 13))
    assert hub.join(near, "us", await place_after(store, 14))
    assert hub.join(last, "us", await place_after(store, 24))
    assert told(near) == [refund_id(number) for number in range(14, 24)]
    assert told(last) == []
    await happened(store, redis, 24)
    for listener in (first, near, last):
        assert await collected(listener, 1) == [refund_id(24)]
    for listener in (first, behind, near, last):
        hub.leave(listener)


async def test_a_listener_without_room_for_what_is_at_hand_reads_on_by_itself(store: Store, redis: Redis) -> None:
    """It would be cut off at once."""
    hub, first, small = Hub(CurrentFeed(store), keep=10), Listener(100), Listener(5)
    assert hub.join(first, "us", await place_after(store, 0))
    await happened(store, redis, *range(8))
    await collected(first, 8)
    assert not hub.join(small, "us", await place_after(store, 0))
    assert hub.join(small, "us", await place_after(store, 3))
    assert len(told(small)) == 5
    hub.leave(first)
    hub.leave(small)


async def test_a_listener_that_is_ahead_of_the_hub_is_told_nothing_twice(store: Store, redis: Redis) -> None:
    """Its own page was newer than the hub's last look."""
    await happened(store, redis, 1, 2, 3)
    hub, behind, ahead = Hub(CurrentFeed(store), keep=10), Listener(100), Listener(100)
    start, end = await place_after(store, 0), await place_after(store, 3)
    assert hub.join(behind, "us", start)
    assert hub.join(ahead, "us", end)
    assert await collected(behind, 3) == [refund_id(1), refund_id(2), refund_id(3)]
    await happened(store, redis, 4)
    assert await collected(ahead, 1) == [refund_id(4)]
    hub.leave(behind)
    hub.leave(ahead)


async def test_a_place_of_another_life_of_the_store_does_not_join(store: Store, redis: Redis) -> None:
    """The page that it reads then says what was lost."""
    hub, first, other = Hub(CurrentFeed(store), keep=10), Listener(100), Listener(100)
    assert hub.join(first, "us", await place_after(store, 0))
    assert not hub.join(other, "us", Place("ffff", 0, "0-0"))
    hub.leave(first)


async def test_nobody_listens_nobody_reads(store: Store, redis: Redis) -> None:
    """A tail ends with its last listener."""
    hub, listener = Hub(CurrentFeed(store), keep=10), Listener(100)
    assert hub.join(listener, "us", await place_after(store, 0))
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "feed:us"]
    assert len(tasks) == 1
    hub.leave(listener)
    await asyncio.wait(tasks, timeout=5)
    assert tasks[0].cancelled()


async def collected(listener: Listener, count: int) -> list[str]:
    """So many events, when they have come."""
    found: list[str] = []

    def enough() -> bool:
        found.extend(told(listener))
        return len(found) >= count

    await until(enough, f"{count} events")
    return found


async def test_a_store_that_was_restored_from_before(store: Store, redis: Redis) -> None:
    """A reader that is further than the stream gets a reset; one that has caught up with a longer one loses nothing."""
    await happened(store, redis, *range(5))
    dump = await redis.dump(US)
    assert dump is not None
    await happened(store, redis, *range(5, 8))
    ahead = await place_after(store, 8)
    await redis.delete(US)
    await redis.restore(US, 0, dump)
    assert (await store.of("us").feed.events_after(ahead, 10)).lost == "emptied"
    await happened(store, redis, *range(20, 30))
    page = await store.of("us").feed.events_after(ahead, 100)
    assert page.lost == ""
    assert [entry.fields["refundId"] for entry in page.entries] == [refund_id(number) for number in range(20, 30)]
    assert page.end.number == 15


async def test_a_stream_that_was_deleted_by_hand(store: Store, redis: Redis) -> None:
    """It has fewer entries than its readers have counted, however recent those are."""
    await happened(store, redis, *range(5))
    place = await place_after(store, 5)
    await redis.delete(US)
    assert (await store.of("us").feed.events_after(place, 10)).lost == "emptied"
    await happened(store, redis, 5, 6)
    page = await store.of("us").feed.events_after(place, 10)
    assert (page.lost, len(page.entries)) == ("emptied", 2)


async def test_a_place_after_the_end_is_of_no_such_stream(store: Store, redis: Redis) -> None:
    """Also where the count would do."""
    await happened(store, redis, *range(5))
    place = await place_after(store, 2)
    ms = int(place.id.partition("-")[0])
    assert (await store.of("us").feed.events_after(Place(place.epoch, 2, f"{ms + 1_000_000}-0"), 10)).lost == "emptied"
    assert (await store.of("us").feed.events_after(place, 10)).lost == ""


async def test_only_who_lost_something_is_told_of_trimming(store: Store, redis: Redis) -> None:
    """The hub itself was behind, say while the store was away; a listener that was ahead of it was not."""
    await happened(store, redis, 1, 2, 3)
    start, end = await place_after(store, 0), await place_after(store, 3)
    await redis.xtrim(US, maxlen=1, approximate=False)
    hub, behind, ahead = Hub(CurrentFeed(store), keep=10), Listener(100), Listener(100)
    assert hub.join(behind, "us", start)
    assert hub.join(ahead, "us", end)
    await until(lambda: behind.room < 99, "the hub has looked")
    lost, event = behind.take()
    assert isinstance(lost, FeedItem)
    assert isinstance(event, FeedItem)
    assert (lost.lost, event.fields["refundId"]) == ("trimmed", refund_id(3))
    assert ahead.take() == []
    hub.leave(behind)
    hub.leave(ahead)


@pytest.mark.parametrize("key", [US, "refunds:{us}:epoch"])
async def test_a_key_of_another_type_is_our_trouble(store: Store, redis: Redis, key: str) -> None:
    """Nothing is written then."""
    await redis.lpush(key, "x")
    with pytest.raises(StoreUnavailable):
        await store.of("us").feed.events_after("beginning", 10)
    assert await redis.keys("*") == [key.encode()]


def test_a_cursor_is_read_as_it_was_written() -> None:
    """Of the accounts that are seen; the others are passed over."""
    places = {"us": Place("9f3ac1", 42, "1760000000000-0"), "eu-2": Place("9f3ac1", 0, "0-0")}
    text = write_cursor(places)
    assert text == "us:1760000000000-0:42:9f3ac1,eu-2:0-0:0:9f3ac1"
    assert read_cursor(text, ["eu-2", "us", "jp"]) == places
    assert read_cursor(text, ["us"]) == {"us": places["us"]}


@pytest.mark.parametrize(
    "text", ["", "x", "us", "us:1-1:1:9f3ac1,", "us:1-1:1:9f3ac1\n", "us:1-1:1:9F3AC1", "x" * 99_999]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """With the reason of a bad cursor."""
    with pytest.raises(BadRequest) as caught:
        read_cursor(text, ["us"])
    assert caught.value.reason == "bad_cursor"

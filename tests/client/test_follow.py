"""The client's feed: every event arrives once, despite cut connections and restarts; lost events are an error; it ends
when it should."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest
from redis.asyncio import Redis

from receiver.client import (
    BalanceEventJson,
    Client,
    ClientClosed,
    CloudEventJson,
    EventsLost,
    FeedEvent,
    RefundEventJson,
    ResetJson,
    TransportError,
    feed,
    retrying,
)
from receiver.client.answers import EventPage
from receiver.http.feed import feed as served
from receiver.outbox.events.balance_event import balance_cloud_event
from receiver.store import Store
from tests.client.cutter import cutting
from tests.http.feed_kit import happened
from tests.http.kit import READER, Service, running
from tests.http.test_feed import chosen, metric
from tests.http.test_ipn_limits import Judge
from tests.kit.processes import until
from tests.outbox.test_balance_event import alarm


@pytest.fixture
async def service(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """Two accounts: us and eu. It soon notices that a client has gone."""
    monkeypatch.setattr(served, "ASK_EVERY", 0.1)
    async with running(chosen(), store, Judge()) as service:
        yield service


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.01)


def url_of(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}"


def number(item: FeedEvent) -> int:
    """Which refund it is about."""
    assert isinstance(item.event, RefundEventJson)
    assert item.event.data.refund_id == item.event.subject
    assert msgspec.json.decode(item.raw, type=CloudEventJson).id == item.event.id
    return int(item.event.subject[-6:])


async def read(client: Client, after: str, count: int) -> list[FeedEvent]:
    async with asyncio.timeout(30), aclosing(client.follow(after=after)) as events:
        found: list[FeedEvent] = []
        async for item in events:
            found.append(item)
            if len(found) == count:
                break
    return found


async def test_every_event_once_however_often_the_connection_is_cut(
    service: Service, store: Store, redis: Redis, soon: None, caplog: pytest.LogCaptureFixture
) -> None:
    """In the head, in the middle of a page, before the first byte of a long poll; meanwhile more happens."""
    await happened(store, redis, *range(60))
    async with cutting(service.port) as cutter, Client(cutter.url, token=READER) as client:
        assert [each async for each in client.list()] == []
        cutter.drop()
        cutter.plan = [1, 900, 20_000, 80_000, 100_000, 5]
        seen: list[int] = []
        with caplog.at_level(logging.INFO, "receiver.client"):
            async with asyncio.timeout(30), aclosing(client.follow(after="beginning")) as events:
                async for item in events:
                    seen.append(number(item))
                    if len(seen) in (60, 70, 80):
                        await happened(store, redis, *range(len(seen), len(seen) + 10))
                        cutter.drop()
                    if len(seen) == 90:
                        break
        assert seen == [*range(90)]
        assert cutter.cut >= 7
    assert "Trying again in 0.01 s. [cut]" in caplog.text
    assert "The service is back." in caplog.text


async def test_a_new_start_goes_on_after_the_cursor_of_any_event(
    service: Service, store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of a page, and with several accounts; a long text is in each."""
    monkeypatch.setattr(feed, "PAGE", 7)
    await happened(store, redis, *range(20))
    await happened(store, redis, *range(1000, 1010), account="eu")
    seen: list[int] = []
    after = "beginning"
    for count in (1, 2, 3, 5, 8, 11):
        async with Client(url_of(service), token=READER) as client:
            found = await read(client, after, count)
        seen += map(number, found)
        after = found[-1].cursor
    assert sorted(seen) == [*range(20), *range(1000, 1010)]


async def test_from_now_the_past_is_left_out(service: Service, store: Store, redis: Redis) -> None:
    """What happens while the program is not running is not left out."""
    await happened(store, redis, 1)
    async with Client(url_of(service), token=READER) as client:
        reading = asyncio.create_task(read(client, "", 1))
        await until(lambda: metric(service, "feed_clients") == 1, "it waits")
        await happened(store, redis, 2)
        (first,) = await reading
        assert number(first) == 2
        await happened(store, redis, 3, 4)
        assert [number(each) for each in await read(client, first.cursor, 2)] == [3, 4]


async def test_what_is_lost_is_an_error_unless_somebody_is_told(service: Service, store: Store, redis: Redis) -> None:
    """The store was emptied after the cursor; the feed then continues with the events that exist."""
    await happened(store, redis, 1, 2)
    lost: list[ResetJson] = []

    async def told(reset: ResetJson) -> None:
        lost.append(reset)

    async with Client(url_of(service), token=READER, account="us") as client:
        cursor = (await read(client, "beginning", 2))[-1].cursor
        await redis.flushall()
        await happened(store, redis, 3)
        with pytest.raises(EventsLost) as caught:
            await read(client, cursor, 1)
        assert (caught.value.reason, caught.value.accounts) == ("events_lost", {"us": "emptied"})
        async with asyncio.timeout(30), aclosing(client.follow(after=cursor, on_lost=told)) as events:
            assert number(await anext(events)) == 3
    assert [each.accounts for each in lost] == [{"us": "emptied"}]


async def test_closing_ends_what_waits(service: Service, store: Store) -> None:
    """With a specific error, and without a retry. The service notices at once."""
    client = Client(url_of(service), token=READER)
    waiting = asyncio.create_task(read(client, "", 1))
    await until(lambda: metric(service, "feed_clients") == 1, "it waits")
    await client.aclose()
    with pytest.raises(ClientClosed) as caught:
        await waiting
    assert caught.value.reason == "client_closed"
    with pytest.raises(ClientClosed):
        await client.get("S01-1")
    await client.aclose()
    await until(lambda: metric(service, "feed_clients") == 0, "the service has noticed")


async def test_a_cancelled_reader_leaves_nothing_behind(service: Service, store: Store, redis: Redis) -> None:
    """No task, and the client still works."""
    async with Client(url_of(service), token=READER) as client:
        before = asyncio.all_tasks()
        waiting = asyncio.create_task(read(client, "", 1))
        await until(lambda: metric(service, "feed_clients") == 1, "it waits")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: metric(service, "feed_clients") == 0, "the service has noticed")
        own = [task for task in asyncio.all_tasks() - before if "receiver/client" in str(task.get_coro())]
        assert own == []
        await happened(store, redis, 1)
        assert number((await read(client, "beginning", 1))[0]) == 1


async def test_the_first_call_does_not_wait_for_a_service_that_is_not_there() -> None:
    """Its address is probably wrong."""
    async with Client("http://127.0.0.1:1", token="t") as client:
        with pytest.raises(TransportError):
            await read(client, "", 1)


def test_events_are_read_by_their_type() -> None:
    """An event of a newer service may have any data. A page of an older service, without cursors, is read as a
    whole."""
    raw = msgspec.json.encode(balance_cloud_event(alarm()))
    later = raw.replace(b"amazonpay.balance.suspected", b"amazonpay.balance.later")
    page = EventPage(events=[msgspec.Raw(raw), msgspec.Raw(later)], cursors=["a", "b"], after="c", more=False)
    first, second = feed.events_of(page, "start")
    assert isinstance(first.event, BalanceEventJson)
    assert first.event.data.count == 3
    assert type(second.event) is CloudEventJson
    assert second.event.data["count"] == 3
    assert [first.cursor, second.cursor] == ["a", "c"]
    older = EventPage(events=[msgspec.Raw(raw), msgspec.Raw(raw)], after="c", more=False)
    assert [each.cursor for each in feed.events_of(older, "start")] == ["start", "c"]


async def test_an_event_counts_as_read_when_the_next_is_asked_for(service: Service, store: Store, redis: Redis) -> None:
    """So a program that is stopped while it handles one gets it again, and none before it."""
    await happened(store, redis, 1, 2, 3)

    async def look(page: EventPage) -> None:
        assert len(page.events) == 3

    async with Client(url_of(service), token=READER, account="us") as client:
        steadily = retrying.RetryingCaller(client, lambda error, seconds: None)
        follower = feed.EventFollower(client, steadily, types=(), reasons=(), after="beginning")
        async with aclosing(follower.events(look)) as events:
            first, second = await anext(events), await anext(events)
        assert follower.after == first.cursor
        assert [number(each) for each in await read(client, follower.after, 2)] == [number(second), 3]

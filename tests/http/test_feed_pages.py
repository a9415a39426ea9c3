"""`GET /v1/events` as JSON pages: cursors, limits, long polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from receiver.http.feed import feed, hub
from receiver.http.feed.reader import EVENT_STREAM
from receiver.outbox.events.operator_event import OperatorType, operator_event, operator_fields
from receiver.store import Store
from tests.http.feed_kit import happened, refund_id, settled, stream
from tests.http.kit import US_ONLY, Service, real_receiver, running
from tests.http.test_feed import EU, US, chosen, metric
from tests.kit.processes import until
from tests.kit.sns import SnsSigner

FROM_START = "/v1/events?after=beginning"


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    """Two accounts: us and eu."""
    async with running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service:
        yield service


def numbers(page: Any) -> list[int]:
    return [int(event["subject"][-6:]) for event in page["events"]]


async def test_pages_until_there_is_no_more(service: Service, store: Store, redis: Redis) -> None:
    """Every event once, in each account's order, whatever the limit."""
    await happened(store, redis, *range(110))
    await happened(store, redis, *range(1000, 1005), account="eu")
    for limit in (1, 7, 100, 500):
        cursor, seen, more = "beginning", [], True
        while more:
            answer = await service.get(f"/v1/events?limit={limit}&after={cursor}")
            assert (answer.status, answer.headers["Vary"]) == (200, "Accept")
            page = answer.json
            assert set(page) == {"events", "cursors", "after", "more"}
            assert len(page["events"]) <= limit
            cursor, more = page["after"], page["more"]
            seen += numbers(page)
        assert sorted(seen) == [*range(110), *range(1000, 1005)]
        assert [number for number in seen if number < 1000] == list(range(110))
    again = (await service.get(f"/v1/events?after={cursor}")).json
    assert again == {"events": [], "cursors": [], "after": cursor, "more": False}


async def test_a_page_and_a_stream_share_their_cursors(service: Service, store: Store, redis: Redis) -> None:
    """Begin with pages, go on live."""
    await happened(store, redis, 1, 2, 3)
    page = (await service.get(f"{FROM_START}&limit=2")).json
    assert numbers(page) == [1, 2]
    async with stream(service.port, last_id=page["after"]) as client:
        (event,) = await client.events(1)
        assert event.subject == refund_id(3)
    assert (await service.get(f"/v1/events?after={client.last_id}")).json["events"] == []
    body = (await service.get(FROM_START)).json["events"][2]
    assert body == event.json


async def test_every_event_has_a_cursor(service: Service, store: Store, redis: Redis) -> None:
    """The rest of the page follows after it; events that the filters leave out change nothing."""
    await happened(store, redis, 1, 2, 3)
    await happened(store, redis, 1000, 1001, account="eu")
    page = (await service.get(FROM_START)).json
    assert len(page["cursors"]) == len(page["events"]) == 5
    for number, cursor in enumerate(page["cursors"], 1):
        rest = (await service.get(f"/v1/events?after={cursor}")).json
        assert rest["events"] == page["events"][number:]


async def test_without_a_cursor_a_page_is_of_now(service: Service, store: Store, redis: Redis) -> None:
    """It has no events, and the cursor to go on from."""
    await happened(store, redis, 1)
    page = (await service.get("/v1/events")).json
    assert page["events"] == []
    await happened(store, redis, 2)
    assert numbers((await service.get(f"/v1/events?after={page['after']}")).json) == [2]


async def test_a_long_poll_wakes_with_the_commit(
    service: Service, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit ends the wait, not periodic polling; filtered events do not end it."""
    monkeypatch.setattr(hub, "LOOK_EVERY", 60.0)
    monkeypatch.setattr(feed, "ASK_EVERY", 60.0)
    after = (await service.get("/v1/events")).json["after"]
    poll = asyncio.create_task(service.get(f"/v1/events?type=declined&wait=30&after={after}"))
    await until(lambda: metric(service, "feed_clients") == 1, "it waits")
    await settled(store, 1, "Refunded")
    clock = asyncio.get_running_loop().time
    began = clock()
    await settled(store, 2)
    page = (await poll).json
    assert clock() - began < 10
    assert numbers(page) == [2]
    assert numbers((await service.get(f"/v1/events?after={after}")).json) == [1, 2]


async def test_a_long_poll_without_news_ends_in_time(service: Service) -> None:
    """With no events, and the cursor it came with."""
    after = (await service.get("/v1/events")).json["after"]
    clock = asyncio.get_running_loop().time
    began = clock()
    page = (await service.get(f"/v1/events?wait=1&after={after}")).json
    assert 0.9 <= clock() - began < 20
    assert page == {"events": [], "cursors": [], "after": after, "more": False}


async def test_a_long_poll_is_answered_when_the_server_ends(sns: SnsSigner, store: Store) -> None:
    """At once."""
    clock = asyncio.get_running_loop().time
    async with running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service:
        poll = asyncio.create_task(service.get("/v1/events?wait=30"))
        await until(lambda: metric(service, "feed_clients") == 1, "it waits")
        began = clock()
        service.end()
        assert (await poll).json["events"] == []
    assert clock() - began < 20


async def test_a_filtered_page_says_that_there_is_more(service: Service, store: Store, redis: Redis) -> None:
    """It looks through many events for one that is wanted, not through all; the cursor has moved on."""
    await happened(store, redis, *range(2500))
    await settled(store, 9000, "Refunded")
    first = (await service.get(f"{FROM_START}&type=refunded&account=us")).json
    assert (first["events"], first["more"]) == ([], True)
    second = (await service.get(f"/v1/events?type=refunded&account=us&after={first['after']}")).json
    assert (numbers(second), second["more"]) == ([9000], False)


async def test_a_loss_is_said(service: Service, store: Store, redis: Redis) -> None:
    """Trimmed: with the events that are still there. Emptied: also where there are none, and at once."""
    await happened(store, redis, *range(6))
    cursor = (await service.get(f"{FROM_START}&limit=1")).json["after"]
    await redis.xtrim(US, maxlen=2, approximate=False)
    page = (await service.get(f"/v1/events?after={cursor}")).json
    assert page["reset"]["accounts"] == {"us": "trimmed"}
    assert numbers(page) == [4, 5]
    assert "reset" not in (await service.get(f"/v1/events?after={page['after']}")).json
    await redis.flushall()
    emptied = (await service.get(f"/v1/events?wait=30&after={page['after']}")).json
    assert emptied["reset"]["accounts"] == {"us": "emptied", "eu": "emptied"}
    assert emptied["events"] == []


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("after=nonsense", "bad_cursor"),
        ("after=us:1-1:1", "bad_cursor"),
        ("after=us:1-1:1:abcdef,", "bad_cursor"),
        ("after=us:1-1:1:abcdef,us:2-1:1:abcdef", "bad_cursor"),
        ("after=jp:1-1:1:abcdef", "bad_cursor"),
        ("after=us:99999999999999999999-1:1:abcdef", "bad_cursor"),
        ("limit=0", "bad_parameter"),
        ("limit=501", "bad_parameter"),
        ("wait=31", "bad_parameter"),
        ("type=refuse", "bad_parameter"),
        ("reason=no%20word", "bad_parameter"),
        ("last=1", "unknown_parameter"),
    ],
)
async def test_what_is_wrong_is_400(service: Service, query: str, reason: str) -> None:
    """For a page and for a stream, before its first byte."""
    page = await service.get(f"/v1/events?{query}")
    assert (page.status, page.json["reason"]) == (400, reason)
    if query.partition("=")[0] in ("after", "type", "reason"):
        streamed = await service.get(f"/v1/events?{query}", Accept=EVENT_STREAM)
        assert (streamed.status, streamed.json["reason"]) == (400, reason)
    if reason == "bad_cursor":
        resumed = await service.get("/v1/events", Accept=EVENT_STREAM, Last_Event_ID=query.removeprefix("after="))
        assert (resumed.status, resumed.json["reason"]) == (400, reason)


async def test_a_near_miss_is_named(service: Service) -> None:
    """As for parameters."""
    assert "Did you mean declined?" in (await service.get("/v1/events?type=decline")).json["detail"]


async def test_a_token_for_one_account(service: Service, store: Store, redis: Redis) -> None:
    """Its pages have no other account's events, and its cursor no other account."""
    await happened(store, redis, 1)
    await happened(store, redis, 101, account="eu")
    page = (await service.get(FROM_START, token=US_ONLY)).json
    assert numbers(page) == [1]
    assert page["after"].startswith("us:")
    assert "eu" not in page["after"]
    assert await redis.xlen(EU) == 1


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream", EVENT_STREAM),
        ("application/json, Text/Event-Stream;q=0.5", EVENT_STREAM),
        ("text/event-stream;q=0", "application/json"),
        ("text/event-stream;q=0.000", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
    ],
)
async def test_what_accept_asks_for(service: Service, accept: str, kind: str) -> None:
    answer = await service.call("HEAD", "/v1/events", token="reader-token", headers={"Accept": accept})
    assert answer.headers["Content-Type"].partition(";")[0] == kind


async def test_what_is_for_operators_is_passed_over(service: Service, store: Store, redis: Redis) -> None:
    """It is in the same stream and about no refund, but does not count as an unreadable entry."""
    await happened(store, redis, 1)
    event = operator_event(OperatorType.DEAD, "us", "finance", "exhausted", "An event was given up.", 1)
    fields: dict[Any, Any] = {**operator_fields(event)}
    await redis.xadd("refunds:{us}:events", fields)
    await happened(store, redis, 2)
    with capture_logs() as logs:
        assert numbers((await service.get(FROM_START)).json) == [1, 2]
    assert [line for line in logs if line["log_level"] == "error"] == []

"""`GET /v1/events` as a stream: exact resume, lost events are reported, slow clients harm no other."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from receiver.http.feed import feed
from receiver.http.feed.hub import AWAY, BACK
from receiver.http.feed.stream import Timing
from receiver.outbox.events.event import from_fields
from receiver.outbox.formats.cloudevents import render_body
from receiver.settings import Settings
from receiver.settings.sections import FeedSettings
from receiver.store import Store
from receiver.store.redis.pipeline import connect
from receiver.track.current import current_events
from tests.http.feed_kit import Client, happened, numbers, refund_id, settled, stream
from tests.http.kit import ADMIN, READER, US_ONLY, Service, real_receiver, running, settings
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.kit.sns import SnsSigner
from tests.kit.valkey import start_valkey, stop_valkey

US, EU = "refunds:{us}:events", "refunds:{eu}:events"
FROM_START = "/v1/events?after=beginning"


def chosen(clients: int = 100, buffer: int = 1000, clients_per_token: int | None = None) -> Settings:
    """Two accounts, and these bounds of the feed."""
    feed = FeedSettings(clients=clients, buffer=buffer, clients_per_token=clients_per_token)
    return settings("us", "eu").model_copy(update={"feed": feed})


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    """Two accounts: us and eu."""
    async with running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service:
        yield service


def metric(service: Service, name: str, **labels: str) -> float:
    return service.metrics.registry.get_sample_value(f"receiver_{name}", labels) or 0.0


async def test_an_event_is_what_webhooks_get(service: Service, store: Store, redis: Redis) -> None:
    """Type, one line of data, a cursor as id; before it the hint for reconnecting, and the headers of a stream."""
    async with stream(service.port) as client:
        assert (client.status, client.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert (client.headers["cache-control"], client.headers["x-accel-buffering"]) == ("no-store", "no")
        assert "content-length" not in client.headers
        hello = await client.next()
        assert hello is not None
        assert (hello.event, hello.retry, hello.json) == ("cursor", "3000", {"after": hello.id})
        await settled(store, 1)
        (event,) = await client.events(1)
        assert event.event == "amazonpay.refund.declined"
        entries: Any = await redis.xrange(US)
        [(_, fields)] = entries
        told = from_fields("us", {name.decode(): value.decode() for name, value in fields.items()})
        [now] = await current_events(store.of("us"), [told])
        assert event.data.encode() == render_body(now)
        assert b'"asOf":"' in event.data.encode()
        assert event.id != hello.id
        assert metric(service, "feed_clients") == 1
    await until(lambda: metric(service, "feed_clients") == 0, "the client is gone")
    assert metric(service, "feed_events_total", form="sse") == 1


async def test_without_a_cursor_it_starts_from_now(service: Service, store: Store, redis: Redis) -> None:
    """With `beginning` or 0 from the oldest that is kept."""
    await happened(store, redis, 1, 2)
    async with stream(service.port) as now, stream(service.port, FROM_START) as all_of_it:
        await now.until("cursor")
        assert numbers(await all_of_it.events(2)) == [1, 2]
        await happened(store, redis, 3)
        assert numbers(await now.events(1)) == [3]
        assert numbers(await all_of_it.events(1)) == [3]
    async with stream(service.port, "/v1/events?after=0") as client:
        assert numbers(await client.events(3)) == [1, 2, 3]


async def test_exact_resume_over_a_restart(sns: SnsSigner, store: Store, redis: Redis) -> None:
    """From any event, by the header or the parameter, over as many servers as it takes: each event once."""
    seen: list[int] = []
    last_id, written = "", 0
    for _ in range(3):
        async with running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service:
            await happened(store, redis, *range(written, written + 250))
            written += 250
            async with stream(service.port, FROM_START, last_id=last_id) as client:
                seen += numbers(await client.events(170))
                last_id = client.last_id
    async with (
        running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service,
        stream(service.port, f"/v1/events?after={last_id}") as client,
    ):
        seen += numbers(await client.events(written - len(seen)))
        await happened(store, redis, written)
        seen += numbers(await client.events(1))
    assert seen == list(range(written + 1))


async def test_no_gap_and_nothing_twice_while_catching_up(service: Service, store: Store, redis: Redis) -> None:
    """Clients come all the time while events are written all the time; each has every event once, in order."""
    total = 400

    async def write() -> None:
        for number in range(total):
            await happened(store, redis, number, account="eu" if number % 3 else "us")

    async def follow(delay: int) -> list[int]:
        await until(lambda: metric(service, "feed_events_total", form="sse") >= delay, "some events are out")
        async with stream(service.port, FROM_START) as client:
            return numbers(await client.events(total))

    followers = [asyncio.create_task(follow(delay)) for delay in range(0, 1000, 50)]
    await write()
    for order in await asyncio.gather(*followers):
        assert sorted(order) == list(range(total))
        for of_account in ([n for n in order if n % 3], [n for n in order if not n % 3]):
            assert of_account == sorted(of_account)


async def test_bye_when_the_server_ends(sns: SnsSigner, store: Store, redis: Redis) -> None:
    """With a hint to come back soon, and the place to go on from."""
    async with AsyncExitStack() as clients:
        async with running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service:
            found = [await clients.enter_async_context(stream(service.port)) for _ in range(5)]
            for client in found:
                await client.until("cursor")
            await happened(store, redis, 1)
            for client in found:
                await client.events(1)
        for client in found:
            here = client.last_id
            bye = await client.until("bye")
            assert (bye.retry, bye.id, bye.json) == ("1000", here, {"reason": "shutdown", "after": here})
            assert await client.next() is None


async def test_trimmed_past_the_cursor_is_said(service: Service, store: Store, redis: Redis) -> None:
    """The feed goes on from the oldest that is kept. Trimmed just up to the cursor, nothing is lost or said."""
    await happened(store, redis, *range(6))
    async with stream(service.port, FROM_START) as client:
        ids = [event.id for event in await client.events(6)]
    await redis.xtrim(US, maxlen=3, approximate=False)
    async with stream(service.port, last_id=ids[2]) as client:
        assert numbers(await client.events(3)) == [3, 4, 5]
    async with stream(service.port, last_id=ids[1]) as client:
        reset = await client.until("reset")
        assert reset.json["accounts"] == {"us": "trimmed"}
        assert reset.json["after"] == reset.id
        assert numbers(await client.events(3)) == [3, 4, 5]
    async with stream(service.port, last_id=reset.id) as client:
        assert numbers(await client.events(3)) == [3, 4, 5]
    await redis.xtrim(US, maxlen=0, approximate=False)
    async with stream(service.port, last_id=ids[4]) as behind, stream(service.port, last_id=ids[5]) as up_to_date:
        assert (await behind.until("reset")).json["accounts"] == {"us": "trimmed"}
        await happened(store, redis, 6)
        assert numbers(await behind.events(1)) == numbers(await up_to_date.events(1)) == [6]
    async with stream(service.port, FROM_START) as client:
        assert numbers(await client.events(1)) == [6]


@pytest.mark.parametrize("refilled", [0, 1, 9])
async def test_an_emptied_store_is_said(service: Service, store: Store, redis: Redis, refilled: int) -> None:
    """To a client that comes back with a cursor, even if there are already more events again than before."""
    await happened(store, redis, *range(4))
    async with stream(service.port, FROM_START) as client:
        await client.events(3)
    await redis.flushall()
    await happened(store, redis, *range(10, 10 + refilled))
    async with stream(service.port, last_id=client.last_id) as client:
        resets = [(await client.until("reset")).json["accounts"] for _ in range(2)]
        assert resets == [{"us": "emptied"}, {"eu": "emptied"}]
        await happened(store, redis, 50)
        assert numbers(await client.events(refilled + 1)) == [*range(10, 10 + refilled), 50]


async def test_a_store_that_is_emptied_under_listeners_is_said(service: Service, store: Store, redis: Redis) -> None:
    """To every client that is connected at that moment; later events come after it."""
    await happened(store, redis, *range(4))
    async with stream(service.port, FROM_START) as one, stream(service.port, "/v1/events?account=us") as other:
        await one.events(4)
        await other.until("cursor")
        await redis.flushall()
        await happened(store, redis, 5)
        assert {(await one.until("reset")).json["accounts"]["us"]} == {"emptied"}
        assert (await other.until("reset")).json["accounts"] == {"us": "emptied"}
        assert numbers(await other.events(1)) == [5]
        assert (await one.until("amazonpay.refund.declined")).subject == refund_id(5)


async def test_several_accounts_in_one_cursor(service: Service, store: Store, redis: Redis) -> None:
    """Each account continues where it was. One that is not in the cursor is sent from its beginning, because it may be
    new."""
    await happened(store, redis, 1, 2)
    await happened(store, redis, 101, 102, account="eu")
    async with stream(service.port, FROM_START) as client:
        assert sorted(numbers(await client.events(4))) == [1, 2, 101, 102]
    await happened(store, redis, 103, account="eu")
    await happened(store, redis, 3)
    async with stream(service.port, last_id=client.last_id) as resumed:
        assert sorted(numbers(await resumed.events(2))) == [3, 103]
    async with stream(service.port, f"{FROM_START}&account=us") as client:
        assert numbers(await client.events(3)) == [1, 2, 3]
    async with stream(service.port, last_id=client.last_id) as client:
        assert numbers(await client.events(3)) == [101, 102, 103]


async def test_a_token_for_one_account_sees_no_other(service: Service, store: Store, redis: Redis) -> None:
    """Neither from the beginning, nor live, nor by the cursor of a token that sees more."""
    await happened(store, redis, 1)
    await happened(store, redis, 101, account="eu")
    async with stream(service.port, FROM_START) as everybody:
        await everybody.until("cursor")
        cursor = everybody.last_id
    async with (
        stream(service.port, FROM_START, token=US_ONLY) as one,
        stream(service.port, last_id=cursor, token=US_ONLY) as other,
    ):
        for client in (one, other):
            assert numbers(await client.events(1)) == [1]
        await happened(store, redis, 102, account="eu")
        await happened(store, redis, 2)
        for client in (one, other):
            assert numbers(await client.events(1)) == [2]
            assert "eu" not in client.last_id
    answer = await service.get("/v1/events?account=eu", token=US_ONLY)
    assert (answer.status, answer.json["reason"]) == (404, "no_such_account")
    answer = await service.get("/v1/events", token=ADMIN)
    assert (answer.status, answer.json["reason"]) == (403, "scope_missing")


async def test_filters(service: Service, store: Store, redis: Redis) -> None:
    """By type, with or without its prefix, and by reason."""
    declined, rejected = f"{FROM_START}&type=declined,amazonpay.refund.stuck", f"{FROM_START}&reason=AmazonRejected"
    async with stream(service.port, declined) as by_type, stream(service.port, rejected) as by_reason:
        await settled(store, 1, "Refunded")
        await settled(store, 2, reason="ProcessingFailure")
        await settled(store, 3)
        assert numbers(await by_type.events(2)) == [2, 3]
        assert numbers(await by_reason.events(1)) == [3]


async def test_an_entry_that_cannot_be_read_harms_no_other(service: Service, store: Store, redis: Redis) -> None:
    """Such as one written by hand."""
    await happened(store, redis, 1)
    await redis.xadd(US, {"type": "nonsense", "raw": b"\xff"})
    await happened(store, redis, 2)
    async with stream(service.port, FROM_START) as client:
        assert numbers(await client.events(2)) == [1, 2]
    answer = await service.get(FROM_START)
    assert [event["subject"] for event in answer.json["events"]] == [refund_id(1), refund_id(2)]


async def test_signs_of_life(sns: SnsSigner, store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment while nothing happens; a new cursor where filters have passed over events, so that it stays young."""
    monkeypatch.setattr(feed, "Timing", lambda: Timing(heartbeat=0.1))
    async with (
        running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service,
        stream(service.port, "/v1/events?type=stuck") as client,
    ):
        await client.until("cursor")
        before = client.last_id
        said = await client.next()
        assert said is not None
        assert said.comment == "still here"
        await happened(store, redis, 1)
        cursor = await client.until("cursor")
        assert cursor.id != before
    async with running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service:
        await happened(store, redis, 2)
        async with stream(service.port, last_id=cursor.id) as client:
            assert numbers(await client.events(1)) == [2]


async def test_a_slow_client_is_cut_off_and_resumes(sns: SnsSigner, store: Store, redis: Redis) -> None:
    """The others have every event meanwhile, and the slow one has it when it comes back."""
    total, text = 2000, "x" * 1000
    async with running(chosen(buffer=150), store, real_receiver(sns, store, "us", "eu")) as service:
        async with stream(service.port) as quick, stream(service.port, receive_buffer=4096) as slow:
            await quick.until("cursor")
            await slow.until("cursor")
            seen: list[int] = []
            for first in range(0, total, 100):
                await happened(store, redis, *range(first, first + 100), text=text)
                seen += numbers(await quick.events(100))
            assert seen == list(range(total))
            await until(lambda: metric(service, "feed_clients_cut_total") == 1, "the slow one is cut off")
            assert metric(service, "feed_clients") == 1
            had = await all_that_comes(slow)
            assert len(had) < total
            await happened(store, redis, total)
            assert numbers(await quick.events(1)) == [total]
        async with stream(service.port, last_id=slow.last_id) as back:
            had += numbers(await back.events(total + 1 - len(had)))
        assert had == list(range(total + 1))


async def all_that_comes(client: Client) -> list[int]:
    """What was still on its way to a client that was cut off."""
    found = []
    while (said := await client.next()) is not None:
        if said.event.startswith("amazonpay."):
            found += numbers([said])
    return found


async def test_a_client_that_takes_nothing_is_cut_off_in_time(
    sns: SnsSigner, store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is still reading old pages, and the buffer does not grow."""
    monkeypatch.setattr(feed, "Timing", lambda: Timing(stall=0.3))
    await happened(store, redis, *range(3000), text="x" * 1000)
    async with (
        running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service,
        stream(service.port, FROM_START, receive_buffer=4096),
    ):
        await until(lambda: metric(service, "feed_clients_cut_total") == 1, "it is cut off")
        await until(lambda: metric(service, "feed_clients") == 0, "its seat is free")


async def test_a_client_that_takes_nothing_does_not_hold_up_the_end(sns: SnsSigner, store: Store, redis: Redis) -> None:
    """It has two seconds for its `bye`; the others have had theirs."""
    await happened(store, redis, *range(2000), text="x" * 1000)
    clock = asyncio.get_running_loop().time
    async with AsyncExitStack() as clients:
        async with running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service:
            quick = await clients.enter_async_context(stream(service.port))
            await quick.until("cursor")
            await clients.enter_async_context(stream(service.port, FROM_START, receive_buffer=4096))
            await until(lambda: stuck(service), "it takes no more")
            began = clock()
            service.end()
            await quick.until("bye")
        assert clock() - began < 10
        assert metric(service, "feed_clients") == 0


async def stuck(service: Service) -> bool:
    """Whether no event was sent for a while."""
    before = metric(service, "feed_events_total", form="sse")
    await asyncio.sleep(0.2)
    return before > 0 and metric(service, "feed_events_total", form="sse") == before


async def test_what_is_older_does_not_go_through_the_buffer(sns: SnsSigner, store: Store, redis: Redis) -> None:
    """A client that comes back after a long time reads pages as fast as it can, and is not cut off."""
    await happened(store, redis, *range(350))
    async with running(chosen(buffer=10), store, real_receiver(sns, store, "us", "eu")) as service:
        before = await commands(redis)
        async with stream(service.port, FROM_START + "&account=us") as client:
            assert numbers(await client.events(350)) == list(range(350))
            assert await commands(redis) - before <= 20
        assert metric(service, "feed_clients_cut_total") == 0


async def test_too_many_clients(sns: SnsSigner, store: Store) -> None:
    """503 with Retry-After; a seat that becomes free is given again, whether a page waits or a stream runs."""
    async with running(chosen(clients=2, clients_per_token=2), store, real_receiver(sns, store, "us", "eu")) as service:
        async with stream(service.port) as one:
            await one.until("cursor")
            waiting = asyncio.create_task(service.get("/v1/events?wait=30"))
            await until(lambda: metric(service, "feed_clients") == 2, "both have a seat")
            for headers in ({"Accept": "text/event-stream"}, {}):
                full = await service.get("/v1/events?wait=1" if not headers else "/v1/events", **headers)
                assert (full.status, full.json["reason"], full.headers["Retry-After"]) == (503, "feed_full", "5")
            assert (await service.get("/v1/events")).status == 200
        await until(lambda: metric(service, "feed_clients") == 1, "one has gone")
        async with stream(service.port) as other:
            assert other.status == 200
        waiting.cancel()


async def commands(redis: Redis) -> int:
    """How many scripts, and so feed reads, Valkey has run."""
    stats: dict[str, Any] = await redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("eval", "evalsha"))


async def test_reads_do_not_grow_with_clients(service: Service, store: Store, redis: Redis) -> None:
    """Fifty clients cost as many reads as one: only the two tails read."""
    counts, clock = {}, asyncio.get_running_loop().time
    for size in (1, 50):
        async with AsyncExitStack() as clients:
            found = [await clients.enter_async_context(stream(service.port)) for _ in range(size)]
            for client in found:
                await client.until("cursor")
            before, began = await commands(redis), clock()
            for number in range(20):
                await happened(store, redis, number)
                for client in found:
                    assert numbers(await client.events(1)) == [number]
            # One a second for each account would be read without events as well.
            counts[size] = await commands(redis) - before - 2 * (clock() - began)
        await until(lambda: metric(service, "feed_clients") == 0, "all are gone")
    assert max(counts.values()) <= 40, counts


async def test_a_store_that_is_away(sns: SnsSigner) -> None:
    """503 before the first byte; later a comment, and the feed goes on when the store is back."""
    folder = Path(tempfile.mkdtemp(prefix="rv-"))
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    valkey, url = start_valkey(folder, *durable)
    store, redis = Store(connect(url), clock=ManualClock()), connect(url)
    try:
        async with running(chosen(), store, real_receiver(sns, store, "us", "eu")) as service:
            async with stream(service.port, "/v1/events?account=us") as client:
                await client.until("cursor")
                await happened(store, redis, 1)
                assert numbers(await client.events(1)) == [1]
                stop_valkey(valkey)
                for headers in ({"Accept": "text/event-stream"}, {}):
                    answer = await service.get("/v1/events", **headers)
                    assert (answer.status, answer.json["reason"]) == (503, "store_unreachable")
                said = await client.next()
                assert said is not None
                assert said.comment == AWAY
                valkey, _ = start_valkey(folder, *durable)
                said = await client.next()
                assert said is not None
                assert said.comment == BACK
                await happened(store, redis, 2)
                assert numbers(await client.events(1)) == [2]
            assert metric(service, "feed_clients_cut_total") == 0
    finally:
        await redis.aclose()
        await store.close()
        stop_valkey(valkey)
        shutil.rmtree(folder)


async def test_head(service: Service) -> None:
    """The headers that GET would have, at once, and no seat is taken."""
    answer = await service.call("HEAD", "/v1/events", token=READER, headers={"Accept": "text/event-stream"})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert "Content-Length" not in answer.headers
    answer = await service.call("HEAD", "/v1/events?wait=30", token=READER)
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "application/json", b"")
    answer = await service.call("HEAD", "/v1/events?after=nonsense", token=READER)
    assert answer.status == 400
    assert metric(service, "feed_clients") == 0

"""Workers in general: what wakes them, how often they look, and what they do when Redis fails."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.amazon.throttle import Bucket, Call
from receiver.errors import StoreUnavailable
from receiver.runtime import rounds
from receiver.runtime.metrics import Metrics
from receiver.service import system_clock
from receiver.store import Store
from receiver.store.redis.base import RedisRepository
from receiver.store.redis.clock import Clock
from receiver.store.redis.keys import WAKE
from receiver.store.redis.pipeline import Pipeline, connect
from receiver.store.redis.wakeups import News
from receiver.transport.client import Transport
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.kit.proxy import proxied
from tests.kit.valkey import start_valkey, stop_valkey
from tests.service.depot import Depot, depot, make_deliverer
from tests.service.desk import Bench, account_at, bench, desk, make_tracker, refund
from tests.service.kit import LEASE, at_work, pass_time, trust
from tests.service.stage import Hook
from tests.store.makers import hint, refund_id

FOR_EVER = 3600.0


@pytest.fixture
async def tracking(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Bench]:
    """A tracker on an empty store; its Amazon knows every refund as declined."""
    async with bench(store, redis, clock) as found:
        found.desk.then = refund("Declined", reason="AmazonRejected")
        yield found


@pytest.fixture
async def delivering(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Depot]:
    """A deliverer on an empty store."""
    async with depot(store, redis, clock) as found:
        yield found


@pytest.fixture
async def hook(delivering: Depot) -> AsyncIterator[Hook]:
    """Its only subscriber."""
    async with Hook().listening() as found:
        await delivering.subscribe(found)
        yield found


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory with a name short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="rv-") as directory:
        yield Path(directory)


def afterwards(
    monkeypatch: pytest.MonkeyPatch, store: RedisRepository, name: str, then: Callable[[], Awaitable[object]]
) -> None:
    """Run `then` once between this answer of the store and the worker's next step."""
    real = getattr(store, name)

    async def answered(*args: Any, **more: Any) -> Any:
        found = await real(*args, **more)
        monkeypatch.setattr(store, name, real)
        await then()
        return found

    monkeypatch.setattr(store, name, answered)


async def test_a_hint_that_comes_between_look_and_rest_is_not_slept_through(
    tracking: Bench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracker found nothing, and a hint came before it rested. Here it looks again only if it is woken."""
    monkeypatch.setattr(rounds, "IDLE", FOR_EVER)
    afterwards(monkeypatch, store.of("us").schedule, "claim", lambda: store.of("us").schedule.hint(hint()))
    async with at_work(tracking.tracker.run):
        await until(lambda: tracking.desk.asked, "Amazon is asked")


async def test_an_event_that_comes_between_look_and_rest_is_not_slept_through(
    delivering: Depot, hook: Hook, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for the deliverer."""
    monkeypatch.setattr(rounds, "IDLE", FOR_EVER)
    afterwards(monkeypatch, store.of("us").deliveries, "queue_heads", delivering.owe)
    async with at_work(delivering.deliverer.run):
        await until(lambda: hook.posts, "the post")


async def test_a_full_tracker_goes_on_as_soon_as_one_look_ends(
    tracking: Bench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next second: here that is never."""
    monkeypatch.setattr(rounds, "IDLE", FOR_EVER)
    tracking.tracker.rounds.concurrency = 2
    tracking.desk.answers = [refund("Refunded", number) for number in range(12)]
    await asyncio.gather(*(store.of("us").schedule.hint(hint(number, message=f"m{number}")) for number in range(12)))
    async with at_work(tracking.tracker.run):
        await until(lambda: len(tracking.desk.asked) == 12, "all are asked about")


@pytest.mark.parametrize(("per_subscriber", "concurrency"), [(1, 256), (8, 1)])
async def test_a_full_lane_goes_on_as_soon_as_one_delivery_ends(
    delivering: Depot, hook: Hook, monkeypatch: pytest.MonkeyPatch, per_subscriber: int, concurrency: int
) -> None:
    """Whether it is the lane or the account that has no room."""
    monkeypatch.setattr(rounds, "IDLE", FOR_EVER)
    delivering.deliverer.per_subscriber, delivering.deliverer.rounds.concurrency = per_subscriber, concurrency
    await delivering.owe(12)
    async with at_work(delivering.deliverer.run):
        await until(lambda: len(hook.posts) == 12, "all are posted")


async def commands(redis: Any) -> dict[str, int]:
    """How often each command was run."""
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


async def test_workers_with_nothing_to_do_look_once_a_second(
    tracking: Bench, delivering: Depot, hook: Hook, store: Store, redis: Any
) -> None:
    """No more, though a subscriber is there, a refund waits for its time, and another is throttled for ever."""
    slow = {**tracking.tracker.account.throttle, Call.GET_REFUND: Bucket(1, 0.0001)}
    tracking.tracker.amazon_client.account = account_at(tracking.desk, throttle=slow)
    await store.of("us").schedule.hint(hint(1))
    await redis.zadd("refunds:{us}:due", {refund_id(2): tracking.clock() + 1_500})
    async with at_work(tracking.tracker.run), at_work(delivering.deliverer.run):
        await until(lambda: tracking.desk.asked and not tracking.tracker.rounds.under_way, "the only token is used")
        await redis.config_resetstat()
        began = asyncio.get_running_loop().time()
        await store.of("nobody").changed(2.0)
        found = await commands(redis)
        looks = asyncio.get_running_loop().time() - began + 1
    # One may have been on its way when the counting began.
    assert found["evalsha"] <= 2 * looks + 1
    assert found["hgetall"] <= 2 * looks + 1


async def test_a_flood_of_hints_does_not_make_workers_run(
    tracking: Bench, delivering: Depot, hook: Hook, store: Store, redis: Any
) -> None:
    """While Amazon's throttle is empty a thousand hints cannot be asked about: a hundred rounds a second at most."""
    slow = {**tracking.tracker.account.throttle, Call.GET_REFUND: Bucket(1, 0.0001)}
    tracking.tracker.amazon_client.account = account_at(tracking.desk, throttle=slow)
    claims = rosters = 0
    us = store.of("us")
    claim, subscriber_list = us.schedule.claim, us.subscribers.read

    async def count_claim(*args: Any, **more: Any) -> Any:
        nonlocal claims
        claims += 1
        return await claim(*args, **more)

    async def count_roster() -> Any:
        nonlocal rosters
        rosters += 1
        return await subscriber_list()

    us.schedule.claim, us.subscribers.read = count_claim, count_roster  # type: ignore[method-assign]
    async with at_work(tracking.tracker.run), at_work(delivering.deliverer.run):
        began = asyncio.get_running_loop().time()
        for number in range(1000):
            await store.of("us").schedule.hint(hint(number, message=f"m{number}"))
        seconds = asyncio.get_running_loop().time() - began
    assert claims <= seconds * 100 + 5
    assert rosters <= seconds * 100 + 5


async def test_workers_without_redis_wait_and_go_on_when_it_is_there(socket_dir: Path, clock: ManualClock) -> None:
    """Two looks a second and no more; as soon as Redis answers, so do they, and no restart is needed."""
    errors: list[str] = []
    url = f"unix://{socket_dir}/valkey.sock"
    store = Store(connect(url, timeout=1.0, connect_timeout=1.0), clock=clock, on_error=errors.append)
    transport, metrics = Transport(tls=trust()), Metrics()
    async with desk() as amazon, Hook().listening() as subscriber:
        amazon.then = refund("Declined", reason="AmazonRejected")
        tracker = make_tracker(account_at(amazon), store, transport, metrics)
        async with depot(store, None, clock) as at:
            await store.start()
            async with at_work(tracker.run), at_work(at.deliverer.run):
                began = len(errors)
                with capture_logs() as logs:
                    await store.of("nobody").changed(1.5)
                assert 2 <= len(errors) - began <= 8
                assert {line["event"] for line in logs} <= {
                    "track.store_unavailable",
                    "deliver.store_unavailable",
                    "store.wakes_lost",
                }
                process, _ = start_valkey(socket_dir)
                try:
                    await at.subscribe(subscriber)
                    await store.of("us").schedule.hint(hint())
                    await until(lambda: subscriber.posts, "it is told")
                finally:
                    stop_valkey(process)
        await transport.close()
        await store.close()


async def declined(store: Store) -> bool:
    """Whether the refund is known to be declined."""
    known = await store.of("us").refunds.get(refund_id())
    return known is not None and known.state == "Declined"


@pytest.mark.parametrize("lost", range(10))
async def test_whichever_answer_of_redis_is_lost_the_refund_is_tracked_once(
    store: Store, redis: Any, clock: ManualClock, valkey_url: str, socket_dir: Path, lost: int
) -> None:
    """The commands ran, and the tracker does not know: the n-th answer is lost, and that of its repetition. When the
    lease is over it tries again: one state, one event, nothing left behind."""
    transport, metrics = Transport(tls=trust()), Metrics()
    async with proxied(valkey_url, socket_dir) as (proxy, url), desk() as amazon, Hook().listening() as subscriber:
        cut_off = Store(connect(url), clock=clock)
        amazon.then = refund("Declined", reason="AmazonRejected")
        async with depot(store, redis, clock) as at:
            await at.subscribe(subscriber)
        await store.of("us").schedule.hint(hint())
        proxy.skip, proxy.lose = lost, 2
        tracker = make_tracker(account_at(amazon), cut_off, transport, metrics)
        async with at_work(tracker.run):
            async with asyncio.timeout(30):
                while not await declined(store) or await redis.exists("refunds:{us}:due"):
                    pass_time(cut_off, clock, 0 if tracker.rounds.under_way else LEASE // 4)
                    await asyncio.sleep(0.01)
        await transport.close()
        await cut_off.close()
    assert await redis.xlen("refunds:{us}:events") == 1
    assert await redis.zcard("refunds:{us}:lane:all") == 1
    assert [line.state for line in await store.of("us").refunds.history(refund_id())] == ["Declined"]
    assert await redis.exists("refunds:{us}:hinted", "refunds:{us}:hints") == 0


@pytest.mark.parametrize("lost", range(10))
async def test_whichever_answer_of_redis_is_lost_the_event_is_delivered(
    store: Store, redis: Any, clock: ManualClock, valkey_url: str, socket_dir: Path, lost: int
) -> None:
    """Once, or where it was not known that it had been, twice with the same id; nothing is left behind."""
    transport, metrics = Transport(tls=trust()), Metrics()
    async with proxied(valkey_url, socket_dir) as (proxy, url), Hook().listening() as subscriber:
        cut_off = Store(connect(url), clock=clock)
        async with depot(store, redis, clock) as at:
            await at.subscribe(subscriber)
            await at.owe()
            deliverer = make_deliverer(cut_off, at.transport, metrics)
            proxy.skip, proxy.lose = lost, 2
            async with at_work(deliverer.run):
                async with asyncio.timeout(30):
                    while not await at.empty():
                        pass_time(cut_off, clock, 0 if deliverer.rounds.under_way else LEASE // 4)
                        await asyncio.sleep(0.01)
        await transport.close()
        await cut_off.close()
    assert 1 <= len(subscriber.posts) <= 2
    assert {each.headers["webhook-id"] for each in subscriber.posts} == {subscriber.events[0].get_id()}
    assert await redis.hlen("refunds:{us}:dead:all") == 0


async def test_an_error_that_nobody_foresaw_leaves_nobody_waiting(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop says `RuntimeError` where others say that the connection is closed: it is trouble with Redis all the
    same, and no worker waits for an answer that cannot come."""

    async def closed(_: Pipeline, commands: object) -> Any:
        raise RuntimeError("unable to perform operation on <UnixTransport closed=True>; the handler is closed")

    monkeypatch.setattr(Pipeline, "_send", closed)
    for call in (store.ping(), store.of("us").schedule.hint(hint())):
        async with asyncio.timeout(30):
            with pytest.raises(StoreUnavailable):
                await call


async def test_what_others_say_on_the_channel_does_not_deafen(store: Store, redis: Any) -> None:
    """Bytes that are no account's name wake no worker, and the next name is heard."""
    await store.start()
    await until(lambda: listeners(redis), "it listens")
    with store.of("us").change_signal() as waker:
        for said in (b"\xff\xfe", b"", b"us"):
            await redis.publish(WAKE, said)
        async with asyncio.timeout(30):
            await waker.rest(FOR_EVER)


async def test_who_writes_is_woken_once(store: Store, redis: Any) -> None:
    """At once, and not again by its own message: a useless round would delay the next write."""
    await store.start()
    await until(lambda: listeners(redis), "it listens")
    with (
        store.of("us").change_signal(News.DUE) as mine,
        store.of("us").change_signal() as idle,
        store.of("eu").change_signal() as other,
    ):
        await store.of("us").schedule.hint(hint())
        assert mine._changed.is_set()
        assert not idle._changed.is_set()
        mine.clear()
        await redis.publish(WAKE, "eu somebody changed")
        async with asyncio.timeout(30):
            await other.rest(FOR_EVER)
        assert not mine._changed.is_set()


async def test_another_process_hears_what_is_due_and_what_has_changed(store: Store, redis: Any) -> None:
    """Each of its workers hears what concerns it; a message without a kind concerns all."""
    await store.start()
    await until(lambda: listeners(redis), "it listens")
    kinds = [(f"us x {news}", {news}) for news in News]
    for word, rung in (*kinds, ("us", set(News))):
        with (
            store.of("us").change_signal(News.DUE) as due,
            store.of("us").change_signal() as changed,
            store.of("us").change_signal(News.DISPUTED) as disputed,
            store.of("us").change_signal(News.JOB) as job,
            store.of("eu").change_signal() as last,
        ):
            await redis.publish(WAKE, word)
            await redis.publish(WAKE, "eu x changed")
            async with asyncio.timeout(30):
                await last.rest(FOR_EVER)
            assert {each.kind for each in (due, changed, disputed, job) if each._changed.is_set()} == rung


async def listeners(redis: Any) -> int:
    """How many clients subscribe to the wake-up channel."""
    ((_, count),) = await redis.pubsub_numsub(WAKE)
    return int(count)


async def test_nobody_works_by_a_clock_that_is_wrong(valkey_url: str) -> None:
    """When the store has started, leases and schedules go by Redis's time, whatever the machine's clock says."""
    store = Store(connect(valkey_url), clock=Clock(system_clock=lambda: 0.0))
    assert store.now() < 60_000
    await store.start()
    assert abs(store.now() - system_clock()) < 5_000
    await store.close()


async def test_workers_that_stop_leave_nothing_running(
    tracking: Bench, delivering: Depot, hook: Hook, store: Store
) -> None:
    """However often they are started and stopped, at rest or in the middle of it."""
    before = asyncio.all_tasks()
    for number in range(5):
        await store.of("us").schedule.hint(hint(number, message=f"m{number}"))
        async with at_work(tracking.tracker.run), at_work(delivering.deliverer.run):
            await asyncio.sleep(0)
    allowed = tracking.desk.server.tasks
    await until(lambda: asyncio.all_tasks() - before <= allowed, "no task is left")
    assert not store.connection.change_notifier._waiting
    assert not delivering.deliverer.rounds.under_way

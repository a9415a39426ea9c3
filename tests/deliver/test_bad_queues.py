"""Delivery queues with real listeners: rates, the breaker, pauses, operator events, and the cost of a bad
subscriber."""

from __future__ import annotations

import asyncio
import dataclasses
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from receiver.deliver.send import DeliveryAttempt
from receiver.http.api.deliveries import a_test
from receiver.outbox.events.event import to_fields
from receiver.outbox.formats.registry import DEFAULT, format_spec, render
from receiver.outbox.retries import SCHEDULE
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber, pause, resume
from receiver.service import system_clock
from receiver.store import Store
from receiver.store.deliveries.queues import BREAKER, PROBE_PAUSE, QueueLimits
from tests.kit.clock import ManualClock
from tests.kit.nameserver import nameserver
from tests.kit.processes import until
from tests.kit.webserver import Says as Says_
from tests.kit.webserver import WebServer, serving
from tests.service.depot import Depot, depot
from tests.service.kit import LEASE, at_work, pass_time
from tests.service.stage import SECRET, Hook, Post, Says
from tests.store.makers import refund_id

DECLINED = ("amazonpay.refund.declined",)
DAY = 86_400_000


@pytest.fixture
async def at(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Depot]:
    """A deliverer of "us" without jitter, on an empty store. Its clock begins at the machine's, as stream ids do."""
    clock.ms = system_clock()
    async with depot(store, redis, clock) as found:
        yield found


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """A subscriber that accepts everything by default."""
    async with Hook().listening() as found:
        yield found


async def operators(at: Depot) -> list[tuple[str, str, str]]:
    """(type, subscriber, reason) of every operator event in the stream."""
    entries = await at.redis.xrange("refunds:{us}:events")
    fields = [{key.decode(): value.decode() for key, value in each.items()} for _, each in entries]
    return [(each["type"], each["subscriber"], each["reason"]) for each in fields if each["type"].startswith("rec")]


async def give_up(at: Depot, name: str = "all") -> None:
    """Deliver the one event of the lane until it is dead."""
    for _ in range(len(SCHEDULE) + 1):
        await at.deliver(name)
        at.clock.tick(await at.due(name) or 0)


async def test_after_five_failures_one_probe_at_a_time_is_sent_until_one_succeeds(at: Depot, hook: Hook) -> None:
    """Also by two deliverers together: the breaker is the store's. A probe follows a second after the last."""
    hook.then = Says(500)
    await at.subscribe(hook)
    await at.owe(20)
    for delivery in (await at.store.of("us").deliveries.claim("all", lease=LEASE, limit=BREAKER)).items:
        await at.deliverer.deliver([delivery], (await at.store.of("us").subscribers.read()).subscribers["all"])
    assert len(hook.posts) == BREAKER
    terms = QueueLimits(breaker=BREAKER)

    async def claim() -> tuple[int, int | None]:
        claims = await at.store.of("us").deliveries.claim("all", lease=LEASE, limit=8, terms=terms)
        if claims.items:
            await at.deliverer.deliver(
                claims.items[:1], (await at.store.of("us").subscribers.read()).subscribers["all"]
            )
        return len(claims.items), claims.wait

    assert await claim() == (0, PROBE_PAUSE)
    at.clock.tick(PROBE_PAUSE)
    both = await asyncio.gather(
        *(at.store.of("us").deliveries.claim("all", lease=LEASE, limit=8, terms=terms) for _ in range(2))
    )
    assert sorted(len(each.items) for each in both) == [0, 1]
    (probe,) = [delivery for each in both for delivery in each.items]
    hook.then = Says()
    await at.deliverer.deliver([probe], (await at.store.of("us").subscribers.read()).subscribers["all"])
    claims = await at.store.of("us").deliveries.claim("all", lease=LEASE, limit=8, terms=terms)
    assert len(claims.items) == 8
    health = await at.store.of("us").deliveries.health("all")
    assert (health.streak, health.delivered, health.error) == (0, 1, "HTTP 500")


async def test_a_queue_goes_on_as_soon_as_the_success_of_its_probe_is_written(
    at: Depot, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if that takes time: the round that the accepted probe caused finds the queue still held back."""
    monkeypatch.setattr("receiver.runtime.rounds.IDLE", 3600.0)
    at.deliverer.lease = 3600.0
    hook.answers = [Says(500)] * BREAKER
    await at.subscribe(hook)
    await at.owe(20)
    for delivery in (await at.store.of("us").deliveries.claim("all", lease=LEASE, limit=BREAKER)).items:
        await at.deliverer.deliver([delivery], (await at.store.of("us").subscribers.read()).subscribers["all"])
    at.clock.tick(PROBE_PAUSE)
    queues = at.store.of("us").deliveries
    delivered = queues.delivered

    async def slowly(*outcome: Any) -> bool:
        await asyncio.sleep(0.2)
        return await delivered(*outcome)

    monkeypatch.setattr(queues, "delivered", slowly)
    async with at_work(at.deliverer.run):
        await until(lambda: at.counted("delivered") == 15, "all that is due is delivered")


@pytest.mark.parametrize("rate", [1.0, 7.0, 50.0])
async def test_in_no_second_more_is_claimed_than_the_rate_allows(at: Depot, hook: Hook, rate: float) -> None:
    """Not even after a long pause, and nothing is left lying."""
    await at.subscribe(hook)
    await at.owe(60)
    at.clock.tick(DAY)
    taken: list[int] = []
    for _ in range(100_000):
        claims = await at.store.of("us").deliveries.claim("all", lease=LEASE, limit=100, terms=QueueLimits(rate=rate))
        taken += [at.clock()] * len(claims.items)
        for delivery in claims.items:
            assert await at.store.of(delivery.account).deliveries.delivered(delivery)
        if claims.wait is None:
            break
        at.clock.tick(max(claims.wait, 1))
    assert len(taken) == 60
    most = max(sum(1 for each in taken if begin <= each < begin + 1000) for begin in taken)
    assert most <= rate + (rate < 10)
    assert taken[-1] - taken[0] <= 60 / rate * 1000 * 1.3


async def test_a_burst_is_one_message_and_then_a_summary(
    at: Depot, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a format that sums up asks for: the first at once, the rest together when the window is over; each event is
    settled by itself, and the message counts once against the breaker."""
    summing = dataclasses.replace(DEFAULT, most_in_one=10, window=10_000)
    monkeypatch.setattr("receiver.deliver.dispatcher.format_spec", lambda _: summing)
    # A hook reads CloudEvents, which tell one event: it stands for the whole message here.
    monkeypatch.setattr("receiver.deliver.send.render", lambda events, to, now: render(events[:1], to, now))
    batches: list[int] = []
    real = DeliveryAttempt._post

    async def counted(self: DeliveryAttempt, batch: Sequence[Any], to: Subscriber) -> Any:
        batches.append(len(batch))
        return await real(self, batch, to)

    monkeypatch.setattr(DeliveryAttempt, "_post", counted)
    await at.subscribe(hook)
    await at.owe(1)
    async with at_work(at.deliverer.run):
        await until(lambda: at.counted("delivered") == 1, "the first")
        await at.owe(5, first=2)
        hook.then = Says(500)
        pass_time(at.store, at.clock, 9_999)
        await asyncio.sleep(0.05)
        assert batches == [1]
        pass_time(at.store, at.clock, 1)
        await until(lambda: at.counted("retry") == 5, "the rest")
        assert (batches, (await at.store.of("us").deliveries.health("all")).streak) == ([1, 5], 1)
        hook.then = Says()
        pass_time(at.store, at.clock, 10_000)
        await until(lambda: at.counted("delivered") == 6, "the rest again")
    assert batches == [1, 5, 5]
    assert await at.empty("all", "lane", "owed", "attempts", "copies")


async def test_a_dead_event_is_told_to_operators_and_a_failing_subscriber_is_paused(at: Depot, hook: Hook) -> None:
    """In the stream, to the subscriber that asks for it, in the log and in the metrics."""
    hook.then = Says(500)
    await at.subscribe(hook, types=DECLINED)
    async with Hook("other").listening() as other, Hook("ops").listening() as ops:
        await at.subscribe(other, types=DECLINED)
        await at.subscribe(ops, types=("receiver.*",))
        await at.owe()
        with capture_logs() as logs:
            await give_up(at)
        told = [("receiver.delivery.dead", "all", "exhausted"), ("receiver.subscriber.paused", "all", "failing")]
        assert await operators(at) == told
        for delivery in await at.claim("ops"):
            await at.deliverer.deliver([delivery], (await at.store.of("us").subscribers.read()).subscribers["ops"])
        events = ops.events
        assert [(each.get_type(), each.get_subject()) for each in events] == [(kind, name) for kind, name, _ in told]
        data: Any = events[0].get_data()
        assert (data["refundId"], data["lastError"], data["count"]) == (refund_id(1), "HTTP 500", 1)
    paused = (await at.store.of("us").subscribers.read()).subscribers["all"]
    assert (paused.paused, paused.paused_reason) == (True, "failing")
    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "delivery.dead",
        "subscriber.paused",
        "operator.event_published",
        "operator.event_published",
    ]
    counted = at.metrics.registry.get_sample_value
    assert counted("receiver_operator_events_total", {"type": "receiver.subscriber.paused"}) == 1
    assert counted("receiver_operator_events_total", {"type": "receiver.delivery.dead"}) == 1


async def test_who_succeeded_since_is_not_paused(at: Depot, hook: Hook) -> None:
    """One event that always fails does not hold back all others."""
    await at.subscribe(hook, types=DECLINED)
    async with Hook("other").listening() as other:
        await at.subscribe(other, types=DECLINED)
        await at.owe()
        hook.then = Says(500)
        await at.deliver()
        at.clock.tick(1000)
        hook.then = Says()
        await at.owe(first=2)
        (delivery,) = await at.claim()
        await at.deliverer.deliver([delivery], (await at.store.of("us").subscribers.read()).subscribers["all"])
        hook.then = Says(500)
        at.clock.tick(await at.due() or 0)
        for _ in range(len(SCHEDULE)):
            await at.deliver()
            at.clock.tick(await at.due() or 0)
    assert len(await at.store.of("us").deliveries.dead_events("all")) == 1
    assert not (await at.store.of("us").subscribers.read()).subscribers["all"].paused


@pytest.mark.parametrize(
    "other",
    [
        {"paused": True, "types": DECLINED},
        {"types": ("amazonpay.refund.refunded",)},
        {"types": DECLINED, "reasons": ("ProcessingFailure",)},
    ],
)
async def test_the_last_one_that_is_told_about_declines_stays_active(
    at: Depot, hook: Hook, other: dict[str, Any]
) -> None:
    """That is reported instead, once; others that are paused, or want other events, do not count."""
    hook.then = Says(500)
    await at.subscribe(hook, types=DECLINED)
    await at.store.of("us").subscribers.put(Subscriber(name="other", url=hook.url, secrets=(Secret(SECRET),), **other))
    for number in (1, 2):
        await at.owe(first=number)
        await give_up(at)
    assert not (await at.store.of("us").subscribers.read()).subscribers["all"].paused
    assert await operators(at) == [
        ("receiver.delivery.dead", "all", "exhausted"),
        ("receiver.subscriber.failing", "all", "last_active"),
        ("receiver.delivery.dead", "all", "exhausted"),
    ]


async def test_of_two_that_fail_at_the_same_time_one_stays_active(at: Depot, hook: Hook) -> None:
    """Each sees the other awake when it decides; the version of the list lets only one of them be paused."""
    hook.then = Says(500)
    for name in ("one", "two"):
        hook.name = name
        await at.subscribe(hook, types=DECLINED)
    await at.owe()
    for _ in SCHEDULE:
        for name in ("one", "two"):
            await at.deliver(name)
        at.clock.tick(max(await at.due("one") or 0, await at.due("two") or 0))
    await asyncio.gather(at.deliver("one"), at.deliver("two"))
    paused = [each.name for each in await at.store.of("us").subscribers.readable() if each.paused]
    assert len(paused) == 1


async def test_an_operator_event_that_goes_dead_causes_no_other(at: Depot, hook: Hook) -> None:
    """Or the first failure would never end."""
    await at.subscribe(hook, types=DECLINED)
    async with Hook("ops", then=Says(500)).listening() as ops:
        await at.subscribe(ops, types=("receiver.delivery.dead",))
        hook.then = Says(400, {"webhook-delivery": "abort-message"})
        await at.owe()
        await at.deliver()
        await give_up(at, "ops")
        (dead,) = await at.store.of("us").deliveries.dead_events("ops")
        assert (dead.type, dead.reason) == ("receiver.delivery.dead", "exhausted")
    assert await operators(at) == [("receiver.delivery.dead", "all", "aborted")]
    assert not any(each.paused for each in await at.store.of("us").subscribers.readable())


async def test_410_is_told_to_operators(at: Depot, hook: Hook) -> None:
    """Also where it was the last one: it asked for it."""
    hook.then = Says(410)
    await at.subscribe(hook, types=("*", "receiver.*"))
    await at.owe()
    await at.deliver()
    assert await operators(at) == [("receiver.subscriber.paused", "all", "gone")]
    assert (await at.store.of("us").subscribers.read()).subscribers["all"].paused_reason == "gone"


async def test_what_the_stream_has_lost_is_sent_from_its_copy(at: Depot, hook: Hook) -> None:
    """Dead, trimmed away, sent again on request: the same id; and again, on every request."""
    hook.answers = [Says(400, {"webhook-delivery": "abort-message"})] * 2
    await at.subscribe(hook)
    await at.owe()
    first = await at.deliver()
    await at.redis.delete("refunds:{us}:events")
    for number in (2, 3):
        assert (await at.store.of("us").deliveries.redrive("all", [first.stream_id])).dead == 1
        assert (await at.store.of("us").deliveries.redrive("all", [first.stream_id])).waiting == 1
        await at.deliver()
        assert len(hook.posts) == number
    assert len({post.headers["webhook-id"] for post in hook.posts}) == 1
    assert hook.told == [(refund_id(1), "declined")] * 3
    assert await at.empty("all", "lane", "owed", "attempts", "dead", "deaths", "copies")


async def test_what_was_delivered_is_sent_again_as_often_as_somebody_asks(at: Depot, hook: Hook) -> None:
    """The subscriber may have lost it."""
    await at.subscribe(hook)
    await at.owe()
    delivery = await at.deliver()
    for number in (2, 3):
        assert (await at.store.of("us").deliveries.redrive("all", [delivery.stream_id])).again == 1
        await at.deliver()
        assert len(hook.posts) == number
    assert (await at.store.of("us").deliveries.redrive("all", ["1-1"])).missing == 1
    assert (await at.store.of("us").deliveries.redrive("nobody", [delivery.stream_id])).missing == 1
    assert await at.empty("nobody", "lane", "owed")


@pytest.mark.parametrize(("asked", "held"), [(30, 30_000), (3_600, 60_000)])
async def test_who_asks_for_time_is_left_alone(at: Depot, hook: Hook, asked: int, held: int) -> None:
    """`Retry-After` holds the whole lane, a minute at most, then one event is tried; only a test does not wait."""
    hook.then = Says(429, {"Retry-After": str(asked)})
    await at.subscribe(hook)
    await at.owe(40)

    async def failures(count: int) -> bool:
        return (await at.store.of("us").deliveries.health("all")).streak == count

    async with at_work(at.deliverer.run):
        await until(lambda: at.counted("retry") == at.deliverer.per_subscriber, "as many as were under way")
        hook.posts.clear()
        for ms in (1_500, 1_500, held - 3_001):
            pass_time(at.store, at.clock, ms)
            await asyncio.sleep(0.05)
        assert hook.posts == []
        test = a_test("us", at.clock(), "0" * 32)
        assert await at.store.of("us").deliveries.enqueue_test("all", f"{at.clock()}-{10**18}", to_fields(test))
        await until(lambda: hook.posts, "the test")
        await until(lambda: failures(at.deliverer.per_subscriber + 1), "the answer to the test is written")
        await asyncio.sleep(0.05)
        assert [each.event(SECRET).get_id() for each in hook.posts] == [test.id]
        hook.then = Says(204)
        pass_time(at.store, at.clock, held)
        await until(lambda: len(hook.posts) > 1, "a probe")
        # Time stands still while messages are under way: it would end their leases, and they would be sent twice.
        due = 40 if asked * 1_000 <= held else 32
        await until(lambda: at.counted("delivered") == due, "what waited, and what was refused and is due again")
        pass_time(at.store, at.clock, asked * 1_000)
        await until(lambda: at.counted("delivered") == 40, "all that was refused")
        assert len(hook.posts) == 1 + 40


async def test_a_resumed_subscriber_is_not_hammered(at: Depot, hook: Hook) -> None:
    """What has waited comes at its rate; here in real time."""
    subscriber = await at.subscribe(hook, rate=40.0, paused=True)
    await at.owe(60)
    at.clock.tick(DAY)
    begin = system_clock()
    moved = at.clock()
    at.store.connection.now = _Live(moved - begin)  # type: ignore[assignment]
    assert await at.store.of("us").subscribers.change(subscriber, resume(subscriber, at.clock()))
    times: list[float] = []
    hook.posts = _Timed(times)
    async with at_work(at.deliverer.run):
        await until(lambda: at.counted("delivered") == 60, "everything is delivered")
    most = max(sum(1 for each in times if begin <= each < begin + 1) for begin in times)
    assert most <= 44
    assert times[-1] - times[0] >= 1.2


class _Live:
    """The machine's clock, `ahead` ms before it."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead

    def __call__(self) -> int:
        return system_clock() + self.ahead


class _Timed(list[Post]):
    """Notes when each post came, s."""

    def __init__(self, times: list[float]) -> None:
        super().__init__()
        self.times = times

    def append(self, post: Post) -> None:
        self.times.append(asyncio.get_running_loop().time())
        super().append(post)


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A status at once, then a byte of a header a tenth of a second."""
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.1)


async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ten megabytes."""
    writer.write(b"HTTP/1.1 500 X\r\nContent-Length: 10485760\r\n\r\n")
    for _piece in range(160):
        writer.write(b"x" * 65536)
        await writer.drain()


async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What no status is."""
    writer.write(b"HTTP/1.1 OK 200\r\n\x00\xff: \x01\r\n" + b"a" * 20_000 + b": b\r\n\r\n")
    await writer.drain()
    raise ConnectionResetError


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """No answer at all."""
    raise ConnectionResetError


BAD: dict[str, tuple[Says_ | bytes, str]] = {
    "drip": (drip, "timeout"),
    "flood": (flood, "HTTP 500"),
    "garbage": (garbage, "bad answer"),
    "reset": (reset, "cut"),
    "redirect": (
        b"HTTP/1.1 307 X\r\nLocation: http://169.254.169.254/latest/meta-data\r\nContent-Length: 0\r\n\r\n",
        "HTTP 307: redirects are not followed",
    ),
}


async def test_bad_subscribers_cost_nobody_else_anything_and_are_named(
    store: Store, redis: Any, clock: ManualClock
) -> None:
    """Tar pits, floods, garbage, resets, redirects to metadata, broken TLS: each last answer records what happened;
    three good ones get everything long before the slow ones time out, and memory does not grow with what is sent."""
    clock.ms = system_clock()
    async with depot(store, redis, clock, timeout=5.0) as at, AsyncExitStack() as stack:
        for name, (says, _) in BAD.items():
            server: WebServer = await stack.enter_async_context(serving(says))
            await at.subscribe(Hook(name, url=server.url))
        plain = await stack.enter_async_context(serving(b"", greeting=b"HTTP/1.1 400 X\r\n\r\n"))
        await at.subscribe(Hook("tls", url=plain.url.replace("http:", "https:")))
        good = [await stack.enter_async_context(Hook(f"good{n}").listening()) for n in range(3)]
        for each in good:
            await at.subscribe(each)
        await at.owe(30)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = asyncio.get_running_loop().time()
        async with at_work(at.deliverer.run):
            await until(lambda: at.counted("delivered") == 90, "the good ones have everything")
            assert asyncio.get_running_loop().time() - began < 5.0
            errors = {**{name: error for name, (_, error) in BAD.items()}, "tls": "tls failed"}
            for name, error in errors.items():
                await until(lambda n=name: _failed(at, n), f"{name} was tried")
                assert (await store.of("us").deliveries.health(name)).error.startswith(error), name
                (tried, *_) = [
                    each for each in await store.of("us").deliveries.waiting_page(name) if each.attempts.count
                ]
                assert tried.attempts.last_error.startswith(error)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 50 * 1024
        assert all(len(each.told) == 30 for each in good)


async def test_names_that_no_server_answers_delay_no_other_subscriber(
    store: Store, redis: Any, clock: ManualClock
) -> None:
    """The names of 80 addresses are never resolved; the subscriber whose name resolves gets everything at once."""
    clock.ms = system_clock()
    async with (
        nameserver(**{"good.example": "127.0.0.1"}) as names,
        Hook("good").listening() as good,
        depot(store, redis, clock, name_servers=[names.address]) as at,
    ):
        for number in range(80):
            await at.subscribe(Hook(f"s{number}", url=f"https://n{number}.silent.example/"))
        await at.subscribe(good, url=good.url.replace("127.0.0.1", "good.example"))
        await at.owe(1)
        async with at_work(at.deliverer.run):
            await until(lambda: len(names.asked) >= 81, "all the names are asked for")
            await at.owe(20, first=2)
            await until(lambda: len(good.told) == 21, "the good one has everything")
            assert not await _failed(at, "s0"), "before the first name is given up"
            await until(lambda: _failed(at, "s0"), "a silent one was tried")
        assert (await store.of("us").deliveries.health("s0")).error.startswith(("timeout", "dns failed"))


async def _failed(at: Depot, name: str) -> bool:
    waiting = await at.store.of("us").deliveries.waiting_page(name, limit=50)
    return any(each.attempts.count for each in waiting)


async def test_seams_for_formats_that_sum_up() -> None:
    """CloudEvents go one by one, at once."""
    one = Subscriber(name="x", url="https://x.example/", secrets=())
    assert (format_spec(one.format).most_in_one, format_spec(one.format).window) == (1, 0)
    assert pause(one, "operator", 1).paused
    assert msgspec.json.decode(msgspec.json.encode(one), type=Subscriber) == one

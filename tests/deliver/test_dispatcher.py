"""Delivering to real listeners: when an event is sent again, when it is given up, and that a bad subscriber harms no
other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from email.utils import formatdate
from math import inf
from typing import Any

import msgspec
import pytest
from standardwebhooks.webhooks import Webhook
from structlog.testing import capture_logs

from receiver.ledger.refund import Source
from receiver.outbox.events.event import from_fields
from receiver.outbox.formats.cloudevents import render_body
from receiver.outbox.retries import SCHEDULE, DeliveryAttempts
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import pause, resume
from receiver.store import Store
from receiver.track.record import Recorder
from tests.kit.clock import T0, ManualClock
from tests.kit.processes import until
from tests.kit.webserver import serving
from tests.service.depot import Depot, depot
from tests.service.kit import LEASE, at_work, pass_time, without_advice
from tests.service.stage import SECRET, Hook, Says
from tests.store.makers import refund_id, seen
from tests.store.test_mutations import without

S, H, DAY = 1_000, 3_600_000, 86_400_000
OTHER_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture
async def at(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Depot]:
    """A deliverer of "us" without jitter, on an empty store."""
    async with depot(store, redis, clock) as found:
        yield found


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """A subscriber that accepts everything by default."""
    async with Hook().listening() as found:
        yield found


async def test_an_event_that_is_accepted_leaves_nothing_behind(at: Depot, hook: Hook) -> None:
    """One post, proven and read by other people's libraries."""
    await at.subscribe(hook)
    await at.owe()
    await at.deliver()
    assert hook.told == [(refund_id(1), "declined")]
    assert await at.empty()
    assert at.counted("delivered") == 1


async def test_log_lines_and_posts_are_joined_by_the_id(at: Depot, hook: Hook) -> None:
    """Each attempt has a line with the `webhook-id` of its post. No header says `traceparent`: OpenTelemetry's samplers
    would obey its flag, and we have no span that could be its parent. It is in the body (`test_traces.py`)."""
    hook.answers = [Says(500)]
    await at.subscribe(hook)
    await at.owe()
    with capture_logs() as logs:
        await at.deliver()
        at.clock.tick(await at.due() or 0)
        await at.deliver()
    lines = [(each["event"], each["event_id"]) for each in logs if each["event"].startswith("delivery.")]
    (event_id,) = {post.headers["webhook-id"] for post in hook.posts}
    assert lines == [("delivery.retry", event_id), ("delivery.delivered", event_id)]
    assert not [post for post in hook.posts if {"traceparent", "tracestate"} & post.headers.keys()]


async def test_every_live_secret_signs(at: Depot, hook: Hook) -> None:
    """While a secret expires, a subscriber that knows either secret can verify."""
    await at.subscribe(hook, secrets=(Secret(SECRET), Secret(OTHER_SECRET)))
    await at.owe()
    await at.deliver()
    (got,) = hook.posts
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(got.body, dict(got.headers))


FAILURES = {
    "HTTP 500": b"HTTP/1.1 500 X\r\nContent-Length: 10\r\n\r\nno \x00 money",
    "HTTP 404": b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n",
    "HTTP 503": b"HTTP/1.1 503 X\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n",
    "HTTP 302: redirects are not followed": b"HTTP/1.1 302 X\r\nLocation: {url}/elsewhere\r\nContent-Length: 0\r\n\r\n",
    "HTTP 307: redirects are not followed": b"HTTP/1.1 307 X\r\nLocation: {url}/elsewhere\r\nContent-Length: 0\r\n\r\n",
    "bad answer: 127.0.0.1: the answer is not HTTP.": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
}


@pytest.mark.parametrize("random", [0.0, 0.999])
@pytest.mark.parametrize("error", FAILURES)
async def test_what_fails_is_sent_by_the_schedule_and_kept_when_it_is_given_up(
    store: Store, redis: Any, clock: ManualClock, error: str, random: float
) -> None:
    """Twelve attempts over three days, each wait within its bounds and no sooner; a redirect is never followed. Then
    the event is dead: kept with its body, the reason and the last answer, and not sent again."""
    async with depot(store, redis, clock, random=lambda: random) as at, serving(b"") as server:
        says = FAILURES[error].replace(b"{url}", server.url.encode())

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(says)
            await writer.drain()
            if not says.startswith(b"HTTP"):
                raise ConnectionResetError

        async with serving(answer) as target:
            await at.subscribe(Hook(url=f"{target.url}/hook"))
            await at.owe()
            for number, nominal in enumerate(SCHEDULE, start=1):
                await at.deliver()
                least, most = (nominal / 2, nominal) if nominal < 2 * H else (nominal * 0.8, nominal * 1.2)
                due = await at.due()
                assert due is not None
                assert least <= due < most
                assert abs(due - (least + (most - least) * random)) <= 1
                found = await at.attempts()
                assert (found.count, found.first_at, found.last_at) == (number, T0, clock())
                assert found.last_error == error
                clock.tick(due - 1)
                assert await at.claim() == []
                clock.tick(1)
            with capture_logs() as logs:
                await at.deliver()
            assert len(target.requests) == 12
            assert all(each.startswith(b"POST /hook ") for each in target.requests)
            assert server.requests == []

        assert await at.due() is None
        assert await at.empty("all", "lane", "owed", "attempts")
        (dead,) = await store.of("us").deliveries.dead_events("all")
        assert (dead.reason, dead.attempts, dead.last_error, dead.at) == ("exhausted", 12, error, clock())
        assert (dead.type, dead.refund_id) == ("amazonpay.refund.declined", refund_id(1))
        sent = target.requests[0].partition(b"\r\n\r\n")[2]
        assert without_advice(render_body(from_fields("us", dead.fields))) == without_advice(sent)
        assert dead.excerpt == ("no money" if error == "HTTP 500" else "")
        assert (at.counted("retry"), at.counted("dead")) == (11, 1)
        assert [(line["event"], line.get("type"), line["log_level"]) for line in logs] == [
            ("delivery.dead", "amazonpay.refund.declined", "error"),
            ("subscriber.failing", None, "error"),
            ("operator.event_published", "receiver.delivery.dead", "error"),
            ("operator.event_published", "receiver.subscriber.failing", "error"),
        ]
        assert logs[0]["settled"]


async def test_a_subscriber_that_never_answers_is_a_failed_attempt(
    store: Store, redis: Any, clock: ManualClock, hook: Hook
) -> None:
    """The time-out is the deliverer's, not the subscriber's."""
    hook.then = Says(after=asyncio.Event())
    async with depot(store, redis, clock, timeout=0.1) as at:
        await at.subscribe(hook)
        await at.owe()
        await at.deliver()
        assert await at.due() == SCHEDULE[0] // 2
        assert (await at.attempts()).last_error.startswith("timeout")


async def test_a_subscriber_that_is_not_there_is_a_failed_attempt(at: Depot) -> None:
    """The listener is gone."""
    async with Hook().listening() as gone:
        pass
    await at.subscribe(gone)
    await at.owe()
    await at.deliver()
    assert await at.due() == SCHEDULE[0] // 2
    assert (await at.attempts()).last_error.startswith("connect failed")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "delivered"),
        (b"HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "delivered"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "delivered"),
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 9\r\n\r\n", "gone"),
        (b"HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\n", "retry"),
        (b"HTTP/1.1 400 X\r\nwebhook-delivery: abort-message\r\nContent-Length: 9\r\n\r\n", "dead"),
    ],
)
async def test_trouble_after_the_status_is_a_note(at: Depot, answer: bytes, outcome: str) -> None:
    """The status and the fields say what becomes of the event; the log says what was wrong."""
    told = Hook()

    async def says(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with serving(says) as server:
        await at.subscribe(told, url=server.url)
        await at.owe()
        with capture_logs() as logs:
            await at.deliver()
        assert len(server.requests) == 1
    (line,) = [each for each in logs if each["event"] == f"delivery.{outcome}"]
    assert line["note"]
    assert at.counted(outcome) == 1
    assert await at.empty("all", "lane") == (outcome in ("delivered", "dead"))
    if outcome == "retry":
        assert await at.due() == 7 * S


@pytest.mark.parametrize(
    ("status", "value", "wait"),
    [(429, "7", 7 * S), (503, "7", 7 * S), (429, "0", 1 * S), (429, "999999", 6 * H), (503, None, 40 * S)],
)
async def test_who_asks_for_time_gets_it_and_loses_no_attempt(
    at: Depot, hook: Hook, status: int, value: str | None, wait: int
) -> None:
    """`Retry-After` in seconds or as a date, within a second and six hours."""
    header = formatdate((T0 + wait) / 1000, usegmt=True) if value is None else value
    hook.answers = [Says(500), *[Says(status, {"Retry-After": header})] * 20]
    await at.subscribe(hook)
    await at.owe()
    await at.deliver()
    at.clock.tick(SCHEDULE[0] // 2)
    for _ in range(1 if value is None else 20):
        await at.deliver()
        due = await at.due()
        assert due == (wait - SCHEDULE[0] // 2 if value is None else wait)
        assert (await at.attempts()).count == 1
        at.clock.tick(due)
    hook.answers = []
    await at.deliver()
    assert await at.empty()


async def test_after_seven_days_it_is_over_but_pauses_do_not_count(at: Depot, hook: Hook) -> None:
    """Repeated Retry-After answers delay an event by at most a week, plus the time of a pause."""
    hook.then = Says(429, {"Retry-After": "21600"})
    subscriber = await at.subscribe(hook)
    await at.owe()
    await at.deliver()
    at.clock.tick(6 * H)
    paused = pause(subscriber, "operator", at.clock())
    assert await at.store.of("us").subscribers.change(subscriber, paused)
    at.clock.tick(30 * DAY)
    assert await at.store.of("us").subscribers.change(paused, resume(paused, at.clock()))
    for _ in range(27):
        assert await at.store.of("us").deliveries.dead_events("all") == []
        await at.deliver()
        at.clock.tick(6 * H)
    (dead,) = await at.store.of("us").deliveries.dead_events("all")
    assert (dead.reason, dead.attempts, dead.last_error) == ("expired", 1, "HTTP 429")


async def test_an_event_that_is_not_wanted_is_dead_at_once(at: Depot, hook: Hook) -> None:
    """`webhook-delivery: abort-message` is about this event alone."""
    hook.answers = [Says(400, {"webhook-delivery": "abort-message"})]
    await at.subscribe(hook)
    await at.owe()
    await at.deliver()
    (dead,) = await at.store.of("us").deliveries.dead_events("all")
    assert (dead.reason, dead.attempts) == ("aborted", 1)
    await at.owe(first=2)
    await at.deliver()
    assert hook.told[1] == (refund_id(2), "declined")


async def test_410_pauses_the_subscriber_and_keeps_what_it_is_owed(at: Depot, hook: Hook) -> None:
    """Operators get an event; nothing more is sent, however much time passes, until the pause ends: then everything
    comes."""
    hook.then = Says(410)
    await at.subscribe(hook)
    at.deliverer.per_subscriber = 2
    await at.owe(5)
    with capture_logs() as logs:
        async with at_work(at.deliverer.run):
            await until(lambda: at.counted("gone"), "one was answered")
            await rounds(at, 2)
            await until(lambda: not at.deliverer.rounds.under_way, "nothing is under way")
            posts = len(hook.posts)
            assert posts <= 4
            await at.owe(1, first=6)
            pass_time(at.store, at.clock, 8 * DAY)
            await rounds(at, 3)
            assert len(hook.posts) == posts
            (paused,) = await at.store.of("us").subscribers.readable()
            assert (paused.paused, paused.paused_reason, paused.paused_at) == (True, "gone", T0)
            assert await at.redis.zcard("refunds:{us}:lane:all") == 6
            hook.then = Says()
            assert await at.store.of("us").subscribers.change(paused, resume(paused, at.clock()))
            await until(at.empty, "everything is delivered")
    assert {line["log_level"] for line in logs if line["event"] == "subscriber.paused"} == {"error"}
    assert {each for each, _ in hook.told} == {refund_id(number) for number in range(1, 7)}
    assert await at.store.of("us").deliveries.dead_events("all") == []


async def rounds(at: Depot, count: int) -> None:
    """Return when the deliverer has looked at everything so many times from now."""
    calls = 0
    subscriber_list = at.store.of("us").subscribers.read

    async def counted() -> Any:
        nonlocal calls
        calls += 1
        return await subscriber_list()

    at.store.of("us").subscribers.read = counted  # type: ignore[method-assign]
    try:
        async with asyncio.timeout(30):
            while calls <= count:
                at.store.connection.change_notifier.notify("us")
                await asyncio.sleep(0)
    finally:
        at.store.of("us").subscribers.read = subscriber_list  # type: ignore[method-assign]


async def test_a_private_address_is_not_connected_to(store: Store, redis: Any, clock: ManualClock, hook: Hook) -> None:
    """Without leave by CIDR not a byte reaches it; it is a failed attempt like any other."""
    async with depot(store, redis, clock, allow_networks=("10.0.0.0/8",)) as at, serving(b"") as server:
        await at.subscribe(Hook(url=server.url))
        await at.owe()
        await at.deliver()
        assert server.connections == 0
        assert (await at.attempts()).last_error.startswith("forbidden address")
        assert await at.due() == SCHEDULE[0] // 2


async def test_without_a_live_secret_nothing_is_sent(at: Depot, hook: Hook) -> None:
    """An unsigned event proves nothing, so this is a failed attempt, retried by the schedule until there is a secret
    again."""
    await at.subscribe(hook, secrets=(Secret(SECRET, expires_at=1),))
    await at.owe()
    await at.deliver()
    assert hook.posts == []
    assert (await at.attempts()).last_error.startswith("no live secret")
    assert await at.due() == SCHEDULE[0] // 2
    await at.subscribe(hook)
    at.clock.tick(SCHEDULE[0] // 2)
    await at.deliver()
    assert hook.told == [(refund_id(1), "declined")]


async def test_a_slow_subscriber_delays_nobody_else(at: Depot) -> None:
    """One never answers and has plenty; another gets all of its events meanwhile, and each has at most as many at once
    as it may."""
    at.deliverer.per_subscriber = 3
    never = asyncio.Event()
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(Hook("slow", then=Says(after=never)).listening())
        quick = await stack.enter_async_context(Hook("quick").listening())
        for each in (slow, quick):
            await at.subscribe(each)
        await at.owe(20)
        async with at_work(at.deliverer.run):
            await until(lambda: at.counted("delivered") == 20, "the quick one has everything")
            assert len(quick.told) == 20
            assert (slow.under_way, slow.most_under_way) == (3, 3)
            assert 1 <= quick.most_under_way <= 3
            assert len(slow.posts) == 3
            never.set()
            await until(lambda: at.counted("delivered") == 40, "the slow one has everything too")
            assert slow.most_under_way == 3


@pytest.mark.parametrize(("status", "posts"), [(204, 2), (500, 1)])
async def test_what_follows_a_success_does_not_wait_until_that_is_written(
    at: Depot, hook: Hook, status: int, posts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows a failure does: it may be held back."""
    at.deliverer.per_subscriber = 1
    go, queues = asyncio.Event(), at.store.of("us").deliveries

    def slowly(finish: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
        async def finished(*outcome: Any) -> bool:
            await go.wait()
            return await finish(*outcome)

        return finished

    monkeypatch.setattr(queues, "delivered", slowly(queues.delivered))
    monkeypatch.setattr(queues, "retry", slowly(queues.retry))
    hook.then = Says(status)
    await at.subscribe(hook)
    await at.owe(2)
    async with at_work(at.deliverer.run):
        await until(lambda: len(hook.posts) == posts, "what may be sent is sent")
        await rounds(at, 3)
        assert len(hook.posts) == posts
        go.set()
        await until(lambda: len(hook.posts) == 2, "everything is sent")


async def test_no_more_is_under_way_than_the_account_may(at: Depot) -> None:
    """However many subscribers are owed events at once. Those with the fewest events in flight come first."""
    at.deliverer.rounds.concurrency = 4
    at.deliverer.per_subscriber = 3
    go = asyncio.Event()
    async with AsyncExitStack() as stack:
        hooks = [
            await stack.enter_async_context(Hook(f"hook{number}", then=Says(after=go)).listening())
            for number in range(5)
        ]
        for each in hooks:
            await at.subscribe(each)
        await at.owe(6)
        async with at_work(at.deliverer.run):
            await until(lambda: sum(each.under_way for each in hooks) == 4, "there is no more room")
            for _ in range(3):
                assert await at.deliverer.rounds.once() == inf, "nothing more is claimed"
            assert len(at.deliverer.rounds.under_way) == 4
            go.set()
            await until(lambda: at.counted("delivered") == 30, "everything is delivered")


async def test_one_that_may_have_everything_leaves_room_for_others(at: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs with as many at once as it may; one that is owed an event later gets it at once, not when those have
    timed out. What is left over for others is given back as soon as there is room again."""
    monkeypatch.setattr("receiver.runtime.rounds.IDLE", 3600.0)
    at.deliverer.rounds.concurrency = 8
    never = asyncio.Event()
    async with Hook("greedy", then=Says(after=never)).listening() as greedy, Hook("good").listening() as good:
        await at.subscribe(greedy, concurrency=8)
        await at.owe(20)
        async with at_work(at.deliverer.run):
            await until(lambda: greedy.under_way >= 6, "it has what it gets")
            await at.subscribe(good)
            await at.owe(1, first=21)
            await until(lambda: good.told, "the other is told")
            assert greedy.most_under_way == 6
            never.set()
            await until(lambda: at.counted("delivered") == 22, "everything is delivered")


@pytest.mark.parametrize("room", [1, 2, 3])
async def test_room_goes_to_who_has_waited_longest(
    store: Store, redis: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Two subscribers hang, and have plenty; a third gets its turn when the first of their posts have timed out."""
    monkeypatch.setattr("receiver.runtime.rounds.IDLE", 3600.0)
    never = Says(after=asyncio.Event())
    async with (
        depot(store, redis, clock, timeout=0.2, concurrency=room) as at,
        Hook("a", then=never).listening() as one,
        Hook("b", then=never).listening() as two,
        Hook("c").listening() as good,
    ):
        for each in (one, two, good):
            await at.subscribe(each, types=("amazonpay.refund.declined",) if each is good else ("*",))
        for number in range(20):
            await Recorder(store, lambda: 0.0).record(at.account, seen(number=number), source=Source.POLL)
        async with at_work(at.deliverer.run):
            await until(lambda: len(one.posts) + len(two.posts) >= room, "there is no more room")
            await at.owe(1, first=21)
            before = len(one.posts) + len(two.posts)
            await until(lambda: good.posts, "the third one is told")
            assert len(one.posts) + len(two.posts) <= before + 2 * room


async def slow_send(at: Depot, hook: Hook, late: Says, slow_first: bool) -> None:
    """A sender is slower than its lease, so another takes the event and sends it as well. What the slow one is answered
    then, before or after the other has its answer, must change nothing: two posts, and not a third."""
    slow, quick = asyncio.Event(), asyncio.Event()
    hook.answers = [Says(late.status, late.headers, after=slow), Says(after=quick)]
    await at.subscribe(hook)
    await at.owe()
    async with at_work(at.deliverer.run):
        await until(lambda: len(hook.posts) == 1, "the first post")
        pass_time(at.store, at.clock, LEASE)
        await until(lambda: len(hook.posts) == 2, "the second post")
        for go in (slow, quick) if slow_first else (quick, slow):
            under_way = len(at.deliverer.rounds.under_way)
            go.set()
            await until(lambda before=under_way: len(at.deliverer.rounds.under_way) < before, "it has its answer")
            pass_time(at.store, at.clock, LEASE - 1)
            await rounds(at, 3)
            await until(lambda left=under_way: len(at.deliverer.rounds.under_way) < left, "nothing more is under way")
        pass_time(at.store, at.clock, 8 * DAY)
        await rounds(at, 3)
        await until(lambda: not at.deliverer.rounds.under_way, "nothing is under way")
    assert len(hook.posts) == 2
    assert len({each.headers["webhook-id"] for each in hook.posts}) == 1
    assert await at.empty()


@pytest.mark.parametrize("slow_first", [True, False])
@pytest.mark.parametrize("status", [204, 500, 410, 400])
async def test_a_sender_slower_than_its_lease_does_not_lead_to_a_third_delivery(
    at: Depot, hook: Hook, status: int, slow_first: bool
) -> None:
    """Whatever the slow one's answer is. Only a 410 counts: it is about the subscriber."""
    headers = {"webhook-delivery": "abort-message"} if status == 400 else {}
    await slow_send(at, hook, Says(status, headers), slow_first)
    (subscriber,) = await at.store.of("us").subscribers.readable()
    assert subscriber.paused == (status == 410)


@pytest.mark.parametrize("slow_first", [True, False])
async def test_without_the_claims_token_a_slow_sender_leads_to_a_third_delivery(
    at: Depot, hook: Hook, slow_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token prevents it: if the script ignores the token, the same steps end with a third post."""
    without(monkeypatch, "finish_delivery", "not score or tonumber(score) ~= tonumber(token)", "false")
    with pytest.raises(AssertionError):
        await slow_send(at, hook, Says(500), slow_first)
    assert len(hook.posts) > 2


async def test_a_410_of_an_address_that_was_given_up_pauses_nobody(at: Depot, hook: Hook) -> None:
    """The operator had moved the subscriber by the time the old address said that it is gone."""
    go = asyncio.Event()
    hook.answers = [Says(410, after=go)]
    await at.subscribe(hook)
    await at.owe()
    async with Hook().listening() as moved, at_work(at.deliverer.run):
        await until(lambda: len(hook.posts) == 1, "the post")
        await at.subscribe(moved)
        go.set()
        await until(lambda: at.counted("delivered") == 1, "the new address gets it")
        assert moved.told == [(refund_id(1), "declined")]
    assert [each.paused for each in await at.store.of("us").subscribers.readable()] == [False]


async def test_an_event_that_the_stream_has_lost_is_dead_and_told(at: Depot, hook: Hook) -> None:
    """The stream was trimmed by hand: nothing can be sent, but nothing is silently gone."""
    await at.subscribe(hook)
    await at.owe()
    await at.redis.delete("refunds:{us}:events")
    with capture_logs() as logs:
        delivery = await at.deliver()
    (dead,) = await at.store.of("us").deliveries.dead_events("all")
    assert (dead.reason, dead.stream_id, dead.fields) == ("lost", delivery.stream_id, {})
    assert await at.empty("all", "lane", "owed", "attempts")
    assert [(line["event"], line["log_level"], line["reason"]) for line in logs] == [
        ("delivery.dead", "error", "lost"),
        ("operator.event_published", "error", "lost"),
    ]
    assert hook.posts == []
    assert at.counted("dead") == 1


@pytest.mark.parametrize("fields", [{"type": "amazonpay.refund.declined"}, {b"\xff": b"\xfe", "id": b"\x80"}])
async def test_an_entry_that_cannot_be_read_is_dead_and_harms_no_other(
    at: Depot, hook: Hook, fields: dict[Any, Any]
) -> None:
    """Another program wrote into the stream; bytes that are no text are the worst case."""
    await at.subscribe(hook)
    entry = await at.redis.xadd("refunds:{us}:events", fields)
    await at.redis.zadd("refunds:{us}:lane:all", {entry: T0})
    await at.owe()
    async with at_work(at.deliverer.run):
        await until(lambda: at.counted("delivered") == 1, "the other one is delivered")
        await until(lambda: at.empty("all", "lane"), "the lane is empty")
    (dead,) = await at.store.of("us").deliveries.dead_events("all")
    assert dead.reason == "unreadable"
    assert hook.told == [(refund_id(1), "declined")]


async def test_damaged_attempts_cost_the_schedule_its_memory_only(at: Depot, hook: Hook) -> None:
    """The event is delivered all the same."""
    await at.subscribe(hook)
    await at.owe()
    (stream_id,) = await at.redis.zrange("refunds:{us}:lane:all", 0, -1)
    await at.redis.hset("refunds:{us}:attempts:all", stream_id, b"\xff{")
    await at.deliver()
    assert await at.empty()


@pytest.mark.parametrize("status", [204, 500, 410, 400])
@pytest.mark.parametrize("back", [False, True])
async def test_a_subscriber_removed_while_it_is_sent_to_stays_removed(
    at: Depot, hook: Hook, status: int, back: bool
) -> None:
    """No answer brings it back; a new subscriber with the same name has a separate queue."""
    go = asyncio.Event()
    headers = {"webhook-delivery": "abort-message"} if status == 400 else {}
    hook.answers = [Says(status, headers, after=go)]
    await at.subscribe(hook)
    await at.owe()
    async with at_work(at.deliverer.run):
        await until(lambda: len(hook.posts) == 1, "the post")
        assert await at.store.of("us").subscribers.remove("all")
        if back:
            await at.subscribe(hook)
            await at.owe(first=2)
            await until(lambda: at.counted("delivered") == 1, "the new one gets its event")
        go.set()
        await until(lambda: not at.deliverer.rounds.under_way, "nothing is under way")
        pass_time(at.store, at.clock, 8 * DAY)
        await rounds(at, 3)
    assert [each for each, _ in hook.told] == [refund_id(number) for number in ((1, 2) if back else (1,))]
    assert await at.empty()


async def test_a_deliverer_that_dies_while_it_sends_leaves_the_event_to_the_next(at: Depot, hook: Hook) -> None:
    """Cancelled in the middle of a post, it ends at once and leaves nothing running; after its lease has expired, the
    event is sent again with the same id."""
    hook.answers = [Says(after=asyncio.Event())]
    await at.subscribe(hook)
    await at.owe()
    before = asyncio.all_tasks()
    async with at_work(at.deliverer.run) as work:
        await until(lambda: len(hook.posts) == 1, "the post")
        work.cancel()
        await asyncio.wait({work}, timeout=5)
        assert work.cancelled()
    await until(lambda: hook.under_way == 0, "the connection is closed")
    assert await at.due() == LEASE
    assert len(asyncio.all_tasks() - before) <= 1  # aiohttp's server keeps one for its next request
    async with at_work(at.deliverer.run):
        pass_time(at.store, at.clock, LEASE - 1)
        await rounds(at, 3)
        assert len(hook.posts) == 1
        pass_time(at.store, at.clock, 1)
        await until(lambda: at.counted("delivered") == 1, "it is delivered")
    assert len({each.headers["webhook-id"] for each in hook.posts}) == 1
    assert await at.empty()


async def test_attempts_of_another_version_are_read(at: Depot) -> None:
    """Fields that are not known are passed over: two versions of the service share one Redis while one is replaced."""
    stored = msgspec.json.encode({"count": 3, "first_at": T0, "colour": "blue"})
    assert msgspec.json.decode(stored, type=DeliveryAttempts) == DeliveryAttempts(count=3, first_at=T0)

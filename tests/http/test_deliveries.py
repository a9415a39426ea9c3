"""`…/deliveries`, `…/redrive` and `…/test` over a real Valkey, real sockets and a real deliverer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver.http.api import deliveries
from receiver.outbox.retries import ClaimedDelivery, DeliveryAttempts
from receiver.outbox.subscribers.subscriber import pause
from receiver.store import Store
from receiver.store.deliveries.queues import AttemptEffects
from tests.http.kit import US_ONLY, Answer, Service, real_receiver, running, settings
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.kit.sns import SnsSigner
from tests.service.depot import Depot, depot
from tests.service.kit import at_work
from tests.service.stage import Hook, Says
from tests.store.makers import refund_id

PATH = "/v1/subscribers/all"


@pytest.fixture
async def at(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Depot]:
    """A deliverer."""
    async with depot(store, redis, clock) as found:
        yield found


@pytest.fixture
async def hook(at: Depot) -> AsyncIterator[Hook]:
    """The subscriber "all"."""
    async with Hook().listening() as found:
        await at.subscribe(found)
        yield found


@pytest.fixture
async def service(sns: SnsSigner, store: Store) -> AsyncIterator[Service]:
    """One account."""
    async with running(settings("us"), store, real_receiver(sns, store, "us")) as service:
        yield service


async def die(at: Depot, hook: Hook, count: int) -> list[ClaimedDelivery]:
    """So many events that the subscriber does not want."""
    hook.answers = [Says(400, {"webhook-delivery": "abort-message"}, b"no\x00pe")] * count
    await at.owe(count)
    deliveries = await at.claim()
    for delivery in deliveries:
        await at.deliverer.deliver([delivery], (await at.store.of("us").subscribers.read()).subscribers["all"])
    return deliveries


async def redrive(service: Service, **body: Any) -> Answer:
    return await service.call("POST", f"{PATH}/redrive", token=US_ONLY, body=body)


async def test_dead_events_with_reason_attempts_and_last_answer(service: Service, at: Depot, hook: Hook) -> None:
    """Newest first, in pages."""
    deliveries = await die(at, hook, 3)
    first = (await service.get(f"{PATH}/deliveries?limit=2", token=US_ONLY)).json
    rest = (await service.get(f"{PATH}/deliveries?limit=2&cursor={first['nextCursor']}", token=US_ONLY)).json
    found = [*first["deliveries"], *rest["deliveries"]]
    assert [each["streamId"] for each in found] == [delivery.stream_id for delivery in reversed(deliveries)]
    assert rest["nextCursor"] is None
    one = found[-1]
    assert one.pop("writtenAt")
    assert one == {
        "id": hook.posts[0].headers["webhook-id"],
        "streamId": deliveries[0].stream_id,
        "type": "amazonpay.refund.declined",
        "refundId": refund_id(1),
        "reason": "aborted",
        "deadAt": "2025-10-09T08:53:20.000Z",
        "attempts": 1,
        "lastStatus": 400,
        "lastError": "HTTP 400",
        "lastAnswer": "no pe",
    }


async def test_waiting_events_with_their_next_attempt(service: Service, at: Depot, hook: Hook) -> None:
    """By the time of it, in pages."""
    hook.answers = [Says(500, {}, b"oops")]
    await at.owe(1)
    await at.deliver()
    await at.owe(2, first=2)
    pages, cursor = [], ""
    while cursor is not None:
        answer = await service.get(f"{PATH}/deliveries?state=waiting&limit=1{cursor}", token=US_ONLY)
        pages += answer.json["deliveries"]
        cursor = answer.json["nextCursor"] and f"&cursor={answer.json['nextCursor']}"
    assert [each["refundId"] for each in pages] == [refund_id(2), refund_id(3), refund_id(1)]
    assert (pages[2]["attempts"], pages[2]["lastError"], pages[2]["lastAnswer"]) == (1, "HTTP 500", "oops")
    assert pages[2]["nextAttemptAt"] == "2025-10-09T08:53:22.500Z"


@pytest.mark.parametrize("query", ["state=gone", "cursor=x", "state=waiting&cursor=1-1", "limit=0", "colour=red"])
async def test_wrong_questions_are_told(service: Service, hook: Hook, query: str) -> None:
    """400."""
    assert (await service.get(f"{PATH}/deliveries?{query}", token=US_ONLY)).status == 400


@pytest.mark.parametrize("by", ["event", "stream", "since", "all"])
async def test_dead_events_are_sent_again(service: Service, at: Depot, hook: Hook, by: str) -> None:
    """By id, by time, or all; a dry run changes nothing; the webhook-id stays the same, and other events stay dead."""
    deliveries = await die(at, hook, 3)
    ids = [post.headers["webhook-id"] for post in hook.posts]
    ways: dict[str, dict[str, Any]] = {
        "event": {"ids": ids[1:]},
        "stream": {"ids": [delivery.stream_id for delivery in deliveries[1:]]},
        "since": {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"},
        "all": {"all": True},
    }
    wanted = ways[by]
    expected = 2 if "ids" in wanted else 3
    dry = await redrive(service, **wanted, dryRun=True)
    assert (dry.status, dry.json["selected"], dry.json["redriven"]) == (200, expected, 0)
    assert len(await at.store.of("us").deliveries.dead_events("all")) == 3
    answer = await redrive(service, **wanted)
    assert (answer.status, answer.json["redriven"], answer.json["missing"]) == (202, expected, [])
    assert (await redrive(service, **wanted)).json["redriven"] == 0
    async with at_work(at.deliverer.run):
        await until(lambda: at.counted("delivered") == expected, "they are sent again")
    assert [post.headers["webhook-id"] for post in hook.posts[3:]] == ids[3 - expected :]
    assert len(await at.store.of("us").deliveries.dead_events("all")) == 3 - expected


async def test_what_was_delivered_is_sent_again_by_its_id_each_time(service: Service, at: Depot, hook: Hook) -> None:
    """A second request really sends again; an id that is nowhere is named."""
    await at.owe(1)
    await at.deliver()
    event, nowhere = hook.posts[0].headers["webhook-id"], "evt_" + "0" * 32
    for number in (2, 3):
        answer = await redrive(service, ids=[event, nowhere, "1-1"])
        assert (answer.json["redriven"], answer.json["missing"]) == (1, [nowhere, "1-1"])
        await at.deliver()
        assert len(hook.posts) == number


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": ["x"]},
        {"ids": "1-1"},
        {"ids": ["1-82303412398957477769"]},
        {"ids": ["1-1"], "all": True},
        {"all": 1},
        {"all": False},
        {"since": "yesterday"},
        {"until": 5},
        {"all": True, "dryRun": "no"},
        {"everything": True},
        {"ids": ["1-18446744073709551616"]},
        {"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
    ],
)
async def test_a_redrive_says_what_it_wants(service: Service, hook: Hook, body: Any) -> None:
    """400 (`bad_redrive`): nothing is sent by mistake."""
    answer = await redrive(service, **body)
    assert (answer.status, answer.json["reason"]) == (400, "bad_redrive")


@pytest.mark.parametrize("paused", [False, True])
async def test_a_test_goes_to_one_subscriber_alone_and_shows_its_answer(
    service: Service, at: Depot, hook: Hook, paused: bool
) -> None:
    """Before all that waits, signed as ever, also while it is paused; sent once, whatever it answers."""
    await at.owe(3)
    for delivery in await at.claim():
        await at.store.of(delivery.account).deliveries.retry(delivery, at.clock() + 60_000, DeliveryAttempts(count=1))
    if paused:
        (before,) = await at.store.of("us").subscribers.readable()
        assert await at.store.of("us").subscribers.change(before, pause(before, "operator", at.clock()))
    async with Hook("other").listening() as other, at_work(at.deliverer.run):
        await at.subscribe(other)
        answer = await service.call("POST", f"{PATH}/test", token=US_ONLY)
        assert (answer.status, answer.json["delivered"], answer.json["status"]) == (200, True, 204)
        (event,) = hook.events
        assert (event.get_type(), event.get_id()) == ("amazonpay.refund.test", answer.json["id"])
        hook.then = Says(500, {}, b"broken")
        answer = await service.call("POST", f"{PATH}/test", token=US_ONLY)
        said = [answer.json[key] for key in ("delivered", "status", "error", "answer")]
        assert said == [False, 500, "HTTP 500", "broken"]
        assert other.posts == []
    assert len(hook.posts) == 2
    assert await at.redis.zcard("refunds:{us}:lane:all") == 3
    assert await at.empty("all", "copies", "dead")


async def test_a_test_that_nobody_sends_is_202_and_is_not_sent_late(
    service: Service, at: Depot, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker runs; when one comes up later, it lets the test go."""
    monkeypatch.setattr(deliveries, "TEST_WAIT", 0.1)
    monkeypatch.setattr("receiver.deliver.send.STALE_TEST", -1)
    answer = await service.call("POST", f"{PATH}/test", token=US_ONLY)
    assert (answer.status, answer.json["delivered"]) == (202, None)
    async with at_work(at.deliverer.run):
        await until(lambda: at.empty("all", "lane", "copies"), "it is let go")
    assert hook.posts == []


async def test_the_failures_of_a_lane_show(service: Service, at: Depot, hook: Hook) -> None:
    """The breaker opens after five in a row."""
    await at.owe(1)
    for _ in range(5):
        (delivery,) = await at.claim()
        await at.store.of(delivery.account).deliveries.retry(
            delivery, at.clock(), DeliveryAttempts(count=1), AttemptEffects(failed=True, error="timeout")
        )
    stats = (await service.get(PATH, token=US_ONLY)).json["stats"]
    assert (stats["breaker"], stats["failuresInARow"], stats["lastError"]) == ("open", 5, "timeout")

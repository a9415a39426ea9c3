"""Chat and pager formats on real sockets: what they are owed, what is sent, and what is never stored or logged."""

from __future__ import annotations

import json
from typing import Any

from structlog.testing import capture_logs

from receiver.ledger.refund import Source
from receiver.outbox.events.operator_event import OperatorType, operator_event
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import pause
from receiver.store import Store
from receiver.track.record import Recorder
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.service.depot import depot
from tests.service.kit import at_work, pass_time
from tests.service.stage import Hook, Says
from tests.store.makers import refund_id, seen, subscriber

DECLINED = ("amazonpay.refund.declined",)
KEY = "R0123456789ABCDEFGHIJKLMNOPQRSTU"


async def test_a_retry_that_is_refunded_resolves_the_incident(store: Store, redis: Any, clock: ManualClock) -> None:
    """A pager and a webhook that ask for declines are owed the end of the chain too.

    The routing key is only in the posts: not in the log, and not in the record of a dead event."""
    aborts = Says(400, {"webhook-delivery": "abort-message"}, b'{"status":"invalid event"}')
    pages = Hook(answers=[Says(202), Says(202), aborts])
    async with depot(store, redis, clock, system_clock=clock) as at, pages.listening() as pager:
        await at.subscribe(pager, types=DECLINED, secrets=(), format="pagerduty", credential=Secret(KEY))
        await at.subscribe(Hook(name="plain", url=pager.url), types=DECLINED)
        recorder = Recorder(store, lambda: 0.0)
        facts = {"retry_of": refund_id(1), "retry_root": refund_id(1)}
        with capture_logs() as logs:
            await at.owe()
            await at.deliver()
            await recorder.record(at.account, seen("Refunded", 2), source=Source.POLL, details=facts)
            await at.deliver()
            await at.owe(first=3)
            await at.deliver()
        trigger, resolve, again = (json.loads(post.body) for post in pager.posts)
        assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
        assert trigger["dedup_key"] == resolve["dedup_key"] == f"amazonpay/us/{refund_id(1)}"
        assert trigger["routing_key"] == again["routing_key"] == KEY
        assert len(await at.claim("plain")) == 3
        (dead,) = await store.of("us").deliveries.dead_events("all")
        assert dead.reason == "aborted"
        assert KEY not in f"{dead}{logs}"


async def test_a_slack_webhook_whose_channel_is_archived_is_paused(
    store: Store, redis: Any, clock: ManualClock
) -> None:
    """What it is owed waits; its address is in no line of the log."""
    archived = Says(410, {}, b"channel_is_archived")
    async with depot(store, redis, clock) as at, Hook(answers=[Says(200, {}, b"ok"), archived]).listening() as chat:
        await at.subscribe(chat, types=DECLINED, secrets=(), format="slack")
        with capture_logs() as logs:
            await at.owe()
            await at.deliver()
            await at.owe(first=2)
            await at.deliver()
        assert [json.loads(post.body)["blocks"][0]["type"] for post in chat.posts] == ["header"] * 2
        (subscriber,) = await store.of("us").subscribers.readable()
        assert (subscriber.paused, subscriber.paused_reason) == (True, "gone")
        assert chat.url not in str(logs)
        assert not await at.empty()


async def test_in_chat_a_burst_is_one_message_and_then_a_summary(store: Store, redis: Any, clock: ManualClock) -> None:
    """The first at once; what happens in the ten seconds after it comes in one post, each event named once. One that
    is refused is sent again, and every event is settled by itself."""
    async with depot(store, redis, clock) as at, Hook(then=Says(200, {}, b"ok")).listening() as chat:
        await at.subscribe(chat, types=DECLINED, secrets=(), format="slack")
        await at.owe(1)
        async with at_work(at.deliverer.run):
            await until(lambda: at.counted("delivered") == 1, "the first")
            await at.owe(30, first=2)
            chat.answers = [Says(500)]
            pass_time(store, clock, 10_000)
            await until(lambda: at.counted("retry") == 30, "the rest, refused")
            pass_time(store, clock, 10_000)
            await until(lambda: at.counted("delivered") == 31, "the rest")
        named = [[refund_id(n) for n in range(1, 32) if refund_id(n) in post.body.decode()] for post in chat.posts]
        rest = [refund_id(n) for n in range(2, 32)]
        assert named == [[refund_id(1)], rest, rest]
        assert "30 refunds" in json.loads(chat.posts[2].body)["text"]
        assert await at.empty("all", "lane", "owed", "attempts", "copies")


async def test_in_chat_what_operators_are_told_is_one_message_too(store: Store, redis: Any, clock: ManualClock) -> None:
    """Fifty events given up at once are not fifty posts: those would outlast the lease, and be sent twice."""
    given_up = [
        operator_event(OperatorType.DEAD, "us", "finance", "exhausted", "It is dead.", clock(), event_id=f"evt_{n}")
        for n in range(20)
    ]
    paused = operator_event(OperatorType.PAUSED, "us", "finance", "failing", "Nothing gets <through>.", clock())
    async with depot(store, redis, clock) as at, Hook(then=Says(200, {}, b"ok")).listening() as chat:
        await at.subscribe(chat, types=("receiver.*", *DECLINED), secrets=(), format="slack")
        finance = subscriber("finance")
        await store.of("us").subscribers.put(finance)
        assert await store.of("us").subscribers.change(
            finance, pause(finance, "failing", clock()), operator_events=[*given_up, paused]
        )
        await store.of("us").deliveries.publish_operator_events()
        await at.owe(2)
        async with at_work(at.deliverer.run):
            await until(lambda: at.counted("delivered") == 23, "all of them")
        told, declines = sorted(
            (json.loads(post.body) for post in chat.posts), key=lambda post: "refund" in post["text"]
        )
        assert "2 refunds" in declines["text"]
        assert [block["text"]["text"] for block in told["blocks"]] == [
            "*Subscriber finance of us: delivery.dead* (20 times)\nIt is dead.",
            "*Subscriber finance of us: subscriber.paused*\nNothing gets &lt;through&gt;.",
        ]
        assert await at.empty("all", "lane", "owed", "attempts", "copies")

"""Chat and pager on real sockets: what is owed to them, what is sent, and what is never written down."""

from __future__ import annotations

import json
from typing import Any

from structlog.testing import capture_logs

from receiver.ledger.refund import Source
from receiver.outbox.secret import Secret
from receiver.settle import Settler
from receiver.store import Store
from tests.clock import ManualClock
from tests.river.depot import depot
from tests.river.stage import Hook, Says
from tests.store.makers import refund_id, seen

DECLINED = ("amazonpay.refund.declined",)
KEY = "R0123456789ABCDEFGHIJKLMNOPQRSTU"


async def test_a_retry_that_is_refunded_resolves_the_incident(store: Store, redis: Any, clock: ManualClock) -> None:
    """A pager that asks for declines is owed the end of the chain too, a webhook that asks for the same is not. The
    routing key is in the posts alone: not in the log, not in what is kept of an event that was given up."""
    aborts = Says(400, {"webhook-delivery": "abort-message"}, b'{"status":"invalid event"}')
    pages = Hook(answers=[Says(202), Says(202), aborts])
    async with depot(store, redis, clock, wall=clock) as at, pages.listening() as pager:
        await at.subscribe(pager, types=DECLINED, secrets=(), format="pagerduty", credential=Secret(KEY))
        await at.subscribe(Hook(name="plain", url=pager.url), types=DECLINED)
        settler = Settler(store, lambda: 0.0)
        facts = {"retry_of": refund_id(1), "retry_root": refund_id(1)}
        with capture_logs() as logs:
            await at.owe()
            await at.deliver()
            await settler.settle(at.account, seen("Refunded", 2), source=Source.POLL, facts=facts)
            await at.deliver()
            await at.owe(first=3)
            await at.deliver()
        trigger, resolve, again = (json.loads(post.body) for post in pager.posts)
        assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
        assert trigger["dedup_key"] == resolve["dedup_key"] == f"amazonpay/us/{refund_id(1)}"
        assert trigger["routing_key"] == again["routing_key"] == KEY
        assert len(await at.claim("plain")) == 2
        (dead,) = await store.dead_events("us", "all")
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
        (subscriber,) = await store.subscribers("us")
        assert (subscriber.paused, subscriber.paused_reason) == (True, "gone")
        assert chat.url not in str(logs)
        assert not await at.empty()

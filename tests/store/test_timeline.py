"""A refund's timeline, for display. On a real Valkey."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from receiver.amazon.account import Account
from receiver.ledger.next_look import NextLook
from receiver.ledger.refund import Source
from receiver.outbox.dead_letter import dead_event
from receiver.outbox.retries import DeliveryAttempts
from receiver.store import Store
from receiver.store.maintenance.pruning import Pruned
from receiver.store.redis import base, scripts
from receiver.store.refunds.timeline import TimelineEntry
from receiver.track.record import Recorder
from tests.kit.clock import T0, ManualClock
from tests.store.makers import claim, hint, refund_id, seen, subscriber

KEPT_FOR = 400 * 86_400_000
TRAIL = f"refunds:{{us}}:trail:{refund_id()}"
DECLINED = "amazonpay.refund.declined"


async def test_every_notification_look_and_try_is_kept_in_its_order(
    store: Store, account: Account, redis: Any, clock: ManualClock
) -> None:
    """A repeated notification is one; what an expired lease did is not there."""
    await store.of("us").subscribers.put(subscriber(types=(DECLINED,)))
    for _ in range(2):
        await store.of("us").schedule.hint(hint())
    (slow,) = (await claim(store)).items
    clock.tick(30_000)
    (look,) = (await claim(store)).items
    assert not await store.of(slow.account).schedule.reschedule(slow, NextLook(None, outcome="amazon_throttled"))
    assert await store.of(look.account).schedule.reschedule(look, NextLook(clock.ms, outcome="unchanged"))
    clock.tick(1_000)
    await store.of("us").schedule.hint(hint(at=clock.ms, message="", digest="", source=Source.REFRESH))
    await Recorder(store, lambda: 0.0).record(account, seen("Declined", 1, "AmazonRejected"), source=Source.POLL)
    for number in range(3):
        clock.tick(10_000)
        (delivery,) = (await store.of("us").deliveries.claim("finance", lease=5_000, limit=1)).items
        if number == 0:
            assert await store.of(delivery.account).deliveries.retry(
                delivery, clock.ms, DeliveryAttempts(count=1, first_at=T0, last_error="HTTP 500")
            )
        elif number == 1:
            assert await store.of(delivery.account).deliveries.dead(
                delivery, dead_event(delivery, "exhausted", clock.ms, DeliveryAttempts(last_error="timeout"))
            )
            await store.of("us").deliveries.redrive("finance", [delivery.stream_id])
        else:
            assert await store.of(delivery.account).deliveries.delivered(delivery)
            assert not await store.of(delivery.account).deliveries.delivered(delivery)
    assert await store.of("us").timelines.read(refund_id()) == [
        TimelineEntry(T0, "notification"),
        TimelineEntry(T0 + 30_000, "look", "notification", "unchanged"),
        TimelineEntry(T0 + 31_000, "refresh"),
        TimelineEntry(T0 + 41_000, "delivery", "finance", "retry", 1, "HTTP 500", DECLINED),
        TimelineEntry(T0 + 51_000, "delivery", "finance", "dead", 2, "exhausted: timeout", DECLINED),
        TimelineEntry(T0 + 61_000, "delivery", "finance", "delivered", 1, "", DECLINED),
    ]
    assert 0 < await redis.pttl(TRAIL) <= KEPT_FOR


async def test_it_is_bounded(store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest entries go."""

    def small(name: str) -> scripts.Script:
        real = scripts.script(name)
        source = real.source.replace(b"MOST_ENTRIES, KEPT_MS = 300,", b"MOST_ENTRIES, KEPT_MS = 3,")
        return replace(real, source=source, sha=hashlib.sha1(source, usedforsecurity=False).hexdigest())

    monkeypatch.setattr(base, "script", small)
    for number in range(5):
        await store.of("us").schedule.hint(hint(at=T0 + number, message=f"m{number}"))
    assert [trace.at - T0 for trace in await store.of("us").timelines.read(refund_id())] == [2, 3, 4]
    (look,) = (await claim(store)).items
    await store.of(look.account).schedule.reschedule(look, NextLook(T0, outcome="unchanged"))
    assert [trace.what for trace in await store.of("us").timelines.read(refund_id())] == [
        "notification",
        "notification",
        "look",
    ]


async def test_of_a_refund_that_amazon_does_not_know_nothing_stays(store: Store, redis: Any) -> None:
    """Otherwise any caller that may refresh could fill the store with names."""
    await store.of("us").schedule.hint(hint())
    (look,) = (await claim(store)).items
    await store.of(look.account).schedule.reschedule(look, NextLook(T0, outcome="amazon_not_found"))
    assert await redis.llen(TRAIL) == 2
    (look,) = (await claim(store)).items
    await store.of(look.account).schedule.reschedule(look, NextLook(None, outcome="amazon_not_found"))
    assert not await redis.exists(TRAIL)


async def test_it_goes_with_its_refund(store: Store, account: Account, redis: Any) -> None:
    store.connection.tracked_for = -1
    await store.of("us").schedule.hint(hint())
    (look,) = (await claim(store)).items
    recorder = Recorder(store, lambda: 0.0)
    told = {"charge_read": True, "retryable": "no"}
    await recorder.record(account, seen("Declined"), source=Source.NOTIFICATION, token=look.token, details=told)  # type: ignore[arg-type]
    assert await redis.llen(TRAIL) == 1
    assert await store.of("us").pruning.prune(refund_id(), before=None, remove=True) is Pruned.PRUNED
    assert not await redis.exists(TRAIL)


async def test_a_damaged_trail_is_in_nobodys_way(store: Store, account: Account, redis: Any) -> None:
    """An entry that cannot be read is passed over; where the key is something else, the work goes on."""
    await redis.rpush(TRAIL, b"{", b'["x"]')
    await store.of("us").schedule.hint(hint())
    assert await store.of("us").timelines.read(refund_id()) == [TimelineEntry(T0, "notification")]
    await redis.delete(TRAIL)
    await redis.set(TRAIL, "foreign")
    await store.of("us").schedule.hint(hint(message="m2"))
    (look,) = (await claim(store)).items
    assert await store.of(look.account).schedule.reschedule(look, NextLook(T0, outcome="unchanged"))
    await store.of("us").subscribers.put(subscriber(types=(DECLINED,)))
    await Recorder(store, lambda: 0.0).record(account, seen("Declined", 1, "AmazonRejected"), source=Source.POLL)
    (delivery,) = (await store.of("us").deliveries.claim("finance", lease=5_000, limit=1)).items
    assert await store.of(delivery.account).deliveries.delivered(delivery)

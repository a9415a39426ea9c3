"""Settling observations on a real Valkey: one atomic step, whatever else is written at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from receiver.amazon.account import Account
from receiver.errors import StoreUnavailable
from receiver.ledger.lifecycle import Details, EventType
from receiver.ledger.refund import Source
from receiver.outbox.events.event import event_id
from receiver.store import Store
from receiver.store.redis.base import RedisRepository
from receiver.store.refunds.refunds import Commit, Committed, Owed
from receiver.track.record import Recorder
from tests.kit.clock import T0, ManualClock
from tests.store.makers import claim, hint, refund_id, seen, subscriber

EVENTS = "refunds:{us}:events"


@pytest.fixture
def recorder(store: Store) -> Recorder:
    return Recorder(store, lambda: 0.0)


async def types_of(redis: Any) -> list[str]:
    return [fields[b"type"].decode().rpartition(".")[2] for _, fields in await redis.xrange(EVENTS)]


async def test_a_refund_nobody_told_us_about_is_taken_in(recorder: Recorder, store: Store, account: Account) -> None:
    await recorder.record(account, seen(), source=Source.NOTIFICATION)
    refund = await store.of("us").refunds.get(refund_id())
    assert refund is not None
    assert (refund.state, refund.revision, str(refund.amount)) == ("RefundInitiated", 1, "14.00 USD")


async def test_what_is_read_back_is_what_was_decided(recorder: Recorder, store: Store, account: Account) -> None:
    for state, reason in (("RefundInitiated", ""), ("Declined", "AmazonRejected"), ("Refunded", "")):
        settled = await recorder.record(account, seen(state, reason=reason), source=Source.POLL)
        if not settled.change.is_nothing:
            assert await store.of("us").refunds.get(refund_id()) == settled.change.refund


async def test_state_history_schedule_event_and_lane_are_written_together(
    recorder: Recorder, store: Store, redis: Any, account: Account
) -> None:
    await store.of("us").subscribers.add(subscriber("finance", types=(EventType.DECLINED.value,)))
    await store.of("us").subscribers.add(subscriber("audit", types=("*",)))
    await store.of("us").schedule.hint(hint())
    (look,) = (await claim(store)).items
    decline = seen("Declined", reason="AmazonRejected")
    told: Details = {"charge_read": True, "order_reference": "ORDER-1", "retryable": "no"}
    await recorder.record(account, decline, source=look.source, token=look.token, details=told)

    ((stream_id, fields),) = await redis.xrange(EVENTS)
    assert fields[b"id"].decode() == event_id("us", refund_id(), EventType.DECLINED)
    assert fields[b"reasonCode"] == b"AmazonRejected"
    for name in ("finance", "audit"):
        assert await redis.zrange(f"refunds:{{us}}:lane:{name}", 0, -1, withscores=True) == [(stream_id, float(T0))]
        ms, _, seq = stream_id.decode().partition("-")
        assert await redis.zrange(f"refunds:{{us}}:owed:{name}", 0, -1) == [f"{ms:0>15}-{seq:0>20}".encode()]
    assert [line.state for line in await store.of("us").refunds.history(refund_id())] == ["Declined"]
    assert await redis.zcard("refunds:{us}:due") == 0
    assert await redis.hlen("refunds:{us}:hints") == 0
    assert await redis.zrange("refunds:{us}:state:Declined", 0, -1) == [refund_id().encode()]
    assert await redis.zrange("refunds:{us}:reason:AmazonRejected", 0, -1) == [refund_id().encode()]
    charge = await redis.hgetall("refunds:{us}:charge:S01-5105180-3221187-C056351")
    assert charge == {refund_id().encode(): b"1400 Declined %d USD" % T0}
    assert await redis.zrange("refunds:{us}:order:ORDER-1", 0, -1, withscores=True) == [(refund_id().encode(), T0)]


async def test_a_pending_refund_is_scheduled_with_its_first_write(
    recorder: Recorder, redis: Any, account: Account
) -> None:
    await recorder.record(account, seen(), source=Source.CREATE)
    assert await redis.zscore("refunds:{us}:due", refund_id()) == T0 + 60_000


async def test_a_change_of_state_leaves_the_old_index(recorder: Recorder, redis: Any, account: Account) -> None:
    await recorder.record(account, seen(), source=Source.POLL)
    await recorder.record(account, seen("Refunded"), source=Source.POLL)
    assert await redis.zcard("refunds:{us}:state:RefundInitiated") == 0
    assert await redis.zcard("refunds:{us}:state:Refunded") == 1


async def test_an_unknown_state_is_kept_shown_and_polled_on(
    recorder: Recorder, store: Store, redis: Any, account: Account
) -> None:
    await recorder.record(account, seen("OnTheMoon"), source=Source.POLL)
    refund = await store.of("us").refunds.get(refund_id())
    assert refund is not None
    assert refund.state == "OnTheMoon"
    assert await redis.zscore("refunds:{us}:due", refund_id()) == T0 + 60_000
    assert await types_of(redis) == []


async def test_twenty_writers_make_one_event_of_each_kind(
    recorder: Recorder, store: Store, redis: Any, account: Account
) -> None:
    await store.of("us").subscribers.add(subscriber("audit"))
    both = [seen(), seen("Declined", reason="ProcessingFailure", updated_at=T0 + 1000)]
    await asyncio.gather(*(recorder.record(account, both[n % 2], source=Source.POLL) for n in range(20)))
    kinds = await types_of(redis)
    assert kinds.count("declined") == 1
    assert kinds.count("initiated") <= 1
    assert len(kinds) == len(set(kinds)) == await redis.zcard("refunds:{us}:lane:audit")
    refund = await store.of("us").refunds.get(refund_id())
    assert refund is not None
    assert refund.state == "Declined"
    assert [line.revision for line in await store.of("us").refunds.history(refund_id())] == list(
        range(1, refund.revision + 1)
    )


async def test_a_commit_with_an_old_revision_writes_nothing(
    recorder: Recorder, store: Store, redis: Any, account: Account
) -> None:
    settled = await recorder.record(account, seen(), source=Source.POLL)
    before = await redis.xlen(EVENTS)
    commit = Commit(None, settled.change.refund, [Owed({"id": "x"}, [])], 0, 0, None)
    assert await store.of(commit.refund.account).refunds.commit(commit) is Committed.REVISION
    assert await redis.xlen(EVENTS) == before


async def test_a_subscriber_added_between_decision_and_commit_is_not_forgotten(
    recorder: Recorder, store: Store, redis: Any, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.of("us").refunds.commit
    calls = 0

    async def late(commit: Commit) -> Committed:
        nonlocal calls
        calls += 1
        if calls == 1:
            await store.of("us").subscribers.add(subscriber("late"))
        return await real(commit)

    monkeypatch.setattr(store.of("us").refunds, "commit", late)
    await recorder.record(account, seen("Declined"), source=Source.POLL)
    assert calls == 2
    assert await redis.zcard("refunds:{us}:lane:late") == 1


async def test_a_late_worker_may_write_the_state_but_not_the_schedule(
    recorder: Recorder, store: Store, redis: Any, account: Account, clock: ManualClock
) -> None:
    await store.of("us").schedule.hint(hint())
    (slow,) = (await claim(store)).items
    clock.tick(30_000)
    (quick,) = (await claim(store)).items
    await recorder.record(account, seen("Refunded"), source=Source.POLL, token=slow.token)
    assert await redis.zscore("refunds:{us}:due", refund_id()) == quick.token


async def test_a_key_of_a_foreign_type_stops_the_commit_before_its_first_write(
    recorder: Recorder, redis: Any, account: Account
) -> None:
    await redis.set("refunds:{us}:state:Declined", "not mine")
    with pytest.raises(StoreUnavailable):
        await recorder.record(account, seen("Declined"), source=Source.POLL)
    assert await redis.keys("*") == [b"refunds:{us}:state:Declined"]


async def test_every_script_but_claims_may_run_twice(
    store: Store, redis: Any, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that re-sends after a cut connection runs a script that has already run."""

    class Twice(Recorder):
        pass

    real = RedisRepository._run

    async def twice(repository: RedisRepository, name: str, *args: object, **more: object) -> object:
        first = await real(repository, name, *args, **more)  # type: ignore[arg-type]
        return first if name.startswith("claim") else await real(repository, name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(RedisRepository, "_run", twice)
    await store.of("us").subscribers.add(subscriber("audit"))
    await store.of("us").schedule.hint(hint())
    (look,) = (await claim(store)).items
    await Twice(store, lambda: 0.0).record(
        account, seen("Declined", reason="AmazonRejected"), source=look.source, token=look.token
    )
    (delivery,) = (await store.of("us").deliveries.claim("audit", lease=30_000, limit=8)).items
    await store.of(delivery.account).deliveries.delivered(delivery)
    assert await types_of(redis) == ["declined"]
    assert await redis.zcard("refunds:{us}:lane:audit") == 0
    refund = await store.of("us").refunds.get(refund_id())
    assert refund is not None
    assert refund.revision == 1


async def test_whatever_happens_to_it_a_refund_stays_small(
    recorder: Recorder, store: Store, redis: Any, account: Account, clock: ManualClock
) -> None:
    """Redis keeps a hash of short values in one piece; one value over 64 bytes makes it several times as large."""
    told: Details = {"charge_read": True, "order_reference": "ORDER-1234567890", "retryable": "no"}
    clock.tick(30 * 86_400_000)
    states = ("RefundInitiated", ""), ("Declined", "ProcessingFailure"), ("Refunded", "")
    for at, (state, reason) in enumerate(states, T0):
        found = seen(state, reason=reason, updated_at=at)
        await recorder.record(account, found, source=Source.NOTIFICATION, details=told)
    refund = await store.of("us").refunds.get(refund_id())
    assert refund is not None
    assert len(",".join(refund.emitted)) > 64
    assert len(refund.finals) == 2
    for kind in ("refund", "history"):
        assert await redis.object("encoding", f"refunds:{{us}}:{kind}:{refund_id()}") == b"listpack"


async def test_a_line_of_the_history_is_an_array_in_an_order_that_stays(
    recorder: Recorder, store: Store, redis: Any, account: Account
) -> None:
    """What is in stores already is read by place."""
    await recorder.record(account, seen("Declined", reason="AmazonRejected"), source=Source.POLL)
    [line] = await redis.lrange(f"refunds:{{us}}:history:{refund_id()}", 0, -1)
    assert msgspec.json.decode(line) == [
        *(1, T0, "Declined", T0, "poll", "AmazonRejected", False, "", {"at": T0}, ""),
    ]


async def test_what_was_written_at_first_is_still_read(
    recorder: Recorder, store: Store, redis: Any, account: Account
) -> None:
    """Types of events had their whole names, and a line of the history was an object."""
    settled = await recorder.record(account, seen(), source=Source.POLL)
    history = await store.of("us").refunds.history(refund_id())
    await redis.hset(f"refunds:{{us}}:refund:{refund_id()}", "emitted", EventType.INITIATED.value)
    line = msgspec.json.encode(history[0])
    assert line.startswith(b"{")
    await redis.lset(f"refunds:{{us}}:history:{refund_id()}", 0, line)
    assert await store.of("us").refunds.get(refund_id()) == settled.change.refund
    assert await store.of("us").refunds.history(refund_id()) == history
    assert (await recorder.record(account, seen(), source=Source.POLL)).events == ()

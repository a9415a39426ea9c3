"""One damaged record among a hundred good ones, of every kind: it is named and counted, and costs only itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from receiver.amazon.account import Account
from receiver.deliver.retention import Retention
from receiver.ledger.query import Query
from receiver.ledger.refund import Source
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.events.operator_event import OperatorType, operator_event
from receiver.outbox.retries import DeliveryAttempts
from receiver.runtime.metrics import Metrics
from receiver.service import system_clock
from receiver.store import Store
from receiver.store.redis.keys import Keys
from receiver.store.redis.pipeline import connect
from receiver.track.record import Recorder
from tests.kit.clock import ManualClock
from tests.store.makers import claim, hint, refund_id, seen, subscriber

GOOD = 100
TYPES = ("amazonpay.refund.initiated", "amazonpay.refund.declined")
CHARGE = "S01-5105180-3221187-C056351"
DAY = 86_400_000
KEYS = Keys("us")
FACTS: Any = {"charge_read": True, "order_reference": "o", "retryable": "no"}
BAD = refund_id(0)
BAD_KEY = KEYS("refund", BAD)
NOT_TEXT = b"\xff\xfe"

Damage = Callable[[Any], Awaitable[Any]]


@pytest.fixture
def clock() -> ManualClock:
    """At the machine's time, as stream ids are."""
    return ManualClock(system_clock())


@pytest.fixture
async def store(redis: Any, valkey_url: str, clock: ManualClock, account: Account) -> AsyncIterator[Store]:
    """A store with a hundred refunds and one, which two subscribers are owed."""
    counted = Counter[str]()
    store = Store(connect(valkey_url), clock=clock, on_record=lambda kind: counted.update([kind]))
    store.connection.accounts = ["us"]
    store.kinds_counted = counted  # type: ignore[attr-defined]
    for name in ("finance", "other"):
        await store.of("us").subscribers.put(subscriber(name, types=TYPES))
    recorder = Recorder(store, lambda: 0.0)
    for number in range(GOOD + 1):
        await recorder.record(account, seen("RefundInitiated", number), source=Source.POLL, details=FACTS)
    yield store
    await store.close()


def clock_of(store: Store) -> ManualClock:
    assert isinstance(store.now, ManualClock)
    return store.now


def named(logs: list[Any]) -> set[tuple[str, str | None]]:
    return {(line["key"], line["part"]) for line in logs if line["event"] == "store.record_unreadable"}


async def claimed(store: Store) -> list[str]:
    """All refunds that are due a year from now, by id."""
    clock_of(store).ms += 300 * DAY
    found = []
    for _ in range(30):
        looks = (await claim(store, limit=50)).items
        found += [look.refund_id for look in looks]
        clock_of(store).ms += 1_000
    return found


async def delivered(store: Store, name: str) -> int:
    """How many events a subscriber is sent."""
    count = 0
    for _ in range(10):
        for delivery in (await store.of("us").deliveries.claim(name, lease=30_000, limit=100)).items:
            assert await store.of(delivery.account).deliveries.delivered(delivery)
            count += 1
    return count


REFUNDS: dict[str, dict[str, bytes]] = {
    "not a number": {"revision": b"many"},
    "not UTF-8": {"state": NOT_TEXT},
    "of a later version": {"by": b"dispute2"},
    "a time beyond all": {"changed": b"9" * 30},
    "a negative time": {"created": b"-5"},
    "no amount": {"amount": b"NaN"},
    "an endless amount": {"amount": b"Infinity", "currency": b"USD"},
    "no currency": {"currency": b"dollars"},
}


@pytest.mark.parametrize("damage", REFUNDS)
async def test_a_damaged_refund_is_shown_as_such_and_the_others_are_listed(
    store: Store, redis: Any, damage: str
) -> None:
    await redis.hset(BAD_KEY, mapping=REFUNDS[damage])
    with capture_logs() as logs:
        for query in (Query(), Query(state="RefundInitiated"), Query(order="o"), Query(charge=CHARGE)):
            page = await store.of("us").refunds.page(query, limit=200)
            assert (len(page.refunds), page.unreadable) == (GOOD, (BAD,)), query
        sizes = await store.of("us").gauges.measure()
    assert sizes["pending"] == GOOD + 1
    assert named(logs) == {(BAD_KEY, None)}
    assert store.kinds_counted == {"refund": 1}  # type: ignore[attr-defined]


@pytest.mark.parametrize("index", ["state", "order"])
@pytest.mark.parametrize("score", [b"inf", b"-inf", b"1e300", b"-5"])
async def test_a_place_that_is_no_time_is_told_and_every_refund_is_listed(
    store: Store, redis: Any, index: str, score: bytes
) -> None:
    key = KEYS.state("RefundInitiated") if index == "state" else KEYS("order", "o")
    await redis.execute_command("ZADD", key, score, BAD)
    found, cursor = [], ""
    with capture_logs() as logs:
        for _ in range(20):
            page = await store.of("us").refunds.page(Query(order="o" if index == "order" else ""), cursor, limit=30)
            found += [refund.refund_id for refund in page.refunds]
            cursor = page.next_cursor
            if not cursor:
                break
        if index == "state":
            assert len(await store.of("us").dashboard.pending_longest(200)) == GOOD + 1
    assert sorted(found) == sorted(refund_id(number) for number in range(GOOD + 1))
    assert named(logs) == {(key, BAD)}


async def test_a_member_of_an_index_that_is_no_text_is_left_out(store: Store, redis: Any) -> None:
    key = KEYS.state("RefundInitiated")
    await redis.zadd(key, {NOT_TEXT: system_clock()})
    with capture_logs() as logs:
        assert len((await store.of("us").refunds.page(Query(), limit=200)).refunds) == GOOD + 1
        assert len(await store.of("us").dashboard.pending_longest(200)) == GOOD + 1
        assert (await store.of("us").gauges.measure())["pending"] == GOOD + 2
    assert {key for key, _ in named(logs)} == {key}


@pytest.mark.parametrize("member", [NOT_TEXT, b"", b"../../x", b"x" * 300, b"a b"])
async def test_what_is_no_refund_is_set_aside_and_the_others_are_claimed(
    store: Store, redis: Any, member: bytes
) -> None:
    await redis.zadd(KEYS("due"), {member: 1})
    with capture_logs() as logs:
        assert sorted(await claimed(store)) == sorted(refund_id(number) for number in range(GOOD + 1))
    assert {key for key, _ in named(logs)} == {KEYS("due")}
    assert member in await redis.hgetall(KEYS("aside", "due"))
    assert await redis.zscore(KEYS("due"), member) is None


@pytest.mark.parametrize("score", [b"inf", b"-inf", b"1e300", b"253402300799999"])
async def test_what_is_scheduled_for_never_is_brought_back(store: Store, redis: Any, score: bytes) -> None:
    await redis.execute_command("ZADD", KEYS("due"), score, BAD)
    with capture_logs() as logs:
        assert BAD in [look.refund_id for look in (await claim(store)).items]
    if score != b"-inf":
        assert named(logs) == {(KEYS("due"), BAD)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", b"-1000000000"),
        ("tokens", b"nan"),
        ("tokens", b"many"),
        ("blocked", b"253402300799999"),
        ("blocked", b"inf"),
        ("at", b"later"),
        ("turn", b"x"),
        ("last", b"1e300"),
    ],
)
async def test_a_damaged_throttle_is_set_to_within_its_bounds_and_said(
    store: Store, redis: Any, clock: ManualClock, field: str, value: bytes
) -> None:
    await store.of("us").schedule.hint(hint(1, at=clock()))
    assert len((await claim(store, limit=1)).items) == 1
    await store.of("us").requests.take_token("get_charge", 10, 10)
    for call in ("get_refund", "get_charge"):
        await redis.hset(KEYS("throttle", call), field, value)
    clock.tick(60_000)
    await store.of("us").schedule.hint(hint(2, at=clock(), message="m2"))
    with capture_logs() as logs:
        assert (await claim(store, limit=1)).items
        assert await store.of("us").requests.take_token("get_charge", 10, 10) == 0
    if field in ("tokens", "blocked"):
        assert (KEYS("throttle", "get_refund"), field) in named(logs)
        assert (KEYS("throttle", "get_charge"), field) in named(logs)


async def test_amazon_blocks_for_an_hour_at_most(store: Store, clock: ManualClock) -> None:
    await store.of("us").schedule.block("get_refund", clock() + 400 * DAY)
    await store.of("us").schedule.hint(hint(1, at=clock()))
    assert not (await claim(store)).items
    clock.tick(3_600_001)
    assert (await claim(store)).items


@pytest.mark.parametrize("value", [b"\xff[", b"[]", b"[" * 5_000, b'["from the future", 1]'])
async def test_a_damaged_hint_costs_its_memory(store: Store, redis: Any, value: bytes) -> None:
    await store.of("us").schedule.hint(hint(1, at=store.now()))
    await redis.hset(KEYS("hints"), refund_id(1), value)
    with capture_logs() as logs:
        assert refund_id(1) in [look.refund_id for look in (await claim(store)).items]
    assert named(logs) == {(KEYS("hints"), refund_id(1))}


@pytest.mark.parametrize("member", [b"no id", NOT_TEXT, b"", b"1-99999999999999999999999", b"1-x"])
@pytest.mark.parametrize("score", [1, -1])
async def test_a_lane_member_that_is_no_id_is_set_aside(store: Store, redis: Any, member: bytes, score: int) -> None:
    queue = KEYS("lane", "finance")
    await redis.zadd(queue, {member: score})
    with capture_logs() as logs:
        assert await store.of("us").deliveries.queue_heads(["finance", "other"])
        assert len(await store.of("us").deliveries.waiting_page("finance", limit=200)) == GOOD + 1
        assert await delivered(store, "finance") == GOOD + 1
        assert await delivered(store, "other") == GOOD + 1
    assert {key for key, _ in named(logs)} == {queue}
    assert list(await redis.hgetall(KEYS("aside", "lane", "finance"))) == [member]


@pytest.mark.parametrize("score", [b"inf", b"-inf", b"1e300"])
async def test_a_score_without_end_stops_no_delivery(store: Store, redis: Any, score: bytes) -> None:
    queue = KEYS("lane", "finance")
    (first,) = await redis.zrange(queue, 0, 0)
    await redis.execute_command("ZADD", queue, score, first)
    await redis.delete(KEYS("lane", "other"))
    await redis.execute_command("ZADD", KEYS("lane", "other"), score, first)
    tops = await store.of("us").deliveries.queue_heads(["finance", "other"])
    assert all(at <= store.now() for at in tops.values())
    assert await delivered(store, "finance") == GOOD + 1
    assert await delivered(store, "other") == 1


@pytest.mark.parametrize("member", [b"", b"!", b"zzz", NOT_TEXT, b"12"])
async def test_what_is_owed_and_no_id_hinders_no_trimming_and_no_gauge(store: Store, redis: Any, member: bytes) -> None:
    await redis.zadd(KEYS("owed", "finance"), {member: 0})
    assert (await store.of("us").gauges.measure())["oldest_waiting:finance"] >= 0
    state = await store.of("us").dashboard.queue_state("finance")
    assert (state.waiting, state.oldest_at > 0) == (GOOD + 1, True)
    clock_of(store).ms += 100 * DAY
    await Retention(store.of("us"), Metrics(), 30 * DAY, 60 * DAY).round()
    assert await redis.xlen(KEYS("events")) == 0
    assert len(await store.of("us").deliveries.dead_events("finance")) == GOOD + 1


@pytest.mark.parametrize("field", ["streak", "tokens", "at", "probe", "not_before", "hold", "delivered", "success_at"])
@pytest.mark.parametrize("value", [b"many", b"nan", b"inf", b"-1e300", b"", NOT_TEXT])
async def test_a_damaged_health_empties_no_gauge_and_stops_no_delivery(
    store: Store, redis: Any, field: str, value: bytes
) -> None:
    await redis.hset(KEYS("health", "finance"), field, value)
    sizes = await store.of("us").gauges.measure()
    assert sizes["waiting:finance"] == sizes["waiting:other"] == GOOD + 1
    assert await delivered(store, "finance") == GOOD + 1
    health = await store.of("us").deliveries.health("finance")
    assert health.delivered == GOOD + 1
    assert health.success_at == store.now()


async def test_damaged_attempts_and_dead_events(store: Store, redis: Any) -> None:
    deliveries = (await store.of("us").deliveries.claim("finance", lease=30_000, limit=GOOD + 1)).items
    for delivery in deliveries:
        await store.of(delivery.account).deliveries.dead(
            delivery, DeadEvent(delivery.stream_id, "e", "t", "r", "exhausted", 1, 1, "no")
        )
    bad = deliveries[0].stream_id
    await redis.hset(KEYS("dead", "finance"), bad, b'{"stream_id": 1')
    await redis.zadd(KEYS("deaths", "finance"), {"zzz": 0, NOT_TEXT: 0, "": 0})
    with capture_logs() as logs:
        page = await store.of("us").deliveries.dead_page("finance", limit=GOOD + 10)
        assert [each.reason for each in page if each.stream_id == bad] == ["unreadable"]
        assert len(page) == len(await store.of("us").deliveries.dead_events("finance")) == GOOD + 1
    assert (KEYS("dead", "finance"), bad) in named(logs)
    store.connection.keep_dead = 10
    (delivery, *_) = (await store.of("us").deliveries.claim("other", lease=30_000, limit=1)).items
    assert await store.of(delivery.account).deliveries.dead(
        delivery, DeadEvent(delivery.stream_id, "e", "t", "r", "exhausted", 1, 1, "no")
    )
    await redis.hset(KEYS("attempts", "other"), "1-1", b"{")
    await redis.hset(KEYS("copies", "other"), "1-1", b"[1")
    await redis.zadd(KEYS("lane", "other"), {"1-1": 1})
    found = (await store.of("us").deliveries.claim("other", lease=30_000, limit=1)).items[0]
    assert (found.stream_id, found.attempts, found.fields) == ("1-1", DeliveryAttempts(), {})


async def test_damaged_lines_of_history_and_trail_are_left_out(store: Store, redis: Any) -> None:
    for number in range(GOOD):
        await store.of("us").schedule.hint(hint(0, at=store.now() + number, message=f"m{number}"))
    good = len(await store.of("us").timelines.read(BAD))
    await redis.rpush(KEYS("history", BAD), b"[", b"\xff", b"{}", b'[1,"x"]')
    await redis.rpush(KEYS("trail", BAD), b"[", b"\xff", b"{}", b'["x"]')
    with capture_logs() as logs:
        assert len(await store.of("us").refunds.history(BAD)) == 1
        assert len(await store.of("us").timelines.read(BAD)) == good
    assert {key for key, _ in named(logs)} == {KEYS("history", BAD), KEYS("trail", BAD)}


async def test_a_damaged_subscriber_is_owed_everything_and_the_others_are_told(
    store: Store, redis: Any, account: Account
) -> None:
    subscribers = KEYS("subscribers")
    await redis.hset(subscribers, mapping={"broken": b"{", NOT_TEXT: b"{}", "A Name": b"{}"})
    with capture_logs() as logs:
        subscriber_list = await store.of("us").subscribers.read()
    assert (sorted(subscriber_list.subscribers), list(subscriber_list.unreadable)) == (["finance", "other"], ["broken"])
    assert len(named(logs)) == 3
    await Recorder(store, lambda: 0.0).record(account, seen("Declined", 500, "X"), source=Source.POLL, details=FACTS)
    assert await redis.zcard(KEYS("lane", "broken")) == 1
    assert await store.of("us").subscribers.remove("broken")
    assert not await redis.exists(KEYS("lane", "broken"))


async def test_a_damaged_version_of_the_list_is_set_aside(store: Store, redis: Any) -> None:
    await redis.hset(KEYS("subscribers"), ":version", "latest")
    assert (await store.of("us").subscribers.read()).version == 0
    assert await store.of("us").subscribers.open()
    assert sorted((await store.of("us").subscribers.read()).subscribers) == ["finance", "other"]


@pytest.mark.parametrize("value", [b"", b"x", b"1-1", b"1-1 2-2 3-3", NOT_TEXT])
async def test_a_damaged_backfill_is_set_aside_and_trimming_goes_on(store: Store, redis: Any, value: bytes) -> None:
    await redis.hset(KEYS("backfill"), "finance", value)
    assert await store.of("us").deliveries.backfills() == []
    await redis.hset(KEYS("backfill"), "finance", value)
    assert await store.of("us").deliveries.trim(store.now()) >= 0
    assert (await redis.hgetall(KEYS("aside", "backfill")))[b"finance"] == value


async def test_what_is_to_be_told_and_cannot_be_read_holds_up_nothing(store: Store, redis: Any) -> None:
    event = operator_event(OperatorType.PAUSED, "us", "x", "gone", "Gone.", 5)
    before = subscriber("other", types=("amazonpay.refund.stuck", "receiver.*"))
    await store.of("us").subscribers.put(before)
    await redis.rpush(KEYS("told"), b"{", b"\xff", b'{"type": "receiver.subscriber.paused"}', b"[" * 5_000)
    await redis.rpush(KEYS("told"), msgspec.json.encode({"type": "receiver.weather.stormy", "id": "x"}))
    assert await store.of("us").subscribers.change(
        before, subscriber("other", types=("receiver.*",)), operator_events=[event]
    )
    assert await store.of("us").deliveries.publish_operator_events() == [event]
    assert [msgspec.json.decode(each)["type"] for each in await redis.lrange(KEYS("told"), 0, -1)] == [
        "receiver.weather.stormy"
    ], "what a later version tells is left to it"
    assert len(await redis.hgetall(KEYS("aside", "told"))) == 4


async def test_doctor_finds_everything(store: Store, redis: Any) -> None:
    """One damage of each kind among all that is right, and no other finding."""
    assert await store.inspection.inspect() == []
    assert not store.damage.records
    assert not store.damage.foreign
    (first,) = await redis.zrange(KEYS("lane", "finance"), 0, 0)
    damage: dict[str, tuple[Any, ...]] = {
        BAD_KEY: ("HSET", BAD_KEY, "revision", "many"),
        KEYS("history", BAD): ("RPUSH", KEYS("history", BAD), "["),
        KEYS.state("RefundInitiated"): ("ZADD", KEYS.state("RefundInitiated"), "inf", BAD),
        KEYS("due"): ("ZADD", KEYS("due"), 1, b"\xff"),
        KEYS("lane", "finance"): ("ZADD", KEYS("lane", "finance"), "inf", first),
        KEYS("owed", "finance"): ("ZADD", KEYS("owed", "finance"), 0, "zzz"),
        KEYS("hints"): ("HSET", KEYS("hints"), BAD, "{"),
        KEYS("attempts", "other"): ("HSET", KEYS("attempts", "other"), "1-1", "{"),
        KEYS("copies", "other"): ("HSET", KEYS("copies", "other"), "1-1", "{"),
        KEYS("dead", "other"): ("HSET", KEYS("dead", "other"), "1-1", "{"),
        KEYS("deaths", "other"): ("ZADD", KEYS("deaths", "other"), 0, "x"),
        KEYS("health", "other"): ("HSET", KEYS("health", "other"), "streak", "x"),
        KEYS("charge", CHARGE): ("HSET", KEYS("charge", CHARGE), "x", "y"),
        KEYS("taken", CHARGE): ("HSET", KEYS("taken", CHARGE), b"\xff", "y"),
        KEYS("requests", "r"): ("HSET", KEYS("requests", "r"), "state", "y"),
        KEYS("fps", "r"): ("HSET", KEYS("fps", "r"), "state", "y"),
        KEYS("subscribers"): ("HSET", KEYS("subscribers"), "x", "{"),
        KEYS("backfill"): ("HSET", KEYS("backfill"), "x", "{"),
        KEYS("told"): ("RPUSH", KEYS("told"), "{"),
        KEYS("events"): ("XADD", KEYS("events"), "*", "type", "no type"),
        KEYS("throttle", "get_refund"): ("HSET", KEYS("throttle", "get_refund"), "blocked", "253402300799999"),
        KEYS("trail", BAD): ("RPUSH", KEYS("trail", BAD), "["),
        KEYS("unrecognized", "details"): ("HSET", KEYS("unrecognized", "details"), "x", "{"),
    }
    for command in damage.values():
        await redis.execute_command(*command)
    await redis.set(KEYS("epoch"), "x")
    await redis.delete(KEYS("epoch"))
    await redis.sadd(KEYS("epoch"), "x")
    await redis.set("refunds:{us}:nobody", "knows")
    assert await store.inspection.inspect() == ["refunds:{us}:nobody"]
    assert {key for key, _ in store.damage.records} == set(damage)
    assert [(each.key, each.found) for each in store.damage.foreign] == [(KEYS("epoch"), "set")]


async def test_a_repaired_refund_keeps_what_can_be_read_and_its_revision_goes_on(
    store: Store, redis: Any, account: Account
) -> None:
    whole = await store.of("us").refunds.get(BAD)
    assert whole
    await redis.hset(BAD_KEY, mapping={"revision": b"many", "reason": NOT_TEXT})
    kept = await store.inspection.repair(BAD_KEY)
    assert (await redis.hgetall(kept))[b"revision"] == b"many"
    found = await store.of("us").refunds.get(BAD)
    assert found
    assert (found.state, found.order_reference, found.charge_id) == (whole.state, "o", CHARGE)
    assert found.revision > whole.revision
    assert BAD in [look.refund_id for look in (await claim(store)).items]
    recorder = Recorder(store, lambda: 0.0)
    settled = await recorder.record(account, seen("Declined", 0, "X", store.now()), source=Source.POLL, details=FACTS)
    assert [event.type.rpartition(".")[2] for event in settled.events] == ["declined"]
    assert settled.change.refund.revision > whole.revision + 1_000


async def test_a_part_is_set_aside_and_kept(store: Store, redis: Any) -> None:
    await redis.hset(KEYS("subscribers"), "broken", "{")
    version = (await store.of("us").subscribers.read()).version
    assert await store.inspection.repair(KEYS("subscribers"), "broken") == KEYS("aside", "subscribers")
    assert (await redis.hgetall(KEYS("aside", "subscribers"))) == {b"broken": b"{"}
    subscriber_list = await store.of("us").subscribers.read()
    assert (subscriber_list.version, list(subscriber_list.unreadable)) == (version + 1, [])
    assert await store.inspection.repair(KEYS("subscribers"), "nobody") == ""
    assert await store.inspection.repair(KEYS("refund", "nobody")) == ""
    with pytest.raises(ValueError, match="not a key"):
        await store.inspection.repair("refunds:{us}:nobody")

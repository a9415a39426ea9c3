"""Hints, claims, leases and the throttle, on a real Valkey."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from receiver.errors import StoreUnavailable
from receiver.ledger.next_look import FollowUp, NextLook
from receiver.ledger.notification import HintResult
from receiver.ledger.refund import Source
from receiver.store import Store
from tests.kit.clock import T0, ManualClock
from tests.store.makers import claim, hint, refund_id

DUE = "refunds:{us}:due"


async def test_a_hint_is_written_once_however_often_it_comes(store: Store) -> None:
    assert await store.of("us").schedule.hint(hint()) is HintResult.NEW
    assert await store.of("us").schedule.hint(hint()) is HintResult.REPEATED
    assert [look.refund_id for look in (await claim(store)).items] == [refund_id()]


async def test_a_message_whose_hint_failed_is_no_repetition(store: Store, redis: Any) -> None:
    """What is marked as seen has had its effect: a key of another type stops the script half way."""
    await redis.set("refunds:{us}:hinted", "not a sorted set")
    with pytest.raises(StoreUnavailable):
        await store.of("us").schedule.hint(hint())
    await redis.delete("refunds:{us}:hinted")
    assert await store.of("us").schedule.hint(hint()) is HintResult.NEW
    assert [look.refund_id for look in (await claim(store)).items] == [refund_id()]


async def test_the_same_message_id_with_another_signed_text_counts_and_is_told(store: Store) -> None:
    await store.of("us").schedule.hint(hint(1, digest="d1"))
    assert await store.of("us").schedule.hint(hint(2, digest="d2")) is HintResult.ALTERED
    assert len((await claim(store)).items) == 2


async def test_the_mark_of_a_seen_message_ends_after_the_accepted_age(store: Store, redis: Any) -> None:
    await store.of("us").schedule.hint(hint())
    assert 15 * 86_400_000 < await redis.pttl("refunds:{us}:seen:m1") <= 16 * 86_400_000


async def test_a_hint_without_a_message_is_never_a_repetition(store: Store) -> None:
    await store.of("us").schedule.hint(hint(message="", digest="", source=Source.REFRESH))
    assert await store.of("us").schedule.hint(hint(message="", digest="", source=Source.REFRESH)) is HintResult.NEW


async def test_a_claim_is_a_lease_and_its_score_is_the_token(store: Store, redis: Any, clock: ManualClock) -> None:
    await store.of("us").schedule.hint(hint())
    (look,) = (await claim(store)).items
    assert look.token == T0 + 30_000 == await redis.zscore(DUE, refund_id())
    assert look.source is Source.NOTIFICATION
    assert (await claim(store)).items == ()
    clock.tick(30_000)
    (again,) = (await claim(store)).items
    assert again.token == T0 + 60_000


async def test_a_worker_that_settles_after_its_lease_changes_nothing(
    store: Store, redis: Any, clock: ManualClock
) -> None:
    await store.of("us").schedule.hint(hint())
    (slow,) = (await claim(store)).items
    clock.tick(30_000)
    (quick,) = (await claim(store)).items
    assert not await store.of(slow.account).schedule.reschedule(slow, NextLook(None))
    assert await redis.zscore(DUE, refund_id()) == quick.token
    assert await store.of(quick.account).schedule.reschedule(quick, NextLook(T0 + 99_000))
    assert await redis.zscore(DUE, refund_id()) == T0 + 99_000


async def test_a_hint_during_a_lease_is_not_lost(store: Store) -> None:
    await store.of("us").schedule.hint(hint(message="m1"))
    (first,) = (await claim(store)).items
    await store.of("us").schedule.hint(hint(message="m2", digest="d2"))
    (second,) = (await claim(store)).items
    assert second.token > first.token
    assert not await store.of(first.account).schedule.reschedule(first, NextLook(None))
    assert await store.of(second.account).schedule.reschedule(second, NextLook(None))


@pytest.mark.parametrize("later", [Source.NOTIFICATION, Source.REFRESH])
@pytest.mark.parametrize("kind", ["Chargeback", "AmazonA-ZRefund", "a" * 64, "1.2:3_4"])
async def test_a_hint_without_a_refund_type_keeps_the_one_that_was_told(
    store: Store, redis: Any, later: Source, kind: str
) -> None:
    """Both generations of notifications come to one address, and only the older one has the type."""
    await redis.hset(f"refunds:{{us}}:refund:{refund_id()}", "revision", 1)
    told = msgspec.structs.replace(hint(message="xml", digest="x"), refund_type=kind)
    await store.of("us").schedule.hint(told)
    await store.of("us").schedule.hint(hint(message="", digest="", at=T0 + 7, source=later))
    (look,) = (await claim(store)).items
    assert look.follow_up == FollowUp(later, T0 + 7, T0 + 7, kind)
    await store.of(look.account).schedule.reschedule(
        look, NextLook(T0, msgspec.structs.replace(look.follow_up, step=2, failures=1, due=T0 + 9))
    )
    await store.of("us").schedule.hint(hint(message="v2", digest="v", at=T0 + 8))
    (look,) = (await claim(store)).items
    assert look.follow_up == FollowUp(Source.NOTIFICATION, T0 + 8, T0 + 8, kind)
    await store.of("us").schedule.hint(msgspec.structs.replace(told, message_id="new", refund_type="Other"))
    (look,) = (await claim(store)).items
    assert look.follow_up is not None
    assert look.follow_up.refund_type == "Other"


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_hint_without_a_trace_is_written_as_ever(store: Store, redis: Any) -> None:
    """Byte for byte: an absent trace takes no space. The last hint counts, as in everything else."""
    hints, plain = "refunds:{us}:hints", b'["notification",%d,%d,"",0,0,0]' % (T0, T0)
    await store.of("us").schedule.hint(hint())
    assert await redis.hget(hints, refund_id()) == plain
    await store.of("us").schedule.hint(msgspec.structs.replace(hint(message="m2"), traceparent=PARENT))
    assert await redis.hget(hints, refund_id()) == plain[:-1] + b',"%s"]' % PARENT.encode()
    (look,) = (await claim(store)).items
    assert look.traceparent == PARENT
    assert look.follow_up is not None
    await store.of(look.account).schedule.reschedule(
        look, NextLook(T0, msgspec.structs.replace(look.follow_up, step=1))
    )
    await store.of("us").schedule.hint(msgspec.structs.replace(hint(message="m3"), refund_type="Chargeback"))
    (look,) = (await claim(store)).items
    assert (look.traceparent, look.follow_up) == ("", FollowUp(Source.NOTIFICATION, T0, T0, "Chargeback"))


async def test_a_later_look_for_the_same_hint_is_in_its_trace(store: Store) -> None:
    """And it keeps the refund type of an earlier hint."""
    await store.of("us").schedule.hint(msgspec.structs.replace(hint(message="xml"), refund_type="Chargeback"))
    await store.of("us").schedule.hint(msgspec.structs.replace(hint(message="m2"), traceparent=PARENT))
    (look,) = (await claim(store)).items
    assert look.follow_up == FollowUp(Source.NOTIFICATION, T0, T0, "Chargeback", traceparent=PARENT)
    await store.of(look.account).schedule.reschedule(
        look, NextLook(T0, msgspec.structs.replace(look.follow_up, step=1, due=T0))
    )
    (look,) = (await claim(store)).items
    assert look.follow_up == FollowUp(Source.NOTIFICATION, T0, T0, "Chargeback", step=1, due=T0, traceparent=PARENT)


async def test_versions_read_each_others_hints(store: Store, redis: Any) -> None:
    """An upgrade finds hints without the field, and after a rollback the version before passes it over."""
    await store.of("us").schedule.hint(hint())
    await redis.hset("refunds:{us}:hints", refund_id(), b'["notification",%d]' % T0)
    (look,) = (await claim(store)).items
    assert (look.follow_up, look.traceparent) == (FollowUp(Source.NOTIFICATION, T0), "")

    class Before(msgspec.Struct, array_like=True):
        source: Source
        at: int
        sent_at: int = 0
        refund_type: str = ""
        step: int = 0
        failures: int = 0
        due: int = 0

    written = FollowUp(Source.REFRESH, T0, step=2, traceparent=PARENT).written()
    assert msgspec.json.decode(written, type=Before) == Before(Source.REFRESH, T0, step=2)


async def test_settling_keeps_the_hint_that_arrived_meanwhile(store: Store) -> None:
    await store.of("us").schedule.hint(hint(message="m1"))
    (first,) = (await claim(store)).items
    await store.of("us").schedule.hint(hint(message="m2", digest="d2", at=T0 + 7))
    assert await store.of(first.account).schedule.reschedule(first, NextLook(None))
    (second,) = (await claim(store)).items
    assert second.follow_up == FollowUp(Source.NOTIFICATION, T0 + 7, T0 + 7)


async def test_two_claims_of_clocks_that_differ_never_share_a_token(store: Store, clock: ManualClock) -> None:
    tokens = []
    for number, skew in enumerate([0, 5, -5, 0, 5]):
        await store.of("us").schedule.hint(hint(message=f"m{number}", digest=f"d{number}"))
        clock.ms = T0 + skew
        (look,) = (await claim(store)).items
        tokens.append(look.token)
    assert len(set(tokens)) == 5


async def test_a_claim_takes_no_more_than_there_are_tokens(store: Store, clock: ManualClock) -> None:
    for number in range(10):
        await store.of("us").schedule.hint(hint(number, message=f"m{number}"))
    claimed = await claim(store, limit=20, burst=5, per_second=1)
    assert (len(claimed.items), claimed.wait) == (5, 1000)
    clock.tick(2_500)
    claimed = await claim(store, limit=20, burst=5, per_second=1)
    assert (len(claimed.items), claimed.wait) == (2, 500)
    for number in range(10, 15):
        await store.of("us").schedule.hint(hint(number, message=f"m{number}"))
    clock.tick(20_000)
    assert len((await claim(store, limit=20, burst=5, per_second=1)).items) == 5


async def test_what_is_patient_leaves_a_quarter_of_the_burst_for_hints(
    store: Store, redis: Any, clock: ManualClock
) -> None:
    """Five of twenty tokens are kept back, whatever waits; the next hints get them at once. Then the tokens are
    refilled."""
    await redis.zadd(DUE, {refund_id(500 + number): T0 - 1 for number in range(40)})
    claimed = await claim(store, limit=40, burst=20, per_second=4)
    assert (len(claimed.items), claimed.wait) == (15, 250)
    for number in range(3):
        await store.of("us").schedule.hint(hint(number, message=f"m{number}"))
    claimed = await claim(store, limit=40, burst=20, per_second=4)
    assert sorted(look.refund_id for look in claimed.items)[:3] == [refund_id(number) for number in range(3)]
    assert len(claimed.items) <= 4
    clock.tick(60_000)
    assert len((await claim(store, limit=40, burst=20, per_second=4)).items) == 15


async def test_every_fourth_token_goes_to_the_schedule_while_it_is_overdue(store: Store, redis: Any) -> None:
    for number in range(12):
        await store.of("us").schedule.hint(hint(number, message=f"m{number}"))
        await redis.zadd(DUE, {refund_id(100 + number): T0 - 1000 + number})
    order = [look.follow_up is not None for look in (await claim(store, limit=8)).items]
    assert order == [True, True, True, False, True, True, True, False]


async def test_without_hints_the_schedule_gets_every_token_oldest_first(store: Store, redis: Any) -> None:
    await redis.zadd(DUE, {refund_id(number): T0 - number for number in range(5)})
    looks = (await claim(store)).items
    assert [look.refund_id for look in looks] == [refund_id(number) for number in (4, 3, 2, 1, 0)]
    assert {look.source for look in looks} == {Source.POLL}


async def test_what_is_hinted_and_due_is_asked_once(store: Store, redis: Any) -> None:
    await store.of("us").schedule.hint(hint())
    await redis.zadd(DUE, {refund_id(): T0 - 1})
    assert len((await claim(store)).items) == 1
    assert (await claim(store)).items == ()


async def test_a_claim_says_when_there_is_more(store: Store, redis: Any) -> None:
    assert (await claim(store)).wait is None
    await redis.zadd(DUE, {refund_id(): T0 + 1234})
    assert (await claim(store)).wait == 1234


async def test_after_a_429_nothing_is_claimed_until_amazon_wants_it(store: Store, clock: ManualClock) -> None:
    await store.of("us").schedule.hint(hint())
    await store.of("us").schedule.block("get_refund", T0 + 7_000)
    claimed = await claim(store)
    assert (claimed.items, claimed.wait) == ((), 7_000)
    await store.of("us").schedule.block("get_refund", T0 + 1_000)
    clock.tick(6_999)
    assert (await claim(store)).items == ()
    clock.tick(1)
    assert len((await claim(store)).items) == 1


async def test_what_is_remembered_of_a_hint_comes_back_with_the_next_claim(store: Store, clock: ManualClock) -> None:
    await store.of("us").schedule.hint(hint())
    (look,) = (await claim(store)).items
    remembered = FollowUp(Source.NOTIFICATION, T0, T0, step=2, failures=1)
    await store.of(look.account).schedule.reschedule(look, NextLook(T0 + 5_000, remembered))
    clock.tick(5_000)
    (again,) = (await claim(store)).items
    assert again.follow_up == remembered


async def test_twenty_workers_share_the_due_refunds_without_asking_twice(store: Store, redis: Any) -> None:
    await redis.zadd(DUE, {refund_id(number): T0 - 1 for number in range(200)})
    claims = await asyncio.gather(*(claim(store, limit=10, burst=1000) for _ in range(25)))
    asked = [look.refund_id for claimed in claims for look in claimed.items]
    assert sorted(asked) == sorted(refund_id(number) for number in range(200))


async def test_accounts_do_not_mix(store: Store) -> None:
    await store.of("eu").schedule.hint(hint())
    assert (await claim(store)).items == ()

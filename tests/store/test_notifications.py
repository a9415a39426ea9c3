"""Notifications that are not understood, kept in a real Valkey: bounded, whole, and read with a verdict each."""

from __future__ import annotations

import random
from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.ledger.notification import UNASSIGNED, HintResult, UnrecognizedNotification
from receiver.store import Store
from receiver.store.refunds import notifications
from receiver.store.refunds.notifications import KEPT_FOR
from tests.kit.clock import T0, ManualClock

INDEX, DETAILS, MESSAGES = (f"refunds:{{us}}:unrecognized{end}" for end in ("", ":details", ":messages"))


def kept(number: int = 1, digest: str = "a" * 64, at: int = T0) -> UnrecognizedNotification:
    return UnrecognizedNotification(
        digest, f"message-{number}", "arn:topic", at - 500, at, "why", ("us",), ("S01-1",), 1, 4, "subject"
    )


async def ids(store: Store, account: str = "us", limit: int = 1_000) -> list[str]:
    return [each.id for each in await store.of(account).notifications.latest(limit)]


async def test_a_notification_is_kept_whole_and_once(store: Store, redis: Any) -> None:
    """Whatever characters it holds. SNS repeats what it has sent: that is one."""
    message = "\x00 “text” \U0001f4b6 \x1b[0m\n" * 1000
    assert await store.of("us").notifications.keep(kept(), message) is HintResult.NEW
    assert await store.of("us").notifications.keep(kept(), message) is HintResult.REPEATED
    assert await ids(store) == ["message-1"]
    found = await store.of("us").notifications.get("message-1")
    assert found is not None
    assert (found[0].details, found[1]) == (kept(), message)
    assert await redis.hstrlen(MESSAGES, "message-1") < len(message) / 10
    assert await store.of("us").notifications.get("message-2") is None
    assert await store.of("us").notifications.count() == 1


async def test_one_id_with_two_texts_is_kept_twice(store: Store) -> None:
    """Both were signed, and both were acknowledged."""
    await store.of("us").notifications.keep(kept(), "one")
    for expected in (HintResult.ALTERED, HintResult.REPEATED):
        assert await store.of("us").notifications.keep(kept(digest="b" * 64), "two") is expected
    assert await ids(store) == ["message-1-bbbbbbbb", "message-1"]
    found = await store.of("us").notifications.get("message-1-bbbbbbbb")
    assert found is not None
    assert found[1] == "two"


async def test_the_newest_are_kept_newest_first(
    store: Store, redis: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is per account, and nothing is left of those that were removed."""
    monkeypatch.setattr(notifications, "MOST_KEPT", 5)
    for number in range(8):
        clock.ms = T0 + number
        await store.of("us").notifications.keep(kept(number, at=clock.ms), "text")
        await store.of("eu").notifications.keep(kept(number, at=clock.ms), "text")
    assert await ids(store) == [f"message-{number}" for number in (7, 6, 5, 4, 3)]
    assert await ids(store, limit=2) == ["message-7", "message-6"]
    assert len(await ids(store, "eu")) == 5
    assert [await redis.zcard(INDEX), await redis.hlen(DETAILS), await redis.hlen(MESSAGES)] == [5, 5, 5]


async def test_a_thousand_are_kept(store: Store) -> None:
    """The documented limit."""
    for number in range(1_003):
        await store.of("us").notifications.keep(kept(number, at=T0 + number), "text")
    assert await store.of("us").notifications.count() == 1_000
    assert (await ids(store))[-1] == "message-3"


async def test_bytes_are_bounded_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest is kept whatever its size."""
    monkeypatch.setattr(notifications, "MOST_BYTES", 250_000)
    for number in range(4):
        text = random.Random(number).randbytes(50_000).hex()
        await store.of("us").notifications.keep(kept(number, at=T0 + number), text)
    assert await ids(store) == [f"message-{number}" for number in (3, 2, 1, 0)]
    await store.of("us").notifications.keep(kept(9, at=T0 + 9), random.Random(9).randbytes(150_000).hex())
    assert await ids(store) == ["message-9", "message-3"]


async def test_after_thirty_days_one_is_gone(store: Store, redis: Any, clock: ManualClock) -> None:
    """With the next that comes, or by itself where none does; and it is not shown in between."""
    await store.of("us").notifications.keep(kept(1), "text")
    assert 0 < await redis.pttl(MESSAGES) <= KEPT_FOR
    clock.ms = T0 + KEPT_FOR + 1
    assert (await ids(store), await store.of("us").notifications.count()) == ([], 0)
    await store.of("us").notifications.keep(kept(2, at=clock.ms), "text")
    assert await redis.hkeys(MESSAGES) == [b"message-2"]
    assert {await redis.pttl(key) > KEPT_FOR - 60_000 for key in (INDEX, DETAILS, MESSAGES)} == {True}


async def test_a_damaged_record_costs_only_itself(store: Store, redis: Any) -> None:
    """One bad among good ones, of every part."""
    for number in range(4):
        await store.of("us").notifications.keep(kept(number, at=T0 + number), "text")
    await redis.hset(DETAILS, "message-1", "damaged")
    await redis.hset(MESSAGES, "message-2", "damaged")
    await redis.zadd(INDEX, {b"\xff": T0 + 9, "of nothing": T0 + 9})
    assert await ids(store) == ["message-3", "message-2", "message-0"]
    for number in (1, 2):
        assert await store.of("us").notifications.get(f"message-{number}") is None
    assert await store.of("us").notifications.get("message-3") is not None


@pytest.mark.parametrize("key", [INDEX, DETAILS, MESSAGES])
async def test_a_key_of_another_type_stops_it_before_the_first_write(store: Store, redis: Any, key: str) -> None:
    """Nothing is half kept, and nothing is acknowledged."""
    await redis.set(key, "foreign")
    with pytest.raises(StoreUnavailable):
        await store.of("us").notifications.keep(kept(), "text")
    assert await redis.keys("refunds:{us}:unrecognized*") == [key.encode()]
    await redis.delete(key)
    assert await store.of("us").notifications.keep(kept(), "text") is HintResult.NEW


async def test_what_is_nobodys_is_kept_apart(store: Store) -> None:
    """No account can have the name."""
    await store.of(UNASSIGNED).notifications.keep(kept(), "text")
    assert (await ids(store), await ids(store, UNASSIGNED)) == ([], ["message-1"])

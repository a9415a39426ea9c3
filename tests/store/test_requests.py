"""The scripts that guard refunds: they write nothing if a key has the wrong type."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from receiver.errors import StoreUnavailable
from receiver.ledger.charge_book import Guard
from receiver.ledger.money import Money
from receiver.ledger.refund_request import PreparedRefund, RefundRequestRecord, RequestState
from receiver.store import Store
from receiver.store.requests.requests import Attempt, NotReserved
from tests.kit.clock import ManualClock

CHARGE = "S01-5105180-3221187-C056351"
ORDER = PreparedRefund(
    id="a" * 64, digest="d", amazon_key="k", body=b"{}", charge_id=CHARGE, money=Money(Decimal("14.00"), "USD")
)
KEYS = {
    "request": f"requests:{ORDER.id}",
    "charge": f"charge:{CHARGE}",
    "issuing": "issuing",
    "reserved": "reserved",
    "unclear": "unclear",
    "taken": f"taken:{CHARGE}",
}


async def reserve(store: Store, owner: str = "o", most: int = 10_000) -> Any:
    return await store.of("us").requests.reserve(ORDER, owner=owner, guard=Guard(most, 0), lease=30_000)


async def admitted(store: Store) -> Attempt:
    found = await reserve(store)
    assert isinstance(found, Attempt)
    return Attempt(ORDER.id, found.token)


async def dump(redis: Any) -> dict[bytes, bytes]:
    return {name: await redis.dump(name) for name in await redis.keys("*")}


async def begin(store: Store, attempt: Attempt) -> Any:
    return await store.of("us").requests.begin(attempt, ORDER)


async def done(store: Store, attempt: Attempt) -> Any:
    return await store.of("us").requests.done(attempt, ORDER, "S01-1", "RefundInitiated")


async def refuse(store: Store, attempt: Attempt) -> Any:
    return await store.of("us").requests.refuse(attempt, ORDER, {"detail": "no"})


async def again(store: Store, attempt: Attempt) -> Any:
    return await store.of("us").requests.retry(attempt, ORDER, 1, unknown=True, fields={"detail": "x"})


async def by_hand(store: Store, attempt: Attempt) -> Any:
    return await store.of("us").requests.resolve(ORDER, {"settled_by": "ops"}, refund_id="S01-1", state="Refunded")


async def reserve_more(store: Store, attempt: Attempt) -> Any:
    return await reserve(store, "another")


WORK: dict[str, tuple[Callable[[Store, Attempt], Awaitable[Any]], tuple[str, ...]]] = {
    "reserve": (reserve_more, ("request", "charge", "issuing", "reserved", "taken")),
    "begin_try": (begin, ("request", "issuing", "charge", "taken")),
    "done": (done, tuple(KEYS)),
    "refused": (refuse, tuple(KEYS)),
    "retry": (again, tuple(KEYS)),
    "resolve_request": (by_hand, ("request", "charge", "unclear", "taken", "issuing", "reserved")),
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, (_, keys) in WORK.items() for key in keys])
async def test_a_key_of_another_type_stops_the_script_before_it_writes(
    store: Store, redis: Any, name: str, key: str
) -> None:
    attempt = await admitted(store)
    broken = f"refunds:{{us}}:{KEYS[key]}"
    await redis.delete(broken)
    await redis.set(broken, "a text")
    before = await dump(redis)
    with pytest.raises(StoreUnavailable):
        await WORK[name][0](store, attempt)
    assert await dump(redis) == before


async def test_a_damaged_entry_in_a_charges_book_admits_nothing(store: Store, redis: Any) -> None:
    """What cannot be read cannot be counted."""
    await redis.hset(f"refunds:{{us}}:{KEYS['charge']}", "S01-1", "many")
    before = await dump(redis)
    with pytest.raises(StoreUnavailable):
        await reserve(store)
    assert await dump(redis) == before


async def test_what_is_run_twice_is_written_once(store: Store, redis: Any) -> None:
    """As after an answer of Redis that was lost."""
    attempt = await admitted(store)
    assert await reserve(store) == attempt
    assert await begin(store, attempt)
    assert await refuse(store, attempt) is RequestState.REFUSED
    before = await dump(redis)
    assert await refuse(store, attempt) is RequestState.REFUSED
    assert await dump(redis) == before
    assert await done(store, attempt) is False, "Amazon refused it, and made it"
    before = await dump(redis)
    assert await done(store, attempt) is True
    assert await dump(redis) == before


async def test_a_request_that_is_settled_is_not_tried(store: Store, redis: Any) -> None:
    """Even by a worker that holds a claim on it, as after a schedule that was restored from a copy."""
    attempt = await admitted(store)
    await refuse(store, attempt)
    await redis.zadd("refunds:{us}:issuing", {ORDER.id: attempt.token})
    assert not await begin(store, attempt)


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_trace_is_kept_with_the_request_and_costs_nothing_where_there_is_none(store: Store, redis: Any) -> None:
    """A request that the version before has written is read; it is no other request for its trace."""
    key = f"refunds:{{us}}:{KEYS['request']}"
    await admitted(store)
    plain = await redis.hget(key, "order")
    assert b"trace" not in plain
    before = {"order_reference": "", "retry_of": "", "retry_root": ""}
    await redis.hset(key, "order", msgspec.json.encode({**msgspec.json.decode(plain), **before}))
    found = await reserve(store, "another")
    assert found.order == ORDER
    await redis.flushall()
    traced = msgspec.structs.replace(ORDER, traceparent=PARENT)
    await store.of("us").requests.reserve(traced, owner="o", guard=Guard(10_000, 0), lease=30_000)
    assert await redis.hget(key, "order") == plain[:-1] + b',"traceparent":"%s"}' % PARENT.encode()
    found = await store.of("us").requests.get(ORDER.id)
    assert found is not None
    assert found.order == traced


async def test_another_owner_is_told_what_there_is(store: Store, redis: Any) -> None:
    """Two callers with one key: the second reserves nothing."""
    await admitted(store)
    before = await dump(redis)
    found = await reserve(store, "another")
    assert isinstance(found, RefundRequestRecord)
    assert found.order == ORDER
    assert await dump(redis) == before


async def test_who_lost_his_claim_settles_nothing_but_a_2xx(store: Store, redis: Any, clock: ManualClock) -> None:
    """A worker slower than its lease: another has the request by now."""
    slow = await admitted(store)
    clock.tick(40_000)
    (other,) = (await store.of("us").requests.claim(lease=30_000, limit=1)).items
    before = await dump(redis)
    assert await refuse(store, slow) is None
    assert not await again(store, slow)
    assert not await begin(store, slow)
    assert await dump(redis) == before
    assert await begin(store, other)
    assert await done(store, slow)
    assert await redis.zscore("refunds:{us}:issuing", ORDER.id) == other.token, "the holder lets go by himself"


async def test_of_an_emptied_store_a_2xx_leaves_no_half_request(store: Store, redis: Any) -> None:
    """The refund is in the charge's book; the key is free, and Amazon answers a repetition with the same refund."""
    attempt = await admitted(store)
    await redis.flushall()
    assert await done(store, attempt)
    assert await store.of("us").requests.get(ORDER.id) is None
    assert await store.of("us").requests.refund_owner(CHARGE) == {"S01-1": ORDER.id}
    assert (await store.of("us").requests.charge_entries(CHARGE))["S01-1"].minor_units == 1400


async def test_the_list_of_what_is_open_is_bounded_and_passes_over_what_is_damaged(store: Store, redis: Any) -> None:
    await admitted(store)
    await redis.zadd("refunds:{us}:reserved", {"gone": 1, "broken": 2})
    await redis.hset("refunds:{us}:requests:broken", mapping={"order": "{", "state": "reserved"})
    found = await store.of("us").requests.open(RequestState.RESERVED, 10)
    assert ([each.order.id for each in found.records], found.total) == ([ORDER.id], 3)
    assert (await store.of("us").requests.open(RequestState.RESERVED, 2)).records == []


async def test_reservations_count_and_declines_do_not(store: Store, redis: Any) -> None:
    await redis.hset(
        f"refunds:{{us}}:{KEYS['charge']}", mapping={"S01-1": "5000 Declined", "request:x": "600 Reserved"}
    )
    refused = await reserve(store, most=1999)
    assert isinstance(refused, NotReserved)
    assert (refused.reason, refused.spent) == ("allowance_exceeded", 600)
    assert isinstance(await reserve(store, most=2000), Attempt)

"""Old refunds go with all that is kept of them; what anything depends on stays. On a real Valkey."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from receiver.amazon.account import Account
from receiver.ledger.charge_book import Guard
from receiver.ledger.lifecycle import Details, EventType
from receiver.ledger.money import Money
from receiver.ledger.next_look import NextLook
from receiver.ledger.refund import FPS, Observation, Source
from receiver.ledger.refund_request import PreparedRefund
from receiver.store import Store
from receiver.store.maintenance.pruning import Pruned
from receiver.store.requests.requests import Attempt, NotReserved
from receiver.track.record import Recorder
from tests.kit.clock import T0, ManualClock
from tests.store.makers import claim, hint, refund_id, seen, subscriber

CHARGE = "S01-5105180-3221187-C056351"
DAY = 86_400_000
LATER = T0 + 500 * DAY
BEFORE = LATER - 400 * DAY


@pytest.fixture
def recorder(store: Store) -> Recorder:
    return Recorder(store, lambda: 0.0)


@pytest.fixture(autouse=True)
def without_open_cases(store: Store) -> None:
    """Declines are too old to be tracked, but where a test says otherwise."""
    store.connection.tracked_for = -1


async def test_an_open_case_is_kept(store: Store, recorder: Recorder, account: Account) -> None:
    """The buyer may still be owed the money, however long ago it was declined."""
    store.connection.tracked_for = 1
    await take_in(recorder, account, seen("Declined", reason="AmazonRejected"))
    assert await prune(store) is Pruned.OPEN
    await take_in(recorder, account, seen("Refunded", updated_at=T0 + 1_000))
    assert await prune(store) is Pruned.CONFLICT


async def take_in(recorder: Recorder, account: Account, observation: Observation, facts: Details | None = None) -> None:
    always: Details = {"charge_read": True}
    known = {**always, "retryable": "no"} if observation.state == "Declined" else always
    await recorder.record(account, observation, source=Source.NOTIFICATION, details={**known, **(facts or {})})


async def prune(store: Store, number: int = 1, *, before: int | None = BEFORE, remove: bool = True) -> Pruned:
    return await store.of("us").pruning.prune(refund_id(number), before=before, remove=remove)


async def names(redis: Any) -> set[str]:
    return {key.decode().removeprefix("refunds:{us}:") for key in await redis.keys()}


def order(minor: int = 1400, request: str = "r1") -> PreparedRefund:
    return PreparedRefund(
        id=request, digest="d", amazon_key="k", body=b"{}", charge_id=CHARGE, money=Money.of_minor(minor, "USD")
    )


async def reserve(store: Store, minor: int = 1400, most: int = 10_000, request: str = "r1") -> object:
    return await store.of("us").requests.reserve(
        order(minor, request), owner=request, guard=Guard(most, 0), lease=30_000
    )


async def test_a_declined_refund_goes_with_everything(
    store: Store, recorder: Recorder, account: Account, redis: Any
) -> None:
    """Indexes, its book and its order vanish with their last member; only the stream of events stays."""
    facts: Details = {"charge_read": True, "order_reference": "ORDER-1", "retryable": "no"}
    await take_in(recorder, account, seen("Declined", reason="AmazonRejected"), facts)
    assert await prune(store, remove=False) is Pruned.PRUNED
    assert await store.of("us").refunds.get(refund_id()) is not None
    assert await prune(store) is Pruned.PRUNED
    assert await names(redis) == {"events", "rejected", "wave"}, "the account's last rejections go with their age"
    assert await prune(store) is Pruned.GONE


async def test_what_was_refunded_goes_on_counting_on_its_charge(
    store: Store, recorder: Recorder, account: Account, redis: Any
) -> None:
    """Also when every refund of the charge went, to the cent; what is seen again counts once."""
    for number, state in ((1, "Refunded"), (2, "Refunded"), (3, "Declined")):
        await take_in(recorder, account, seen(state, number))
    for number in (1, 2, 3):
        assert await prune(store, number) is Pruned.PRUNED
    entries = await store.of("us").requests.charge_entries(CHARGE)
    assert {name: entry.minor_units for name, entry in entries.items()} == {refund_id(1): 1400, refund_id(2): 1400}
    assert await names(redis) == {"events", f"charge:{CHARGE}"}
    assert exceeded(await reserve(store, 1, most=2800)) == 2800
    await take_in(recorder, account, seen("Refunded", 1))
    assert exceeded(await reserve(store, 1, most=2800)) == 2800
    assert isinstance(await reserve(store, 1, most=2801), Attempt)


def exceeded(found: object) -> int:
    assert isinstance(found, NotReserved)
    assert found.reason == "allowance_exceeded"
    return found.spent


@pytest.mark.parametrize("state", ["RefundInitiated", "OnTheMoon"])
async def test_what_is_not_final_stays(store: Store, recorder: Recorder, account: Account, state: str) -> None:
    await take_in(recorder, account, seen(state))
    for before in (BEFORE, None):
        assert await prune(store, before=before) is Pruned.PENDING


async def test_a_conflict_stays(store: Store, recorder: Recorder, account: Account) -> None:
    await take_in(recorder, account, seen("Declined", reason="AmazonRejected"))
    await take_in(recorder, account, seen("Refunded", updated_at=T0 + 5_000))
    known = await store.of("us").refunds.get(refund_id())
    assert known is not None
    assert known.conflict
    for before in (BEFORE, None):
        assert await prune(store, before=before) is Pruned.CONFLICT


async def test_age_counts_from_the_last_change(
    store: Store, recorder: Recorder, account: Account, clock: ManualClock
) -> None:
    """At the very moment is not before it."""
    await take_in(recorder, account, seen("Refunded"))
    assert await prune(store, before=T0) is Pruned.YOUNG
    assert await store.of("us").pruning.old_refunds("Refunded", T0, 0, 10) == []  # type: ignore[arg-type]
    assert await store.of("us").pruning.old_refunds("Refunded", T0 + 1, 0, 10) == [refund_id()]  # type: ignore[arg-type]
    assert await prune(store, before=T0 + 1) is Pruned.PRUNED


async def test_what_is_about_to_be_asked_about_stays(store: Store, recorder: Recorder, account: Account) -> None:
    """Hinted, and claimed."""
    await take_in(recorder, account, seen("Refunded"))
    await store.of("us").schedule.hint(hint())
    assert await prune(store) is Pruned.SCHEDULED
    (look,) = (await claim(store)).items
    assert await prune(store) is Pruned.SCHEDULED
    await store.of(look.account).schedule.reschedule(look, NextLook(None))
    assert await prune(store) is Pruned.PRUNED


async def test_what_a_subscriber_is_owed_stays(store: Store, recorder: Recorder, account: Account) -> None:
    """Until it is delivered; what others wait for does not matter."""
    await store.of("us").subscribers.add(subscriber("finance", types=(EventType.DECLINED.value,)))
    await take_in(recorder, account, seen("Declined", 1, reason="AmazonRejected"))
    await take_in(recorder, account, seen("Declined", 2, reason="AmazonRejected"))
    await take_in(recorder, account, seen("Refunded", 3))
    first, second = (await store.of("us").deliveries.claim("finance", lease=30_000, limit=2)).items
    await _old(store, 1, 2, 3)
    await store.of(first.account).deliveries.delivered(first)
    assert first.fields["refundId"] == refund_id(1)
    found = [await prune(store, number, before=None) for number in (1, 2, 3)]
    assert found == [Pruned.PRUNED, Pruned.OWED, Pruned.PRUNED]
    await store.of(second.account).deliveries.delivered(second)
    assert await prune(store, 2, before=None) is Pruned.PRUNED


async def _old(store: Store, *numbers: int) -> None:
    """The stream's ids are of the machine's clock: bring the refunds' times near them."""
    seconds, _ = await store._read("TIME")
    for number in numbers:
        key = f"refunds:{{us}}:refund:{refund_id(number)}"
        for name in ("seen", "changed"):
            await store._writes.call(("HSET", key, name, int(seconds) * 1000))


async def test_an_open_request_on_the_charge_keeps_its_refunds(
    store: Store, recorder: Recorder, account: Account
) -> None:
    await take_in(recorder, account, seen("Refunded"))
    assert isinstance(await reserve(store), Attempt)
    assert await prune(store) is Pruned.REQUEST_OPEN


async def test_a_refund_whose_key_is_still_known_stays(
    store: Store, recorder: Recorder, account: Account, redis: Any
) -> None:
    """A repetition under the key must be answered with it."""
    reserved = await reserve(store)
    assert isinstance(reserved, Attempt)
    await take_in(recorder, account, seen("Refunded"))
    await store.of("us").requests.done(Attempt("r1", reserved.token), order(), refund_id(), "Refunded")
    assert await prune(store) is Pruned.REQUEST_KEPT
    await redis.delete("refunds:{us}:requests:r1")
    assert await prune(store) is Pruned.PRUNED
    assert await redis.exists(f"refunds:{{us}}:taken:{CHARGE}") == 0


async def test_a_refund_of_flexible_payments_stays(store: Store, recorder: Recorder, account: Account) -> None:
    """Its reference is an id in the ledger: without it the same order could be made once more."""
    await take_in(recorder, account, seen("Refunded"), {"refund_type": FPS})
    assert await prune(store) is Pruned.LEGACY


async def test_a_change_in_between_wins(store: Store, recorder: Recorder, account: Account, redis: Any) -> None:
    """What was read is compared under the script."""
    await take_in(recorder, account, seen("Refunded"))
    read = store.of("us").refunds.get

    async def late(wanted: str) -> Any:
        found = await read(wanted)
        await redis.hset(f"refunds:{{us}}:refund:{wanted}", "revision", 9)
        return found

    store.of("us").refunds.get = late  # type: ignore[method-assign,assignment]
    assert await prune(store) is Pruned.CHANGED
    store.of("us").refunds.get = read  # type: ignore[method-assign]
    assert await redis.llen(f"refunds:{{us}}:history:{refund_id()}") == 1


async def test_prunings_and_commits_at_once_leave_no_half(
    store: Store, recorder: Recorder, account: Account, redis: Any
) -> None:
    """Whichever comes first, a refund is there with its history and index, or not at all."""
    for number in range(1, 21):
        await take_in(recorder, account, seen("Declined", number, reason="AmazonRejected"))
    facts: Details = {"order_reference": "ORDER-9"}
    await asyncio.gather(
        *(prune(store, number) for number in range(1, 21)),
        *(recorder.annotate("us", refund_id(number), facts) for number in range(20, 0, -1)),
    )
    for number in range(1, 21):
        there = await store.of("us").refunds.get(refund_id(number)) is not None
        assert bool(await redis.exists(f"refunds:{{us}}:history:{refund_id(number)}")) is there
        for index in ("state:Declined", "reason:AmazonRejected"):
            assert (await redis.zscore(f"refunds:{{us}}:{index}", refund_id(number)) is not None) is there


async def test_a_damaged_record_stays(store: Store, recorder: Recorder, account: Account, redis: Any) -> None:
    await take_in(recorder, account, seen("Refunded"))
    await redis.hset(f"refunds:{{us}}:refund:{refund_id()}", "changed", "long ago")
    assert await prune(store) is Pruned.UNREADABLE

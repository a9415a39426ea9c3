"""Disputes in Redis: durable, joined, and in the way of a reservation."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from receiver.errors import StoreUnavailable
from receiver.ledger.dispute import Dispute, permission_of, signed
from receiver.ledger.money import Money
from receiver.ledger.notification import HintResult
from receiver.store import Store
from receiver.store.refunds.disputes import to_value
from receiver.store.requests.requests import Attempt, Disputed
from tests.kit.clock import T0
from tests.store.test_requests import CHARGE, reserve

PERMISSION = permission_of(CHARGE)
KEY = f"refunds:{{us}}:disputes:{PERMISSION}"
DISPUTE = Dispute(
    dispute_id=f"{PERMISSION}-B000001", charge_permission_id=PERMISSION, first_told_at=T0, told_at=T0, reason="Fraud"
)


async def tell(store: Store, dispute: Dispute = DISPUTE, message: str = "m1", digest: str = "d1") -> HintResult:
    return await store.of("us").disputes.record(dispute, message_id=message, digest=digest)


async def test_a_dispute_is_kept_by_its_charge_permission(store: Store) -> None:
    """The same message again says nothing new; the same id with another proven text counts, and is reported as
    altered."""
    later = signed(msgspec.structs.replace(DISPUTE, amount=Money(Decimal("5.00"), "USD"), reason=""), "m2", T0 + 5)
    assert await tell(store) is HintResult.NEW
    assert await tell(store) is HintResult.REPEATED
    assert await tell(store, later, "m2", "d2") is HintResult.NEW
    assert await tell(store, later, "m2", "d3") is HintResult.ALTERED
    assert await store.of("us").disputes.of_permission(PERMISSION) == (
        msgspec.structs.replace(DISPUTE, amount=Money(Decimal("5.00"), "USD"), told_at=T0 + 5),
    )
    assert await store.of("us").disputes.of_permission("S01-0000000-0000000") == ()


async def test_many_tell_of_one_dispute_at_once_and_nothing_is_lost(store: Store) -> None:
    """Each knows one fact that the others do not."""
    facts: list[dict[str, Any]] = [
        {"told_state": "RECEIVED"},
        {"charge_id": CHARGE},
        {"amount": Money(Decimal(7), "USD")},
        {"created_at": 7},
    ]
    told = [signed(msgspec.structs.replace(DISPUTE, reason="", **fact), "x", T0 + n) for n, fact in enumerate(facts)]
    found = await asyncio.gather(*(tell(store, each, f"m{n}", "d") for n, each in enumerate(told)))
    assert set(found) == {HintResult.NEW}
    (dispute,) = await store.of("us").disputes.of_permission(PERMISSION)
    assert {name: getattr(dispute, name) for fact in facts for name in fact} == {
        name: value for fact in facts for name, value in fact.items()
    }


async def test_a_damaged_record_is_still_a_dispute(store: Store, redis: Any) -> None:
    """Its content is lost; the next notification repairs it."""
    await redis.hset(KEY, DISPUTE.dispute_id, b"\xff not ours")
    (found,) = await store.of("us").disputes.of_permission(PERMISSION)
    assert (found.dispute_id, found.guards, found.charge_id) == (DISPUTE.dispute_id, True, "")
    assert list(store.damage.records) == [(KEY, DISPUTE.dispute_id)]
    assert isinstance(await reserve(store), Disputed)
    await tell(store)
    assert (await store.of("us").disputes.of_permission(PERMISSION))[0].reason == "Fraud"


@pytest.mark.parametrize("key", [KEY, "refunds:{us}:seen:m1"])
async def test_nothing_is_written_where_a_key_holds_something_else(store: Store, redis: Any, key: str) -> None:
    """Then Amazon gets a 503, and tells it again."""
    await redis.rpush(key, "odd")
    with pytest.raises(StoreUnavailable):
        await tell(store)
    assert await redis.keys("refunds:*") == [key.encode()]


@pytest.mark.parametrize(
    ("change", "stops"),
    [
        ({}, True),
        ({"charge_id": CHARGE}, True),
        ({"charge_id": f"{PERMISSION}-C000002"}, False),
        ({"state": "UnderReview"}, True),
        ({"state": "Resolved", "resolution": "BuyerWon"}, True),
        ({"state": "Resolved", "resolution": "MerchantWon"}, False),
        ({"state": "Closed", "resolution": "NoFault"}, False),
        ({"state": "Closed"}, True),
    ],
)
async def test_the_reserving_script_decides(store: Store, redis: Any, change: dict[str, str], stops: bool) -> None:
    """In the very step that would reserve: whatever was read before, a dispute that is known then stops the refund."""
    dispute = msgspec.structs.replace(DISPUTE, asked_at=T0, **change)
    await redis.hset(KEY, dispute.dispute_id, to_value(dispute))
    before = await redis.keys("*")
    found = await reserve(store)
    assert isinstance(found, Disputed if stops else Attempt)
    if stops:
        assert await redis.keys("*") == before


async def test_what_was_reserved_before_the_dispute_stays(store: Store) -> None:
    """The caller's repetition of the same call finds its reservation: the refund may be at Amazon already."""
    assert isinstance(await reserve(store, "one"), Attempt)
    await tell(store)
    assert isinstance(await reserve(store, "one"), Attempt)

"""A refund of all that is left: never more than was captured, whatever else is refunded, and the same one when
repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver.errors import AmazonRefused, Conflict, OtherRefunds
from receiver.issue.issuer import Issued, Issuer
from receiver.ledger.refund_request import Asked, RefundRequest, RequestState
from receiver.simulator.outcomes import Outcome
from receiver.store import Store
from receiver.store.requests.open_requests import OpenRequestStore
from tests.issue.kit import Desk, Killed, desk, dying
from tests.kit.clock import ManualClock


@pytest.fixture
async def shop(store: Store, clock: ManualClock) -> AsyncIterator[Desk]:
    async with desk(store, clock) as made:
        yield made


async def full(issuer: Issuer, charge: str, key: str = "full", *besides: str, **more: str) -> Issued:
    return await issuer.create(RefundRequest(charge, None, **more), key, Asked(besides=besides))


def amounts(shop: Desk, charge: str) -> list[int]:
    """What Amazon has been asked to refund, in minor units, and has not declined."""
    of_charge = [each for each in shop.simulator.refunds.values() if each.order.charge_id == charge]
    return [each.order.amount.minor for each in of_charge if each.state != "Declined"]


def elsewhere(shop: Desk, charge: str, amount: str) -> str:
    """Make a refund in Seller Central, without a notification."""
    return shop.simulator.start_refund(amount, "USD", charge_id=charge, outcome=Outcome.REFUNDED_AT_ONCE)


async def refused(work: Any) -> Conflict:
    with pytest.raises(Conflict) as caught:
        await work
    return caught.value


async def test_the_captured_amount_is_refunded_and_not_the_allowance(shop: Desk) -> None:
    charge = shop.charge("100.00", reference="order-7")
    issued = await full(shop.issuer, charge, soft_descriptor="Sorry")
    assert issued.refund is not None
    assert (str(issued.refund.amount), issued.refund.order_reference) == ("100.00 USD", "order-7")
    assert issued.record.order.full
    assert amounts(shop, charge) == [10_000]


@pytest.mark.parametrize(("captured", "currency", "rest"), [("100.00", "USD", 8_600), ("10000", "JPY", 9_986)])
async def test_what_is_refunded_or_pending_here_is_left_out(
    shop: Desk, captured: str, currency: str, rest: int
) -> None:
    charge = shop.charge(captured, currency)
    await shop.issuer.create(shop.wish(charge, "14.00" if currency == "USD" else "14", currency), "part")
    assert (await full(shop.issuer, charge)).refund is not None
    assert amounts(shop, charge)[1:] == [rest]


async def test_what_was_refunded_elsewhere_is_left_out(shop: Desk) -> None:
    """No notification of it has come: only Amazon's total has it."""
    charge = shop.charge("100.00")
    elsewhere(shop, charge, "30.00")
    assert (await full(shop.issuer, charge)).refund is not None
    assert amounts(shop, charge) == [3_000, 7_000]


async def test_a_declined_refund_is_left_again(shop: Desk) -> None:
    charge = shop.charge("100.00")
    shop.simulator.start_refund("30.00", "USD", charge_id=charge, outcome=Outcome.DECLINED_AT_ONCE)
    assert str((await full(shop.issuer, charge)).record.order.money) == "100.00 USD"


async def test_repeating_the_key_is_the_same_refund_whatever_is_left_by_then(shop: Desk) -> None:
    """The first call determined the amount. Nothing is left now, and later part of it is left again."""
    charge = shop.charge("100.00")
    first = await full(shop.issuer, charge, order_reference="mine")
    again = await full(shop.another(), charge, order_reference="mine")
    assert first.refund is not None
    assert again.refund is not None
    assert again.refund.refund_id == first.refund.refund_id
    assert again.record.order == first.record.order
    assert amounts(shop, charge) == [10_000]


async def test_an_unanswered_request_keeps_its_amount(shop: Desk) -> None:
    """Amazon made the refund, and the answer was lost. Every attempt sends the same bytes."""
    charge = shop.charge("100.00")
    shop.simulator.fault_injection.add("lost_answer", place="create_refund")
    assert (await full(shop.issuer, charge)).refund is None
    await shop.work()
    issued = await full(shop.issuer, charge)
    assert issued.refund is not None
    assert str(issued.refund.amount) == "100.00 USD"
    assert amounts(shop, charge) == [10_000]


async def test_the_same_key_with_an_amount_is_another_request(shop: Desk) -> None:
    """Also with the amount that was left, and the other way round."""
    charge = shop.charge("100.00")
    await full(shop.issuer, charge)
    error = await refused(shop.issuer.create(shop.wish(charge, "100.00"), "full"))
    assert error.reason == "idempotency_key_reused"
    other = shop.charge("14.00")
    await shop.issuer.create(shop.wish(other, "14.00"), "amount")
    assert (await refused(full(shop.issuer, other, "amount"))).reason == "idempotency_key_reused"
    assert (await refused(full(shop.issuer, other, "full"))).reason == "idempotency_key_reused"
    assert (await refused(full(shop.issuer, charge, soft_descriptor="Other"))).reason == "idempotency_key_reused"


@pytest.mark.parametrize("by", ["us", "elsewhere", "the allowance"])
async def test_nothing_left_is_refused_and_nothing_is_written(shop: Desk, by: str) -> None:
    charge = shop.charge("100.00")
    if by == "us":
        await full(shop.issuer, charge, "first")
    else:
        elsewhere(shop, charge, "115.00" if by == "the allowance" else "100.00")
    error = await refused(full(shop.issuer, charge))
    assert (error.status, error.reason) == (409, "nothing_left")
    assert "100.00 USD captured" in error.detail
    assert await shop.reserved(charge) == []
    assert len(amounts(shop, charge)) == 1


async def test_an_uncertain_amount_is_not_guessed(shop: Desk) -> None:
    """Amazon's total may be the refund that is pending here, or another one of a colleague in Seller Central."""
    charge = shop.charge("100.00")
    await shop.issuer.create(shop.wish(charge, "30.00"), "part")
    elsewhere(shop, charge, "30.00")
    error = await refused(full(shop.issuer, charge))
    assert (error.status, error.reason) == (409, "not_enough_known")
    assert "From 40.00 USD to 70.00 USD is left" in error.detail
    assert amounts(shop, charge) == [3_000, 3_000]


async def test_an_unknown_amount_is_not_guessed_even_if_it_is_named(shop: Desk, redis: Any) -> None:
    charge = shop.charge("100.00")
    unknown = "S01-0000000-0000000-R000001"
    await redis.hset(f"refunds:{{us}}:charge:{charge}", unknown, "? RefundInitiated 1 -")
    assert (await refused(full(shop.issuer, charge))).reason == "not_enough_known"
    assert (await refused(full(shop.issuer, charge, "full", unknown))).reason == "not_enough_known"
    assert amounts(shop, charge) == []


async def test_the_guards_are_those_of_every_refund(shop: Desk) -> None:
    """For the state of the charge, for the same amount a moment ago, and Amazon's refusal."""
    assert (await refused(full(shop.issuer, shop.charge(state="Authorized")))).reason == "charge_not_captured"
    charge = shop.charge("28.00")
    half = await shop.issuer.create(shop.wish(charge, "14.00"), "half")
    assert half.refund is not None
    error = await refused(full(shop.issuer, charge))
    assert isinstance(error, OtherRefunds)
    assert error.reason == "same_amount_refunded"
    assert (await full(shop.issuer, charge, "full", half.refund.refund_id)).refund is not None
    other = shop.charge()
    shop.simulator.fault_injection.add("refuse", place="create_refund", kind="amount")
    with pytest.raises(AmazonRefused):
        await full(shop.issuer, other, "other")


@pytest.mark.parametrize("unseen", ["0.00", "10.00"])
async def test_of_many_at_once_one_wins(shop: Desk, unseen: str) -> None:
    """Each has a different key. The others get the error that nothing is left, or that it is not certain."""
    charge = shop.charge("100.00")
    if unseen != "0.00":
        elsewhere(shop, charge, unseen)
    work = (full(shop.another(), charge, f"full-{number}") for number in range(8))
    results = await asyncio.gather(*work, return_exceptions=True)
    won = [each for each in results if isinstance(each, Issued)]
    lost = [each for each in results if isinstance(each, Conflict)]
    assert (len(won), len(lost)) == (1, 7)
    assert {each.reason for each in lost} <= {"nothing_left", "not_enough_known"}
    assert sum(amounts(shop, charge)) == 10_000


async def test_the_same_key_at_once_is_one_refund(shop: Desk) -> None:
    charge = shop.charge("100.00")
    answers = await asyncio.gather(*(full(shop.another(), charge) for _ in range(8)))
    again = await full(shop.issuer, charge)
    assert again.refund is not None
    assert {each.refund.refund_id for each in answers if each.refund} <= {again.refund.refund_id}
    assert amounts(shop, charge) == [10_000]


@pytest.mark.parametrize("unseen", ["0.00", "20.00"])
async def test_a_refund_reserved_in_between_is_left_out(
    shop: Desk, monkeypatch: pytest.MonkeyPatch, unseen: str
) -> None:
    """Between reading the charge's book and reserving: without the guard the sum would use the allowance."""
    charge, read = shop.charge("100.00"), OpenRequestStore.charge_entries
    if unseen != "0.00":
        elsewhere(shop, charge, unseen)
    waiting = [shop.wish(charge, "10.00")]

    async def then_another(self: OpenRequestStore, *args: Any) -> Any:
        found = await read(self, *args)
        while waiting:
            await shop.another().create(waiting.pop(), "another")
        return found

    monkeypatch.setattr(OpenRequestStore, "charge_entries", then_another)
    if unseen == "0.00":
        assert str((await full(shop.issuer, charge)).record.order.money) == "90.00 USD"
    else:
        assert (await refused(full(shop.issuer, charge))).reason == "not_enough_known"
    assert sum(amounts(shop, charge)) <= 10_000


async def test_news_of_what_amazon_counted_does_not_count_it_twice(shop: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refund made elsewhere becomes known between reading the book and reserving."""
    charge, read = shop.charge("100.00"), OpenRequestStore.charge_entries
    waiting = [elsewhere(shop, charge, "30.00")]

    async def then_the_news(self: OpenRequestStore, *args: Any) -> Any:
        found = await read(self, *args)
        while waiting:
            key = f"refunds:{{us}}:charge:{charge}"
            await shop.store._write("HSET", key, waiting.pop(), "3000 Refunded 1 USD")
        return found

    monkeypatch.setattr(OpenRequestStore, "charge_entries", then_the_news)
    assert str((await full(shop.issuer, charge)).record.order.money) == "70.00 USD"


async def test_whenever_its_process_dies_there_is_one_refund_of_the_whole_amount(shop: Desk) -> None:
    for after in range(200):
        charge = shop.charge("100.00")
        try:
            await dying(full(shop.another(), charge, f"full-{after}"), after)
        except Killed:
            await shop.work()
            record = (await full(shop.issuer, charge, f"full-{after}")).record
            assert (record.state, str(record.order.money)) == (RequestState.DONE, "100.00 USD")
            assert amounts(shop, charge) == [10_000]
        else:
            assert after > 5
            return
    raise AssertionError

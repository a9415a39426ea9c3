"""What becomes known while a request waits for Amazon stops it, as it would have stopped a new one."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from receiver.errors import Conflict, RefundUnclear
from receiver.ledger.audit import Actor
from receiver.ledger.refund_request import Asked, RequestState
from receiver.store import Store
from tests.issue.kit import Desk, desk
from tests.issue.test_disputes import declined, tell
from tests.issue.test_other_refunds import number, told
from tests.kit.clock import ManualClock


async def waiting(shop: Desk, charge: str, key: str = "k", trick: str = "refuse", amount: str = "14.00") -> None:
    """Make a request that Amazon refuses without judging the refund, or does not answer, for now."""
    shop.simulator.fault_injection.add(trick, place="create_refund", times=3)
    issued = await shop.issuer.create(shop.wish(charge, amount), key)
    assert issued.record.state is RequestState.RESERVED
    shop.simulator.fault_injection.clear()


@pytest.mark.parametrize("trick", ["refuse", "throttle"])
async def test_a_dispute_stops_a_request_that_waits(store: Store, clock: ManualClock, trick: str) -> None:
    """Nothing is sent, the amount is free, and a repetition with the key gets the reason."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        await waiting(shop, charge, trick=trick)
        await tell(shop, charge)
        with capture_logs() as logs:
            await shop.work()
        assert (shop.issued(charge), await shop.reserved(charge)) == ([], [])
        (line,) = [each for each in logs if each["event"] == "refund.stopped"]
        assert (line["reason"], line["request_state"], line["log_level"]) == ("buyer_may_be_paid", "refused", "error")
        with pytest.raises(Conflict) as caught:
            await shop.issuer.create(shop.wish(charge), "k")
        assert caught.value.reason == "buyer_may_be_paid"
        assert (await shop.store.of("us").gauges.measure())["requests:reserved"] == 0


async def test_a_dispute_makes_a_request_of_unknown_end_unclear(store: Store, clock: ManualClock) -> None:
    """Amazon may have made it, or may make it now: a person looks. To repeat it by hand sends nothing either."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        await waiting(shop, charge, trick="error")
        await tell(shop, charge)
        await shop.work()
        with pytest.raises(RefundUnclear) as caught:
            await shop.issuer.create(shop.wish(charge), "k")
        request_id = str(caught.value.more["refundRequestId"])
        again = await shop.issuer.manual.repeat(request_id, by=Actor("ops"))
        assert (again.state, again.last_error) == (RequestState.UNCLEAR, "buyer_may_be_paid")
        assert (shop.issued(charge), len(await shop.reserved(charge))) == ([], 1)
        assert (await shop.issuer.manual.as_not_issued(request_id, by=Actor("ops"))).state is RequestState.REFUSED


async def test_the_same_amount_paid_another_way_stops_a_request_that_waits(store: Store, clock: ManualClock) -> None:
    """A colleague who sees that it does not move refunds it in Seller Central."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        await waiting(shop, charge)
        other = number(1)
        await told(shop, other, "Refunded", charge, "14.00")
        await shop.work()
        assert (shop.issued(charge), await shop.reserved(charge)) == ([], [])
        with pytest.raises(Conflict) as caught:
            await shop.issuer.create(shop.wish(charge), "k")
        assert (caught.value.reason, other in caught.value.detail) == ("same_amount_refunded", True)
        beside = await shop.issuer.create(shop.wish(charge), "k2", Asked(besides=(other,)))
        assert beside.refund is not None


async def test_a_retry_that_was_stopped_can_be_asked_for_again(store: Store, clock: ManualClock) -> None:
    async with desk(store, clock) as shop:
        charge = shop.charge()
        refund_id = await declined(shop, charge)
        shop.simulator.fault_injection.add("refuse", place="create_refund", times=3)
        await shop.issuer.retry(refund_id)
        shop.simulator.fault_injection.clear()
        other = number(1)
        await told(shop, other, "Refunded", charge, "14.07")
        await shop.work()
        assert shop.issued(charge) == [refund_id]
        (line,) = await shop.store.of("us").timelines.read(refund_id)
        assert (line.what, line.outcome, other in line.detail) == ("retry", "same_amount_refunded", True)
        with pytest.raises(Conflict) as caught:
            await shop.issuer.retry(refund_id)
        assert caught.value.reason == "same_amount_refunded"
        assert (await shop.issuer.retry(refund_id, Asked(besides=(other,)))).refund is not None


@pytest.mark.parametrize("told_first", [True, False])
async def test_a_refund_that_was_admitted_beside_it_does_not_stop_it(
    store: Store, clock: ManualClock, told_first: bool
) -> None:
    """Also if Amazon notifies that refund before its own request gets an answer."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        await waiting(shop, charge)
        (reservation,) = await shop.reserved(charge)
        named = Asked(besides=(reservation.removeprefix("request:"),))
        if told_first:
            shop.simulator.fault_injection.add("lost_answer", place="create_refund")
        await shop.issuer.create(shop.wish(charge), "k2", named)
        if told_first:
            (made,) = shop.issued(charge)
            await told(shop, made, "RefundInitiated", charge, "14.00")
        await shop.work()
        assert (len(shop.issued(charge)), await shop.reserved(charge)) == (2, [])


async def test_its_own_refund_does_not_stop_a_request_of_unknown_end(store: Store, clock: ManualClock) -> None:
    """Amazon notifies the refund before the request gets an answer: a repetition with the same key returns the
    refund."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        await waiting(shop, charge, trick="lost_answer")
        (made,) = shop.issued(charge)
        await told(shop, made, "Refunded", charge, "14.00")
        await shop.work()
        issued = await shop.issuer.create(shop.wish(charge), "k")
        assert issued.refund is not None
        assert (issued.refund.refund_id, shop.issued(charge)) == (made, [made])

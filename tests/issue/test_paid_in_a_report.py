"""A declined refund that one of Amazon's reports lists as paid is not reissued: the buyer may have the money."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.errors import Conflict
from receiver.issue.jobs import Jobs
from receiver.ledger.declines.job import Selection
from receiver.ledger.money import Money
from receiver.ledger.reconciliation.rows import RefundRow, Row, SettlementRow
from receiver.ledger.reconciliation.run import Batch
from receiver.ledger.refund_request import Asked
from receiver.outbox.events.advice import PAID_IN_A_REPORT, advice_of
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.track.current import current_refunds
from receiver.track.reconcile import Reconciler
from receiver.track.review import review
from tests.issue.kit import Desk, desk
from tests.issue.test_other_refunds import HOUR, listed, number, refused, told
from tests.kit.clock import ManualClock

USD20 = Money.parse("20.00", "USD")
SETTLED = SettlementRow(refund_id=number(1), amount=USD20, settlement_id="1")
REPORTED = RefundRow(refund_id=number(1), state="Refunded", amount=USD20)


@pytest.fixture
async def shop(store: Store, clock: ManualClock) -> Any:
    async with desk(store, clock) as opened:
        yield opened


async def read(shop: Desk, row: Row) -> None:
    """A report with this row is compared."""
    await Reconciler(shop.account, shop.store.of("us"), Metrics()).compare(Batch(rows=(row,)))


async def advised(shop: Desk) -> Any:
    refund = await shop.store.of("us").refunds.get(number(1))
    assert refund is not None
    [current] = await current_refunds(shop.store.of("us"), [refund])
    return advice_of(current)


@pytest.mark.parametrize("row", [SETTLED, REPORTED], ids=["settled", "reported as Refunded"])
async def test_it_is_neither_reissued_nor_advised(shop: Desk, row: Row) -> None:
    """Neither by a single call nor by a job. Another refund of the charge has to name it."""
    charge = shop.charge()
    await told(shop, number(1), "Declined", charge, ago=2 * HOUR)
    await read(shop, row)
    with pytest.raises(Conflict) as caught:
        await shop.issuer.retry(number(1), Asked(besides=[number(1)]))
    assert caught.value.reason == "in_conflict"
    plan = await Jobs(shop.issuer).plan(Selection(refund_ids=(number(1),)))
    assert ([*plan.items], [each.reason for each in plan.left_out]) == ([], ["in_conflict"])
    assert await advised(shop) == PAID_IN_A_REPORT
    error = await refused(shop.issuer.create(shop.wish(charge, "20.00"), "one"))
    assert (error.reason, listed(error), error.more["refunds"][0].conflict) == (  # type: ignore[index]
        *("charge_in_conflict", [number(1)]),
        True,
    )
    assert shop.issued(charge) == []
    # Who names it has asked Amazon: it counts as declined again, also where the whole charge was refunded.
    named = Asked(besides=[number(1)])
    assert (await shop.issuer.create(shop.wish(charge, "100.00"), "one", named)).refund is not None


async def test_a_report_stops_a_request_that_waits(shop: Desk) -> None:
    charge = shop.charge()
    await told(shop, number(1), "Declined", charge, ago=2 * HOUR)
    shop.simulator.fault_injection.add("refuse", place="create_refund", times=3)
    assert (await shop.issuer.retry(number(1))).refund is None
    shop.simulator.fault_injection.clear()
    await read(shop, SETTLED)
    await shop.work()
    assert (shop.issued(charge), await shop.reserved(charge)) == ([], [])


async def test_a_report_that_agrees_or_is_explained_stops_nothing(shop: Desk) -> None:
    """The report that revealed the decline has the same state, so its finding does not prevent a retry."""
    charge = shop.charge()
    await told(shop, number(1), "RefundInitiated", charge, ago=2 * HOUR)
    await read(shop, RefundRow(refund_id=number(1), state="Declined", amount=USD20))
    await told(shop, number(1), "Declined", charge, ago=2 * HOUR)
    assert await advised(shop) != PAID_IN_A_REPORT
    assert (
        await shop.store.of("us").findings.counts() | {"state_differs": 1}
        == await shop.store.of("us").findings.counts()
    )
    await review(shop.store.of("us"))
    await read(shop, REPORTED)
    assert await advised(shop) == PAID_IN_A_REPORT
    later = RefundRow(refund_id=number(1), state="Declined", amount=USD20, updated_at=shop.clock())
    await read(shop, later)
    assert await advised(shop) != PAID_IN_A_REPORT
    assert (await shop.issuer.retry(number(1))).refund is not None

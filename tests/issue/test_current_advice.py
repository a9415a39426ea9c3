"""The advice about a declined refund is computed when it is read or pushed, and the retry follows the same rules."""

from __future__ import annotations

import msgspec
import pytest

from receiver.errors import Conflict
from receiver.ledger.query import Query
from receiver.ledger.refund import Refund, Source
from receiver.outbox.events.advice import advice_of
from receiver.store import Store
from receiver.track.current import current_refunds
from tests.issue.kit import Desk, desk
from tests.issue.test_disputes import declined, tell
from tests.kit.clock import ManualClock
from tests.store.makers import seen


async def current(shop: Desk, refund_id: str) -> Refund:
    """The refund with the judgement of now."""
    known = await shop.store.of("us").refunds.get(refund_id)
    assert known is not None
    [judged] = await current_refunds(shop.store.of("us"), [known])
    return judged


def actions(refund: Refund) -> list[str]:
    advice = advice_of(refund)
    return [each.action for each in advice.actions] if advice else []


@pytest.mark.parametrize(
    "facts",
    [
        *({"refund_type": word} for word in ("AmazonA-ZRefund", "AmazonA-ZGuarantee", "AmazonA-ZCancel", "Chargeback")),
        {"refund_type": "BuyerCanceled"},
    ],
    ids=lambda facts: facts["refund_type"],
)
async def test_a_refund_that_amazon_or_a_bank_began_is_not_issued_again(
    store: Store, clock: ManualClock, facts: dict[str, str]
) -> None:
    """409, before Amazon is asked; its own advice: repay the balance, do not refund the buyer again."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        refund_id = await declined(shop, charge)
        await shop.issuer.recorder.annotate("us", refund_id, facts)
        with pytest.raises(Conflict) as caught:
            await shop.issuer.retry(refund_id)
        assert caught.value.reason == "not_merchants_refund"
        assert len(shop.issued(charge)) == 1
        assert await shop.reserved(charge) == []
        refund = await current(shop, refund_id)
        assert refund.judged is not None
        assert (refund.judged.value, refund.judged.reasons) == (False, ("not_merchants_refund",))
        assert actions(refund) == ["repay_negative_balance", "do_not_refund_again"]


async def test_what_happens_on_the_charge_reaches_every_declined_refund_of_it(store: Store, clock: ManualClock) -> None:
    """After a reservation, a refund or a dispute, no refund of the charge is retryable any more."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        first, second = await declined(shop, charge, "a"), await declined_again(shop, charge, clock)
        # The stand-in's clock is ahead of the test's: as if the charge had been read after the declines.
        kept = await store.of("us").requests.kept_charge(charge)
        latest = await store.of("us").refunds.get(second)
        assert kept is not None
        assert latest is not None
        await store.of("us").requests.keep_charge(
            msgspec.structs.replace(kept, read_at=latest.updated_at), for_advice=True
        )
        for refund_id in (first, second):
            judged = (await current(shop, refund_id)).judged
            assert judged is not None
            assert (judged.value, judged.reasons, judged.as_of) == (True, (), clock.ms // 1000 * 1000)
        clock.tick(60_000)
        elsewhere = msgspec.structs.replace(
            seen("Refunded", updated_at=clock.ms), refund_id=f"{charge[:-1]}9".replace("-C", "-R"), charge_id=charge
        )
        elsewhere = msgspec.structs.replace(elsewhere, amount=shop.wish(charge, "14.07").money, created_at=clock.ms)
        await shop.issuer.recorder.record(shop.account, elsewhere, source=Source.NOTIFICATION)
        judged = (await current(shop, first)).judged
        assert judged is not None
        assert judged.reasons == ("same_amount_refunded",)
        told = actions(await current(shop, first))
        assert told[:2] == ["compare_other_refunds", "do_not_refund_again"]
        assert "refund_another_way" not in told, "the buyer may have been paid this amount"
        await tell(shop, charge)
        for refund_id in (first, second):
            judged = (await current(shop, refund_id)).judged
            assert judged is not None
            assert judged.value is False
            assert "buyer_may_be_paid" in judged.reasons
        page = await store.of("us").refunds.page(Query(charge=charge))
        assert len(await current_refunds(store.of("us"), page.refunds)) == 3


async def declined_again(shop: Desk, charge: str, clock: ManualClock) -> str:
    """A refund of another amount, declined as well."""
    clock.tick(1_000)
    issued = await shop.issuer.create(shop.wish(charge, "15.07"), "b")
    assert issued.refund is not None
    assert issued.refund.state == "Declined"
    return issued.refund.refund_id

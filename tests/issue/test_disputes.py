"""A dispute about a charge: no refund is issued beside it, whichever comes first, and whatever process dies when."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from receiver.errors import Conflict
from receiver.ledger.dispute import Dispute, DisputeJson, permission_of
from receiver.ledger.notification import HintResult
from receiver.store import Store
from tests.issue.kit import Desk, Killed, desk, dying
from tests.kit.clock import T0, ManualClock


async def tell(shop: Desk, charge: str, number: int = 1, **more: Any) -> HintResult:
    permission = permission_of(charge)
    fields: dict[str, Any] = {
        "dispute_id": f"{permission}-B{number:06d}",
        "charge_permission_id": permission,
        "told_at": T0,
    }
    return await shop.store.of("us").disputes.record(Dispute(**{**fields, **more}), message_id=f"m{number}", digest="d")


async def declined(shop: Desk, charge_id: str, key: str = "first") -> str:
    """A refund of the charge that Amazon has declined, as the ledger knows it."""
    issued = await shop.issuer.create(shop.wish(charge_id, "14.07"), key)
    assert issued.refund is not None
    assert issued.refund.state == "Declined"
    return issued.refund.refund_id


async def refused(work: Any) -> Conflict:
    with pytest.raises(Conflict) as caught:
        await work
    assert caught.value.reason == "buyer_may_be_paid"
    return caught.value


async def test_create_is_refused_while_a_dispute_is_open(store: Store, clock: ManualClock) -> None:
    """409 with the dispute; nothing reaches Amazon, nothing stays reserved, and the key is still good afterwards."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        await tell(shop, charge, reason="Fraud")
        error = await refused(shop.issuer.create(shop.wish(charge), "k"))
        assert "Fraud" in error.detail
        (told,) = cast("list[DisputeJson]", error.more["disputes"])
        assert (told.dispute_id, told.open) == (f"{permission_of(charge)}-B000001", True)
        assert (shop.issued(charge), await shop.reserved(charge)) == ([], [])
        await tell(shop, charge, 1, told_at=T0 + 1, asked_at=T0 + 1, state="Resolved", resolution="MerchantWon")
        # The same message says nothing new: what a later version learns by Get Dispute comes as another.
        await refused(shop.issuer.create(shop.wish(charge), "k"))
        await shop.store.of("us").disputes.record(
            Dispute(
                dispute_id=told.dispute_id,
                charge_permission_id=permission_of(charge),
                told_at=T0 + 1,
                asked_at=T0 + 1,
                state="Resolved",
                resolution="MerchantWon",
            ),
            message_id="m2",
            digest="d",
        )
        assert (await shop.issuer.create(shop.wish(charge), "k")).refund is not None
        assert len(shop.issued(charge)) == 1


async def test_a_dispute_that_comes_between_the_advice_and_the_retry_stops_it(store: Store, clock: ManualClock) -> None:
    """The charge admitted the refund when it was read. Then Amazon tells of the dispute, and the reserving script
    refuses."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        refund_id = await declined(shop, charge)
        reserve = shop.store.of("us").requests.reserve

        async def late(*args: Any, **more: Any) -> Any:
            await tell(shop, charge)
            return await reserve(*args, **more)

        shop.store.of("us").requests.reserve = late  # type: ignore[method-assign]
        await refused(shop.issuer.retry(refund_id))
        shop.store.of("us").requests.reserve = reserve  # type: ignore[method-assign]
        assert (shop.issued(charge), await shop.reserved(charge)) == ([refund_id], [])


async def test_a_dispute_about_another_charge_of_the_order_stops_nothing(store: Store, clock: ManualClock) -> None:
    """If the notification names the charge. If not, all charges of the charge permission may be meant."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        await tell(shop, charge, charge_id=f"{permission_of(charge)}-C999999")
        assert (await shop.issuer.create(shop.wish(charge), "k")).refund is not None
        await tell(shop, charge, 2)
        await refused(shop.issuer.create(shop.wish(charge, "2.00"), "k2"))


async def test_what_was_issued_before_the_dispute_is_still_answered(store: Store, clock: ManualClock) -> None:
    """A repeated call gets the existing refund, and no other is made."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        refund_id = await declined(shop, charge)
        again = await shop.issuer.retry(refund_id)
        await tell(shop, charge)
        repeated = await shop.issuer.retry(refund_id)
        assert again.refund is not None
        assert repeated.refund is not None
        assert repeated.refund.refund_id == again.refund.refund_id
        assert len(shop.issued(charge)) == 2


async def test_of_many_callers_and_a_dispute_at_once_no_refund_follows_the_dispute(
    store: Store, clock: ManualClock
) -> None:
    """Each caller has his own amount and key. Whatever is refused is refused for the dispute, and leaves nothing."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        works = [shop.issuer.create(shop.wish(charge, f"{n}.00"), f"k{n}") for n in range(1, 6)]
        found = await asyncio.gather(*works[:3], tell(shop, charge), *works[3:], return_exceptions=True)
        errors = [each for each in found if isinstance(each, BaseException)]
        assert all(isinstance(each, Conflict) and each.reason == "buyer_may_be_paid" for each in errors)
        made = [each for each in found if not isinstance(each, BaseException | HintResult)]
        assert len(shop.issued(charge)) == len(made) == 5 - len(errors)
        await refused(shop.issuer.create(shop.wish(charge, "9.00"), "later"))


@pytest.mark.parametrize("after", range(0, 40, 3))
async def test_killed_while_a_dispute_is_written_it_is_whole_or_not_there(
    store: Store, clock: ManualClock, after: int
) -> None:
    """Amazon has had no answer and sends it again; then it is there."""
    async with desk(store, clock) as shop:
        charge = shop.charge()
        try:
            await dying(tell(shop, charge), after)
        except Killed:
            assert await tell(shop, charge) in (HintResult.NEW, HintResult.REPEATED)
        (dispute,) = await shop.store.of("us").disputes.of_permission(permission_of(charge))
        assert msgspec.structs.replace(dispute, first_told_at=0).told_at == T0
        await refused(shop.issuer.create(shop.wish(charge), "k"))

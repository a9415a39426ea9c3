"""No buyer is paid twice: what the other refunds of a charge mean for a new one, and for the retry of a declined
one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from receiver.errors import Conflict, OtherRefunds, ReceiverError
from receiver.issue.issuer import Issued
from receiver.ledger.audit import Actor
from receiver.ledger.charge_book import MOST_REFUNDS
from receiver.ledger.refund import Observation, Refund, Source
from receiver.ledger.refund_request import Asked, RequestState
from receiver.ledger.schema import refund_json
from receiver.outbox.events.event import event_of, to_fields
from receiver.store import Store
from tests.issue.kit import Desk, Killed, desk, dying
from tests.kit.clock import ManualClock
from tests.store import test_mutations

HOUR = 3_600_000


@pytest.fixture
async def shop(store: Store, clock: ManualClock) -> Any:
    async with desk(store, clock) as opened:
        yield opened


async def told(shop: Desk, refund_id: str, state: str, charge: str, amount: str = "20.00", **more: Any) -> Refund:
    """Record this state of a refund, made here or elsewhere. `ago` is how long before now it was created (ms)."""
    now = shop.clock()
    money = shop.wish(charge, amount).money if amount else None
    seen = Observation(
        refund_id=refund_id,
        state=state,
        updated_at=now,
        charge_id=charge,
        amount=money,
        created_at=now - more["ago"] if "ago" in more else 0,
    )
    settled = await shop.issuer.recorder.record(shop.account, seen, source=Source.NOTIFICATION)
    return settled.change.refund


def number(of: int) -> str:
    return f"S01-0000000-0000000-R{of:06d}"


async def refused(work: Any) -> OtherRefunds:
    with pytest.raises(OtherRefunds) as caught:
        await work
    return caught.value


def listed(error: OtherRefunds) -> list[Any]:
    refunds: Any = error.more["refunds"]
    return [each.refund_id or each.refund_request_id for each in refunds]


@pytest.mark.parametrize("state", ["Refunded", "RefundInitiated", "OnTheMoon"])
async def test_a_decline_that_was_paid_another_way_is_not_retried(shop: Desk, state: str) -> None:
    """As by a colleague in Seller Central."""
    charge = shop.charge()
    await told(shop, number(1), "Declined", charge, ago=2 * HOUR)
    await told(shop, number(2), state, charge, ago=HOUR)
    error = await refused(shop.issuer.retry(number(1)))
    assert (error.status, error.reason, listed(error)) == (409, "same_amount_refunded", [number(2)])
    assert shop.issued(charge) == []
    assert await shop.reserved(charge) == []
    issued = await shop.issuer.retry(number(1), Asked(besides=[number(2)]))
    assert issued.refund is not None
    assert shop.issued(charge) == [issued.refund.refund_id]


@pytest.mark.parametrize(
    ("state", "amount", "ago"),
    [("Declined", "20.00", HOUR), ("Refunded", "19.99", HOUR), ("Refunded", "20.00", 3 * HOUR)],
)
async def test_what_is_not_the_same_payment_is_in_no_ones_way(shop: Desk, state: str, amount: str, ago: int) -> None:
    charge = shop.charge()
    await told(shop, number(1), "Declined", charge, ago=2 * HOUR)
    await told(shop, number(2), state, charge, amount, ago=ago)
    assert (await shop.issuer.retry(number(1))).refund is not None


async def test_a_refund_in_the_same_second_or_of_an_unknown_time_counts_as_later(shop: Desk) -> None:
    charge = shop.charge()
    await told(shop, number(1), "Declined", charge, ago=2 * HOUR)
    await told(shop, number(2), "Refunded", charge, ago=2 * HOUR)
    assert listed(await refused(shop.issuer.retry(number(1)))) == [number(2)]
    other = shop.charge()
    await told(shop, number(3), "Refunded", other, ago=2 * HOUR)
    await told(shop, number(4), "Declined", other)
    assert listed(await refused(shop.issuer.retry(number(4)))) == [number(3)]


async def test_a_payment_that_only_amazon_knows_of_is_in_the_way_of_a_retry(shop: Desk) -> None:
    """Its notification is late or lost; Amazon's figure of the charge tells. Who names that refund has looked."""
    charge = shop.charge()
    await told(shop, number(1), "Declined", charge, ago=2 * HOUR)
    other = shop.simulator.start_refund("20.00", "USD", "RefundedAtOnce", charge)
    elsewhere = other[:-1] + ("1" if other[-1] != "1" else "2")
    await told(shop, elsewhere, "Refunded", f"{charge[:-1]}x")
    named = [number(1), number(3), elsewhere]
    error = await refused(shop.issuer.retry(number(1), Asked(besides=named)))
    assert (error.reason, listed(error), "20.00 USD more" in error.detail) == ("same_amount_refunded", [], True)
    assert (shop.issued(charge), await shop.reserved(charge)) == ([other], [])
    assert (await shop.issuer.retry(number(1), Asked(besides=[other]))).refund is not None


async def test_of_twenty_callers_with_twenty_keys_and_one_amount_one_wins(shop: Desk) -> None:
    charge = shop.charge(amount="1000.00")
    wishes = [shop.another().create(shop.wish(charge, "20.00"), f"key-{each}") for each in range(20)]
    answers = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(answer, Issued) for answer in answers) == 1
    assert {answer.reason for answer in answers if isinstance(answer, ReceiverError)} == {"same_amount_refunded"}
    assert len(shop.issued(charge)) == 1


async def test_without_the_comparison_in_the_script_all_of_them_are_paid(
    shop: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_mutations.without(monkeypatch, "reserve", "if #same > 0 then", "if false then")
    with pytest.raises(AssertionError):
        await test_of_twenty_callers_with_twenty_keys_and_one_amount_one_wins(shop)


async def test_a_create_and_the_retry_of_one_amount_race_and_one_wins(shop: Desk) -> None:
    charge = shop.charge(amount="1000.00")
    await told(shop, number(1), "Declined", charge, ago=HOUR)
    work = [shop.another().create(shop.wish(charge, "20.00"), f"key-{each}") for each in range(5)]
    work += [shop.another().retry(number(1)) for _ in range(5)]
    answers = await asyncio.gather(*work, return_exceptions=True)
    assert len(shop.issued(charge)) == 1
    assert all(isinstance(answer, Issued | OtherRefunds) for answer in answers)


async def test_the_same_amount_can_be_issued_after_an_hour_or_by_name_under_the_same_key(shop: Desk) -> None:
    """What was refused has written nothing, so the key is free; the answer under it stays when `besides` changes."""
    charge = shop.charge()
    first = await shop.issuer.create(shop.wish(charge, "20.00"), "one")
    assert first.refund is not None
    for _ in range(2):
        error = await refused(shop.issuer.create(shop.wish(charge, "20.00"), "two"))
        assert (error.reason, listed(error)) == ("same_amount_refunded", [first.refund.refund_id])
    second = await shop.issuer.create(
        shop.wish(charge, "20.00"), "two", Asked(besides=[first.refund.refund_id, "unknown"])
    )
    again = await shop.issuer.create(shop.wish(charge, "20.00"), "two")
    assert second.refund is not None
    assert again.refund == second.refund
    shop.clock.tick(HOUR + 1_000)
    assert (await shop.issuer.create(shop.wish(charge, "20.00"), "three")).refund is not None


async def test_zero_turns_the_comparison_of_creates_off_and_not_that_of_retries(shop: Desk) -> None:
    charge = shop.charge()
    shop.issuer.same_amount_within = 0
    for key in ("one", "two"):
        assert (await shop.issuer.create(shop.wish(charge, "20.00"), key)).refund is not None
    await told(shop, number(1), "Declined", charge, ago=60_000)
    assert (await refused(shop.issuer.retry(number(1)))).reason == "same_amount_refunded"


async def test_who_named_a_request_has_named_the_refund_that_it_became(shop: Desk) -> None:
    charge = shop.charge()
    shop.simulator.fault_injection.add("error", place="create_refund")
    pending = await shop.issuer.create(shop.wish(charge, "20.00"), "one")
    assert pending.refund is None
    error = await refused(shop.issuer.create(shop.wish(charge, "20.00"), "two"))
    assert listed(error) == [pending.record.order.id]
    await shop.work()
    assert (await shop.issuer.create(shop.wish(charge, "20.00"), "one")).record.state is RequestState.DONE
    issued = await shop.issuer.create(shop.wish(charge, "20.00"), "two", Asked(besides=listed(error)))
    assert issued.refund is not None
    assert len(shop.issued(charge)) == 2


async def test_a_contradicted_refund_counts_and_has_to_be_named(shop: Desk) -> None:
    """Refunded, then Declined: the buyer may have the money."""
    charge = shop.charge()
    await told(shop, number(1), "Refunded", charge, "100.00", ago=2 * HOUR)
    shop.clock.tick(1_000)
    contradicted = await told(shop, number(1), "Declined", charge, "100.00", ago=2 * HOUR)
    assert contradicted.conflict
    error = await refused(shop.issuer.create(shop.wish(charge, "100.00"), "one"))
    assert (error.status, error.reason, listed(error)) == (409, "charge_in_conflict", [number(1)])
    named = Asked(besides=[number(1)])
    assert (await refused(shop.issuer.create(shop.wish(charge, "100.00"), "one", named))).reason == "allowance_exceeded"
    assert (await shop.issuer.create(shop.wish(charge, "15.00"), "one", named)).refund is not None
    assert (await refused(shop.issuer.create(shop.wish(charge, "0.01"), "two", named))).reason == "allowance_exceeded"


async def test_in_conflict_nothing_says_that_it_can_be_retried(shop: Desk) -> None:
    charge = shop.charge()
    await told(shop, number(1), "Declined", charge)
    await shop.issuer.recorder.annotate("us", number(1), {"retryable": "yes"})
    shop.clock.tick(1_000)
    refund = await told(shop, number(1), "Refunded", charge)
    assert (refund.conflict, refund.retryable, refund_json(refund).retryable) == (True, "yes", None)
    seen = Observation(refund_id=number(1), state="Declined", updated_at=shop.clock() + 5_000, charge_id=charge)
    settled = await shop.issuer.recorder.record(shop.account, seen, source=Source.POLL)
    assert all("retryable" not in to_fields(event) for event in settled.events)
    assert event_of is not None


async def test_the_eleventh_refund_is_refused_before_amazon_is_asked(shop: Desk) -> None:
    """Declined ones are not counted; what is only reserved is."""
    charge = shop.charge(amount="1000.00")
    for each in range(MOST_REFUNDS - 1):
        await told(shop, number(each), "Refunded", charge, f"{each + 1}.00", ago=HOUR)
    for each in range(20, 25):
        await told(shop, number(each), "Declined", charge, ago=HOUR)
    shop.simulator.fault_injection.add("error", place="create_refund")
    assert (await shop.issuer.create(shop.wish(charge, "20.00"), "tenth")).refund is None
    error = await refused(shop.issuer.create(shop.wish(charge, "30.00"), "eleventh"))
    assert (error.status, error.reason, len(listed(error))) == (409, "too_many_refunds", MOST_REFUNDS)
    assert (await refused(shop.issuer.retry(number(20), Asked(besides=listed(error))))).reason == "too_many_refunds"
    assert shop.issued(charge) == []


async def test_an_unknown_amount_counts_as_the_whole_charge_until_it_is_named(shop: Desk) -> None:
    charge = shop.charge()
    await told(shop, number(1), "RefundInitiated", charge, "", ago=2 * HOUR)
    error = await refused(shop.issuer.create(shop.wish(charge, "1.00"), "one"))
    assert (error.reason, listed(error)) == ("allowance_exceeded", [number(1)])
    assert (await shop.issuer.create(shop.wish(charge, "1.00"), "one", Asked(besides=[number(1)]))).refund is not None


@pytest.mark.parametrize("kept", [True, False])
async def test_a_book_of_an_older_version_is_read_and_nothing_is_paid_twice(shop: Desk, redis: Any, kept: bool) -> None:
    """When such a refund began is looked up where it is kept; else it counts as if it had begun just now."""
    charge = shop.charge()
    await told(shop, number(1), "Refunded", charge, ago=2 * HOUR)
    book = f"refunds:{{us}}:charge:{charge}"
    await redis.hset(book, number(1), "2000 Refunded")
    if not kept:
        await redis.delete(f"refunds:{{us}}:refund:{number(1)}")
        assert listed(await refused(shop.issuer.create(shop.wish(charge, "20.00"), "one"))) == [number(1)]
        return
    assert (await shop.issuer.create(shop.wish(charge, "20.00"), "one")).refund is not None
    assert await redis.hget(book, number(1)) == b"2000 Refunded %d USD" % (shop.clock() - 2 * HOUR)


async def test_a_contradiction_that_an_older_version_has_written_counts(shop: Desk, redis: Any) -> None:
    charge = shop.charge()
    await told(shop, number(1), "Refunded", charge)
    shop.clock.tick(1_000)
    await told(shop, number(1), "Declined", charge)
    await redis.hset(f"refunds:{{us}}:charge:{charge}", number(1), "2000 Declined")
    assert (await refused(shop.issuer.create(shop.wish(charge, "1.00"), "one"))).reason == "charge_in_conflict"


@pytest.mark.parametrize("how", ["create", "retry"])
async def test_wherever_the_process_dies_beside_other_refunds_one_comes_of_it(shop: Desk, how: str) -> None:
    for point in range(200):
        charge = shop.charge()
        declined, other = number(2 * point), number(2 * point + 1)
        await told(shop, declined, "Declined", charge, ago=60_000)
        await told(shop, other, "Refunded", charge, ago=30_000)
        asked = Asked(Actor("orders"), [other])
        wish = shop.wish(charge, "20.00")

        def work(at: str = declined, key: str = f"key-{point}", wish: Any = wish, asked: Asked = asked) -> Any:
            return shop.another().retry(at, asked) if how == "retry" else shop.another().create(wish, key, asked)

        try:
            await dying(work(), point)
        except Killed:
            died = True
        else:
            died = False
        await shop.work()
        again = await work()
        assert again.refund is not None, point
        assert (shop.issued(charge), again.refund.issued_by) == ([again.refund.refund_id], "orders")
        assert await shop.reserved(charge) == []
        if not died:
            break
    assert 10 < point < 199


async def test_who_asked_is_part_of_the_refund_its_history_and_its_event(shop: Desk) -> None:
    charge = shop.charge()
    issued = await shop.issuer.create(shop.wish(charge), "one", Asked(Actor("orders")))
    repeated = await shop.issuer.create(shop.wish(charge), "one", Asked(Actor("another")))
    assert issued.refund is not None
    assert repeated.refund == issued.refund
    assert (issued.record.order.issued_by, refund_json(issued.refund).issued_by) == ("orders", "orders")
    history = await shop.store.of("us").refunds.history(issued.refund.refund_id)
    assert [revision.issued_by for revision in history] == ["orders"]
    ((_, fields),) = await shop.store._read("XRANGE", "refunds:{us}:events", "-", "+")
    assert fields[b"issuedBy"] == b"orders"


async def test_a_conflict_of_the_declined_refund_itself_needs_no_name(shop: Desk) -> None:
    charge = shop.charge()
    await told(shop, number(1), "Refunded", charge)
    shop.clock.tick(1_000)
    await told(shop, number(1), "Declined", charge)
    with pytest.raises(Conflict) as caught:
        await shop.issuer.retry(number(1), Asked(besides=[number(1)]))
    assert caught.value.reason == "in_conflict"

"""Requests with an unknown outcome: counted, listed, reported, and settled by a person, whose answer is checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from receiver.amazon.calls import get_refund, read_refund
from receiver.amazon.throttle import Call
from receiver.commands.doctor.backlog import check_work
from receiver.commands.doctor.finding import Status
from receiver.errors import AmazonNotFound, Conflict, NotFound, RefundUnclear
from receiver.ledger.audit import Actor
from receiver.ledger.refund import Observation, Refund, Source
from receiver.ledger.refund_request import Asked, RefundRequestRecord, RequestState
from receiver.simulator.outcomes import Outcome
from receiver.store import Store
from receiver.store.requests.requests import Attempt
from tests.commands.doctor.kit import only, site
from tests.issue.kit import Desk, desk
from tests.kit.clock import ManualClock


@pytest.fixture
async def shop(store: Store, clock: ManualClock) -> AsyncIterator[Desk]:
    async with desk(store, clock) as made:
        yield made


async def unclear(shop: Desk, charge: str, key: str = "unlucky", amount: str = "1.00") -> RefundRequestRecord:
    """A request whose first try ended in a 500, and whose second one Amazon refused: the charge was full by then."""
    while len(shop.issued(charge)) < 9:
        shop.simulator.start_refund("2.00", "USD", Outcome.PENDING, charge)
    shop.simulator.fault_injection.add("error", place="create_refund")
    known = [name.removeprefix("request:") for name in await shop.store.of("us").requests.charge_entries(charge)]
    pending = await shop.issuer.create(shop.wish(charge, amount), key, Asked(besides=known))
    assert pending.refund is None
    if len(shop.issued(charge)) < 10:
        shop.simulator.start_refund("2.00", "USD", Outcome.PENDING, charge)
    await shop.work(rounds=1)
    return await record(shop, pending.record.order.id)


async def record(shop: Desk, request_id: str) -> RefundRequestRecord:
    found = await shop.store.of("us").requests.get(request_id)
    assert found is not None
    return found


def made(shop: Desk, charge: str, amount: str = "1.00") -> str:
    """A refund that Amazon turns out to have made on the charge, which was full: one of its refunds is taken out."""
    bank = shop.simulator._engine.bank
    gone = bank.charges[charge].refund_ids.pop()
    del bank.refunds[gone]
    return shop.simulator.start_refund(amount, "USD", Outcome.PENDING, charge)


async def told(shop: Desk, refund_id: str, **more: Any) -> Refund:
    """The tracker has asked Amazon about the refund."""
    request = get_refund(shop.account.endpoint, refund_id)
    seen = await shop.issuer.amazon_client.ask(Call.GET_REFUND, request, read_refund)
    seen = msgspec.structs.replace(seen, **more)
    settled = await shop.issuer.recorder.record(shop.account, seen, source=Source.NOTIFICATION)
    return settled.change.refund


def counted(shop: Desk, outcome: str) -> float:
    registry = shop.issuer.metrics.registry
    return registry.get_sample_value("receiver_refund_tries_total", {"outcome": outcome}) or 0.0


async def test_an_unclear_request_is_an_alarm_and_stays_listed(shop: Desk) -> None:
    charge = shop.charge()
    with capture_logs() as logs:
        found = await unclear(shop, charge)
    (line,) = [each for each in logs if each["event"] == "refund.unclear"]
    assert (line["log_level"], line["request"], line["charge_id"]) == ("error", found.order.id, charge)
    assert line["order_reference"] == found.order.order_reference != ""
    assert (line["reason_code"], line["amazon_status"]) == ("TransactionCountExceeded", 422)
    assert "settle-request" in line["fix"]
    shop.clock.tick(7_000)
    assert found.state is RequestState.UNCLEAR
    sizes = await shop.store.of("us").gauges.measure()
    assert (sizes["requests:unclear"], sizes["request_age:unclear"]) == (1, 7.0)
    doctor = only(await check_work(site(), shop.store), "refunds.unclear")
    assert (doctor.status, doctor.reason, doctor.found[:17]) == (Status.WARN, "unclear", "1 refund request ")
    assert (sizes["requests:reserved"], sizes["request_age:reserved"]) == (0, 0.0)
    listed = await shop.store.of("us").requests.open(RequestState.UNCLEAR, 10)
    assert ([each.order.id for each in listed.records], listed.total) == ([found.order.id], 1)
    with pytest.raises(RefundUnclear) as caught:
        await shop.issuer.create(shop.wish(charge, "1.00"), "unlucky")
    assert caught.value.more == {"refundRequestId": found.order.id, "candidateRefundId": None}
    ttl = await shop.store.connection.client.pttl(f"refunds:{{us}}:requests:{found.order.id}")
    assert ttl == -1, "what is open does not expire"


async def test_a_refund_that_fits_is_named_and_settles_nothing_by_itself(shop: Desk) -> None:
    charge = shop.charge()
    found = await unclear(shop, charge)
    refund = await told(shop, made(shop, charge))
    assert await shop.store.of("us").requests.candidate_of(found) == refund.refund_id
    assert await shop.store.of(refund.account).requests.unclear_with(refund) == found
    assert (await record(shop, found.order.id)).state is RequestState.UNCLEAR
    with pytest.raises(RefundUnclear) as caught:
        await shop.issuer.create(shop.wish(charge, "1.00"), "unlucky")
    assert caught.value.more["candidateRefundId"] == refund.refund_id


@pytest.mark.parametrize(
    "explained", ["two such refunds", "two such requests", "older", "a claim", "another amount", "of a request"]
)
async def test_a_refund_with_another_explanation_is_not_named(shop: Desk, explained: str) -> None:
    charge = shop.charge()
    found = await unclear(shop, charge)
    amount = "3.00" if explained == "another amount" else "1.00"
    refund_id = made(shop, charge, amount)
    more: dict[str, Any] = {"created_at": found.created_at - 600_000} if explained == "older" else {}
    await told(shop, refund_id, **more)
    if explained == "two such refunds":
        seen = await told(shop, refund_id)
        other = msgspec.structs.replace(seen_again(seen), refund_id="S01-0000000-0000000-R000001")
        await shop.issuer.recorder.record(shop.account, other, source=Source.POLL)
    elif explained == "two such requests":
        await unclear(shop, charge, "unlucky too")
    elif explained == "a claim":
        await shop.issuer.recorder.annotate("us", refund_id, {"refund_type": "AmazonA-ZRefund"})
    elif explained == "of a request":
        await shop.store.connection.client.hset(f"refunds:{{us}}:taken:{charge}", refund_id, "another")
    assert await shop.store.of("us").requests.candidate_of(found) == ""


def seen_again(refund: Refund) -> Observation:
    """The observation that the refund was made of."""
    return Observation(
        refund_id=refund.refund_id,
        state=refund.state,
        updated_at=refund.updated_at,
        charge_id=refund.charge_id,
        amount=refund.amount,
        created_at=refund.created_at,
    )


async def test_a_person_names_the_refund_and_the_reservation_becomes_it(shop: Desk) -> None:
    """Twice is no fault. The same key is then answered with that refund."""
    charge = shop.charge(reference="order-7")
    found = await unclear(shop, charge)
    refund_id = made(shop, charge)
    for _ in range(2):
        settled = await shop.issuer.manual.as_done(found.order.id, refund_id, by=Actor("ops"))
        assert (settled.state, settled.refund_id, settled.settled_by) == (RequestState.DONE, refund_id, "ops")
    assert await shop.reserved(charge) == []
    assert (await shop.store.of("us").requests.charge_entries(charge))[refund_id].minor_units == 100
    again = await shop.issuer.create(shop.wish(charge, "1.00"), "unlucky")
    assert again.refund is not None
    assert (again.refund.refund_id, again.refund.order_reference) == (refund_id, "order-7")
    assert (await shop.store.of("us").gauges.measure())["requests:unclear"] == 0
    assert counted(shop, "settled_done") == 1
    assert await shop.store.connection.client.pttl(f"refunds:{{us}}:requests:{found.order.id}") > 0
    with pytest.raises(Conflict) as caught:
        await shop.issuer.manual.as_not_issued(found.order.id, by=Actor("ops"))
    assert caught.value.reason == "request_settled"


async def test_a_refund_that_cannot_be_of_the_request_is_refused(shop: Desk) -> None:
    """Another charge's, another amount's, another request's, or none at all: nothing is written."""
    charge = shop.charge()
    found = await unclear(shop, charge)
    other_charge = shop.simulator.start_refund("1.00", "USD", Outcome.PENDING, shop.charge())
    other_amount = shop.issued(charge)[0]
    issued = await shop.issuer.create(shop.wish(shop.charge(), "1.00"), "lucky")
    assert issued.refund is not None
    for refund_id, why in ((other_charge, "charge"), (other_amount, "2.00 USD"), (issued.refund.refund_id, "charge")):
        with pytest.raises(Conflict, match=why) as caught:
            await shop.issuer.manual.as_done(found.order.id, refund_id, by=Actor("ops"))
        assert caught.value.reason == "refund_mismatch"
    with pytest.raises(AmazonNotFound):
        await shop.issuer.manual.as_done(found.order.id, "S01-0000000-0000000-R000000", by=Actor("ops"))
    with pytest.raises(NotFound):
        await shop.issuer.manual.as_done("0" * 64, other_charge, by=Actor("ops"))
    assert await record(shop, found.order.id) == found
    assert len(await shop.reserved(charge)) == 1


async def test_a_refund_is_of_one_request_only(shop: Desk) -> None:
    charge = shop.charge()
    first, second = await unclear(shop, charge, "one"), await unclear(shop, charge, "two")
    refund_id = made(shop, charge)
    await shop.issuer.manual.as_done(first.order.id, refund_id, by=Actor("ops"))
    with pytest.raises(Conflict) as caught:
        await shop.issuer.manual.as_done(second.order.id, refund_id, by=Actor("ops"))
    assert caught.value.reason == "refund_taken"
    assert (await record(shop, second.order.id)).state is RequestState.UNCLEAR


async def test_a_refund_older_than_the_request_is_not_of_it(shop: Desk) -> None:
    charge = shop.charge()
    refund_id = shop.simulator.start_refund("1.00", "USD", Outcome.PENDING, charge)
    found = await unclear(shop, charge)
    shop.simulator.refunds[refund_id].created_at = found.created_at - 600_000
    with pytest.raises(Conflict, match="before the request"):
        await shop.issuer.manual.as_done(found.order.id, refund_id, by=Actor("ops"))


async def test_a_person_finds_that_none_was_issued(shop: Desk) -> None:
    """The amount is free, the key is used up, and nothing is retried."""
    charge = shop.charge()
    found = await unclear(shop, charge)
    for _ in range(2):
        settled = await shop.issuer.manual.as_not_issued(found.order.id, by=Actor("ops"))
        assert (settled.state, settled.settled_by) == (RequestState.REFUSED, "ops")
    assert await shop.reserved(charge) == []
    assert counted(shop, "settled_not_issued") == 1
    before = len(shop.simulator.calls)
    with pytest.raises(Conflict) as caught:
        await shop.issuer.create(shop.wish(charge, "1.00"), "unlucky")
    assert caught.value.reason == "settled_as_not_issued"
    await shop.work()
    assert len(shop.simulator.calls) == before
    with pytest.raises(Conflict) as caught:
        await shop.issuer.manual.as_done(found.order.id, shop.issued(charge)[0], by=Actor("ops"))
    assert caught.value.reason == "request_settled"


async def test_what_is_still_tried_is_not_settled_by_hand(shop: Desk) -> None:
    charge = shop.charge()
    shop.simulator.fault_injection.add("error", place="create_refund")
    pending = await shop.issuer.create(shop.wish(charge), "refund-1")
    for work in (
        shop.issuer.manual.as_not_issued(pending.record.order.id, by=Actor("ops")),
        shop.issuer.manual.as_done(pending.record.order.id, "S01-1", by=Actor("ops")),
    ):
        with pytest.raises(Conflict) as caught:
            await work
        assert caught.value.reason == "request_pending"
    await shop.work()
    assert len(shop.issued(charge)) == 1


@pytest.mark.parametrize("said", ["not issued", "another refund"])
async def test_amazon_has_the_last_word_over_a_person(shop: Desk, said: str) -> None:
    """A worker that was slower than its lease gets a 2xx after a person settled otherwise: the refund is written, and
    an error is logged."""
    charge = shop.charge()
    found = await unclear(shop, charge)
    wrong = made(shop, charge)
    if said == "not issued":
        await shop.issuer.manual.as_not_issued(found.order.id, by=Actor("ops"))
    else:
        await shop.issuer.manual.as_done(found.order.id, wrong, by=Actor("ops"))
    right = await told(shop, made(shop, charge))
    seen = seen_again(right)
    with capture_logs() as logs:
        await shop.issuer.attempts._done(Attempt(found.order.id, 1), found.order, seen)
    assert [each["log_level"] for each in logs if each["event"] == "refund.settled_wrongly"] == ["error"]
    settled = await record(shop, found.order.id)
    assert (settled.state, settled.refund_id, settled.settled_by) == (RequestState.DONE, right.refund_id, "")
    assert await shop.store.of("us").requests.refund_owner(charge) == {right.refund_id: found.order.id}


@pytest.mark.parametrize("by", ["tries", "age"])
async def test_a_request_that_stays_without_an_answer_becomes_an_error(shop: Desk, by: str) -> None:
    """After eight tries, or an hour; it is tried on all the same."""
    charge = shop.charge()
    shop.simulator.fault_injection.add("garbage", place="create_refund", times=None)
    with capture_logs() as logs:
        await shop.issuer.create(shop.wish(charge), "refund-1")
        for _ in range(7 if by == "tries" else 1):
            shop.clock.tick(460_000 if by == "tries" else 3_600_000)
            await shop.round()
    levels = [each["log_level"] for each in logs if each["event"] == "refund.not_issued_yet"]
    assert levels == (["warning"] * 7 + ["error"] if by == "tries" else ["warning", "error"])
    last = [each for each in logs if each["event"] == "refund.not_issued_yet"][-1]
    assert last["last_error"] == "amazon_unintelligible"
    assert "Seller Central" in last["fix"]
    sizes = await shop.store.of("us").gauges.measure()
    assert sizes["requests:reserved"] == 1
    assert sizes["request_age:reserved"] >= 3_000
    shop.simulator.fault_injection.clear()
    await shop.work()
    assert (await shop.issuer.create(shop.wish(charge), "refund-1")).refund is not None
    assert len(shop.issued(charge)) == 1


async def restored(shop: Desk) -> None:
    """The store now holds an earlier backup, and a process sees that."""
    shop.store.connection.accounts = ["us"]
    await shop.store.format.mark_restored()
    await shop.store.format.ensure()


async def test_after_a_restore_what_was_open_waits_for_a_person(shop: Desk) -> None:
    """Amazon may have refused it after the backup, and the buyer been paid in another way: it is not sent by itself."""
    charge = shop.charge()
    shop.simulator.fault_injection.add("error", place="create_refund")
    pending = (await shop.issuer.create(shop.wish(charge), "before")).record
    assert pending.state is RequestState.RESERVED
    with capture_logs() as lines:
        await restored(shop)
    assert [each["request"] for each in lines if each["event"] == "refund.unclear"] == [pending.order.id]
    await shop.work()
    assert shop.issued(charge) == []
    found = await record(shop, pending.order.id)
    assert (found.state, found.unknown, found.last_error) == (RequestState.UNCLEAR, True, "restored")
    assert "restored from a backup" in found.detail
    with pytest.raises(RefundUnclear):
        await shop.issuer.create(shop.wish(charge), "before")
    assert (await shop.store.of("us").gauges.measure())["requests:unclear"] == 1

    await shop.issuer.manual.as_not_issued(pending.order.id, by=Actor("ann"))
    await restored(shop)
    await shop.work()
    assert shop.issued(charge) == []
    assert (await record(shop, pending.order.id)).state is RequestState.REFUSED


async def test_a_person_has_a_request_of_before_a_restore_sent(shop: Desk, redis: Any) -> None:
    """Amazon had made the refund, and reports it. The request is not suspended again, although the catch-up ends only
    later."""
    charge = shop.charge()
    shop.simulator.fault_injection.add("lost_answer", place="create_refund")
    pending = (await shop.issuer.create(shop.wish(charge), "before")).record
    assert (pending.state, len(shop.issued(charge))) == (RequestState.RESERVED, 1)
    await redis.set("refunds:{us}:open", "not a sorted set")
    await restored(shop)
    shop.simulator.fault_injection.add("error", place="create_refund")
    await shop.issuer.manual.repeat(pending.order.id, by=Actor("ann"))
    await shop.store.format.ensure()
    assert (await record(shop, pending.order.id)).state is RequestState.RESERVED
    await redis.delete("refunds:{us}:open")
    await shop.store.format.ensure()
    await shop.work()
    done = await record(shop, pending.order.id)
    assert (done.state, [done.refund_id]) == (RequestState.DONE, shop.issued(charge))

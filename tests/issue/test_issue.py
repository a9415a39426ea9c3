"""Issuing refunds: once, whatever happens; refused clearly; never over the allowance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from receiver.amazon.signing import Signer
from receiver.errors import (
    AmazonError,
    AmazonOutcomeUnknown,
    AmazonRefused,
    BadRequest,
    Conflict,
    NotFound,
    ReceiverError,
    StoreUnavailable,
    TransportError,
)
from receiver.exchange import Request, Response
from receiver.issue.issuer import Issued
from receiver.ledger.money import Money
from receiver.ledger.query import Query
from receiver.ledger.refund import Source
from receiver.ledger.refund_request import RequestState
from receiver.simulator.outcomes import Outcome
from receiver.store import Store
from receiver.track.charges import Charges
from tests.issue.kit import Desk, Killed, desk, dying, waiting
from tests.kit.accounts import make_account, merchant_key_pem
from tests.kit.clock import ManualClock
from tests.store.makers import seen


@pytest.fixture
async def shop(store: Store, clock: ManualClock) -> AsyncIterator[Desk]:
    async with desk(store, clock) as made:
        yield made


def usd(amount: str) -> Money:
    return Money(Decimal(amount), "USD")


async def declined(shop: Desk, amount: str = "14.00") -> str:
    """A refund that Amazon has declined, known to the ledger."""
    charge = shop.charge()
    issued = await shop.issuer.create(shop.wish(charge, amount), f"first-{charge}")
    assert issued.refund is not None
    refund_id = issued.refund.refund_id
    told = msgspec.structs.replace(
        seen("Declined", reason="ProcessingFailure", updated_at=issued.refund.updated_at + 1000),
        refund_id=refund_id,
        charge_id=charge,
    )
    await shop.issuer.recorder.record(shop.account, told, source=Source.POLL)
    return refund_id


async def test_a_refund_is_issued_and_known(shop: Desk) -> None:
    charge = shop.charge(reference="order-7")
    issued = await shop.issuer.create(shop.wish(charge, soft_descriptor="Sorry"), "refund-1")
    assert issued.refund is not None
    assert (issued.refund.state, str(issued.refund.amount), issued.refund.source) == (
        "RefundInitiated",
        "14.00 USD",
        "create",
    )
    assert issued.refund.order_reference == "order-7"
    assert shop.issued(charge) == [issued.refund.refund_id]
    assert await shop.reserved(charge) == []


@pytest.mark.parametrize("first", ["the answer", "the news", "the news of a decline", "the answer, which is a decline"])
async def test_the_callers_own_order_number_stays_whatever_is_heard_first(shop: Desk, first: str) -> None:
    """The charge has another. The refund is listed under the caller's, and not under the charge's."""
    charge = shop.charge(reference="the-charges")
    wish = shop.wish(charge, "14.07" if first.startswith("the answer,") else "14.00", order_reference="mine")
    if first.startswith("the news"):
        shop.simulator.fault_injection.add("lost_answer", place="create_refund")
        assert (await shop.issuer.create(wish, "refund-1")).refund is None
        state, reason = ("Declined", "AmazonRejected") if "decline" in first else ("RefundInitiated", "")
        news = msgspec.structs.replace(
            seen(state, reason=reason), refund_id=shop.issued(charge)[0], charge_id=charge, amount=wish.money
        )
        learn = Charges(shop.issuer.amazon_client).details_in_time
        told = await shop.issuer.recorder.record(shop.account, news, source=Source.NOTIFICATION, more_details=learn)
        assert told.change.refund.order_reference == "the-charges"
        await shop.work()
    issued = await shop.issuer.create(wish, "refund-1")
    assert issued.refund is not None
    assert issued.refund.order_reference == "mine"
    as_kept = msgspec.structs.replace(issued.refund, judged=None)
    assert (await shop.store.of("us").refunds.page(Query(order="mine"))).refunds == (as_kept,)
    assert (await shop.store.of("us").refunds.page(Query(order="the-charges"))).refunds == ()


async def test_the_same_key_never_refunds_twice(shop: Desk) -> None:
    charge = shop.charge()
    wish = shop.wish(charge)
    answers = await asyncio.gather(*(shop.another().create(wish, "refund-1") for _ in range(8)))
    again = await shop.issuer.create(wish, "refund-1")
    assert again.refund is not None
    assert {each.refund.refund_id for each in answers if each.refund} <= {again.refund.refund_id}
    assert shop.issued(charge) == [again.refund.refund_id]


async def test_a_request_that_an_emptied_store_forgot_is_not_acknowledged(shop: Desk, redis: Any) -> None:
    """No worker would continue it: the caller gets an error and asks again, which makes one refund."""
    charge, reserve = shop.charge(), shop.store.of("us").requests.reserve

    async def then_emptied(*args: Any, **more: Any) -> Any:
        found = await reserve(*args, **more)
        await redis.flushall()
        return found

    shop.store.of("us").requests.reserve = then_emptied  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable) as caught:
        await shop.issuer.create(shop.wish(charge), "refund-1")
    assert caught.value.reason == "store_emptied"
    assert shop.issued(charge) == []
    shop.store.of("us").requests.reserve = reserve  # type: ignore[method-assign]
    issued = await shop.issuer.create(shop.wish(charge), "refund-1")
    assert issued.refund is not None
    assert shop.issued(charge) == [issued.refund.refund_id]


async def test_the_same_key_with_other_values_is_a_conflict(shop: Desk) -> None:
    charge = shop.charge()
    await shop.issuer.create(shop.wish(charge), "refund-1")
    with pytest.raises(Conflict) as caught:
        await shop.issuer.create(shop.wish(charge, "15.00"), "refund-1")
    assert caught.value.reason == "idempotency_key_reused"


async def test_amazons_key_is_the_documented_digest(shop: Desk) -> None:
    """printf 'A2ZABCDEFGHIJ\\nsandbox\\nrefund-1' | sha256sum | cut -c1-32"""
    charge = shop.charge()
    issued = await shop.issuer.create(shop.wish(charge), "refund-1")
    assert issued.record.order.amazon_key == "fda79a86e3dba050b263d4642673207b"
    assert issued.record.order.body == (
        b'{"chargeId":"%b","refundAmount":{"amount":"14.00","currencyCode":"USD"}}' % charge.encode()
    )


@pytest.mark.parametrize(
    ("amount", "currency", "reason"),
    [
        ("0", "USD", "bad_amount"),
        ("14.001", "USD", "bad_amount"),
        ("150000.01", "USD", "bad_amount"),
        ("14.00", "EUR", "currency_mismatch"),
        ("115.01", "USD", "allowance_exceeded"),
    ],
)
async def test_amounts_that_cannot_be_are_refused_before_amazon_is_asked(
    shop: Desk, amount: str, currency: str, reason: str
) -> None:
    charge = shop.charge()
    with pytest.raises((BadRequest, Conflict)) as caught:
        await shop.issuer.create(shop.wish(charge, amount, currency), "refund-1")
    assert caught.value.reason == reason
    assert shop.issued(charge) == []
    assert await shop.reserved(charge) == []


async def test_the_allowance_is_fifteen_percent_over_the_sum(shop: Desk) -> None:
    charge = shop.charge()
    await shop.issuer.create(shop.wish(charge, "100.00"), "one")
    await shop.issuer.create(shop.wish(charge, "15.00"), "two")
    with pytest.raises(Conflict, match=r"0\.00 USD"):
        await shop.issuer.create(shop.wish(charge, "0.01"), "three")


async def test_of_many_that_race_for_the_last_cents_one_wins(shop: Desk) -> None:
    charge = shop.charge()
    wishes = [shop.another().create(shop.wish(charge, "60.00"), f"key-{number}") for number in range(6)]
    answers = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(answer, Issued) for answer in answers) == 1
    assert {answer.reason for answer in answers if isinstance(answer, ReceiverError)} == {"same_amount_refunded"}
    assert len(shop.issued(charge)) == 1


@pytest.mark.parametrize("state", ["Authorized", "Canceled"])
async def test_a_charge_that_is_not_captured_is_not_refunded(shop: Desk, state: str) -> None:
    with pytest.raises(Conflict) as caught:
        await shop.issuer.create(shop.wish(shop.charge(state=state)), "refund-1")
    assert caught.value.reason == "charge_not_captured"


async def test_a_captured_charge_without_an_amount_is_an_answer_that_cannot_be_understood(shop: Desk) -> None:
    """Amazon may report it the next time, so the error does not say that the charge is not captured."""
    charge = shop.charge()

    async def send(request: Request, *, timeout: float) -> Response:
        body = {"chargeId": charge, "statusDetails": {"state": "Captured"}, "captureAmount": None}
        return Response(200, {}, msgspec.json.encode(body))

    shop.issuer.amazon_client.send = send
    with pytest.raises(AmazonOutcomeUnknown, match="how much of the charge was captured") as caught:
        await shop.issuer.create(shop.wish(charge), "refund-1")
    assert (caught.value.status, caught.value.reason) == (502, "amazon_unintelligible")


async def test_an_unknown_charge_is_amazons_word(shop: Desk) -> None:
    with pytest.raises(AmazonRefused) as caught:
        await shop.issuer.create(shop.wish("S01-0000000-0000000-C000000"), "refund-1")
    assert (caught.value.reason_code, caught.value.amazon_status) == ("ResourceNotFound", 404)


@pytest.mark.parametrize("key", ["", "x" * 256, "ключ", "a\nb"])
async def test_a_key_that_cannot_be_is_refused(shop: Desk, key: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await shop.issuer.create(shop.wish(shop.charge()), key)
    assert caught.value.reason == "bad_idempotency_key"


@pytest.mark.parametrize("trick", ["error", "lost_answer", "garbage", "half", "wrong_refund", "hang", "throttle"])
async def test_whatever_amazon_does_one_refund_comes_of_it(shop: Desk, trick: str) -> None:
    charge = shop.charge()
    shop.simulator.fault_injection.add(trick, place="create_refund", seconds=1.0)
    with waiting(shop.issuer.amazon_client, 0.5 if trick == "hang" else 60.0):
        first = await shop.issuer.create(shop.wish(charge), "refund-1")
    pending = first.refund is None
    assert pending or trick == "wrong_refund"
    await shop.work()
    second = await shop.issuer.create(shop.wish(charge), "refund-1")
    assert second.refund is not None
    assert second.record.state is RequestState.DONE
    assert len(shop.issued(charge)) == 1
    assert await shop.reserved(charge) == []


async def test_a_refusal_is_told_with_amazons_words_and_frees_the_amount(shop: Desk) -> None:
    """Amazon knows of ten refunds on the charge, and we of none."""
    charge = shop.charge()
    for _ in range(10):
        shop.simulator.start_refund("1.00", "USD", Outcome.REFUNDED, charge)
    for _ in range(2):
        with pytest.raises(AmazonRefused) as caught:
            await shop.issuer.create(shop.wish(charge, "1.00"), "one-too-many")
        assert caught.value.reason_code == "TransactionCountExceeded"
        assert caught.value.amazon_request_id
    assert await shop.reserved(charge) == []


async def test_a_refusal_after_a_try_of_unknown_end_is_unclear_and_stays_reserved(shop: Desk) -> None:
    charge = shop.charge()
    for _ in range(9):
        shop.simulator.start_refund("1.00", "USD", Outcome.REFUNDED, charge)
    shop.simulator.fault_injection.add("error", place="create_refund")
    assert (await shop.issuer.create(shop.wish(charge, "1.00"), "unlucky")).refund is None
    shop.simulator.start_refund("1.00", "USD", Outcome.REFUNDED, charge)
    await shop.work()
    with pytest.raises(Conflict) as caught:
        await shop.issuer.create(shop.wish(charge, "1.00"), "unlucky")
    assert caught.value.reason == "refund_unclear"
    assert len(await shop.reserved(charge)) == 1
    await shop.work()
    assert len(shop.issued(charge)) == 10


async def test_a_wrong_key_is_named_as_the_fault(shop: Desk) -> None:
    wrong = make_account(
        endpoint=shop.account.endpoint,
        signer=Signer(shop.simulator.public_key_id, merchant_key_pem()),
        throttle=shop.account.throttle,
    )
    shop.issuer.amazon_client.account = wrong
    with pytest.raises(AmazonError, match="private_key_file does not belong"):
        await shop.issuer.create(shop.wish(shop.charge()), "refund-1")


async def test_wherever_the_process_dies_one_refund_comes_of_it(shop: Desk) -> None:
    """At every await point of issuing: afterwards the workers go on, and the caller asks again."""
    for point in range(200):
        charge = shop.charge()
        key, wish = f"key-{point}", shop.wish(charge)
        try:
            await dying(shop.another().create(wish, key), point)
        except Killed:
            died = True
        else:
            died = False
        await shop.work()
        assert len(shop.issued(charge)) <= 1
        again = await shop.another().create(wish, key)
        assert again.refund is not None, point
        assert shop.issued(charge) == [again.refund.refund_id], point
        assert await shop.reserved(charge) == []
        if not died:
            break
    assert 10 < point < 199


async def test_wherever_a_worker_dies_one_refund_comes_of_it(shop: Desk) -> None:
    for point in range(200):
        charge = shop.charge()
        key, wish = f"key-{point}", shop.wish(charge)
        shop.simulator.fault_injection.add("lost_answer", place="create_refund")
        assert (await shop.another().create(wish, key)).refund is None
        shop.clock.tick(1_000_000)
        (attempt,) = (await shop.store.of("us").requests.claim(lease=30_000, limit=1)).items
        try:
            await dying(shop.another().worker().rounds.work_on(attempt), point)
        except Killed:
            died = True
        else:
            died = False
        await shop.work()
        again = await shop.another().create(wish, key)
        assert again.refund is not None, point
        assert shop.issued(charge) == [again.refund.refund_id], point
        assert await shop.reserved(charge) == []
        if not died:
            break
    assert 5 < point < 199


async def test_a_declined_refund_is_retried_once_however_many_ask(shop: Desk) -> None:
    refund_id = await declined(shop)
    answers = await asyncio.gather(*(shop.another().retry(refund_id) for _ in range(6)))
    again = await shop.issuer.retry(refund_id)
    assert again.refund is not None
    assert {each.refund.refund_id for each in answers if each.refund} <= {again.refund.refund_id}
    assert again.refund.retry_of == refund_id
    known = await shop.store.of("us").refunds.get(refund_id)
    assert known is not None
    assert known.retried_by == again.refund.refund_id
    assert len(shop.issued(known.charge_id)) == 2


async def test_wherever_the_process_dies_the_declined_refund_knows_its_retry(shop: Desk) -> None:
    """At every await point: the workers go on by themselves, and no person presses the button again."""
    begun = 0
    # Earlier ones are before the request is written down.
    for point in range(8, 200):
        refund_id = await declined(shop)
        try:
            await dying(shop.another().retry(refund_id), point)
        except Killed:
            died = True
        else:
            died = False
        await shop.work(rounds=1)
        known = await shop.store.of("us").refunds.get(refund_id)
        assert known is not None
        retries = [each for each in shop.issued(known.charge_id) if each != refund_id]
        assert [known.retried_by] == (retries or [""]), point
        begun += bool(retries)
        if not died:
            break
    assert 5 < begun < point < 199


async def test_a_retry_stays_known_when_more_is_learned_of_the_declined_refund(shop: Desk) -> None:
    """Its order number can come after the button was pressed: pressing again answers with the same retry."""
    refund_id = await declined(shop)
    key = f"refunds:{{us}}:refund:{refund_id}"
    await shop.store._writes.call(("HDEL", key, "order"))
    first = await shop.issuer.retry(refund_id)
    await shop.issuer.recorder.annotate("us", refund_id, {"order_reference": "order-7"})
    again = await shop.issuer.retry(refund_id)
    assert first.refund is not None
    assert again.refund == first.refund


@pytest.mark.parametrize("fields", [("amount", "currency"), ("charge",)])
async def test_a_declined_refund_of_unknown_amount_or_charge_is_not_retried(
    shop: Desk, fields: tuple[str, ...]
) -> None:
    """It is declined, so the answer must not say that it is not."""
    refund_id = await declined(shop)
    await shop.store._writes.call(("HDEL", f"refunds:{{us}}:refund:{refund_id}", *fields))
    with pytest.raises(Conflict, match="Amazon has not reported amount and charge") as caught:
        await shop.issuer.retry(refund_id)
    assert caught.value.reason == "not_enough_known"
    assert len(shop.simulator.refunds) == 1


async def test_a_decline_of_a_refund_that_nobody_heard_of_is_not_said_to_use_itself_up(shop: Desk) -> None:
    """Amazon's answer is lost, and the news that the refund was declined comes first: its own reservation still stands,
    which is no reason against another try. Once the answer is there, the charge admits it."""
    charge = shop.charge()
    shop.simulator.fault_injection.add("lost_answer", place="create_refund")
    assert (await shop.issuer.create(shop.wish(charge, "90.00"), "refund-1")).refund is None
    (refund_id,) = shop.issued(charge)
    told = msgspec.structs.replace(
        seen("Declined", reason="ProcessingFailure"), refund_id=refund_id, charge_id=charge, amount=usd("90.00")
    )
    learn = Charges(shop.issuer.amazon_client).details_in_time
    settled = await shop.issuer.recorder.record(shop.account, told, source=Source.NOTIFICATION, more_details=learn)
    assert settled.change.refund.retryable == ""
    await shop.work()
    assert await shop.reserved(charge) == []
    assert (await learn(settled.change.refund))["retryable"] == "yes"


async def test_only_a_declined_refund_is_retried(shop: Desk) -> None:
    issued = await shop.issuer.create(shop.wish(shop.charge()), "refund-1")
    assert issued.refund is not None
    with pytest.raises(Conflict) as caught:
        await shop.issuer.retry(issued.refund.refund_id)
    assert caught.value.reason == "not_declined"
    with pytest.raises(NotFound):
        await shop.issuer.retry("S01-0000000-0000000-R000000")


async def test_waiting_for_the_throttle_does_not_forget_a_try_whose_end_is_unknown(shop: Desk) -> None:
    """The process dies after Amazon has acted; the next holder gets no token; then Amazon refuses another key. That
    says nothing about the refund, so the request stays open, and a caller with the right key learns its outcome."""
    charge = shop.charge()
    wish = shop.wish(charge)
    shop.simulator.fault_injection.add("hang", place="create_refund", seconds=0)
    task = asyncio.ensure_future(shop.another().create(wish, "refund-1"))
    async with asyncio.timeout(30):
        while not shop.issued(charge):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
    shop.clock.tick(40_000)
    await shop.store.of("us").schedule.block("create_refund", shop.clock() + 20_000)
    await shop.round()
    record = await shop.store.of("us").requests.get((await shop.issuer.create(wish, "refund-1")).record.order.id)
    assert record is not None
    assert record.state is RequestState.RESERVED
    wrong = Signer(shop.simulator.public_key_id, merchant_key_pem())
    refused = shop.another()
    refused.amazon_client.account = make_account(
        endpoint=shop.account.endpoint, signer=wrong, throttle=shop.account.throttle
    )
    shop.clock.tick(60_000)
    await shop.round(refused)
    record = (await shop.issuer.create(wish, "refund-1")).record
    assert (record.state, record.unknown, record.last_error) == (RequestState.RESERVED, True, "amazon_refuses_us")
    assert len(await shop.reserved(charge)) == 1
    await shop.work()
    assert (await shop.issuer.create(wish, "refund-1")).refund is not None
    assert len(shop.issued(charge)) == 1


async def test_a_connection_that_was_never_made_leaves_nothing_unknown(shop: Desk) -> None:
    charge = shop.charge(amount="1000.00")
    for _ in range(10):
        shop.simulator.start_refund("1.00", "USD", Outcome.REFUNDED, charge)
    lonely = shop.another()
    answer, real = TransportError("refused", reason="connect_failed"), lonely.amazon_client.send

    async def unreachable(request: Request, *, timeout: float) -> Response:
        if request.method == "POST":
            raise answer
        return await real(request, timeout=timeout)

    lonely.amazon_client.send = unreachable
    assert (await lonely.create(shop.wish(charge, "1.00"), "eleventh")).refund is None
    await shop.work()
    with pytest.raises(AmazonRefused) as caught:
        await shop.issuer.create(shop.wish(charge, "1.00"), "eleventh")
    assert caught.value.reason_code == "TransactionCountExceeded"
    assert await shop.reserved(charge) == []


async def test_a_damaged_request_does_not_stop_the_others(shop: Desk) -> None:
    charge = shop.charge()
    shop.simulator.fault_injection.add("error", place="create_refund")
    assert (await shop.issuer.create(shop.wish(charge), "refund-1")).refund is None
    keys = shop.store.of("us").keys
    await shop.store._writes.call(("HSET", keys("requests", "broken"), "order", "{", "state", "reserved"))
    await shop.store._writes.call(("ZADD", keys("issuing"), 0, "broken"))
    await shop.work()
    assert (await shop.issuer.create(shop.wish(charge), "refund-1")).refund is not None

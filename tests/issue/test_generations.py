"""A retry that Amazon provably refused allows another one. All of them together make at most one refund."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from receiver.errors import AmazonRefused, Conflict, OtherRefunds, RefundUnclear
from receiver.issue.orders import prepare
from receiver.ledger.audit import Actor
from receiver.ledger.refund import Refund, Source
from receiver.ledger.refund_request import Asked, RefundRequest, RequestState
from receiver.ledger.schema import refund_json
from receiver.store import Store
from tests.issue.kit import Desk, Killed, desk, dying
from tests.kit.clock import ManualClock
from tests.store.makers import seen


@pytest.fixture
async def shop(store: Store, clock: ManualClock) -> AsyncIterator[Desk]:
    async with desk(store, clock) as made:
        yield made


async def declined(shop: Desk) -> str:
    """A refund of 14.00 USD that Amazon has declined, known to the ledger."""
    charge = shop.charge()
    issued = await shop.issuer.create(shop.wish(charge), f"first-{charge}")
    assert issued.refund is not None
    refund_id = issued.refund.refund_id
    later = {"refund_id": refund_id, "charge_id": charge}
    told = seen("Declined", reason="ProcessingFailure", updated_at=issued.refund.updated_at + 1000)
    await shop.issuer.recorder.record(
        shop.issuer.amazon_client.account, msgspec.structs.replace(told, **later), source=Source.POLL
    )
    return refund_id


async def refund(shop: Desk, refund_id: str) -> Refund:
    found = await shop.store.of("us").refunds.get(refund_id)
    assert found is not None
    return found


def retries(shop: Desk, first: Refund) -> list[str]:
    """The refunds that Amazon has made on the charge, without the declined one."""
    return [each for each in shop.issued(first.charge_id) if each != first.refund_id]


def request_id(shop: Desk, first: Refund, generation: int) -> str:
    assert first.amount is not None
    wish = RefundRequest(first.charge_id, first.amount)
    return prepare(shop.account, wish, retry_of=first.refund_id, retry_root="x", generation=generation).id


async def refuse(shop: Desk, refund_id: str, kind: str = "count", times: int = 1) -> None:
    """Press the button while Amazon refuses."""
    shop.simulator.fault_injection.add("refuse", place="create_refund", kind=kind, times=times)
    for _ in range(times):
        with pytest.raises(AmazonRefused):
            await shop.issuer.retry(refund_id)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_refused_retry_can_be_tried_again(shop: Desk, times: int) -> None:
    """Each under its own key; once it has worked, every other press is answered with that refund."""
    first = await refund(shop, await declined(shop))
    await refuse(shop, first.refund_id, times=times)
    assert await shop.reserved(first.charge_id) == []
    issued = await shop.issuer.retry(first.refund_id)
    assert issued.refund is not None
    assert issued.record.order.generation == times + 1
    for _ in range(2):
        assert (await shop.another().retry(first.refund_id)).refund == issued.refund
    assert retries(shop, first) == [issued.refund.refund_id]
    after = await refund(shop, first.refund_id)
    assert (after.retried_by, refund_json(after).retry_refused) == (issued.refund.refund_id, None)
    assert (issued.refund.retry_of, issued.refund.retry_root) == (first.refund_id, first.refund_id)


async def test_the_first_generation_has_the_key_that_it_always_had(shop: Desk) -> None:
    """printf '\\0retry\\nS01-1' | sha256sum; the second has the number behind it."""
    order = [
        prepare(shop.account, shop.wish("S01-2"), retry_of="S01-1", retry_root="S01-1", generation=number)
        for number in (1, 2)
    ]
    assert [each.id for each in order] == [
        "2e21e8d49bbcb035d3c0ce9be003ca0a9939af72e473635a53d9431081d145db",
        "27b281fefffcbdcf37bde36dd90fc49496da9a86fde5e92697169968ee589c30",
    ]
    assert len({each.amazon_key for each in order}) == 2


async def test_what_the_last_try_came_to_is_shown_on_the_declined_refund(shop: Desk) -> None:
    """With Amazon's text, in its JSON and in its timeline."""
    first = await refund(shop, await declined(shop))
    await refuse(shop, first.refund_id, "count")
    await refuse(shop, first.refund_id, "charge")
    shown = refund_json(await refund(shop, first.refund_id)).retry_refused
    assert shown is not None
    assert (shown.generation, shown.status, shown.reason_code) == (2, 422, "InvalidChargeStatus")
    assert "The charge is not captured." in str(shown.detail)
    assert shown.request_id
    traces = [each for each in await shop.store.of("us").timelines.read(first.refund_id) if each.what == "retry"]
    assert [each.outcome for each in traces] == ["TransactionCountExceeded", "InvalidChargeStatus"]


async def test_two_who_press_after_a_refusal_make_one_refund(shop: Desk) -> None:
    first = await refund(shop, await declined(shop))
    await refuse(shop, first.refund_id)
    answers = await asyncio.gather(*(shop.another().retry(first.refund_id) for _ in range(6)))
    again = await shop.issuer.retry(first.refund_id)
    assert again.refund is not None
    assert {each.refund.refund_id for each in answers if each.refund} <= {again.refund.refund_id}
    assert retries(shop, first) == [again.refund.refund_id]


async def test_an_open_try_is_followed_by_none(shop: Desk) -> None:
    """Amazon refuses our request, not the refund; it may have reached Amazon, or not."""
    first = await refund(shop, await declined(shop))
    await refuse(shop, first.refund_id)
    shop.simulator.fault_injection.add("refuse", place="create_refund", kind="hold", times=2)
    shop.simulator.fault_injection.add("lost_answer", place="create_refund")
    generations = set()
    for _ in range(3):
        issued = await shop.issuer.retry(first.refund_id)
        generations.add(issued.record.order.generation)
        await shop.work(rounds=1)
    await shop.work()
    issued = await shop.issuer.retry(first.refund_id)
    assert issued.refund is not None
    assert generations | {issued.record.order.generation} == {2}
    assert retries(shop, first) == [issued.refund.refund_id]


async def test_an_unknown_end_allows_no_other_try(shop: Desk) -> None:
    """The retry may have been issued: it is unclear, also after a person has said that it was not."""
    first = await refund(shop, await declined(shop))
    shop.simulator.fault_injection.add("error", place="create_refund")
    shop.simulator.fault_injection.add("refuse", place="create_refund", kind="count", times=None)
    assert (await shop.issuer.retry(first.refund_id)).refund is None
    await shop.work(rounds=1)
    for _ in range(2):
        with pytest.raises(RefundUnclear):
            await shop.issuer.retry(first.refund_id)
    assert refund_json(await refund(shop, first.refund_id)).retry_refused is None
    await shop.issuer.manual.as_not_issued(request_id(shop, first, 1), by=Actor("ops"))
    with pytest.raises(Conflict) as caught:
        await shop.issuer.retry(first.refund_id)
    assert caught.value.reason == "settled_as_not_issued"
    assert await shop.store.of("us").requests.get(request_id(shop, first, 2)) is None


async def test_a_key_that_amazon_knows_with_other_values_allows_no_other_try(shop: Desk) -> None:
    """Something was issued under it."""
    first = await refund(shop, await declined(shop))
    order = prepare(shop.account, shop.wish(first.charge_id), retry_of=first.refund_id, retry_root=first.refund_id)
    other = msgspec.structs.replace(order, body=order.body.replace(b"14.00", b"13.00"))
    await shop.issuer.amazon_client.ask(*posted(shop, other))
    for _ in range(2):
        with pytest.raises(AmazonRefused) as caught:
            await shop.issuer.retry(first.refund_id)
        assert caught.value.reason_code == "DuplicateIdempotencyKey"
    assert await shop.store.of("us").requests.get(request_id(shop, first, 2)) is None
    assert len(retries(shop, first)) == 1


def posted(shop: Desk, order):  # type: ignore[no-untyped-def]
    from receiver.amazon.calls import post_refund, read_refund
    from receiver.amazon.throttle import Call

    return Call.CREATE_REFUND, post_refund(shop.account.endpoint, order.body, order.amazon_key), read_refund


async def test_records_that_are_gone_are_not_begun_again(shop: Desk, clock: ManualClock) -> None:
    """After 400 days the records have expired: the key of the refused try is not used once more, that of the one that
    worked is, and Amazon answers it with the same refund."""
    first = await refund(shop, await declined(shop))
    await refuse(shop, first.refund_id)
    issued = await shop.issuer.retry(first.refund_id)
    for generation in (1, 2):
        await shop.store._writes.call(("DEL", f"refunds:{{us}}:requests:{request_id(shop, first, generation)}"))
    assert issued.refund is not None
    with pytest.raises(OtherRefunds):
        await shop.issuer.retry(first.refund_id)
    again = await shop.issuer.retry(first.refund_id, Asked(besides=[issued.refund.refund_id]))
    assert again.refund is not None
    assert again.record.order.generation == 2
    assert retries(shop, first) == [again.refund.refund_id] == [issued.refund.refund_id]


async def test_a_refusal_that_an_older_version_took_for_the_end_allows_another_try(shop: Desk) -> None:
    """It wrote nothing on the declined refund. One of our request is no more than one of the refund."""
    first = await refund(shop, await declined(shop))
    await refuse(shop, first.refund_id)
    key = f"refunds:{{us}}:requests:{request_id(shop, first, 1)}"
    await shop.store._writes.call(("HSET", key, "reason_code", "InvalidHeaderValue", "amazon_status", "400"))
    await shop.store._writes.call(("HDEL", f"refunds:{{us}}:refund:{first.refund_id}", "retry_refused"))
    assert (await shop.issuer.retry(first.refund_id)).refund is not None
    assert len(retries(shop, first)) == 1


async def test_a_person_ends_a_request_that_amazon_keeps_refusing(shop: Desk) -> None:
    """A value that Amazon never takes would be tried for ever. Nothing was issued, so that another try is allowed."""
    first = await refund(shop, await declined(shop))
    shop.simulator.fault_injection.add("refuse", place="create_refund", kind="value", times=3)
    for _ in range(3):
        assert (await shop.issuer.retry(first.refund_id)).refund is None
        await shop.work(rounds=1)
        if len([each for each in shop.simulator.calls if each.trick == "refuse"]) == 3:
            break
    record = await shop.issuer.manual.as_not_issued(request_id(shop, first, 1), by=Actor("ops"))
    assert (record.state, record.settled_by) == (RequestState.REFUSED, "ops")
    assert await shop.reserved(first.charge_id) == []
    assert (await shop.store.of("us").gauges.measure())["requests:reserved"] == 0
    calls = len(shop.simulator.calls)
    await shop.work()
    assert len(shop.simulator.calls) == calls
    issued = await shop.issuer.retry(first.refund_id)
    assert issued.record.order.generation == 2
    assert len(retries(shop, first)) == 1


async def test_a_try_that_is_under_way_is_not_ended_by_a_person(shop: Desk) -> None:
    """It may reach Amazon at this moment."""
    charge = shop.charge()
    shop.simulator.fault_injection.add("refuse", place="create_refund", kind="value")
    pending = await shop.issuer.create(shop.wish(charge), "refund-1")
    shop.clock.tick(1_000_000)
    (attempt,) = (await shop.store.of("us").requests.claim(lease=30_000, limit=1)).items
    assert await shop.store.of("us").requests.begin(attempt, pending.record.order)
    with pytest.raises(Conflict) as caught:
        await shop.issuer.manual.as_not_issued(pending.record.order.id, by=Actor("ops"))
    assert caught.value.reason == "request_pending"
    assert len(await shop.reserved(charge)) == 1


@pytest.mark.parametrize("refused_before", [0, 1])
async def test_wherever_the_process_dies_while_a_retry_is_refused_one_refund_comes_of_it(
    shop: Desk, refused_before: int
) -> None:
    """At every await point of a try that Amazon refuses, and of the one that follows it."""
    reached, unclear = set(), 0
    for point in range(4, 200):
        first = await refund(shop, await declined(shop))
        if refused_before:
            await refuse(shop, first.refund_id)
        else:
            shop.simulator.fault_injection.add("refuse", place="create_refund", kind="count")
        died = False
        try:
            await dying(shop.another().retry(first.refund_id), point)
        except Killed:
            died = True
        except AmazonRefused:
            pass
        await shop.work(rounds=2)
        shop.simulator.fault_injection.clear()
        try:
            again = await shop.another().retry(first.refund_id)
        except RefundUnclear as error:
            # It died after it had written down that it sends. Nobody knows, and the same key tells.
            unclear += 1
            await shop.issuer.manual.repeat(str(error.more["refundRequestId"]), by=Actor("ops"))
            again = await shop.another().retry(first.refund_id)
        assert again.refund is not None, point
        assert retries(shop, first) == [again.refund.refund_id], point
        assert await shop.reserved(first.charge_id) == [], point
        assert (await refund(shop, first.refund_id)).retried_by == again.refund.refund_id
        reached.add(again.record.order.generation)
        if not died:
            break
    assert 10 < point < 199
    assert reached == ({2, 1} if not refused_before else {2})
    assert unclear <= 6

"""A person closes the case of a declined refund, or reopens it, while others reissue it: on a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import msgspec
import pytest

from receiver.errors import Conflict, NotFound, ReceiverError
from receiver.issue.cases import Cases, Closing
from receiver.ledger.audit import Actor
from receiver.ledger.query import Query
from receiver.ledger.refund import How, Refund, Source
from receiver.store import Store
from receiver.store.redis.keys import Keys
from tests.issue.kit import Desk, desk
from tests.issue.test_generations import declined, refund, refuse, retries
from tests.kit.clock import ManualClock
from tests.store.makers import refund_id, seen

ANN, BOB = Actor("desk", "ann@example.com"), Actor("desk", "bob@example.com")
GIFT = Closing(How.COMPENSATED, ANN, note="gift card")


@pytest.fixture
async def shop(store: Store, clock: ManualClock) -> AsyncIterator[Desk]:
    async with desk(store, clock) as made:
        yield made


async def becomes(shop: Desk, known: Refund, state: str) -> None:
    """Record a new state of a refund from Amazon."""
    told = seen(state, reason="ProcessingFailure" if state == "Declined" else "", updated_at=known.updated_at + 1000)
    await shop.issuer.recorder.record(
        shop.account,
        msgspec.structs.replace(told, refund_id=known.refund_id, charge_id=known.charge_id),
        source=Source.POLL,
    )


async def refused(act: Awaitable[Any]) -> str:
    with pytest.raises(ReceiverError) as caught:
        await act
    return caught.value.reason


async def open_ones(shop: Desk) -> list[str]:
    page = await shop.store.of("us").refunds.page(Query(open=True))
    return [each.refund_id for each in page.refunds]


async def events(shop: Desk, redis: Any) -> list[tuple[str, str]]:
    entries = await redis.xrange("refunds:{us}:events")
    found = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]
    return [(each["type"].removeprefix("amazonpay.refund."), each["refundId"]) for each in found]


async def test_a_decline_is_open_until_its_reissue_is_refunded(shop: Desk, redis: Any) -> None:
    """In one step with the reissue, and announced once."""
    first = await declined(shop)
    assert await open_ones(shop) == [first]
    issued = await shop.issuer.retry(first)
    assert issued.refund is not None
    again = issued.refund.refund_id
    assert await open_ones(shop) == [first]
    await becomes(shop, issued.refund, "Declined")
    assert await open_ones(shop) == [first], "a declined reissue belongs to the same case"
    third = (await shop.issuer.retry(again)).refund
    assert third is not None
    await becomes(shop, third, "Refunded")
    assert await open_ones(shop) == []
    case = (await refund(shop, first)).resolution
    assert case is not None
    assert (case.how, case.refund_id) == (How.REISSUED, third.refund_id)
    assert [each for each in await events(shop, redis) if each[0] == "resolved"] == [("resolved", first)]
    history = await shop.store.of("us").refunds.history(first)
    assert history[-1].resolution is not None
    assert history[-1].resolution.how is How.REISSUED


async def test_a_closed_case_is_not_reissued_until_it_is_reopened(shop: Desk) -> None:
    first = await declined(shop)
    after = await shop.issuer.cases.close(first, GIFT)
    assert after.resolution is not None
    assert after.resolution.note == "gift card"
    assert await open_ones(shop) == []
    assert await refused(shop.issuer.retry(first)) == "closed"
    assert await shop.issuer.cases.close(first, GIFT) == await refund(shop, first), "repeated, it changes nothing"
    await shop.issuer.cases.reopen(first, BOB)
    assert await open_ones(shop) == [first]
    issued = await shop.issuer.retry(first)
    assert issued.refund is not None
    assert retries(shop, await refund(shop, first)) == [issued.refund.refund_id]


async def test_a_reissue_stands_for_its_case(shop: Desk) -> None:
    """Whichever refund of the chain a person names."""
    first = await declined(shop)
    issued = await shop.issuer.retry(first)
    assert issued.refund is not None
    await becomes(shop, issued.refund, "Declined")
    closed = await shop.issuer.cases.close(issued.refund.refund_id, GIFT)
    assert closed.refund_id == first
    assert await refused(shop.issuer.retry(issued.refund.refund_id)) == "closed"


async def test_while_a_reissue_is_under_way_the_case_stays_open(shop: Desk) -> None:
    first = await declined(shop)
    shop.simulator.fault_injection.add("error", place="create_refund", times=1)
    issued = await shop.issuer.retry(first)
    assert issued.refund is None
    assert await refused(shop.issuer.cases.close(first, GIFT)) == "being_reissued"
    await shop.work()
    assert await refused(shop.issuer.cases.close(first, GIFT)) == "being_reissued", "Amazon has not decided"
    (again,) = retries(shop, await refund(shop, first))
    await becomes(shop, await refund(shop, again), "Declined")
    await shop.issuer.cases.close(first, GIFT)


async def test_a_refused_reissue_leaves_the_case_to_a_person(shop: Desk) -> None:
    first = await declined(shop)
    await refuse(shop, first)
    await shop.issuer.cases.close(first, GIFT)
    assert await open_ones(shop) == []


@pytest.mark.parametrize("turn", range(8))
async def test_of_closings_and_reissues_at_once_one_wins(shop: Desk, turn: int) -> None:
    """The buyer is never paid twice: a closed case has no reissue, and a reissue has no closed case."""
    first = await declined(shop)
    acts: list[Awaitable[Any]] = [shop.issuer.cases.close(first, GIFT), shop.another().retry(first)]
    acts += [shop.another().cases.close(first, Closing(How.NOT_OWED, BOB, note="returned"))]
    outcomes = await asyncio.gather(*(acts[turn % 3 :] + acts[: turn % 3]), return_exceptions=True)
    assert all(isinstance(each, Conflict) or not isinstance(each, Exception) for each in outcomes)
    assert sum(not isinstance(each, Exception) for each in outcomes) == 1
    known = await refund(shop, first)
    assert known.resolution is not None
    assert known.resolution.is_open is (len(retries(shop, known)) == 1)


@pytest.mark.parametrize("refused_first", [False, True])
async def test_a_reissue_of_a_reissue_that_begins_meanwhile_wins(
    shop: Desk, monkeypatch: pytest.MonkeyPatch, refused_first: bool
) -> None:
    """It changes the last refund of the chain, but not the first, whose revision guards the closing."""
    first = await declined(shop)
    second = (await shop.issuer.retry(first)).refund
    assert second is not None
    await becomes(shop, second, "Declined")
    write, turns = Cases._write, list[int]()

    async def late(self: Cases, *args: Any) -> Any:
        if not turns:
            turns.append(1)
            if refused_first:
                await refuse(shop, second.refund_id)
                shop.simulator.fault_injection.add("error", place="create_refund", times=1)
            await shop.another().retry(second.refund_id)
        return await write(self, *args)

    monkeypatch.setattr(Cases, "_write", late)
    assert await refused(shop.issuer.cases.close(first, GIFT)) == "being_reissued"
    assert await open_ones(shop) == [first]


async def test_a_reissue_that_was_found_by_a_person_closes_the_case(
    shop: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the process died before it recorded what that refund repeats."""
    first = await declined(shop)
    shop.simulator.fault_injection.add("error", place="create_refund", times=1)
    request = (await shop.issuer.retry(first)).record
    await shop.work()
    (again,) = retries(shop, await refund(shop, first))
    key = Keys("us")("refund", again)
    await shop.store.connection.client.execute_command("HDEL", key, "retry_of", "retry_root")
    await shop.store.connection.client.execute_command("HDEL", Keys("us")("refund", first), "retried_by")
    assert request.order.retry_of == first
    await becomes(shop, await refund(shop, again), "Refunded")
    assert await open_ones(shop) == [first]
    assert await refused(shop.issuer.cases.close(first, GIFT)) == "already_closed"
    case = (await refund(shop, first)).resolution
    assert case is not None
    assert (case.how, case.refund_id) == (How.REISSUED, again)


async def test_without_its_charge_no_refund_has_paid_for_it(shop: Desk) -> None:
    """Two refunds of unknown charges are not refunds of the same charge."""
    account = shop.issuer.amazon_client.account
    for number, state in ((1, "Declined"), (2, "Refunded")):
        told = msgspec.structs.replace(seen(state, number), charge_id="")
        await shop.issuer.recorder.record(account, told, source=Source.POLL)
    closing = Closing(How.REFUNDED_ELSEWHERE, ANN, refund_id=refund_id(2))
    assert await refused(shop.issuer.cases.close(refund_id(1), closing)) == "other_charge"


async def test_an_old_decline_whose_reissue_is_refunded_is_not_reopened(shop: Desk, redis: Any) -> None:
    """It was declined, reissued and refunded before cases were recorded."""
    first = await declined(shop)
    again = (await shop.issuer.retry(first)).refund
    assert again is not None
    await becomes(shop, again, "Refunded")
    known = await redis.hgetall(Keys("us")("refund", first))
    await redis.hdel(Keys("us")("refund", first), *[name for name in known if name.startswith(b"case_")])
    shop.clock.tick(31 * 86_400_000)
    assert await refused(shop.issuer.cases.reopen(first, ANN)) == "already_paid"


async def test_the_refund_that_paid_the_buyer_is_checked(shop: Desk) -> None:
    """It is of the same charge, Refunded, and has closed no other case. Amazon is asked if it is not known here."""
    first = await declined(shop)
    charge = (await refund(shop, first)).charge_id
    other = (await shop.issuer.create(shop.wish(charge, "3.00"), "other")).refund
    foreign = (await shop.issuer.create(shop.wish(shop.charge(), "3.00"), "foreign")).refund
    assert other is not None
    assert foreign is not None
    close = shop.issuer.cases.close

    def by(refund_id: str, actor: Actor = ANN) -> Closing:
        return Closing(How.REFUNDED_ELSEWHERE, actor, refund_id=refund_id)

    assert await refused(close(first, by(other.refund_id))) == "not_refunded"
    await becomes(shop, foreign, "Refunded")
    assert await refused(close(first, by(foreign.refund_id))) == "other_charge"
    assert await refused(close(first, by("S01-0000000-0000000-R000000"))) == "amazon_not_found"
    await becomes(shop, other, "Refunded")
    case = (await close(first, by(other.refund_id))).resolution
    assert case is not None
    assert (case.how, case.refund_id) == (How.REFUNDED_ELSEWHERE, other.refund_id)
    second = await declined_on(shop, charge)
    with pytest.raises(Conflict, match=first) as caught:
        await close(second, by(other.refund_id))
    assert caught.value.reason == "already_used"
    await shop.issuer.cases.reopen(first, BOB)
    await close(second, by(other.refund_id))


async def declined_on(shop: Desk, charge: str) -> str:
    issued = await shop.issuer.create(shop.wish(charge, "5.00"), f"second-{charge}")
    assert issued.refund is not None
    await becomes(shop, issued.refund, "Declined")
    return issued.refund.refund_id


async def test_what_was_found_at_amazon_is_recorded(shop: Desk) -> None:
    """A refund made in Seller Central, whose notification was lost."""
    first = await declined(shop)
    charge = (await refund(shop, first)).charge_id
    made = shop.simulator.start_refund("3.00", "USD", "RefundedAtOnce", charge)
    assert await shop.store.of("us").refunds.get(made) is None
    await shop.issuer.cases.close(first, Closing(How.REFUNDED_ELSEWHERE, ANN, refund_id=made))
    assert (await refund(shop, made)).state == "Refunded"


async def test_only_declined_refunds_have_cases(shop: Desk) -> None:
    issued = await shop.issuer.create(shop.wish(shop.charge()), "k")
    assert issued.refund is not None
    assert await refused(shop.issuer.cases.close(issued.refund.refund_id, GIFT)) == "not_declined"
    with pytest.raises(NotFound):
        await shop.issuer.cases.close("S01-0000000-0000000-R000000", GIFT)


async def test_without_its_first_refund_a_chain_is_not_reissued(shop: Desk, redis: Any) -> None:
    """It was pruned: a person may have closed its case."""
    first = await declined(shop)
    issued = await shop.issuer.retry(first)
    assert issued.refund is not None
    await becomes(shop, issued.refund, "Declined")
    await shop.issuer.cases.close(first, GIFT)
    await redis.delete(f"refunds:{{us}}:refund:{first}")
    assert await refused(shop.issuer.retry(issued.refund.refund_id)) == "closed"
    assert len(retries(shop, issued.refund)) == 1

"""What the charge adds to a refund: its order number, and what can be done about a decline. It never delays an
event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from receiver.amazon.throttle import Bucket, Call
from receiver.ledger.polling import FACT_AGES
from receiver.ledger.refund import Refund, Source
from receiver.outbox.events.event import Event, from_fields
from receiver.store import Store
from receiver.track import charges
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.service.desk import Answer, Bench, Held, bench, charge, http, refund
from tests.store.makers import claim, hint, refund_id


@pytest.fixture
async def at(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Bench]:
    """A tracker of "us" without jitter; the test chooses Amazon's answers; the store is empty."""
    async with bench(store, redis, clock) as found:
        yield found


async def known(at: Bench) -> Refund:
    """The one refund."""
    found = await at.store.of("us").refunds.get(refund_id())
    assert found is not None
    return found


async def told(at: Bench) -> list[Event]:
    """All events, as subscribers read them."""
    entries = await at.redis.xrange("refunds:{us}:events")
    return [from_fields("us", {k.decode(): v.decode() for k, v in fields.items()}) for _, fields in entries]


def actions(event: Event) -> list[str]:
    """What the event advises."""
    return [each.action for each in event.advice.actions] if event.advice else []


async def decline(at: Bench, reason: str = "ProcessingFailure") -> Event:
    """Have the refund declined by Amazon; the event of it."""
    await at.store.of("us").schedule.hint(hint())
    at.desk.answers = [refund("Declined", reason=reason)]
    await at.look()
    return (await told(at))[-1]


@pytest.mark.parametrize(
    ("answer", "reason", "retryable", "advised"),
    [
        (
            charge(order="ORDER-7"),
            "ProcessingFailure",
            "yes",
            ["check_buyer_already_refunded", "retry_refund", "refund_another_way"],
        ),
        (
            charge("Canceled", order="ORDER-7"),
            "ProcessingFailure",
            "no",
            ["check_buyer_already_refunded", "refund_another_way"],
        ),
        (
            charge(refunded="14.00", order="ORDER-7"),
            "ProcessingFailure",
            "no",
            ["check_buyer_already_refunded", "refund_another_way"],
        ),
        (
            charge(order="ORDER-7"),
            "AmazonRejected",
            "yes",
            ["repay_negative_balance", "retry_refund", "refund_another_way"],
        ),
        (
            charge("Canceled", order="ORDER-7"),
            "AmazonRejected",
            "no",
            ["repay_negative_balance", "refund_another_way"],
        ),
    ],
)
async def test_a_decline_tells_what_its_charge_allows(
    at: Bench, answer: bytes, reason: str, retryable: str, advised: list[str]
) -> None:
    """Captured with money left, it can be tried again; otherwise another way is left. The order number is added."""
    at.desk.charge = answer
    event = await decline(at, reason)
    assert (event.refund.retryable, event.refund.order_reference) == (retryable, "ORDER-7")
    assert actions(event) == advised
    assert (await known(at)).retryable == retryable
    assert await at.due() is None


UNTOLD: dict[str, Answer] = {
    "never": Held(),
    "500": http(500),
    "404": http(404),
    "429": http(429),
    "garbage": http(200, b"<html>"),
}


@pytest.mark.parametrize("trouble", list(UNTOLD))
async def test_a_charge_that_cannot_be_read_holds_nothing_back(
    at: Bench, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """The event goes out with general advice; a minute later the facts are added, without another event."""
    monkeypatch.setattr(charges, "DETAILS_WITHIN", 0.1)
    at.desk.charge = UNTOLD[trouble]
    event = await decline(at)
    assert event.refund.retryable == ""
    assert "retry_if_charge_captured" in actions(event)
    assert await at.wait() == FACT_AGES[0]
    at.desk.charge, at.desk.then = charge(order="ORDER-7"), refund("Declined", reason="ProcessingFailure")
    await at.look()
    after = await known(at)
    assert (after.retryable, after.order_reference, after.revision) == ("yes", "ORDER-7", 2)
    assert await at.due() is None
    assert len(await told(at)) == 1


async def test_the_charge_is_asked_about_four_times_more_and_then_left(at: Bench) -> None:
    """A minute, ten minutes, an hour and six hours after the state was reported."""
    at.desk.charge = http(404)
    await at.store.of("us").schedule.hint(hint())
    at.desk.then = refund("Refunded")
    await at.look()
    waits = []
    for _ in range(len(FACT_AGES)):
        waits.append(await at.wait())
        await at.look()
    assert [sum(waits[: n + 1]) for n in range(len(waits))] == list(FACT_AGES)
    assert await at.due() is None
    assert at.desk.charges_asked == 5


async def test_a_pending_refund_has_its_order_number_and_its_decline_is_judged_afresh(at: Bench) -> None:
    """What was read of the charge while the refund was pending counts the refund itself as refunded."""
    at.desk.charge = charge(refunded="14.00", order="ORDER-7")
    await at.store.of("us").schedule.hint(hint(message="m0"))
    at.desk.answers = [refund()]
    await at.look()
    assert (await told(at))[0].refund.order_reference == "ORDER-7"
    at.desk.charge = charge(order="ORDER-8")
    event = await decline(at)
    assert (event.refund.retryable, event.refund.order_reference) == ("yes", "ORDER-7")
    assert at.desk.charges_asked == 2


async def test_other_refunds_of_the_charge_use_it_up(at: Bench) -> None:
    """What is being refunded counts, also where Amazon's own sum has not caught up; the declined one does not."""
    await at.redis.hset("refunds:{us}:charge:S01-5105180-3221187-C056351", "request:other", "1300 Reserved")
    assert (await decline(at)).refund.retryable == "no"


async def test_no_token_for_charges_postpones_the_order_number_of_what_is_pending(
    store: Store, redis: Any, clock: ManualClock
) -> None:
    """Only a decline waits for the throttle of Get Charge."""
    throttle = {**dict.fromkeys(Call, Bucket(1000, 1000)), Call.GET_CHARGE: Bucket(1, 0.001)}
    async with bench(store, redis, clock, throttle=throttle) as at:
        assert await store.of("us").requests.take_token(Call.GET_CHARGE, 1, 0.001) == 0
        await store.of("us").schedule.hint(hint())
        at.desk.answers = [refund()]
        await at.look()
        assert not (await known(at)).charge_read
        assert at.desk.charges_asked == 0


async def test_a_refresh_of_a_decline_looks_at_the_charge_again(at: Bench) -> None:
    """The balance was settled or the money spent, and a person wants to know."""
    await decline(at)
    at.desk.charge, at.desk.then = charge(refunded="14.00"), refund("Declined", reason="ProcessingFailure")
    await at.store.of("us").schedule.hint(hint(message="", source=Source.REFRESH))
    await at.look()
    assert (await known(at)).retryable == "no"
    assert len(await told(at)) == 1


async def test_a_damaged_copy_of_a_charge_is_read_anew(at: Bench) -> None:
    """The cache saves calls; it decides nothing."""
    await at.redis.set("refunds:{us}:charges:S01-5105180-3221187-C056351", b"\xff{")
    at.desk.charge = charge(order="ORDER-7")
    await at.store.of("us").schedule.hint(hint())
    at.desk.answers = [refund()]
    await at.look()
    assert (await known(at)).order_reference == "ORDER-7"


async def test_charges_that_hang_leave_room_for_news(at: Bench) -> None:
    """Facts that are still missing are read by a few looks at a time, so that a decline finds a free one."""
    numbers = (1, 2, 3)
    at.tracker.rounds.concurrency = 4
    at.desk.charge = http(500)
    at.desk.then = http(404)
    for number in numbers:
        await at.store.of("us").schedule.hint(hint(number, message=f"m{number}"))
        at.desk.answers = [refund("Refunded", number=number)]
        await at.look(number)
    at.desk.charge = Held(charge(), go := asyncio.Event())
    at.desk.answers = [refund("Refunded", number=number) for number in numbers]
    at.clock.tick(FACT_AGES[0])
    before = at.desk.charges_asked
    hanging = None
    for number in numbers:
        (look,) = (await claim(at.store, limit=1)).items
        assert look.refund_id == refund_id(number)
        if hanging is None:
            hanging = asyncio.create_task(at.tracker.look(look))
            await until(lambda: at.desk.charges_asked > before, "the charge is asked about")
        else:
            await asyncio.wait_for(at.tracker.look(look), 30)
            assert await at.due(number) == FACT_AGES[1] - FACT_AGES[0]
    assert at.desk.charges_asked == before + 1
    assert hanging is not None
    assert not hanging.done()
    go.set()
    await asyncio.wait_for(hanging, 30)
    assert (await known(at)).charge_read

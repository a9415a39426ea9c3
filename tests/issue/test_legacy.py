"""Refunds by Flexible Payments: once, whatever happens; repeated for seven days and never after; kept in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from receiver.amazon.fps.calls import Version
from receiver.amazon.fps.orders import FpsOrder
from receiver.errors import AmazonRefused, Conflict, NotFound
from receiver.issue.fps import WINDOW, Ordered
from receiver.ledger.lifecycle import EventType
from receiver.ledger.query import Query
from receiver.ledger.refund import Observation, Source
from receiver.ledger.refund_request import RequestState
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.store.requests.fps_orders import Begin
from receiver.store.requests.requests import Attempt
from receiver.track.tracker import Tracker
from tests.issue.kit import Killed, dying, waiting
from tests.issue.legacy_kit import DAY, DELAY, RESERVED, T1, T2, Office, office
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.processes import until
from tests.service.kit import one_round
from tests.store.makers import claim, seen
from tests.store.test_mutations import without


@pytest.fixture
async def shop(store: Store, clock: ManualClock) -> AsyncIterator[Office]:
    async with office(store, clock) as made:
        yield made


# Making one


async def test_a_refund_is_made_and_known(shop: Office) -> None:
    """Under the merchant's reference, with its transaction as the charge, and due to be asked about again."""
    made = await shop.legacy.create(shop.order(description="Größe 3"))
    refund = made.refund
    assert refund is not None
    assert (refund.refund_id, refund.charge_id, str(refund.amount)) == ("R-1", T2, "14.00 USD")
    assert (refund.state, refund.refund_type, refund.source, refund.environment) == (
        "RefundInitiated",
        "FPS",
        "create",
        "Sandbox",
    )
    assert refund.emitted == (EventType.INITIATED,)
    assert await shop.due() == 60_000
    assert [each.order.description for each in shop.simulator.fps_refunds] == ["Größe 3"]


async def test_without_an_amount_all_that_is_left_is_refunded(shop: Office) -> None:
    """Amazon does not say how much that was."""
    made = await shop.legacy.create(shop.order(amount="", transaction_id=T1))
    assert made.refund is not None
    assert made.refund.amount is None
    assert (await shop.store.of("us").refunds.page(Query(charge=T1))).refunds == (made.refund,)
    assert shop.simulator.fps_refunds[0].amount.text == "100.00"


async def test_the_same_order_is_the_same_refund(shop: Office) -> None:
    """However many ask at once, and however its default is written."""
    answers = await asyncio.gather(*(shop.another().create(shop.order()) for _ in range(8)))
    again = await shop.legacy.create(shop.order(amount="14", policy="MasterTxnOnly"))
    assert again.refund is not None
    assert {each.refund.refund_id for each in answers if each.refund} == {"R-1"}
    assert (shop.made(), shop.sent) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"amount": "15.00"},
        {"amount": ""},
        {"transaction_id": T1},
        {"description": "x"},
        {"policy": "MarketplaceTxnOnly"},
    ],
)
async def test_the_same_reference_with_other_values_is_a_conflict(shop: Office, other: dict[str, str]) -> None:
    """And nothing is sent."""
    await shop.legacy.create(shop.order())
    with pytest.raises(Conflict) as caught:
        await shop.legacy.create(shop.order(**other))
    assert caught.value.reason == "reference_reused"
    assert shop.sent == 1


async def test_a_reference_that_is_another_refunds_id_is_taken(shop: Office) -> None:
    """One of Amazon Pay's, say: two refunds under one id would be one in the ledger."""
    known = seen()
    await shop.legacy.recorder.record(shop.legacy.amazon_client.account, known, source=Source.POLL)
    with pytest.raises(Conflict) as caught:
        await shop.legacy.create(shop.order(known.refund_id))
    assert caught.value.reason == "reference_taken"
    assert shop.sent == 0


async def test_amazons_refusal_is_told_with_its_code_whoever_asks_again(shop: Office) -> None:
    """Nothing enters the ledger, and nothing is sent again."""
    for _ in range(2):
        with pytest.raises(AmazonRefused) as caught:
            await shop.legacy.create(shop.order(transaction_id=RESERVED))
        assert (caught.value.reason_code, caught.value.amazon_status) == ("InvalidTransactionState", 400)
        assert caught.value.amazon_request_id
    await shop.work()
    assert (await shop.state(), shop.sent) == (RequestState.REFUSED, 1)
    assert await shop.store.of("us").refunds.get("R-1") is None


async def test_an_account_without_it_makes_none(shop: Office) -> None:
    """It is not taken for a refund of Amazon Pay either."""
    with pytest.raises(NotFound) as caught:
        await shop.another(make_account()).create(shop.order())
    assert caught.value.reason == "no_fps"


# An end that is not known


@pytest.mark.parametrize("trick", ["error", "lost_answer", "garbage", "half", "wrong_refund", "hang", "throttle"])
async def test_whatever_amazon_does_one_refund_comes_of_it(shop: Office, trick: str) -> None:
    """A worker repeats the stored order."""
    shop.simulator.fault_injection.add(trick, place="fps_refund", seconds=1.0)
    with waiting(shop.legacy.amazon_client, 0.5 if trick == "hang" else 60.0):
        assert (await shop.legacy.create(shop.order())).refund is None
    assert (await shop.legacy.create(shop.order())).refund is None
    await shop.work()
    again = await shop.legacy.create(shop.order())
    assert again.refund is not None
    assert again.record.unknown is (trick != "throttle")
    assert (again.record.state, shop.made(), shop.sent) == (RequestState.DONE, 1, 2)


async def test_a_refusal_after_an_unknown_end_is_unclear(shop: Office) -> None:
    """It may be about the very attempt whose answer was lost. A person gets an alert; nothing is sent again."""
    shop.simulator.fault_injection.add("error", place="fps_refund")
    assert (await shop.legacy.create(shop.order(amount="100.00", transaction_id=T1))).refund is None
    await shop.legacy.create(shop.order("R-2", "60.00", T1))
    with capture_logs() as logs:
        await shop.work()
    assert [line["log_level"] for line in logs if line["event"] == "fps.unclear"] == ["error"]
    with pytest.raises(Conflict, match="RefundAmountExceeded") as caught:
        await shop.legacy.create(shop.order(amount="100.00", transaction_id=T1))
    assert (caught.value.reason, await shop.state()) == ("refund_unclear", RequestState.UNCLEAR)
    await shop.work()
    assert (shop.made(), shop.sent) == (0, 3)


async def test_wherever_the_process_dies_one_refund_comes_of_it(shop: Office) -> None:
    """At every await point: afterwards the workers go on, and the caller asks again."""
    for point in range(200):
        order = shop.order(f"R-{point}", "1.00")
        try:
            await dying(shop.another().create(order), point)
        except Killed:
            died = True
        else:
            died = False
        await shop.work()
        assert shop.made(order.reference) <= 1
        again = await shop.another().create(order)
        assert again.refund is not None, point
        assert again.refund.refund_type == "FPS"
        assert shop.made(order.reference) == 1, point
        if not died:
            break
    assert 5 < point < 199


async def test_wherever_a_worker_dies_one_refund_comes_of_it(shop: Office) -> None:
    """The next one goes on."""
    for point in range(200):
        order = shop.order(f"R-{point}", "1.00")
        shop.simulator.fault_injection.add("lost_answer", place="fps_refund")
        assert (await shop.another().create(order)).refund is None
        shop.clock.tick(1_000_000)
        (attempt,) = (await shop.store.of("us").fps.claim(lease=30_000, limit=1)).items
        try:
            await dying(shop.another().worker().rounds.work_on(attempt), point)
        except Killed:
            died = True
        else:
            died = False
        await shop.work()
        assert await shop.state(order.reference) is RequestState.DONE, point
        assert shop.made(order.reference) == 1, point
        if not died:
            break
    assert 5 < point < 199


async def test_every_try_is_the_order_that_was_written_down(shop: Office) -> None:
    """In the version of the API too, which names the reference: the settings may have changed meanwhile."""
    shop.simulator.fault_injection.add("lost_answer", place="fps_refund")
    assert (await shop.legacy.create(shop.order())).refund is None
    access = shop.legacy.amazon_client.account.fps
    assert access is not None
    changed = replace(shop.legacy.amazon_client.account, fps=replace(access, version=Version.V2010_08_28))
    sent: list[str] = []
    legacy = shop.another(changed)
    send = legacy.amazon_client.send

    async def noted(request, *, timeout):  # type: ignore[no-untyped-def]
        sent.append(request.url)
        return await send(request, timeout=timeout)

    legacy.amazon_client.send = noted
    shop.clock.tick(1_000_000)
    await one_round(legacy.worker().rounds)
    assert await shop.state() is RequestState.DONE
    assert ["RefundTransactionReference=R-1" in url for url in sent] == [True]


# Seven days


async def test_after_a_restore_an_open_order_is_not_sent_again(shop: Office) -> None:
    """It was sent after the backup, more than seven days ago: Amazon has forgotten its reference and would refund a
    second time. Once for each restore."""
    order, orders = shop.order(), shop.store.of("us").fps
    reserved = await orders.reserve(FpsOrder(values=order, version=Version.V2010_08_28), owner="1", lease=30_000)
    assert isinstance(reserved, Attempt)
    backup = await shop.store.connection.client.dump("refunds:{us}:fps:R-1")
    await shop.work()
    assert shop.made() == 1
    await shop.store.connection.client.flushdb()
    await shop.store.connection.client.restore("refunds:{us}:fps:R-1", 0, backup)
    await shop.store.connection.client.zadd("refunds:{us}:fps_issuing", {"R-1": reserved.token})
    shop.clock.tick(WINDOW + 2 * DAY)
    shop.store.connection.accounts = ["us"]
    await shop.store.format.mark_restored()
    with capture_logs() as logs:
        await shop.store.format.ensure()
    assert [each["refund_id"] for each in logs if each["event"] == "fps.unclear"] == ["R-1"]
    await shop.work()
    assert (shop.made(), shop.sent) == (1, 1)
    with pytest.raises(Conflict, match="restored from a backup") as caught:
        await shop.legacy.create(order)
    assert (caught.value.reason, await shop.state()) == ("refund_unclear", RequestState.UNCLEAR)


async def test_what_ended_unknown_is_repeated_for_seven_days_and_never_after(shop: Office) -> None:
    """Amazon has made the refund, and every answer is lost. A day later it would be a second one."""
    shop.simulator.fault_injection.add("lost_answer", place="fps_refund", times=None)
    assert (await shop.legacy.create(shop.order())).refund is None
    shop.clock.tick(WINDOW - 1)
    await one_round(shop.another().worker().rounds)
    assert (shop.made(), shop.sent) == (1, 2)
    shop.simulator.fault_injection.clear()
    shop.clock.tick(2 * DAY)
    with capture_logs() as logs:
        await shop.work()
    assert [(line["event"], line["log_level"]) for line in logs] == [("fps.unclear", "error")]
    assert (shop.made(), shop.sent) == (1, 2)
    with pytest.raises(Conflict) as caught:
        await shop.legacy.create(shop.order())
    assert caught.value.reason == "refund_unclear"
    assert shop.sent == 2


async def test_a_process_that_sleeps_before_it_sends_refunds_nothing(
    shop: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is suspended in just that moment, for a week: the request is too old by its own timestamp."""
    shop.simulator.fault_injection.add("lost_answer", place="fps_refund")
    assert (await shop.legacy.create(shop.order())).refund is None
    shop.clock.tick(60_000)
    begin = shop.store.of("us").fps.begin

    async def asleep(attempt: Attempt, window: int) -> Begin:
        found = await begin(attempt, window)
        shop.clock.tick(8 * DAY)
        return found

    monkeypatch.setattr(shop.store.of("us").fps, "begin", asleep)
    await one_round(shop.another().worker().rounds)
    assert {each.reason for each in list(shop.simulator.calls)[1:]} == {"date_skew"}
    monkeypatch.undo()
    sent = shop.sent
    await shop.work()
    assert (shop.made(), shop.sent) == (1, sent)
    assert await shop.state() is RequestState.UNCLEAR


async def test_a_process_that_died_sending_is_unclear_after_seven_days(shop: Office) -> None:
    """Whether the request went out is unknown."""
    order = shop.order()
    for point in range(200):
        try:
            await dying(shop.another().create(order), point)
        except Killed:
            record = await shop.store.of("us").fps.get("R-1")
            if record is not None and record.tries:
                break
            await shop.store._writes.call(("DEL", "refunds:{us}:fps:R-1", "refunds:{us}:fps_issuing"))
    shop.clock.tick(8 * DAY)
    await one_round(shop.another().worker().rounds)
    assert await shop.state() is RequestState.UNCLEAR
    assert shop.made() <= 1


async def test_what_never_went_out_is_over_after_seven_days_and_clear(shop: Office) -> None:
    """Amazon cannot have refunded anything: the merchant may take a new reference."""
    await shop.simulator.stop()
    assert (await shop.legacy.create(shop.order())).refund is None
    shop.clock.tick(8 * DAY)
    await shop.work()
    assert await shop.state() is RequestState.REFUSED
    with pytest.raises(Conflict, match="nothing was refunded") as caught:
        await shop.legacy.create(shop.order())
    assert caught.value.reason == "refund_not_sent"


async def test_a_done_order_is_done_for_ever(shop: Office) -> None:
    """A year later the same order is still answered from the ledger: Amazon would refund again."""
    await shop.legacy.create(shop.order())
    shop.clock.tick(500 * DAY)
    again = await shop.legacy.create(shop.order())
    assert isinstance(again, Ordered)
    assert again.refund is not None
    assert (shop.made(), shop.sent) == (1, 1)


async def test_an_order_outlives_a_store_that_is_emptied_while_it_is_sent(shop: Office) -> None:
    """It is known again with the refund, and never repeated: the time of its first attempt is lost."""
    send = shop.legacy.amazon_client.send

    async def emptied(request, *, timeout):  # type: ignore[no-untyped-def]
        answer = await send(request, timeout=timeout)
        await shop.store._writes.call(("FLUSHALL",))
        return answer

    shop.legacy.amazon_client.send = emptied
    made = await shop.legacy.create(shop.order())
    shop.legacy.amazon_client.send = send
    assert made.refund is not None
    assert await shop.legacy.hint("R-1")
    await shop.look()
    again = await shop.another().create(shop.order())
    assert again.refund is not None
    assert (await shop.state(), shop.made(), shop.sent) == (RequestState.DONE, 1, 1)


# Asking again


@pytest.mark.parametrize(("amount", "state"), [("14.00", "Refunded"), ("14.01", "Declined")])
async def test_a_pending_refund_is_asked_about_by_repeating_its_order(shop: Office, amount: str, state: str) -> None:
    """Never by Get Refund. What does not change writes nothing."""
    await shop.legacy.create(shop.order(amount=amount))
    shop.clock.tick(60_000)
    await shop.look()
    assert (await shop.refund()).revision == 1
    shop.clock.tick(DELAY * 1000)
    await shop.look()
    found = await shop.refund()
    assert (found.state, found.revision, found.updated_at) == (state, 2, shop.clock())
    assert {each.call for each in shop.simulator.calls} == {"fps_refund"}
    assert shop.made() == 1
    assert await shop.due() is None


async def test_after_seven_days_it_is_not_asked_any_more(shop: Office) -> None:
    """It stays as it is. `stuck` is sent, here only now, and then it leaves the schedule."""
    await shop.legacy.create(shop.order(amount="14.03"))
    shop.clock.tick(8 * DAY)
    for _ in range(2):
        await shop.look()
        found = await shop.refund()
        assert (found.state, EventType.STUCK in found.emitted, found.revision) == ("RefundInitiated", True, 2)
        shop.clock.tick(30 * DAY)
    assert await shop.due() is None
    assert await shop.legacy.hint("R-1")
    await shop.look()
    assert await shop.due() is None
    assert (shop.made(), shop.sent) == (1, 1)


async def test_settings_that_are_gone_make_it_no_refund_of_amazon_pay(shop: Office) -> None:
    """It is not asked about, and asked about again when they are back."""
    await shop.legacy.create(shop.order())
    shop.clock.tick(DELAY * 1000)
    without = replace(shop.legacy.amazon_client.account, fps=None)
    await shop.look(without)
    assert shop.sent == 1
    assert await shop.due() is not None
    shop.clock.tick(DELAY * 1000)
    await shop.look()
    assert (await shop.refund()).state == "Refunded"


# Hints


async def test_a_hint_makes_a_known_refund_due(shop: Office) -> None:
    """And what it says is not believed."""
    await shop.legacy.create(shop.order(amount="14.03"))
    assert await shop.legacy.hint("R-1")
    await shop.look()
    assert ((await shop.refund()).revision, shop.sent) == (1, 2)
    assert await shop.due() == 5_000


async def test_a_hint_for_an_order_that_waits_hurries_it(shop: Office) -> None:
    """Only the worker repeats the order, so the record of what was sent is kept."""
    shop.simulator.fault_injection.add("lost_answer", place="fps_refund")
    assert (await shop.legacy.create(shop.order())).refund is None
    assert await shop.legacy.hint("R-1")
    await shop.look()
    assert (shop.sent, await shop.due()) == (1, None)
    await one_round(shop.another().worker().rounds)
    assert await shop.state() is RequestState.DONE
    assert shop.made() == 1


async def test_an_order_that_is_done_during_a_look_keeps_its_schedule(shop: Office) -> None:
    """The tracker has found no refund yet, and only removes the order if that is still true."""
    shop.simulator.fault_injection.add("lost_answer", place="fps_refund")
    assert (await shop.legacy.create(shop.order())).refund is None
    assert await shop.legacy.hint("R-1")

    class Slow:
        async def observe(self, refund_id: str) -> Observation | None:
            try:
                return await shop.legacy.observe(refund_id)
            finally:
                await one_round(shop.another().worker().rounds)

    legacy = shop.legacy
    tracker = Tracker(legacy.amazon_client, legacy.recorder, Metrics(), lambda: 0.0, observe_fps=Slow().observe)
    (look,) = (await claim(shop.store)).items
    await tracker.look(look)
    assert await shop.state() is RequestState.DONE
    assert await shop.due() == 30_000, "the lease of the look"
    shop.clock.tick(30_000)
    await shop.look()
    assert await shop.due() == 5_000, "the hint is followed up"


async def test_a_hint_changes_nothing_that_is_over(shop: Office) -> None:
    """A stranger cannot have a refused order sent again."""
    with pytest.raises(AmazonRefused):
        await shop.legacy.create(shop.order(transaction_id=RESERVED))
    assert await shop.legacy.hint("R-1")
    await shop.look()
    await shop.work()
    assert (await shop.state(), shop.sent) == (RequestState.REFUSED, 1)


async def test_a_strangers_reference_leaves_no_trace(shop: Office) -> None:
    """Nothing is written."""
    assert not await shop.legacy.hint("R-1")
    assert await shop.store._read("DBSIZE") == 0


async def test_a_hint_leaves_alone_what_is_being_sent(shop: Office) -> None:
    """Otherwise posted forms could send an order many times at once."""
    shop.simulator.fault_injection.add("hang", place="fps_refund")
    shop.legacy.amazon_client.timeout = 60.0
    making = asyncio.create_task(shop.legacy.create(shop.order()))
    await until(shop.made, "Amazon has it")
    assert await shop.legacy.hint("R-1")
    await shop.look()
    await one_round(shop.another().worker().rounds)
    assert await shop.state() is RequestState.RESERVED
    making.cancel()
    await asyncio.wait([making])
    await shop.work()
    assert (await shop.state(), shop.made()) == (RequestState.DONE, 1)


async def test_a_worker_slower_than_its_lease_sends_nothing(shop: Office) -> None:
    """Another one holds the order by then, and has it done."""
    shop.simulator.fault_injection.add("lost_answer", place="fps_refund")
    assert (await shop.legacy.create(shop.order())).refund is None
    shop.clock.tick(1_000_000)
    (attempt,) = (await shop.store.of("us").fps.claim(lease=30_000, limit=1)).items
    await shop.work()
    sent = shop.sent
    await shop.another().worker().rounds.work_on(attempt)
    record = await shop.store.of("us").fps.get("R-1")
    assert record is not None
    await shop.another()._try(attempt, record.order)
    assert (await shop.state(), shop.sent) == (RequestState.DONE, sent)


# Each protection, taken out


@pytest.mark.parametrize(
    ("script", "protection", "instead", "test"),
    [
        (
            "fps_begin",
            "tonumber(ARGV[3]) - tonumber(first) >= tonumber(ARGV[4])",
            "false",
            test_what_ended_unknown_is_repeated_for_seven_days_and_never_after,
        ),
        (
            "fps_begin",
            "not holds_claim(KEYS[2], ARGV[1], ARGV[2])",
            "false",
            test_a_worker_slower_than_its_lease_sends_nothing,
        ),
        (
            "fps_begin",
            "redis.call('HGET', KEYS[1], 'open') == '1'",
            "false",
            test_a_process_that_died_sending_is_unclear_after_seven_days,
        ),
        (
            "fps_finish",
            "redis.call('HGET', KEYS[1], 'unknown') == '1'",
            "false",
            test_a_refusal_after_an_unknown_end_is_unclear,
        ),
        (
            "expedite_fps",
            " or redis.call('HGET', KEYS[1], 'open') == '1'",
            "",
            test_a_hint_leaves_alone_what_is_being_sent,
        ),
        (
            "fps_reserve",
            "redis.call('EXISTS', KEYS[2]) == 1",
            "false",
            test_a_reference_that_is_another_refunds_id_is_taken,
        ),
    ],
)
async def test_no_protection_is_decoration(
    shop: Office,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    protection: str,
    instead: str,
    test: Callable[[Office], Awaitable[None]],
) -> None:
    """Without it, the test that it is for fails."""
    without(monkeypatch, script, protection, instead)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await test(shop)


# What Amazon, or something on the way, refuses of our requests


@pytest.mark.parametrize(
    "kind", ["date", "header", "signature", "key", "hold", "field", "value", "page", "proxy", "tls"]
)
async def test_a_refusal_of_our_request_ends_no_reference(shop: Office, kind: str) -> None:
    """It says nothing about the refund: nothing is unknown, a worker repeats the order, and the result is one
    refund."""
    shop.simulator.fault_injection.add("refuse", place="fps_refund", kind=kind, times=2)
    for _ in range(2):
        ordered = await shop.legacy.create(shop.order())
        assert ordered.refund is None
        assert (ordered.record.state, ordered.record.unknown) == (RequestState.RESERVED, False)
        assert ordered.record.last_error == "amazon_refuses_us"
    await shop.work()
    again = await shop.legacy.create(shop.order())
    assert again.refund is not None
    assert (again.record.state, shop.made()) == (RequestState.DONE, 1)


async def test_a_refusal_of_our_request_after_an_unknown_end_is_not_unclear(shop: Office) -> None:
    shop.simulator.fault_injection.add("lost_answer", place="fps_refund")
    shop.simulator.fault_injection.add("refuse", place="fps_refund", kind="hold", times=2)
    assert (await shop.legacy.create(shop.order())).refund is None
    await shop.work()
    assert (await shop.state(), shop.made()) == (RequestState.DONE, 1)


async def test_a_request_that_is_refused_for_a_week_was_not_sent(shop: Office) -> None:
    """Amazon forgets references, so that it ends; Amazon's last answer is reported."""
    shop.simulator.fault_injection.add("refuse", place="fps_refund", kind="hold", times=None)
    assert (await shop.legacy.create(shop.order())).refund is None
    shop.clock.tick(8 * DAY)
    await one_round(shop.another().worker().rounds)
    with pytest.raises(Conflict, match="on hold") as caught:
        await shop.legacy.create(shop.order())
    assert caught.value.reason == "refund_not_sent"


@pytest.mark.parametrize("seconds", [-2, -3600, 3600])
async def test_the_timestamp_goes_by_the_hosts_clock(shop: Office, seconds: int) -> None:
    """A host two seconds behind takes the first request; one that is an hour off, the second, at once."""
    shop.legacy.amazon_client.timeout = 5.0
    shop.simulator.fault_injection.add("clock", place="fps_refund", seconds=seconds, times=None)
    ordered = await shop.legacy.create(shop.order())
    assert ordered.refund is not None
    assert (shop.made(), shop.sent) == (1, 1 if seconds == -2 else 2)
    assert (await shop.legacy.create(shop.order("R-2"))).refund is not None
    assert shop.sent == (2 if seconds == -2 else 3)


async def test_a_pending_refund_is_asked_about_though_every_second_request_is_refused(shop: Office) -> None:
    shop.simulator.fault_injection.add("refuse", place="fps_refund", kind="hold", every=2, times=None)
    assert (await shop.legacy.create(shop.order())).refund is not None
    shop.clock.tick(DELAY * 1000)
    shop.simulator.tick()
    for _ in range(4):
        await shop.legacy.hint("R-1")
        await shop.look()
        shop.clock.tick(60_000)
    known = await shop.store.of("us").refunds.get("R-1")
    assert known is not None
    assert known.state == "Refunded"
    assert shop.made() == 1

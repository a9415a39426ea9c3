"""Tracking, whatever Amazon answers: a refund stays scheduled, a hint is kept until it has brought something."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.ledger.next_look import DAMAGED_PAUSE, EMPTIED_PAUSE, FollowUp, NextLook
from receiver.ledger.polling import DEFAULT_POLL, FOLLOW_UPS, PollPlan
from receiver.ledger.refund import Source
from receiver.store import Store
from receiver.track.record import Recorder
from receiver.transport.client import Transport
from tests.kit.clock import T0, ManualClock
from tests.kit.processes import until
from tests.service.desk import Answer, Bench, Cut, Held, bench, http, make_tracker, refund
from tests.service.kit import LEASE, at_work, pass_time, trust
from tests.store.makers import claim, hint, refund_id, seen
from tests.store.test_mutations import without

S, M = 1_000, 60_000
DAY = 86_400_000
WEEK = 7 * DAY


@pytest.fixture
async def at(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Bench]:
    """A tracker of "us" without jitter, whose Amazon does what the test says; the store is empty."""
    async with bench(store, redis, clock) as found:
        yield found


UNKNOWN: dict[str, Answer] = {
    "500": http(500, b'{"reasonCode":"InternalServerError","message":"x"}'),
    "502 in HTML": http(502, b"<html>Bad Gateway</html>"),
    "503": http(503),
    "408": http(408),
    "a redirect": http(302, b"", "Location: http://127.0.0.1:9/"),
    "never": Held(),
    "nothing": Cut(),
    "half an answer": Cut(http(200, b'{"refundId": "S01-', length=400)),
    "no HTTP": Cut(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "garbage": http(200, b"\x1f\x8b<html>"),
    "no object": http(200, b"[]"),
    "no state": http(200, b'{"refundId": "S01-5105180-3221187-R000001", "statusDetails": {}}'),
    "another refund": refund(number=2),
    "no end": http(200, b'{"refundId": "' + b"x" * 70_000 + b'"}'),
}
REFUSED: dict[str, Answer] = {
    "400": http(400, b'{"reasonCode":"InvalidRequest","message":"x"}'),
    "401": http(401, b'{"reasonCode":"UnauthorizedAccess","message":"x"}'),
    "403": http(403),
    "409": http(409),
    "404 in HTML": http(404, b"<html>Not Found</html>"),
    "404 of a gateway": http(404, b'{"message":"no Route matched with those values"}'),
    "407": http(407, b"<html>Proxy Authentication Required</html>"),
    "422": http(422, b'{"reasonCode":"InvalidParameterValue","message":"x"}'),
    "426": http(426, b'{"reasonCode":"TLSVersionNotSupported","message":"x"}'),
}


READ = {"charge_read": True}


async def fail(at: Bench, first: int, most: int, random: float) -> None:
    """Eight failures and one answer: every wait within its bounds, and the hint still at its step."""
    for number in range(8):
        await at.look()
        whole = min(first * 2**number, most)
        due = await at.due()
        assert due is not None
        assert whole // 2 <= due < whole
        assert abs(due - whole * (0.5 + random / 2)) <= 1
        assert await at.follow_up() == FollowUp(Source.NOTIFICATION, T0, T0, step=2, failures=number + 1)
        at.clock.tick(due)
    at.desk.then = refund("RefundInitiated")
    at.tracker.amazon_client.timeout = 10.0
    await at.look()
    assert await at.due() == FOLLOW_UPS[2]
    assert await at.follow_up() == FollowUp(Source.NOTIFICATION, T0, T0, step=3, due=at.clock() + FOLLOW_UPS[2])


@pytest.mark.parametrize(
    ("answer", "random"), [*((each, 0.0) for each in (*UNKNOWN, *REFUSED)), ("500", 0.999), ("403", 0.999)]
)
async def test_no_answer_loses_a_refund_or_what_a_hint_has_come_to(
    store: Store, redis: Any, clock: ManualClock, answer: str, random: float
) -> None:
    """The refund stays scheduled, at first within seconds, then further apart, up to ten minutes; the hint continues
    from its step when Amazon works again. A refusal of our request says nothing about the refund."""
    refused = answer in REFUSED
    timeout = 0.05 if answer == "never" else 10.0
    async with bench(store, redis, clock, request_timeout=timeout, random=lambda: random) as at:
        await Recorder(store, lambda: 0.0).record(at.tracker.account, seen(), source=Source.POLL, details=READ)
        await store.of("us").schedule.hint(hint())
        (look,) = (await claim(store)).items
        await store.of(look.account).schedule.reschedule(
            look, NextLook(clock(), FollowUp(Source.NOTIFICATION, T0, T0, step=2))
        )
        at.desk.then = {**UNKNOWN, **REFUSED}[answer]
        await fail(at, 5 * S, 10 * M, random)
        outcome = "amazon_refuses_us" if refused else "amazon_unknown"
        assert at.counted("amazon_requests", call="get_refund", outcome=outcome) == 8
        known = await store.of("us").refunds.get(refund_id())
        assert known is not None
        assert (known.state, known.revision) == ("RefundInitiated", 1)


async def test_a_poll_that_fails_is_no_hint(at: Bench) -> None:
    """Its failures are counted like a hint's; as soon as Amazon answers, the refund is back on its own schedule."""
    await at.redis.zadd("refunds:{us}:due", {refund_id(): T0})
    await Recorder(at.store, lambda: 0.0).record(at.tracker.account, seen(), source=Source.POLL)
    at.desk.answers = [http(500), http(500), refund()]
    waits = []
    for _ in range(2):
        await at.look()
        waits.append(await at.wait())
    assert waits == [2_500, 5_000]
    await at.look()
    assert await at.due() == WEEK - 7_500
    assert await at.follow_up() is None


async def test_amazon_unwell_with_a_retry_after_is_left_in_peace(at: Bench) -> None:
    """The Retry-After of a 503 is followed, up to our own longest wait."""
    await at.store.of("us").schedule.hint(hint())
    at.desk.answers = [http(503, b"", "Retry-After: 120"), http(503, b"", "Retry-After: 86400")]
    for wait in (120 * S, 600 * S):
        await at.look()
        assert await at.wait() == wait


@pytest.mark.parametrize(("headers", "seconds"), [(("Retry-After: 7",), 7), ((), 5), (("Retry-After: soon",), 5)])
async def test_a_429_blocks_the_account_and_keeps_every_refund(
    at: Bench, headers: tuple[str, ...], seconds: int
) -> None:
    """No refund of the account is asked about until the time that Amazon named, or five seconds; hints stay hints."""
    for number in (1, 2):
        await at.store.of("us").schedule.hint(hint(number, message=f"m{number}"))
    at.desk.answers = [http(429, b"", *headers)]
    (look,) = (await claim(at.store, limit=1)).items
    await at.tracker.look(look)
    claimed = await claim(at.store)
    assert (claimed.items, claimed.wait) == ((), seconds * S)
    at.clock.tick(seconds * S - 1)
    assert (await claim(at.store)).items == ()
    at.clock.tick(1)
    looks = (await claim(at.store)).items
    assert {each.refund_id for each in looks} == {refund_id(1), refund_id(2)}
    assert {each.source for each in looks} == {Source.NOTIFICATION}
    assert all(each.follow_up is not None and each.follow_up.step == 0 for each in looks)


async def test_a_refund_that_amazon_does_not_know_is_asked_about_four_times_more(at: Bench) -> None:
    """After 5 s, 30 s, 2 and 10 minutes; then it is dropped without a trace, and counted."""
    await at.store.of("us").schedule.hint(hint())
    waits = []
    for _ in range(4):
        await at.look()
        assert at.counted("hints_dropped") == 0
        waits.append(await at.wait())
    assert waits == [5 * S, 30 * S, 2 * M, 10 * M]
    with capture_logs() as logs:
        await at.look()
    assert await at.due() is None
    assert (at.counted("hints_dropped"), at.counted("refunds_lost")) == (1, 1)
    assert [(line["event"], line["log_level"]) for line in logs] == [("track.hint_dropped", "error")]
    assert not [key async for key in at.redis.scan_iter() if b"seen" not in key and b"throttle" not in key]


SILENT = {"404": http(404), "429": http(429), "401": http(401), "500": http(500), "garbage": http(200, b"<html>")}


@pytest.mark.parametrize("answer", SILENT)
async def test_a_refund_that_amazon_does_not_tell_of_is_stuck_after_a_day(at: Bench, answer: str) -> None:
    """A key that was withdrawn, a refund that Amazon does not know any more: reported once, after a day and not
    before, and the refund is asked about as it would be otherwise."""
    at.desk.then = SILENT[answer]
    await Recorder(at.store, lambda: 0.0).record(at.tracker.account, seen(), source=Source.POLL)
    waits = {}
    for age in (DAY, DAY + M, 2 * DAY):
        at.clock.ms = T0 + age
        await at.redis.zadd("refunds:{us}:due", {refund_id(): at.clock()})
        await at.look()
        waits[age] = await at.due()
        assert at.counted("events", type="amazonpay.refund.stuck") == (age > DAY)
        known = await at.store.of("us").refunds.get(refund_id())
        assert known is not None
        assert (known.state, known.revision) == ("RefundInitiated", 1 + (age > DAY))
    assert None not in waits.values()
    assert waits[DAY] == {"404": WEEK - DAY, "429": 5 * S}.get(answer, 2_500)
    events = await at.redis.xrange("refunds:{us}:events")
    assert [fields[b"type"] for _, fields in events].count(b"amazonpay.refund.stuck") == 1


async def test_a_refund_that_another_account_knows_or_nobody_notified_about_is_not_lost(at: Bench) -> None:
    """If the refund's id does not say to which of a merchant's accounts it belongs, both get the notification."""
    at.store.connection.accounts = ["us", "eu"]
    elsewhere = dataclasses.replace(at.tracker.account, name="eu")
    await Recorder(at.store, lambda: 0.0).record(elsewhere, seen(), source=Source.POLL)
    await at.store.of("us").schedule.hint(hint())
    for _ in FOLLOW_UPS:
        await at.look()
        await at.wait()
    await at.look()
    await at.store.of("us").schedule.hint(hint(2, message="", digest="", source=Source.REFRESH))
    await at.look(2)
    assert (at.counted("hints_dropped"), at.counted("refunds_lost")) == (2, 0)


async def test_the_other_environments_refund_is_one_that_this_account_does_not_know(at: Bench) -> None:
    """A live refund in the sandbox's answers is treated as a 404: never taken in, dropped in the end."""
    at.desk.then = refund(releaseEnvironment="Live")
    await at.store.of("us").schedule.hint(hint())
    for wait in FOLLOW_UPS:
        await at.look()
        assert await at.wait() == wait
    await at.look()
    assert await at.due() is None
    assert await at.store.of("us").refunds.get(refund_id()) is None
    assert at.counted("hints_dropped") == 1


@pytest.mark.parametrize("answer", ["404", "nothing new"])
async def test_a_hint_that_brings_nothing_new_is_asked_again_and_the_schedule_goes_on(at: Bench, answer: str) -> None:
    """A pending refund: it is polled 5 s, 30 s, 2 and 10 minutes after the hint, then by its own schedule, and never
    dropped."""
    await Recorder(at.store, lambda: 0.0).record(at.tracker.account, seen(), source=Source.POLL)
    await at.store.of("us").schedule.hint(hint())
    at.desk.then = http(404) if answer == "404" else refund()
    for wait in FOLLOW_UPS:
        await at.look()
        assert await at.wait() == wait
    await at.look()
    assert await at.due() == WEEK - sum(FOLLOW_UPS)
    assert await at.follow_up() is None
    assert at.counted("hints_dropped") == 0


async def test_a_hint_about_a_final_refund_is_asked_again_and_leaves_nothing(at: Bench) -> None:
    """It is not scheduled before, and not afterwards."""
    at.desk.then = refund("Refunded")
    await at.store.of("us").schedule.hint(hint())
    await at.look()
    assert await at.due() is None
    await at.store.of("us").schedule.hint(hint(message="m2", digest="d2"))
    for wait in FOLLOW_UPS:
        await at.look()
        assert await at.wait() == wait
    await at.look()
    assert await at.due() is None
    assert await at.follow_up() is None


async def test_polls_in_between_do_not_use_a_hint_up(store: Store, redis: Any, clock: ManualClock) -> None:
    """The plan of a pending refund goes on while a hint is open: both ask at their own times."""
    async with bench(store, redis, clock, poll=PollPlan.parse(DEFAULT_POLL)) as at:
        at.desk.then = refund()
        await Recorder(store, lambda: 0.0).record(at.tracker.account, seen(), source=Source.POLL)
        clock.tick(50 * S)
        await store.of("us").schedule.hint(hint())
        ages = []
        for _ in range(8):
            await at.look()
            await at.wait()
            ages.append((clock() - T0) // S)
        echoes = {50 + wait for wait in (5, 5 + 30, 5 + 30 + 120, 5 + 30 + 120 + 600)}
        assert ages == sorted(echoes | {60, 300, 900, 1800})


async def test_a_hint_that_amazon_is_ahead_of_is_settled_at_once(at: Bench) -> None:
    """What is new ends the hint: nothing is asked again but by plan."""
    at.desk.answers = [refund(), http(404), refund("Declined", reason="AmazonRejected", seconds=9)]
    await at.store.of("us").schedule.hint(hint())
    await at.look()
    assert (await at.due(), await at.follow_up()) == (WEEK, None)
    await at.store.of("us").schedule.hint(hint(message="m2", digest="d2"))
    await at.look()
    assert await at.wait() == 5 * S
    await at.look()
    assert (await at.due(), await at.follow_up()) == (None, None)
    found = {"state": "Declined", "reason": "AmazonRejected", "found_by": "notification"}
    assert at.counted("refunds_final", **found) == 1


async def test_a_hint_that_comes_while_amazon_is_asked_is_asked_about_too(at: Bench) -> None:
    """The second answer is newer than the first, and comes before it; the late, older one changes nothing."""
    go = asyncio.Event()
    at.desk.answers = [Held(refund(), go), refund("Declined", reason="AmazonRejected", seconds=9)]
    async with at_work(at.tracker.run):
        await at.store.of("us").schedule.hint(hint())
        await until(lambda: len(at.desk.asked) == 1, "Amazon is asked")
        await at.store.of("us").schedule.hint(hint(message="m2", digest="d2"))
        await until(
            lambda: at.counted("refunds_final", state="Declined", reason="AmazonRejected", found_by="notification"),
            "it is declined",
        )
        go.set()
        await until(lambda: at.counted("amazon_requests", call="get_refund", outcome="ok") == 2, "both are answered")
        await until(lambda: not at.tracker.rounds.under_way, "both are settled")
    assert at.desk.asked == [refund_id()] * 2
    known = await at.store.of("us").refunds.get(refund_id())
    assert known is not None
    assert (known.state, known.revision) == ("Declined", 1)
    assert await at.redis.exists("refunds:{us}:due", "refunds:{us}:hinted", "refunds:{us}:hints") == 0


async def test_a_worker_that_dies_while_it_asks_leaves_the_refund_to_the_next(
    at: Bench, store: Store, clock: ManualClock
) -> None:
    """Cancelled in the middle of a request, it ends at once, closes its connection and writes nothing. When its lease
    has expired, another one polls, with the same hint."""
    at.desk.answers = [Held(), refund("Declined", reason="ProcessingFailure")]
    await store.of("us").schedule.hint(hint())
    before = asyncio.all_tasks()
    async with at_work(at.tracker.run) as work:
        await until(lambda: at.desk.asked, "Amazon is asked")
        assert await at.due() == LEASE
        work.cancel()
        await asyncio.wait({work}, timeout=5)
        assert work.cancelled()
    assert not at.tracker.rounds.under_way
    await until(lambda: asyncio.all_tasks() - before <= at.desk.server.tasks, "no task is left")
    assert await at.due() == LEASE

    transport = Transport(tls=trust())
    second = make_tracker(at.tracker.account, store, transport, at.metrics)
    async with at_work(second.run):
        pass_time(store, clock, LEASE - 1)
        await until(lambda: second.rounds._signal is not None, "it works")
        assert len(at.desk.asked) == 1
        pass_time(store, clock, 1)
        await until(
            lambda: at.counted("refunds_final", state="Declined", reason="ProcessingFailure", found_by="notification"),
            "it is declined",
        )
    await transport.close()
    assert len(at.desk.asked) == 2


async def test_a_worker_slower_than_its_lease_changes_no_schedule(at: Bench, store: Store, clock: ManualClock) -> None:
    """Both answers are recorded, but only the current holder of the claim sets the next poll."""
    await store.of("us").schedule.hint(hint())
    (slow,) = (await claim(store)).items
    clock.tick(LEASE)
    (quick,) = (await claim(store)).items
    at.desk.then = refund()
    await at.tracker.look(slow)
    assert await at.due() == LEASE
    await at.tracker.look(quick)
    assert await at.due() == FOLLOW_UPS[0]
    known = await store.of("us").refunds.get(refund_id())
    assert known is not None
    assert known.revision == 1


async def test_no_two_claims_share_a_token(at: Bench, store: Store) -> None:
    """Not in one millisecond either, with hints that overtake, looks that settle in between, and a clock that differs:
    else a late worker would take the claim of another for its own."""
    at.desk.then = refund()
    tokens = []
    for number, skew in enumerate((0, 0, 0, 3, -3, 0, 0)):
        await store.of("us").schedule.hint(hint(message=f"m{number}", digest=f"d{number}"))
        at.clock.ms = T0 + skew
        (look,) = (await claim(store)).items
        tokens.append(look.token)
        if number % 2:
            await at.tracker.look(look)
    assert len(set(tokens)) == len(tokens)
    assert all(T0 + LEASE - 3 <= token <= T0 + LEASE + 10 for token in tokens)


async def given_up_meanwhile(at: Bench, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker has read that the refund is unknown, and is about to drop the last hint; another, slower than its
    lease, takes the refund in just then. It is pending, so it must be looked at again."""
    await store.of("us").schedule.hint(hint())
    for _ in range(4):
        await at.look()
        await at.wait()
    (slow,) = (await claim(store)).items
    at.clock.tick(LEASE)
    (last,) = (await claim(store)).items
    read = store.of("us").refunds.get

    async def then_another_writes(number: str) -> Any:
        found = await read(number)
        monkeypatch.setattr(store.of("us").refunds, "get", read)
        recorder = Recorder(store, lambda: 0.0)
        await recorder.record(at.tracker.account, seen(), source=Source.NOTIFICATION, token=slow.token)
        return found

    monkeypatch.setattr(store.of("us").refunds, "get", then_another_writes)
    await at.tracker.look(last)
    assert await at.due() == LEASE
    assert at.counted("hints_dropped") == 0


async def followed_late(at: Bench, store: Store) -> None:
    """The hint was dropped while a slow worker still asked; its answer takes the refund in, and schedules it."""
    await store.of("us").schedule.hint(hint())
    for _ in range(4):
        await at.look()
        await at.wait()
    (slow,) = (await claim(store)).items
    at.clock.tick(LEASE)
    await at.look()
    assert await at.due() is None
    at.desk.then = refund()
    await at.tracker.look(slow)
    assert await at.due() == WEEK - (at.clock() - T0)


async def test_no_pending_refund_is_left_without_a_look(
    at: Bench, store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of two workers, one of them slower than its lease, writes last."""
    await given_up_meanwhile(at, store, monkeypatch)
    await redis.flushall()
    at.desk.then = http(404)
    await followed_late(at, store)


async def test_without_the_revision_a_refund_just_taken_in_is_left_alone(
    at: Bench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first story, with the guard taken out of the script."""
    without(monkeypatch, "reschedule", "ARGV[5] ~= '' and", "false and")
    with pytest.raises(AssertionError):
        await given_up_meanwhile(at, store, monkeypatch)


async def test_without_a_look_for_whom_nobody_holds_a_late_answer_is_left_alone(
    at: Bench, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second story, with the last branch taken out of the commit."""
    without(monkeypatch, "commit", "elseif ARGV[3] ~= '' then", "elseif false then")
    with pytest.raises(AssertionError):
        await followed_late(at, store)


async def test_what_nobody_foresaw_costs_one_look_and_is_told(at: Bench, redis: Any) -> None:
    """A damaged refund in Redis: the log names it, the worker goes on with the others, and it stays scheduled."""
    await redis.hset("refunds:{us}:refund:" + refund_id(1), "revision", "many")
    for number in (1, 2):
        await at.store.of("us").schedule.hint(hint(number, message=f"m{number}"))
    at.desk.answers = [refund("Refunded", number=1), refund("Refunded", number=2)]
    at.tracker.rounds.concurrency = 1
    with capture_logs() as logs:
        async with at_work(at.tracker.run):
            await until(
                lambda: at.counted("refunds_final", state="Refunded", reason="", found_by="notification"),
                "the other one",
            )
    assert [(line["event"], line["log_level"]) for line in logs if line["log_level"] == "error"] == [
        ("store.record_unreadable", "error"),
        ("track.damaged", "error"),
    ]
    assert await at.due(1) == DAMAGED_PAUSE


async def test_after_the_store_was_emptied_the_question_comes_again_soon(at: Bench, redis: Any) -> None:
    """Before the configured subscribers are back, an event would be owed to no subscriber. The refund is asked about
    again before its lease ends."""
    at.tracker.recorder = dataclasses.replace(at.tracker.recorder, declared=True)
    await redis.delete("refunds:{us}:subscribers")
    await at.store.of("us").schedule.hint(hint())
    at.desk.answers = [refund("Refunded", number=1)]
    (due,) = (await at.tracker._claim(1)).items
    await at.tracker._work(due)
    assert await at.due(1) == EMPTIED_PAUSE
    assert await at.store.of("us").refunds.get(refund_id(1)) is None


async def test_a_damaged_hint_harms_no_other(at: Bench, redis: Any) -> None:
    """It is asked about like any other, and only its past is forgotten."""
    for number in (1, 2):
        await at.store.of("us").schedule.hint(hint(number, message=f"m{number}"))
    await redis.hset("refunds:{us}:hints", refund_id(1), b"\xff[")
    async with at_work(at.tracker.run):
        await until(lambda: len(at.desk.asked) == 2, "both are asked about")
        await until(lambda: not at.tracker.rounds.under_way, "both are settled")
    assert await at.due(1) == await at.due(2) == FOLLOW_UPS[0]


async def test_the_trail_says_what_amazon_said(at: Bench) -> None:
    """Of every look that brought no change: what made us look, and how it ended. Each look is one line in the log.

    The first two brought revisions.
    """
    at.desk.answers = [refund(), refund(), refund(), http(500), http(401), http(404), http(429)]
    await at.store.of("us").schedule.hint(hint())
    await at.look()
    with capture_logs() as lines:
        for _ in range(6):
            await at.wait()
            await at.look()
    assert [line["event"] for line in lines] == [
        "refund.changed",
        "refund.unchanged",
        "track.amazon_failed",
        "track.amazon_failed",
        "track.known_refund_not_found",
        "track.throttled",
    ]
    trail = [(trace.what, trace.who, trace.outcome) for trace in await at.store.of("us").timelines.read(refund_id())]
    assert trail == [
        ("notification", "", ""),
        ("look", "poll", "unchanged"),
        ("look", "poll", "amazon_unknown"),
        ("look", "poll", "amazon_refuses_us"),
        ("look", "poll", "amazon_not_found"),
        ("look", "poll", "amazon_throttled"),
    ]

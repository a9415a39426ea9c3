"""Disputes, from the notification to the answer of the simulated Amazon: refunds are refused, each reminder is sent
once, and a refused call of Get Dispute changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from receiver.amazon.account import Account
from receiver.amazon.calls import Endpoint, Region
from receiver.amazon.signing import Signer
from receiver.amazon.throttle import LIVE_THROTTLE, Bucket, Call
from receiver.errors import StoreUnavailable
from receiver.ledger.age import DAY
from receiver.ledger.dispute import Dispute, permission_of, signed
from receiver.ledger.next_look import after_dispute
from receiver.ledger.notification import Hint
from receiver.ledger.refund import Source
from receiver.outbox.events.dispute_event import DisputeEventType, read_dispute_event
from receiver.runtime.metrics import Metrics
from receiver.simulator.app import Simulator
from receiver.store import Store
from receiver.store.refunds.disputes import Finished, to_value
from receiver.track.amazon_client import AmazonClient
from receiver.track.disputes import DisputeTracker
from receiver.track.record import Recorder
from receiver.track.tracker import Tracker
from receiver.transport.client import Transport
from tests.issue.kit import Killed, dying
from tests.kit.accounts import make_account
from tests.kit.clock import ManualClock
from tests.kit.shared import keys
from tests.outbox.tellers import teller
from tests.service.kit import one_round
from tests.store.test_mutations import fails, without

M, H = 60_000, 3_600_000
FAST = dict.fromkeys(LIVE_THROTTLE, Bucket(1000, 1000))
DUE, EVENTS = "refunds:{us}:disputes_due", "refunds:{us}:events"


@dataclass
class Court:
    """A tracker of disputes, Amazon's stand-in, and a charge."""

    amazon: Simulator
    store: Store
    redis: Any
    clock: ManualClock
    account: Account
    metrics: Metrics
    charge: str
    transport: Transport
    numbers: int = 0

    def tracker(self, **more: Any) -> DisputeTracker:
        """One as every process has it; each call is another process."""
        client = AmazonClient(
            self.account, self.store.of("us"), self.transport.send, self.metrics, self.clock, timeout=1.0
        )
        return DisputeTracker(client, Recorder(self.store, lambda: 0.0, **more), self.metrics)

    def filed(self, **more: Any) -> str:
        """A buyer files a dispute."""
        return self.amazon.disputes.open(self.charge, **more).dispute_id

    async def tell(self, dispute_id: str, **more: Any) -> None:
        """Amazon notifies of it."""
        self.numbers += 1
        told = Dispute(dispute_id=dispute_id, charge_permission_id=permission_of(dispute_id), **more)
        message = f"m{self.numbers}"
        told = signed(told, message, self.clock())
        await self.store.of("us").disputes.record(told, message_id=message, digest="d")

    async def look(self) -> None:
        """Run one round of a worker, and wait for what it started."""
        await one_round(self.tracker().rounds)

    async def dispute(self) -> Dispute:
        (found,) = await self.store.of("us").disputes.of_permission(permission_of(self.charge))
        return found

    async def due(self) -> int | None:
        """In how many ms Amazon is asked again; None: never."""
        found = await self.redis.zrange(DUE, 0, -1, withscores=True)
        return int(found[0][1]) - self.clock() if found else None

    async def told(self) -> list[tuple[str, int]]:
        """Reminder and deadline of each event."""
        entries = [
            {name.decode(): value.decode() for name, value in fields.items()}
            for _, fields in await self.redis.xrange(EVENTS)
        ]
        found = [read_dispute_event("us", fields) for fields in entries]
        assert len({event.id for event in found}) == len(found)
        return [(event.reminder.value, event.dispute.deadline) for event in found]

    def asked(self) -> list[int]:
        """The statuses of all calls of Get Dispute."""
        return [call.status for call in self.amazon.calls if call.call == "get_dispute"]


@asynccontextmanager
async def court(store: Store, redis: Any, clock: ManualClock, **more: Any) -> AsyncIterator[Court]:
    async with Simulator(keys=keys(), throttle={}, now=clock) as amazon:
        account = make_account(
            endpoint=Endpoint(Region.NA, "sandbox", amazon.public_key_id, amazon.base_url),
            signer=Signer(amazon.public_key_id, amazon.merchant_private_key_pem),
            **{"throttle": FAST, **more},
        )
        await store.of("us").subscribers.add(teller("slack"))
        charge, transport = amazon.open_charge("100.00", "USD"), Transport()
        try:
            yield Court(amazon, store, redis, clock, account, Metrics(), charge, transport)
        finally:
            await transport.close()


@pytest.fixture
async def at(store: Store, redis: Any, clock: ManualClock) -> AsyncIterator[Court]:
    async with court(store, redis, clock) as found:
        yield found


async def test_a_notified_dispute_is_asked_about_and_known(at: Court) -> None:
    """At once, then at the ages of its notification; its end takes the guard."""
    dispute_id = at.filed(state="UnderReview", answer_within=None)
    await at.tell(dispute_id)
    assert (await at.dispute()).state == ""
    await at.look()
    found = await at.dispute()
    assert (found.state, found.charge_id, str(found.amount), found.reason) == (
        "UnderReview", at.charge, "100.00 USD", "Fraudulent"
    )  # fmt: skip
    assert found.guards
    waits = []
    for _ in range(6):
        wait = await at.due()
        assert wait is not None
        waits.append(wait)
        at.clock.tick(wait)
        await at.look()
    assert waits == [5_000, 25_000, 90_000, 480_000, 50 * M, 5 * H]
    at.amazon.disputes.move(dispute_id, "Resolved", "MerchantWon")
    at.clock.tick(await at.due() or 0)
    await at.look()
    found = await at.dispute()
    assert (found.state, found.resolution, found.guards) == ("Resolved", "MerchantWon", False)
    assert [(each.state, each.resolution) for each in found.changes] == [
        ("UnderReview", ""), ("Resolved", "MerchantWon")
    ]  # fmt: skip
    assert await at.due() is None
    assert await at.told() == []
    assert set(at.asked()) == {200}


async def test_a_deadline_is_told_when_it_is_known_and_a_day_before_it(at: Court) -> None:
    """Each once, to the subscribers that want it, in the step that writes the state; a new deadline is reported
    again."""
    dispute_id = at.filed()
    deadline = at.clock() // 1000 * 1000 + 11 * DAY
    await at.tell(dispute_id)
    for _ in range(3):
        await at.look()
        at.clock.tick(await at.due() or 0)
    assert await at.told() == [("known", deadline)]
    owed = await at.redis.zrange("refunds:{us}:lane:chat", 0, -1)
    assert owed == [(await at.redis.xrange(EVENTS))[0][0]]
    assert await at.redis.zscore("refunds:{us}:disputes_to_answer", f"{permission_of(at.charge)} {dispute_id}")
    for _ in range(100):
        at.clock.tick(await at.due() or 0)
        await at.look()
        if at.clock() > deadline - DAY + H:
            break
    assert await at.told() == [("known", deadline), ("day_before", deadline)]
    at.amazon.disputes.move(dispute_id, "ActionRequired", answer_within=86_400 * 7)
    await at.tell(dispute_id)
    await at.look()
    assert [reminder for reminder, _ in await at.told()] == ["known", "day_before", "known"]
    at.amazon.disputes.move(dispute_id, "UnderReview")
    await at.tell(dispute_id)
    await at.look()
    assert await at.redis.zcard("refunds:{us}:disputes_to_answer") == 0
    sample = at.metrics.registry.get_sample_value
    assert sample("receiver_events_total", {"type": DisputeEventType.ACTION_REQUIRED.value}) == 3


REFUSALS: list[tuple[str, str, str]] = [
    ("refuse", "access", "amazon_refuses_us"),
    ("refuse", "hold", "amazon_refuses_us"),
    ("refuse", "page", "amazon_refuses_us"),
    ("refuse", "proxy", "amazon_refuses_us"),
    ("refuse", "value", "amazon_refuses_us"),
    ("refuse", "charge", "amazon_refused"),
]


@pytest.mark.parametrize(("trick", "kind", "reason"), REFUSALS, ids=[kind for _, kind, _ in REFUSALS])
async def test_without_the_right_the_notification_alone_counts(at: Court, trick: str, kind: str, reason: str) -> None:
    """As an open dispute with an unknown end; Amazon is asked ever less, and no more after a month. Once the key has
    the right, the next notification brings the end."""
    dispute_id = at.filed()
    at.amazon.fault_injection.add(trick, kind=kind, place="get_dispute", times=None)
    await at.tell(dispute_id)
    waits = []
    for _ in range(40):
        await at.look()
        found = await at.dispute()
        assert (found.state, found.failure, found.guards) == ("", reason, True)
        if (wait := await at.due()) is None:
            break
        waits.append(wait)
        at.clock.tick(wait)
    assert waits[:4] == [30_000, 570_000, 50 * M, 23 * H]
    assert len(waits) == 33
    assert await at.told() == []
    at.amazon.fault_injection.clear()
    at.amazon.disputes.move(dispute_id, "Closed", "MerchantWon")
    await at.tell(dispute_id)
    await at.look()
    found = await at.dispute()
    assert (found.guards, found.failure) == (False, "")


async def test_a_dispute_that_amazon_does_not_know_stays_open(at: Court) -> None:
    """404 is an answer to our question, not to the dispute."""
    await at.tell(f"{permission_of(at.charge)}-B999999")
    await at.look()
    found = await at.dispute()
    assert (found.failure, found.guards, at.asked()) == ("amazon_not_found", True, [404])
    assert await at.due() == 30_000


@pytest.mark.parametrize("trick", ["garbage", "half", "error", "lost_answer", "wrong_refund"])
async def test_a_bad_answer_changes_nothing(at: Court, trick: str) -> None:
    """Amazon is asked again within seconds, further and further apart, and the good answer counts."""
    dispute_id = at.filed(state="UnderReview", answer_within=None)
    at.amazon.fault_injection.add(trick, place="get_dispute", times=3)
    await at.tell(dispute_id)
    for wait in (2_500, 5_000, 10_000):
        await at.look()
        assert (await at.dispute()).state == ""
        assert await at.due() == wait
        at.clock.tick(wait)
    await at.look()
    found = await at.dispute()
    assert (found.state, found.failures, found.failure) == ("UnderReview", 0, "")


async def test_an_outage_does_not_hold_back_the_second_reminder(at: Court) -> None:
    """It is sent from what is known; so it is where the right was taken from the key meanwhile."""
    dispute_id = at.filed(answer_within=2 * 86_400)
    await at.tell(dispute_id)
    await at.look()
    at.amazon.fault_injection.add("error", place="get_dispute", times=None)
    at.clock.tick(86_400_000)
    await at.look()
    assert [reminder for reminder, _ in await at.told()] == ["known", "day_before"]
    for _ in range(5):
        at.clock.tick(await at.due() or 0)
        await at.look()
    assert len(await at.told()) == 2


async def test_a_429_holds_back_all_questions_about_disputes(at: Court) -> None:
    """As long as Amazon wants; refunds and charges have their own."""
    at.amazon.fault_injection.add("throttle", place="get_dispute", seconds=120)
    await at.tell(at.filed())
    await at.look()
    assert await at.due() == 120_000
    await at.tell(at.filed())
    await at.look()
    assert at.asked() == [429]
    assert await at.store.of("us").requests.take_token(Call.GET_CHARGE, 20, 4) == 0
    at.clock.tick(120_000)
    await at.look()
    assert at.asked() == [429, 200, 200]


async def test_no_more_is_asked_than_the_throttle_allows(store: Store, redis: Any, clock: ManualClock) -> None:
    """By all processes together: a burst, then so many a second."""
    slow = {**FAST, Call.GET_DISPUTE: Bucket(5, 2)}
    async with court(store, redis, clock, throttle=slow) as at:
        for _ in range(20):
            await at.tell(at.filed(state="UnderReview", answer_within=None))
        trackers = [at.tracker() for _ in range(3)]
        asked = []
        for _ in range(4):
            await asyncio.gather(*(one_round(tracker.rounds) for tracker in trackers))
            asked.append(len(at.asked()))
            clock.tick(1_000)
        assert asked == [5, 7, 9, 11]


async def test_many_processes_ask_once(at: Court) -> None:
    """A claim is one process's, and its reminder is one event."""
    await at.tell(at.filed())
    await asyncio.gather(*(one_round(at.tracker().rounds) for _ in range(8)))
    assert at.asked() == [200]
    assert len(await at.told()) == 1


@pytest.mark.parametrize("after", range(26))
async def test_killed_at_any_point_the_state_and_its_reminder_are_written_together(at: Court, after: int) -> None:
    """Both or neither; the lease runs out, another process goes on, and there is one event in the end."""
    dispute_id = at.filed()
    await at.tell(dispute_id)
    tracker = at.tracker()
    claimed = await tracker.store.disputes.claim(at.account.throttle[Call.GET_DISPUTE], lease=30_000, limit=1)
    with contextlib.suppress(Killed):
        await dying(tracker.look(claimed.items[0]), after)
    state, told = (await at.dispute()).state, await at.told()
    assert (state, len(told)) in {("", 0), ("ActionRequired", 1)}
    at.clock.tick(31_000)
    await at.look()
    assert ((await at.dispute()).state, len(await at.told())) == ("ActionRequired", 1)


async def test_a_notification_during_a_question_is_asked_about_anew(at: Court) -> None:
    """The answer is older than the notification: it is not written, and the next claim asks again."""
    dispute_id = at.filed(state="UnderReview", answer_within=None)
    await at.tell(dispute_id)
    tracker = at.tracker()
    (due,) = (await tracker._claim(1)).items
    before = await tracker.ask(due.dispute_id)
    at.amazon.disputes.move(dispute_id, "ActionRequired", answer_within=86_400 * 5)
    at.clock.tick(10)
    await at.tell(dispute_id)
    await tracker._record(due, before)
    assert (await at.dispute()).state == ""
    await at.look()
    assert ((await at.dispute()).state, len(await at.told())) == ("ActionRequired", 1)


async def test_subscribers_that_change_meanwhile_get_the_event(at: Court) -> None:
    """The reminder is owed to those who are there when it is written."""
    await at.tell(at.filed())
    store, late = at.store.of("us"), msgspec.structs.replace(teller("slack"), name="late")
    tracker = at.tracker()
    (due,) = (await tracker._claim(1)).items
    result = await tracker.ask(due.dispute_id)
    finish = store.disputes.finish

    async def changed(*args: Any) -> Any:
        store.disputes.finish = finish  # type: ignore[method-assign]
        await store.subscribers.add(late)
        return await finish(*args)

    store.disputes.finish = changed  # type: ignore[assignment, method-assign]
    await tracker._record(due, result)
    assert len(await at.told()) == 1
    assert await at.redis.zcard("refunds:{us}:lane:late") == 1


async def test_no_reminder_is_written_while_the_subscribers_are_gone(at: Court) -> None:
    """An emptied store: it would be owed to no one. The claim comes round again."""
    await at.tell(at.filed())
    await at.redis.delete("refunds:{us}:subscribers")
    tracker = at.tracker(declared=True)
    (due,) = (await tracker._claim(1)).items
    with pytest.raises(StoreUnavailable):
        await tracker.look(due)
    assert await at.told() == []
    await at.store.of("us").subscribers.add(teller("slack"))
    at.clock.tick(31_000)
    await at.look()
    assert len(await at.told()) == 1


async def test_a_damaged_record_is_repaired_by_an_answer_and_kept_without_one(at: Court) -> None:
    """It may be one of a later version."""
    dispute_id = at.filed(state="UnderReview", answer_within=None)
    key = f"refunds:{{us}}:disputes:{permission_of(at.charge)}"
    await at.tell(dispute_id)
    await at.redis.hset(key, dispute_id, b"over - {odd")
    at.amazon.fault_injection.add("error", place="get_dispute", times=1)
    await at.look()
    assert await at.redis.hget(key, dispute_id) == b"over - {odd"
    at.clock.tick(await at.due() or 0)
    await at.look()
    found = await at.dispute()
    assert (found.state, found.charge_id) == ("UnderReview", at.charge)
    await at.redis.hdel(key, dispute_id)
    at.clock.tick(30 * DAY)
    await at.look()
    assert await at.due() is None


async def test_what_no_one_can_ask_about_is_not_asked(at: Court) -> None:
    """A dispute without an id, and a member of the schedule that is none."""
    permission = permission_of(at.charge)
    told = signed(Dispute(dispute_id="", charge_permission_id=permission), "m", at.clock())
    await at.store.of("us").disputes.record(told, message_id="m", digest="d")
    odd = signed(Dispute(dispute_id="a/../b", charge_permission_id=permission), "n", at.clock())
    await at.store.of("us").disputes.record(odd, message_id="n", digest="d")
    assert await at.redis.zcard(DUE) == 0
    await at.redis.zadd(DUE, {"odd": at.clock(), f"{permission} ../x": at.clock()})
    await at.look()
    assert await at.redis.zcard(DUE) == 0
    assert await at.redis.hlen("refunds:{us}:aside:disputes_due") == 2
    assert at.asked() == []


async def test_the_log_names_the_dispute_and_warns_once_of_a_missing_right(at: Court) -> None:
    """Every question of every dispute is refused then."""
    dispute_id = at.filed()
    at.amazon.fault_injection.add("refuse", kind="access", place="get_dispute", times=None)
    await at.tell(dispute_id)
    with capture_logs() as lines:
        for _ in range(3):
            await at.look()
            at.clock.tick(await at.due() or 0)
    found = [line for line in lines if line["event"] == "dispute.not_read"]
    assert [line["log_level"] for line in found] == ["warning", "info", "info"]
    assert {line["reason_code"] for line in found} == {"UnauthorizedAccess"}


async def test_a_refresh_of_a_refund_asks_about_the_disputes_of_its_charge(at: Court) -> None:
    """Also about those that an older version only wrote down; at most once a minute."""
    await at.tell(at.filed(state="UnderReview", answer_within=None))
    await at.redis.delete(DUE)
    refund_id = at.amazon.start_refund("12.00", "USD", "Pending", at.charge)
    tracker = Tracker(at.tracker().amazon_client, Recorder(at.store, lambda: 0.0), at.metrics, lambda: 0.0)
    asked = []
    asked_lately = f"refunds:{{us}}:disputes_asked:{permission_of(at.charge)}"
    for is_over in (False, False, True):
        at.clock.tick(1_000)
        await at.redis.delete(DUE)
        if is_over:
            assert 0 < await at.redis.pttl(asked_lately) <= 60_000
            await at.redis.delete(asked_lately)
        hint = Hint(refund_id=refund_id, at=at.clock(), source=Source.REFRESH)
        await at.store.of("us").schedule.hint(hint)
        await one_round(tracker.rounds)
        await at.look()
        asked.append(len(at.asked()))
    assert asked == [1, 1, 2]


PROTECTIONS: dict[str, tuple[str, str, Callable[[Court], Awaitable[None]]]] = {
    "the claim's token": (
        "not holds_claim(KEYS[1], ARGV[1], ARGV[2])",
        "false",
        test_a_notification_during_a_question_is_asked_about_anew,
    ),
    "the subscribers' version": (
        "ARGV[8] ~= '' and (redis.call('HGET', KEYS[4], ':version') or '0') ~= ARGV[8]",
        "false",
        test_subscribers_that_change_meanwhile_get_the_event,
    ),
    "the reminder in the same step": (
        "redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])",
        "return 'ok'",
        test_a_deadline_is_told_when_it_is_known_and_a_day_before_it,
    ),
}


@pytest.mark.parametrize("name", PROTECTIONS)
async def test_without_its_protections_the_script_fails(at: Court, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each is taken out here."""
    protection, instead, test = PROTECTIONS[name]
    without(monkeypatch, "finish_dispute", protection, instead)
    await fails(lambda: test(at))


async def test_a_record_that_changes_between_reading_and_writing_is_read_again(
    at: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written meanwhile stays. Without the comparison it would be lost."""
    dispute_id = at.filed(state="UnderReview", answer_within=None)
    await at.tell(dispute_id)
    tracker, store = at.tracker(), at.store.of("us")
    (due,) = (await tracker._claim(1)).items
    result = await tracker.ask(due.dispute_id)
    stored = await store.disputes.stored(due)
    assert stored is not None
    changed = msgspec.structs.replace(stored.dispute, told_state="RECEIVED")
    key = f"refunds:{{us}}:disputes:{permission_of(at.charge)}"
    await at.redis.hset(key, dispute_id, to_value(changed))
    look = after_dispute(stored.dispute, result, at.clock(), 0.0)
    assert await store.disputes.finish(due, stored, look, None, 0) is Finished.RECORD
    await tracker._record(due, result)
    found = await at.dispute()
    assert (found.state, found.told_state) == ("UnderReview", "RECEIVED")


async def test_a_notification_of_an_ended_dispute_guards_until_amazon_is_asked(at: Court) -> None:
    """It may have been opened again. Where Amazon does not answer, it guards on."""
    dispute_id = at.filed(state="UnderReview", answer_within=None)
    at.amazon.disputes.move(dispute_id, "Resolved", "MerchantWon")
    await at.tell(dispute_id)
    at.clock.tick(10)
    await at.look()
    key = f"refunds:{{us}}:disputes:{permission_of(at.charge)}"
    assert not (await at.dispute()).guards
    assert (await at.redis.hget(key, dispute_id)).startswith(b"over ")
    at.amazon.fault_injection.add("refuse", kind="access", place="get_dispute", times=1)
    at.clock.tick(DAY)
    await at.tell(dispute_id)
    assert (await at.redis.hget(key, dispute_id)).startswith(b"open ")
    at.clock.tick(10)
    await at.look()
    found = await at.dispute()
    assert (found.state, found.failure, found.guards) == ("Resolved", "amazon_refuses_us", True)
    at.clock.tick(await at.due() or 0)
    await at.look()
    assert not (await at.dispute()).guards
    assert (await at.redis.hget(key, dispute_id)).startswith(b"over ")

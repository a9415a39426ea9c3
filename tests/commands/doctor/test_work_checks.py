"""What is written in a real Valkey, as the doctor reads it: lanes that are behind, refunds that are stuck."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from receiver.amazon.account import Account, DailyReconciliation
from receiver.commands.doctor.backlog import check_work
from receiver.commands.doctor.finding import Finding, Status
from receiver.commands.doctor.reconcile import check_reconciliation
from receiver.errors import StoreUnavailable
from receiver.ledger.notification import UNASSIGNED, UnrecognizedNotification
from receiver.ledger.reconciliation.report_run import RunResult
from receiver.ledger.refund import Source
from receiver.outbox.dead_letter import DeadEvent
from receiver.outbox.subscribers.subscriber import pause
from receiver.store import Store
from receiver.track.record import Recorder
from tests.commands.doctor.kit import only, site, words
from tests.kit.accounts import make_account
from tests.kit.clock import T0, ManualClock
from tests.store.makers import hint, refund_id, seen, subscriber


async def look(store: Store) -> list[Finding]:
    return await check_work(site(), store)


async def owe(store: Store, account: Account, count: int) -> None:
    recorder = Recorder(store, lambda: 0.0)
    for number in range(count):
        await recorder.record(account, seen("Declined", number, "AmazonRejected"), source=Source.POLL)


async def test_nothing_yet(store: Store) -> None:
    """An account that no service has written to."""
    assert words(await look(store)) == {"subscribers.lane": "not_written_yet"}


async def test_nobody_is_told(store: Store) -> None:
    """The service runs, and has no subscriber."""
    await store.of("us").subscribers.open()
    found = only(await look(store), "subscribers.lane")
    assert (found.status, found.reason) == (Status.WARN, "no_subscribers")
    assert "receiver subscriber add" in found.fix


async def test_a_subscriber_that_gets_its_events(store: Store, account: Account) -> None:
    """Some waiting is no fault."""
    await store.of("us").subscribers.put(subscriber("audit"))
    await owe(store, account, 2)
    found = await look(store)
    assert words(found) == {}
    assert only(found, "subscribers.lane").found.startswith("audit: 2 events waiting")


async def test_one_that_the_settings_no_longer_name_is_shown_until_it_is_removed(store: Store) -> None:
    """A subscriber that was added through the API is not shown."""
    subscribers, url = store.of("us").subscribers, "https://audit.example/"
    await subscribers.put(subscriber("other", url=url, origin="api"))
    await subscribers.put(subscriber("audit", url=url, origin="api", undeclared_at=T0))
    found = only(await look(store), "subscribers.declared")
    assert (found.status, found.reason, found.subject) == (Status.WARN, "no_longer_declared", "us/audit")
    assert "receiver subscriber remove audit" in found.fix
    await subscribers.remove("audit")
    assert words(await look(store)) == {}


async def test_the_daily_comparison_with_amazons_reports(store: Store, clock: ManualClock) -> None:
    """No finding while it is not configured; then a late one, a failed one with reason and fix, and a complete one."""
    runs, daily = store.of("us").report_runs, DailyReconciliation(240, "UTC", 7 * 86_400_000)
    account = make_account(daily=daily)

    async def found() -> list[tuple[Status, str]]:
        return [(each.status, each.reason) for each in await check_reconciliation(store.of("us"), account)]

    assert await check_reconciliation(store.of("us"), make_account()) == []
    assert await found() == [(Status.WARN, "late")]
    await runs.finish(RunResult(at=clock(), reason="amazon_refuses_us", detail="No right."))
    [failed] = await check_reconciliation(store.of("us"), make_account())
    assert (failed.status, failed.reason) == (Status.WARN, "amazon_refuses_us")
    assert "Reports API" in failed.fix
    await runs.finish(RunResult(at=clock()))
    assert await found() == [(Status.OK, "")]
    clock.tick(3 * 86_400_000)
    assert await found() == [(Status.WARN, "late")]


async def test_one_that_was_added_with_plain_http(store: Store) -> None:
    """What the settings declare is judged with the settings."""
    await store.of("us").subscribers.put(subscriber("audit", origin="api"))
    assert words(await look(store)) == {"subscribers.url": "plain_http"}


async def test_dead_events_tell_their_last_reason(store: Store, account: Account) -> None:
    """And which refund the subscriber does not know of."""
    await store.of("us").subscribers.put(subscriber("audit"))
    await owe(store, account, 2)
    for delivery in (await store.of("us").deliveries.claim("audit", lease=30_000, limit=8)).items:
        entry = DeadEvent(delivery.stream_id, "e", "t", refund_id(1), "exhausted", T0, 12, "HTTP 500")
        assert await store.of(delivery.account).deliveries.dead(delivery, entry)
    found = only(await look(store), "subscribers.dead")
    assert (found.status, found.reason, found.subject) == (Status.WARN, "dead_events", "us/audit")
    assert f"2 events failed permanently, the last of refund {refund_id(1)} (exhausted: HTTP 500)" in found.found


async def test_a_paused_one_and_one_that_is_behind(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused one says why; the bound of the other is shortened here."""
    monkeypatch.setattr("receiver.commands.doctor.backlog.MANY_WAITING", 3)
    await store.of("us").subscribers.put(subscriber("audit"))
    await store.of("us").subscribers.put(pause(subscriber("finance"), "gone", T0))
    await owe(store, account, 3)
    told = {each.subject: each for each in await look(store)}
    assert (told["us/audit"].reason, told["us/finance"].reason) == ("behind", "paused")
    assert "finance is paused (gone), 3 events waiting" in told["us/finance"].found


async def test_a_damaged_record_is_told(store: Store, redis: Redis) -> None:
    """It is owed everything, and gets nothing."""
    await store.of("us").subscribers.put(subscriber("audit"))
    await redis.hset("refunds:{us}:subscribers", "audit", "{")
    found = only(await look(store), "subscribers.lane")
    assert (found.status, found.reason) == (Status.FAIL, "subscriber_unreadable")


@pytest.mark.parametrize(("hours", "status"), [(1, Status.OK), (25, Status.WARN)])
async def test_a_refund_that_is_pending_for_long(
    store: Store, account: Account, clock: ManualClock, hours: int, status: Status
) -> None:
    """A day is long."""
    await Recorder(store, lambda: 0.0).record(account, seen(), source=Source.NOTIFICATION)
    clock.tick(hours * 3_600_000)
    found = only(await look(store), "refunds.pending")
    assert found.status is status
    assert found.found == f"1 refund pending, the oldest for {hours if hours > 1 else 60} {'h' if hours > 1 else 'min'}"


async def test_notifications_that_nobody_works_on(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when no worker runs; the bound is shortened here."""
    monkeypatch.setattr("receiver.commands.doctor.backlog.MANY_HINTED", 3)
    for number in range(3):
        await store.of("us").schedule.hint(hint(number, message=f"m{number}"))
    assert words(await look(store))["refunds.backlog"] == "backlog"


async def test_a_store_that_cannot_be_read_is_a_finding(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose user may not."""

    async def refused(*_: Any) -> None:
        raise StoreUnavailable("Redis: not_permitted.", reason="store_not_permitted")

    monkeypatch.setattr(store.of("us").gauges, "measure", refused)
    [found] = await look(store)
    assert (found.status, found.reason) == (Status.FAIL, "store_not_permitted")


async def test_notifications_that_were_not_understood(store: Store) -> None:
    """Of an account, and of none."""
    await store.of("us").subscribers.put(subscriber("audit"))
    assert words(await look(store)) == {}
    for place in ("us", UNASSIGNED):
        kept = UnrecognizedNotification("d" * 64, "id", "arn", T0, T0, "why", ("us",), (), 0, 4)
        await store.of(place).notifications.keep(kept, "text")
    found = [each for each in await look(store) if each.check == "notifications.understood"]
    assert [(each.status, each.reason, each.subject) for each in found] == [
        (Status.WARN, "unrecognized", "us"),
        (Status.WARN, "unrecognized", UNASSIGNED),
    ]
    assert "receiver notification list" in found[0].fix


async def test_an_account_that_is_not_in_the_settings_is_named_while_there_is_work_for_it(store: Store) -> None:
    """It was renamed: its refunds are not polled, and its events are not sent."""
    await store.of("us").subscribers.open()
    old = store.of("us-old")
    await old.subscribers.put(subscriber("audit"))
    assert "accounts.configured" not in words(await look(store))
    await owe(store, make_account(name="us-old"), 2)
    await Recorder(store, lambda: 0.0).record(make_account(name="us-old"), seen(number=7), source=Source.POLL)
    found = only(await look(store), "accounts.configured")
    assert (found.status, found.reason, found.subject) == (Status.WARN, "account_not_configured", "us-old")
    assert "1 pending refund, 2 open declines, 3 undelivered events:" in found.found


async def test_damage_in_an_account_that_is_not_in_the_settings_hides_no_other_finding(store: Store) -> None:
    for name in ("us", "us-old"):
        await store.of(name).subscribers.put(subscriber("audit"))
    before, key = words(await look(store)), "refunds:{us-old}:reserved"
    await store.connection.client.set(key, "no sorted set")
    found = await look(store)
    assert key in only(found, "accounts.configured").found
    assert {**before, "accounts.configured": "account_not_configured"} == words(found)

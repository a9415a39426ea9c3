"""Amazon's reports through its API, against the simulator: fetched, compared, killed and continued."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from receiver.amazon.account import DailyReconciliation, Environment
from receiver.amazon.calls import Endpoint, Region, get_refund, read_refund
from receiver.amazon.signing import Signer
from receiver.amazon.throttle import LIVE_THROTTLE, Bucket, Call
from receiver.commands.doctor.reconcile import check_reconciliation
from receiver.errors import AmazonOutcomeUnknown, Unavailable
from receiver.exchange import Request, Response
from receiver.ledger.reconciliation.finding import Finding, FindingKind
from receiver.ledger.reconciliation.report_run import LAG, LONGEST, RunResult, planned
from receiver.ledger.refund import Source
from receiver.runtime.metrics import Metrics
from receiver.simulator.app import Simulator
from receiver.simulator.engine import MERCHANT_ID
from receiver.simulator.keys import Keys, make_keys
from receiver.simulator.reports.book import REFUND_DATA, SETTLEMENT_DATA, Alteration
from receiver.store import Store
from receiver.track.amazon_client import AmazonClient
from receiver.track.record import Recorder
from receiver.track.report_run import Daily, ReportReconciliation, last_time, report_reconciliation, span_to_fetch
from receiver.track.reports import MOST_ATTEMPTS, TRIES, ReportFetcher
from receiver.transport.client import Transport
from tests.kit.accounts import make_account
from tests.kit.clock import T0, ManualClock
from tests.kit.processes import until

HOUR, DAY = 3_600_000, 86_400_000
REPORTS = ("create_report", "get_reports", "get_report", "get_report_document", "download_report")


@dataclass
class Shop:
    """A live account at the simulator, and everything that fetches its reports. Waiting lets the time pass."""

    amazon: Simulator
    store: Store
    clock: ManualClock
    client: AmazonClient
    transport: Transport
    waits: list[float] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.waits.append(seconds)
        self.clock.tick(round(seconds * 1000))

    def reconciliation(self) -> ReportReconciliation:
        """As a new process would have it."""
        whole = report_reconciliation(self.client, self.transport.send, self.client.metrics)
        fetcher = ReportFetcher(self.client, whole.runs, self.transport.send, self.sleep)
        return ReportReconciliation(fetcher, whole.compare, whole.metrics, whole.new_owner)

    async def run(self, span: int = 7 * DAY) -> set[tuple[str, str]]:
        """Fetch and compare. Returns what differs."""
        self.found.clear()
        await self.reconciliation().run(span, self.found.append)
        return {(each.kind, each.refund_id) for each in self.found}

    async def learn(self, refund_id: str) -> None:
        """The ledger asks Amazon about this refund."""
        request = get_refund(self.client.account.endpoint, refund_id)
        seen = await self.client.ask(Call.GET_REFUND, request, lambda answer: read_refund(answer, refund_id))
        await Recorder(self.store, lambda: 0.0).record(self.client.account, seen, source=Source.NOTIFICATION)

    @property
    def calls(self) -> Counter[str]:
        """The calls about reports that were answered."""
        return Counter(each.call for each in self.amazon.calls if each.call in REPORTS)

    @property
    def requested(self) -> int:
        """How many reports Amazon was asked to make."""
        return sum(each.report_type == REFUND_DATA for each in self.amazon.reports.known.values())


@pytest.fixture(scope="module")
def keys() -> Keys:
    """Keys cost a third of a second to make."""
    return make_keys(T0)


@pytest.fixture
async def shop(store: Store, clock: ManualClock, keys: Keys) -> AsyncIterator[Shop]:
    """A week after five refunds: known, lost, with another amount, with another state, and not settled."""
    transport = Transport()
    async with Simulator(keys=keys, now=clock, environment="live", throttle={}, transport=transport) as amazon:
        amazon.reports.settle_every = 0
        account = make_account(
            environment=Environment.LIVE,
            merchant_id=MERCHANT_ID,
            endpoint=Endpoint(Region.NA, "live", amazon.public_key_id, amazon.base_url),
            signer=Signer(amazon.public_key_id, amazon.merchant_private_key_pem),
            throttle=dict.fromkeys(LIVE_THROTTLE, Bucket(1000, 1000)),
            settled_within=DAY,
        )
        client = AmazonClient(account, store.of("us"), transport.send, Metrics(), clock)
        yield Shop(amazon, store, clock, client, transport)
    await transport.close()


async def trade(shop: Shop) -> dict[str, str]:
    """Five refunds, one of each kind; then two days and a settlement."""
    names = ("known", "lost", "amount", "state", "unsettled")
    refunds = {name: shop.amazon.start_refund(f"{12 + number}.00", "USD") for number, name in enumerate(names)}
    shop.clock.tick(HOUR)
    shop.amazon.tick()
    for name in names:
        if name != "lost":
            await shop.learn(refunds[name])
    alterations = shop.amazon.reports.alterations
    alterations[refunds["amount"]] = Alteration(amount="99.00")
    alterations[refunds["state"]] = Alteration(state="Declined")
    alterations[refunds["unsettled"]] = Alteration(missing_in=[SETTLEMENT_DATA])
    shop.clock.tick(2 * DAY)
    assert shop.amazon.reports.settle() is not None
    return refunds


def expected(refunds: dict[str, str]) -> set[tuple[str, str]]:
    """The differences that must be found."""
    return {
        (FindingKind.UNKNOWN_HERE, refunds["lost"]),
        (FindingKind.AMOUNT_DIFFERS, refunds["amount"]),
        (FindingKind.STATE_DIFFERS, refunds["state"]),
        (FindingKind.NOT_SETTLED, refunds["unsettled"]),
    }


async def test_every_difference_is_found_through_the_api(shop: Shop, redis: Any) -> None:
    """Each is found once, and no other. The second run requests a new report and finds the same."""
    refunds = await trade(shop)
    assert await shop.run() == expected(refunds)
    assert shop.calls == {
        "create_report": 1, "get_report": 5, "get_reports": 1, "get_report_document": 2, "download_report": 2
    }  # fmt: skip
    assert shop.waits == [2.0, 5.0, 10.0, 20.0]
    events = await redis.xlen("refunds:{us}:events")
    assert await shop.run() == expected(refunds)
    assert (shop.requested, await redis.xlen("refunds:{us}:events")) == (2, events)
    result = await shop.store.of("us").report_runs.last_complete()
    assert result is not None
    assert (result.rows, sum(result.findings.values())) == (9, 4)
    assert await shop.store.of("us").report_runs.unfinished() is None


@pytest.mark.parametrize("place", ["create_report", "get_report", "get_report_document", "download_report"])
async def test_a_killed_run_goes_on_and_asks_for_no_second_report(shop: Shop, place: str) -> None:
    """It is killed at every step: while Amazon answers, while the report is made, while it is downloaded."""
    refunds = await trade(shop)
    hang = shop.amazon.fault_injection.add("hang", place=place)
    dying = asyncio.create_task(shop.run())
    await until(lambda: hang.used, "the call")
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    shop.clock.tick(HOUR)
    assert await shop.run() == expected(refunds)
    assert shop.requested == 1


async def test_faults_of_every_kind_are_survived(shop: Shop) -> None:
    """Throttled, no answer, a lost answer, garbage, half a file, an address that expired; never a second report."""
    refunds = await trade(shop)
    for place in REPORTS:
        for trick in ("error", "throttle", "garbage", "half", "lost_answer"):
            if (place, trick) != ("download_report", "garbage"):
                shop.amazon.fault_injection.add(trick, place=place)
    assert await shop.run() == expected(refunds)
    assert shop.requested == 1


async def test_a_report_that_amazon_fails_to_make_is_asked_for_again(shop: Shop) -> None:
    refunds = await trade(shop)
    shop.amazon.reports.failing = MOST_ATTEMPTS - 1
    assert await shop.run() == expected(refunds)
    shop.amazon.reports.failing = MOST_ATTEMPTS
    with pytest.raises(AmazonOutcomeUnknown, match="failed to make") as raised:
        await shop.run()
    assert raised.value.reason == "amazon_report_failed"


@pytest.mark.parametrize(
    ("trick", "place", "reason"),
    [
        ({"trick": "refuse", "kind": "key"}, "create_report", "amazon_refuses_us"),
        ({"trick": "error"}, "get_report", "amazon_unknown"),
        ({"trick": "error"}, "download_report", "amazon_report_document"),
        ({"trick": "garbage"}, "download_report", "not_a_report"),
    ],
)
async def test_a_failure_is_recorded_and_the_run_can_go_on(
    shop: Shop, trick: dict[str, Any], place: str, reason: str
) -> None:
    refunds = await trade(shop)
    shop.amazon.fault_injection.add(times=TRIES, place=place, **trick)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the reason is what counts
        await shop.run()
    assert getattr(raised.value, "reason", "") == reason
    runs = shop.store.of("us").report_runs
    failure = await runs.last_failure()
    assert failure is not None
    assert failure.reason == reason
    assert (await shop.store.of("us").gauges.measure())["reconcile_failed"] == 1
    shop.amazon.fault_injection.clear()
    assert await shop.run() == expected(refunds)
    assert (await runs.last_failure(), shop.requested) == (None, 1)


async def test_a_line_that_cannot_be_read_is_told(shop: Shop) -> None:
    """The other lines are compared, and the report no longer proves that a refund is missing."""
    refunds = await trade(shop)
    shop.amazon.reports.alterations[refunds["known"]] = Alteration(amount="rubbish", missing_in=[SETTLEMENT_DATA])
    assert await shop.run() == expected(refunds)
    result = await shop.store.of("us").report_runs.last_complete()
    assert result is not None
    assert (result.rows, result.unread) == (8, 1)
    daily = replace(shop.client.account, daily=DailyReconciliation(0, "UTC", DAY))
    assert [each.reason for each in await check_reconciliation(shop.store.of("us"), daily)] == ["unread"]


async def test_a_settlement_that_is_no_report_does_not_stop_the_others(shop: Shop) -> None:
    """Otherwise it would stop them as long as Amazon lists it."""
    refunds = await trade(shop)
    whole, downloads = shop.transport.send, list[str]()

    async def send(request: Request, **how: Any) -> Response:
        answer = await whole(request, **how)
        if into := how.get("into"):
            downloads.append(request.url)
            if len(downloads) > 1:
                into.seek(0)
                into.truncate()
        return answer

    reconciliation = shop.reconciliation()
    fetcher = replace(reconciliation.fetcher, send=send)
    found = list[Finding]()
    result = await replace(reconciliation, fetcher=fetcher).run(7 * DAY, found.append)
    assert {(each.kind, each.refund_id) for each in found} == {
        each for each in expected(refunds) if each[0] is not FindingKind.NOT_SETTLED
    }
    assert result.unread == 1


async def test_an_empty_period_proves_nothing(shop: Shop) -> None:
    """A report can also be CANCELLED by a person, so a refund is not missing in it."""
    assert await shop.run() == set()
    assert shop.calls["download_report"] == 0


async def test_an_address_inside_of_the_network_is_not_called(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an address without TLS nor one that is not public is called. Only the account's simulator may be on this
    machine."""
    await trade(shop)
    for url, problem in (("http://storage.example/x", "not https"), ("https://127.0.0.1:9/x", "not public")):
        monkeypatch.setattr("receiver.track.reports.read_report_document", lambda _, url=url: url)
        with pytest.raises(AmazonOutcomeUnknown, match=problem):
            await shop.run()


async def test_two_processes_do_not_do_it_at_once(shop: Shop, redis: Any) -> None:
    """The second is refused while the first lives, and can begin once it is dead."""
    await trade(shop)
    hang = shop.amazon.fault_injection.add("hang", place="get_report")
    first = asyncio.create_task(shop.run())
    await until(lambda: hang.used, "the call")
    with pytest.raises(Unavailable) as raised:
        await shop.run()
    assert raised.value.reason == "reconcile_running"
    assert 0 < await redis.pttl("refunds:{us}:reconciling") <= 60_000
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await redis.exists("refunds:{us}:reconciling") == 0


async def test_a_worker_does_it_once_a_day(shop: Shop) -> None:
    """One of two workers does it. After a failure it is retried every hour, not more often."""
    await trade(shop)
    settings = DailyReconciliation(4 * 60, "UTC", 7 * DAY)
    workers = [Daily(shop.reconciliation(), settings) for _ in range(2)]

    async def both() -> int:
        before = shop.requested
        for worker in workers:
            await worker.once()
        return shop.requested - before

    assert [await both(), await both()] == [1, 0]
    shop.clock.tick(DAY)
    shop.amazon.fault_injection.add("refuse", place="create_report", kind="key")
    assert [await both(), await both()] == [0, 0]
    shop.clock.tick(HOUR)
    assert [await both(), await both()] == [1, 0]
    counted = shop.client.metrics.registry.get_sample_value
    assert counted("receiver_reconcile_runs_total", {"outcome": "complete"}) == 2
    assert counted("receiver_reconcile_runs_total", {"outcome": "failed"}) == 1


async def test_a_short_run_by_hand_does_not_hide_what_the_daily_one_has_to_fetch(shop: Shop) -> None:
    """The service is down for three weeks. Before it starts, a person compares the last hours."""
    daily = Daily(shop.reconciliation(), DailyReconciliation(4 * 60, "UTC", 7 * DAY))
    await daily.once()
    refunds = await trade(shop)
    shop.clock.tick(20 * DAY)
    assert await shop.run(2 * HOUR) == set()
    await daily.once()
    findings, _ = await shop.store.of("us").findings.page(FindingKind.UNKNOWN_HERE)
    assert [each.refund_id for each in findings] == [refunds["lost"]]
    requested = shop.requested
    await daily.once()
    await shop.run(2 * HOUR)
    await daily.once()
    assert shop.requested == requested + 1


@pytest.mark.parametrize("failed", [True, False])
async def test_times_of_a_clock_that_was_ahead_do_not_stop_it(shop: Shop, failed: bool) -> None:
    await trade(shop)
    daily = Daily(shop.reconciliation(), DailyReconciliation(4 * 60, "UTC", 7 * DAY))
    later = shop.clock() + 300 * DAY
    await shop.store.of("us").report_runs.finish(RunResult(at=later, end=later, reason="amazon_timeout" * failed))
    await daily.once()
    assert shop.requested == 1


@pytest.mark.parametrize(
    ("zone", "now", "due"),
    [
        ("UTC", "2025-10-09T04:00:00+00:00", "2025-10-09T04:00:00+00:00"),
        ("UTC", "2025-10-09T03:59:59+00:00", "2025-10-08T04:00:00+00:00"),
        ("Asia/Tokyo", "2025-10-09T18:59:00+00:00", "2025-10-09T04:00:00+09:00"),
        ("Europe/Berlin", "2025-10-26T12:00:00+00:00", "2025-10-26T04:00:00+01:00"),
    ],
)
def test_the_time_of_day_is_that_of_the_zone(zone: str, now: str, due: str) -> None:
    if zone != "UTC":
        ZoneInfo(zone)
    found = last_time(DailyReconciliation(240, zone, DAY), round(datetime.fromisoformat(now).timestamp() * 1000))
    assert found == round(datetime.fromisoformat(due).timestamp() * 1000)


async def test_a_full_disk_or_a_bug_fails_the_run_and_not_the_worker(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing worker makes its process unready, so a report would cost the process its notifications."""
    await trade(shop)
    daily = Daily(shop.reconciliation(), DailyReconciliation(4 * 60, "UTC", 7 * DAY))
    runs, raw = shop.store.of("us").report_runs, io.FileIO

    def no_folder(**_: object) -> Any:
        raise FileNotFoundError(2, "No usable temporary directory")

    def bug(_: object) -> Any:
        raise ZeroDivisionError

    for place, instead, reason in (
        ("receiver.track.reports.io.FileIO", lambda *_: raw("/dev/full", "w"), "report_not_kept"),
        ("receiver.track.report_run.tempfile.TemporaryDirectory", no_folder, "report_not_kept"),
        ("receiver.track.report_run.read", bug, "internal_error"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, instead)
            await daily.once()
        failure = await runs.last_failure()
        assert failure is not None
        assert failure.reason == reason
        shop.clock.tick(HOUR)
    await daily.once()
    assert await runs.last_failure() is None


async def test_a_document_whose_end_is_unknown_is_not_believed(shop: Shop) -> None:
    """Without a length, a cut answer looks like a complete one."""
    await trade(shop)
    whole = shop.transport.send

    async def send(request: Request, **how: Any) -> Response:
        answer = await whole(request, **how)
        kept = {name: value for name, value in answer.headers.items() if name != "content-length"}
        return replace(answer, headers=kept) if "into" in how else answer

    reconciliation = shop.reconciliation()
    fetcher = replace(reconciliation.fetcher, send=send)
    with pytest.raises(AmazonOutcomeUnknown, match="cut off"):
        await replace(reconciliation, fetcher=fetcher).run(7 * DAY)


def test_a_gap_of_the_service_is_fetched_as_well() -> None:
    now = T0 + 100 * DAY
    ended = [RunResult(at=now - days * DAY, end=now - days * DAY) for days in (1, 20, 95)]
    spans = [span_to_fetch(7 * DAY, each, None, now) for each in (None, *ended)]
    assert spans == [7 * DAY, 7 * DAY, 20 * DAY + LAG, LONGEST]
    run = planned(None, spans[2], now + 1)
    later = now + HOUR
    assert planned(run, span_to_fetch(7 * DAY, ended[1], run, later), later) == run
    much_later = now + 2 * DAY
    assert span_to_fetch(7 * DAY, ended[1], run, much_later) == 22 * DAY + LAG

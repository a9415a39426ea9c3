"""Reports against what is known: every kind of difference is found once, none is invented, and a run can be killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from receiver.amazon.reports.reader import Heading, read
from receiver.errors import BadRequest
from receiver.ledger.age import DAY
from receiver.ledger.money import Money
from receiver.ledger.reconciliation.finding import Finding, FindingKind
from receiver.ledger.reconciliation.rows import Period, RefundRow, SettlementRow
from receiver.ledger.reconciliation.run import Batch, Compared, Report, reconcile
from receiver.ledger.refund import Observation, Source
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.events import kinds
from receiver.outbox.events.kinds import kind_of
from receiver.outbox.events.mismatch_event import read_mismatch_event
from receiver.runtime.metrics import Metrics
from receiver.store import Store
from receiver.store.refunds.findings import KEPT_CLOSED, Findings
from receiver.track.reconcile import Reconciler
from receiver.track.record import Recorder
from receiver.track.review import review
from tests.amazon import reports
from tests.kit.accounts import make_account
from tests.kit.clock import T0, ManualClock
from tests.store.makers import refund_id, subscriber
from tests.store.test_mutations import fails, without

MISMATCH = "amazonpay.refund.mismatch"
USD14 = Money.parse("14.00", "USD")
PLANTED = {
    (FindingKind.UNKNOWN_HERE, refund_id(100)),
    (FindingKind.UNKNOWN_HERE, refund_id(101)),
    (FindingKind.STATE_DIFFERS, refund_id(2)),
    (FindingKind.AMOUNT_DIFFERS, refund_id(3)),
    (FindingKind.AMOUNT_DIFFERS, refund_id(4)),
    (FindingKind.SETTLED_BUT_DECLINED, refund_id(5)),
    (FindingKind.NOT_SETTLED, refund_id(6)),
    (FindingKind.NOT_IN_REPORT, refund_id(7)),
}


@dataclass
class Desk:
    """An account with refunds 1 to 9: all are Refunded, except 5, which is declined, and 8, which is pending."""

    store: Store
    redis: Any
    clock: ManualClock
    dies_after: int = 10**9

    @property
    def reconciler(self) -> Reconciler:
        return Reconciler(make_account(), self.store.of("us"), Metrics())

    async def knows(self, number: int, state: str, at: int = T0 - 10 * DAY, **more: Any) -> None:
        seen = {"refund_id": refund_id(number), "state": state, "updated_at": at, "created_at": at, "amount": USD14}
        await Recorder(self.store, lambda: 0.0).record(
            make_account(), Observation(**{**seen, **more}), source=Source.POLL
        )

    async def compare(self, batch: Batch) -> Compared:
        """One batch; the process dies before the batch after `dies_after` others."""
        self.dies_after -= 1
        if self.dies_after < 0:
            raise RuntimeError("killed")
        return await self.reconciler.compare(batch)

    async def run(self, *texts: str) -> list[Finding]:
        """A run over these files."""
        found = list[Finding]()
        await reconcile(map(report_of, texts), self.compare, found.append)
        return found

    async def told(self) -> list[tuple[FindingKind, str]]:
        """The events in the stream."""
        entries = [
            {name.decode(): value.decode() for name, value in fields.items()}
            for _, fields in await self.redis.xrange("refunds:{us}:events")
        ]
        events = [read_mismatch_event("us", fields) for fields in entries if kind_of(fields) is kinds.MISMATCH]
        assert len({event.id for event in events}) == len(events)
        return sorted((event.finding.kind, event.finding.refund_id) for event in events)


def report_of(text: str) -> Report:
    heading, *items = read([text.encode()])
    assert isinstance(heading, Heading)
    rows = [each for each in items if isinstance(each, RefundRow | SettlementRow)]
    assert len(rows) == len(items)
    period = Period(report=heading.report, start=heading.start, end=heading.end) if heading.end else None
    return Report(f"{heading.report}.csv", rows, period, heading.seller_id)


@pytest.fixture
async def office(store: Store, redis: Any, clock: ManualClock) -> Desk:
    """Two subscribers: one names the event's type, the other gets all refund events."""
    found = Desk(store, redis, clock)
    subscribers = store.of("us").subscribers
    await subscribers.add(subscriber("books", types=(MISMATCH,)))
    await subscribers.add(subscriber("all"))
    for number in range(1, 10):
        await found.knows(number, {5: "Declined", 8: "RefundInitiated"}.get(number, "Refunded"))
    return found


def at(ms: int) -> str:
    return format_rfc3339(ms)


def files(states: Iterable[tuple[int, str]] = ()) -> tuple[str, str]:
    """A report of refund data and one of settlement data, with a difference of every kind."""
    when = at(T0 - 10 * DAY)
    rows = {number: {"state": "Completed"} for number in (1, 2, 3, 4, 5, 6, 8, 9, 100)} | {
        2: {"state": "Declined", "reason": "AmazonRejected"},
        3: {"amount": "15.00"},
        5: {"state": "Declined"},
        8: {"state": "Pending"},
    }
    refunds = [reports.refund_row(refund_id(n), updated=when, created=when, **more) for n, more in rows.items()]
    # Refund 9 is settled in two parts.
    sums = [(1, "-14.00"), (2, "-14.00"), (9, "-10.00"), (3, "-14.00"), (4, "-13.00"), (5, "-14.00"), (7, "-14.00")]
    sums += [(9, "-4.00"), (101, "-14.00")]
    settled = [reports.settlement_row(refund_id(n), amount, posted=when) for n, amount in sums]
    return reports.refunds(refunds), reports.settlements(settled, at(T0 - 12 * DAY), at(T0))


async def test_every_planted_difference_is_found_once_and_none_is_invented(office: Desk) -> None:
    """Each is sent to the subscriber that asks for it, unknown refunds are looked up, and a second run adds nothing."""
    found = await office.run(*files())
    assert {(each.kind, each.refund_id) for each in found} == PLANTED
    assert len(found) == len(PLANTED)
    by_id = {(each.kind, each.refund_id): each for each in found}
    state = by_id[FindingKind.STATE_DIFFERS, refund_id(2)]
    assert (state.here, state.there, state.source, state.row and state.row.line) == (
        *("Refunded", "Declined"),
        *("refunds.csv", 3),
    )
    short = by_id[FindingKind.AMOUNT_DIFFERS, refund_id(4)]
    assert (short.here, short.there) == ("14.00 USD", "settled 13.00 USD")
    assert await office.told() == sorted(PLANTED)
    us = office.store.of("us")
    assert await office.redis.zcard("refunds:{us}:lane:books") == len(PLANTED)
    assert await us.findings.counts() == dict(Counter(kind for kind, _ in PLANTED))
    asked = {each.decode() for each in await office.redis.zrange("refunds:{us}:refreshed", 0, -1)}
    assert asked == {refund_id(number) for number in (2, 5, 100, 101)}
    office.clock.tick(DAY)
    again = await office.run(*files())
    assert [(each.since, each.digest) for each in again] == [(each.since, each.digest) for each in found]
    assert await office.told() == sorted(PLANTED)


async def test_a_run_that_is_killed_is_started_again(office: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed before each batch in turn. Both runs together find each difference of a whole run once."""
    monkeypatch.setattr("receiver.ledger.reconciliation.run.BATCH", 4)
    for office.dies_after in range(7):
        with pytest.raises(RuntimeError):
            await office.run(*files())
        assert {*await office.told()} < PLANTED
    office.dies_after = 100
    assert {(each.kind, each.refund_id) for each in await office.run(*files())} == PLANTED
    assert await office.told() == sorted(PLANTED)


async def test_a_finding_closes_when_it_is_explained(office: Desk) -> None:
    """By Amazon's answer, or by a later report. It is kept for 30 days. The same difference later is a new finding."""
    await office.run(*files())
    await office.knows(100, "Refunded")
    await office.knows(2, "Declined", at=T0 - 9 * DAY)
    await office.run(
        reports.settlements([reports.settlement_row(refund_id(6), posted=at(T0 - 9 * DAY))], at(T0 - 12 * DAY), at(T0)),
        reports.refunds([reports.refund_row(refund_id(7), updated=at(T0))]),
    )
    findings = office.store.of("us").findings
    closed = {(FindingKind.UNKNOWN_HERE, refund_id(100)), (FindingKind.STATE_DIFFERS, refund_id(2))}
    closed |= {(FindingKind.NOT_SETTLED, refund_id(6)), (FindingKind.NOT_IN_REPORT, refund_id(7))}
    # It was looked up, and it is in no settlement.
    left = PLANTED - closed | {(FindingKind.NOT_SETTLED, refund_id(100))}
    stored = {(kind, each.refund_id) for kind in FindingKind for each in (await findings.page(kind))[0]}
    assert stored == left
    assert {(each.kind, each.refund_id) for each in await findings.closed()} == closed
    assert len(await office.told()) == len(PLANTED) + 1
    office.clock.tick(KEPT_CLOSED + 1)
    await review(office.store.of("us"))
    assert await findings.closed() == []
    assert await office.redis.hlen("refunds:{us}:findings:details") == len(left)


async def test_money_that_was_given_back_was_not_taken(office: Desk) -> None:
    """A refund is settled, declined, and given back in a later settlement: the finding closes."""
    taken, back = (
        reports.settlements([reports.settlement_row(refund_id(5), amount, posted=at(T0 - days * DAY), settlement=id_)])
        for amount, days, id_ in (("-14.00", 6, "1"), ("14.00", 3, "2"))
    )
    assert [each.kind for each in await office.run(taken)] == [FindingKind.SETTLED_BUT_DECLINED]
    assert await office.run(back) == []
    counts = await office.store.of("us").findings.counts()
    assert counts[FindingKind.SETTLED_BUT_DECLINED] == 0
    assert await office.run(taken, back) == []


async def test_open_findings_are_reviewed_in_batches(office: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The review runs each minute, with the maintenance of the stream of events."""
    await office.run(*files())
    asked = list[int]()
    settled = Findings.settled

    async def counted(self: Findings, refund_ids: Sequence[str]) -> dict[str, tuple[SettlementRow, ...]]:
        asked.append(len(refund_ids))
        return await settled(self, refund_ids)

    monkeypatch.setattr(Findings, "settled", counted)
    await review(office.store.of("us"))
    assert (len(asked), sum(asked)) == (len(FindingKind), len(PLANTED))


async def test_a_wrong_amount_is_told_once_although_both_reports_show_it(office: Desk) -> None:
    when = at(T0 - 10 * DAY)
    wrong = [
        reports.refunds([reports.refund_row(refund_id(1), amount="15.00", updated=when)]),
        reports.settlements([reports.settlement_row(refund_id(1), "-15.00", posted=when)]),
    ]
    for _ in range(2):
        found = await office.run(*wrong)
        assert [(each.there, each.source) for each in found if each.refund_id == refund_id(1)] == [
            ("15.00 USD", "refunds.csv")
        ]
    assert [name for kind, name in await office.told() if kind is FindingKind.AMOUNT_DIFFERS] == [refund_id(1)]


async def test_an_old_unknown_refund_pages_no_one(office: Desk) -> None:
    """Its event is a backfill. A state that differs is reported whatever its age."""
    await office.store.of("us").subscribers.add(subscriber("people", types=(MISMATCH,), backfill=False))
    await office.run(*files())
    unknown = sum(kind is FindingKind.UNKNOWN_HERE for kind, _ in PLANTED)
    assert await office.redis.zcard("refunds:{us}:lane:people") == len(PLANTED) - unknown


async def test_a_report_of_another_merchant_is_refused(office: Desk) -> None:
    with pytest.raises(BadRequest, match="A2ZOTHERONE") as raised:
        await office.run(files()[1].replace(reports.SELLER, "A2ZOTHERONE"))
    assert raised.value.reason == "other_merchant"
    assert await office.told() == []


async def test_two_processes_compare_the_same_rows_at_once(office: Desk) -> None:
    """A person runs the command while a worker compares: each finding is recorded by one of them."""
    batch = Batch(source="refunds.csv", rows=tuple(report_of(files()[0]).rows))
    both = await asyncio.gather(*(office.reconciler.compare(batch) for _ in range(4)))
    assert len({tuple(each.digest for each in compared.findings) for compared in both}) == 1
    assert len(await office.told()) == len(both[0].findings) == 3


async def test_without_its_guard_a_finding_would_be_told_twice(office: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "open_finding", "(redis.call('HGET', KEYS[2], ARGV[2]) or '') ~= ARGV[3]", "false")
    await fails(lambda: test_two_processes_compare_the_same_rows_at_once(office))


async def test_a_half_report_or_one_of_another_account_proves_nothing(office: Desk) -> None:
    """Fifty refunds are not reported as missing because one file was cut off. A few missing refunds are."""
    for number in range(20, 70):
        await office.knows(number, "Refunded")
    when = at(T0 - 10 * DAY)

    def report(numbers: Iterable[int]) -> str:
        return reports.refunds([reports.refund_row(refund_id(n), updated=when, created=when) for n in numbers])

    await office.run(report([*range(1, 10), *range(20, 65)]))
    lost = [(FindingKind.NOT_IN_REPORT, refund_id(number)) for number in range(65, 70)]
    assert [each for each in await office.told() if each[0] is FindingKind.NOT_IN_REPORT] == lost
    office.clock.tick(DAY)
    await office.redis.delete("refunds:{us}:reported")
    for numbers in (range(20, 25), range(500, 505)):
        with pytest.raises(BadRequest, match="incomplete, or of another account"):
            await office.run(report(numbers))
    assert [each for each in await office.told() if each[0] is FindingKind.NOT_IN_REPORT] == lost


async def test_a_later_report_closes_what_an_earlier_one_found(office: Desk) -> None:
    when = at(T0 - 10 * DAY)

    def report(**more: Any) -> str:
        return reports.refunds([reports.refund_row(refund_id(1), updated=when, created=when, **more)])

    for wrong, kind in (
        ({"amount": "15.00"}, FindingKind.AMOUNT_DIFFERS),
        ({"state": "Declined"}, FindingKind.STATE_DIFFERS),
    ):
        assert kind in {each.kind for each in await office.run(report(**wrong))}
        await office.run(report())
        assert (await office.store.of("us").findings.counts())[kind] == 0


async def test_a_difference_that_comes_back_is_another_event(office: Desk, clock: ManualClock) -> None:
    """A subscriber that drops known event ids would otherwise ignore it."""
    when = at(T0 - 10 * DAY)

    def report(amount: str) -> str:
        return reports.refunds([reports.refund_row(refund_id(3), updated=when, created=when, amount=amount)])

    for amount, events in (("15.00", 1), ("15.00", 1), ("14.00", 1), ("15.00", 2), ("14.00", 2), ("15.00", 3)):
        clock.tick(1_000)
        await office.run(report(amount))
        assert (await office.told()).count((FindingKind.AMOUNT_DIFFERS, refund_id(3))) == events

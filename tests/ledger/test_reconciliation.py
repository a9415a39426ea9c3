"""Compares a report with what is known here: every difference is found, except those that newer information
explains."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from receiver.ledger.age import DAY
from receiver.ledger.money import Money
from receiver.ledger.reconciliation.compare import (
    compare_refund,
    compare_settlement,
    covered,
    is_short,
    not_in_report,
    not_settled,
    past,
    still_holds,
    with_row,
)
from receiver.ledger.reconciliation.finding import Finding, FindingKind
from receiver.ledger.reconciliation.rows import Period, RefundRow, SettlementRow
from receiver.ledger.reconciliation.run import BATCH, Batch, Compared, Report, reconcile
from receiver.ledger.refund import FPS, Refund, Source

T = 1_760_000_000_000
ID = "P01-5105180-3221187-R022311"
USD14 = Money(Decimal("14.00"), "USD")


def known(state: str = "Refunded", **more: Any) -> Refund:
    fields = {"account": "us", "refund_id": ID, "revision": 2, "first_seen_at": T, "changed_at": T, "amount": USD14}
    return Refund(**{**fields, "state": state, "updated_at": T, "created_at": T - DAY, "source": Source.POLL, **more})


def row(state: str = "Refunded", **more: Any) -> RefundRow:
    return RefundRow(refund_id=ID, state=state, **{"amount": USD14, "updated_at": T, **more})


def settled(amount: str = "14.00", currency: str = "USD", **more: Any) -> SettlementRow:
    return SettlementRow(refund_id=ID, amount=Money(Decimal(amount), currency), **{"posted_at": T, **more})


@pytest.mark.parametrize(
    ("reported", "here", "kinds"),
    [
        (row(), None, ["unknown_here"]),
        (row(), known(), []),
        (row(amount=None), known(), []),
        (row(amount=Money(Decimal(14), "USD")), known(), []),
        (row("Declined"), known(), ["state_differs"]),
        (row("Refunded"), known("RefundInitiated", updated_at=T - DAY), ["state_differs"]),
        (row("Refunded", updated_at=0), known("RefundInitiated"), ["state_differs"]),
        (row("Declined", updated_at=T - 1), known("Refunded"), []),
        (row("RefundInitiated"), known("Refunded"), []),
        (row("RefundInitiated", updated_at=0), known("Declined"), []),
        (row(amount=Money(Decimal("14.01"), "USD")), known(), ["amount_differs"]),
        (row(amount=Money(Decimal("14.00"), "EUR")), known(), ["amount_differs"]),
        (row("Declined", amount=Money(Decimal("9.00"), "USD")), known(), ["state_differs", "amount_differs"]),
    ],
)
def test_a_row_of_refund_data(reported: RefundRow, here: Refund | None, kinds: list[str]) -> None:
    assert [each.kind for each in compare_refund(reported, here)] == kinds


@pytest.mark.parametrize(
    ("rows", "here", "kinds"),
    [
        ([settled()], None, ["unknown_here"]),
        ([settled()], known(), []),
        ([settled()], known("RefundInitiated"), []),
        ([settled()], known("Declined"), ["settled_but_declined"]),
        ([settled("13.99")], known(), ["amount_differs"]),
        ([settled("10.00"), settled("4.00")], known(), []),
        ([settled("12.00", "EUR")], known(), []),
        ([settled("10.00", is_credit=True), settled("4.00", is_credit=True)], known(), []),
        ([settled(), settled(is_credit=True)], known("Declined"), []),
        ([settled(), settled("4.00", is_credit=True)], known("Declined"), ["settled_but_declined"]),
        ([settled(), settled(is_credit=True)], known(), ["amount_differs"]),
    ],
)
def test_rows_of_settlement_data(rows: list[SettlementRow], here: Refund | None, kinds: list[str]) -> None:
    assert [each.kind for each in compare_settlement(rows, here)] == kinds


def test_a_row_that_was_read_before_is_not_counted_again() -> None:
    """A settlement may be read from two files. A smaller sum may still be completed."""
    first = settled("10.00", settlement_id="1", line=7)
    rows = with_row(with_row((), first), settled("10.00", settlement_id="1", line=9))
    assert rows == (settled("10.00", settlement_id="1", line=9),)
    assert is_short(rows, known())
    rows = with_row(rows, settled("4.00", settlement_id="2"))
    assert not is_short(rows, known())
    assert compare_settlement(rows, known()) == []
    assert not is_short([settled("15.00")], known())


def test_a_row_that_one_file_tells_less_of_is_not_counted_again() -> None:
    """Seller Central may leave out the time's zone, or the settlement. Two payments of one amount stay two."""
    first, second = (settled("7.00", settlement_id="1", posted_at=T + hours) for hours in (0, 1))
    bare = settled("7.00", settlement_id="1", posted_at=0)
    for order in ([first, second, bare], [bare, first, second], [first, bare, bare, second, first]):
        rows: Sequence[SettlementRow] = ()
        for each in order:
            rows = with_row(rows, each)
        assert sorted(rows, key=lambda row: row.posted_at) == [first, second]


def test_a_refund_is_missing_in_settlements_only_if_all_that_could_have_it_were_read() -> None:
    wait = 5 * DAY
    whole = [
        Period(report="settlements", start=T - 2 * DAY, end=T),
        Period(report="settlements", start=T + 1_000, end=T + wait),
    ]
    found = not_settled(known(), whole, wait, T + wait)
    assert found is not None
    assert (found.kind, found.here) == (FindingKind.NOT_SETTLED, "Refunded 14.00 USD")
    for refund, periods, now in (
        (known(), whole, T + wait - 1),
        (known(), whole[:1], T + wait),
        (known(), whole[1:], T + wait),
        (known("Declined"), whole, T + wait),
        (known("RefundInitiated"), whole, T + wait),
        (known(refund_type=FPS), whole, T + wait),
        (known(updated_at=0), whole, T + wait),
    ):
        assert not_settled(refund, periods, wait, now) is None
    assert not covered([], T, T)


def test_a_period_ends_now_at_the_latest() -> None:
    """A report cannot prove that a future refund is missing."""
    whole = [
        Period(report="refunds", start=start, end=end)
        for start, end in ((T - 9, T - 1), (T - 9, T + 9), (T + 1, T + 9))
    ]
    assert [(each.start, each.end) for each in past(whole, T)] == [(T - 9, T - 1), (T - 9, T)]


def test_a_refund_is_missing_in_a_report_of_its_time() -> None:
    of = [Period(report="refunds", start=T - 10, end=T + 10)]
    found = not_in_report(known(), of)
    assert found is not None
    assert found.kind is FindingKind.NOT_IN_REPORT
    assert not_in_report(known(updated_at=T + 11, created_at=T - 11), of) is None
    assert not_in_report(known(updated_at=T + 11, created_at=T - 10), of) is not None
    assert not_in_report(known(refund_type=FPS), of) is None


def test_a_finding_closes_when_it_no_longer_holds() -> None:
    """By a newer state, an answer of Amazon's, or a later report."""
    unknown, state = compare_refund(row(), None)[0], compare_refund(row("Declined"), known())[0]
    assert still_holds(unknown, None, (), True)
    assert not still_holds(unknown, known(), (), True)
    assert still_holds(state, known(), (), True)
    assert not still_holds(state, known("Declined"), (), True)
    assert not still_holds(state, known(updated_at=T + 1), (), True)
    assert not still_holds(state, None, (), True)
    rows = [settled("13.00")]
    amount, declined = compare_settlement(rows, known())[0], compare_settlement(rows, known("Declined"))[0]
    assert still_holds(amount, known(), rows, False)
    assert not still_holds(amount, known(), [*rows, settled("1.00")], False)
    assert still_holds(declined, known("Declined"), rows, False)
    assert not still_holds(declined, known(), [settled()], False)
    missing = Finding(kind=FindingKind.NOT_SETTLED, refund_id=ID)
    assert still_holds(missing, known(), (), False)
    assert not still_holds(missing, known(), rows, False)
    absent = Finding(kind=FindingKind.NOT_IN_REPORT, refund_id=ID)
    assert (still_holds(absent, known(), (), False), still_holds(absent, known(), (), True)) == (True, False)


def test_the_same_difference_has_the_same_digest() -> None:
    """It does not depend on when or in which file it was found. Another state is another difference."""
    digests = [
        *(compare_refund(row("Declined", line=line), known())[0].digest for line in (1, 2)),
        compare_refund(row("Failed"), known("RefundInitiated"))[0].digest,
        *(compare_refund(row(state), None)[0].digest for state in ("RefundInitiated", "Refunded")),
        compare_settlement([settled()], None)[0].digest,
    ]
    assert [digests.index(each) for each in digests] == [0, 0, 2, 3, 3, 3]


def test_a_run_sends_batches_and_says_at_the_end_what_the_reports_cover() -> None:
    """Each difference is reported once. A report with a refused line does not prove that a refund is missing."""
    sent = list[Batch]()

    async def compare(batch: Batch) -> Compared:
        sent.append(batch)
        found = tuple(Finding(kind=FindingKind.UNKNOWN_HERE, refund_id=each.refund_id) for each in batch.rows[:1])
        return Compared(findings=found, again=(ID,) if batch.rows else ())

    def rows(report: Report) -> Iterator[RefundRow]:
        for number in range(BATCH + 1):
            yield row(updated_at=T + number)
        report.complete = report.source == "whole.csv"

    whole, torn = Report("whole.csv", ()), Report("torn.csv", ())
    whole.rows, torn.rows = rows(whole), rows(torn)
    told = list[Finding]()
    tally = asyncio.run(reconcile([whole, torn, Report("s.csv", [settled()])], compare, told.append, asyncio.to_thread))
    assert [(each.source, len(each.rows), each.again, each.is_last) for each in sent] == [
        *(("whole.csv", BATCH, (), False), ("whole.csv", 1, (), False)),
        *(("torn.csv", BATCH, (), False), ("torn.csv", 1, (), False), ("s.csv", 1, (), False)),
        *(("s.csv", 0, (ID,), False), ("", 0, (), True)),
    ]
    assert sent[-1].periods == (
        Period(report="refunds", start=T, end=T + BATCH),
        Period(report="settlements", start=T, end=T),
    )
    assert (tally.rows, tally.findings, len(told)) == (2 * BATCH + 3, {"unknown_here": 1}, 1)

"""Pure. One run over reports: it sends the rows in batches and collects the differences.

The service compares each batch itself; the command line sends each batch to the service. A run can be killed at any
time and started again, because every batch can be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec

from receiver.ledger.reconciliation.finding import Finding
from receiver.ledger.reconciliation.rows import Period, RefundRow, Row, SettlementRow

BATCH = 500
"""Rows in a batch."""
T = TypeVar("T")


class Batch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A part of a run."""

    source: str = ""
    """The report: the name of its file, or Amazon's id."""
    seller_id: str = ""
    """The merchant id in the report, if it names one."""
    rows: tuple[Row, ...] = ()
    again: tuple[str, ...] = ()
    """Refunds that were settled for less than their amount: all their rows have been sent now."""
    is_last: bool = False
    """Whether all rows have been sent, so that what is missing can be found."""
    periods: tuple[Period, ...] = ()
    """What the reports cover. Only the last batch has them."""


class Compared(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The result of a batch."""

    findings: tuple[Finding, ...] = ()
    """All differences, whether they were known before or not."""
    again: tuple[str, ...] = ()
    """Refunds to send again when all rows have been sent: more rows may bring their amount to the right sum."""


@dataclass(slots=True)
class Report:
    """One report to read."""

    source: str
    rows: Iterable[Row]
    period: Period | None = None
    """The period that it covers, if known. Otherwise the times of its rows are used."""
    seller_id: str = ""
    complete: bool = True
    """Whether every line could be read. If not, the report does not prove that a refund is missing. Known only after
    the rows were read."""


@dataclass(slots=True)
class Tally:
    """The result of a run."""

    rows: int = 0
    findings: dict[str, int] = field(default_factory=dict)
    """By kind."""


async def _at_once(step: Callable[[], tuple[Row, ...]]) -> tuple[Row, ...]:
    return step()


async def reconcile(
    reports: Iterable[Report],
    compare: Callable[[Batch], Awaitable[Compared]],
    on_finding: Callable[[Finding], None] = lambda found: None,
    read: Callable[[Callable[[], tuple[Row, ...]]], Awaitable[tuple[Row, ...]]] = _at_once,
) -> Tally:
    """Compare all rows of these reports, then find the refunds that are missing in them. `on_finding` is called once
    for each difference.

    `read` runs the step that reads the next rows, which can take long. Raises what `compare` raises. Memory grows with
    the differences, not with the reports.
    """
    tally, names, again, periods = Tally(), set[str](), dict[str, str](), list[Period]()

    async def send(batch: Batch) -> None:
        compared = await compare(batch)
        again.update(dict.fromkeys(compared.again, batch.source))
        for found in compared.findings:
            if found.name not in names:
                names.add(found.name)
                tally.findings[found.kind] = tally.findings.get(found.kind, 0) + 1
                on_finding(found)

    for report in reports:
        extent = _Extent()
        batches = _batches(report.rows)
        while rows := await read(partial(next, batches, ())):
            extent.include(rows)
            tally.rows += len(rows)
            await send(Batch(source=report.source, seller_id=report.seller_id, rows=rows))
        if report.complete and (period := report.period or extent.period()):
            periods.append(period)
    for source in dict.fromkeys(again.values()):
        for ids in _batches([each for each, of in again.items() if of == source]):
            await send(Batch(source=source, again=ids))
    await send(Batch(is_last=True, periods=tuple(periods)))
    return tally


@dataclass(slots=True)
class _Extent:
    """The time between the first and the last row of a report. Rows without a time are ignored."""

    report: str = ""
    start: int = 0
    end: int = 0

    def include(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.report = "refunds" if isinstance(row, RefundRow) else "settlements"
            if at := row.posted_at if isinstance(row, SettlementRow) else row.updated_at:
                self.start, self.end = min(self.start or at, at), max(self.end, at)

    def period(self) -> Period | None:
        return Period(report=self.report, start=self.start, end=self.end) if self.end else None


def _batches(values: Iterable[T]) -> Iterator[tuple[T, ...]]:
    source = iter(values)
    while batch := tuple(islice(source, BATCH)):
        yield batch

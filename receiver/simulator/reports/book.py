"""Pure. The book of reports: which exist, what state each is in, and the documents of those that are completed.

Facts of Amazon's pages "Reports" and "Manually requesting reports":

    - Create Report makes a report of a period. It is IN_PROGRESS, then COMPLETED, or CANCELLED if the period is empty.
    - Reports of settlement data are made with each settlement, and cannot be requested. In the sandbox there are none;
      only _GET_FLAT_FILE_OFFAMAZONPAYMENTS_SANDBOX_SETTLEMENT_DATA_ can be requested there, and no other type.
    - A report is kept for 90 days. The address of its document is valid for 30 seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from receiver.simulator.bank import Bank, Refund
from receiver.simulator.faults import Fault, invalid_value, known
from receiver.simulator.ids import Ids
from receiver.simulator.outcomes import REFUNDED
from receiver.simulator.reports.files import refund_data, settlement_data

_TYPE = "_GET_FLAT_FILE_OFFAMAZONPAYMENTS_{}_DATA_".format
REFUND_DATA, SETTLEMENT_DATA, SANDBOX_SETTLEMENT_DATA = map(_TYPE, ("REFUND", "SETTLEMENT", "SANDBOX_SETTLEMENT"))
ALWAYS_EMPTY = tuple(map(_TYPE, ("ORDER_REFERENCE", "BILLING_AGREEMENT", "AUTHORIZATION")))
TYPES = (REFUND_DATA, SETTLEMENT_DATA, SANDBOX_SETTLEMENT_DATA, *ALWAYS_EMPTY)
REQUESTABLE = {"live": (REFUND_DATA, *ALWAYS_EMPTY), "sandbox": (SANDBOX_SETTLEMENT_DATA,)}

IN_PROGRESS, COMPLETED, FAILED, CANCELLED = STATUSES = ("IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED")
DAY = 86_400_000
KEPT = 90 * DAY
"""ms for which a report is kept."""


@dataclass(slots=True)
class Report:
    """One report. Times in ms; `finished_at` is 0 while it is in progress."""

    report_id: str
    report_type: str
    start: int
    end: int
    created_at: int
    ready_at: int
    finished_at: int = 0
    status: str = IN_PROGRESS
    document_id: str = ""


@dataclass(frozen=True, slots=True)
class Alteration:
    """What the reports say of a refund in place of the truth."""

    state: str = ""
    amount: str = ""
    missing_in: Collection[str] = ()
    """The types of reports that leave the refund out."""


class Reports:
    """All reports of one merchant in one environment. `delay`: how long Amazon takes to make one, ms."""

    def __init__(self, bank: Bank, ids: Ids, merchant_id: str, now: Callable[[], int], delay: int) -> None:
        self.delay = delay
        self.settle_every = DAY
        """ms between two settlements; 0: only by `settle`."""
        self.known: dict[str, Report] = {}
        self.alterations: dict[str, Alteration] = {}
        self.failing = 0
        """How many of the next reports end as FAILED."""
        self._bank, self._ids, self._merchant_id, self._now = bank, ids, merchant_id, now
        self._documents: dict[str, bytes] = {}
        self._answers: dict[str, tuple[tuple[str, int, int], Report]] = {}
        self._settled_until = now()

    def create(self, report_type: str, start: int, end: int, key: str) -> Report:
        """Request a report. The same values under a used idempotency key return its report. Raises `Fault` 400."""
        if report_type not in REQUESTABLE[self._bank.environment]:
            raise invalid_value("reportType", f"it cannot be requested in the environment {self._bank.environment}")
        if not start < end:
            raise invalid_value("endTime", "it is not after startTime")
        values = (report_type, start, end)
        if key in self._answers:
            before, report = self._answers[key]
            if before != values:
                raise Fault(400, "DuplicateIdempotencyKey", "The idempotency key was used before, with other values.")
            return report
        report = self._add(report_type, start, end, self._now() + self.delay)
        self._answers[key] = (values, report)
        return report

    def settle(self, until: int | None = None) -> Report | None:
        """Make a settlement of everything since the last one, and its report; None if there is nothing, or in the
        sandbox, which has no settlements."""
        start, end = self._settled_until, self._now() if until is None else until
        self._settled_until = end
        if self._bank.environment != "live" or not self._in_settlement(start, end - 1):
            return None
        report = self._add(SETTLEMENT_DATA, start, end - 1, end)
        self._finish(report)
        return report

    def get(self, report_id: str) -> Report:
        """One report; raises `Fault` 404."""
        self.advance()
        return known(self.known, "report", report_id)

    def document(self, document_id: str) -> bytes:
        """The document of a completed report; raises `Fault` 404."""
        self.advance()
        return known(self._documents, "report document", document_id)

    def all(self) -> list[Report]:
        """Every report that is still kept, newest first."""
        self.advance()
        return sorted(self.known.values(), key=lambda each: (each.created_at, each.report_id), reverse=True)

    def advance(self) -> None:
        """Make the settlements and reports that are due, and remove what is too old."""
        now = self._now()
        while self.settle_every and self._settled_until + self.settle_every <= now:
            self.settle(self._settled_until + self.settle_every)
        for report in list(self.known.values()):
            if report.status == IN_PROGRESS and report.ready_at <= now:
                self._finish(report)
            if report.created_at < now - KEPT:
                self._documents.pop(report.document_id, None)
                del self.known[report.report_id]

    def _add(self, report_type: str, start: int, end: int, ready_at: int) -> Report:
        report_id = f"A{self._ids.uuid().replace('-', '').upper()[:20]}"
        report = Report(report_id, report_type, start, end, min(self._now(), ready_at), ready_at)
        self.known[report_id] = report
        return report

    def _finish(self, report: Report) -> None:
        report.finished_at = report.ready_at
        if self.failing:
            self.failing -= 1
            report.status = FAILED
            return
        content = self._content(report)
        report.status = CANCELLED if content is None else COMPLETED
        if content is not None:
            report.document_id = str(10_000_000_000 + len(self.known))
            self._documents[report.document_id] = content

    def _content(self, report: Report) -> bytes | None:
        """The file; None if there is nothing to report."""
        if report.report_type in ALWAYS_EMPTY:
            return None
        if report.report_type == REFUND_DATA:
            changed = [
                refund
                for refund in self._reported(REFUND_DATA)
                if any(report.start <= each.at <= report.end for each in refund.history)
            ]
            rows = [(each, self._altered(each).state or each.state, self._amount(each)) for each in changed]
            return refund_data(rows) if rows else None
        charges = [
            each
            for each in self._bank.charges.values()
            if each.state == "Captured" and report.start <= each.created_at <= report.end
        ]
        refunds = self._in_settlement(report.start, report.end)
        if not (charges or refunds):
            return None
        rows_of = [(each, self._bank.charges[each.order.charge_id], self._amount(each)) for each in refunds]
        return settlement_data(self._merchant_id, report.report_id[-10:], (report.start, report.end), charges, rows_of)

    def _in_settlement(self, start: int, end: int) -> list[Refund]:
        return [
            refund
            for refund in self._reported(SETTLEMENT_DATA)
            if refund.state == REFUNDED and start <= refund.updated_at <= end
        ]

    def _reported(self, report_type: str) -> Iterator[Refund]:
        for refund in self._bank.refunds.values():
            if report_type not in self._altered(refund).missing_in:
                yield refund

    def _altered(self, refund: Refund) -> Alteration:
        return self.alterations.get(refund.refund_id, Alteration())

    def _amount(self, refund: Refund) -> str:
        return self._altered(refund).amount or refund.order.amount.text

"""Pure. Reads a report of refund data or settlement data, row by row, from a file of any size.

Sources: the columns of settlement data, and the lines before them, are listed in
https://developer.amazon.com/docs/amazon-pay-reports/settlement-reports.html. Those of refund data are listed nowhere in
public: https://developer.amazon.com/docs/amazon-pay-reports/transaction-reports.html only says that it has every refund
that was made, or whose state changed, in the period, and that names differ slightly from those of the API. So the names
of the API's two generations are all accepted (https://developer.amazon.com/docs/eu/amazon-pay-api/refunddetails.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from receiver.amazon.ids import id_problem, is_refund_id, shown
from receiver.amazon.reports.lines import Line, lines
from receiver.amazon.reports.table import HEAD_WITHIN, Record, columns, records
from receiver.amazon.reports.values import is_credit, parse_amount, parse_when
from receiver.errors import Malformed
from receiver.ledger.reconciliation.rows import RefundRow, Row, SettlementRow
from receiver.ledger.refund import state_of

REFUNDS, SETTLEMENTS = "refunds", "settlements"
REPORT_TYPES: Mapping[str, str] = MappingProxyType(
    {
        REFUNDS: "_GET_FLAT_FILE_OFFAMAZONPAYMENTS_REFUND_DATA_",
        SETTLEMENTS: "_GET_FLAT_FILE_OFFAMAZONPAYMENTS_SETTLEMENT_DATA_",
    }
)
"""Amazon's `reportType` of each: https://developer.amazon.com/docs/amazon-pay-api-v2/reports.html"""

COLUMNS: Mapping[str, Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        REFUNDS: {
            "id": ("refundid", "amazonrefundid"),
            "state": ("refundstatus", "refundstate", "state", "status"),
            "amount": ("refundamount", "amount"),
            "currency": ("currencycode", "refundcurrencycode", "refundamountcurrencycode", "currency"),
            "created": ("creationdate", "creationtimestamp", "refundcreationdate"),
            "updated": (
                *("lastupdatetimestamp", "lastupdatedtimestamp", "lastupdatedate", "lastupdateddate"),
                *("refundstatuslastupdatetimestamp", "refundlastupdatetimestamp"),
            ),
            "reason": ("reasoncode", "refundreasoncode"),
        },
        SETTLEMENTS: {
            "id": ("amazontransactionid", "transactionid"),
            "amount": ("transactionamount", "amount"),
            "type": ("transactiontype",),
            "currency": ("currencycode", "currency"),
            "settlement": ("settlementid",),
            "posted": ("transactionposteddate", "posteddate"),
        },
    }
)
"""The columns of each report in normal form; if a column has several names, the first one in the file counts. The first
two columns of a report are required, and identify the report."""
SELLER = re.compile(r"sellerid\W{1,5}([a-z0-9]{5,30})\b", re.IGNORECASE)
START, END = (
    re.compile(rf"settlement{each}date\W{{1,5}}([0-9][0-9TZ:.+/ -]+[0-9Z])", re.I) for each in ("start", "end")
)


class Heading(NamedTuple):
    """What a file says about itself. Unknown texts are empty, unknown times are 0."""

    report: str
    """`refunds` or `settlements`."""
    seller_id: str = ""
    """The merchant id."""
    start: int = 0
    """The settlement period, ms."""
    end: int = 0


class Refused(NamedTuple):
    """A line that cannot be read, and why: a clause that is safe to show on a terminal."""

    line: int
    reason: str


class Other(NamedTuple):
    """A row about something else than a refund: a capture, a transfer, a chargeback."""

    line: int


Item = Heading | RefundRow | SettlementRow | Refused | Other


def read(chunks: Iterable[bytes]) -> Iterator[Item]:
    """A report, given in pieces of any size: the heading first, then every line that is not empty, in order.

    Memory does not grow with the file. Raises `Malformed` (`not_a_report`) if the file has no header of either report.
    """
    source = lines(chunks)
    heading, delimiter, names = _header(source)
    yield heading
    reader = _Reader(heading.report, names)
    for record in records(source, delimiter):
        yield reader.item(record)


def _header(source: Iterator[Line]) -> tuple[Heading, str, list[str]]:
    before = list[str]()
    for line in source:
        delimiter, names = columns(line.text or "")
        for report, wanted in COLUMNS.items():
            needed = list(wanted.values())[:2]
            if all(any(name in names for name in each) for each in needed):
                return _heading(report, "\n".join(before)), delimiter, names
        before.append(line.text or "")
        if line.number >= HEAD_WITHIN:
            break
    raise Malformed(
        f"This is neither a report of refund data (a header with RefundId and RefundStatus) nor one of settlement data "
        f"(AmazonTransactionId and TransactionAmount): its first {HEAD_WITHIN} lines have neither header.",
        reason="not_a_report",
    )


def _heading(report: str, before: str) -> Heading:
    seller, start, end = (pattern.search(before) for pattern in (SELLER, START, END))
    return Heading(
        report, seller[1].upper() if seller else "", *(_when(each[1]) if each else 0 for each in (start, end))
    )


def _when(text: str) -> int:
    try:
        return parse_when(text)
    except Malformed:
        return 0


class _Reader:
    """Reads the rows of one report."""

    def __init__(self, report: str, names: Sequence[str]) -> None:
        self._is_settlement = report == SETTLEMENTS
        self._width = len(names)
        self._place = {
            field: next((names.index(name) for name in wanted if name in names), -1)
            for field, wanted in COLUMNS[report].items()
        }

    def item(self, record: Record) -> Item:
        """The content of one row."""
        if record.problem:
            return Refused(record.line, record.problem)
        if not record.is_ended and len(record.cells) < self._width:
            return Refused(record.line, "the file ends within this row: it is not complete")
        value = {
            field: record.cells[place] if 0 <= place < len(record.cells) else "" for field, place in self._place.items()
        }
        refund_id = value["id"].strip("'\"")
        if self._is_settlement and value["type"].lower() != "refund" and not is_refund_id(refund_id):
            return Other(record.line)
        if problem := id_problem(refund_id):
            return Refused(record.line, problem)
        if len(record.cells) > self._width and any(record.cells[self._width :]):
            return Refused(record.line, "the row has more columns than the header")
        return self._row(record.line, refund_id, value)

    def _row(self, line: int, refund_id: str, value: Mapping[str, str]) -> Row | Refused:
        try:
            if self._is_settlement:
                return SettlementRow(
                    refund_id=refund_id,
                    amount=parse_amount(value["amount"], value["currency"]),
                    is_credit=is_credit(value["amount"]),
                    settlement_id=value["settlement"][:64],
                    posted_at=parse_when(value["posted"]),
                    line=line,
                )
            if not value["state"]:
                return Refused(line, "the state is missing")
            return RefundRow(
                refund_id=refund_id,
                state=state_of(value["state"])[:64],
                amount=parse_amount(value["amount"], value["currency"]) if value["amount"] else None,
                created_at=parse_when(value["created"]),
                updated_at=parse_when(value["updated"]),
                reason_code=value["reason"][:64],
                line=line,
            )
        except Malformed as error:
            read = {"bad_timestamp": ("created", "updated", "posted"), "bad_currency": ("currency",)}
            texts = [value[each] for each in read.get(error.reason, ("amount",)) if value.get(each)]
            return Refused(line, f"{error.reason.replace('bad_', '')} {shown(' '.join(texts))} cannot be read")

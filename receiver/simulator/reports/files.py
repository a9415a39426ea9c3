"""Pure. The files of reports: refund data and settlement data, as comma-separated text.

The columns of settlement data, and the lines before them, are those of Amazon's page "Settlement Report Details". No
page lists those of refund data, so they have the names of the XML generation's API (`RefundDetails`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

from receiver.simulator.bank import Charge, Refund

REFUND_COLUMNS = (
    *("AmazonRefundId", "RefundReferenceId", "SellerRefundNote", "RefundType", "RefundAmount", "CurrencyCode"),
    *("CreationTimestamp", "RefundStatus", "ReasonCode", "LastUpdateTimestamp", "SoftDescriptor"),
)
SETTLEMENT_COLUMNS = (
    *("TransactionPostedDate", "SettlementId", "AmazonTransactionId", "SellerReferenceId", "TransactionType"),
    *("AmazonOrderReferenceId", "SellerOrderId", "StoreName", "CurrencyCode", "TransactionDescription"),
    *("TransactionAmount", "TransactionPercentageFee", "TransactionFixedFee", "TotalTransactionFee"),
    "NetTransactionAmount",
)
OLD_STATES = {"RefundInitiated": "Pending", "Refunded": "Completed"}
"""The words of the XML generation, which the reports are from."""


class _Lines(list[str]):
    """What a `csv.writer` writes to."""

    write = list.append


def time_text(ms: int) -> str:
    """`2015-05-18T15:48:50-0000`: the form in reports."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S-0000")


def refund_data(rows: Iterable[tuple[Refund, str, str]]) -> bytes:
    """A report of refund data. Each row is a refund, and the state and amount that the report shows of it."""
    return _table(
        [],
        REFUND_COLUMNS,
        (
            (
                *(refund.refund_id, "", "", "SellerInitiated", amount, refund.order.amount.currency),
                *(time_text(refund.created_at), OLD_STATES.get(state, state), refund.reason),
                *(time_text(refund.updated_at), refund.order.soft_descriptor),
            )
            for refund, state, amount in rows
        ),
    )


def settlement_data(
    merchant_id: str,
    settlement_id: str,
    period: tuple[int, int],
    captures: Iterable[Charge],
    refunds: Iterable[tuple[Refund, Charge, str]],
) -> bytes:
    """A report of settlement data. Each refund comes with its charge and the amount that the report shows of it."""
    start, end = map(time_text, period)

    def row(at: int, object_id: str, charge: Charge, kind: str, amount: str, currency: str) -> tuple[str, ...]:
        texts = (time_text(at), settlement_id, object_id, charge.reference, kind, charge.permission_id, "")
        return (*texts, "Simulator", currency, kind, amount, "0.00", "0.00", "0.00", amount)

    rows = [
        *(
            row(each.created_at, each.charge_id, each, "Capture", each.amount.text, each.amount.currency)
            for each in captures
        ),
        *(
            row(each.updated_at, each.refund_id, charge, "Refund", str(-Decimal(amount)), each.order.amount.currency)
            for each, charge, amount in refunds
        ),
    ]
    head = [("SellerId", merchant_id), ("SettlementStartDate", start), ("SettlementEndDate", end)]
    return _table(head, SETTLEMENT_COLUMNS, rows)


def _table(head: Iterable[tuple[str, str]], columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> bytes:
    lines = _Lines()
    writer = csv.writer(lines, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerows(head)
    writer.writerow(columns)
    writer.writerows(rows)
    return "".join(lines).encode()

"""Reports as Amazon writes them. The columns of settlement data are those of Amazon's page; six lines come before
them."""

from __future__ import annotations

from collections.abc import Sequence

SETTLEMENT_HEAD = (
    "TransactionPostedDate,SettlementId,AmazonTransactionId,SellerReferenceId,TransactionType,AmazonOrderReferenceId,"
    "SellerOrderId,StoreName,CurrencyCode,TransactionDescription,TransactionAmount,TransactionPercentageFee,"
    "TransactionFixedFee,TotalTransactionFee,NetTransactionAmount"
)
REFUND_HEAD = (
    "RefundId,RefundReferenceId,AmazonCaptureId,RefundType,RefundAmount,CurrencyCode,CreationDate,RefundStatus,"
    "LastUpdateTimestamp,ReasonCode"
)
SELLER = "A2ZABCDEFGHIJ"


def refund_row(
    refund_id: str,
    state: str = "Completed",
    amount: str = "14.00",
    currency: str = "USD",
    updated: str = "2026-11-01T11:00:00+0000",
    created: str = "2026-11-01T10:00:00+0000",
    reason: str = "",
) -> str:
    cells = (refund_id, "ref", refund_id, "SellerInitiated", amount, currency, created, state, updated, reason)
    return ",".join(f'"{cell}"' for cell in cells)


def settlement_row(
    refund_id: str,
    amount: str = "-14.00",
    currency: str = "USD",
    kind: str = "Refund",
    posted: str = "2026-11-01T11:00:00+0000",
    settlement: str = "5044561311",
) -> str:
    return (
        f'"{posted}","{settlement}","{refund_id}","ref","{kind}","P01-1234567-1234567","1001","店","{currency}",'
        f'"Transaction","{amount}","0.00","0.00","0.00","{amount}"'
    )


def refunds(rows: Sequence[str], head: str = REFUND_HEAD) -> str:
    return "\r\n".join([head, *rows, ""])


def settlements(
    rows: Sequence[str], start: str = "2026-11-01T00:00:00+0000", end: str = "2026-11-08T00:00:00+0000"
) -> str:
    before = [f'"SellerId={SELLER}"', f'"SettlementStartDate={start}"', f'"SettlementEndDate={end}"', "", '""']
    return "\r\n".join([*before, SETTLEMENT_HEAD, *rows, ""])

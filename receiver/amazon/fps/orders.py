"""Pure. A requested Flexible Payments refund: its values and its progress.

For seven days Amazon treats the same values under the same reference as the same refund. So an order is repeated until
Amazon gives its verdict, but not after that time: Amazon has then forgotten the reference, and would refund again.
"""

from __future__ import annotations

import msgspec

from receiver.amazon.attempt import RETRY_FIRST, RETRY_MOST, Made, RefusedByAmazon, TryAgain, Verdict, is_unknown
from receiver.amazon.fps.calls import FpsRefundRequest, Policy
from receiver.errors import AmazonError, AmazonRefused, AmazonRefusesUs
from receiver.ledger.polling import backoff
from receiver.ledger.refund import Observation
from receiver.ledger.refund_request import Progress


class FpsOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A refund to make. Every attempt sends these values in this version of the API, even if the settings change."""

    values: FpsRefundRequest
    version: str

    def means(self, values: FpsRefundRequest) -> bool:
        """Whether these are the values of this order, as Amazon interprets them."""
        return _meaning(self.values) == _meaning(values)


class FpsRecord(Progress, frozen=True, kw_only=True):
    """An order and its progress so far."""

    order: FpsOrder
    first_at: int = 0
    """When the first attempt was sent, ms; 0: never."""


def judge(result: Observation | AmazonError | None, record: FpsRecord | None, now: int, random: float) -> Verdict:
    """The verdict of an attempt on its order. Total. `result` is None if it was too late to send anything.

    Every refusal is a verdict, unlike in Amazon Pay: FPS has separate errors for requests that it rejects.
    """
    if isinstance(result, Observation):
        return Made(result)
    if result is None:
        return RefusedByAmazon({"detail": _why_late(record)})
    if isinstance(result, AmazonRefused):
        return RefusedByAmazon(
            {
                "reason_code": result.reason_code,
                "detail": result.detail,
                "amazon_status": str(result.amazon_status or 0),
                "request_id": result.amazon_request_id or "",
            }
        )
    asked = (result.retry_after or 0) * 1000
    wait = max(backoff(RETRY_FIRST, RETRY_MOST, record.tries if record else 0, random), asked)
    return TryAgain(result, now + wait, is_unknown(result), {"detail": result.detail, "last_error": result.reason})


def _why_late(record: FpsRecord | None) -> str:
    last = record.detail if record and record.detail else "no answer was waited for."
    if record and record.unknown:
        return last
    if record and record.last_error == AmazonRefusesUs.reason:
        return f"Amazon refused our requests for a week, so nothing was refunded. Use a new reference. {last}"
    return "Amazon could not be reached for a week, so nothing was refunded. Use a new reference."


def _meaning(values: FpsRefundRequest) -> tuple[str, ...]:
    amount = str(values.amount or "")
    return values.reference, values.transaction_id, amount, values.description, values.policy or Policy.MASTER

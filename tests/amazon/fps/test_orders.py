"""What the end of an attempt means for an order of Flexible Payments."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from receiver.amazon.attempt import Made, RefusedByAmazon, TryAgain, Verdict
from receiver.amazon.fps.calls import FpsRefundRequest
from receiver.amazon.fps.orders import FpsOrder, FpsRecord, judge
from receiver.errors import AmazonError, AmazonOutcomeUnknown, AmazonRefused, AmazonRefusesUs, AmazonThrottled
from tests.store.makers import seen

T = 1_760_000_000_000
S, M, H = 1_000, 60_000, 3_600_000
ORDER = FpsOrder(values=FpsRefundRequest("14GKTRANSACTION", "R-1"), version="2008-09-17")
RECORD = FpsRecord(order=ORDER, tries=1, detail="last words", last_error="amazon_timeout")
UNREACHED = "Amazon could not be reached for a week, so nothing was refunded. Use a new reference."
REFUSED_US = "Amazon refused our requests for a week, so nothing was refunded. Use a new reference. last words"


def again(wait: int, *, unknown: bool, reason: str) -> TryAgain:
    return TryAgain(AmazonError(), T + wait, unknown, {"detail": "no", "last_error": reason})


def record(**more: object) -> FpsRecord:
    return msgspec.structs.replace(RECORD, **more)


TABLE: dict[str, tuple[AmazonError | None, FpsRecord | None, Verdict]] = {
    "throttled": (AmazonThrottled("no"), RECORD, again(5 * S, unknown=False, reason="amazon_throttled")),
    "throttled with a time": (
        AmazonThrottled("no", retry_after=7_200), RECORD, again(2 * H, unknown=False, reason="amazon_throttled")
    ),
    "refuses us": (AmazonRefusesUs("no"), RECORD, again(5 * S, unknown=False, reason="amazon_refuses_us")),
    "no answer": (AmazonOutcomeUnknown("no"), RECORD, again(5 * S, unknown=True, reason="amazon_unknown")),
    "the fourth time": (
        AmazonOutcomeUnknown("no"), record(tries=4), again(40 * S, unknown=True, reason="amazon_unknown")
    ),
    "many times": (
        AmazonOutcomeUnknown("no"), record(tries=999), again(450 * S, unknown=True, reason="amazon_unknown")
    ),
    "without a record": (AmazonOutcomeUnknown("no"), None, again(2_500, unknown=True, reason="amazon_unknown")),
    "no connection": (
        AmazonOutcomeUnknown("no", reason="amazon_dns_failed"), RECORD,
        again(5 * S, unknown=False, reason="amazon_dns_failed"),
    ),
    "refused": (
        AmazonRefused("no", reason_code="InvalidTransactionState", amazon_status=400, amazon_request_id="abc"), RECORD,
        RefusedByAmazon(
            {"reason_code": "InvalidTransactionState", "detail": "no", "amazon_status": "400", "request_id": "abc"}
        ),
    ),
    "refused with little said": (
        AmazonRefused("no", reason_code="X"), None,
        RefusedByAmazon({"reason_code": "X", "detail": "no", "amazon_status": "0", "request_id": ""}),
    ),
    "too late": (None, RECORD, RefusedByAmazon({"detail": UNREACHED})),
    "too late without a record": (None, None, RefusedByAmazon({"detail": UNREACHED})),
    "too late after refusals": (None, record(last_error="amazon_refuses_us"), RefusedByAmazon({"detail": REFUSED_US})),
    "too late after an unknown end": (
        None, record(unknown=True, last_error="amazon_refuses_us"), RefusedByAmazon({"detail": "last words"})
    ),
    "too late, and the answer was lost": (
        None, record(unknown=True, detail=""), RefusedByAmazon({"detail": "no answer was waited for."})
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_every_end_of_an_attempt_has_one_verdict(case: str) -> None:
    error, known, expected = TABLE[case]
    verdict = judge(error, known, T, 0.0)
    if isinstance(expected, TryAgain) and isinstance(verdict, TryAgain):
        assert verdict.error is error
        verdict = replace(verdict, error=expected.error)
    assert verdict == expected


def test_a_refund_is_made() -> None:
    assert judge(seen(), None, T, 0.0) == Made(seen())

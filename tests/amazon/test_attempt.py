"""What the end of an attempt to issue a refund means for its request."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.amazon.answers import VERDICTS
from receiver.amazon.attempt import Made, RefusedByAmazon, TryAgain, Verdict, is_unknown, judge
from receiver.errors import (
    AmazonError,
    AmazonNotFound,
    AmazonOutcomeUnknown,
    AmazonRefused,
    AmazonRefusesUs,
    AmazonThrottled,
)
from receiver.exchange import NEVER_SENT
from receiver.ledger.money import Money
from receiver.ledger.refund_request import KEY_TAKEN, PreparedRefund, RefundRequestRecord
from tests.store.makers import seen

T = 1_760_000_000_000
S, M, H = 1_000, 60_000, 3_600_000
MONEY = Money(Decimal(1), "USD")
PREPARED = PreparedRefund(id="r", digest="d", amazon_key="k", body=b"{}", charge_id="S01-1-C1", money=MONEY)
RECORD = RefundRequestRecord(order=PREPARED, tries=1, created_at=T)
UNKNOWN = msgspec.structs.replace(RECORD, unknown=True)
FOURTH = msgspec.structs.replace(RECORD, tries=4)
SAID: dict[str, str] = {"reason_code": "X", "amazon_status": "400", "request_id": "abc"}
REFUSES_US = AmazonRefusesUs("no", reason_code="X", amazon_status=400, amazon_request_id="abc")
SILENT = {"reason_code": "", "amazon_status": "0", "request_id": ""}


def kept(error: str, detail: str = "no", **more: str) -> dict[str, str]:
    return {**SILENT, "detail": detail, "last_error": error, **more}


def again(wait: int, *, unknown: bool, fields: dict[str, str], late: bool = False) -> TryAgain:
    return TryAgain(AmazonError(), T + wait, unknown, fields, late)


TABLE: dict[str, tuple[AmazonError, RefundRequestRecord | None, Verdict]] = {
    "throttled": (AmazonThrottled("no"), RECORD, again(5 * S, unknown=False, fields=kept("amazon_throttled"))),
    "throttled with a time": (
        AmazonThrottled("no", retry_after=7_200), RECORD, again(2 * H, unknown=False, fields=kept("amazon_throttled"))
    ),
    "no answer": (AmazonOutcomeUnknown("no"), RECORD, again(5 * S, unknown=True, fields=kept("amazon_unknown"))),
    "the fourth time": (AmazonOutcomeUnknown("no"), FOURTH, again(40 * S, unknown=True, fields=kept("amazon_unknown"))),
    "without a record": (AmazonOutcomeUnknown("no"), None, again(2_500, unknown=True, fields=kept("amazon_unknown"))),
    "no connection": (
        AmazonOutcomeUnknown("no", reason="amazon_connect_failed"), RECORD,
        again(5 * S, unknown=False, fields=kept("amazon_connect_failed")),
    ),
    "refuses us": (REFUSES_US, RECORD, again(1 * S, unknown=False, fields=kept("amazon_refuses_us", **SAID))),
    "refuses us the fourth time": (
        REFUSES_US, FOURTH, again(8 * S, unknown=False, fields=kept("amazon_refuses_us", **SAID))
    ),
    "refuses us with a time": (
        AmazonRefusesUs("no", retry_after=60), RECORD, again(60 * S, unknown=False, fields=kept("amazon_refuses_us"))
    ),
    "refuses us with a time too long": (
        AmazonRefusesUs("no", retry_after=86_400), RECORD,
        again(15 * M, unknown=False, fields=kept("amazon_refuses_us")),
    ),
    "a 404 that is not about the charge": (
        AmazonNotFound("no"), RECORD, again(1 * S, unknown=False, fields=kept("amazon_refuses_us"))
    ),
    "eight times": (
        AmazonOutcomeUnknown("no"), msgspec.structs.replace(RECORD, tries=8),
        again(450 * S, unknown=True, fields=kept("amazon_unknown"), late=True),
    ),
    "an hour old": (
        AmazonThrottled("no"), msgspec.structs.replace(RECORD, created_at=T - H),
        again(5 * S, unknown=False, fields=kept("amazon_throttled"), late=True),
    ),
    "refused": (
        AmazonRefused("no", reason_code="TransactionAmountExceeded", amazon_status=400), RECORD,
        RefusedByAmazon(
            kept("amazon_refused", reason_code="TransactionAmountExceeded", amazon_status="400"), is_proven=True
        ),
    ),
    "refused, no such charge": (
        AmazonNotFound("no", reason_code="ResourceNotFound", amazon_status=404), RECORD,
        RefusedByAmazon(kept("amazon_not_found", reason_code="ResourceNotFound", amazon_status="404"), is_proven=True),
    ),
    "refused after an unknown end": (
        AmazonRefused("no", reason_code="TransactionAmountExceeded"), UNKNOWN,
        RefusedByAmazon(kept("amazon_refused", reason_code="TransactionAmountExceeded"), is_proven=False),
    ),
    "refused, the key has other values": (
        AmazonRefused("no", reason_code=KEY_TAKEN), RECORD,
        RefusedByAmazon(kept("amazon_refused", reason_code=KEY_TAKEN), is_proven=False),
    ),
    "refused without a record": (
        AmazonRefused("no", reason_code="CurrencyMismatch"), None,
        RefusedByAmazon(kept("amazon_refused", reason_code="CurrencyMismatch"), is_proven=False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_every_end_of_an_attempt_has_one_verdict(case: str) -> None:
    error, record, expected = TABLE[case]
    verdict = judge(error, record, T, 0.0)
    if isinstance(expected, TryAgain) and isinstance(verdict, TryAgain):
        assert verdict.error is error
        assert verdict.refuses_us == (expected.fields["last_error"] == "amazon_refuses_us")
        verdict = replace(verdict, error=expected.error)
    assert verdict == expected


def test_a_refund_is_made() -> None:
    assert judge(seen(), None, T, 0.0) == Made(seen())


REASONS = [*(f"amazon_{each}" for each in sorted(NEVER_SENT)), "amazon_timeout", "amazon_unknown"]
ERRORS = st.one_of(
    st.builds(AmazonThrottled, retry_after=st.none() | st.integers(0, 86_400)),
    st.builds(AmazonRefusesUs, retry_after=st.none() | st.integers(0, 86_400)),
    st.builds(
        AmazonOutcomeUnknown,
        reason=st.sampled_from(
            [*(f"amazon_{each}" for each in sorted(NEVER_SENT)), "amazon_timeout", "amazon_unknown"]
        ),
    ),
    st.builds(AmazonRefused, reason_code=st.sampled_from([*sorted(VERDICTS), "", "Other"])),
    st.builds(AmazonNotFound, reason_code=st.sampled_from([*sorted(VERDICTS), "", "Other"])),
    st.builds(AmazonError),
)


@given(ERRORS, st.integers(0, 10_000), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_only_a_verdict_of_amazons_ends_a_request(error: AmazonError, tries: int, unknown: bool, random: float) -> None:
    record = msgspec.structs.replace(RECORD, tries=tries, unknown=unknown)
    verdict = judge(error, record, T, random)
    is_verdict = isinstance(error, AmazonRefused) and error.reason_code in VERDICTS
    assert isinstance(verdict, RefusedByAmazon if is_verdict else TryAgain)
    if isinstance(verdict, TryAgain):
        assert T + S <= verdict.at <= T + 86_400 * S
        assert verdict.unknown == is_unknown(error)


@pytest.mark.parametrize(
    "error", [AmazonError(), AmazonOutcomeUnknown(), AmazonOutcomeUnknown(reason="amazon_timeout")]
)
def test_what_is_not_known_to_have_done_nothing_may_have_made_the_refund(error: AmazonError) -> None:
    assert is_unknown(error)

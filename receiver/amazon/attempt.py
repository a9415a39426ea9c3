"""Pure. The result of one attempt to issue a refund → issued, try again, or refused. Total.

    a refund                                     Made
    a refusal with one of Amazon's `VERDICTS`    Refused
    any other refusal, or 429                    TryAgain: Amazon did nothing
    no answer, or an incomplete one              TryAgain; whether Amazon did anything is unknown, unless the request
                                                 cannot have reached it (`never_sent`)

Attempts are repeated until Amazon gives its verdict: after 5 s, 10 s, … 15 min, with jitter, and not before Amazon's
Retry-After. After the first refusal of our request the wait is 2 s: Amazon sometimes refuses requests at random for a
moment, and another of its hosts may accept the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from receiver.amazon.answers import VERDICTS
from receiver.errors import AmazonError, AmazonRefused, AmazonRefusesUs, AmazonThrottled
from receiver.exchange import never_sent
from receiver.ledger.polling import backoff
from receiver.ledger.refund import Observation
from receiver.ledger.refund_request import KEY_TAKEN, RefundRequestRecord

RETRY_FIRST, RETRY_MOST = 5_000, 900_000
REFUSES_US_FIRST = 2_000
ALARM_TRIES, ALARM_AFTER = 8, 3_600_000
"""After this many attempts, or at this age (ms), a request without an answer is logged as an error."""


@dataclass(frozen=True, slots=True)
class Made:
    """Amazon made the refund."""

    refund: Observation


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Send the same bytes again at `at` (ms)."""

    error: AmazonError
    at: int
    unknown: bool
    """Whether Amazon may have made the refund."""
    fields: Mapping[str, str]
    """What is stored about this attempt."""
    is_late: bool = False
    """Whether a person should look."""

    @property
    def refuses_us(self) -> bool:
        """Whether Amazon refused our request without saying anything about the refund."""
        return self.fields["last_error"] == AmazonRefusesUs.reason


@dataclass(frozen=True, slots=True)
class RefusedByAmazon:
    """There will be no refund, unless an earlier attempt made it; the store knows that."""

    fields: Mapping[str, str]
    """What is stored about this attempt."""
    is_proven: bool = False
    """Whether no attempt can have made a refund."""


Verdict = Made | TryAgain | RefusedByAmazon


def judge(result: Observation | AmazonError, record: RefundRequestRecord | None, now: int, random: float) -> Verdict:
    """The verdict of an attempt on its request. `record` is the request as it was before, if known."""
    if isinstance(result, Observation):
        return Made(result)
    if isinstance(result, AmazonRefused) and result.reason_code in VERDICTS:
        is_proven = record is not None and not record.unknown and result.reason_code != KEY_TAKEN
        return RefusedByAmazon(_fields(result, result.reason), is_proven)
    # A 404 without Amazon's code for an unknown object says nothing about the refund either.
    reason = AmazonRefusesUs.reason if isinstance(result, AmazonRefused) else result.reason
    tries, created_at = (record.tries, record.created_at) if record else (0, now)
    asked = (result.retry_after or 0) * 1000
    if reason == AmazonRefusesUs.reason:
        asked = min(asked, RETRY_MOST)
        wait = backoff(REFUSES_US_FIRST, RETRY_MOST, max(tries - 1, 0), random)
    else:
        wait = backoff(RETRY_FIRST, RETRY_MOST, tries, random)
    is_late = tries >= ALARM_TRIES or now - created_at >= ALARM_AFTER
    return TryAgain(result, now + max(wait, asked), is_unknown(result), _fields(result, reason), is_late)


def is_unknown(error: AmazonError) -> bool:
    """Whether Amazon may have made the refund although the attempt failed."""
    did_nothing = isinstance(error, AmazonThrottled | AmazonRefusesUs | AmazonRefused)
    return not did_nothing and not never_sent(error.reason)


def _fields(error: AmazonError, reason: str) -> dict[str, str]:
    return {
        "reason_code": error.reason_code,
        "detail": error.detail,
        "amazon_status": str(error.amazon_status or 0),
        "request_id": error.amazon_request_id or "",
        "last_error": reason,
    }

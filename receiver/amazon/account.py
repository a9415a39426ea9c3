"""Pure. The settings of one Amazon Pay account: trusted topics, endpoint, signing key, rate limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from receiver.amazon.calls import Endpoint
from receiver.amazon.fps.calls import Version
from receiver.amazon.fps.signing import Credentials, SignatureMethod
from receiver.amazon.signing import Signer
from receiver.amazon.sns.topic import TopicPattern
from receiver.amazon.throttle import Bucket, Call
from receiver.ledger.age import DAY, STUCK_AFTER
from receiver.ledger.charge import OVER
from receiver.ledger.polling import SECOND_LOOKS, PollPlan
from receiver.ledger.timestamps import milliseconds, parse_duration

SETTLED_WITHIN = 7 * DAY


class Environment(StrEnum):
    """`releaseEnvironment` of Amazon's answers, in lower case."""

    LIVE = "live"
    SANDBOX = "sandbox"


@dataclass(frozen=True, slots=True)
class FpsAccess:
    """How the account calls Flexible Payments, which Amazon retired in 2015."""

    endpoint: str
    credentials: Credentials
    version: Version = Version.V2008_05_01
    method: SignatureMethod = SignatureMethod.HMAC_SHA256


@dataclass(frozen=True, slots=True)
class DailyReconciliation:
    """The daily comparison of the account with Amazon's reports."""

    minute: int
    """The minute of the day at which it starts, in `time_zone` (a name of the IANA database)."""
    time_zone: str
    span: int
    """ms: how far back the fetched reports go."""


@dataclass(frozen=True, slots=True)
class Account:
    """One merchant in one environment. `name` is the Redis hash tag and the last part of `/ipn/{account}`."""

    name: str
    merchant_id: str
    environment: Environment
    topics: Sequence[TopicPattern]
    endpoint: Endpoint
    signer: Signer
    throttle: Mapping[Call, Bucket]
    poll: PollPlan
    min_signature_version: int = 1
    signing_certificates: Mapping[str, bytes] = field(default_factory=dict)
    """Pinned certificates: `SigningCertURL` → PEM. These are never fetched."""
    over: Mapping[str, int] = field(default_factory=lambda: dict(OVER))
    """Currency → maximum overage above the captured amount, minor units."""
    stuck_after: int = STUCK_AFTER
    """ms for which a refund can be pending before it counts as stuck."""
    decline_overdue_after: int = 3 * DAY
    """ms for which the case of a declined refund can be open before it counts as overdue."""
    second_looks: Sequence[int] = tuple(milliseconds(parse_duration(age)) for age in SECOND_LOOKS)
    """Ages (ms) of a final state at which Amazon is asked about the refund again."""
    settled_within: int = SETTLED_WITHIN
    """ms after which a Refunded refund should be in a settlement."""
    daily: DailyReconciliation | None = None
    """None: only on demand."""
    fps: FpsAccess | None = None
    """None: the account has no Flexible Payments."""

    @property
    def gauges(self) -> dict[str, float]:
        """The limits that alerts compare ages with, in seconds."""
        return {
            "stuck_after_seconds": self.stuck_after / 1000,
            "decline_overdue_after_seconds": self.decline_overdue_after / 1000,
        }

    def allows(self, topic_arn: str) -> bool:
        """Whether a notification of this topic may be for this account."""
        return any(pattern.matches(topic_arn) for pattern in self.topics)

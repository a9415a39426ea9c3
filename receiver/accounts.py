"""Pure. One Amazon Pay account as the verbs need it: whose notifications to believe, whom to ask, how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from receiver.amazonpay.aws_signature import Credentials, SignatureMethod
from receiver.amazonpay.calls import Endpoint
from receiver.amazonpay.fps import Version
from receiver.amazonpay.signing import Signer
from receiver.ledger.age import STUCK_AFTER
from receiver.ledger.allowance import OVER
from receiver.ledger.schedule import PollPlan

AMAZON_PAY_AWS_ACCOUNTS = frozenset({"291180941288", "598607868003"})
"""AWS accounts whose topics carried every Amazon Pay notification seen in public."""


class Environment(StrEnum):
    """`releaseEnvironment` of Amazon's answers, in lower case."""

    LIVE = "live"
    SANDBOX = "sandbox"


class Call(StrEnum):
    """The calls that Amazon throttles, each with a bucket of its own."""

    GET_REFUND = "get_refund"
    GET_CHARGE = "get_charge"
    CREATE_REFUND = "create_refund"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: at most `burst` at once, refilled with `per_second`."""

    burst: float
    per_second: float


LIVE_THROTTLE = {
    Call.GET_REFUND: Bucket(20, 4),
    Call.GET_CHARGE: Bucket(20, 4),
    Call.CREATE_REFUND: Bucket(10, 4),
}
SANDBOX_THROTTLE = {
    Call.GET_REFUND: Bucket(5, 1),
    Call.GET_CHARGE: Bucket(5, 1),
    Call.CREATE_REFUND: Bucket(2, 1),
}


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """One allowed `TopicArn`: an exact ARN, or `arn:aws:sns:<region>:<aws account>:<beginning>*`.

    The star stands for the rest of the topic's name and nothing else: partition, region and AWS account are exact.
    """

    text: str

    def matches(self, topic_arn: str) -> bool:
        """Whether the signed `TopicArn` is allowed by this pattern. Case counts."""
        if self.text == "*":
            return True
        if self.text.endswith("*"):
            return topic_arn.startswith(self.text[:-1]) and topic_arn.count(":") == 5
        return topic_arn == self.text


@dataclass(frozen=True, slots=True)
class FpsAccess:
    """How the account calls Flexible Payments, which Amazon retired in 2015."""

    endpoint: str
    credentials: Credentials
    version: Version = Version.V2008_05_01
    method: SignatureMethod = SignatureMethod.HMAC_SHA256


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
    """Currency → most that may be refunded over the captured amount, minor units."""
    stuck_after: int = STUCK_AFTER
    """ms that a refund may be pending before it counts as stuck."""
    fps: FpsAccess | None = None
    """None: no refunds by Flexible Payments."""

    def allows(self, topic_arn: str) -> bool:
        """Whether a notification of this topic may be for this account."""
        return any(pattern.matches(topic_arn) for pattern in self.topics)

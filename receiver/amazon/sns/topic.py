"""Pure. The SNS topics that an account accepts."""

from __future__ import annotations

from dataclasses import dataclass

AMAZON_PAY_AWS_ACCOUNTS = frozenset({"291180941288", "598607868003"})
"""The AWS accounts that own every publicly seen Amazon Pay topic."""


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """One allowed `TopicArn`: an exact ARN, or `arn:aws:sns:<region>:<aws account>:<beginning>*`.

    The star stands only for the rest of the topic's name. Partition, region and AWS account are exact.
    """

    text: str

    def matches(self, topic_arn: str) -> bool:
        """Whether this pattern allows the signed `TopicArn`. Case counts."""
        if self.text == "*":
            return True
        if self.text.endswith("*"):
            return topic_arn.startswith(self.text[:-1]) and topic_arn.count(":") == 5
        return topic_arn == self.text

"""Pure. The SNS host of each AWS region, and the name in its signing certificate.

The table is `signingCertCommonName` of aws-sdk-java-v2, `SnsHostProvider.java` (April 2026), without the isolated
partitions. The name for an unknown region is never guessed.
"""

from __future__ import annotations

from typing import Final

SUFFIX: Final = {
    "aws": "amazonaws.com",
    "aws-cn": "amazonaws.com.cn",
    "aws-us-gov": "amazonaws.com",
    "aws-eusc": "amazonaws.eu",
}
"""AWS partition → suffix of its host names."""

_DEFAULT = (
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "sa-east-1"),
    *("eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1", "eu-north-1"),
    *("ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2"),
)
_OPT_IN = (
    *("ap-east-1", "ap-east-2", "ap-south-2"),
    *("ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7"),
    *("eu-south-1", "eu-south-2", "eu-central-2", "me-south-1", "me-central-1"),
    *("af-south-1", "il-central-1", "ca-west-1", "mx-central-1"),
)


def _names() -> dict[tuple[str, str], str]:
    names = {("aws", region): "sns.amazonaws.com" for region in _DEFAULT}
    names |= {("aws", region): f"sns-signing.{region}.amazonaws.com" for region in _OPT_IN}
    names |= {("aws-cn", region): f"sns-{region}.amazonaws.com.cn" for region in ("cn-north-1", "cn-northwest-1")}
    names |= {("aws-us-gov", f"us-gov-{side}-1"): "sns-us-gov-west-1.amazonaws.com" for side in ("west", "east")}
    names["aws-eusc", "eusc-de-east-1"] = "sns-signing.eusc-de-east-1.amazonaws.eu"
    return names


SIGNING_NAMES: Final = _names()
"""(partition, region) → the DNS name in the signing certificate."""


def host(partition: str, region: str) -> str:
    """The host name of SNS in a region of one of the partitions of `SUFFIX`."""
    return f"sns.{region}.{SUFFIX[partition]}"


def signing_name(partition: str, region: str) -> str | None:
    """The DNS name that the signing certificate must have; None for an unknown region."""
    return SIGNING_NAMES.get((partition, region))

"""Pure. Notifications as SNS posts them for Amazon Pay: the message, the signed envelope around it, the headers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from receiver.exchange import Request

TOPICS = {
    ("na", "sandbox"): ("us-east-1", "A3BXB0YN3XH17H"),
    ("na", "live"): ("us-east-1", "AGWSWK15IEJJ7"),
    ("eu", "sandbox"): ("eu-west-1", "A1G8446IYHA4MR"),
    ("eu", "live"): ("eu-west-1", "A3M3RRFO9XDT2G"),
    ("jp", "sandbox"): ("us-west-2", "A31YDYE76E6TCP"),
    ("jp", "live"): ("us-west-2", "A1VC38T7YXB528"),
}
"""AWS region and marketplace of Amazon Pay's topics, from captured notifications; none is public for live Japan."""

AWS_ACCOUNT = "291180941288"
"""Amazon Pay's AWS account in those captures."""

SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
}  # fmt: skip
"""The signed fields in order (AWS, "Verifying the signatures of Amazon SNS messages"); absent ones are left out."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields of an SNS envelope, and for the log: whether it is genuine, and what it is about."""

    fields: Mapping[str, str]
    about: str = ""
    state: str = ""
    kind: str = "genuine"
    raw: bytes | None = None
    """The body, if it is not simply the fields as JSON."""

    @property
    def message_id(self) -> str:
        """`MessageId`; the same on every re-delivery."""
        return self.fields["MessageId"]

    def with_fields(self, **fields: str) -> Envelope:
        """A copy with other fields and the same signature."""
        return replace(self, fields={**self.fields, **fields})

    def request(self, url: str) -> Request:
        """The POST, with the headers that SNS sends. The content type is text/plain although the body is JSON."""
        topic = self.fields["TopicArn"]
        headers = {
            "content-type": "text/plain; charset=UTF-8",
            "user-agent": "Amazon Simple Notification Service Agent",
            "accept-encoding": "gzip,deflate",
            "x-amz-sns-message-type": self.fields["Type"],
            "x-amz-sns-message-id": self.message_id.partition("\n")[0],
            "x-amz-sns-topic-arn": topic,
        }
        if self.fields["Type"] == "Notification":
            subscription = self.fields["UnsubscribeURL"].rpartition("SubscriptionArn=")[2]
            headers["x-amz-sns-subscription-arn"] = subscription
        if self.raw is not None:
            headers["x-amz-sns-rawdelivery"] = "true"
        body = json.dumps(dict(self.fields), indent=2).encode() if self.raw is None else self.raw
        return Request("POST", url, headers, body)


@dataclass(frozen=True, slots=True)
class Publisher:
    """A topic's publisher: its ARN, the signing key, the certificate's address, and the signature version 1 or 2."""

    topic_arn: str
    key: RSAPrivateKey
    certificate_url: str
    subscription: str
    """The last part of the subscription's ARN, a UUID."""
    version: int = 1

    def publish(self, message: str, message_id: str, now: int, *, about: str = "", state: str = "") -> Envelope:
        """A signed notification of `message` at `now` (ms)."""
        region = self.topic_arn.split(":")[3]
        unsubscribe = f"https://sns.{region}.amazonaws.com/?Action=Unsubscribe&SubscriptionArn={self.topic_arn}:{self.subscription}"
        fields = {
            "Type": "Notification",
            "MessageId": message_id,
            "TopicArn": self.topic_arn,
            "Message": message,
            "Timestamp": sns_time(now),
            "SignatureVersion": str(self.version),
        }
        signed = sign(fields, self.key)
        return Envelope({**signed, "SigningCertURL": self.certificate_url, "UnsubscribeURL": unsubscribe}, about, state)


def topic_arn(region: str, environment: str, merchant_id: str) -> str:
    """The topic of a merchant: marketplace id directly followed by merchant id."""
    aws_region, marketplace = TOPICS[(region, environment)]
    return f"arn:aws:sns:{aws_region}:{AWS_ACCOUNT}:{marketplace}{merchant_id}"


def refund_message(merchant_id: str, refund_id: str, notification_id: str) -> str:
    """The message for a refund whose state has changed. It contains no state: the receiver has to look it up."""
    return object_message("REFUND", merchant_id, refund_id, notification_id)


def object_message(object_type: str, merchant_id: str, object_id: str, notification_id: str) -> str:
    """The message for a REFUND or a CHARGEBACK whose state has changed."""
    return json.dumps(
        {
            "MerchantID": merchant_id,
            "ObjectType": object_type,
            "ObjectId": object_id,
            "ChargePermissionId": object_id.rpartition("-")[0],
            "NotificationType": "STATE_CHANGE",
            "NotificationId": notification_id,
            "NotificationVersion": "V2",
        }
    )


class Unfamiliar(StrEnum):
    """Undocumented ways to name a refund. A receiver must not lose such a notification."""

    TEXT = "text"
    """A sentence."""
    NEW_TYPE = "new_type"
    """JSON about an object of another type."""
    ODD_MERCHANT = "odd_merchant"
    """JSON with a merchant id of another form."""
    BROKEN_XML = "broken_xml"
    """A message of the older generation, with XML that breaks off."""


def unfamiliar_message(kind: Unfamiliar, merchant_id: str, refund_id: str, notification_id: str) -> str:
    """A message that names the refund in an undocumented way."""
    usual = json.loads(refund_message(merchant_id, refund_id, notification_id))
    match kind:
        case Unfamiliar.TEXT:
            return f"Amazon Pay: something has become of the refund {refund_id}."
        case Unfamiliar.NEW_TYPE:
            return json.dumps({**usual, "ObjectType": "REFUND_BATCH", "ObjectId": "B-1", "Members": [refund_id]})
        case Unfamiliar.ODD_MERCHANT:
            return json.dumps({**usual, "MerchantID": f"amzn1.merchant.{merchant_id}"})
    xml = f"<RefundNotification><RefundDetails><AmazonRefundId>{refund_id}</AmazonRefundId>"
    return json.dumps({"NotificationType": "PaymentRefund", "SellerId": merchant_id, "NotificationData": xml})


def text_to_sign(fields: Mapping[str, str]) -> bytes:
    """Each signed field as name, line feed, value, line feed, in the order of `SIGNED`."""
    return "".join(f"{name}\n{fields[name]}\n" for name in SIGNED[fields["Type"]] if name in fields).encode()


def sign(fields: Mapping[str, str], key: RSAPrivateKey) -> dict[str, str]:
    """The fields with `Signature`: PKCS#1 v1.5 with SHA-1 for version 1, with SHA-256 for version 2."""
    digest = SHA1() if fields["SignatureVersion"] == "1" else SHA256()  # noqa: S303 - SNS's version 1 is SHA-1
    signature = key.sign(text_to_sign(fields), PKCS1v15(), digest)
    return {**fields, "Signature": base64.b64encode(signature).decode()}


def sns_time(ms: int) -> str:
    """`2017-06-28T18:15:08.017Z`."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03d}Z"

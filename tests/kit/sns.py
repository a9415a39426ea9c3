"""A stand-in for Amazon SNS: makes a certificate of the same shape, and signs envelopes with it. Shares no
code with the receiver."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.kit.accounts import MERCHANT, TOPIC

__all__ = [
    "MERCHANT",
    "NOW",
    "REFUND_ID",
    "TOPIC",
    "SnsSigner",
    "headers",
    "notice",
    "rsa_key",
    "signed_text",
    "timestamp",
]

NOW = 1_767_225_600_000
"""2026-01-01T00:00:00Z: the moment that the tests take for now."""

REFUND_ID = "S01-5105180-3221187-R022311"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def rsa_key(size: int = 2048, exponent: int = 65537, number: int = 0) -> rsa.RSAPrivateKey:
    """One key per session for each size, exponent and number: making them is slow."""
    return _rsa_key(size, exponent, number)


@cache
def _rsa_key(size: int, exponent: int, number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(exponent, size)


def timestamp(ms: int) -> str:
    """`2026-01-01T00:00:00.000Z`, as SNS writes it."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def notice(**overrides: object) -> str:
    """The text of a V2 notice about a refund."""
    fields: dict[str, object] = {
        "MerchantID": MERCHANT,
        "ObjectType": "REFUND",
        "ObjectId": REFUND_ID,
        "ChargePermissionId": REFUND_ID[:19],
        "NotificationType": "STATE_CHANGE",
        "NotificationId": "0b1c8f3e",
        "NotificationVersion": "V2",
    }
    return json.dumps({**fields, **overrides})


class SnsSigner:
    """One signing certificate of SNS, good by default; every part of it can be made wrong.

    `san` None leaves the extension out; `eku` None leaves that one out; times are ms since the epoch.
    """

    def __init__(
        self,
        region: str = "us-east-1",
        key_size: int = 2048,
        *,
        suffix: str = "amazonaws.com",
        common_name: str = "sns.amazonaws.com",
        san: list[str] | None = ["sns.amazonaws.com"],  # noqa: B006 - never changed
        ca: bool | None = False,
        eku: list[ObjectIdentifier] | None = [ExtendedKeyUsageOID.SERVER_AUTH],  # noqa: B006 - never changed
        digital_signature: bool = True,
        not_before: int = NOW - 30 * 86_400_000,
        not_after: int = NOW + 300 * 86_400_000,
        key: PrivateKey | None = None,
        issuer: str = "Amazon RSA 2048 M01",
        serial: int = 1,
    ) -> None:
        self.region, self.suffix = region, suffix
        self.key: PrivateKey = key or rsa_key(key_size)
        self._names, self._issuer, self._serial = (common_name, san), issuer, serial
        self._ca, self._eku, self._digital_signature = ca, eku, digital_signature
        self._dates = [datetime.fromtimestamp(ms // 1000, UTC) for ms in (not_before, not_after)]

    @cached_property
    def certificate(self) -> x509.Certificate:
        common_name, san = self._names
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._issuer)]))
            .public_key(self.key.public_key())
            .serial_number(self._serial)
            .not_valid_before(self._dates[0])
            .not_valid_after(self._dates[1])
            .add_extension(_key_usage(self._digital_signature), critical=True)
        )
        if san is not None:
            names = x509.SubjectAlternativeName([x509.DNSName(name) for name in san])
            builder = builder.add_extension(names, critical=False)
        if self._ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(self._ca, None), critical=True)
        if self._eku is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self._eku), critical=False)
        return builder.sign(rsa_key(), hashes.SHA256())

    @cached_property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @cached_property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @cached_property
    def name(self) -> str:
        """The hash in the file name: MD5 of the DER bytes."""
        return hashlib.md5(self.der).hexdigest()

    @property
    def url(self) -> str:
        return f"https://sns.{self.region}.{self.suffix}/SimpleNotificationService-{self.name}.pem"

    def sign(self, text: bytes, version: int = 1) -> str:
        """Base64 of the signature: SHA-1 for version 1, SHA-256 for version 2."""
        if not isinstance(self.key, rsa.RSAPrivateKey):
            return base64.b64encode(bytes(256)).decode()
        chosen = hashes.SHA1() if version == 1 else hashes.SHA256()
        return base64.b64encode(self.key.sign(text, padding.PKCS1v15(), chosen)).decode()

    def envelope(
        self,
        message: str | None = None,
        *,
        topic_arn: str = TOPIC,
        timestamp_ms: int = NOW,
        version: int = 1,
        kind: str = "Notification",
        **overrides: Any,
    ) -> dict[str, Any]:
        """A signed envelope. `overrides` replace fields before it is signed; `Signature` is taken as it stands."""
        fields: dict[str, Any] = {
            "Type": kind,
            "MessageId": str(uuid.uuid4()),
            "TopicArn": topic_arn,
            "Message": notice() if message is None else message,
            "Timestamp": timestamp(timestamp_ms),
            "SignatureVersion": str(version),
            "SigningCertURL": self.url,
        }
        if kind == "Notification":
            fields["UnsubscribeURL"] = f"https://sns.{self.region}.{self.suffix}/?Action=Unsubscribe&SubscriptionArn=x"
        else:
            token = fields["Token"] = "2336412f37fb687f" * 14
            query = f"Action=ConfirmSubscription&TopicArn={topic_arn}&Token={token}"
            fields["SubscribeURL"] = f"https://sns.{self.region}.{self.suffix}/?{query}"
        fields |= overrides
        return {**fields, "Signature": overrides.get("Signature", self.sign(signed_text(fields), version))}

    def post_body(self, message: str | None = None, **parts: Any) -> bytes:
        """The body of the POST of `envelope(message, **parts)`."""
        return json.dumps(self.envelope(message, **parts)).encode()


def signed_text(fields: dict[str, Any]) -> bytes:
    """What SNS signs, as the developer guide describes it."""
    if fields["Type"] == "Notification":
        names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    else:
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    lines = [f"{name}\n{fields[name]}\n" for name in names if fields.get(name) is not None]
    return "".join(lines).encode("utf-8", "surrogatepass")


def headers(envelope: dict[str, Any]) -> dict[str, str]:
    """The headers of the POST, in lower case."""
    return {
        "content-type": "text/plain; charset=UTF-8",
        "user-agent": "Amazon Simple Notification Service Agent",
        "x-amz-sns-message-type": envelope["Type"],
        "x-amz-sns-message-id": envelope["MessageId"],
        "x-amz-sns-topic-arn": envelope["TopicArn"],
    }


def _key_usage(digital_signature: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )

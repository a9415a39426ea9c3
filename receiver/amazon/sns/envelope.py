"""Pure. Parses the body of a POST from SNS into an `Envelope` with the exact text that Amazon signed.

Every signed field must have one exact form. This makes the signed text unambiguous: it joins names and values with line
feeds and no escaping, so a line feed in a short field could move the field boundaries under an old signature.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

import msgspec

from receiver.amazon.sns import regions, strict_json
from receiver.errors import Malformed

MAX_BODY: Final = 256 * 1024
"""Bytes. SNS allows messages of 256 KiB; Amazon Pay's are below 10 KB including their envelope."""

NOTIFICATION: Final = "Notification"
SUBSCRIPTION: Final = "SubscriptionConfirmation"
UNSUBSCRIBE: Final = "UnsubscribeConfirmation"

TOPIC_ARN = re.compile(r"arn:(aws(?:-cn|-us-gov|-eusc)?):sns:([a-z0-9-]{1,32}):([0-9]{12}):[A-Za-z0-9_-]{1,256}")
"""Partition, region, AWS account, name. FIFO topics do not match: they cannot deliver over HTTP."""

_TYPE = re.compile(f"{NOTIFICATION}|{SUBSCRIPTION}|{UNSUBSCRIBE}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_VERSION = re.compile(r"[12]")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{4,1024}={0,2}")
_TOKEN = re.compile(r"[0-9a-f]{64,1024}")
_SUBJECT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,100}")
_ANY = re.compile(r".*", re.DOTALL)

_FORMS = {
    "Type": (_TYPE, "bad_type"),
    "MessageId": (_UUID, "bad_message_id"),
    "TopicArn": (TOPIC_ARN, "bad_topic_arn"),
    "Timestamp": (_TIMESTAMP, "bad_timestamp"),
    "SignatureVersion": (_VERSION, "bad_signature_version"),
    "Signature": (_BASE64, "bad_signature_encoding"),
}
_FORMED = re.compile("\n".join(f"(?:{form.pattern})" for form, _ in _FORMS.values()))
"""None of these forms allows a line feed."""
_FIELDS = frozenset(
    {
        *("Type", "MessageId", "TopicArn", "Message", "Timestamp", "SignatureVersion", "Signature", "SigningCertURL"),
        *("Subject", "UnsubscribeURL", "Token", "SubscribeURL", "MessageAttributes"),
    }
)
_SIGNED = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    SUBSCRIPTION: ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    UNSUBSCRIBE: ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_FOLDED = frozenset(name.casefold() for name in _FIELDS)
_HEADERS = {"x-amz-sns-message-type": "Type", "x-amz-sns-message-id": "MessageId", "x-amz-sns-topic-arn": "TopicArn"}
HEADERS: Final = frozenset({*_HEADERS, "x-amz-sns-rawdelivery"})
"""The headers that `read_envelope` checks."""
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One SNS message as received: well formed, but not yet proven."""

    type: str
    """`Notification`, `SubscriptionConfirmation` or `UnsubscribeConfirmation`."""
    message_id: str
    topic_arn: str
    partition: str
    region: str
    aws_account: str
    message: str
    timestamp: int
    """ms since the epoch, UTC."""
    signature_version: int
    """1 (SHA-1) or 2 (SHA-256). Not signed."""
    signature: bytes
    signing_cert_url: str
    """Any text: `signature.check_address` checks it. Not signed."""
    signed_text: bytes
    """The text that the signature covers."""
    subject: str | None = None
    token: str | None = None
    """Only in confirmations. A secret: it confirms the subscription."""
    subscribe_url: str | None = None
    """Only in confirmations: exactly the address that SNS builds from topic and token."""

    def __repr__(self) -> str:
        return f"Envelope({self.type} {self.message_id})"


def read_envelope(body: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> Envelope:
    """Parse the body of a POST from SNS.

    Header names are lower case. Headers, if present, must agree with the body; they are never trusted. Raises only
    `Malformed`, for any bytes. Fields and forms are those of the SNS developer guide, "HTTP/HTTPS notification JSON
    format", and of real messages.
    """
    if headers.get("x-amz-sns-rawdelivery", "false").lower() != "false":
        raise Malformed("Raw message delivery carries no signature: switch it off.", reason="raw_delivery")
    fields = strict_json.parse(body)
    if not isinstance(fields, dict):
        raise Malformed("The body is not a JSON object.", reason="not_an_object")
    _check_spelling(fields)
    envelope = _read(fields)
    for header, name in _HEADERS.items():
        if header in headers and headers[header] != fields[name]:
            raise Malformed(f"The header {header} contradicts the body.", reason="header_mismatch")
    return envelope


def _check_spelling(fields: dict[str, object]) -> None:
    """Refuse other spellings, such as Lambda's `SigningCertUrl` or `messageid`, and duplicates under them."""
    others = [name.casefold() for name in fields if name not in _FIELDS]
    if others and (len(set(others)) != len(others) or not _FOLDED.isdisjoint(others)):
        raise Malformed("A field name is not spelled as SNS spells it over HTTP.", reason="field_spelling")


def _read(fields: dict[str, object]) -> Envelope:
    kind, message_id, topic_arn, timestamp, version, signature = _formed(fields)
    _, partition, _, region, aws_account, _ = topic_arn.split(":")
    subject = token = subscribe_url = None
    if kind != NOTIFICATION:
        token = _take(fields, "Token", _TOKEN, "bad_token")
        subscribe_url = _subscribe_url(fields, regions.host(partition, region), topic_arn, token)
    elif "Subject" in fields:
        subject = _take(fields, "Subject", _SUBJECT, "bad_subject")
    return Envelope(
        type=kind,
        message_id=message_id,
        topic_arn=topic_arn,
        partition=partition,
        region=region,
        aws_account=aws_account,
        message=_take(fields, "Message", _ANY, "bad_message"),
        timestamp=_milliseconds(timestamp),
        signature_version=int(version),
        signature=_signature(signature),
        signing_cert_url=_take(fields, "SigningCertURL", _ANY, "bad_signing_cert_url"),
        signed_text=_signed_text(fields, kind),
        subject=subject,
        token=token,
        subscribe_url=subscribe_url,
    )


def _formed(fields: dict[str, object]) -> list[str]:
    """The single-line fields, in the order of `_FORMS`. All are matched at once, or one by one if any is wrong."""
    try:
        texts: list[str] = [fields[name] for name in _FORMS]  # type: ignore[misc]  # `join` checks them
        if _FORMED.fullmatch("\n".join(texts)):
            return texts
    except (KeyError, TypeError):
        pass
    return [_take(fields, name, form, reason) for name, (form, reason) in _FORMS.items()]


def _take(fields: dict[str, object], name: str, form: re.Pattern[str], reason: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise Malformed(f"{name} is missing, or is not in the form that SNS gives it.", reason=reason)
    return value


def _milliseconds(timestamp: str) -> int:
    try:
        return (datetime.fromisoformat(timestamp) - _EPOCH) // _MILLISECOND
    except ValueError as error:
        raise Malformed("Timestamp is not a valid time.", reason="bad_timestamp") from error


def _signature(text: str) -> bytes:
    """256 to 512 bytes, in canonical base64 (RFC 4648, section 3.5: padding bits are zero)."""
    try:
        signature = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise Malformed("Signature is not base64.", reason="bad_signature_encoding") from error
    if b64encode(signature).decode() != text:
        raise Malformed("Signature is not canonical base64.", reason="bad_signature_encoding")
    if not 256 <= len(signature) <= 512:
        raise Malformed(
            "Signature is not 256 to 512 bytes, as RSA keys of 2048 to 4096 bits make it.",
            reason="bad_signature_length",
        )
    return signature


def _subscribe_url(fields: dict[str, object], host: str, topic_arn: str, token: str) -> str:
    """SNS builds it from topic and token, always in this order. No other address is ever visited."""
    url = f"https://{host}/?Action=ConfirmSubscription&TopicArn={topic_arn}&Token={token}"
    if fields.get("SubscribeURL") != url:
        raise Malformed("SubscribeURL is not the one of this topic and token.", reason="bad_subscribe_url")
    return url


def _signed_text(fields: dict[str, object], kind: str) -> bytes:
    """Name, line feed, value, line feed for each field present (SNS guide, "Verifying the signatures")."""
    text = "".join([f"{name}\n{fields[name]}\n" for name in _SIGNED[kind] if name in fields])
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Malformed("A text holds half of a surrogate pair.", reason="lone_surrogate") from error

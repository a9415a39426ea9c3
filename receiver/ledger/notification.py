"""Pure. The result of a proven notification: a hint that a refund may have changed, or the message itself, stored
because this version does not understand it.

A hint makes the refund due now; it is never taken as the refund's state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from receiver.ledger.audit import THE_SERVICE, Actor
from receiver.ledger.refund import Source

UNASSIGNED = "*"
"""Stands for an account's name if the message names no merchant and several merchants are possible."""


class PostedNotification(NamedTuple):
    """What a client posted as a notification, before it is judged. Header names are lower case."""

    body: bytes
    headers: Mapping[str, str]
    account: str | None = None
    """The account in the request's path, if any."""
    traceparent: str = ""
    source: str = ""
    """The client, whose share of the certificate fetches is used."""


class HintResult(StrEnum):
    """The result of storing a hint. In all three cases the write is durable."""

    NEW = "new"
    REPEATED = "repeated"
    ALTERED = "altered"
    """The same `MessageId` came with a different signed text. Both are proven, so both count. A person should check."""


class NotificationOutcome(StrEnum):
    """What happened to a proven notification."""

    NOTED = "noted"
    REPEATED = "repeated"
    ALTERED = "altered"
    DISPUTE = "dispute"
    """A chargeback or claim: recorded, so that refunds of the payment are blocked."""
    NOT_A_REFUND = "not_a_refund"
    SAMPLE = "sample"
    SUBSCRIPTION = "subscription"
    CONFIRMED = "confirmed"
    UNSUBSCRIBE = "unsubscribe"
    UNRECOGNIZED = "unrecognized"
    """From Amazon, but not understood: kept, and every refund that it names is looked up."""


class Receipt(msgspec.Struct, frozen=True):
    """The notification is proven, and all its writes are durable."""

    outcome: NotificationOutcome
    age: int
    """Time since Amazon signed it, ms."""
    signature_version: int
    topic: str = ""
    object_type: str = ""
    """See `Notice.object_type`; empty if the message is not a notification."""
    refund_id: str = ""
    accounts: tuple[str, ...] = ()
    """The accounts that got the hint (result of each write: `noted`), or those of a test message."""
    noted: tuple[HintResult, ...] = ()


class UnrecognizedNotification(msgspec.Struct, frozen=True, array_like=True):
    """What is stored beside the message itself. New fields are added at the end and need a default."""

    digest: str
    """SHA-256 (hex) of the text that Amazon signed. A script compares it, so it must stay the first field."""
    message_id: str
    """SNS `MessageId`."""
    topic_arn: str
    sent_at: int
    """The signed `Timestamp`, ms."""
    received_at: int
    """ms."""
    problem: str
    """What was not understood, in our words."""
    accounts: tuple[str, ...]
    """The accounts that it may be for."""
    refund_ids: tuple[str, ...]
    """The first refunds that it names. All of them are looked up, unless it is a test message."""
    refund_count: int
    """How many refunds it names."""
    size: int
    """Length of the message in characters."""
    subject: str = ""


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """A reason to ask Amazon about a refund now."""

    refund_id: str
    at: int
    """When the hint arrived, ms."""
    source: Source
    message_id: str = ""
    """SNS `MessageId`: the same on every redelivery. Empty if the hint does not come from a notification."""
    digest: str = ""
    """SHA-256 (hex) of the text that Amazon signed."""
    sent_at: int = 0
    """The signed `Timestamp` of the notification, ms; 0 without one."""
    refund_type: str = ""
    """`RefundType`, which only XML notifications carry."""
    patient: bool = False
    """It waits behind proven notifications of a single refund, because it is unproven or one of many."""
    traceparent: str = ""
    """The sender's W3C Trace Context; empty if there was none."""
    by: Actor = THE_SERVICE
    """Who asks for a refresh. It is audited."""

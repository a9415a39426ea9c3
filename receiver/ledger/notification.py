"""Pure. The outcome of a proven notification, and what is kept of one that this version does not understand."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from receiver.ledger.hint import HintResult

UNASSIGNED = "*"
"""Stands for an account's name if the message names no merchant and several merchants are possible."""


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

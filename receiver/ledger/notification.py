"""Pure. A proven notification: its outcome, and what is kept of one that this version does not understand."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from receiver.ledger.hint import HintResult

UNASSIGNED = "*"
"""In place of an account's name: kept for several merchants, since the message does not say whose it is."""


class NotificationOutcome(StrEnum):
    """What became of a notification that was believed."""

    NOTED = "noted"
    REPEATED = "repeated"
    ALTERED = "altered"
    DISPUTE = "dispute"
    """A chargeback or a claim: written down, so that nobody is paid twice."""
    NOT_A_REFUND = "not_a_refund"
    SAMPLE = "sample"
    SUBSCRIPTION = "subscription"
    CONFIRMED = "confirmed"
    UNSUBSCRIBE = "unsubscribe"
    UNRECOGNIZED = "unrecognized"
    """Amazon's, and not understood: kept, and every refund that it names is asked about."""


class Receipt(msgspec.Struct, frozen=True):
    """A notification was believed, and all that it calls for is written."""

    outcome: NotificationOutcome
    age: int
    """How long ago Amazon signed it, ms."""
    signature_version: int
    topic: str = ""
    object_type: str = ""
    """See `Notice.object_type`; empty for what is not a notification."""
    refund_id: str = ""
    accounts: tuple[str, ...] = ()
    """The accounts that the hint was written for, with what each write came to in `noted`; those of a test message."""
    noted: tuple[HintResult, ...] = ()


class UnrecognizedNotification(msgspec.Struct, frozen=True, array_like=True):
    """What is kept beside the message itself. New fields go to the end, and have a default."""

    digest: str
    """SHA-256 (hex) of the text that Amazon signed. The first field: a script compares it."""
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
    """The first refunds that it names. Amazon was asked about all of them, unless it is a test message."""
    refund_count: int
    """How many it names."""
    size: int
    """Characters of the message."""
    subject: str = ""

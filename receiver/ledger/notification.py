"""Pure. A notification that is proven to be Amazon's, and that this version does not understand: it is kept."""

from __future__ import annotations

import msgspec

UNASSIGNED = "*"
"""In place of an account's name: kept for several merchants, since the message does not say whose it is."""


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

"""Pure. What became of a notification that was believed."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from receiver.ledger.hint import HintResult


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

"""Pure. A hint: somebody says that a refund may have changed. It makes the refund due now; it is never the truth."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from receiver.ledger.refund import Source


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """Why a refund should be asked about now."""

    refund_id: str
    at: int
    """When we took the hint, ms."""
    source: Source
    message_id: str = ""
    """SNS `MessageId`: the same on every re-delivery. Empty where no notification stands behind the hint."""
    digest: str = ""
    """SHA-256 (hex) of the text that Amazon signed."""
    sent_at: int = 0
    """The signed `Timestamp` of the notification, ms; 0 without one."""
    refund_type: str = ""
    """`RefundType`, which only XML notifications tell."""
    patient: bool = False
    """It waits behind proven notifications of one refund each: nothing proves it, or it is one of many."""
    traceparent: str = ""
    """What whoever said so sent along (W3C Trace Context); empty where there was none."""


class HintResult(StrEnum):
    """What became of a hint that was handed to the store. All three are written durably."""

    NEW = "new"
    REPEATED = "repeated"
    ALTERED = "altered"
    """The same `MessageId` came with another signed text: both are proven, so both count, but somebody should look."""

"""Pure. A hint that a refund may have changed. It makes the refund due now; it is never taken as the refund's state."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from receiver.ledger.audit import THE_SERVICE, Actor
from receiver.ledger.refund import Source


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


class HintResult(StrEnum):
    """The result of storing a hint. In all three cases the write is durable."""

    NEW = "new"
    REPEATED = "repeated"
    ALTERED = "altered"
    """The same `MessageId` came with a different signed text. Both are proven, so both count. Worth checking."""

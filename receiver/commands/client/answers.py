"""Command. Answers of the API as commands read them, where they do so in another way than the service writes them.

All others are the types that the service encodes: `receiver/http/api/schema.py`, and what it imports.
"""

from __future__ import annotations

from typing import Any

import msgspec

from receiver.http.api.schema import DeliveryJson, ResetJson, StatsJson, SubscriberJson, TestSentJson
from receiver.ledger.dispute import DisputeJson


class RefundPage(msgspec.Struct, rename="camel"):
    """A page of the list; each refund is kept as it came."""

    refunds: list[dict[str, Any]]
    next_cursor: str | None = None


class History(msgspec.Struct):
    """A history; each revision is kept as it came."""

    revisions: list[dict[str, Any]]
    disputes: list[DisputeJson] = []


class AnySubscriber(SubscriberJson, kw_only=True):
    """A subscriber as any call shows it. `secret` comes once only, from the call that made it."""

    stats: StatsJson | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        return f"AnySubscriber({self.name})"


class AnyEvent(msgspec.Struct):
    """An event, as webhooks get it; `data` is a refund, a dispute, or what happened to deliveries."""

    id: str
    type: str
    time: str
    subject: str
    data: dict[str, Any]


class EventPage(msgspec.Struct):
    """A page of the feed; each event is kept as the bytes that came."""

    events: list[msgspec.Raw]
    after: str
    more: bool
    reset: ResetJson | None = None


class AnyTest(TestSentJson, kw_only=True):
    """What came of a test; `delivered` is null where it is not sent yet."""

    delivered: bool | None
    status: int | None = None
    error: str | None = None
    answer: str | None = None
    seconds: float = 0.0
    note: str | None = None


class AnyDelivery(DeliveryJson, kw_only=True):
    """A waiting or dead event."""

    reason: str | None = None
    next_attempt_at: str | None = None


class DeliveryPage(msgspec.Struct, rename="camel"):
    """A page of them."""

    deliveries: list[AnyDelivery]
    next_cursor: str | None = None

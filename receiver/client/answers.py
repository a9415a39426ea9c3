"""Edge: the web. The answers that the client decodes with other types than the service encodes them with.

For all others, both use `receiver/http/api/schema.py`, its imports, and `receiver/http/feed/schema.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from receiver.http.api.schema import DeliveryJson, StatsJson, SubscriberJson, TestSentJson
from receiver.http.feed.schema import ResetJson
from receiver.ledger.dispute import DisputeJson
from receiver.outbox.subscribers.equal import FieldChangeJson


class RefundPage(msgspec.Struct, rename="camel"):
    """A page of the list; each refund is the JSON received."""

    refunds: list[dict[str, Any]]
    next_cursor: str | None = None


class History(msgspec.Struct):
    """A history; each revision is the JSON received."""

    revisions: list[dict[str, Any]]
    disputes: list[DisputeJson] = []


class AnySubscriber(SubscriberJson, kw_only=True):
    """A subscriber in any answer. Only the answer to the call that created the secret has `secret`."""

    stats: StatsJson | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class PutSubscriber(AnySubscriber, kw_only=True):
    """A subscriber after a PUT; `outcome` is `created`, `changed` or `unchanged`."""

    outcome: str
    changes: list[FieldChangeJson]


class AnyEvent(msgspec.Struct):
    """An event, as webhooks get it; `data` is a refund, a dispute, or what happened to deliveries."""

    id: str
    type: str
    time: str
    subject: str
    data: dict[str, Any]


class EventPage(msgspec.Struct):
    """A page of the feed; each event is the bytes received."""

    events: list[msgspec.Raw]
    after: str
    more: bool
    cursors: list[str] = []
    reset: ResetJson | None = None


class AnyTest(TestSentJson, kw_only=True):
    """The result of a test; `delivered` is null if it is not sent yet."""

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
    deliveries: list[AnyDelivery]
    next_cursor: str | None = None

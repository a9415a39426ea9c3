"""Command. The API's answers, as far as tables show them. Fields that are not named here are passed over."""

from __future__ import annotations

from typing import Any

import msgspec


class Status(msgspec.Struct, rename="camel"):
    """`statusDetails`."""

    state: str
    last_updated_timestamp: str | None = None
    reason_code: str | None = None
    reason_description: str | None = None


class Amount(msgspec.Struct, rename="camel"):
    """`refundAmount`."""

    amount: str
    currency_code: str


class ActionAnswer(msgspec.Struct):
    """One thing that can be done."""

    action: str
    text: str


class AdviceAnswer(msgspec.Struct):
    """What happened, and what can be done."""

    summary: str
    actions: list[ActionAnswer]


class RevisionAnswer(msgspec.Struct, rename="camel"):
    """One line of a history; a refund has all of these too. Times are RFC 3339 texts."""

    status_details: Status
    revision: int
    final: bool
    changed_at: str
    source: str
    conflict: bool = False


class RetryRefusedAnswer(msgspec.Struct, rename="camel"):
    """Amazon's verdict on the last try to issue a declined refund again."""

    generation: int
    at: str
    reason_code: str | None = None
    detail: str | None = None


class RefundAnswer(RevisionAnswer, rename="camel", kw_only=True):
    """A refund."""

    refund_id: str
    account: str
    refund_amount: Amount | None = None
    charge_id: str | None = None
    soft_descriptor: str | None = None
    creation_timestamp: str | None = None
    release_environment: str | None = None
    order_reference: str | None = None
    refund_type: str | None = None
    retry_of: str | None = None
    retried_by: str | None = None
    retry_refused: RetryRefusedAnswer | None = None
    retryable: bool | None = None
    retryable_reasons: list[str] = []
    as_of: str | None = None
    unread_fields: list[str] = []
    issued_by: str | None = None
    first_seen_at: str | None = None
    advice: AdviceAnswer | None = None


class PendingAnswer(msgspec.Struct):
    """There is no refund yet."""

    detail: str = ""
    reason: str | None = None


class PageAnswer(msgspec.Struct, rename="camel"):
    """A page of the list; each refund is a `RefundAnswer`."""

    refunds: list[dict[str, Any]]
    next_cursor: str | None = None


class DisputeAnswer(msgspec.Struct, rename="camel"):
    """A dispute about the charge of a refund."""

    dispute_id: str
    kind: str
    open: bool = True
    amount: Amount | None = None
    reason: str | None = None
    state: str | None = None
    first_told_at: str | None = None


class HistoryAnswer(msgspec.Struct, rename="camel"):
    """A history; each revision is a `RevisionAnswer`."""

    refund_id: str
    account: str
    revisions: list[dict[str, Any]]
    disputes: list[DisputeAnswer] = []


class RefreshAnswer(msgspec.Struct, rename="camel"):
    """A refresh was written down."""

    refund_id: str
    account: str


class SecretAnswer(msgspec.Struct, rename="camel"):
    """A secret as it may be shown."""

    fingerprint: str
    expires_at: str | None = None


class CredentialAnswer(msgspec.Struct):
    """Which field is a credential beside signing secrets, and by what it can be told apart."""

    field: str
    fingerprint: str


class StatsAnswer(msgspec.Struct, rename="camel"):
    """How a subscriber fares. Times are RFC 3339 texts."""

    waiting: int
    dead: int
    delivered: int
    failures_in_a_row: int
    breaker: str
    oldest_waiting: str | None = None
    last_success: str | None = None
    last_error: str | None = None
    last_error_at: str | None = None


class SubscriberAnswer(msgspec.Struct, rename="camel"):
    """A subscriber. `secret` comes once only, from the call that made it."""

    name: str
    account: str
    url: str
    types: list[str]
    secrets: list[SecretAnswer]
    reasons: list[str] | None = None
    min_amount: list[str] | None = None
    rate: float | None = None
    concurrency: int | None = None
    backfill: bool | None = None
    stats: StatsAnswer | None = None
    paused: bool = False
    paused_reason: str | None = None
    paused_at: str | None = None
    origin: str = ""
    created_at: str | None = None
    format: str = "cloudevents"
    credential: CredentialAnswer | None = None
    secret: str | None = msgspec.field(default=None)

    def __repr__(self) -> str:
        return f"SubscriberAnswer({self.name})"


class SubscribersAnswer(msgspec.Struct):
    """Every subscriber that the token may see."""

    subscribers: list[SubscriberAnswer]


class EventAnswer(msgspec.Struct):
    """An event, as webhooks get it; `data` is a `RefundAnswer`."""

    id: str
    type: str
    time: str
    data: dict[str, Any]


class ResetAnswer(msgspec.Struct):
    """Events may be lost: in which accounts, and why."""

    accounts: dict[str, str]
    detail: str = ""


class EventsAnswer(msgspec.Struct):
    """A page of the feed; each event is an `EventAnswer`, kept as the bytes that came."""

    events: list[msgspec.Raw]
    after: str
    more: bool
    reset: ResetAnswer | None = None


class TryAnswer(msgspec.Struct, rename="camel"):
    """What came of a test; `delivered` is null where nobody has sent it yet."""

    id: str
    delivered: bool | None
    status: int | None = None
    error: str | None = None
    answer: str | None = None
    seconds: float = 0.0
    note: str | None = None


class DeliveryAnswer(msgspec.Struct, rename="camel"):
    """A waiting or dead event."""

    stream_id: str
    written_at: str
    attempts: int
    id: str | None = None
    type: str | None = None
    refund_id: str | None = None
    reason: str | None = None
    last_error: str | None = None
    next_attempt_at: str | None = None


class DeliveriesAnswer(msgspec.Struct, rename="camel"):
    """A page; each delivery is a `DeliveryAnswer`."""

    deliveries: list[dict[str, Any]]
    next_cursor: str | None = None


class RedriveAnswer(msgspec.Struct, rename="camel"):
    """What is sent again."""

    selected: int
    redriven: int
    already_waiting: int
    missing: list[str]

"""HTTP. The types of answers: handlers fill them, and the OpenAPI description is built from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from receiver.ledger.dispute import DisputeJson
from receiver.ledger.history import RevisionJson
from receiver.ledger.lifecycle import EventType
from receiver.ledger.request_shape import RefundRequestJson, RefusalJson
from receiver.ledger.schema import Account, Json, MoneyJson, RefundJson, Rfc3339
from receiver.outbox.subscribers.schema import PublicJson


def either(*kinds: type) -> dict[str, Any]:
    """The schema of a list of these types: msgspec cannot tell several object types apart."""
    names = [kind.__name__.removesuffix("Json") for kind in kinds]
    return {"items": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}}


NextCursor = Annotated[str | None, Meta(description="Cursor of the next page; null on the last one.")]


class RefundListJson(Json, kw_only=True):
    """Refunds, newest change first."""

    refunds: list[RefundJson]
    unreadable: Annotated[list[str], Meta(description="Ids of refunds whose records are damaged.")]
    next_cursor: NextCursor = None
    scan_cut: Annotated[bool, Meta(description="Whether the scan limit ended the page: continue with nextCursor.")]


class HistoryJson(Json, kw_only=True):
    """Every revision of a refund, oldest first."""

    refund_id: str
    account: Account
    revisions: list[RevisionJson]
    disputes: Annotated[list[DisputeJson], Meta(description="Of its charge or charge permission, the first one first.")]


class RefreshJson(Json, kw_only=True):
    """Amazon will be asked; this is durably recorded."""

    refund_id: str
    account: Account
    refresh: Literal["noted"] = "noted"


class PendingJson(Json, kw_only=True):
    """Amazon has not answered yet; the request is saved and will be retried."""

    account: Account
    charge_id: str
    refund_amount: MoneyJson | None = None
    status: Literal["pending"]
    reason: Annotated[
        str | None, Meta(description="How the last attempt failed, such as amazon_timeout or amazon_refuses_us.")
    ] = None
    detail: str


class PendingRequestJson(PendingJson, kw_only=True):
    """Amazon has not answered yet: repeat the call with the same Idempotency-Key."""

    refund_request_id: str
    order_reference: Annotated[str | None, Meta(description="The merchant's own order number.")] = None
    amazon: Annotated[RefusalJson | None, Meta(description="Amazon's answer to the last attempt, if any.")] = None


class PendingOrderJson(PendingJson, kw_only=True):
    """Amazon has not answered yet: repeat the call with the same values."""

    refund_id: Annotated[str, Meta(description="The reference that you gave.")]


class RequestListJson(Json, kw_only=True):
    """Open refund requests: unclear before reserved, oldest first."""

    requests: list[RefundRequestJson]
    total: Annotated[int, Meta(description="Total, including those not shown.", extra_json_schema={"minimum": 0})]
    unreadable: Annotated[list[str], Meta(description="Ids of requests whose records are damaged.")]


class SubscriberJson(PublicJson, kw_only=True):
    """A subscriber and its account."""

    account: Account


class SubscriberListJson(Json, kw_only=True):
    """Subscribers, by account and name."""

    subscribers: list[SubscriberJson]
    unreadable: Annotated[list[str], Meta(description="Subscribers whose records are damaged, as account/name.")]


MadeSecret = Annotated[
    str,
    Meta(description="Only if one was generated, and only in this answer.", extra_json_schema={"pattern": "^whsec_"}),
]


class ChangedSubscriberJson(SubscriberJson, kw_only=True):
    """A subscriber with changed fields or a new secret."""

    secret: MadeSecret | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class AddedSubscriberJson(ChangedSubscriberJson, kw_only=True):
    """A new subscriber."""

    events_after: Annotated[str, Meta(description="Stream id of the last event before the subscriber was added.")]


class StatsJson(Json, kw_only=True):
    """A subscriber's delivery health."""

    waiting: int
    oldest_waiting: Rfc3339 | None = None
    dead: int
    delivered: int
    last_success: Rfc3339 | None = None
    last_error: str | None = None
    last_error_at: Rfc3339 | None = None
    failures_in_a_row: int
    breaker: Annotated[
        Literal["open", "closed"], Meta(description="open: messages are sent one at a time until one succeeds.")
    ]


class SubscriberWithStatsJson(SubscriberJson, kw_only=True):
    """A subscriber and its delivery health."""

    stats: StatsJson


class DeliveryJson(Json, kw_only=True):
    """The delivery of one event to a subscriber."""

    id: Annotated[str | None, Meta(description="The event's id: the webhook-id.")] = None
    stream_id: str
    type: str | None = None
    refund_id: str | None = None
    written_at: Rfc3339
    attempts: int
    last_status: int | None = None
    last_error: str | None = None
    last_answer: Annotated[str | None, Meta(description="The beginning of the subscriber's last answer.")] = None


class DeadDeliveryJson(DeliveryJson, kw_only=True):
    """A delivery that failed permanently."""

    reason: str
    dead_at: Rfc3339


class WaitingDeliveryJson(DeliveryJson, kw_only=True):
    """A delivery that waits for its next attempt."""

    next_attempt_at: Rfc3339


class DeliveryListJson(Json, kw_only=True):
    """Dead deliveries newest first, or waiting ones by the time of their next attempt."""

    account: Account
    state: Annotated[str, Meta(extra_json_schema={"enum": ["dead", "waiting"]})]
    deliveries: Annotated[list[Any], Meta(extra_json_schema=either(DeadDeliveryJson, WaitingDeliveryJson))]
    next_cursor: NextCursor = None


class RedriveJson(Json, kw_only=True):
    """The events to resend."""

    account: Account
    dry_run: bool
    selected: int
    stream_ids: Annotated[list[str], Meta(description="The first hundred of those selected.")]
    missing: Annotated[list[str], Meta(description="Ids that were not found.")]
    redriven: int
    already_waiting: int


class TestSentJson(Json, kw_only=True):
    account: Account
    id: str
    type: Annotated[str, Meta(extra_json_schema={"enum": [EventType.TEST.value]})]


class TestPendingJson(TestSentJson, kw_only=True):
    """A test event that is not sent yet."""

    delivered: None = None
    error: str


class TestedJson(TestSentJson, kw_only=True):
    """A test event and the subscriber's answer."""

    delivered: bool
    status: int | None = None
    error: str | None = None
    answer: str | None = None
    seconds: float
    note: str | None = None


class UnrecognizedJson(Json, kw_only=True):
    """A notification from Amazon Pay that this version does not understand."""

    notification_id: Annotated[
        str, Meta(description="SNS MessageId; with a suffix if the same id arrived with two different texts.")
    ]
    accounts: Annotated[list[str], Meta(description="The accounts that it may concern.")]
    topic_arn: str
    sent_at: Annotated[Rfc3339, Meta(description="The signed time.")]
    received_at: Rfc3339
    problem: Annotated[str, Meta(description="Human-readable: what was not understood.")]
    refund_ids: Annotated[
        list[str],
        Meta(description="The first refunds that it names. Amazon is asked about all, unless it is a test message."),
    ]
    refund_count: Annotated[int, Meta(description="How many refunds it names.")]
    size: Annotated[int, Meta(description="Characters of the message.")]
    subject: str | None = None


class UnrecognizedListJson(Json, kw_only=True):
    """Stored notifications, newest first."""

    notifications: list[UnrecognizedJson]
    more: Annotated[bool, Meta(description="Whether more are kept: use a higher limit.")]


class UnrecognizedMessageJson(UnrecognizedJson, kw_only=True):
    """One notification, with its message."""

    message: Annotated[str, Meta(description="Exactly as Amazon signed it.")]


class SightingJson(Json, kw_only=True):
    """A topic, merchant or account that is not configured."""

    name: str
    count: int
    last_seen: Rfc3339


class CertificateJson(Json, kw_only=True):
    """A cached signing certificate."""

    file: str
    not_after: Rfc3339
    days_left: int


class StoreJson(Json, kw_only=True):
    kind: Literal["embedded", "redis"]


class DiagnosticsJson(Json, kw_only=True):
    """What this process has recorded since its start."""

    version: str
    time: Rfc3339
    store: StoreJson
    workers: Annotated[dict[str, str], Meta(description="By task, such as track:us: running, failing or ended.")]
    unconfigured_accounts: Annotated[tuple[SightingJson, ...], Meta(description="Names in `/ipn/{account}`.")] = ()
    unconfigured_topics: list[SightingJson]
    unconfigured_merchants: list[SightingJson]
    certificates: list[CertificateJson]


class AliveJson(Json, kw_only=True):
    """The process responds."""

    status: Literal["alive"]


class ReadinessJson(Json, kw_only=True):
    """Whether the service can work. `damagedKeys`: by key of the store, what it holds and should hold; at most 20."""

    status: Literal["ready", "not_ready"]
    checks: Annotated[dict[str, str], Meta(description="By check: ok, or a word for the problem.")]
    damaged_keys: dict[str, str] | UnsetType = UNSET

"""HTTP. The shapes of answers: handlers fill them, and the OpenAPI description is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from receiver.ledger.dispute import DisputeJson
from receiver.ledger.lifecycle import EventType
from receiver.ledger.request_shape import RefundRequestJson, RefusalJson
from receiver.ledger.schema import Account, MoneyJson, RefundJson, RevisionJson, Rfc3339
from receiver.outbox.subscribers.schema import PublicJson


def either(*names: str) -> dict[str, Any]:
    """A list of these, as a schema: msgspec cannot tell which of several objects one is."""
    return {"items": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}}


NextCursor = Annotated[str | None, Meta(description="For the next page; null on the last one.")]


class RefundListJson(TypedDict):
    """Refunds, newest change first."""

    refunds: list[RefundJson]
    unreadable: Annotated[list[str], Meta(description="Ids of those whose records are damaged.")]
    nextCursor: NextCursor
    scanCut: Annotated[bool, Meta(description="Whether one request looks at no more: go on with nextCursor.")]


class HistoryJson(TypedDict):
    """Every revision of a refund, oldest first."""

    refundId: str
    account: Account
    revisions: list[RevisionJson]
    disputes: Annotated[
        list[DisputeJson], Meta(description="Of its charge, or of its charge permission; the first told first.")
    ]


class RefreshJson(TypedDict):
    """It is written down that Amazon is to be asked."""

    refundId: str
    account: Account
    refresh: Literal["noted"]


class PendingJson(TypedDict):
    """Amazon has not answered yet; the request is kept and tried on."""

    account: Account
    chargeId: str
    refundAmount: MoneyJson | None
    status: Literal["pending"]
    reason: Annotated[
        str | None, Meta(description="How the last try failed, such as amazon_timeout or amazon_refuses_us.")
    ]
    detail: str


class PendingRequestJson(PendingJson):
    """Amazon has not answered yet: ask again with the same Idempotency-Key."""

    refundRequestId: str
    orderReference: Annotated[str | None, Meta(description="The merchant's own order number.")]
    amazon: Annotated[RefusalJson | None, Meta(description="Amazon's answer to the last try, if it gave one.")]


class PendingOrderJson(PendingJson):
    """Amazon has not answered yet: ask again with the same values."""

    refundId: Annotated[str, Meta(description="The reference that you gave.")]


class RequestListJson(TypedDict):
    """Refund requests that are open, unclear before reserved, the oldest first."""

    requests: list[RefundRequestJson]
    total: Annotated[int, Meta(description="How many there are, shown or not.", ge=0)]
    unreadable: Annotated[list[str], Meta(description="Ids of those whose records are damaged.")]


class SubscriberJson(PublicJson):
    """A subscriber, and the account that it belongs to."""

    account: Account


class SubscriberListJson(TypedDict):
    """Subscribers, by account and name."""

    subscribers: list[SubscriberJson]
    unreadable: Annotated[list[str], Meta(description="Those whose record is damaged, as account/name.")]


MadeSecret = Annotated[str, Meta(description="Only where one was made, and only this once.", pattern="^whsec_")]


class MadeSecretJson(TypedDict):
    """A signing secret that was made."""

    secret: NotRequired[MadeSecret]


class AddedSubscriberJson(SubscriberJson, MadeSecretJson):
    """A subscriber that was added."""

    eventsAfter: Annotated[str, Meta(description="Stream id of the last event before it came.")]


class ChangedSubscriberJson(SubscriberJson, MadeSecretJson):
    """A subscriber with other fields, or another secret."""


class StatsJson(TypedDict):
    """How a subscriber fares."""

    waiting: int
    oldestWaiting: Rfc3339 | None
    dead: int
    delivered: int
    lastSuccess: Rfc3339 | None
    lastError: str | None
    lastErrorAt: Rfc3339 | None
    failuresInARow: int
    breaker: Annotated[
        Literal["open", "closed"], Meta(description="open: one message at a time is sent, until one succeeds.")
    ]


class SubscriberWithStatsJson(SubscriberJson):
    """A subscriber, and how it fares."""

    stats: StatsJson


class DeliveryJson(TypedDict):
    """An event that a subscriber is owed, or was."""

    id: Annotated[str | None, Meta(description="The event's id: the webhook-id.")]
    streamId: str
    type: str | None
    refundId: str | None
    writtenAt: Rfc3339
    attempts: int
    lastStatus: int | None
    lastError: str | None
    lastAnswer: Annotated[str | None, Meta(description="The beginning of what the subscriber answered.")]


class DeadDeliveryJson(DeliveryJson):
    """An event that was given up."""

    reason: str
    deadAt: Rfc3339


class WaitingDeliveryJson(DeliveryJson):
    """An event that waits for its next try."""

    nextAttemptAt: Rfc3339


class DeliveryListJson(TypedDict):
    """Dead deliveries newest first, or waiting ones by the time of their next try."""

    account: Account
    state: Annotated[str, Meta(extra_json_schema={"enum": ["dead", "waiting"]})]
    deliveries: Annotated[list[Any], Meta(extra_json_schema=either("DeadDelivery", "WaitingDelivery"))]
    nextCursor: NextCursor


class RedriveJson(TypedDict):
    """What is sent again."""

    account: Account
    dryRun: bool
    selected: int
    streamIds: Annotated[list[str], Meta(description="The first hundred of those selected.")]
    missing: Annotated[list[str], Meta(description="Ids that are nowhere.")]
    redriven: int
    alreadyWaiting: int


class TestSentJson(TypedDict):
    """A test event."""

    account: Account
    id: str
    type: Annotated[str, Meta(extra_json_schema={"enum": [EventType.TEST.value]})]


class TestPendingJson(TestSentJson):
    """A test event that nobody has sent yet."""

    delivered: None
    error: str


class TestedJson(TestSentJson):
    """A test event, and what the subscriber answered."""

    delivered: bool
    status: int | None
    error: str | None
    answer: str | None
    seconds: float
    note: str | None


class ResetJson(TypedDict):
    """Events may be lost; the feed goes on from the oldest that is kept."""

    accounts: Annotated[dict[str, str], Meta(description="By account: trimmed or emptied.")]
    detail: str


class EventPageJson(TypedDict):
    """A page of events, oldest first."""

    events: Annotated[list[Any], Meta(extra_json_schema=either("RefundEvent", "OperatorEvent"))]
    after: Annotated[str, Meta(description="The cursor for the next page.")]
    more: Annotated[bool, Meta(description="Whether there is more already.")]
    reset: NotRequired[ResetJson]


class SightingJson(TypedDict):
    """A topic or merchant that nobody configured."""

    name: str
    count: int
    lastSeen: Rfc3339


class CertificateJson(TypedDict):
    """A signing certificate that is at hand."""

    file: str
    notAfter: Rfc3339
    daysLeft: int


class StoreJson(TypedDict):
    """Where data is kept."""

    kind: Literal["embedded", "redis"]


class DiagnosticsJson(TypedDict):
    """What this one process has seen since its start."""

    version: str
    time: Rfc3339
    store: StoreJson
    workers: Annotated[dict[str, str], Meta(description="By task, such as track:us: running, failing or ended.")]
    unconfiguredTopics: list[SightingJson]
    unconfiguredMerchants: list[SightingJson]
    certificates: list[CertificateJson]


class AliveJson(TypedDict):
    """The process answers."""

    status: Literal["alive"]


class ReadinessJson(TypedDict):
    """Whether it can work. `damagedKeys`: by key of the store, what it holds and should hold; at most 20."""

    status: Literal["ready", "not_ready"]
    checks: Annotated[dict[str, str], Meta(description="By check: ok, or a word for what is wrong.")]
    damagedKeys: NotRequired[dict[str, str]]

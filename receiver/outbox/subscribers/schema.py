"""Pure. The JSON of a subscriber as people may see it: of a secret only its fingerprint and its end."""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from receiver.ledger.schema import Rfc3339
from receiver.outbox.subscribers.formats import FORMATS


class CredentialJson(TypedDict):
    """A field that is a credential, and a fingerprint of it."""

    field: str
    fingerprint: str


class SecretJson(TypedDict):
    """What people may see of a signing secret."""

    fingerprint: str
    expiresAt: Rfc3339 | None


class PublicJson(TypedDict):
    """A subscriber as people may see it."""

    name: str
    url: Annotated[str, Meta(description="Of Slack only the host: the rest is a credential.")]
    types: list[str]
    reasons: Annotated[list[str] | None, Meta(description="Null: every reason code.")]
    minAmount: Annotated[list[str] | None, Meta(description="Such as 100.00 USD. Null: every amount.")]
    rate: Annotated[float | None, Meta(description="Messages a second at most. Null: delivery.rate.")]
    concurrency: Annotated[int | None, Meta(description="Messages under way at once. Null: delivery.per_subscriber.")]
    backfill: Annotated[
        bool, Meta(description="Whether it is told of refunds settled over 7 days before they were first seen here.")
    ]
    format: Annotated[str, Meta(extra_json_schema={"enum": [*FORMATS]})]
    credential: Annotated[CredentialJson | None, Meta(description="Beside signing secrets: what is kept from people.")]
    publicUrl: str | None
    paused: bool
    pausedReason: Annotated[str | None, Meta(description="gone, failing or operator.")]
    pausedAt: Rfc3339 | None
    origin: Annotated[str, Meta(extra_json_schema={"enum": ["api", "config"]})]
    createdAt: Rfc3339 | None
    secrets: list[SecretJson]

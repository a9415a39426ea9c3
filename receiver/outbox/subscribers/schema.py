"""Pure. The JSON of a subscriber as people may see it: of a secret only its fingerprint and its end."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from receiver.ledger.schema import Json, Rfc3339
from receiver.outbox.subscribers.formats import FORMATS


class CredentialJson(Json, kw_only=True):
    """A field that is a credential, and a fingerprint of it."""

    field: str
    fingerprint: str


class SecretJson(Json, kw_only=True):
    """What people may see of a signing secret."""

    fingerprint: str
    expires_at: Rfc3339 | None = None


class PublicJson(Json, kw_only=True):
    """A subscriber as people may see it."""

    name: str
    url: Annotated[str, Meta(description="Of Slack only the host: the rest is a credential.")]
    types: list[str]
    reasons: Annotated[list[str] | None, Meta(description="Null: every reason code.")] = None
    min_amount: Annotated[list[str] | None, Meta(description="Such as 100.00 USD. Null: every amount.")] = None
    rate: Annotated[float | None, Meta(description="Messages a second at most. Null: delivery.rate.")] = None
    concurrency: Annotated[
        int | None, Meta(description="Messages under way at once. Null: delivery.per_subscriber.")
    ] = None
    backfill: Annotated[
        bool, Meta(description="Whether it is told of refunds settled over 7 days before they were first seen here.")
    ]
    format: Annotated[str, Meta(extra_json_schema={"enum": [*FORMATS]})]
    credential: Annotated[
        CredentialJson | None, Meta(description="Beside signing secrets: what is kept from people.")
    ] = None
    public_url: str | None = None
    paused: bool
    paused_reason: Annotated[str | None, Meta(description="gone, failing or operator.")] = None
    paused_at: Rfc3339 | None = None
    origin: Annotated[str, Meta(extra_json_schema={"enum": ["api", "config"]})]
    created_at: Rfc3339 | None = None
    secrets: list[SecretJson]

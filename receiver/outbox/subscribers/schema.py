"""Pure. The JSON of a subscriber as people may see it: of a secret only its fingerprint and its end."""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from receiver.ledger.schema import Rfc3339
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.formats.registry import FORMATS, format_spec
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import host_only


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


def public_json(subscriber: Subscriber) -> PublicJson:
    """The subscriber as people may see it: of a secret only its fingerprint and its end."""
    chosen = format_spec(subscriber.format)
    return {
        "name": subscriber.name,
        "url": shown_url(subscriber),
        "types": list(subscriber.types),
        "reasons": list(subscriber.reasons) or None,
        "minAmount": [str(amount) for amount in subscriber.min_amount] or None,
        "rate": subscriber.rate,
        "concurrency": subscriber.concurrency,
        "backfill": chosen.takes_backfill(subscriber),
        "format": subscriber.format,
        "credential": _credential_json(subscriber),
        "publicUrl": subscriber.public_url or None,
        "paused": subscriber.paused,
        "pausedReason": subscriber.paused_reason or None,
        "pausedAt": format_rfc3339(subscriber.paused_at) if subscriber.paused else None,
        "origin": subscriber.origin,
        "createdAt": format_rfc3339(subscriber.created_at) if subscriber.created_at else None,
        "secrets": [
            {
                "fingerprint": secret.fingerprint,
                "expiresAt": None if secret.expires_at is None else format_rfc3339(secret.expires_at),
            }
            for secret in subscriber.secrets
        ],
    }


def shown_url(subscriber: Subscriber) -> str:
    """The address as people may see it: only the host where the rest is a credential."""
    return host_only(subscriber.url) if format_spec(subscriber.format).credential == "url" else subscriber.url


def _credential_json(subscriber: Subscriber) -> CredentialJson | None:
    """The field that is a credential, and a fingerprint of it; of signing secrets, `secrets` tells."""
    field = format_spec(subscriber.format).credential
    kept = Secret(subscriber.url) if field == "url" else subscriber.credential
    return {"field": field, "fingerprint": kept.fingerprint} if field and kept else None

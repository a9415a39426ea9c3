"""Pure. The public JSON of a subscriber. It shows only the fingerprint and the expiry of a secret."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from receiver.ledger.schema import Json, Rfc3339
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.formats.registry import FORMATS, format_spec
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import host_only


class CredentialJson(Json, kw_only=True):
    """The field that holds a credential, and its fingerprint."""

    field: str
    fingerprint: str


class SecretJson(Json, kw_only=True):
    """A signing secret without its value."""

    fingerprint: str
    expires_at: Rfc3339 | None = None


class PublicJson(Json, kw_only=True):
    """A subscriber without its secrets."""

    name: str
    url: Annotated[str, Meta(description="For Slack and Teams only the host: the rest is a credential.")]
    types: list[str]
    reasons: Annotated[list[str] | None, Meta(description="Null: every reason code.")] = None
    min_amount: Annotated[list[str] | None, Meta(description="Such as 100.00 USD. Null: every amount.")] = None
    rate: Annotated[float | None, Meta(description="The most messages a second. Null: delivery.rate.")] = None
    concurrency: Annotated[
        int | None, Meta(description="The most messages in flight. Null: delivery.per_subscriber.")
    ] = None
    backfill: Annotated[
        bool,
        Meta(description="Whether it gets events of refunds settled over 7 days before they were first seen here."),
    ]
    format: Annotated[str, Meta(extra_json_schema={"enum": [*FORMATS]})]
    credential: Annotated[
        CredentialJson | None, Meta(description="A credential other than a signing secret. Its value is hidden.")
    ] = None
    public_url: str | None = None
    paused: bool
    paused_reason: Annotated[str | None, Meta(description="gone, failing or operator.")] = None
    paused_at: Rfc3339 | None = None
    origin: Annotated[str, Meta(extra_json_schema={"enum": ["api", "config"]})]
    undeclared_at: Annotated[
        Rfc3339 | None, Meta(description="When the settings no longer named it. It gets events until it is removed.")
    ] = None
    created_at: Rfc3339 | None = None
    secrets: list[SecretJson]


def public_json(subscriber: Subscriber) -> PublicJson:
    """The public JSON of a subscriber. It shows only the fingerprint and the expiry of a secret."""
    chosen = format_spec(subscriber.format)
    return PublicJson(
        name=subscriber.name,
        url=shown_url(subscriber),
        types=list(subscriber.types),
        reasons=list(subscriber.reasons) or None,
        min_amount=[str(amount) for amount in subscriber.min_amount] or None,
        rate=subscriber.rate,
        concurrency=subscriber.concurrency,
        backfill=chosen.takes_backfill(subscriber),
        format=subscriber.format,
        credential=_credential_json(subscriber),
        public_url=subscriber.public_url or None,
        paused=subscriber.paused,
        paused_reason=subscriber.paused_reason or None,
        paused_at=format_rfc3339(subscriber.paused_at) if subscriber.paused else None,
        origin=subscriber.origin,
        undeclared_at=format_rfc3339(subscriber.undeclared_at) if subscriber.undeclared_at else None,
        created_at=format_rfc3339(subscriber.created_at) if subscriber.created_at else None,
        secrets=[
            SecretJson(
                fingerprint=secret.fingerprint,
                expires_at=None if secret.expires_at is None else format_rfc3339(secret.expires_at),
            )
            for secret in subscriber.secrets
        ],
    )


def shown_url(subscriber: Subscriber) -> str:
    """The address without credentials: only the host if the rest is a credential."""
    return host_only(subscriber.url) if format_spec(subscriber.format).credential == "url" else subscriber.url


def _credential_json(subscriber: Subscriber) -> CredentialJson | None:
    """The credential field and its fingerprint. Signing secrets are in `secrets`."""
    field = format_spec(subscriber.format).credential
    kept = Secret(subscriber.url) if field == "url" else subscriber.credential
    return CredentialJson(field=field, fingerprint=kept.fingerprint) if field and kept else None

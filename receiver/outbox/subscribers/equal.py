"""Pure. Makes a subscriber equal to given fields, and says in which fields two subscribers differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import structs, to_builtins

from receiver.errors import BadRequest
from receiver.ledger.schema import Json
from receiver.outbox.subscribers.schema import public_json
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import place_of

HISTORY = ("name", "paused", "pausedReason", "pausedAt", "origin", "createdAt")
"""Public fields that are not given."""


class FieldChangeJson(Json, kw_only=True):
    """A field that differs, in its public form: of a secret only the fingerprint."""

    field: str
    before: Any = None
    after: Any = None


def as_given(stored: Subscriber, given: Subscriber, *, with_secrets: bool) -> Subscriber:
    """The given subscriber with the creation time, pauses and origin of the stored one. It no longer counts as one that
    the settings should name.

    Without `with_secrets`, it also keeps the stored secrets. It keeps them, too, if the given secrets are the stored
    ones that don't expire: after a rotation, expiring secrets still sign for a while.
    """
    lasting = {secret.value for secret in stored.secrets if secret.expires_at is None}
    keeps = not with_secrets or lasting == {secret.value for secret in given.secrets}
    return structs.replace(
        given,
        secrets=stored.secrets if keeps and stored.secrets and given.secrets else given.secrets,
        paused=stored.paused,
        paused_reason=stored.paused_reason,
        paused_at=stored.paused_at,
        paused_ms=stored.paused_ms,
        origin=stored.origin,
        created_at=stored.created_at,
    )


def is_equal(stored: Subscriber, given: Subscriber, *, with_secrets: bool) -> bool:
    """Whether the stored subscriber has the given origin and fields. Its history does not matter; without
    `with_secrets`, neither do its secrets."""
    return stored.origin == given.origin and as_given(stored, given, with_secrets=with_secrets) == stored


def made_equal(stored: Subscriber, given: Subscriber, *, with_secrets: bool) -> Subscriber:
    """`as_given`, for a caller who may not know the stored secrets.

    Raises `BadRequest` (`credential_needed`) if they would sign what is sent to another scheme, host or port.
    """
    after = as_given(stored, given, with_secrets=with_secrets)
    keeps = bool(after.secrets) and after.secrets == stored.secrets and not with_secrets
    if keeps and place_of(stored.url) != place_of(after.url):
        raise BadRequest(
            "The url changes its scheme, host or port, and credentials are not sent to a new place. Give `secret` too, "
            "or change the url alone with a new secret. Nothing was changed.",
            reason="credential_needed",
        )
    return after


def differences(before: Subscriber, after: Subscriber) -> list[FieldChangeJson]:
    """The fields in which two subscribers differ. Empty if and only if they differ in none that can be given."""
    return [
        FieldChangeJson(field=field, before=old, after=new)
        for (field, old), (_, new) in zip(_shown(before), _shown(after), strict=True)
        if old != new
    ]


def _shown(subscriber: Subscriber) -> Iterator[tuple[str, Any]]:
    public: dict[str, Any] = to_builtins(public_json(subscriber))
    yield from ((field, value) for field, value in public.items() if field not in HISTORY)
    yield "sellerCentral", subscriber.seller_central or None

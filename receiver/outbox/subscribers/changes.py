"""Pure. Changes to a subscriber: its fields, its credentials when its address moves, and rotation of its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from receiver.errors import BadRequest, Conflict
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.formats.registry import format_spec
from receiver.outbox.retries import DAY, HOUR
from receiver.outbox.subscribers.reading import FIELDS, as_fields, read_subscriber
from receiver.outbox.subscribers.secrets import MOST_SECRETS, Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import UrlPolicy, place_of

OLD_VALID, OLD_VALID_MOST = 24 * HOUR, 7 * DAY
"""How long a replaced secret keeps signing, ms: by default, and at most."""
NEW = "new"
"""The value that asks for a generated secret."""
FIXED = ("name", "format", "secrets")
"""Fields that cannot be changed here: `rotate` changes secrets, the name is part of keys and logs, and each format has
different credentials. A `secret` changes only together with a `url`."""


def changed(subscriber: Subscriber, wanted: Mapping[str, Any], rules: UrlPolicy) -> Subscriber:
    """The subscriber with changed fields; None resets a field to its default. A `secret` replaces all signing secrets.

    Raises `BadRequest`: `bad_subscriber`, whose detail lists every problem, one per line; `credential_needed` if the
    address moves to another scheme, host or port without a new credential.
    """
    refused = (*FIXED, *(() if "url" in wanted else ("secret",)))
    fixed = [f"{key}: cannot be changed; {_instead(key)}" for key in refused if key in wanted]
    if fixed:
        raise BadRequest("\n".join(fixed), reason="bad_subscriber")
    if not wanted:
        known = ", ".join(name for name in FIELDS if name not in refused)
        raise BadRequest(f"Nothing to change: name one of {known}.", reason="bad_subscriber")
    fields = {**as_fields(subscriber), **wanted}
    if "secret" in wanted:
        fields.pop("secrets", None)
    given = {key: value for key, value in fields.items() if value is not None or key == "url" or key not in FIELDS}
    read = read_subscriber(given, rules, origin=subscriber.origin, now=subscriber.created_at)
    _check_credentials(subscriber, read, wanted)
    return msgspec.structs.replace(
        read,
        secrets=read.secrets if "secret" in wanted else subscriber.secrets,
        paused=subscriber.paused,
        paused_reason=subscriber.paused_reason,
        paused_at=subscriber.paused_at,
        paused_ms=subscriber.paused_ms,
        undeclared_at=subscriber.undeclared_at,
    )


def rotated(subscriber: Subscriber, new: str, now: int, old_valid: int = OLD_VALID) -> Subscriber:
    """The subscriber with a new secret. The old ones keep signing for `old_valid` ms, from 0 to seven days.

    Raises `Conflict` if the subscriber already has the secret or has too many.
    """
    if not format_spec(subscriber.format).signed:
        raise Conflict(
            f"{subscriber.format} is not signed, so there is no secret to rotate: change its credential.",
            reason="not_signed",
        )
    if any(secret.value == new for secret in subscriber.secrets if secret.live(now)):
        raise Conflict("The subscriber has this secret already. Give another.", reason="secret_exists")
    end = now + old_valid
    old = [
        Secret(secret.value, end if secret.expires_at is None else min(secret.expires_at, end))
        for secret in subscriber.secrets
        if secret.live(now) and old_valid > 0 and secret.value != new
    ]
    if len(old) >= MOST_SECRETS:
        first = min(secret.expires_at or end for secret in old)
        raise Conflict(
            f"There are {len(old)} live secrets, and at most {MOST_SECRETS} are allowed. The first ends at "
            f"{format_rfc3339(first)}: wait, or end all the old ones now with an `oldValidFor` of 0s.",
            reason="too_many_secrets",
        )
    return msgspec.structs.replace(subscriber, secrets=(Secret(new), *old))


def _check_credentials(before: Subscriber, after: Subscriber, wanted: Mapping[str, Any]) -> None:
    """A caller who may change the address must not be able to redirect credentials that the caller does not know."""
    if place_of(before.url) == place_of(after.url):
        return
    known = format_spec(before.format)
    held = [*(["secret"] if known.signed else []), *([known.credential] if before.credential else [])]
    missing = [field for field in held if field not in wanted]
    if missing:
        raise BadRequest(
            "The url changes its scheme, host or port, and credentials are not sent to a new place. Give "
            f"{' and '.join(f'`{field}`' for field in missing)} in the same change"
            f"{f' ({NEW} creates one and shows it once)' if 'secret' in missing else ''}. Nothing was changed.",
            reason="credential_needed",
        )


def _instead(key: str) -> str:
    if key == "secret":
        return "rotate the secret, or give it together with a url"
    return "rotate the secret" if key == "secrets" else "add another subscriber and remove this one"

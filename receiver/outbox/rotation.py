"""Pure. A subscriber changed by hand: its fields, and its secrets in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from receiver.errors import BadRequest, Conflict
from receiver.ledger.refund import format_rfc3339
from receiver.outbox.delivery import DAY, HOUR
from receiver.outbox.formats import traits
from receiver.outbox.secret import MOST_SECRETS, Secret
from receiver.outbox.subscriber import FIELDS, Subscriber, read_subscriber, written
from receiver.outbox.target import Rules

OLD_VALID, OLD_VALID_MOST = 24 * HOUR, 7 * DAY
"""How long a secret that was replaced goes on signing, ms: by default, and at most."""
FIXED = ("name", "format", "secret", "secrets")
"""Fields that are not changed like the others: `rotate` changes secrets, a name stands in keys and logs, and every
format has credentials of its own."""


def changed(subscriber: Subscriber, wanted: Mapping[str, Any], rules: Rules) -> Subscriber:
    """The subscriber with other fields; None puts a field back to its default.

    Raises `BadRequest` (`bad_subscriber`), whose detail names every problem, one a line.
    """
    fixed = [f"{key}: cannot be changed; {_instead(key)}" for key in FIXED if key in wanted]
    if fixed:
        raise BadRequest("\n".join(fixed), reason="bad_subscriber")
    if not wanted:
        known = ", ".join(name for name in FIELDS if name not in FIXED)
        raise BadRequest(f"Nothing to change: name one of {known}.", reason="bad_subscriber")
    fields = {**written(subscriber), **wanted}
    given = {key: value for key, value in fields.items() if value is not None or key == "url" or key not in FIELDS}
    read = read_subscriber(given, rules, origin=subscriber.origin, now=subscriber.created_at)
    return msgspec.structs.replace(
        read,
        secrets=subscriber.secrets,
        paused=subscriber.paused,
        paused_reason=subscriber.paused_reason,
        paused_at=subscriber.paused_at,
        paused_ms=subscriber.paused_ms,
    )


def rotated(subscriber: Subscriber, new: str, now: int, old_valid: int = OLD_VALID) -> Subscriber:
    """The subscriber with a new secret; those of before go on signing for `old_valid` ms, from 0 to seven days.

    Raises `Conflict` where the secret is there already, or would be one too many.
    """
    if not traits(subscriber.format).signed:
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
            f"There are {len(old)} live secrets, and {MOST_SECRETS} are the most. The first ends at "
            f"{format_rfc3339(first)}: wait, or end all the old ones now with an `oldValidFor` of 0s.",
            reason="too_many_secrets",
        )
    return msgspec.structs.replace(subscriber, secrets=(Secret(new), *old))


def _instead(key: str) -> str:
    return "rotate the secret" if key in ("secret", "secrets") else "add another subscriber and remove this one"

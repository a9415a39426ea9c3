"""Pure. Standard Webhooks: how a subscriber can tell that a delivery is ours, and secrets in that standard's form.

The rules are those of the Standard Webhooks specification 1.0.0: HMAC-SHA256 over `id.timestamp.body`, written as
`v1,<base64>`; a secret is `whsec_` and the base64 of 24 to 64 random bytes. The PyPI library of that name is not used:
it signs times in other zones than UTC wrongly, and lets exceptions of its parts escape.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable

from receiver.errors import Unreadable

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
FORM = f"{PREFIX} followed by the base64 of {SHORTEST} to {LONGEST} random bytes"


def format_secret(key: bytes) -> str:
    """The `whsec_…` text of a key of random bytes."""
    return PREFIX + base64.b64encode(key).decode("ascii")


def read_secret(text: str) -> bytes:
    """The key that a `whsec_…` text holds. Padding may be missing, as some generators leave it out.

    Raises `Unreadable` (`bad_secret`) with what is wrong and the mend; the text of the secret is never part of it.
    """
    if not text.startswith(PREFIX):
        raise Unreadable(f"does not begin with {PREFIX}; a secret is {FORM}", reason="bad_secret")
    encoded = text.removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unreadable(
            f"is not base64 after {PREFIX} (A-Z a-z 0-9 + / only); a secret is {FORM}", reason="bad_secret"
        ) from error
    if not SHORTEST <= len(key) <= LONGEST:
        size = "short" if len(key) < SHORTEST else "long"
        raise Unreadable(f"is too {size}: it holds {len(key)} bytes; a secret is {FORM}", reason="bad_secret")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature, `v1,<base64>`. `timestamp` is in seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode("ascii")


def webhook_headers(keys: Iterable[bytes], message_id: str, now: int, body: bytes) -> dict[str, str]:
    """The three headers of one attempt at `now` (ms): one signature per key, so that secrets can change at leisure.

    `message_id` stays the same over all attempts: it is the receiver's key against duplicates.
    """
    timestamp = now // 1000
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(key, message_id, timestamp, body) for key in keys),
    }

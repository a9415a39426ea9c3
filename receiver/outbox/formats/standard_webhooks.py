"""Pure. Standard Webhooks: how a subscriber can tell that a delivery is ours, and secrets in that standard's form.

The rules are those of the Standard Webhooks specification 1.0.0: HMAC-SHA256 over `id.timestamp.body`, written as
`v1,<base64>`; a secret is `whsec_` and the base64 of 24 to 64 random bytes. The PyPI library of that name is not used:
it signs times in other zones than UTC wrongly, and lets exceptions of its parts escape.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable


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

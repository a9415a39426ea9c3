"""Pure. Standard Webhooks: signatures by which a subscriber can verify a delivery.

The rules are those of the Standard Webhooks specification 1.0.0: HMAC-SHA256 over `id.timestamp.body`, written as
`v1,<base64>`; a secret is `whsec_` and the base64 of 24 to 64 random bytes. The PyPI library of that name is not used:
it signs times outside UTC wrongly, and leaks exceptions of its dependencies.
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
    """The three headers of one attempt at `now` (ms), with one signature per key, so that secrets can overlap.

    `message_id` is the same on every attempt: the receiver uses it to drop duplicates.
    """
    timestamp = now // 1000
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(key, message_id, timestamp, body) for key in keys),
    }

"""Pure. The secrets of a subscriber. Several may sign at once, so that old and new ones overlap during a rotation."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from receiver.errors import Malformed

MOST_SECRETS = 5
"""The current one and four that are expiring: more would only make the header longer."""


class Secret(msgspec.Struct, frozen=True):
    """A signing secret, `whsec_…`. It appears only in the stored form, never in a repr or in public JSON."""

    value: str
    expires_at: int | None = None
    """The time (ms) from which it no longer signs; None: it signs until it is removed."""

    def live(self, now: int) -> bool:
        """Whether it signs at `now` (ms)."""
        return self.expires_at is None or now < self.expires_at

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that distinguish two secrets."""
        return hashlib.sha256(self.value.encode("utf-8", "replace")).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Secret({self.fingerprint}, expires_at={self.expires_at})"

    def __rich_repr__(self) -> Any:
        yield self.fingerprint
        yield "expires_at", self.expires_at


def secret_problems(data: Mapping[str, object]) -> list[str]:
    """All problems of the fields `secret` and `secrets`, one sentence each, without a byte of their values."""
    if "secret" in data and "secrets" in data:
        return ["secrets: is set as well as secret; keep one of the two"]
    if "secrets" not in data:
        return [f"secret: {problem}" for problem in _one_secret(data.get("secret"))]
    values = data["secrets"]
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= MOST_SECRETS:
        return [f"secrets: is not a list of 1 to {MOST_SECRETS} secrets; each is {FORM}"]
    return [f"secrets[{i}]: {problem}" for i, value in enumerate(values) for problem in _one_secret(value)]


def _one_secret(value: object) -> list[str]:
    if not isinstance(value, str):
        return [f"is missing; a secret is {FORM}" if value is None else f"is not a text; a secret is {FORM}"]
    try:
        read_secret(value)
    except Malformed as error:
        return [error.detail]
    return []


PREFIX = "whsec_"


SHORTEST, LONGEST = 24, 64


FORM = f"{PREFIX} followed by the base64 of {SHORTEST} to {LONGEST} random bytes"


def format_secret(key: bytes) -> str:
    """The `whsec_…` text of a random key."""
    return PREFIX + base64.b64encode(key).decode("ascii")


def read_secret(text: str) -> bytes:
    """The key in a `whsec_…` text. Padding may be missing: some generators omit it.

    Raises `Malformed` (`bad_secret`) with the problem and its fix, never with the text of the secret.
    """
    if not text.startswith(PREFIX):
        raise Malformed(f"does not begin with {PREFIX}; a secret is {FORM}", reason="bad_secret")
    encoded = text.removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(
            f"is not base64 after {PREFIX} (A-Z a-z 0-9 + / only); a secret is {FORM}", reason="bad_secret"
        ) from error
    if not SHORTEST <= len(key) <= LONGEST:
        size = "short" if len(key) < SHORTEST else "long"
        raise Malformed(f"is too {size}: it holds {len(key)} bytes; a secret is {FORM}", reason="bad_secret")
    return key

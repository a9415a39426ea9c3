"""Pure. The secrets of a subscriber: several may sign at once, so that one can follow another at leisure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from receiver.errors import Unreadable
from receiver.outbox.signature import FORM, read_secret

MOST_SECRETS = 5
"""The current one and four that are on their way out: more would only make the header longer."""


class Secret(msgspec.Struct, frozen=True):
    """A signing secret, `whsec_…`. It is in the stored form and nowhere else: not in a repr, not in what people see."""

    value: str
    expires_at: int | None = None
    """From this ms on it no longer signs; None: it signs until it is taken away."""

    def live(self, now: int) -> bool:
        """Whether it signs at `now` (ms)."""
        return self.expires_at is None or now < self.expires_at

    @property
    def fingerprint(self) -> str:
        """Eight hex digits by which people can tell two secrets apart."""
        return hashlib.sha256(self.value.encode("utf-8", "replace")).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Secret({self.fingerprint}, expires_at={self.expires_at})"

    def __rich_repr__(self) -> Any:
        yield self.fingerprint
        yield "expires_at", self.expires_at


def secret_problems(data: Mapping[str, object]) -> list[str]:
    """Everything wrong with the fields `secret` and `secrets`, a sentence each; never with a byte of them."""
    if "secret" in data and "secrets" in data:
        return ["secrets: stands beside secret; keep one of the two"]
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
    except Unreadable as error:
        return [error.detail]
    return []

"""Edge: Redis. The names of all keys. One account's keys share a hash tag, and so a slot of a Redis Cluster."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "refunds:"
WAKE = f"{PREFIX}wake"
"""The channel on which a process says the name of an account that it has just written to."""

CERTIFICATES = f"{PREFIX}certificates"
"""Hash: `<partition>/<file hash>` → DER of certificates that have verified a message; for all accounts."""

PROBE = f"{PREFIX}probe"
"""Never there: the key of the write that writes nothing."""

OTHER = "other"
STATES = ("RefundInitiated", "Refunded", "Declined", OTHER)
"""The state indexes. Amazon's unknown words share one, so that a list of everything reads a fixed number of keys."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one account."""

    account: str

    def __call__(self, *parts: str) -> str:
        """`refunds:{us}:refund:S01-…` for `("refund", "S01-…")`."""
        return f"{PREFIX}{{{self.account}}}:{':'.join(parts)}"

    def state(self, state: str) -> str:
        """The index of refunds in this state, by last change."""
        return self("state", state if state in STATES else OTHER)

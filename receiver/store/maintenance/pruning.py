"""Edge: Redis. Removes old refunds that are final and that nothing depends on any more."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from receiver.ledger.order_reference import searchable
from receiver.ledger.refund import Refund, State
from receiver.store.deliveries.subscribers import SubscriberRepository
from receiver.store.redis.base import AccountRepository, Connection
from receiver.store.redis.damage import RecordUnreadable
from receiver.store.redis.keys import Keys
from receiver.store.redis.stream_ids import fixed_width
from receiver.store.refunds.refunds import Refunds

MARGIN = 86_400_000
"""ms by which the clock of stream ids (Redis's) and ours may have differed: an event's id is no proof of its time."""
MOST_OWED = 1_000
"""Waiting events of one subscriber to compare with a refund; if there are more, one of them is assumed to be of it."""


class Pruned(StrEnum):
    """What happened to one refund. It was removed only for PRUNED."""

    PRUNED = "pruned"
    GONE = "gone"
    """It does not exist."""
    CHANGED = "changed"
    """It was changed meanwhile."""
    PENDING = "pending"
    """It is not final, or has an unknown state."""
    CONFLICT = "conflict"
    """Amazon reported two different final states."""
    OPEN = "open"
    """The case of a declined refund is open: the buyer may still be owed the money."""
    LEGACY = "legacy"
    """Of Flexible Payments: otherwise its reference could be used again, for a second refund."""
    YOUNG = "young"
    SCHEDULED = "scheduled"
    """Amazon is about to be asked about it."""
    REQUEST_OPEN = "request_open"
    """A refund is being issued on its charge, or may have been."""
    REQUEST_KEPT = "request_kept"
    """The caller that issued it may still repeat the request with the same key, and gets this refund back (400
    days)."""
    OWED = "owed"
    """A subscriber has not received its events yet, or has too many waiting from that time to tell."""
    UNREADABLE = "unreadable"
    """Its record is damaged."""


class Pruning(AccountRepository):
    """Removes refunds of one account."""

    def __init__(self, connection: Connection, keys: Keys, refunds: Refunds, subscribers: SubscriberRepository) -> None:
        super().__init__(connection, keys)
        self._refunds, self._subscribers = refunds, subscribers

    async def old_refunds(self, state: State, before: int, offset: int, limit: int) -> list[str]:
        """Ids of refunds in this state that last changed before `before` (ms), oldest first."""
        index = self.keys.state(state)
        found = await self._read("ZRANGE", index, "-inf", f"({before}", "BYSCORE", "LIMIT", offset, limit)
        return self._texts(index, found)

    async def prune(self, refund_id: str, *, before: int | None, remove: bool) -> Pruned:
        """Remove a refund and everything kept of it, except what counts against its charge; or return what prevents
        that.

        `before` (ms): only if its last change was earlier; None for any age. Without `remove` nothing is written.
        """
        try:
            refund = await self._refunds.get(refund_id)
        except RecordUnreadable:
            return Pruned.UNREADABLE
        if refund is None:
            return Pruned.GONE
        taken, subscriber_list = await asyncio.gather(self._request_of(refund), self._subscribers.read())
        answer = await self._run(
            "prune",
            self._prune_keys(refund, taken, subscriber_list.names),
            [
                refund_id,
                refund.revision,
                refund.changed_at,
                "" if before is None else before,
                taken,
                fixed_width(f"{max(refund.first_seen_at - MARGIN, 0)}-0"),
                fixed_width(f"{refund.changed_at + MARGIN}-{2**64 - 1}"),
                MOST_OWED,
                int(remove),
            ],
        )
        pruned = Pruned(answer.decode())
        # The script may have run before on a connection that then broke: the refund existed a moment ago.
        return Pruned.PRUNED if pruned is Pruned.GONE and remove else pruned

    def _prune_keys(self, refund: Refund, refund_request_id: str, subscribers: list[str]) -> list[str]:
        return [
            self.keys("refund", refund.refund_id),
            self.keys("history", refund.refund_id),
            self.keys("charge", refund.charge_id),
            self.keys("taken", refund.charge_id),
            self.keys("due"),
            self.keys("hinted"),
            self.keys("hints"),
            self.keys("events"),
            self.keys.state(refund.state),
            self.keys("reason", refund.reason_code),
            self.keys("order", searchable(refund.order_reference)),
            self.keys("requests", refund_request_id),
            self.keys("trail", refund.refund_id),
            self.keys("refreshed"),
            self.keys("open:details"),
            self.keys("second_looks"),
            self.keys("reported"),
            self.keys("settled"),
            *(self.keys("owed", name) for name in subscribers),
        ]

    async def _request_of(self, refund: Refund) -> str:
        found: bytes | None = await self._read("HGET", self.keys("taken", refund.charge_id), refund.refund_id)
        return (found or b"").decode()

"""Edge: Redis. Removes old refunds that are final and that nothing depends on any more."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from receiver.ledger.order_reference import searchable
from receiver.ledger.refund import Refund, State
from receiver.store.deliveries.subscribers import SubscriberRepository
from receiver.store.redis.base import AccountRepository, Connection
from receiver.store.redis.damage import RecordUnreadable
from receiver.store.redis.keys import Keys, index_of
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
        answer = await self._script(
            "prune",
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
            more=[self.keys("owed", name) for name in subscriber_list.names],
            refund=refund_id,
            charge=refund.charge_id,
            state=index_of(refund.state),
            reason=refund.reason_code,
            order=searchable(refund.order_reference),
            request=taken,
        )
        pruned = Pruned(answer.decode())
        # The script may have run before on a connection that then broke: the refund existed a moment ago.
        return Pruned.PRUNED if pruned is Pruned.GONE and remove else pruned

    async def _request_of(self, refund: Refund) -> str:
        found: bytes | None = await self._read("HGET", self.keys("taken", refund.charge_id), refund.refund_id)
        return (found or b"").decode()

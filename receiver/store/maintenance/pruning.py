"""Edge: Redis. Old refunds are removed: those that are settled, and that nothing depends on any more."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from receiver.ledger.order_reference import searchable
from receiver.ledger.refund import Refund, State
from receiver.store.deliveries.upkeep import StreamRetention
from receiver.store.redis.damage import RecordUnreadable
from receiver.store.redis.stream_ids import fixed_width
from receiver.store.requests.known_charges import KnownCharges

MARGIN = 86_400_000
"""ms by which the clock of stream ids (Redis's) and ours may have differed: an event's id is no proof of its time."""
MOST_OWED = 1_000
"""Waiting events of one subscriber that are compared with one refund; of more, one is taken to be of it."""


class Pruned(StrEnum):
    """What became of one refund. Everything but PRUNED is kept, or not there."""

    PRUNED = "pruned"
    GONE = "gone"
    """There is none."""
    CHANGED = "changed"
    """Somebody wrote it meanwhile."""
    PENDING = "pending"
    """It is not final, or has a state that nobody knows."""
    CONFLICT = "conflict"
    """Amazon has told two different final states."""
    LEGACY = "legacy"
    """Of Flexible Payments: its reference could otherwise be used, and refund, again."""
    YOUNG = "young"
    SCHEDULED = "scheduled"
    """Amazon is about to be asked about it."""
    REQUEST_OPEN = "request_open"
    """A refund is being issued on its charge, or nobody knows whether it was."""
    REQUEST_KEPT = "request_kept"
    """Whoever issued it may still ask under the same key, and be answered with it (400 days)."""
    OWED = "owed"
    """A subscriber has not been told of it yet, or has so much waiting from its time that this is not known."""
    UNREADABLE = "unreadable"
    """Its record is damaged."""


class Pruning(KnownCharges, StreamRetention):
    """Removes refunds of one account."""

    async def old_refunds(self, account: str, state: State, before: int, offset: int, limit: int) -> list[str]:
        """Ids of refunds in this state whose last change was before `before` (ms), oldest first."""
        index = self._keys(account).state(state)
        found = await self._read("ZRANGE", index, "-inf", f"({before}", "BYSCORE", "LIMIT", offset, limit)
        return self._texts(index, found)

    async def prune(self, account: str, refund_id: str, *, before: int | None, remove: bool) -> Pruned:
        """Remove a refund, with all that is kept of it but what counts on its charge; or say what speaks against it.

        `before` is ms: only if its last change was before; None for any age. Without `remove` nothing is written.
        """
        try:
            refund = await self.refund(account, refund_id)
        except RecordUnreadable:
            return Pruned.UNREADABLE
        if refund is None:
            return Pruned.GONE
        taken, subscriber_list = await asyncio.gather(self._request_of(account, refund), self.subscriber_list(account))
        answer = await self._run(
            "prune",
            self._prune_keys(refund, taken, [*subscriber_list.subscribers, *subscriber_list.unreadable]),
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
        # The script may have run once before, on a connection that broke then: the refund was there a moment ago.
        return Pruned.PRUNED if pruned is Pruned.GONE and remove else pruned

    def _prune_keys(self, refund: Refund, request_id: str, subscribers: list[str]) -> list[str]:
        keys = self._keys(refund.account)
        return [
            keys("refund", refund.refund_id),
            keys("history", refund.refund_id),
            keys("charge", refund.charge_id),
            keys("taken", refund.charge_id),
            keys("due"),
            keys("hinted"),
            keys("hints"),
            keys("events"),
            keys.state(refund.state),
            keys("reason", refund.reason_code),
            keys("order", searchable(refund.order_reference)),
            keys("requests", request_id),
            keys("trail", refund.refund_id),
            keys("refreshed"),
            *(keys("owed", name) for name in subscribers),
        ]

    async def _request_of(self, account: str, refund: Refund) -> str:
        found: bytes | None = await self._read("HGET", self._keys(account)("taken", refund.charge_id), refund.refund_id)
        return (found or b"").decode()

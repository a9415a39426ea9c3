"""Pure. A refund's age: when it began, whether it is stuck, and whether it is a backfill."""

from __future__ import annotations

from receiver.ledger.refund import Refund, is_final

DAY = 86_400_000
STUCK_AFTER = DAY
"""Default of `accounts.stuck_after`. Amazon's page on asynchronous processing promises hours."""
BACKFILL_AFTER = 7 * DAY
"""A refund that became final longer than this before it was first seen here is a backfill: it raises no alert."""
FIRST_REFUNDS = 1_180_000_000_000
"""ms: May 2007, before any Amazon payment service existed. An earlier time is wrong and is ignored."""


def started_at(refund: Refund, now: int) -> int:
    """When the refund began (ms): Amazon's creationTimestamp if it is plausible, else when it was first seen here."""
    return refund.created_at if 0 < refund.created_at <= now else refund.first_seen_at


def is_stuck(refund: Refund, now: int, stuck_after: int) -> bool:
    """Whether the refund has been pending for longer than `stuck_after` (ms)."""
    return not is_final(refund.state) and now - started_at(refund, now) > stuck_after


def is_backfill(known: Refund | None, refund: Refund) -> bool:
    """Whether the refund became final more than 7 days before it was first seen, and has not changed since.

    False if it was pending when first seen, or if its times are unknown or impossible.
    """
    if not is_final(refund.state) or (known is not None and not known.backfill):
        return False
    settled_at, since = refund.updated_at, max(refund.created_at, FIRST_REFUNDS)
    return since <= settled_at < refund.first_seen_at - BACKFILL_AFTER

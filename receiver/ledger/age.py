"""Pure. How old a refund is: when it began, whether it is stuck, and whether it is old news."""

from __future__ import annotations

from receiver.ledger.refund import Refund, is_final

DAY = 86_400_000
STUCK_AFTER = DAY
"""The default of `accounts.stuck_after`. Amazon's page on asynchronous processing promises hours."""
BACKFILL_AFTER = 7 * DAY
"""A refund that was settled longer than this before it was first seen here is old news: nobody is called for it."""
FIRST_REFUNDS = 1_180_000_000_000
"""ms: May 2007, before there was any payment service of Amazon's. An earlier time is wrong, and makes no refund old."""


def started_at(refund: Refund, now: int) -> int:
    """When the refund began: Amazon's creationTimestamp where it is believable, else our first sight of it (ms)."""
    return refund.created_at if 0 < refund.created_at <= now else refund.first_seen_at


def is_stuck(refund: Refund, now: int, stuck_after: int) -> bool:
    """Whether the refund has been pending for longer than `stuck_after` (ms)."""
    return not is_final(refund.state) and now - started_at(refund, now) > stuck_after


def is_backfill(known: Refund | None, refund: Refund) -> bool:
    """Whether the refund was settled more than 7 days before it was first seen, and has not changed since.

    A refund that was pending when it was first seen is never old, nor is one whose times are unknown or impossible.
    """
    if not is_final(refund.state) or (known is not None and not known.backfill):
        return False
    settled_at, since = refund.updated_at, max(refund.created_at, FIRST_REFUNDS)
    return since <= settled_at < refund.first_seen_at - BACKFILL_AFTER

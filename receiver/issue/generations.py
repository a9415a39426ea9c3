"""Verb. Chooses the retry of a declined refund. A new one is allowed only if the last provably issued nothing.

Each retry is a generation with its own Idempotency-Key; the first generation uses the key that all versions have used.
The next generation begins only after the last one provably issued nothing, which is permanent. So at most one is open
at a time, and concurrent callers get the same one.
"""

from __future__ import annotations

from receiver.issue.orders import retry_id
from receiver.ledger.refund import Refund
from receiver.store.account import AccountStore


async def generation_of(store: AccountStore, declined: Refund) -> int:
    """The retry that is open, or that ended unclear or with a refund; else the next generation.

    Raises `StoreUnavailable`.
    """
    last = declined.retry_refused.generation if declined.retry_refused else 0
    generation = max(last, 1)
    while True:
        record = await store.requests.get(retry_id(declined.refund_id, generation))
        # Records are kept for 400 days; the declined refund stores their number for its whole lifetime.
        over = generation <= last if record is None else record.proves_nothing_issued
        if not over:
            return generation
        generation += 1

"""Verb. A declined refund can be issued again; and once more whenever the last retry provably issued nothing.

Each retry is a generation with its own Idempotency-Key; the first generation has the key that all versions have used.
The next generation begins only when the last one has provably issued nothing, which never changes again. So at most one
is open at a time, and callers that ask at once ask for the same one.
"""

from __future__ import annotations

from collections.abc import Callable

from receiver.ledger.refund import Refund
from receiver.ledger.refund_request import PreparedRefund
from receiver.store import Store


async def generation_of(store: Store, declined: Refund, make: Callable[[int], PreparedRefund]) -> PreparedRefund:
    """The retry that is open, or has ended with a refund or unclear; else the next generation.

    `make` prepares a generation. Raises `StoreUnavailable`.
    """
    last = declined.retry_refused.generation if declined.retry_refused else 0
    generation = max(last, 1)
    while True:
        prepared = make(generation)
        record = await store.requests.get(declined.account, prepared.id)
        # Records are kept for 400 days; the declined refund keeps their number as long as it is kept itself.
        over = generation <= last if record is None else record.proves_nothing_issued
        if not over:
            return prepared
        generation += 1

"""Verb. A declined refund can be issued again, and again where Amazon has proven that the try before issued nothing.

Each try has an Idempotency-Key of its own, with a generation number; the first is the one that all versions have used.
A generation follows only when the one before is over and proven, which it stays, so at most one is ever open: however
many ask at once, they ask for the same one.
"""

from __future__ import annotations

from collections.abc import Callable

from receiver.ledger.refund import Refund
from receiver.ledger.refund_request import PreparedRefund
from receiver.store import Store


async def generation_of(store: Store, declined: Refund, make: Callable[[int], PreparedRefund]) -> PreparedRefund:
    """The order of the retry that is open, or has ended with a refund or unclear; else that of the next generation.

    `make` gives the order of a generation. Raises `StoreUnavailable`.
    """
    last = declined.retry_refused.generation if declined.retry_refused else 0
    generation = max(last, 1)
    while True:
        order = make(generation)
        record = await store.requests.get(declined.account, order.id)
        # Records are kept for 400 days, what the declined refund tells of them as long as the refund.
        over = generation <= last if record is None else record.proves_nothing_issued
        if not over:
            return order
        generation += 1

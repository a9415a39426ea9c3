"""Edge: Redis. All that is known of a charge, read in one go: book, disputes, and what Amazon said of it last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from receiver.ledger.charge import OVER
from receiver.ledger.dispute import permission_of
from receiver.ledger.retryability import KnownCharge
from receiver.store.redis.damage import StoreDamaged
from receiver.store.refunds.disputes import Disputes
from receiver.store.requests.open_requests import OpenRequestStore

CHUNK = 25
"""Charges that are read at once. An answer to Amazon waits for no more than these."""


class KnownCharges(OpenRequestStore, Disputes):
    """The charges of one account."""

    over: Mapping[str, Mapping[str, int]] = {}
    """Account → what may be refunded over a capture, by currency."""

    async def known_charge(self, account: str, charge_id: str) -> KnownCharge:
        """One charge. Where what is kept of it is damaged, that is said, and nothing of it is used."""
        over = self.over.get(account, OVER)
        if not charge_id:
            return KnownCharge(over=over)
        try:
            entries, taken, disputes, kept = await asyncio.gather(
                self.charge_entries(account, charge_id),
                self.refund_owner(account, charge_id),
                self.disputes(account, permission_of(charge_id)),
                self.kept_charge(account, charge_id),
            )
        except StoreDamaged:
            return KnownCharge(over=over, readable=False)
        return KnownCharge(entries, taken, disputes, kept, over)

    async def known_charges(self, account: str, charge_ids: Iterable[str]) -> dict[str, KnownCharge]:
        """Each of these charges, in one round trip for every `CHUNK` of them."""
        wanted, found = list(dict.fromkeys(charge_ids)), dict[str, KnownCharge]()
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            charges = await asyncio.gather(*(self.known_charge(account, charge_id) for charge_id in chunk))
            found |= dict(zip(chunk, charges, strict=True))
        return found
